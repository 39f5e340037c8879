"""The text side: prompts per region, their embeddings, and where these come from.

`python -m training.clip.prompts --out prompts.npz --model ViT-B-32 --pretrained laion2b_s34b_b79k`
"""

from __future__ import annotations

import argparse
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
from training.clip.encoder import Clip, ClipSource, file_sha256, load_clip

PROMPTS = Path(__file__).with_name("prompts.yaml")
ORTHONORMAL = "orthonormal prompts, not CLIP"
"""Encoder id of vectors that no text encoder has made; goes into the checkpoint and the engine's manifest."""


class PromptsError(FastBTSError, ValueError):
    """Prompts, or a file of them, that cannot be used."""


@dataclass(frozen=True)
class Prompts:
    """One text embedding per region.

    Attributes:
        labels: Regions, K names in the order of the network's outputs.
        texts: Per region the prompts that its embedding stands for.
        embeddings: (K, T) float32, rows of length 1.
        encoder: What made the embeddings: `ClipSource.encoder`, a file of vectors, or `ORTHONORMAL`.
        sha256: Of the embeddings as little-endian float32, row by row; computed.
    """

    labels: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    embeddings: NDArray[np.float32]
    encoder: str
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        shape, lengths = self.embeddings.shape, np.linalg.norm(self.embeddings, axis=-1)
        if (
            len(shape) != 2
            or not len(self.labels) == len(self.texts) == shape[0]
            or not np.allclose(lengths, 1, atol=1e-4)
        ):
            raise PromptsError(
                f"{len(self.labels)} labels, {len(self.texts)} texts, embeddings {shape} with lengths {lengths}: expected one "
                "row of length 1 per label; normalise the embeddings"
            )
        object.__setattr__(
            self, "sha256", hashlib.sha256(self.embeddings.astype("<f4").tobytes()).hexdigest()
        )

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
    labels: Sequence[str],
    texts: Sequence[Sequence[str]] | None = None,
    *,
    width: int = 512,
    seed: int = 0,
) -> Prompts:
    """K random orthonormal vectors of length `width`: tell the regions apart and carry no meaning of words."""
    drawn = np.random.default_rng(seed).standard_normal((width, len(labels)))
    q, r = np.linalg.qr(drawn)
    rows = (q * np.sign(np.diag(r))).T.astype(
        np.float32
    )  # signs are LAPACK's choice; this makes them ours
    return Prompts(
        tuple(labels),
        tuple(tuple(t) for t in texts or [()] * len(labels)),
        np.ascontiguousarray(rows),
        ORTHONORMAL,
    )


def clip_prompts(clip: Clip, texts: Mapping[str, Sequence[str]]) -> Prompts:
    """Per region the mean over its texts of CLIP's embeddings of length 1, made length 1 again (Radford et al. 2021, section 3.1.4).

    Args:
        clip: The model.
        texts: Region -> its texts, as `region_texts` gives them; regions in the order of the network's outputs.
    """
    rows = torch.stack(
        [functional.normalize(clip.texts(list(t)).mean(0), dim=0) for t in texts.values()]
    )
    return Prompts(
        tuple(texts), tuple(tuple(t) for t in texts.values()), rows.cpu().numpy(), clip.encoder
    )


def vector_prompts(
    path: Path, rows: Sequence[int], labels: Sequence[str] = REGIONS, *, centre: bool = False
) -> Prompts:
    """Vectors that someone else's text encoder has made, for experiments; their texts are not known here.

    Args:
        path: A torch file with one tensor (N, T); nothing else in it is ever unpickled.
        rows: The row of each region.
        labels: The regions, K names.
        centre: Whether to subtract the rows' mean, which leaves what tells them apart where they are all alike.
    Raises:
        PromptsError: No such tensor or row, or rows that cannot be made length 1.
    """
    encoder = f"vectors {path.name} sha256:{file_sha256(path)}, rows {' '.join(map(str, rows))}{', centred' if centre else ''}"
    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise PromptsError(
            f"{path}: not a torch file of plain tensors: {error}; save it with torch.save(tensor, path)"
        ) from error
    if (
        not isinstance(table, torch.Tensor)
        or table.ndim != 2
        or not all(0 <= row < len(table) for row in rows)
    ):
        got = tuple(table.shape) if isinstance(table, torch.Tensor) else type(table).__name__
        raise PromptsError(
            f"{path}: expected one tensor (N, T) with rows {list(rows)}, got {got}; choose other rows"
        )
    chosen = table[list(rows)].float()
    chosen = functional.normalize(chosen - chosen.mean(0) if centre else chosen, dim=1)
    return Prompts(tuple(labels), ((),) * len(labels), chosen.numpy(), encoder)


def shuffled(prompts: Prompts) -> Prompts:
    """The same vectors, each given to the wrong region: the control that shows whether their meaning matters."""
    turned = (*prompts.texts[1:], prompts.texts[0])
    return Prompts(
        prompts.labels,
        turned,
        np.roll(prompts.embeddings, -1, axis=0),
        f"{prompts.encoder}, shuffled",
    )


def save_prompts(path: Path, prompts: Prompts) -> None:
    """Writes `prompts` as .npz without pickle, whole or not at all: the embeddings, and the rest as JSON text."""
    with atomic_write(path) as stream:
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
        prompts = Prompts(
            tuple(about["labels"]), texts, embeddings.astype(np.float32), about["encoder"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptsError(f"{path}: not a prompts file of save_prompts: {error}") from error
    if prompts.sha256 != about["sha256"]:
        raise PromptsError(
            f"{path}: embeddings have SHA-256 {prompts.sha256}, expected {about['sha256']}; make the file again"
        )
    return prompts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file to write, .npz")
    parser.add_argument("--model", default="ViT-B-32", help="open_clip's name of the architecture")
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument(
        "--pretrained",
        default="",
        help="tag of weights that open_clip downloads, such as laion2b_s34b_b79k",
    )
    origin.add_argument("--weights", default="", help="local file of weights")
    origin.add_argument(
        "--random", type=int, default=-1, help="seed of random weights: tries the path, is not CLIP"
    )
    origin.add_argument(
        "--vectors", type=Path, help="torch file of vectors (N, T), in place of a model"
    )
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[],
        help=f"with --vectors: rows that stand for {' '.join(REGIONS)}",
    )
    parser.add_argument(
        "--centre", action="store_true", help="with --vectors: subtract the rows' mean"
    )
    parser.add_argument(
        "--shuffle", action="store_true", help="give each region the vector of another: the control"
    )
    args = parser.parse_args()
    try:
        prompts = shuffled(_asked_for(args)) if args.shuffle else _asked_for(args)
        save_prompts(args.out, prompts)
    except FastBTSError as error:
        raise SystemExit(f"error: {error}") from None
    print(
        f"{args.out}: {', '.join(prompts.labels)}, embeddings {prompts.embeddings.shape}, {prompts.encoder}"
    )


def _asked_for(args: argparse.Namespace) -> Prompts:
    if args.vectors:
        return vector_prompts(args.vectors, args.rows, centre=args.centre)
    return clip_prompts(
        load_clip(ClipSource(args.model, args.pretrained, args.weights, args.random)),
        region_texts(),
    )


if __name__ == "__main__":
    main()
