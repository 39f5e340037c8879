"""Synthetic training cases: real head anatomy and real tumour shapes with random contrasts.

As in SynthSeg (Billot et al. 2023, doi:10.1016/j.media.2023.102789): a label map is deformed, each
tissue gets a random intensity, and blur, bias field, noise and resolution make it a scan. Here the
intensities are drawn around those of FLAIR, T1, T1ce and T2, so that tumour parts can be told
apart. Everything is in network axes, (D, H, W) = (Z, Y, X) of RAS+, at 1 mm. Images are in standard
deviations of the brain until they are normalised like real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from fastbts import EngineSpec, FastBTSError, ops
from fastbts.labels import ED, ET, NCR
from fastbts.phantom.case import CONTRAST
from training.data.anatomy import Anatomy, ShapeFile
from training.data.augment import LOW_GRADE_CORE, bias_field, thick_slices
from training.data.cases import SYNTHETIC, TrainingCase

SHAPE = (152, 184, 152)  # of the scene, in voxels
BRAIN_MM = (140.0, 170.0, 138.0)  # size of the brain box: mean of the 28 BraTS 2018 training cases
FIELD_MM = (155.0, 240.0, 240.0)  # field of view of a tumour shape
FIELD_CENTRE_MM = (72.0, 110.5, 121.0)  # middle of those brain boxes in that field

# Mean intensity of tumour parts in FLAIR, T1, T1ce, T2, and its deviation between cases: measured
# on the same training cases, normalised.
PARTS = {
    "oedema": (2.05, 0.05, -0.15, 0.8),
    "necrosis": (2.75, -0.55, -0.35, 1.9),
    "rim": (2.6, -0.15, 1.85, 1.05),
}
PART_SPREAD = {
    "oedema": (0.6, 0.4, 0.35, 0.55),
    "necrosis": (1.0, 0.5, 0.4, 0.65),
    "rim": (0.8, 0.45, 0.8, 0.55),
}
TISSUES = ("csf", "grey", "white", "nuclei")  # values of `Anatomy.tissue`
TISSUE_SPREAD = 0.25
# Deviation of the texture of 4 to 10 mm, in healthy tissue and in a tumour (per modality).
TEXTURE, TUMOUR_TEXTURE = 0.15, (0.7, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class SyntheticConfig:
    """How cases vary. Probabilities are per case unless said otherwise."""

    non_enhancing: float = 0.15
    """Chance that the core does not enhance, as in most low-grade gliomas."""
    any_contrast: float = 0.1
    """Chance, per modality, that healthy tissues get arbitrary intensities."""
    thick_slices: float = 0.25
    """Chance, per modality, of thick slices along one axis."""
    bias_field: float = 0.5
    """Chance, per modality, of a smooth multiplicative field."""
    rotate_rad: float = 0.15
    """Largest rotation of the head about each axis, radians."""
    scale: float = 0.07
    """Largest relative change of the head's size, per axis."""
    elastic_mm: float = 3.0
    """Deviation of the smooth random displacement of the anatomy."""
    tumour_scale: float = 0.2
    """Largest relative change of the tumour's size, per axis."""
    tumour_shift_mm: float = 10.0
    """Deviation of the tumour's shift from its place in the patient (or mirrored), per axis."""
    mass_effect_mm: float = 6.0
    """Largest displacement of tissue at the tumour's edge."""


def make_synthetic(
    anatomies: Sequence[Anatomy],
    shapes: ShapeFile,
    seed: int,
    index: int,
    config: SyntheticConfig | None = None,
) -> TrainingCase:
    """Makes case number `index` of `seed`; equal arguments give equal bits with one thread.

    Args:
        anatomies: To choose from.
        shapes: Tumours to choose from.
        seed: Seed of the series of cases.
        index: Number of the case.
        config: How cases vary.
    Returns:
        A case like those of `prepare_case`, marked as `SYNTHETIC`.
    """
    config = config or SyntheticConfig()
    rng = np.random.default_rng((seed, 4, index))
    anatomy = anatomies[int(rng.integers(len(anatomies)))]
    shape = shapes.read(int(rng.integers(len(shapes.names))))
    tumour = place_tumour(shape, config, rng)
    tissue, brain = deform(anatomy, _middle(tumour), config, rng)
    box = _box(brain)
    tissue, brain, tumour = tissue[box], brain[box], tumour[(slice(None), *box)]
    tumour = confine(tumour, tissue, brain)
    if rng.random() < config.non_enhancing:
        tumour[2] = 0
    scanned = scan(paint(tissue, tumour, config, rng), config, rng) * brain
    return _normalized(f"synthetic_{seed:03d}_{index:04d}", scanned, to_label(tumour))


def place_tumour(
    shape: NDArray[np.uint8], config: SyntheticConfig, rng: np.random.Generator
) -> Tensor:
    """Puts a tumour into the scene, perhaps mirrored, and scaled, shifted and bent.

    Returns:
        Share of WT, TC and ET in each voxel, each region within the one before, float32
        (3, D, H, W).
    """
    field_centre = np.array(FIELD_CENTRE_MM)
    mirrored = shape
    if rng.random() < 0.5:
        mirrored, field_centre[2] = shape[:, :, ::-1], FIELD_MM[2] - field_centre[2]
    voxel_mm = np.array(FIELD_MM) / shape.shape
    where = np.argwhere(mirrored)
    scene = torch.zeros(3, *SHAPE)
    if not len(where):
        return scene
    low, high = where.min(axis=0), where.max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    cut = torch.from_numpy(mirrored[box].copy())
    regions = torch.stack([cut > 0, (cut == NCR) | (cut == ET), cut == ET])
    nested = functional.pad(regions.float(), [3] * 6)
    zoom = 1 + rng.uniform(-config.tumour_scale, config.tumour_scale, 3)
    size = np.maximum(np.round((high - low + 6) * voxel_mm * zoom), 1).astype(int)
    bent = _bend(functional.interpolate(nested[None], size.tolist(), mode="trilinear"), rng)[0]
    middle = (low + high) / 2 * voxel_mm - field_centre + rng.normal(0, config.tumour_shift_mm, 3)
    start = np.round(np.array(SHAPE) / 2 + middle - size / 2).astype(int)
    target = [
        slice(max(s, 0), max(min(s + n, d), 0)) for s, n, d in zip(start, size, SHAPE, strict=True)
    ]
    source = [slice(t.start - s, t.stop - s) for t, s in zip(target, start, strict=True)]
    if all(t.start < t.stop for t in target):
        scene[:, target[0], target[1], target[2]] = bent[:, source[0], source[1], source[2]]
    return scene


def _bend(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Rotates by up to 0.3 radians about W and bends smoothly, (1, C, D, H, W)."""
    angle = rng.uniform(-0.3, 0.3)
    turn = torch.eye(3, 4)
    turn[1:3, 1:3] = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    grid = functional.affine_grid(turn[None], [1, 1, *image.shape[2:]], align_corners=True)
    shift = smooth(image.shape[2:], (4, 4, 4), 3, rng) * 0.08
    return functional.grid_sample(image, grid + shift.permute(1, 2, 3, 0), align_corners=True)


def deform(
    anatomy: Anatomy,
    centre: NDArray[np.float64],
    config: SyntheticConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Scales an anatomy to the mean size, deforms it, and pushes it away from the tumour.

    Args:
        anatomy: To deform.
        centre: The tumour's middle, voxels of the scene (D, H, W).
        config: How much it is deformed.
        rng: Source of randomness.
    Returns:
        Tissue, int64, and brain mask, bool, (D, H, W).
    """
    half = (np.array(SHAPE) - 1) / 2
    mirror = np.array([1, 1, rng.choice([-1, 1])])
    scale = 1 + rng.uniform(-config.scale, config.scale, 3)
    zoom = np.array(anatomy.box_mm) / BRAIN_MM * scale * mirror
    coarse = [n // 8 for n in SHAPE]
    axes = [torch.linspace(-h, h, n) for h, n in zip(half, coarse, strict=True)]
    # (3, d, h, w), mm from the scene's middle
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    away = place - torch.tensor(centre - half, dtype=torch.float32)[:, None, None, None]
    distance = away.norm(dim=0)
    strength = rng.uniform(0, config.mass_effect_mm)
    push = strength * (-((distance / 35) ** 2)).exp() / distance.clamp(min=8)
    place = place - push * away + config.elastic_mm * smooth(coarse, (5, 5, 5), 3, rng)
    matrix = rotation(rng.uniform(-config.rotate_rad, config.rotate_rad, 3)) * zoom
    there = torch.einsum("ab,bdhw->adhw", torch.from_numpy(matrix.astype(np.float32)), place)
    half_sizes = torch.tensor([(n - 1) / 2 for n in anatomy.tissue.shape])
    there = there / half_sizes[:, None, None, None]
    fine = functional.interpolate(
        there[None].flip(1), SHAPE, mode="trilinear", align_corners=True
    ).permute(0, 2, 3, 4, 1)
    tissue = functional.grid_sample(
        anatomy.tissue[None, None].float(), fine, mode="nearest", align_corners=True
    )[0, 0].long()
    share = functional.grid_sample(anatomy.brain[None, None], fine, align_corners=True)[0, 0]
    return tissue, share > rng.uniform(0.18, 0.35)


def rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation about all three axes, (3, 3)."""
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        cosine, sine = np.cos(angle), np.sin(angle)
        turn[[a, a, b, b], [a, b, a, b]] = cosine, -sine, sine, cosine
        rotation = turn @ rotation
    return rotation


def confine(tumour: Tensor, tissue: Tensor, brain: Tensor) -> Tensor:
    """Restricts the tumour to the brain, and oedema to tissue; the regions stay nested."""
    core = tumour[1:] * brain
    whole = torch.maximum(tumour[0] * (brain & (tissue > 0)), core[0])
    return torch.cat([whole[None], core])


def to_label(tumour: Tensor) -> NDArray[np.uint8]:
    """Shares (3, D, H, W) -> label map (D, H, W): the smallest region with half of the voxel."""
    whole, core, enhancing = (tumour >= 0.5).numpy()
    label: NDArray[np.uint8] = np.where(
        enhancing, ET, np.where(core, NCR, np.where(whole, ED, 0))
    ).astype(np.uint8)
    return label


def paint(
    tissue: Tensor, tumour: Tensor, config: SyntheticConfig, rng: np.random.Generator
) -> Tensor:
    """Intensities with texture, (4, D, H, W) in standard deviations of the brain."""
    healthy = np.array([CONTRAST[name] for name in TISSUES]).T
    healthy = healthy + rng.normal(0, TISSUE_SPREAD, healthy.shape)
    arbitrary = rng.random(4) < config.any_contrast
    healthy[arbitrary] = rng.uniform(-2, 2, (int(arbitrary.sum()), len(TISSUES)))
    images = torch.from_numpy(healthy.astype(np.float32))[:, tissue]
    _add_vessels(images, tissue, rng)
    images = _blur(images)
    texture = _texture(tissue.shape, rng)
    box = _box(tumour[0] > 0) if tumour.any() else (slice(0),) * 3
    where = (slice(None), *box)
    part, shares = images[where], tumour[where]
    for share, mean in zip(shares, _part_means(bool(tumour[2].any()), rng), strict=True):
        part += share * (_column(mean) - part)
    more = _column(TUMOUR_TEXTURE) * rng.uniform(0.5, 1.2) - TEXTURE
    part += more * shares[0] * texture[where]
    return images.add_(texture, alpha=TEXTURE)


def _column(values: Sequence[float] | NDArray[np.float32]) -> Tensor:
    """One value per modality, float32 (4, 1, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None, None]


def _texture(shape: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Texture of 4 to 10 voxels, (4, *shape); drawn at half the resolution, which is enough."""
    half = [n // 2 for n in shape]
    coarse = smooth(half, [n // 10 for n in shape], 4, rng)
    drawn = coarse + smooth(half, [n // 4 for n in shape], 4, rng)
    return functional.interpolate(drawn[None], tuple(shape), mode="trilinear")[0]


def _part_means(enhancing: bool, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Intensities of oedema, core and rim, (4,) each, in the order of painting."""
    means = [rng.normal(PARTS[name], PART_SPREAD[name]) for name in PARTS]
    if not enhancing:
        flair, t1, t2 = (rng.uniform(*bounds) for bounds in LOW_GRADE_CORE.values())
        means[1] = np.array([flair, t1, t1 + rng.normal(0, 0.2), t2])
    # The rim enhances: on T1ce it is brighter than core and oedema.
    means[2][2] = max(means[2][2], means[1][2] + 0.7, means[0][2] + 0.7)
    return [mean.astype(np.float32) for mean in means]


def _add_vessels(images: Tensor, tissue: Tensor, rng: np.random.Generator) -> None:
    """Paints thin sheets in the fluid as vessels and meninges, which enhance outside the tumour."""
    noise = smooth(tissue.shape, [n // 10 for n in tissue.shape], 1, rng)[0]
    sheets = noise.abs() < rng.uniform(0.05, 0.2)
    vessel = np.array(CONTRAST["vessel"], np.float32) * rng.uniform(0.4, 1.0)
    images[:, sheets & (tissue == 0)] = torch.from_numpy(vessel.astype(np.float32))[:, None]


def scan(images: Tensor, config: SyntheticConfig, rng: np.random.Generator) -> Tensor:
    """Thick slices, bias field, noise, then positive scanner units; (4, D, H, W), in place."""
    for image in images:
        if rng.random() < config.thick_slices:
            image.copy_(thick_slices(image, rng))
        if rng.random() < config.bias_field:
            image.copy_(bias_field(image, rng))
        noise = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
        image.add_(noise, alpha=rng.uniform(0.1, 0.3)).add_(10).clamp_(min=0.1)  # 0 is background
    return images


def smooth(shape: Sequence[int], knots: Sequence[int], n: int, rng: np.random.Generator) -> Tensor:
    """Smooth noise of deviation about 1, interpolated between random knots, float32 (n, *shape)."""
    drawn = torch.from_numpy(rng.standard_normal((1, n, *knots), dtype=np.float32))
    noise = functional.interpolate(drawn, tuple(shape), mode="trilinear", align_corners=True)[0]
    return noise * 1.84  # (3/2)^(3/2): linear interpolation reduces the deviation by that


def _blur(images: Tensor) -> Tensor:
    """Point spread of the scanner: (1, 2, 1) / 4 along each axis."""
    for axis in (1, 2, 3):
        n = images.shape[axis]
        pairs = images.narrow(axis, 0, n - 1) + images.narrow(axis, 1, n - 1)
        images.narrow(axis, 1, n - 2).copy_(
            (pairs.narrow(axis, 0, n - 2) + pairs.narrow(axis, 1, n - 2)) / 4
        )
    return images


def _box(mask: Tensor) -> tuple[slice, slice, slice]:
    """The box around a mask."""
    bounds = ops.brain_box(mask.numpy()[None].view(np.uint8), n_threads=1).bounds
    d, h, w = (slice(*side) for side in bounds)
    return d, h, w


def _middle(tumour: Tensor) -> NDArray[np.float64]:
    """Middle of the tumour's core, else of the tumour, else of the scene, in voxels."""
    for mask in (tumour[1] > 0.5, tumour[0] > 0.5):
        if mask.any():
            return mask.nonzero().double().mean(dim=0).numpy()
    return (np.array(SHAPE) - 1) / 2


def _normalized(name: str, scanned: Tensor, label: NDArray[np.uint8]) -> TrainingCase:
    """Normalises as at inference; the arrays are the brain box already."""
    d, h, w = label.shape
    image, _ = ops.normalize(
        scanned.numpy(), ((0, d), (0, h), (0, w)), (d, h, w), EngineSpec().percentiles, n_threads=1
    )
    return TrainingCase(name, image.astype(np.float16), label, SYNTHETIC)


def write_synthetic(
    out: Path, anatomies: Sequence[Anatomy], shapes: ShapeFile, n: int, seed: int
) -> None:
    """Writes cases 0 to n - 1 of `seed` into a folder; existing files stay."""
    out.mkdir(parents=True, exist_ok=True)
    for index in track(range(n), "making cases"):
        path = out / f"synthetic_{seed:03d}_{index:04d}.npz"
        if not path.is_file():
            case = make_synthetic(anatomies, shapes, seed, index)
            temporary = path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                np.savez(file, image=case.image, label=case.label)
            temporary.replace(path)


def load_synthetic(folder: Path) -> list[TrainingCase]:
    """Reads all cases that `write_synthetic` wrote into a folder.

    Raises:
        FastBTSError: There is none.
    """
    cases = []
    for path in sorted(folder.glob("synthetic_*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            cases.append(TrainingCase(path.stem, stored["image"], stored["label"], SYNTHETIC))
    if not cases:
        raise FastBTSError(
            f"{folder}: no files synthetic_*.npz; make them with python -m training synthetic"
        )
    return cases
