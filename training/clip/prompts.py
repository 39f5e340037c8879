"""The text side: prompts per region, their embeddings, and which encoder made these."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch.nn import functional

from fastbts import FastBTSError
from fastbts.files import atomic_write
from fastbts.spec import REGIONS
from training.clip.encoder import Clip, file_sha256
from training.model.text import orthonormal_vectors

PROMPTS = Path(__file__).with_name("prompts.yaml")
ORTHONORMAL = "orthonormal prompts, not CLIP"
"""Encoder id of vectors that no text encoder has made; stored in checkpoint and manifest."""


class PromptsError(FastBTSError, ValueError):
    """Prompts, or a file of them, that cannot be used."""


@dataclass(frozen=True)
class Prompts:
    """One text embedding per region.

    Attributes:
        labels: Regions, K names in the order of the network's outputs.
        texts: Per region the prompts that its embedding stands for.
        embeddings: (K, T) float32, rows of length 1; or all zero, for a network without text.
        encoder: What made the embeddings: `ClipSource.encoder`, a file of vectors, `ORTHONORMAL`.
        sha256: Of the embeddings as little-endian float32, row by row; computed.
    Raises:
        PromptsError: Not one such row per label.
    """

    labels: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    embeddings: NDArray[np.float32]
    encoder: str
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        shape, lengths = self.embeddings.shape, np.linalg.norm(self.embeddings, axis=-1)
        fits = len(shape) == 2 and len(self.labels) == len(self.texts) == shape[0]
        if not fits or (self.embeddings.any() and not np.allclose(lengths, 1, atol=1e-4)):
            raise PromptsError(
                f"{len(self.labels)} labels, {len(self.texts)} texts, embeddings {shape} with "
                f"lengths {lengths}: expected one row of length 1 per label; "
                "normalise the embeddings"
            )
        content = self.embeddings.astype("<f4").tobytes()
        object.__setattr__(self, "sha256", hashlib.sha256(content).hexdigest())

    def about(self) -> dict[str, Any]:
        """Everything but the vectors, as plain values for checkpoint and manifest."""
        return {
            "labels": list(self.labels),
            "texts": [list(t) for t in self.texts],
            "encoder": self.encoder,
            "sha256": self.sha256,
        }


def region_texts(path: Path = PROMPTS) -> dict[str, tuple[str, ...]]:
    """Reads the YAML file of prompts: region -> every template filled with each of its words."""
    values = yaml.safe_load(path.read_text())
    return {
        region: tuple(template.format(word) for word in words for template in values["templates"])
        for region, words in values["regions"].items()
    }


def orthonormal_prompts(
    labels: Sequence[str],
    texts: Sequence[Sequence[str]] | None = None,
    *,
    width: int = 512,
    seed: int = 0,
) -> Prompts:
    """Prompts of `orthonormal_vectors`, which carry no meaning of words."""
    vectors = orthonormal_vectors(len(labels), width, seed)
    texts = texts or [()] * len(labels)
    return Prompts(tuple(labels), tuple(tuple(t) for t in texts), vectors, ORTHONORMAL)


def clip_prompts(clip: Clip, texts: Mapping[str, Sequence[str]]) -> Prompts:
    """Prompts by CLIP: per region the mean of its texts' embeddings, at length 1.

    See Radford et al. 2021, arXiv 2103.00020, section 3.1.4.

    Args:
        clip: The model.
        texts: Region -> its texts, as `region_texts` returns them; regions in the order of the
            network's outputs.
    """
    means = [functional.normalize(clip.texts(list(t)).mean(0), dim=0) for t in texts.values()]
    rows = torch.stack(means).cpu().numpy()
    return Prompts(tuple(texts), tuple(tuple(t) for t in texts.values()), rows, clip.encoder)


def vector_prompts(
    path: Path, rows: Sequence[int], labels: Sequence[str] = REGIONS, *, centre: bool = False
) -> Prompts:
    """Prompts of vectors in a file, for experiments; their texts are not known here.

    Args:
        path: A torch file with one tensor (N, T); no other object in it is unpickled.
        rows: The row of each region.
        labels: The regions, K names.
        centre: Whether to subtract the rows' mean, which keeps what differs between them.
    Raises:
        ClipError: The file cannot be read.
        PromptsError: No such tensor or row, or rows that cannot be made length 1.
    """
    encoder = f"vectors {path.name} sha256:{file_sha256(path)}, rows {' '.join(map(str, rows))}"
    table = _table(path)
    if table.ndim != 2 or not all(0 <= row < len(table) for row in rows):
        raise PromptsError(
            f"{path}: expected one tensor (N, T) with rows {list(rows)}, "
            f"got {tuple(table.shape)}; choose other rows"
        )
    chosen = table[list(rows)].float()
    chosen = functional.normalize(chosen - chosen.mean(0) if centre else chosen, dim=1)
    encoder += ", centred" if centre else ""
    return Prompts(tuple(labels), ((),) * len(labels), chosen.numpy(), encoder)


def _table(path: Path) -> torch.Tensor:
    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise PromptsError(
            f"{path}: not a torch file of plain tensors: {error}; "
            "save it with torch.save(tensor, path)"
        ) from error
    if not isinstance(table, torch.Tensor):
        raise PromptsError(
            f"{path}: expected one tensor (N, T), got {type(table).__name__}; "
            "save it with torch.save(tensor, path)"
        )
    return table


def shuffled(prompts: Prompts) -> Prompts:
    """The same vectors, each at the wrong region: the control for the meaning of the words."""
    return Prompts(
        prompts.labels,
        (*prompts.texts[1:], prompts.texts[0]),
        np.roll(prompts.embeddings, -1, axis=0),
        f"{prompts.encoder}, shuffled",
    )


def zeroed_prompts(width: int, labels: Sequence[str] = REGIONS) -> Prompts:
    """No text: the control for what text adds to its mechanisms."""
    vectors = np.zeros((len(labels), width), np.float32)
    return Prompts(tuple(labels), ((),) * len(labels), vectors, "zeros, no text")


def save_prompts(path: Path, prompts: Prompts) -> None:
    """Writes an .npz without pickle, atomically: the embeddings, and the rest as JSON text."""
    with atomic_write(path) as file:
        np.savez(file, embeddings=prompts.embeddings, about=np.array(json.dumps(prompts.about())))


def load_prompts(path: Path) -> Prompts:
    """Reads a file of `save_prompts`.

    Raises:
        PromptsError: It is not such a file, or the embeddings do not match their SHA-256.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            about, embeddings = json.loads(str(stored["about"])), stored["embeddings"]
        texts = tuple(tuple(t) for t in about["texts"])
        prompts = Prompts(
            tuple(about["labels"]), texts, embeddings.astype(np.float32), about["encoder"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptsError(f"{path}: not a prompts file of save_prompts: {error}") from error
    if prompts.sha256 != about["sha256"]:
        raise PromptsError(
            f"{path}: embeddings have SHA-256 {prompts.sha256}, expected {about['sha256']}; "
            "make the file again"
        )
    return prompts
