"""Crops of a case and their augmentation (MONAI transforms and our own)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.config import AugmentConfig
from training.data.scan import box_mean

KEYS = ("image", "label")
Array = NDArray[Any]


def crop_start(
    label: Array, crop: tuple[int, ...], config: AugmentConfig, rng: np.random.Generator
) -> Array:
    """Draws where a crop begins: (3,) voxels; negative if the case is smaller than the crop.

    Args:
        label: (D, H, W) uint8 label map.
        crop: Size in voxels.
        config: Has the chances of a centre on tumour or on enhancing tumour.
        rng: Source of randomness.
    """
    shape, size = np.array(label.shape), np.array(crop)
    centre = rng.uniform(size / 2, np.maximum(shape - size / 2, size / 2))
    draw = rng.random()
    if draw < config.et_centred + config.tumour_centred:
        enhancing, tumour = np.flatnonzero(label == 4), np.flatnonzero(label)
        wanted = enhancing if draw < config.et_centred and enhancing.size else tumour
        if wanted.size:
            centre = np.array(np.unravel_index(rng.choice(wanted), label.shape))
    return inside(np.round(centre - size / 2), label.shape, crop)


def inside(start: Array, shape: tuple[int, ...], crop: tuple[int, ...]) -> Array:
    """Moves a crop into the case, or centres it along axes where the case is smaller."""
    room = np.array(shape) - crop
    low = np.minimum(room, 0) // 2
    return np.clip(start, low, np.maximum(room, low)).astype(int)


def cut(image: Array, label: Array, start: Array, crop: tuple[int, ...]) -> tuple[Array, Array]:
    """Cuts a crop, zero-padded outside the case.

    Args:
        image: (M, D, H, W) normalised.
        label: (D, H, W) uint8 label map.
        start: From `crop_start`.
        crop: Size in voxels.
    Returns:
        Copies of shape (M, *crop) float32 and crop uint8.
    """
    source = tuple(
        slice(max(s, 0), min(s + n, d)) for s, n, d in zip(start, crop, label.shape, strict=True)
    )
    target = tuple(slice(c.start - s, c.stop - s) for c, s in zip(source, start, strict=True))
    image_crop = np.zeros((len(image), *crop), np.float32)
    label_crop = np.zeros(crop, np.uint8)
    image_crop[(slice(None), *target)] = image[(slice(None), *source)]
    label_crop[target] = label[source]
    return image_crop, label_crop


Crop = tuple[Array, Array]
"""(M, D, H, W) float32 image and (D, H, W) uint8 labels."""


def carve_mix(host: Crop, donor: Crop, rng: np.random.Generator) -> Crop:
    """Copies the donor's tumour, with a rim of random width, to the same place of the host's brain.

    As in CarveMix (Zhang et al. 2021, arXiv 2108.06883), but with the share of tumour nearby
    instead of the signed distance. The edge is blended over three voxels.
    """
    (image, label), (donor_image, donor_label) = host, donor
    carved = _share(donor_label > 0, 7) > rng.uniform(0.02, 0.5)
    carved &= image.any(0) & donor_image.any(0)
    soft = _share(carved, 3)
    mixed = image + soft * (donor_image - image)
    return mixed * (image != 0), np.where(carved, donor_label, label)


def _share(mask: Array, size: int) -> Array:
    """Share of a mask (D, H, W) in the cube of `size` voxels around each voxel, float32."""
    return box_mean(torch.from_numpy(mask.astype(np.float32)), size).numpy()


LOW_GRADE_CORE = {"flair": (-0.5, 2.2), "t1": (-2.2, -0.8), "t2": (1.5, 3.2)}
"""Lowest and highest mean of a non-enhancing core, in standard deviations of the normalised image.

From the one low-grade training case and the literature: dark on T1, bright on T2, on FLAIR anything
from suppressed (T2-FLAIR mismatch sign, Patel et al. 2017, doi:10.1158/1078-0432.CCR-17-0560) to
bright.
"""


def low_grade_core(image: Array, label: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Repaints the tumour core as non-enhancing, with label 1, which BraTS uses for such a core.

    Args:
        image: (4, D, H, W) float32, normalised, in the order FLAIR, T1, T1ce, T2.
        label: (D, H, W) uint8.
        rng: Source of randomness.
    Returns:
        New arrays. The new core is the annotated one and the inner part of the tumour.
    """
    tumour = torch.from_numpy((label > 0).astype(np.float32))[None, None]
    blocks = functional.avg_pool3d(tumour, 4)
    nearby = functional.avg_pool3d(blocks, 3, 1, 1, count_include_pad=False)  # within 12 voxels
    share = functional.interpolate(nearby, label.shape, mode="trilinear")[0, 0].numpy()
    core = np.isin(label, (1, 4)) | ((share > rng.uniform(0.6, 0.95)) & (label > 0))
    soft = _share(core, 3)
    flair, t1, t2 = (rng.uniform(*bounds) for bounds in LOW_GRADE_CORE.values())
    painted = image.copy()
    for modality, mean in zip(painted, (flair, t1, t1 + rng.normal(0, 0.2), t2), strict=True):
        knots = torch.from_numpy(rng.normal(0, 0.4, (1, 1, 8, 8, 8)).astype(np.float32))
        texture = functional.interpolate(knots, label.shape, mode="trilinear")[0, 0].numpy()
        # A third of the old contrast stays, to keep vessels and septa.
        own = np.clip(modality - modality[core].mean(), -1, 1) / 3 if core.any() else 0
        modality += soft * (mean + texture + own - modality)
    return painted * (image != 0), np.where(core, np.uint8(1), label)


class Augment:
    """Augments a crop: mirror, affine, then intensity; the background stays zero."""

    def __init__(self, config: AugmentConfig) -> None:
        # Only here: the import takes as long as that of torch, and most commands make no crops.
        from monai import transforms as mt

        self._config = c = config
        self._mirror = mt.Compose(
            [mt.RandFlipd(KEYS, prob=p, spatial_axis=axis) for axis, p in enumerate(c.mirror)]
        )
        x, sigma = "image", (0.5, 1.0)
        self._intensity = mt.Compose(
            [
                mt.RandScaleIntensityd(x, factors=c.gain, prob=c.intensity, channel_wise=True),
                mt.RandShiftIntensityd(x, offsets=c.offset, prob=c.intensity, channel_wise=True),
                mt.RandAdjustContrastd(x, prob=c.contrast, gamma=(0.7, 1.5), retain_stats=True),
                mt.RandGaussianNoised(x, prob=c.noise, std=0.15),
                mt.RandGaussianSmoothd(x, sigma, sigma, sigma, prob=c.smooth),
            ]
        )

    def __call__(self, image: Array, label: Array, seed: int) -> tuple[Tensor, Tensor]:
        """Augments a crop; equal seeds give equal results.

        Args:
            image: (M, D, H, W) float32.
            label: (D, H, W) uint8.
            seed: Of the random numbers.
        Returns:
            Image and labels, of the same shapes and types.
        """
        self._mirror.set_random_state(seed=seed)
        self._intensity.set_random_state(seed=seed + 1)
        rng = np.random.default_rng((seed, 2))
        if rng.random() < self._config.low_grade:
            image, label = low_grade_core(image, label, rng)
        crop = {"image": torch.from_numpy(image), "label": torch.from_numpy(label[None])}
        sample = self._mirror(crop)
        varied, labels = _plain(sample["image"]), _plain(sample["label"])
        if rng.random() < self._config.affine:
            varied, labels = rotate_and_scale(varied, labels, self._config, rng)
        brain = (varied != 0).any(dim=0, keepdim=True)
        varied = _some(varied, thick_slices, self._config.thick_slices, rng)
        varied = _some(varied, bias_field, self._config.bias_field, rng)
        varied = _plain(self._intensity({"image": varied})["image"])
        return varied * brain, labels[0].to(torch.uint8)


def _some(
    image: Tensor,
    change: Callable[[Tensor, np.random.Generator], Tensor],
    chance: float,
    rng: np.random.Generator,
) -> Tensor:
    """Changes each modality of (M, D, H, W) with the given chance."""
    return torch.stack([change(m, rng) if rng.random() < chance else m for m in image])


def rotate_and_scale(
    image: Tensor, label: Tensor, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Rotates about all three axes and scales, around the centre.

    MONAI's RandAffine needs twice the time, on a CPU a tenth of a training step.

    Args:
        image: (M, D, H, W), interpolated linearly.
        label: (1, D, H, W), interpolated to the nearest voxel.
        config: Has the largest angle and scale.
        rng: Source of randomness.
    Returns:
        Image and label, float32, of the same shapes.
    """
    a, b, c = rng.uniform(-config.rotate_rad, config.rotate_rad, 3)
    zoom = 1 + rng.uniform(-config.scale, config.scale)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    # affine_grid has units of half the image; `half` converts them to voxels and back.
    half = np.array(image.shape[:0:-1]) / 2
    matrix = (x @ y @ z / zoom) * half[None] / half[:, None]
    theta = np.concatenate([matrix, np.zeros((3, 1))], axis=1)[None].astype(np.float32)
    grid = functional.affine_grid(
        torch.from_numpy(theta), [1, 1, *image.shape[1:]], align_corners=False
    )
    rotated, labels = (
        functional.grid_sample(x[None], grid, mode=mode, align_corners=False)[0]
        for x, mode in ((image, "bilinear"), (label.float(), "nearest"))
    )
    return rotated, labels


def thick_slices(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Averages (D, H, W) over slices of 2 to 5 voxels along one axis, as in clinical 2D scans."""
    size = list(image.shape)
    axis = rng.integers(3)
    coarse = [*size[:axis], max(1, size[axis] // int(rng.integers(2, 6))), *size[axis + 1 :]]
    averaged = functional.interpolate(image[None, None], coarse, mode="area")
    return functional.interpolate(averaged, size, mode="trilinear")[0, 0]


def bias_field(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Multiplies (D, H, W) by a smooth field of up to about +-30 %, as receive coils do.

    Zero of the raw image is at about -3 after normalisation: the mean of brain tissue is some three
    of its standard deviations. So the field multiplies the distance to -3.
    """
    knots = torch.from_numpy(rng.normal(0, 0.12, (1, 1, 3, 3, 3)).astype(np.float32))
    log_field = functional.interpolate(knots, image.shape, mode="trilinear", align_corners=True)
    return (image + 3) * log_field[0, 0].exp() - 3


def _plain(x: Tensor) -> Tensor:
    return x.as_tensor() if hasattr(x, "as_tensor") else x
