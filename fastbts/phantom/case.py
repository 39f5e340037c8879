"""A synthetic case for `fastbts demo` and for tests: a skull-stripped head with one tumour.

It looks like a BraTS case, but is no evidence of accuracy: it shows that an installation works from
files to labels, not how well a network segments patients. No part of it comes from a patient's
images. Only its contrasts were tuned, by hand, until the normalised intensities of each tissue were
close to those of BraTS 2018 cases and the shipped network found little except the tumour.

The coordinates and depths of the anatomy are described in `fastbts.phantom.head`. A tissue's share
of a voxel is a ramp over its depth, which gives partial volume; later tissues are painted over
earlier ones.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import GeometryError
from fastbts.files import atomic_write
from fastbts.labels import ED, ET, NCR
from fastbts.phantom.head import Anatomy, Floats, Noise, Points, hull, length, ramp
from fastbts.volume import Volume
from fastbts.write.nifti import SCANNER_CODE

FIELD_OF_VIEW_MM = (240.0, 240.0, 155.0)
HEAD_ORIGIN_MM = (120.0, 104.0, 72.0)  # from the grid's edge: i to the left, j to the back, k up
HEAD_BOX_MM = ((-72.0, 72.0), (-104.0, 76.0), (-68.0, 76.0))  # x, y, z: the head lies inside
MIN_SHAPE = 32  # voxels per axis; coarser grids do not resolve the rim

# For FLAIR, T1, T1ce and T2: mean and standard deviation of the brain in scanner units, and the
# contrast of each tissue in standard deviations from the mean.
MEAN = np.array([[145], [345], [420], [455]], np.float32)
SPREAD = np.array([[35], [76], [74], [132]], np.float32)
CONTRAST = {
    "csf": (-2.2, -2.2, -2.1, 2.4),
    "grey": (0.45, 0.05, -0.3, -0.4),
    "white": (-0.1, 1.3, 0.35, -1.15),
    "nuclei": (0.2, 0.6, 0.0, -0.85),
    "vessel": (-0.9, -0.7, 8.0, -0.9),
    "oedema": (2.0, -0.1, -0.8, 1.0),
    "rim": (2.5, -0.2, 2.2, 1.0),
    "necrosis": (2.7, -0.75, -1.0, 2.1),
}
CORTEX_MM, FOLIA_MM = 2.7, 1.7  # thickness of grey matter in cerebrum and cerebellum
MASS_EFFECT_MM = 7.0  # displacement of the tissue at the tumour's edge
ASYMMETRY_MM = 1.5  # difference between left and right
BIAS = 0.06  # relative standard deviation of the coil's bias field
# Texture in units of SPREAD: of single voxels, before and after the scanner's blur; over about
# 7 mm; and what is added to the latter inside a tumour.
GRAIN, NOISE = 0.3, 0.15
PATCH = np.array([[0.12], [0.15], [0.15], [0.12]], np.float32)
SICK_PATCH = np.array([[0.5], [0.15], [0.2], [0.35]], np.float32)


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """A synthetic case with its reference segmentation.

    Attributes:
        volume: FLAIR, T1, T1ce and T2, int16, (4, i, j, k), stored LPS as in BraTS; exactly 0
            outside the brain.
        labels: The reference, uint8, (i, j, k), label scheme `brats2021`.
        name: For file names.
    """

    volume: Volume
    labels: NDArray[np.uint8]
    name: str = "phantom"


def make_case(
    seed: int = 0, shape: Sequence[int] = (240, 240, 155), *, growth_mm: float = 0.0
) -> PhantomCase:
    """Makes a head with a tumour; equal arguments give equal bits.

    Args:
        seed: Chooses folding, tumour and noise.
        shape: Voxels along i, j, k of a field of view of 240 x 240 x 155 mm. The default gives
            voxels of 1 mm as in BraTS; (120, 120, 78) gives the same head at 2 mm.
        growth_mm: How far core and oedema have grown in all directions, for a follow-up of the same
            head; negative for a smaller tumour.

    Raises:
        GeometryError: The shape is not three axes of at least 32 voxels.
    """
    grid = _Grid.of(shape)
    rng = np.random.default_rng(seed)
    tumour = _Tumour.draw(rng).grown(growth_mm)
    straight = grid.points()
    bent = [
        p + ASYMMETRY_MM * grid.noise(rng, 60.0) - push
        for p, push in zip(straight, tumour.push(straight), strict=True)
    ]
    inside = hull(bent) > 0

    def noise(period_mm: float) -> Floats:
        return grid.noise(rng, period_mm)[inside]

    anatomy = Anatomy.fold([p[inside] for p in bent], noise)
    lesion = tumour.grow([p[inside] for p in straight], anatomy, noise)
    scene = np.empty((4, *inside.shape), np.float32)
    # Fluid around the brain, so that its surface has partial volume with fluid.
    scene[:] = _contrast("csf")[..., None, None]
    scene[:, inside] = _paint(anatomy, lesion) + _texture(lesion, noise, rng)
    images = np.zeros(scene.shape, np.int16)
    scan = _scan(_blur(scene)[:, inside], noise, rng)
    images[:, inside] = np.where(anatomy.stripped > 0, scan, 0)
    labels = np.zeros(inside.shape, np.uint8)
    labels[inside] = np.where(anatomy.stripped > 0, lesion.labels(), 0)
    volume = Volume(grid.embed(images), grid.affine)
    return PhantomCase(volume, grid.embed(labels), f"phantom_{seed:03d}")


def write_case(case: PhantomCase, folder: str | Path) -> list[Path]:
    """Writes `<name>_flair.nii.gz`, `_t1`, `_t1ce`, `_t2` and the reference `_seg` into a folder.

    Returns:
        The written files, images first.

    Raises:
        OutputError: A file cannot be written.
    """
    import nibabel as nib

    written = []
    kinds = *case.volume.modalities, "seg"
    for kind, array in zip(kinds, (*case.volume.data, case.labels), strict=True):
        image = nib.Nifti1Image(array, case.volume.affine)
        image.set_qform(case.volume.affine, SCANNER_CODE)
        image.set_sform(case.volume.affine, SCANNER_CODE)
        image.header.set_xyzt_units("mm")
        image.header["descrip"] = b"synthetic, fastbts.phantom"
        written.append(Path(folder) / f"{case.name}_{kind}.nii.gz")
        with atomic_write(written[-1]) as file:
            file.write(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
    return written


@dataclass(frozen=True, eq=False)
class _Grid:
    """The voxels of the box around the head, within the field of view."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    box: tuple[slice, ...]
    axes: tuple[Floats, ...]  # x, y, z of the box's voxels along i, j, k, in mm

    @staticmethod
    def of(shape: Sequence[int]) -> _Grid:
        shape = tuple(int(n) for n in shape)
        if len(shape) != 3 or min(shape) < MIN_SHAPE:
            raise GeometryError(
                f"phantom: shape {shape}, expected three axes of at least {MIN_SHAPE} voxels; "
                "ask for a finer grid"
            )
        steps = [mm / n for mm, n in zip(FIELD_OF_VIEW_MM, shape, strict=True)]
        affine = np.diag([-steps[0], -steps[1], steps[2], 1.0])
        affine[1, 3] = FIELD_OF_VIEW_MM[1] - steps[1]
        box, axes = [], []
        for n, step, origin, sign, (low, high) in zip(
            shape, steps, HEAD_ORIGIN_MM, (-1, -1, 1), HEAD_BOX_MM, strict=True
        ):
            position = sign * ((np.arange(n) + 0.5) * step - origin)
            kept = np.flatnonzero((position > low) & (position < high))
            box.append(slice(int(kept[0]), int(kept[-1]) + 1))
            axes.append(position[box[-1]].astype(np.float32))
        return _Grid(shape, affine, tuple(box), tuple(axes))

    def points(self) -> Points:
        return np.meshgrid(*self.axes, indexing="ij")

    def noise(self, rng: np.random.Generator, period_mm: float) -> Floats:
        """Smooth noise, mean about 0, deviation about 1: cubic B-splines, knots period_mm apart."""
        knots = [int((high - low) / period_mm) + 4 for low, high in HEAD_BOX_MM]
        values = rng.standard_normal(knots, dtype=np.float32)
        for i, (axis, (low, _)) in enumerate(zip(self.axes, HEAD_BOX_MM, strict=True)):
            values = _spread(values, i, (axis - low) / np.float32(period_mm))
        # 151/315 is the integral of the squared cubic B-spline.
        return values / np.float32((151 / 315) ** 1.5)

    def embed(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of the box, (..., i, j, k), in the field of view and NIfTI's memory order."""
        lead = values.shape[:-3]
        whole = np.zeros((*lead, *self.shape[::-1]), values.dtype)
        whole = whole.transpose(*range(len(lead)), -1, -2, -3)
        index: tuple[Any, ...] = (..., *self.box)
        whole[index] = values
        return whole


def _spread(values: Floats, axis: int, position: Floats) -> Floats:
    """Cubic B-splines along one axis, at positions counted in knots from the second one.

    Four explicit taps instead of a matrix product: the threads of BLAS would make it slower on a
    busy machine.
    """
    first = np.floor(position).astype(int)
    t = position - first
    taps = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    shape = [-1 if a == axis else 1 for a in range(3)]
    parts = (
        values.take(first + k, axis) * (tap / 6).astype(np.float32).reshape(shape)
        for k, tap in enumerate(taps)
    )
    return np.sum(list(parts), axis=0)


@dataclass(frozen=True, eq=False)
class _Lesion:
    """Depths of the tumour at the brain's voxels, in mm. The core contains rim and necrosis."""

    core: Floats
    rim: Floats  # thickness of the enhancing rim
    oedema: Floats

    def labels(self) -> NDArray[np.uint8]:
        values = np.where(
            self.core > self.rim, NCR, np.where(self.core > 0, ET, np.where(self.oedema > 0, ED, 0))
        )
        return values.astype(np.uint8)


@dataclass(frozen=True)
class _Tumour:
    """Position and size of a tumour, in mm."""

    centre: tuple[float, float, float]
    radius: float
    reach: float

    @staticmethod
    def draw(rng: np.random.Generator) -> _Tumour:
        """A random tumour in the white matter of one hemisphere."""
        side = 1.0 if rng.random() < 0.5 else -1.0
        centre = side * rng.uniform(28, 34), rng.uniform(-45, 25), rng.uniform(16, 34)
        return _Tumour(centre, radius=rng.uniform(15, 20), reach=rng.uniform(28, 36))

    def grown(self, by_mm: float) -> _Tumour:
        """The tumour later."""
        return replace(self, radius=self.radius + by_mm, reach=self.reach + by_mm)

    def push(self, p: Points) -> Points:
        """Displacement of tissue by the tumour's mass, away from its centre."""
        away = [c - o for c, o in zip(p, self.centre, strict=True)]
        distance = length(away)
        strength = (
            MASS_EFFECT_MM * np.exp((distance / -35) * (distance / 35)) / np.maximum(distance, 8)
        )
        return [strength * c for c in away]

    def grow(self, p: Points, anatomy: Anatomy, noise: Noise) -> _Lesion:
        """The tumour in a head: a lobulated core, a rim of 2.4 to 6 mm, oedema of at least 2 mm."""
        away = [c - o for c, o in zip(p, self.centre, strict=True)]
        distance = length([c + 3.0 * noise(20.0) for c in away])
        side = p[0] if self.centre[0] > 0 else -p[0]
        core = np.minimum(
            self.radius + 3.0 * noise(14.0) + 1.2 * noise(6.0) - distance,
            np.minimum(side, anatomy.cerebrum) - 3,
        )
        rim = np.clip(3.2 + 1.2 * noise(12.0) + 0.6 * noise(6.0), 2.4, 6.0)
        # Oedema follows white matter: cortex, nuclei and the midline slow it down, fluid stops it.
        slowed = 9 * (1 - ramp(anatomy.cortex - CORTEX_MM) * (1 - ramp(anatomy.nuclei))) + np.clip(
            10 - 2 * side, 0, None
        )
        spread = self.reach + 6 * noise(14.0) + 2 * noise(6.0) - distance - slowed
        tissue = np.minimum(anatomy.cortex, -anatomy.ventricles)
        return _Lesion(core, rim, np.minimum(np.maximum(spread, core + 2), tissue))


def _contrast(tissue: str) -> Floats:
    return np.array(CONTRAST[tissue], np.float32)[:, None]


def _paint(anatomy: Anatomy, lesion: _Lesion) -> Floats:
    """Mean intensities (4, n) in standard deviations, painted layer by layer."""
    cerebellum, edge = ramp(anatomy.cerebellum, 2), 1.5
    layers = [
        ("grey", ramp(anatomy.cortex)),
        ("white", ramp(anatomy.cortex - CORTEX_MM, edge)),
        ("csf", cerebellum),
        ("grey", cerebellum * ramp(anatomy.folia)),
        ("white", cerebellum * ramp(anatomy.folia - FOLIA_MM, edge) * 0.8),
        ("white", ramp(anatomy.stem, 2) * 0.9),
        ("nuclei", ramp(anatomy.nuclei, 2)),
        ("csf", ramp(anatomy.ventricles)),
        ("vessel", ramp(anatomy.vessels)),
        ("oedema", ramp(lesion.oedema, 3)),
        ("rim", ramp(lesion.core)),
        ("necrosis", ramp(lesion.core - lesion.rim, edge)),
    ]
    images = np.repeat(_contrast("csf"), len(cerebellum), axis=1)
    for tissue, share in layers:
        images += share * (_contrast(tissue) - images)
    return images


def _texture(lesion: _Lesion, noise: Noise, rng: np.random.Generator) -> Floats:
    """Variation within a tissue, (4, n), in standard deviations."""
    sick = np.maximum(ramp(lesion.core), ramp(lesion.oedema, 3))
    patch = PATCH + SICK_PATCH * sick
    grain = rng.standard_normal((4, len(sick)), dtype=np.float32)
    return patch * np.stack([noise(7.0) for _ in range(4)]) + GRAIN * grain


def _blur(images: Floats) -> Floats:
    """Point spread of the scanner, (1, 2, 1) / 4 along each of the last three axes, in place."""
    for image in images:
        for axis in range(3):
            rows = np.moveaxis(image, axis, 0)
            pairs = rows[:-1] + rows[1:]
            rows[1:-1] = (pairs[:-1] + pairs[1:]) / 4
    return images


def _scan(painted: Floats, noise: Noise, rng: np.random.Generator) -> Floats:
    """Scanner units (4, n): bias field of the coil, Rician noise, rounded, at least 1."""
    bias = 1 + BIAS * np.stack([noise(80.0) for _ in range(4)])
    signal = (MEAN + SPREAD * painted) * bias
    real, imaginary = (
        NOISE * SPREAD * rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2)
    )
    return np.maximum(np.rint(np.hypot(signal + real, imaginary)), 1)
