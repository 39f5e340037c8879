"""The voxel grid of a NIfTI header: by its sform, its qform, or its voxel sizes alone.

nifti1.h, "3D IMAGE (VOLUME) ORIENTATION AND LOCATION IN SPACE": method 3 is the sform, method 2 the
qform, method 1 neither. The sform rules, as in nibabel, FSL and SPM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import GeometryError
from fastbts.formats.nifti_header import NiftiHeader, rotation_of
from fastbts.volume import MAX_SPACING_MM, MIN_SPACING_MM, Geometry

MAX_QUATERNION = 1.001  # length; rounding makes some longer than 1, nifti_clib and ITK accept any
ROUNDED_WEIGHT = 3 * float(np.finfo(np.float32).eps)  # a^2 below this is 0, as in nibabel
MIN_DETERMINANT = 1e-3  # of an sform's directions; smaller: it is singular, and no grid
MAX_FORMS_APART = 1.0  # voxels between qform and sform; many programs write them differently
NO_FORM = (
    "the header has neither sform nor qform: orientation taken as LAS from voxel sizes alone, left "
    "and right may be swapped"
)

Shape = tuple[int, int, int]


def grid_of(header: NiftiHeader, shape: Shape) -> tuple[Geometry, tuple[str, ...]]:
    """The grid of an image, and warnings about it.

    Sform and qform fall back on each other. Voxel sizes (pixdim) are judged where they are used.

    Args:
        header: Of the file.
        shape: Voxels along i, j, k.
    Raises:
        GeometryError: The header has forms, but none that can be used; or it has none, and no
            voxel sizes either. The message does not contain the file.
    """
    forms = dict(_forms(header, shape))
    if not forms:
        return _geometry(_base, header, shape), (NO_FORM,)
    usable = {name: form for name, form in forms.items() if isinstance(form, Geometry)}
    problems = {name: form for name, form in forms.items() if not isinstance(form, Geometry)}
    if not usable:
        all_problems = "; ".join(f"the {name} is unusable: {why}" for name, why in problems.items())
        raise GeometryError(f"{all_problems}; export the image again")
    used = next(iter(usable))
    if "sform" in problems:
        _check_shear(header, usable[used])
    fallen = [
        f"the {name} is unusable ({why}): the {used} was used" for name, why in problems.items()
    ]
    return usable[used], (*fallen, *_disagreement(*usable.values()))


def _check_shear(header: NiftiHeader, qform: Geometry) -> None:
    """Refuses a qform in place of an sform that is only sheared, and elsewhere.

    Other programs use such an sform, and would show the labels at another place.
    """
    sform = header.sform()
    with np.errstate(over="ignore"):  # infinite is too large as well
        steps = np.linalg.norm(sform[:3, :3], axis=0)
    if not (
        np.isfinite(sform).all() and MIN_SPACING_MM <= steps.min() <= steps.max() <= MAX_SPACING_MM
    ):
        return
    is_grid = abs(np.linalg.det(sform[:3, :3] / steps)) > MIN_DETERMINANT
    if is_grid and qform.voxels_apart(sform) > MAX_FORMS_APART:
        raise GeometryError(
            "the sform's voxel axes are not perpendicular, and the qform is up to "
            f"{qform.mm_apart(sform):.1f} mm from it; resample the image to an unsheared grid first"
        )


def has_form(header: NiftiHeader) -> bool:
    """Whether the header says where the voxels are, well or badly."""
    return any(int(header[f"{name}_code"]) > 0 for name in MAKERS)


def _forms(header: NiftiHeader, shape: Shape) -> Iterator[tuple[str, Geometry | GeometryError]]:
    for name, make in MAKERS.items():
        if int(header[f"{name}_code"]) > 0:
            try:
                yield name, _geometry(make, header, shape)
            except GeometryError as error:
                yield name, error


def _geometry(
    make: Callable[[NiftiHeader], NDArray[np.float64]], header: NiftiHeader, shape: Shape
) -> Geometry:
    return Geometry(shape, make(header))


def _sform(header: NiftiHeader) -> NDArray[np.float64]:
    return header.sform()


def _qform(header: NiftiHeader) -> NDArray[np.float64]:
    bcd = np.array([float(header[f"quatern_{axis}"]) for axis in "bcd"])
    place = np.array([float(header[f"qoffset_{axis}"]) for axis in "xyz"])
    if not (np.isfinite(bcd).all() and np.isfinite(place).all()):
        raise GeometryError("it is not finite")
    if np.linalg.norm(bcd) > MAX_QUATERNION:
        raise GeometryError("its quaternion is not a rotation")
    weight = 1 - bcd @ bcd
    rotation = rotation_of(
        [np.sqrt(weight) if weight > ROUNDED_WEIGHT else 0, *bcd]
    )  # renormalises
    qfac = -1 if header["pixdim"][0] == -1 else 1  # nifti1.h: any other value counts as 1
    affine = np.eye(4)
    affine[:3, :3] = rotation * _voxel_sizes(header) * (1, 1, qfac)
    affine[:3, 3] = place
    return affine


def _base(header: NiftiHeader) -> NDArray[np.float64]:
    _voxel_sizes(header)
    return header.base_affine()


MAKERS = {"sform": _sform, "qform": _qform}
"""In the order of precedence."""


def _voxel_sizes(header: NiftiHeader) -> NDArray[np.float64]:
    sizes = np.array(header["pixdim"][1:4], np.float64)
    if not ((sizes >= MIN_SPACING_MM) & (sizes <= MAX_SPACING_MM)).all():
        raise GeometryError(
            f"expected voxel sizes (pixdim) of {MIN_SPACING_MM}-{MAX_SPACING_MM} mm, got "
            f"({', '.join(f'{size:.4g}' for size in sizes)}); check the header's units"
        )
    return sizes


def _disagreement(sform: Geometry, qform: Geometry | None = None) -> Iterator[str]:
    if qform is None or sform.voxels_apart(qform.affine) <= MAX_FORMS_APART:
        return
    codes = (qform.axis_codes, sform.axis_codes)
    turned = f" ({codes[0]} and {codes[1]})" if codes[0] != codes[1] else ""
    yield (
        f"qform and sform disagree by up to {sform.mm_apart(qform.affine):.1f} mm{turned}: the "
        "sform was used"
    )
