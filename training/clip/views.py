"""What CLIP sees of a case: slices of three views as pictures, their embeddings and tokens.

Teaching the 3D-2D bridge by CLIP's view of the case follows the abstract of arXiv 2507.09966
(v1/v2). The choice of slices, colours and windows is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fastbts import MODALITIES
from training.clip.encoder import Clip

RGB = ("flair", "t1ce", "t2")
"""Modalities shown as red, green and blue: T1 adds least to these."""
WINDOW = (-2.5, 4.5)
"""Values shown as black and white, in standard deviations: about the 1st and 99th percentile of
brain voxels, tumour included."""
N_VIEWS = 3
"""Axial, coronal, sagittal: slices across D, H, W."""


def coloured(image: Tensor) -> Tensor:
    """Colours of normalised modalities.

    Args:
        image: (M, D, H, W), modalities in stored order.
    Returns:
        (3, D, H, W) in 0..1, background black.
    """
    low, high = WINDOW
    channels = image[[MODALITIES.index(name) for name in RGB]]
    return ((channels - low) / (high - low)).clamp(0, 1) * (image != 0).any(0)


def slice_places(n: int, n_slices: int) -> list[int]:
    """The middles of `n_slices` equal pieces of n voxels."""
    return [(2 * i + 1) * n // (2 * n_slices) for i in range(n_slices)]


def view_pictures(image: Tensor, n_slices: int) -> list[Tensor]:
    """Slices of a case as upright pictures.

    The last two axes of a picture are the remaining volume axes. Rows are reversed, since Z and Y
    grow upwards and forwards.

    Args:
        image: (M, D, H, W), normalised.
        n_slices: Slices per view.
    Returns:
        Per view (n_slices, 3, rows, columns) in 0..1.
    """
    colours = coloured(image)
    places = [torch.tensor(slice_places(n, n_slices)) for n in colours.shape[1:]]
    return [
        colours.index_select(1 + axis, places[axis]).movedim(1 + axis, 0).flip(2)
        for axis in range(N_VIEWS)
    ]


def view_embeddings(clip: Clip, image: Tensor, n_slices: int) -> Tensor:
    """Per view the mean over slices of CLIP's embeddings, at length 1: (M, D, H, W) -> (3, T)."""
    pictures = view_pictures(image, n_slices)
    return torch.stack([functional.normalize(clip.pictures(p).mean(0), dim=0) for p in pictures])


@torch.no_grad()
def patch_tokens(clip: Clip, pictures: Tensor) -> Tensor:
    """The ViT's patch tokens after its last layer norm, before the projection.

    Args:
        clip: The model.
        pictures: (N, 3, rows, columns) in 0..1.
    Returns:
        (N, T', g, g), T' the width of the ViT.
    """
    seen = clip.model.forward_intermediates(  # type: ignore[operator]
        image=clip.fitted(pictures),
        image_indices=1,
        normalize_intermediates=True,
        intermediates_only=True,
    )
    return seen["image_intermediates"][-1].float()


def token_volume(clip: Clip, image: Tensor, n_slices: int, stride: int = 8) -> Tensor:
    """Patch tokens at their places in the volume, interpolated, mean over the three views.

    Args:
        clip: The model.
        image: (M, D, H, W), normalised; background is black.
        n_slices: Slices per view.
        stride: Voxels per voxel of the result.
    Returns:
        (T', D/stride, H/stride, W/stride), T' the width of the ViT.
    """
    size = [n // stride for n in image.shape[1:]]
    views = []
    for axis, pictures in enumerate(view_pictures(image, n_slices)):
        planes = patch_tokens(clip, pictures).flip(2)  # rows as in the volume again
        # Slices and patches are the middles of equal pieces, which is where interpolation
        # without aligned corners expects them.
        placed = planes.movedim(0, 1 + axis).unsqueeze(0)
        views.append(functional.interpolate(placed, size, mode="trilinear")[0])
    return torch.stack(views).mean(0)
