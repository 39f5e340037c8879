"""The text side: prompts per region, their embeddings, and where these come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

PROMPTS = Path(__file__).with_name("prompts.yaml")
ORTHONORMAL = "orthonormal prompts, not CLIP"
"""Encoder id of vectors that no text encoder has made; goes into the checkpoint and the engine's manifest."""


class PromptsError(ValueError):
    """A prompts file that cannot be used."""


@dataclass(frozen=True)
class Prompts:
    """One text embedding per region.

    Attributes:
        labels: Regions, K names in the order of the network's outputs.
        texts: Per region the prompts that its embedding stands for.
        embeddings: (K, T) float32, rows of length 1.
        encoder: What made the embeddings: a CLIP model and its weights, or `ORTHONORMAL`.
        sha256: Of the embeddings as little-endian float32, row by row; computed.
    """

    labels: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    embeddings: NDArray[np.float32]
    encoder: str
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        shape, lengths = self.embeddings.shape, np.linalg.norm(self.embeddings, axis=-1)
        if len(shape) != 2 or not len(self.labels) == len(self.texts) == shape[0] or not np.allclose(lengths, 1, atol=1e-4):
            raise PromptsError(
                f"{len(self.labels)} labels, {len(self.texts)} texts, embeddings {shape} with lengths {lengths}: expected one "
                "row of length 1 per label; normalise the embeddings"
            )
        object.__setattr__(self, "sha256", hashlib.sha256(self.embeddings.astype("<f4").tobytes()).hexdigest())

    def about(self) -> dict[str, Any]:
        """Everything but the vectors, as plain values for checkpoint and manifest."""
        return {
            "labels": list(self.labels),
            "texts": [list(t) for t in self.texts],
            "encoder": self.encoder,
            "sha256": self.sha256,
        }


def region_texts(path: Path = PROMPTS) -> dict[str, tuple[str, ...]]:
    """Reads the YAML of templates and words: region -> every template filled with each of the region's words."""
    values = yaml.safe_load(path.read_text())
    return {
        region: tuple(template.format(word) for word in words for template in values["templates"])
        for region, words in values["regions"].items()
    }


def orthonormal_prompts(
    labels: Sequence[str], texts: Sequence[Sequence[str]] | None = None, *, width: int = 512, seed: int = 0
) -> Prompts:
    """K random orthonormal vectors of length `width`: tell the regions apart and carry no meaning of words."""
    drawn = np.random.default_rng(seed).standard_normal((width, len(labels)))
    q, r = np.linalg.qr(drawn)
    rows = (q * np.sign(np.diag(r))).T.astype(np.float32)  # signs are LAPACK's choice; this makes them ours
    return Prompts(tuple(labels), tuple(tuple(t) for t in texts or [()] * len(labels)), np.ascontiguousarray(rows), ORTHONORMAL)


def save_prompts(path: Path, prompts: Prompts) -> None:
    """Writes `prompts` as .npz without pickle: the embeddings, and the rest as JSON text."""
    with path.open("wb") as stream:
        np.savez(stream, embeddings=prompts.embeddings, about=np.array(json.dumps(prompts.about())))


def load_prompts(path: Path) -> Prompts:
    """Reads a file of `save_prompts`.

    Raises:
        PromptsError: It is no such file, or the embeddings are not those that its SHA-256 was taken of.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            about, embeddings = json.loads(str(stored["about"])), stored["embeddings"]
        texts = tuple(tuple(t) for t in about["texts"])
        prompts = Prompts(tuple(about["labels"]), texts, embeddings.astype(np.float32), about["encoder"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptsError(f"{path}: not a prompts file of save_prompts: {error}") from error
    if prompts.sha256 != about["sha256"]:
        raise PromptsError(f"{path}: embeddings have SHA-256 {prompts.sha256}, expected {about['sha256']}; make the file again")
    return prompts
