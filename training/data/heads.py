"""Synthetic heads, for a network that finds the brain in any image of a head.

As in SynthStrip (Hoopes et al. 2022, doi:10.1016/j.neuroimage.2022.119474): a label map of a head
is deformed, each tissue gets a random intensity, and blur, thick slices, bias field, noise and a
cropped field of view make it a scan. Tumours and resection cavities belong to the brain. Instead of
its own brain, a head may have that of a labelled case, with its real tumour. Everything is in
network axes, (D, H, W) = (Z, Y, X) of RAS+, at the recipe's spacing. Sources of 1 mm are
interpolated linearly, as raw images are at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from fastbts.labels import ET, NCR
from fastbts.study.strip import scaled
from training.config import HeadConfig, Recipe
from training.data import head_sources as hs
from training.data.anatomy import ShapeFile
from training.data.cases import Sample
from training.data.scan import bias, box_mean, field_of_view, noisy, sliced
from training.data.synthetic import BRAIN_MM, FIELD_CENTRE_MM, FIELD_MM, rotation, smooth

# Intensities of tissues in FLAIR, T1, T1ce and T2, as a share of the image's range. Estimates, from
# which each head deviates by SPREAD.
CONTRAST = {
    hs.AIR: (0.0, 0.0, 0.0, 0.0),
    hs.CSF: (0.12, 0.15, 0.15, 0.95),
    hs.GREY: (0.58, 0.48, 0.48, 0.6),
    hs.WHITE: (0.48, 0.68, 0.64, 0.42),
    hs.DEEP: (0.53, 0.58, 0.56, 0.48),
    hs.BONE: (0.06, 0.08, 0.08, 0.05),
    hs.MARROW: (0.35, 0.6, 0.6, 0.4),
    hs.FAT: (0.6, 0.95, 0.9, 0.7),
}
SPREAD = 0.08
OTHER = (0.05, 0.75)  # range of the tissues that are not in the table: muscle, skin, eyes, ...
REAL_MEAN, REAL_SPREAD = 0.5, 0.14  # a normalised brain (mean 0, deviation 1) in the same units


@dataclass(frozen=True, eq=False)
class HeadSample:
    """A synthetic head.

    Attributes:
        image: (1, D, H, W) float32, between 0 and 1, 0 outside the field of view.
        brain: Brain mask, uint8 (D, H, W).
        tumour: Tumour or cavity inside the brain, uint8 (D, H, W).
    """

    image: Tensor
    brain: Tensor
    tumour: Tensor


@dataclass(frozen=True, eq=False)
class HeadMaker:
    """Makes heads; number `index` of a seed is always the same, bit for bit with one thread.

    Attributes:
        heads: Label maps to choose from.
        shapes: Tumours for their brains, or None.
        brains: Brains of labelled cases, which replace those of the label maps; may be empty.
    """

    heads: Sequence[hs.Head]
    shapes: ShapeFile | None = None
    brains: Sequence[hs.Brain] = ()

    def __call__(self, recipe: Recipe, size: tuple[int, ...], index: int) -> HeadSample:
        """Makes head number `index` of the recipe's seed.

        Args:
            recipe: Has the seed and how heads vary.
            size: (D, H, W) in voxels.
            index: Number of the head.
        """
        rng = np.random.default_rng((recipe.seed, 5, index))
        config = recipe.heads
        head = self.heads[int(rng.integers(len(self.heads)))]
        real = bool(self.brains) and rng.random() < config.real_brain
        brain = self.brains[int(rng.integers(len(self.brains)))] if real else None
        image, inside, tumour = self._scene(head, brain, place(size, recipe, rng), config, rng)
        scanned, seen = scan(image, inside, recipe, rng)
        kept = seen.to(torch.uint8)
        whole = _as_input(scanned, seen, recipe.percentiles, rng)
        return HeadSample(whole[None], inside * kept, tumour * inside * kept)

    def _scene(
        self,
        head: hs.Head,
        brain: hs.Brain | None,
        grid: Tensor,
        config: HeadConfig,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Image in units of `CONTRAST`, brain mask and tumour, each (D, H, W)."""
        number = None if brain is None else int(rng.integers(len(brain.images)))
        means = intensities(number, config, rng)
        zoom = np.ones(3) if brain is None else head.size / brain.size
        if brain is not None:
            means[[hs.GREY, hs.WHITE, hs.DEEP]] = means[hs.CSF]
        image, inside = _head_image(head, grid, zoom, means, rng)
        if brain is not None and number is not None:
            return with_brain(image, brain, number, grid, float(means[hs.CSF]), rng)
        if self.shapes is None or rng.random() >= config.tumour:
            return image, inside, torch.zeros_like(inside)
        shape = self.shapes.read(int(rng.integers(len(self.shapes.names))))
        parts = _put(shape, head, grid, rng)
        return _with_tumour(image, inside, parts, float(means[hs.CSF]), config, rng)


class HeadCrops(Dataset[Sample]):
    """Head number i of a run, made when it is asked for; its label is the brain mask.

    Args:
        maker: Makes the heads.
        recipe: Has seed, stages and how heads vary.
        ranks: Number of processes that train together.
    """

    def __init__(self, maker: HeadMaker, recipe: Recipe, ranks: int = 1) -> None:
        self._maker, self._recipe = maker, recipe
        self._ends = np.cumsum([stage.length * stage.batch * ranks for stage in recipe.stages])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        stage = self._recipe.stages[np.searchsorted(self._ends, index, side="right")]
        sample = self._maker(self._recipe, stage.crop, index)
        return sample.image, sample.brain, None


def validation_heads(maker: HeadMaker, recipe: Recipe, n: int = 8) -> list[Sample]:
    """Heads for validation, of another seed than those of the run; at the last stage's size."""
    other = replace(recipe, seed=recipe.seed + 1_000_003)
    made = [maker(other, recipe.stages[-1].crop, index) for index in range(n)]
    return [(sample.image, sample.brain, None) for sample in made]


def intensities(
    number: int | None, config: HeadConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Intensity of each kind of tissue, near those of an image of CONTRAST or arbitrary.

    Args:
        number: Of the image, in the order FLAIR, T1, T1ce, T2; None for a random one.
        config: Has the chance of arbitrary intensities.
        rng: Source of randomness.
    Returns:
        float32 (kinds,).
    """
    if rng.random() < config.any_contrast:
        means = rng.uniform(0, 1, hs.N_KINDS)
        means[hs.AIR] *= float(rng.random() < 0.2)
        return means.astype(np.float32)
    number = int(rng.integers(4)) if number is None else number % 4
    means = rng.uniform(*OTHER, hs.N_KINDS)
    for kind, values in CONTRAST.items():
        means[kind] = values[number] + SPREAD * rng.standard_normal() * (kind != hs.AIR)
    # Fat near a coil can be several times as bright as the brain, or be suppressed.
    means[hs.BONE :] *= np.exp(rng.uniform(-0.7, 0.9))
    return np.maximum(means, 0).astype(np.float32)


def place(size: tuple[int, ...], recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """Place of each voxel in the undeformed brain, mm from its middle, (3, D, H, W)."""
    config, half = recipe.heads, (np.array(size) - 1) / 2 * recipe.spacing_mm
    coarse = [max(2, n // 8) for n in size]
    middle = rng.uniform(-1, 1, 3) * config.shift_mm
    axes = [
        torch.linspace(-h, h, n) + float(m) for h, n, m in zip(half, coarse, middle, strict=True)
    ]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    points = points + rng.uniform(0, config.elastic_mm) * smooth(coarse, (5, 5, 5), 3, rng)
    scale = 1 + rng.uniform(-config.scale, config.scale, 3)
    mirror = np.array([1, 1, rng.choice([-1, 1])])
    matrix = rotation(rng.uniform(-config.rotate_rad, config.rotate_rad, 3)) * scale * mirror
    there = torch.einsum("ab,bdhw->adhw", torch.from_numpy(matrix.astype(np.float32)), points)
    return functional.interpolate(there[None], size, mode="trilinear", align_corners=True)[0]


def _sample(volume: Tensor, voxels: Tensor) -> Tensor:
    """Interpolates (C, D, H, W) linearly at places in voxels, (3, d, h, w); 0 outside."""
    half = torch.tensor([max(n - 1, 1) / 2 for n in volume.shape[1:]])[:, None, None, None]
    there = (voxels / half - 1).flip(0).permute(1, 2, 3, 0)[None]
    return functional.grid_sample(volume[None], there, align_corners=True)[0]


def _voxels(grid: Tensor, centre: NDArray[np.float64], zoom: NDArray[np.float64]) -> Tensor:
    """Places in mm from the brain's middle -> places in voxels of a source, `zoom` per mm."""
    scale, start = (torch.tensor(x, dtype=torch.float32) for x in (zoom, centre))
    return grid * scale[:, None, None, None] + start[:, None, None, None]


def _head_image(
    head: hs.Head,
    grid: Tensor,
    zoom: NDArray[np.float64],
    means: NDArray[np.float32],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Image with texture and brain mask, (D, H, W) each."""
    # Tissues outside the brain are mixtures, so their texture may be strong.
    rough = rng.uniform(0, 0.3, hs.N_KINDS) * (rng.random(hs.N_KINDS) < 0.6)
    rough[: hs.BONE + 1] = rng.uniform(0, 0.08, hs.BONE + 1)
    rough[hs.AIR] = 0
    by_kind = torch.from_numpy(np.stack([means, rough.astype(np.float32)]))
    stack = torch.cat([by_kind[:, head.kind.long()], head.brain[None]])
    image, texture, share = _sample(stack, _voxels(grid, head.centre, zoom))
    image = image + texture * _noise(image.shape, rng)
    inside = share > 0.5
    _add_vessels(image, (share < 0.6) & (image > 0), rng)
    return image.clamp_(min=0), inside.to(torch.uint8)


def _noise(shape: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Texture of some 4 to 20 mm, (D, H, W)."""
    drawn = smooth(shape, [max(2, n // 2) for n in shape], 1, rng)
    drawn += smooth(shape, [max(2, n // 6) for n in shape], 1, rng)
    return drawn[0] * 0.7


def _add_vessels(image: Tensor, where: Tensor, rng: np.random.Generator) -> None:
    """Paints thin sheets outside the brain: vessels and membranes, bright or dark."""
    noise = smooth(image.shape, [max(2, n // 8) for n in image.shape], 1, rng)[0]
    sheets = where & (noise.abs() < rng.uniform(0, 0.15))
    image[sheets] = float(rng.uniform(0, 1.3))


def with_brain(
    image: Tensor,
    brain: hs.Brain,
    number: int,
    grid: Tensor,
    fluid: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Puts a real brain into a head, with a gap of fluid around it."""
    stack = torch.stack([brain.images[number], brain.seen, brain.brain, brain.tumour]).float()
    voxels = _voxels(grid, brain.centre, np.ones(3))
    real, share, covered, tumour = _sample(stack, voxels)
    inside = covered > 0.5
    # Zeros outside the brain must not darken its surface.
    real = (REAL_MEAN + REAL_SPREAD * real / share.clamp(min=0.125)).clamp(min=0.01)
    gap = box_mean(share, 5) > rng.uniform(0.02, 0.5)
    outside = torch.where(inside | gap, fluid, image)
    mixed = torch.lerp(outside, real, share)
    return mixed, inside.to(torch.uint8), (inside & (tumour > 0.5)).to(torch.uint8)


def _put(shape: NDArray[np.uint8], head: hs.Head, grid: Tensor, rng: np.random.Generator) -> Tensor:
    """Share of whole tumour, core and rim in each voxel, float32 (3, D, H, W)."""
    voxel_mm = np.array(FIELD_MM) / shape.shape
    low, high = (f(np.argwhere(shape), axis=0) for f in (np.min, np.max))
    start, stop = np.maximum(low - 1, 0), np.minimum(high + 2, shape.shape)
    cut = torch.from_numpy(shape[tuple(map(slice, start, stop))].copy())
    nested = torch.stack([cut > 0, (cut == NCR) | (cut == ET), cut == ET]).float()
    # The label maps' brains have other sizes than those of the shapes.
    zoom = np.array(BRAIN_MM) / head.size * rng.uniform(0.8, 1.25, 3)
    shift = rng.normal(0, 10, 3)
    centre = (np.array(FIELD_CENTRE_MM) + shift) / voxel_mm - start - 0.5
    return _sample(nested, _voxels(grid, centre, zoom / voxel_mm))


def _with_tumour(
    image: Tensor,
    inside: Tensor,
    parts: Tensor,
    fluid: float,
    config: HeadConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Paints a tumour or cavity of any intensities; where it bulges, the mask contains it."""
    allowed = inside > 0
    if rng.random() < config.bulge:
        allowed = box_mean(inside.float(), 5) > 0.001
    parts = parts * allowed
    means = rng.uniform(0, 1.3, 3)
    if rng.random() < config.cavity:
        means[1:] = fluid, rng.uniform(0, 1.3)
    texture = _noise(image.shape, rng) * rng.uniform(0, 0.25)
    for share, mean in zip(parts, means, strict=True):
        image = torch.lerp(image, (float(mean) + texture).clamp(min=0), share)
    tumour = (parts[0] > 0.5).to(torch.uint8)
    return image, inside | tumour, tumour


def scan(
    image: Tensor, inside: Tensor, recipe: Recipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Makes a scan of the scene (D, H, W); returns it and where its field of view is."""
    config = recipe.heads
    stripped = rng.random() < config.stripped
    if stripped:
        image = image * inside
    image = torch.lerp(image, box_mean(image, 3), float(rng.random()) ** 2)
    seen = field_of_view(inside, config.cropped, rng)
    if rng.random() < config.bias_field:
        image = bias(image, rng)
    if rng.random() < config.thick_slices:
        image = sliced(image, recipe.spacing_mm, rng)
    scanned = noisy(image, rng)
    return scanned * inside if stripped else scanned, seen


def _as_input(
    image: Tensor, seen: Tensor, percentiles: tuple[float, float], rng: np.random.Generator
) -> Tensor:
    """Scales as at inference, over the field of view only, then changes the gamma."""
    box = tuple(slice(int(f[0]), int(f[-1]) + 1) for f in _extent(seen))
    whole = torch.zeros_like(image)
    values = torch.from_numpy(scaled(image[box].numpy(), percentiles))
    whole[box] = values ** float(np.exp(rng.normal(0, 0.25)))
    return whole


def _extent(mask: Tensor) -> list[Tensor]:
    return [mask.any(dim=a).any(dim=b).nonzero()[:, 0] for a, b in ((2, 1), (2, 0), (1, 0))]
