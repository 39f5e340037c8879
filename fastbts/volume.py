"""The images of one case on their voxel grid, and the glossary of axis letters.

B batch, M modalities, K regions, w side of a window. X Y Z are the axes of an image in patient
space (RAS+: X to the right, Y to the front, Z upwards), i j k those of a file as stored, (D, H, W)
those inside networks and ops. (D, H, W) is (Z, Y, X): the memory order of NIfTI, so that no axis
has to be moved when reading or writing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import CaseError, GeometryError, InputError

# OpenBLAS tries for ever where it gets no memory for its buffer, and keeps one that it once got: it
# shall get it before the images and the network take the memory.
np.linalg.inv(np.eye(2))

MODALITIES = ("flair", "t1", "t1ce", "t2")
"""The order in which fastbts stores modalities, unless an engine says otherwise."""
IF_MISSING = (
    "give the missing images, or allow it (--allow-missing, SegmenterOptions(allow_missing=True)) "
    "with an engine that was trained for it"
)
"""The advice in every error about an incomplete case."""

MIN_SPACING_MM, MAX_SPACING_MM = 0.1, 20.0
MAX_BRAIN_ML = 2500.0  # brains of the BraTS cases: 1170-1750 ml; a head has more than 3000
MAX_BRAIN_SHARE = 0.9  # of an image; a brain in its bounding box fills half of it
MAX_APART = 0.01  # voxels between the corners of two grids that count as one
MAX_SHEAR = 1e-2  # cosine between two voxel axes; gantry-tilt data would need resampling first
MAX_UNSHEARED_APART = 0.1  # voxels; a rotation that is further from a sheared grid is announced


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid in patient space.

    Attributes:
        shape: Voxels along i, j, k.
        affine: Voxel index -> RAS+ position in mm, float64, (4, 4).

    Raises:
        GeometryError: The affine is not finite, singular or sheared, or its spacing is not within
            0.1-20 mm.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        try:
            affine = np.array(self.affine, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise GeometryError(f"affine {self.affine!r}: expected a finite 4x4 matrix") from error
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        problem = _geometry_problem(self.shape, affine)
        if problem:
            raise GeometryError(problem)

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel along i, j, k, in mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @cached_property
    def axis_codes(self) -> str:
        """Directions of i, j, k, for example "LPS"."""
        codes = [("RL", "AP", "SI")[axis][step < 0] for axis, step in self.ras_axes]
        return "".join(codes)

    @cached_property
    def ras_axes(self) -> tuple[tuple[int, int], ...]:
        """For each of i, j, k: the nearest patient axis (0 X, 1 Y, 2 Z), and its direction, +-1."""
        rotation, found = self._rotation.copy(), {}
        # The clearest axis first, as in nibabel.
        for i in np.argsort(-np.abs(rotation).max(axis=0), kind="stable"):
            axis = int(np.abs(rotation[:, i]).argmax())
            found[int(i)] = axis, -1 if rotation[axis, i] < 0 else 1
            rotation[axis] = 0
        return tuple(found[i] for i in range(3))

    @cached_property
    def unsheared(self) -> NDArray[np.float64]:
        """The affine of the nearest grid with perpendicular axes, about the same centre."""
        centre = (np.array(self.shape) - 1) / 2
        affine = np.eye(4)
        affine[:3, :3] = self._rotation * self.spacing_mm
        affine[:3, 3] = self.affine[:3, 3] + (self.affine - affine)[:3, :3] @ centre
        return affine

    @cached_property
    def _rotation(self) -> NDArray[np.float64]:
        """The directions of the axes made perpendicular, (3, 3), perhaps with a reflection.

        By polar decomposition: Higham, "Computing the polar decomposition", 1986.
        """
        left, _, right = np.linalg.svd(self.affine[:3, :3] / self.spacing_mm)
        return left @ right

    @cached_property
    def shear_warning(self) -> str | None:
        """What a user must know about a grid that only an affine matrix holds, not a rotation."""
        _, mm, voxels = self._furthest_corner(self.unsheared)
        if voxels <= MAX_UNSHEARED_APART:
            return None
        return (
            f"the voxel axes are not perpendicular: programs that read the result by its qform "
            f"(ITK-SNAP, 3D Slicer) show it up to {mm:.2g} mm ({voxels:.2g} voxels) away"
        )

    def difference(self, other: Geometry) -> str | None:
        """How the other grid differs beyond tolerance; None if they agree.

        They agree if no corner of the grid is apart by more than 1 % of a voxel.
        """
        if self.shape != other.shape:
            return f"shape {other.shape}, expected {self.shape}"
        corner, mm, voxels = self._furthest_corner(other.affine)
        if voxels <= MAX_APART:
            return None
        details = {
            "orientation": (other.axis_codes, self.axis_codes),
            "spacing in mm": (_rounded(other.spacing_mm), _rounded(self.spacing_mm)),
        }
        differing = [
            f"{name} {got}, expected {expected}"
            for name, (got, expected) in details.items()
            if got != expected
        ]
        apart = (
            f"the corner voxel {corner} is {mm:.3g} mm ({voxels:.2g} voxels) away, at most "
            f"{MAX_APART} voxels are allowed"
        )
        return "; ".join([*differing, apart])

    def voxels_apart(self, affine: NDArray[np.float64]) -> float:
        """The largest distance between corners of this grid and of one by `affine`, in voxels."""
        return self._furthest_corner(affine)[2]

    def mm_apart(self, affine: NDArray[np.float64]) -> float:
        """The same in mm, at the corner where the grids are furthest apart in voxels."""
        return self._furthest_corner(affine)[1]

    def _furthest_corner(
        self, affine: NDArray[np.float64]
    ) -> tuple[tuple[int, int, int], float, float]:
        """The corner voxel that another affine moves most, and how far: in mm and in voxels."""
        corners = np.array(np.meshgrid(*((0, n - 1) for n in self.shape), [1])).reshape(4, -1)
        moved_mm = (affine - self.affine)[:3] @ corners
        voxels = np.linalg.norm(np.linalg.solve(self.affine[:3, :3], moved_mm), axis=0)
        worst = int(voxels.argmax())
        i, j, k = (int(n) for n in corners[:3, worst])
        return (i, j, k), float(np.linalg.norm(moved_mm[:, worst])), float(voxels[worst])


def to_network_axes(array: Any, geometry: Geometry) -> Any:
    """Views the last three axes (i, j, k) as network axes (D, H, W) = (Z, Y, X) of RAS+; no copy.

    Writing into the view writes into the array.
    """
    lead = array.ndim - 3
    # Patient axis -> stored axis and its direction.
    source = {axis: (i, step) for i, (axis, step) in enumerate(geometry.ras_axes)}
    order = [source[axis][0] for axis in (2, 1, 0)]
    flips = tuple(slice(None, None, source[axis][1]) for axis in (2, 1, 0))
    moved = array.transpose(*range(lead), *(lead + i for i in order))
    return moved[(..., *flips)]


def network_affine(geometry: Geometry) -> NDArray[np.float64]:
    """Voxel (d, h, w) of a grid in network axes -> RAS+ position in mm, (4, 4)."""
    order = np.zeros((4, 4))
    order[3, 3] = 1
    for i, (axis, step) in enumerate(geometry.ras_axes):
        order[i, 2 - axis] = step
        order[i, 3] = 0 if step > 0 else geometry.shape[i] - 1
    affine: NDArray[np.float64] = geometry.affine @ order
    return affine


@dataclass(frozen=True, eq=False, repr=False)
class Volume:
    """The co-registered MR images of one case, on one voxel grid.

    Attributes:
        data: (M, i, j, k), intensities as stored: integers, float32 or float64, native byte order.
            A NumPy array; on a CUDA device a CuPy array, or what
            `fastbts.device.arrays.borrow` makes of another library's.
            The background is 0; another constant, low noise and NaN are replaced, with a warning.
            Integers stay integers: every modality is normalised on its own, so a positive factor
            changes nothing.
        affine: Voxel index -> RAS+ position in mm, float64, (4, 4).
        modalities: Names of the M images.
        names: Where each image came from, for messages; the modality's name by default.
        warnings: What is unusual but not wrong, for the report; a sheared affine adds one.
        sha256: Of each image's file, for the report; empty for arrays.
        header: `NiftiHeader` of the first file, or nibabel's, so that results are written in the
            same form; None for arrays.

    Raises:
        InputError: The data are not 4-D, or not real numbers.
        CaseError: The names do not match the data.
        GeometryError: See `Geometry`.
    """

    data: Any
    affine: NDArray[np.float64]
    modalities: Sequence[str] = MODALITIES
    names: Sequence[str] = ()
    warnings: Sequence[str] = ()
    sha256: Sequence[str] = ()
    header: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        object.__setattr__(self, "names", tuple(self.names) or self.modalities)
        if self.data.ndim != 4:
            raise InputError(
                f"volume: expected an array (M, X, Y, Z), got shape {self.data.shape}; "
                "stack one image per modality"
            )
        if (
            self.data.dtype.kind not in "iuf"
            or self.data.dtype.itemsize > 8
            or self.data.dtype == np.float16
        ):
            raise InputError(
                f"volume: expected integers, float32 or float64, got {self.data.dtype}; "
                "convert with astype first"
            )
        if not self.data.dtype.isnative:
            raise InputError(
                f"volume: expected native byte order, got {self.data.dtype}; "
                "convert with astype first"
            )
        if not len(self.data) == len(self.modalities) == len(set(self.modalities)):
            raise CaseError(
                f"volume: {len(self.data)} images, but modalities {', '.join(self.modalities)}; "
                "name each image exactly once"
            )
        sheared = self.geometry.shear_warning
        if sheared and sheared not in self.warnings:
            object.__setattr__(self, "warnings", (*self.warnings, sheared))

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.geometry.shape))
        spacing = " x ".join(f"{step:.3g}" for step in self.geometry.spacing_mm)
        return (
            f"Volume({', '.join(self.modalities)}: {shape} {self.data.dtype}, "
            f"{self.geometry.axis_codes}, {spacing} mm)"
        )

    @cached_property
    def geometry(self) -> Geometry:
        """The grid that all images share."""
        n_x, n_y, n_z = self.data.shape[1:]
        return Geometry((n_x, n_y, n_z), self.affine)

    def select(self, modalities: Sequence[str], optional: Sequence[str] = ()) -> Volume:
        """Returns the volume with these modalities in this order; shares memory if it can.

        Args:
            modalities: Names.
            optional: Those of them that may be absent, with a warning.

        Raises:
            CaseError: One of them is missing and not optional, or none is there.
        """
        check_present(self.modalities, modalities, optional)
        present = tuple(m for m in modalities if m in self.modalities)
        missing = [m for m in modalities if m not in present]
        if present == self.modalities and not missing:
            return self
        warning = (
            f"{', '.join(missing)}: missing; the engine was trained for that, but the result is "
            "less certain"
        )
        index = [self.modalities.index(m) for m in present]
        return replace(
            self,
            data=self.data if present == self.modalities else _images(self.data, index),
            modalities=present,
            warnings=(*self.warnings, *([warning] if missing else [])),
            names=[self.names[i] for i in index],
            sha256=[self.sha256[i] for i in index] if self.sha256 else (),
        )


def _images(data: Any, index: list[int]) -> Any:
    """Some of the images, in host memory or on a device."""
    return data[index] if isinstance(data, np.ndarray) else data.images_of(index)


def check_present(given: Sequence[str], modalities: Sequence[str], optional: Sequence[str]) -> None:
    """Raises CaseError if one of `modalities` that is not optional was not given, or none was."""
    needed = [m for m in modalities if m not in optional]
    missing = [m for m in needed if m not in given]
    if missing or not set(given) & set(modalities):
        expected = ", ".join(needed) or f"at least one of {', '.join(modalities)}"
        raise CaseError(
            f"no image for {', '.join(missing) or 'any modality of the engine'}; got "
            f"{', '.join(given)}; the engine needs {expected}; {IF_MISSING}"
        )


def _geometry_problem(shape: tuple[int, ...], affine: NDArray[np.float64]) -> str | None:
    if len(shape) != 3 or min(shape) < 2:
        return (
            f"shape {shape}: expected three axes of at least 2 voxels; a single slice cannot be "
            "segmented"
        )
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        return (
            f"affine of shape {affine.shape} with values {_rounded(affine.ravel())}: expected a "
            "finite 4x4 matrix"
        )
    if not np.array_equal(affine[3], (0, 0, 0, 1)):
        return (
            f"affine with last row {_rounded(affine[3])}: expected (0, 0, 0, 1); is it transposed?"
        )
    with np.errstate(over="ignore"):  # infinite is too large as well
        steps = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if steps.min() < MIN_SPACING_MM or steps.max() > MAX_SPACING_MM:
        return (
            f"spacing {_rounded(steps)} mm: expected {MIN_SPACING_MM}-{MAX_SPACING_MM} mm; check "
            "the header's units"
        )
    directions = affine[:3, :3] / steps
    shear = np.abs(directions.T @ directions - np.eye(3)).max()
    if shear > MAX_SHEAR:
        return (
            f"voxel axes are not perpendicular (cosine {shear:.3f}, at most {MAX_SHEAR}); resample "
            "to an unsheared grid first"
        )
    return None


def _rounded(values: Any) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"
