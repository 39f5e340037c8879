"""Synthetic training cases: real head anatomy and real tumour shapes under made-up contrasts.

`python -m training.data.synthetic --heads DIR --shapes FILE --n 60 --out DIR` writes a folder that `load_synthetic` reads.

In the manner of SynthSeg (Billot et al. 2023, doi:10.1016/j.media.2023.102789): a label map is deformed, each tissue is given
a random intensity, and blur, bias field, noise and resolution make it a scan. Here the intensities lie around those of FLAIR,
T1, T1ce and T2, so that the tumour's parts keep the look that tells them apart. Everything is on network axes, (D, H, W) =
(Z, Y, X) of RAS+, at 1 mm; images are in standard deviations of the brain until they are normalised like real ones.
"""

from __future__ import annotations

import argparse
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
from training.data.anatomy import Head, ShapeFile, read_heads
from training.data.augment import LOW_GRADE_CORE, bias_field, thick_slices
from training.data.cases import SYNTHETIC, TrainingCase

SHAPE = (152, 184, 152)  # of the scene, in voxels
BRAIN_MM = (140.0, 170.0, 138.0)  # size of the brain box: mean of the 28 BraTS 2018 training cases
FIELD_MM = (155.0, 240.0, 240.0)  # of a tumour shape, whatever its voxels
FIELD_CENTRE_MM = (72.0, 110.5, 121.0)  # middle of those brain boxes in that field

# Mean intensity of tumour parts in FLAIR, T1, T1ce, T2, and how it varies from case to case: of the same cases, normalised.
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
TISSUES = ("csf", "grey", "white", "nuclei")  # values of `Head.tissue`
TISSUE_SPREAD = 0.25
PATCH, SICK_PATCH = (
    0.15,
    (0.7, 0.3, 0.4, 0.5),
)  # deviation of what varies over 4 to 10 mm, in healthy tissue and in a tumour


@dataclass(frozen=True)
class SyntheticConfig:
    """How cases vary. Probabilities are per case unless said otherwise."""

    non_enhancing: float = 0.15
    """Chance that the core does not enhance, as in most low-grade gliomas."""
    any_contrast: float = 0.1
    """Chance, per modality, that healthy tissues get any intensities at all."""
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
    """Deviation of the tumour's place from where its patient had it (or mirrored), per axis."""
    mass_effect_mm: float = 6.0
    """Largest displacement of tissue at the tumour's edge."""


def make_synthetic(
    heads: Sequence[Head],
    shapes: ShapeFile,
    seed: int,
    index: int,
    config: SyntheticConfig | None = None,
) -> TrainingCase:
    """Makes case number `index` of `seed`; equal arguments give equal bits with one thread.

    Args:
        heads: Anatomies to choose from.
        shapes: Tumours to choose from.
        seed: Chooses the series of cases.
        index: Chooses the case.
        config: How cases vary.
    Returns:
        A case like those of `prepare_case`, its grade being `SYNTHETIC`.
    """
    config = config or SyntheticConfig()
    rng = np.random.default_rng((seed, 4, index))
    head, shape = (
        heads[int(rng.integers(len(heads)))],
        shapes.read(int(rng.integers(len(shapes.names)))),
    )
    tumour = place_tumour(shape, config, rng)
    tissue, brain = deform(head, _middle(tumour), config, rng)
    box = _box(brain)  # what lies outside has no part in what follows
    tissue, brain, tumour = tissue[box], brain[box], tumour[(slice(None), *box)]
    tumour = confine(tumour, tissue, brain)
    if rng.random() < config.non_enhancing:
        tumour[2] = 0
    scanned = scan(paint(tissue, tumour, config, rng), config, rng) * brain
    return _normalized(f"synthetic_{seed:03d}_{index:04d}", scanned, to_label(tumour))


def place_tumour(
    shape: NDArray[np.uint8], config: SyntheticConfig, rng: np.random.Generator
) -> Tensor:
    """Puts a tumour into the scene, mirrored or not, scaled, shifted and bent.

    Returns:
        Share of WT, TC and ET in each voxel, each containing the next, float32 (3, D, H, W).
    """
    mirrored = shape[:, :, ::-1] if rng.random() < 0.5 else shape
    field_centre = (
        *FIELD_CENTRE_MM[:2],
        FIELD_MM[2] - FIELD_CENTRE_MM[2] if mirrored is not shape else FIELD_CENTRE_MM[2],
    )
    voxel_mm = np.array(FIELD_MM) / shape.shape
    where = np.argwhere(mirrored)
    scene = torch.zeros(3, *SHAPE)
    if not len(where):
        return scene
    low, high = where.min(axis=0), where.max(axis=0) + 1
    cut = torch.from_numpy(
        mirrored[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].copy()
    )
    nested = functional.pad(
        torch.stack([cut > 0, (cut == NCR) | (cut == ET), cut == ET]).float(), [3] * 6
    )
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
    """Turns by up to 0.3 radians about (D, H) and bends smoothly; (1, C, D, H, W), nothing but padding leaves the frame."""
    angle = rng.uniform(-0.3, 0.3)
    turn = torch.eye(3, 4)
    turn[1:3, 1:3] = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    grid = functional.affine_grid(turn[None], [1, 1, *image.shape[2:]], align_corners=True)
    shift = smooth(image.shape[2:], (4, 4, 4), 3, rng) * 0.08
    return functional.grid_sample(image, grid + shift.permute(1, 2, 3, 0), align_corners=True)


def deform(
    head: Head, centre: NDArray[np.float64], config: SyntheticConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Brings a head to the atlas's size, turns, scales and bends it, and pushes it away from the tumour.

    Args:
        head: The anatomy.
        centre: The tumour's middle, voxels of the scene (D, H, W).
        config: How much.
        rng: Source of randomness.
    Returns:
        Tissue, int64, and brain mask, bool, (D, H, W).
    """
    half = (np.array(SHAPE) - 1) / 2
    mirror = np.array([1, 1, rng.choice([-1, 1])])
    zoom = (
        np.array(head.box_mm)
        / BRAIN_MM
        * (1 + rng.uniform(-config.scale, config.scale, 3))
        * mirror
    )
    coarse = [n // 8 for n in SHAPE]
    axes = [torch.linspace(-h, h, n) for h, n in zip(half, coarse, strict=True)]
    place = torch.stack(
        torch.meshgrid(*axes, indexing="ij")
    )  # (3, d, h, w), mm from the scene's middle
    away = place - torch.tensor(centre - half, dtype=torch.float32)[:, None, None, None]
    distance = away.norm(dim=0)
    push = (
        rng.uniform(0, config.mass_effect_mm)
        * (-((distance / 35) ** 2)).exp()
        / distance.clamp(min=8)
    )
    place = place - push * away + config.elastic_mm * smooth(coarse, (5, 5, 5), 3, rng)
    matrix = _rotation(rng.uniform(-config.rotate_rad, config.rotate_rad, 3)) * zoom
    there = torch.einsum("ab,bdhw->adhw", torch.from_numpy(matrix.astype(np.float32)), place)
    there = there / torch.tensor([(n - 1) / 2 for n in head.tissue.shape])[:, None, None, None]
    fine = functional.interpolate(
        there[None].flip(1), SHAPE, mode="trilinear", align_corners=True
    ).permute(0, 2, 3, 4, 1)
    tissue = functional.grid_sample(
        head.tissue[None, None].float(), fine, mode="nearest", align_corners=True
    )[0, 0].long()
    share = functional.grid_sample(head.brain[None, None], fine, align_corners=True)[0, 0]
    return tissue, share > rng.uniform(0.18, 0.35)


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turns about all three axes, (3, 3)."""
    whole = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        whole = turn @ whole
    return whole


def confine(tumour: Tensor, tissue: Tensor, brain: Tensor) -> Tensor:
    """Keeps the tumour in the brain, and oedema out of fluid; shares stay nested."""
    core = tumour[1:] * brain
    whole = torch.maximum(tumour[0] * (brain & (tissue > 0)), core[0])
    return torch.cat([whole[None], core])


def to_label(tumour: Tensor) -> NDArray[np.uint8]:
    """Shares (3, D, H, W) -> label map (D, H, W): the smallest region that has at least half of the voxel."""
    whole, core, enhancing = (tumour >= 0.5).numpy()
    label: NDArray[np.uint8] = np.where(
        enhancing, ET, np.where(core, NCR, np.where(whole, ED, 0))
    ).astype(np.uint8)
    return label


def paint(
    tissue: Tensor, tumour: Tensor, config: SyntheticConfig, rng: np.random.Generator
) -> Tensor:
    """Gives every tissue its intensity, with texture; (4, D, H, W) in standard deviations of the brain."""
    healthy = np.array([CONTRAST[name] for name in TISSUES]).T + rng.normal(
        0, TISSUE_SPREAD, (4, len(TISSUES))
    )
    anything = rng.random(4) < config.any_contrast
    healthy[anything] = rng.uniform(-2, 2, (int(anything.sum()), len(TISSUES)))
    images = torch.from_numpy(healthy.astype(np.float32))[:, tissue]
    _add_vessels(images, tissue, rng)
    images = _blur(images)
    patch = _texture(tissue.shape, rng)
    where = (
        (slice(None), *_box(tumour[0] > 0))
        if tumour.any()
        else (slice(None), slice(0), slice(0), slice(0))
    )
    part, shares = images[where], tumour[where]
    for share, mean in zip(shares, _part_means(bool(tumour[2].any()), rng), strict=True):
        part += share * (torch.from_numpy(mean)[:, None, None, None] - part)
    part += (
        (torch.tensor(SICK_PATCH)[:, None, None, None] * rng.uniform(0.5, 1.2) - PATCH)
        * shares[0]
        * patch[where]
    )
    return images.add_(patch, alpha=PATCH)


def _texture(shape: Sequence[int], rng: np.random.Generator) -> Tensor:
    """What varies over 4 to 10 voxels, (4, *shape); drawn at half the resolution, which shows no difference."""
    half = [n // 2 for n in shape]
    drawn = smooth(half, [n // 10 for n in shape], 4, rng) + smooth(
        half, [n // 4 for n in shape], 4, rng
    )
    return functional.interpolate(drawn[None], tuple(shape), mode="trilinear")[0]


def _part_means(enhancing: bool, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Intensities of oedema, core and rim, (4,) each, in the order in which they are painted over each other."""
    means = [rng.normal(PARTS[name], PART_SPREAD[name]) for name in PARTS]
    if not enhancing:
        flair, t1, t2 = (rng.uniform(*bounds) for bounds in LOW_GRADE_CORE.values())
        means[1] = np.array([flair, t1, t1 + rng.normal(0, 0.2), t2])
    means[2][2] = max(
        means[2][2], means[1][2] + 0.7, means[0][2] + 0.7
    )  # else the rim would not enhance
    return [mean.astype(np.float32) for mean in means]


def _add_vessels(images: Tensor, tissue: Tensor, rng: np.random.Generator) -> None:
    """Paints winding sheets of the fluid as vessels and meninges, which take up contrast agent without being tumour."""
    sheets = smooth(tissue.shape, [n // 10 for n in tissue.shape], 1, rng)[0].abs() < rng.uniform(
        0.05, 0.2
    )
    vessel = np.array(CONTRAST["vessel"], np.float32) * rng.uniform(0.4, 1.0)
    images[:, sheets & (tissue == 0)] = torch.from_numpy(vessel.astype(np.float32))[:, None]


def scan(images: Tensor, config: SyntheticConfig, rng: np.random.Generator) -> Tensor:
    """Thick slices, bias field and noise, then positive scanner units; (4, D, H, W), changed in place."""
    for image in images:
        if rng.random() < config.thick_slices:
            image.copy_(thick_slices(image, rng))
        if rng.random() < config.bias_field:
            image.copy_(bias_field(image, rng))
        noise = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
        image.add_(noise, alpha=rng.uniform(0.1, 0.3)).add_(10).clamp_(min=0.1)  # 0 is background
    return images


def smooth(shape: Sequence[int], knots: Sequence[int], n: int, rng: np.random.Generator) -> Tensor:
    """Smooth noise of deviation about 1 through random knots, float32 (n, *shape)."""
    drawn = torch.from_numpy(rng.standard_normal((1, n, *knots), dtype=np.float32))
    # (3/2)^(3/2) makes up for what linear interpolation takes of the deviation.
    return (
        functional.interpolate(drawn, tuple(shape), mode="trilinear", align_corners=True)[0] * 1.84
    )


def _blur(images: Tensor) -> Tensor:
    """Point spread of the scanner, (1, 2, 1) / 4 along each axis."""
    for axis in (1, 2, 3):
        n = images.shape[axis]
        pairs = images.narrow(axis, 0, n - 1) + images.narrow(axis, 1, n - 1)
        images.narrow(axis, 1, n - 2).copy_(
            (pairs.narrow(axis, 0, n - 2) + pairs.narrow(axis, 1, n - 2)) / 4
        )
    return images


def _box(mask: Tensor) -> tuple[slice, slice, slice]:
    """The box around a mask."""
    d, h, w = (
        slice(*side)
        for side in ops.brain_box(mask.numpy()[None].view(np.uint8), n_threads=1).bounds
    )
    return d, h, w


def _middle(tumour: Tensor) -> NDArray[np.float64]:
    """Middle of the tumour's core, or of the tumour, in voxels; the scene's middle where there is none."""
    for mask in (tumour[1] > 0.5, tumour[0] > 0.5):
        if mask.any():
            return mask.nonzero().double().mean(dim=0).numpy()
    return (np.array(SHAPE) - 1) / 2


def _normalized(name: str, scanned: Tensor, label: NDArray[np.uint8]) -> TrainingCase:
    """Percentiles and z-score by the inference package's own operation; the arrays are the brain box already."""
    d, h, w = label.shape
    image, _ = ops.normalize(
        scanned.numpy(), ((0, d), (0, h), (0, w)), (d, h, w), EngineSpec().percentiles, n_threads=1
    )
    return TrainingCase(name, image.astype(np.float16), label, SYNTHETIC)


def write_synthetic(out: Path, heads: Sequence[Head], shapes: ShapeFile, n: int, seed: int) -> None:
    """Writes cases 0 to n - 1 of `seed` into a folder; those that are there stay."""
    out.mkdir(parents=True, exist_ok=True)
    for index in track(range(n), "making cases"):
        path = out / f"synthetic_{seed:03d}_{index:04d}.npz"
        if not path.is_file():
            case = make_synthetic(heads, shapes, seed, index)
            temporary = path.with_suffix(".tmp")
            with temporary.open("wb") as stream:
                np.savez(stream, image=case.image, label=case.label)
            temporary.replace(path)


def load_synthetic(folder: Path) -> list[TrainingCase]:
    """Reads all cases that `write_synthetic` left in a folder.

    Raises:
        FastBTSError: There is none.
    """
    cases = []
    for path in sorted(folder.glob("synthetic_*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            cases.append(TrainingCase(path.stem, stored["image"], stored["label"], SYNTHETIC))
    if not cases:
        raise FastBTSError(
            f"{folder}: no files synthetic_*.npz; make them with python -m training.data.synthetic"
        )
    return cases


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--heads",
        type=Path,
        required=True,
        help="folder of label maps of heads (*.nii.gz, FreeSurfer labels)",
    )
    parser.add_argument(
        "--shapes", type=Path, required=True, help="file of tumour label maps (.npz)"
    )
    parser.add_argument("--n", type=int, default=60, help="number of cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for the cases")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same bits on every machine
    write_synthetic(args.out, read_heads(args.heads), ShapeFile(args.shapes), args.n, args.seed)


if __name__ == "__main__":
    main()
