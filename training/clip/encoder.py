"""CLIP itself: an open_clip model with its tokenizer, and an id that says which weights it has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastbts import FastBTSError

RANDOM = "random weights, not CLIP"
"""Part of the id of an untrained model."""
INSTALL = "install matching versions with: pip install 'fastbts[train]'"


class ClipError(FastBTSError):
    """A CLIP model that cannot be loaded or does not fit; the message says what to do."""


@dataclass(frozen=True)
class ClipSource:
    """Which CLIP: an architecture, and exactly one origin of its weights. By default none."""

    model: str = ""
    """open_clip's name of the architecture, such as ViT-B-32; empty for no CLIP."""
    pretrained: str = ""
    """Tag of weights that open_clip downloads, such as laion2b_s34b_b79k."""
    weights: str = ""
    """A local file of weights."""
    random: int = -1
    """Seed of random weights, to try the code without trained ones; below 0 for none."""

    def mistake(self) -> str:
        """What is wrong with the combination, or ""."""
        origins = bool(self.pretrained) + bool(self.weights) + (self.random >= 0)
        if ":" in self.model:
            return (
                f"model {self.model!r}: expected a plain name of open_clip.list_models(); "
                "name the weights separately"
            )
        if origins != bool(self.model):
            return (
                f"model {self.model!r} with {origins} of pretrained, weights and random: "
                "expected a model and exactly one of them"
            )
        return ""

    @property
    def encoder(self) -> str:
        """The model and the origin of its weights: the tag, the SHA-256 of the file, or `RANDOM`.

        Raises:
            ClipError: The file of weights cannot be read.
        """
        if self.random >= 0:
            return f"{RANDOM} ({self.model}, seed {self.random})"
        return (
            f"{self.model} sha256:{file_sha256(Path(self.weights))}"
            if self.weights
            else f"{self.model} {self.pretrained}"
        )


@dataclass(frozen=True, eq=False)
class Clip:
    """A frozen CLIP model.

    Attributes:
        encoder: Id of model and weights, `ClipSource.encoder`.
        name: open_clip's name of the architecture.
        model: open_clip's model, in eval mode.
        size: Rows and columns of the pictures it reads.
        mean: Mean of its training pictures, (3, 1, 1).
        std: Their standard deviation, (3, 1, 1).
    """

    encoder: str
    name: str
    model: nn.Module
    size: tuple[int, int]
    mean: Tensor
    std: Tensor

    @cached_property
    def tokenize(self) -> Callable[[list[str]], Tensor]:
        """Texts -> token numbers (N, L); made on first use, as it reads a large vocabulary."""
        return _open_clip().get_tokenizer(self.name)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, (N, T), of length 1."""
        tokens = self.tokenize(list(texts))
        embeddings = self.model.encode_text(tokens)  # type: ignore[operator]
        return functional.normalize(embeddings.float(), dim=1)

    @torch.no_grad()
    def pictures(self, pictures: Tensor) -> Tensor:
        """Embeddings of pictures (N, 3, rows, columns) in 0..1: (N, T), of length 1."""
        embeddings = self.model.encode_image(self.fitted(pictures))  # type: ignore[operator]
        return functional.normalize(embeddings.float(), dim=1)

    def fitted(self, pictures: Tensor) -> Tensor:
        """Pictures at the model's size, mean and standard deviation.

        Stretched to a square. Brains stay within 3/4 to 4/3, the range of open_clip's own crops.
        """
        sized = functional.interpolate(pictures, self.size, mode="bicubic", antialias=True)
        return (sized.clamp(0, 1) - self.mean) / self.std


def load_clip(source: ClipSource) -> Clip:
    """Loads a CLIP model through open_clip, downloading its weights where `source` names a tag.

    Raises:
        ClipError: open_clip is not installed or does not know the model, or the weights cannot be
            loaded or do not fit.
    """
    open_clip = _open_clip()
    _check_source(open_clip, source)
    encoder = source.encoder
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(max(source.random, 0))
            pretrained = source.weights or source.pretrained or None
            made = open_clip.create_model_and_transforms(source.model, pretrained=pretrained)
    except Exception as error:  # open_clip, the hub and torch raise errors of many kinds
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise ClipError(
            f"{source.weights or source.model}: cannot load {source.model} {source.pretrained}: "
            f"{what}; name a model of open_clip.list_models(), or download the weights elsewhere "
            "and give their file"
        ) from error
    model = made[0].eval().requires_grad_(False)
    about = open_clip.get_model_preprocess_cfg(model)
    size = about["size"]
    rows, columns = size if isinstance(size, tuple | list) else (size, size)
    mean, std = (torch.tensor(about[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    return Clip(encoder, source.model, model, (rows, columns), mean, std)


def _check_source(open_clip: Any, source: ClipSource) -> None:
    if not source.model or source.mistake():
        expected = "expected one of open_clip.list_models(), such as ViT-B-32"
        raise ClipError(source.mistake() or f"no CLIP model named; {expected}")
    # open_clip would also take a file as `pretrained`; ours is `weights`.
    tag = source.pretrained
    if tag and not open_clip.get_pretrained_cfg(source.model, tag):
        known = ", ".join(open_clip.list_pretrained_tags_by_model(source.model)) or "none"
        raise ClipError(
            f"no weights {tag!r} of model {source.model!r}; known tags: {known}; or give a file"
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        ClipError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ClipError(
            f"{path}: cannot be read: {error.strerror}; expected a file of weights or vectors"
        ) from error


def _open_clip() -> Any:
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision does not fit torch
        raise ClipError(f"open_clip cannot be imported: {error}; {INSTALL}") from error
    return open_clip
