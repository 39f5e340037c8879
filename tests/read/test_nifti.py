"""Reading NIfTI: by hand, against nibabel, and against files that must be refused."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastbts import GeometryError, InputError
from fastbts.read.nifti import Image, read_header, read_image, read_voxels
from tests.read.hostile_nifti import (  # fmt: skip
    CODES,
    GOOD,
    HOSTILE,
    NIFTI2,
    PACKED,
    SHAPE,
    VOXELS,
    Hostile,
    bgzip,
    bomb,
    dim,
    gzip_with_name,
    nifti,
    patched,
)

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

both_libraries = pytest.mark.usefixtures("gunzip")


def read(folder: Path, content: bytes, name: str = "image.nii") -> Image:
    (folder / name).write_bytes(content)
    return read_image(folder / name)


def test_by_hand(tmp_path: Path) -> None:
    """Two voxels along each axis, written byte by byte."""
    header = nib.Nifti1Header()
    header.set_data_shape((2, 2, 2))
    header.set_data_dtype(np.uint8)
    header.set_sform(np.diag([-1.0, -1.0, 3.0, 1.0]), 1)
    header["pixdim"][1:4], header["vox_offset"] = (1, 1, 3), 352
    image = read(tmp_path, header.binaryblock + b"\0\0\0\0" + bytes([0, 1, 2, 3, 4, 5, 6, 7]))
    assert image.data.dtype == np.uint8
    assert [image.data[i, 0, 0] for i in (0, 1)] == [0, 1], "the first axis runs fastest"
    assert [image.data[0, j, 0] for j in (0, 1)] == [0, 2]
    assert [image.data[0, 0, k] for k in (0, 1)] == [0, 4]
    assert image.data.flags.f_contiguous
    assert image.geometry.axis_codes == "LPS"
    assert image.geometry.spacing_mm == (1, 1, 3)
    assert image.warnings == ()


@both_libraries
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_hostile_files_are_refused(tmp_path: Path, hostile: Hostile) -> None:
    path = tmp_path / "image.nii.gz"
    path.write_bytes(hostile.make())
    with pytest.raises(hostile.error, match=hostile.message) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).count(str(path)) == 1, "no message inside another"


def test_hostile_collection_is_large() -> None:
    assert len({hostile.name for hostile in HOSTILE}) == len(HOSTILE) > 71


@both_libraries
@pytest.mark.parametrize(
    ("header", "message"),
    [
        (GOOD, "trailing bytes: expected 120 bytes of voxels"),
        (nifti(version=2, dim=dim(10**3, 10**3, 10**4)), "too large"),
        (bytes(352), "expected a NIfTI image"),
    ],
)
def test_bombs_are_refused_in_little_memory(tmp_path: Path, header: bytes, message: str) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(bomb(10, header))
    assert path.stat().st_size < 20e6
    tracemalloc.start()
    with pytest.raises(InputError, match=message):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()


@both_libraries
def test_false_headers_cost_no_memory(tmp_path: Path) -> None:
    (tmp_path / "false.nii.gz").write_bytes(gzip.compress(nifti(dim=dim(512, 512, 512))))
    tracemalloc.start()
    with pytest.raises(InputError, match="expected 268435808 bytes"):
        read_image(tmp_path / "false.nii.gz")
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def in_gzip(level: int) -> Callable[[bytes], bytes]:
    return lambda content: gzip.compress(content, level)


@both_libraries
@pytest.mark.parametrize("packed", [bytes, in_gzip(9), in_gzip(0), gzip_with_name, bgzip])
@pytest.mark.parametrize(("version", "order"), list(itertools.product((1, 2), "<>")))
@pytest.mark.parametrize("code", CODES)
def test_dtypes_byte_orders_versions_and_packings(
    tmp_path: Path, code: str, version: int, order: str, packed: Callable[[bytes], bytes]
) -> None:
    voxels = VOXELS + 7 if code.startswith("u") else VOXELS
    content = packed(nifti(voxels.astype(code), version=version, order=order))
    image = read(tmp_path, content)
    assert image.data.dtype == np.dtype(code)
    assert image.data.flags.f_contiguous
    np.testing.assert_array_equal(image.data, voxels)
    assert image.header.version == version
    assert image.sha256 == sha256(content).hexdigest()


@pytest.mark.parametrize(
    "content",
    [
        nifti(VOXELS.reshape((*SHAPE, 1), order="F")),
        nifti(VOXELS.reshape((*SHAPE, 1, 1, 1, 1), order="F")),
        nifti(dim=[3, *SHAPE, 99, -1, 0, 7]),
        nifti(
            extension=b"\1\0\0\0"
            + (32).to_bytes(4, "little")
            + (6).to_bytes(4, "little")
            + b"comment".ljust(24, b"\0")
        ),
        nifti(extension=b"\1\0\0\0" + bytes(1000)),
        nifti(scl_slope=0, scl_inter=5),
        nifti(scl_slope=np.nan, scl_inter=np.nan),
        nifti(scl_slope=0.25),
        nifti(intent_code=1007, descrip=b"\xff" * 80, cal_max=np.nan),
        nifti(sform_code=0, qform_code=1, pixdim=[0, 1, 1, 1, 0, 0, 0, 0]),
    ],
)
def test_odd_but_valid_files_are_accepted(tmp_path: Path, content: bytes) -> None:
    image = read(tmp_path, content)
    np.testing.assert_array_equal(image.data, VOXELS)
    assert image.data.dtype == np.int16
    np.testing.assert_array_equal(image.geometry.affine, np.eye(4))
    assert image.warnings == ()


def test_name_does_not_matter(tmp_path: Path) -> None:
    for name, content in [("a.nii", PACKED), ("b.nii.gz", GOOD), ("C.NII.GZ", PACKED)]:
        np.testing.assert_array_equal(read(tmp_path, content, name).data, VOXELS)


@pytest.mark.parametrize(("slope", "inter"), [(-2.0, 0.0), (2.0, 3.0), (0.5, -7.25)])
@pytest.mark.parametrize("order", "<>")
def test_scaling_gives_float32(tmp_path: Path, slope: float, inter: float, order: str) -> None:
    image = read(tmp_path, nifti(order=order, scl_slope=slope, scl_inter=inter))
    assert image.data.dtype == np.float32
    np.testing.assert_allclose(image.data, slope * VOXELS + inter, rtol=1e-6)


def test_background_is_zero_after_scaling(tmp_path: Path) -> None:
    """nibabel stores floats as int16 with an intercept; rounding must not make background brain."""
    floats = np.where(VOXELS > 0, 1.3e-3 * VOXELS, 0).astype(np.float32)
    original = nib.Nifti1Image(floats, np.eye(4))
    original.header.set_data_dtype(np.int16)
    original.to_filename(tmp_path / "scaled.nii")
    image = read_image(tmp_path / "scaled.nii")
    assert float(image.header["scl_inter"]) != 0
    np.testing.assert_array_equal(image.data == 0, floats == 0)
    np.testing.assert_allclose(image.data, floats, atol=2e-6)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_affine_of_all_48_orientations(tmp_path: Path, order: tuple[int, ...]) -> None:
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])  # an oblique scan
    for signs in itertools.product((1, -1), repeat=3):
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.eye(3)[:, order] * signs * (0.5, 1, 3)
        affine[:3, 3] = 10, -20, 30
        image = nib.Nifti1Image(VOXELS, affine)
        image.set_qform(affine, 1)
        image.set_sform(None if signs[0] > 0 else affine, code=1 if signs[0] < 0 else 0)
        image.to_filename(tmp_path / "image.nii")
        got = read_image(tmp_path / "image.nii")
        np.testing.assert_allclose(got.geometry.affine, affine, atol=1e-5)
        assert got.warnings == ()


def test_errors_name_no_other_place_than_the_file(tmp_path: Path) -> None:
    """Warnings go into reports; paths and header texts, which may name the patient, must not."""
    image = read(tmp_path, nifti(sform_code=0, descrip=b"Jane Doe", db_name=b"1970"))
    assert not any(str(tmp_path) in warning or "Jane" in warning for warning in image.warnings)


@both_libraries
def test_voxels_are_read_directly_into_the_given_array(tmp_path: Path) -> None:
    (tmp_path / "image.nii.gz").write_bytes(gzip.compress(nifti(order=">")))
    header = read_header(tmp_path / "image.nii.gz")
    for dtype in (header.dtype, np.dtype(np.float32)):
        slots = np.zeros((2, *SHAPE[::-1]), dtype).transpose(0, 3, 2, 1)
        read_voxels(header, slots[1])
        np.testing.assert_array_equal(slots[1], VOXELS)
        assert not slots[0].any()
    c_order = np.zeros(SHAPE, header.dtype)
    read_voxels(header, c_order)
    np.testing.assert_array_equal(c_order, VOXELS)


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "<f4"), (np.inf, "<f4"), (-np.inf, "<f8")])
def test_nan_and_infinity_are_read_as_they_may_be_background(
    tmp_path: Path, value: float, dtype: str
) -> None:
    voxels = VOXELS.astype(dtype)
    voxels[1, 2, 0] = voxels[0, 0, 2] = value
    np.testing.assert_array_equal(read(tmp_path, nifti(voxels)).data, voxels)


@both_libraries
@quick
@given(
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    code=st.sampled_from(sorted(CODES)),
    order=st.sampled_from("<>"),
    version=st.sampled_from((1, 2)),
    seed=st.integers(0, 2**32 - 1),
    level=st.integers(-1, 9),
)
def test_agrees_with_nibabel(
    tmp_path: Path,
    shape: tuple[int, ...],
    code: str,
    order: str,
    version: int,
    seed: int,
    level: int,
) -> None:
    voxels = np.random.default_rng(seed).integers(0, 120, shape).astype(code)
    voxels.flat[:2] = 1, 2
    content = nifti(voxels, version=version, order=order)
    path = tmp_path / ("image.nii" if level < 0 else "image.nii.gz")
    path.write_bytes(content if level < 0 else gzip.compress(content, level))
    image, peer = read_image(path), nib.load(path)
    np.testing.assert_array_equal(image.data, np.asarray(peer.dataobj))
    np.testing.assert_array_equal(image.geometry.affine, peer.affine)


@settings(quick, max_examples=200)
@given(
    changes=st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), min_size=1, max_size=4),
    version=st.sampled_from((1, 2)),
)
def test_damaged_headers_give_typed_errors_only(
    tmp_path: Path, changes: list[tuple[int, int]], version: int
) -> None:
    content = GOOD if version == 1 else NIFTI2
    for place, value in changes:
        content = patched(content, place, value)
    try:
        image = read(tmp_path, content)
    except (InputError, GeometryError):
        return
    assert image.data.size * image.data.itemsize <= 2 * len(content), "no more than the file holds"
