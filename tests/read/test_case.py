"""Reading the images of a case."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import (
    MODALITIES,
    CaseError,
    GeometryError,
    InputError,
    read_case,
    read_files,
)
from fastbts.read.case import load_stack

NNUNET = ("t1", "t1ce", "t2", "flair")
SHAPE = (12, 11, 10)


def write(
    path: Path, voxels: np.ndarray, affine: np.ndarray | None = None, **fields: float
) -> Path:
    image = nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine, dtype=voxels.dtype)
    for name, value in fields.items():
        image.header[name] = value
    image.to_filename(path)
    return path


def shifted(mm: float) -> np.ndarray:
    affine = np.eye(4)
    affine[0, 3] = mm
    return affine


def images(seed: int = 0, shape: Sequence[int] = SHAPE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    data = rng.integers(1, 1000, (4, *shape)).astype(np.int16)
    data[:, :3] = 0
    return dict(zip(MODALITIES, data, strict=True))


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    return {
        name: write(tmp_path / f"case_{name}.nii.gz", image) for name, image in images().items()
    }


def test_read_case(tmp_path: Path, paths: dict[str, Path]) -> None:
    volume = read_case(tmp_path)
    assert volume.modalities == MODALITIES
    assert volume.names == tuple(str(path) for path in paths.values())
    assert volume.sha256 == tuple(sha256(path.read_bytes()).hexdigest() for path in paths.values())
    assert volume.data.dtype == np.int16
    np.testing.assert_array_equal(volume.data, list(images().values()))
    assert all(image.flags.f_contiguous for image in volume.data), "the order of the file"
    assert volume.data.transpose(0, 3, 2, 1).flags.c_contiguous, "one block"
    assert volume.header.version == 1
    assert volume.warnings == ()


def test_read_case_in_nnunet_order(tmp_path: Path) -> None:
    for n, name in enumerate(NNUNET):
        write(tmp_path / f"x_{n:04}.nii.gz", images()[name])
    np.testing.assert_array_equal(
        read_case(tmp_path, nnunet_order=NNUNET).data, list(images().values())
    )


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ("u1 i2 i2 i2", np.int16),
        ("u2 i2 i2 i2", np.int32),
        ("i2 f4 i2 i2", np.float32),
        ("i4 f4 u1 i2", np.float32),
        ("i8 u8 u1 i2", np.float32),
        ("f8 f4 u1 i2", np.float64),
        ("f8 f8 f8 f8", np.float64),
    ],
)
def test_mixed_dtypes(tmp_path: Path, dtypes: str, expected: type) -> None:
    small = {name: image // 8 for name, image in images().items()}
    paths = {
        name: write(tmp_path / f"{name}.nii", image.astype(dtype))
        for (name, image), dtype in zip(small.items(), dtypes.split(), strict=True)
    }
    volume = read_files(**paths)
    assert volume.data.dtype == expected
    np.testing.assert_array_equal(volume.data, list(small.values()))


def test_modalities_not_given_are_left_out(paths: dict[str, Path]) -> None:
    volume = read_files(t2=paths["t2"], flair=str(paths["flair"]))
    assert volume.modalities == ("flair", "t2")
    with pytest.raises(
        CaseError, match="no image was given; expected paths for flair, t1, t1ce, t2"
    ):
        read_files()


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((12, 11, 9), np.eye(4), r"shape \(12, 11, 9\), expected \(12, 11, 10\)"),
        (SHAPE, np.diag([1, 1, 2, 1]), "spacing"),
        (
            SHAPE,
            shifted(5),
            r"the corner voxel \(0, 0, 0\) is 5 mm \(5 voxels\) away, at most 0.01",
        ),
    ],
)
def test_grids_must_agree(
    paths: dict[str, Path], shape: tuple[int, ...], affine: np.ndarray, message: str
) -> None:
    write(paths["t1ce"], images(1, shape)["t1ce"], affine)
    with pytest.raises(GeometryError, match=message) as caught:
        read_files(**paths)
    assert str(caught.value).startswith(f"{paths['t1ce']}: grid differs from {paths['flair']}: ")
    assert "resample them to one grid: --grid MODALITY, predict(..., grid=MODALITY)" in str(
        caught.value
    )


def test_the_damaged_file_is_named(paths: dict[str, Path]) -> None:
    paths["t2"].write_bytes(paths["t2"].read_bytes()[:-3])
    with pytest.raises(InputError, match=r"case_t2\.nii\.gz: truncated"):
        read_files(**paths)


def test_of_two_damaged_files_the_first_is_named(paths: dict[str, Path]) -> None:
    """As if they were read one after the other, though the second one fails sooner."""
    for name, begin in (("t1", -8), ("t2", 400)):
        content = bytearray(paths[name].read_bytes())
        content[begin] ^= 255
        paths[name].write_bytes(content)
    for _ in range(20):
        with pytest.raises(InputError, match=r"case_t1\.nii\.gz: damaged gzip stream"):
            read_files(**paths)


@pytest.mark.parametrize("copy", ["file", "voxels", "scaled"])
def test_one_image_under_two_names(paths: dict[str, Path], copy: str) -> None:
    if copy == "file":
        paths["t1ce"] = paths["t1"]
    elif copy == "voxels":
        write(paths["t1ce"], images()["t1"].astype(np.float32))
    else:
        write(paths["t1ce"], images()["t1"], scl_slope=0.5, scl_inter=0)
    with pytest.raises(CaseError, match=r"\(t1\) and .* \(t1ce\) hold the same voxels"):
        read_files(**paths)


def test_header_warnings_are_given_once(paths: dict[str, Path]) -> None:
    for name in ("flair", "t2"):
        image = nib.load(paths[name])
        image.header.set_qform(shifted(7), 1)
        voxels, header = np.asarray(image.dataobj), image.header
        nib.Nifti1Image(voxels, None, header).to_filename(paths[name])
    warnings = read_files(**paths).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith("flair, t2: qform and sform disagree by up to 7.0 mm")


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "f4"])
@pytest.mark.parametrize("axes", [4, 5])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_one_4d_file(tmp_path: Path, dtype: str, axes: int, suffix: str) -> None:
    stack = np.stack(list(images().values()), -1).astype(dtype)
    path = tmp_path / f"BRATS_001{suffix}"
    write(path, stack if axes == 4 else stack[..., None, :], shifted(3))
    order = ("t2", "t1", "flair", "t1ce")
    volume = load_stack(path, order)
    assert volume.modalities == order
    np.testing.assert_array_equal(volume.data, list(images().values()))
    np.testing.assert_array_equal(volume.affine, shifted(3))
    assert all(image.flags.f_contiguous for image in volume.data)
    assert volume.data.dtype == np.dtype(dtype).newbyteorder("=")
    assert volume.names == (str(path),) * 4, "so that it is not overwritten"
    assert volume.sha256 == (sha256(path.read_bytes()).hexdigest(),) * 4


def test_4d_files_that_do_not_fit(tmp_path: Path) -> None:
    stack = np.stack(list(images().values()), -1)
    path = write(tmp_path / "a.nii", stack)
    with pytest.raises(InputError, match=r"a 4-D file of 3 volumes, got shape \(12, 11, 10, 4\)"):
        load_stack(path, ("flair", "t1", "t2"))
    with pytest.raises(
        InputError, match=r"needs their order: --channels flair,t1,t1ce,t2, predict"
    ):
        read_files(flair=path)
    stack[..., 2] = 7
    with pytest.raises(InputError, match=r"a.nii \(t1ce\): all voxels are 7"):
        load_stack(write(path, stack), MODALITIES)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"a\.nii: truncated"):
        load_stack(path, MODALITIES)


@pytest.mark.parametrize(("mm", "same"), [(0.002, True), (0.009, True), (0.011, False), (2, False)])
def test_grids_less_than_a_hundredth_of_a_voxel_apart_are_one(
    paths: dict[str, Path], mm: float, same: bool
) -> None:
    write(paths["t2"], images()["t2"], shifted(mm))
    if same:
        np.testing.assert_array_equal(read_files(**paths).affine, np.eye(4))
        assert read_files(**paths, grid="flair").warnings == (), "not resampled"
        return
    with pytest.raises(GeometryError, match=rf"is {mm:g} mm \({mm:g} voxels\) away"):
        read_files(**paths)
    assert read_files(**paths, grid="flair").warnings == ("t2: resampled to the grid of flair",)


def test_a_corner_far_from_an_equal_origin_is_noticed(paths: dict[str, Path]) -> None:
    """Each entry of the affine differs by less than 0.001, the last corner by 0.0108 mm."""
    turned = np.eye(4)
    turned[0, 0] = 1 + 0.0108 / 11
    write(paths["t1"], images()["t1"], turned)
    with pytest.raises(GeometryError, match=r"corner voxel \(11, .*\) is 0.0108 mm \(0.011 voxels"):
        read_files(**paths)
