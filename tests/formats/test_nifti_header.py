"""The header of a NIfTI image, against nibabel's."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nibabel.orientations import io_orientation
from nibabel.quaternions import quat2mat
from nibabel.spatialimages import HeaderDataError

from fastbts import Geometry
from fastbts.formats.nifti_header import DTYPES, NiftiHeader, quaternion_of, rotation_of

PEERS = {1: nib.Nifti1Header, 2: nib.Nifti2Header}
SHAPE = (5, 4, 3)
quick = settings(max_examples=100, deadline=None)
numbers = st.floats(-1, 1)


def rotation(bcd: tuple[float, float, float]) -> np.ndarray:
    return rotation_of((0.5, *bcd))


def header(version: int, **fields: Any) -> NiftiHeader:
    made = NiftiHeader.new(version, SHAPE)
    for name, value in fields.items():
        made[name] = value
    return made


def peer(ours: NiftiHeader) -> Any:
    return PEERS[ours.version](ours.to_bytes(), ours.endianness, check=False)


@pytest.mark.parametrize("version", [1, 2])
def test_fields_are_those_of_nibabel(version: int) -> None:
    expected = PEERS[version].template_dtype
    assert DTYPES[version].names == expected.names
    for name in expected.names:
        assert DTYPES[version].fields[name][1] == expected.fields[name][1], name
        assert DTYPES[version][name] == expected[name], name


@pytest.mark.parametrize("version", [1, 2])
def test_new_header_is_that_of_nibabel(version: int) -> None:
    expected = PEERS[version]()
    expected.set_data_shape(SHAPE)
    expected.set_data_dtype(np.uint8)
    expected.set_xyzt_units("mm")
    expected["scl_slope"], expected["scl_inter"], expected["vox_offset"] = 1, 0, 0
    assert NiftiHeader.new(version, SHAPE).to_bytes() == bytes(expected.binaryblock)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
def test_header_of_nibabel(version: int, order: str) -> None:
    given = PEERS[version](endianness=order)
    given["descrip"], given["srow_x"] = b"text", (1, 2, 3, 4)
    ours = NiftiHeader.of(given)
    assert ours["descrip"] == b"text"
    assert list(ours["srow_x"]) == [1, 2, 3, 4]
    assert ours.to_bytes() == bytes(given.binaryblock)
    assert NiftiHeader.of(ours) is ours
    assert pickle.loads(pickle.dumps(ours)).to_bytes() == ours.to_bytes()


@quick
@given(
    version=st.sampled_from([1, 2]),
    bcd=st.tuples(numbers, numbers, numbers),
    pixdim=st.tuples(st.sampled_from([-1, 0, 1, 2]), *[st.floats(-0.5, 5)] * 3),
    place=st.tuples(*[st.floats(-200, 200)] * 3),
)
def test_affines_are_those_of_nibabel(
    version: int, bcd: tuple[float, ...], pixdim: tuple[float, ...], place: tuple[float, ...]
) -> None:
    ours = header(version, pixdim=(*pixdim, 1, 1, 1, 1))
    for axis, number, row, offset in zip("bcd", bcd, "xyz", place, strict=True):
        ours[f"quatern_{axis}"], ours[f"qoffset_{row}"] = number, offset
        ours[f"srow_{row}"] = (number, *place)
    np.testing.assert_array_equal(ours.sform(), peer(ours).get_sform())
    np.testing.assert_allclose(ours.base_affine(), peer(ours).get_base_affine(), atol=1e-6)
    try:
        expected = peer(ours).get_qform()
    except (ValueError, HeaderDataError):
        with pytest.raises(ValueError, match=r"quaternion|pixdim"):
            ours.qform()
    else:
        np.testing.assert_allclose(ours.qform(), expected, atol=1e-4)


@quick
@given(
    version=st.sampled_from([1, 2]),
    bcd=st.tuples(numbers, numbers, numbers),
    sizes=st.tuples(*[st.floats(0.1, 5)] * 3),
    flip=st.sampled_from([1, -1]),
)
def test_qform_is_set_as_by_nibabel(
    version: int, bcd: tuple[float, float, float], sizes: tuple[float, ...], flip: int
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation(bcd) * sizes * (1, 1, flip)
    affine[:3, 3] = 1, -2, 3
    ours = header(version)
    ours.set_qform(affine, 1)
    ours.set_sform(affine, 2)
    expected = PEERS[version]()
    expected.set_qform(affine, 1)
    for name in ("pixdim", "quatern_b", "quatern_c", "quatern_d", "qoffset_y", "qform_code"):
        np.testing.assert_allclose(ours[name], expected[name], atol=1e-6)
    np.testing.assert_allclose(ours.qform(), affine, atol=1e-5)
    np.testing.assert_allclose(ours.sform(), affine, atol=1e-6)
    assert (ours["qform_code"], ours["sform_code"]) == (1, 2)


@quick
@given(quaternion=st.tuples(numbers, numbers, numbers, numbers))
def test_quaternions(quaternion: tuple[float, ...]) -> None:
    found = rotation_of(quaternion)
    np.testing.assert_allclose(found, quat2mat(quaternion), atol=1e-12)
    np.testing.assert_allclose(rotation_of(quaternion_of(found)), found, atol=1e-12)


@quick
@given(
    quaternion=st.tuples(numbers, numbers, numbers, numbers),
    flips=st.tuples(*[st.sampled_from([1, -1])] * 3),
    shear=st.floats(-0.004, 0.004),
)
def test_axes_are_those_of_nibabel(
    quaternion: tuple[float, ...], flips: tuple[int, ...], shear: float
) -> None:
    """Where each axis has one of its own: between them, versions of nibabel differ."""
    turned = np.abs(rotation_of(quaternion))
    assume(len({*turned.argmax(axis=0)}) == 3)
    assume(np.ptp(np.sort(turned, axis=0)[1:], axis=0).min() > 0.02)
    affine = np.eye(4)
    affine[:3, :3] = rotation_of(quaternion) * flips * (1, 2, 3)
    affine[:3, 0] += shear * affine[:3, 1]
    expected = [(int(axis), int(step)) for axis, step in io_orientation(affine)]
    assert list(Geometry(SHAPE, affine).ras_axes) == expected


def test_files_are_segmented_without_nibabel() -> None:
    code = (
        "import sys; sys.modules['nibabel'] = None\n"
        "import fastbts.read.case, fastbts.write.nifti, fastbts.segmenter\n"
        "import numpy as np; from fastbts import Volume\n"
        "from fastbts.formats.nifti_header import NiftiHeader\n"
        "header = NiftiHeader.new(1, (5, 4, 3))\n"
        "v = Volume(np.zeros((1, 5, 4, 3), 'u1'), np.eye(4), ('flair',), header=header)\n"
        "fastbts.write.nifti._header_bytes(v, {}); v.geometry.axis_codes"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
