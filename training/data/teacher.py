"""CLIP as a teacher: embeddings of whole cases, kept on disk, and patch tokens of crops."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from fastbts.files import atomic_write
from training.clip.encoder import Clip, ClipError, load_clip
from training.clip.views import N_VIEWS, RGB, WINDOW, token_volume, view_embeddings
from training.config import Recipe
from training.data.cases import TrainingCase


def token_reader(recipe: Recipe) -> Callable[[Tensor], Tensor] | None:
    """The function that computes `token_volume` of each crop; None where no bridge reads tokens.

    The function takes crops (B, M, D, H, W) and returns (B, T', D/8, H/8, W/8). Nothing is cached:
    each crop costs a pass of the ViT over 3 x slices pictures.

    Raises:
        ClipError: The model cannot be loaded; from the function: its tokens do not fit the network.
    """
    model, width = recipe.model, recipe.model.semantic.token_width
    if not width:
        return None
    clip, stride = load_clip(recipe.teacher), model.strides[model.semantic_level]

    def read(image: Tensor) -> Tensor:
        volumes = [token_volume(clip, sample, recipe.slices, stride) for sample in image]
        tokens = torch.stack(volumes)
        if tokens.shape[1] != width:
            raise ClipError(
                f"{clip.encoder}: patch tokens of width {tokens.shape[1]}, "
                f"model.semantic.token_width is {width}; change it"
            )
        return tokens

    return read


def teacher_for(recipe: Recipe, cases: Sequence[TrainingCase], cache: Path) -> list[TrainingCase]:
    """Adds CLIP's embeddings of the three views to cases, where the recipe's bridge has a teacher.

    The embeddings belong to the whole case, not to an augmented crop of it: a simplification.

    Args:
        recipe: Names the teacher and the number of slices.
        cases: Prepared cases.
        cache: Folder of the prepared cases; embeddings are stored there, and CLIP is loaded only
            if one is missing.
    Raises:
        ClipError: The teacher cannot be loaded, or does not fit the network.
    """
    width = recipe.model.semantic.teacher_width
    if not width or not recipe.teacher.model:
        return list(cases)
    encoder = recipe.teacher.encoder
    load = functools.cache(functools.partial(load_clip, recipe.teacher))
    taught = []
    for case in track(cases, "embedding by CLIP"):
        embeddings = _cached(case, encoder, recipe.slices, load, cache)
        if embeddings.shape != (N_VIEWS, width):
            raise ClipError(
                f"{case.name}: teacher {encoder} gives embeddings of length "
                f"{embeddings.shape[1]}, expected model.semantic.teacher_width = {width}; "
                "change either"
            )
        taught.append(replace(case, teacher=embeddings))
    return taught


def _cached(
    case: TrainingCase, encoder: str, n_slices: int, load: Callable[[], Clip], cache: Path
) -> NDArray[np.float32]:
    settings = {
        "encoder": encoder,
        "slices": n_slices,
        "rgb": RGB,
        "window": WINDOW,
        "shape": case.image.shape,
    }
    content = json.dumps(settings).encode() + np.ascontiguousarray(case.image).data
    path = cache / f"{case.name}-clip-{hashlib.sha256(content).hexdigest()[:16]}.npz"
    if not path.is_file():
        image = torch.from_numpy(case.image).float()
        with atomic_write(path) as file:
            np.savez(file, embeddings=view_embeddings(load(), image, n_slices).numpy())
    with np.load(path, allow_pickle=False) as stored:
        return stored["embeddings"]
