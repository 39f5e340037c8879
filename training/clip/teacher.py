"""What CLIP sees of a case: slices as pictures, their embeddings to teach the bridge, their patch tokens to be added to it.

Teaching the 3D-2D bridge by CLIP's view of the case follows the abstract of arXiv 2507.09966 (v1/v2); which slices, colours and
windows, and that the loss is a cosine, is ours.
"""

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
from torch.nn import functional

from fastbts import MODALITIES
from fastbts.files import atomic_write
from training.clip.encoder import Clip, ClipError, load_clip
from training.config import Recipe
from training.data.cases import TrainingCase

RGB = ("flair", "t1ce", "t2")
"""Modalities shown as red, green and blue: T1 adds least to these."""
WINDOW = (-2.5, 4.5)
"""Standard deviations shown as black and white: about the 1st to 99th percentile of brain voxels, tumour included."""
N_VIEWS = 3
"""Axial, coronal, sagittal: looking along D, H, W."""


def coloured(image: Tensor) -> Tensor:
    """Normalised modalities (M, D, H, W) in stored order -> colours (3, D, H, W) in 0..1, background black."""
    low, high = WINDOW
    channels = image[[MODALITIES.index(name) for name in RGB]]
    return ((channels - low) / (high - low)).clamp(0, 1) * (image != 0).any(0)


def slice_places(n: int, n_slices: int) -> list[int]:
    """The middles of `n_slices` equal pieces of n voxels."""
    return [(2 * i + 1) * n // (2 * n_slices) for i in range(n_slices)]


def view_pictures(image: Tensor, n_slices: int) -> list[Tensor]:
    """Slices of a case (M, D, H, W) as pictures, upright: per view (n_slices, 3, rows, columns) in 0..1.

    The last two axes of a picture are the remaining volume axes; rows are turned round, since Z and Y grow upwards and forwards.
    """
    colours = coloured(image)
    places = [torch.tensor(slice_places(n, n_slices)) for n in colours.shape[1:]]
    return [
        colours.index_select(1 + axis, places[axis]).movedim(1 + axis, 0).flip(2)
        for axis in range(N_VIEWS)
    ]


def view_embeddings(clip: Clip, image: Tensor, n_slices: int) -> Tensor:
    """Per view the mean over slices of CLIP's embeddings of length 1, made length 1 again: (M, D, H, W) -> (3, T)."""
    return torch.stack(
        [
            functional.normalize(clip.pictures(p).mean(0), dim=0)
            for p in view_pictures(image, n_slices)
        ]
    )


@torch.no_grad()
def patch_tokens(clip: Clip, pictures: Tensor) -> Tensor:
    """The ViT's patch tokens behind its last layer norm, before the projection: (N, 3, rows, columns) -> (N, T', g, g)."""
    seen = clip.model.forward_intermediates(  # type: ignore[operator]
        image=clip.fitted(pictures),
        image_indices=1,
        normalize_intermediates=True,
        intermediates_only=True,
    )
    return seen["image_intermediates"][-1].float()


def token_volume(clip: Clip, image: Tensor, n_slices: int, stride: int = 8) -> Tensor:
    """Patch tokens at their places, interpolated between, mean over the three views (factor 1/3).

    Args:
        clip: The model.
        image: (M, D, H, W), normalised; what is background is black.
        n_slices: Slices per axis.
        stride: Voxels per voxel of the result.
    Returns:
        (T', D/stride, H/stride, W/stride); T' is the width of the ViT.
    """
    size = [n // stride for n in image.shape[1:]]
    views = []
    for axis, pictures in enumerate(view_pictures(image, n_slices)):
        planes = patch_tokens(clip, pictures).flip(
            2
        )  # (n_slices, T', g, g), rows as in the volume again
        # Slices and patches are the middles of equal pieces: just where interpolation without aligned corners expects them.
        placed = planes.movedim(0, 1 + axis).unsqueeze(0)
        views.append(functional.interpolate(placed, size, mode="trilinear")[0])
    return torch.stack(views).mean(0)


def token_reader(recipe: Recipe) -> Callable[[Tensor], Tensor] | None:
    """What gives a batch of crops (B, M, D, H, W) its `token_volume`s (B, T', D/8, H/8, W/8); None where no bridge reads them.

    Made from the very crop that the network sees, so nothing is cached: one pass of the ViT over 3 x slices pictures per crop.

    Raises:
        ClipError: The model cannot be had; when called: its tokens do not fit the network.
    """
    model, width = recipe.model, recipe.model.semantic.token_width
    if not width:
        return None
    clip, stride = load_clip(recipe.teacher), model.strides[model.semantic_level]

    def read(image: Tensor) -> Tensor:
        tokens = torch.stack(
            [token_volume(clip, sample, recipe.slices, stride) for sample in image]
        )
        if tokens.shape[1] != width:
            raise ClipError(
                f"{clip.encoder}: patch tokens of width {tokens.shape[1]}, model.semantic.token_width is {width}; change it"
            )
        return tokens

    return read


def teacher_for(recipe: Recipe, cases: Sequence[TrainingCase], cache: Path) -> list[TrainingCase]:
    """The cases with CLIP's view embeddings, where the recipe's bridge has a teacher; else as they are.

    The embeddings are those of the whole case as it is, not of a crop and its variations: a simplification.

    Args:
        recipe: Names the teacher and the number of slices.
        cases: Prepared cases.
        cache: Folder of the prepared cases; embeddings are kept there, and CLIP is loaded only if one is missing.
    Raises:
        ClipError: The teacher cannot be had, or does not fit the network.
    """
    width = recipe.model.semantic.teacher_width
    if not width or not recipe.teacher.model:
        return list(cases)
    encoder = recipe.teacher.encoder
    load = functools.cache(functools.partial(load_clip, recipe.teacher))
    taught = [
        replace(case, teacher=_cached(case, encoder, recipe.slices, load, cache))
        for case in track(cases, "asking CLIP")
    ]
    for case in taught:
        if case.teacher is not None and case.teacher.shape != (N_VIEWS, width):
            raise ClipError(
                f"{case.name}: teacher {encoder} gives embeddings of length {case.teacher.shape[1]}, expected "
                f"model.semantic.teacher_width = {width}; change either"
            )
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
    key = hashlib.sha256(
        json.dumps(settings).encode() + np.ascontiguousarray(case.image).data
    ).hexdigest()[:16]
    path = cache / f"{case.name}-clip-{key}.npz"
    if not path.is_file():
        embeddings = view_embeddings(load(), torch.from_numpy(case.image).float(), n_slices).numpy()
        with atomic_write(path) as stream:
            np.savez(stream, embeddings=embeddings)
    with np.load(path, allow_pickle=False) as stored:
        return stored["embeddings"]
