"""Where a NIfTI header places its voxels; affines by hand, through files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbts import GeometryError
from fastbts.read.forms import NO_FORM, grid_of
from fastbts.read.nifti import Image, read_image
from tests.read.hostile_nifti import SHAPE, nifti

IDENTITY = np.eye(4)
TURNED = np.diag([-1.0, -1, 1, 1])  # by 180 degrees about z
ZERO = {"srow_x": 0, "srow_y": 0, "srow_z": 0}


def read(folder: Path, **fields: Any) -> Image:
    (folder / "image.nii").write_bytes(nifti(**fields))
    return read_image(folder / "image.nii")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("fields", "affine"),
    [
        ({"quatern_d": 1.0000004}, TURNED),  # nibabel refuses it
        ({"quatern_d": 1.0009}, TURNED),
        ({"quatern_b": 1.00001}, np.diag([1.0, -1, -1, 1])),
        ({"quatern_d": 0.9999999}, TURNED),  # a tiny remainder is rounding, too
        ({"quatern_b": 0.60001, "quatern_c": 0.80001}, None),
        ({"pixdim": [0, 1, 1, 1, 0, 0, 0, 0]}, IDENTITY),  # qfac 0 counts as 1
        ({"pixdim": [-1, 1, 2, 4, 0, 0, 0, 0]}, np.diag([1.0, 2, -4, 1])),
    ],
)
def test_qforms_alone(
    tmp_path: Path, fields: dict[str, Any], affine: np.ndarray | None, version: int
) -> None:
    image = read(tmp_path, version=version, sform_code=0, qform_code=1, **fields)
    if affine is None:  # about (0.6, 0.8, 0) by 180 degrees
        affine = np.eye(4)
        affine[:3, :3] = [[-0.28, 0.96, 0], [0.96, 0.28, 0], [0, 0, -1]]
    np.testing.assert_allclose(image.geometry.affine, affine, atol=2e-5)
    assert image.warnings == ()


@settings(max_examples=100, deadline=None)
@given(
    bcd=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    place=st.tuples(*[st.floats(-200, 200)] * 3),
    qfac=st.sampled_from([-1, 1]),
)
def test_qforms_agree_with_nibabel(
    bcd: tuple[float, ...], place: tuple[float, ...], qfac: int
) -> None:
    header = nib.Nifti1Header()
    header["qform_code"], header["pixdim"][:4] = 1, (qfac, 0.5, 1, 3)
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = bcd
    header["qoffset_x"], header["qoffset_y"], header["qoffset_z"] = place
    geometry, warnings = grid_of(header, SHAPE)
    np.testing.assert_allclose(geometry.affine, header.get_qform(), atol=1e-9)
    assert warnings == ()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (ZERO, "spacing"),
        ({"srow_x": [1, 1, 0, 0], "srow_y": 0}, "not perpendicular"),  # singular
        ({"srow_x": np.nan}, "finite 4x4"),
        ({"srow_z": [0, 0, np.inf, 0]}, "finite 4x4"),
        ({"srow_x": [1e-3, 0, 0, 0]}, "spacing"),
        ({"srow_x": [1e30, 0, 0, 0]}, "spacing"),
    ],
)
def test_a_bad_sform_falls_back_on_the_qform(
    tmp_path: Path, fields: dict[str, Any], problem: str
) -> None:
    image = read(tmp_path, qform_code=1, quatern_d=1, qoffset_x=12, **fields)
    expected = TURNED.copy()
    expected[0, 3] = 12
    np.testing.assert_allclose(image.geometry.affine, expected, atol=1e-7)
    (warning,) = image.warnings
    assert warning.startswith("the sform is unusable (")
    assert problem in warning
    assert warning.endswith("): the qform was used")


def test_a_sheared_sform_needs_a_qform_at_its_place(tmp_path: Path) -> None:
    """Other programs use the sform, so labels by a qform elsewhere would be shown elsewhere."""
    with pytest.raises(GeometryError, match=r"not perpendicular, and the qform is up to .* mm"):
        read(tmp_path, qform_code=1, quatern_d=1, srow_x=[1, 0.3, 0, 0])
    slight = {"srow_x": [-1, 0.03, 0, 0], "srow_y": [0, -1, 0, 0], "srow_z": [0, 0, 1, 0]}
    assert "the qform was used" in read(tmp_path, qform_code=1, quatern_d=1, **slight).warnings[0]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"quatern_b": 0.9, "quatern_c": 0.9, "quatern_d": 0.9},
            "its quaternion is not a rotation",
        ),
        ({"quatern_d": 1.01}, "its quaternion is not a rotation"),
        ({"quatern_c": np.nan}, "it is not finite"),
        ({"qoffset_x": np.inf}, "it is not finite"),
        ({"pixdim": [1, 1, 0, 1, 0, 0, 0, 0]}, "voxel sizes"),
        ({"pixdim": [1, 1, 1, -1, 0, 0, 0, 0]}, "voxel sizes"),
    ],
)
def test_a_bad_qform_falls_back_on_the_sform(
    tmp_path: Path, fields: dict[str, Any], problem: str
) -> None:
    image = read(tmp_path, qform_code=1, **fields)
    np.testing.assert_array_equal(image.geometry.affine, IDENTITY)
    (warning,) = image.warnings
    assert warning.startswith("the qform is unusable (")
    assert problem in warning
    assert warning.endswith("): the sform was used")


@pytest.mark.parametrize("sizes", [(1, -1, 1), (0, 0, 0), (np.nan, 1, 1), (1e9, 1, 1)])
def test_voxel_sizes_do_not_matter_beside_an_sform(
    tmp_path: Path, sizes: tuple[float, ...]
) -> None:
    image = read(tmp_path, pixdim=[1, *sizes, 0, 0, 0, 0])
    np.testing.assert_array_equal(image.geometry.affine, IDENTITY)
    assert image.warnings == ()


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"qoffset_y": 0.9}, None),
        ({"qoffset_y": 12.5}, "qform and sform disagree by up to 12.5 mm: the sform was used"),
        # The far corner of 5 x 4 x 3 voxels moves by 2 * 4 mm along x and 2 * 3 mm along y.
        ({"quatern_d": 1}, "qform and sform disagree by up to 10.0 mm (LPS and RAS): the sform"),
    ],
)
def test_the_sform_rules_and_a_disagreement_is_told(
    tmp_path: Path, fields: dict[str, Any], warning: str | None
) -> None:
    image = read(tmp_path, qform_code=1, **fields)
    np.testing.assert_array_equal(image.geometry.affine, IDENTITY)
    assert len(image.warnings) == (warning is not None)
    assert all(w.startswith(str(warning)) for w in image.warnings)


def test_voxel_sizes_alone(tmp_path: Path) -> None:
    """LAS about the centre (2, 1.5, 1), as in nibabel."""
    image = read(tmp_path, sform_code=0, pixdim=[1, 2, 1, 3, 0, 0, 0, 0])
    expected = [[-2, 0, 0, 4], [0, 1, 0, -1.5], [0, 0, 3, -3], [0, 0, 0, 1]]
    np.testing.assert_array_equal(image.geometry.affine, expected)
    assert image.warnings == (NO_FORM,)


def test_no_usable_form_names_each(tmp_path: Path) -> None:
    with pytest.raises(GeometryError) as caught:
        read(tmp_path, qform_code=1, quatern_b=9, **ZERO)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'image.nii'}: the sform is unusable: spacing")
    assert "; the qform is unusable: its quaternion is not a rotation; export" in message
