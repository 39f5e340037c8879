"""Finding and reading the images of a case."""

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
    OptionsError,
    read_case,
    read_files,
)
from fastbts.read.case import find_case

NNUNET = ("t1", "t1ce", "t2", "flair")
SHAPE = (12, 11, 10)


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


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


@pytest.mark.parametrize(
    "names",  # flair, t1, t1ce, t2
    [
        (
            "BraTS19_A_1_flair.nii.gz",
            "BraTS19_A_1_t1.nii.gz",
            "BraTS19_A_1_t1ce.nii.gz",
            "BraTS19_A_1_t2.nii.gz",
        ),
        ("B_flair.nii", "B_t1.nii", "B_t1ce.nii.gz", "B_t2.nii"),
        (
            "BraTS-GLI-01-000-t2f.nii.gz",
            "BraTS-GLI-01-000-t1n.nii.gz",
            "BraTS-GLI-01-000-t1c.nii.gz",
            "BraTS-GLI-01-000-t2w.nii.gz",
        ),
        (
            "sub-01_FLAIR.nii.gz",
            "sub-01_T1w.nii.gz",
            "sub-01_ce-GADOLINIUM_T1w.nii.gz",
            "sub-01_T2w.nii.gz",
        ),
        (
            "sub-1_ses-2_FLAIR.nii",
            "sub-1_ses-2_acq-3D_T1w.nii",
            "sub-1_ses-2_acq-3D_ce-gd_run-1_T1w.nii",
            "sub-1_ses-2_T2w.nii",
        ),
        (
            "UPENN-GBM-1_11_FLAIR.nii.gz",
            "UPENN-GBM-1_11_T1.nii.gz",
            "UPENN-GBM-1_11_T1GD.nii.gz",
            "UPENN-GBM-1_11_T2.nii.gz",
        ),
        ("X_FLAIR.NII.GZ", "X_T1.NII", "x_T1CE.nii.gz", "X_t2.Nii.Gz"),
        ("flair.nii.gz", "t1.nii.gz", "t1ce.nii.gz", "t2.nii.gz"),
    ],
)
def test_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(
        tmp_path,
        *names,
        "A_seg.nii.gz",
        "A_t1_mask.nii.gz",
        "._A_t1.nii.gz",
        "sub-01_T1w.json",
        "A-t1.png",
        "0000_at1.nii",
    )
    (tmp_path / "t1").mkdir()
    found = find_case(tmp_path)
    assert list(found) == list(MODALITIES)
    assert tuple(path.name for path in found.values()) == names


def test_nnunet_names_need_an_order(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"BRATS_001_{n:04}.nii.gz" for n in range(4)),
        "BRATS_001_0004.nii.gz",
        "BRATS_001.nii.gz",
    )
    with pytest.raises(CaseError, match=r"do not say the modality; give nnunet_order"):
        find_case(tmp_path)
    found = find_case(tmp_path, NNUNET)
    assert {name: path.name[-11:-7] for name, path in found.items()} == {
        "flair": "0003",
        "t1": "0000",
        "t1ce": "0001",
        "t2": "0002",
    }
    for order in (("t1", "t2"), ("t1", "t1", "t2", "flair"), ("t1", "t1ce", "t2", "pd")):
        with pytest.raises(OptionsError, match="expected each of flair, t1, t1ce, t2, each once"):
            find_case(tmp_path, order)
    touch(tmp_path, "BRATS_002_0000.nii.gz")
    with pytest.raises(CaseError, match=r"several cases \(brats_001, brats_002\)"):
        find_case(tmp_path, NNUNET)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a_flair.nii", "a_t1.nii", "a_t2.nii"],
            r"no file for t1ce; found flair \(a_flair.nii\), t1 .*; expected \*_flair",
        ),
        (
            ["a_flair.nii", "a_t1.nii", "a_t1.nii.gz", "a_t2.nii"],
            r"more for t1 \(a_t1.nii, a_t1.nii.gz\); remove one",
        ),
        (
            ["a_flair.nii", "a_t1.nii", "a-t1n.nii", "a_t1ce.nii", "a_t2.nii"],
            r"more for t1 \(a-t1n.nii, a_t1.nii\)",
        ),
        (
            ["sub-1_T1w.nii", "sub-1_space-MNI_T1w.nii"],
            r"more for t1 \(sub-1_T1w.nii, sub-1_space-MNI_T1w.nii\)",
        ),
        (
            ["a_flair.nii", "a_t1.nii", "b_t1ce.nii", "a_t2.nii"],
            r"several cases \(a, b\); put each case into a folder",
        ),
        (["sub-1_T1w.nii", "sub-2_T2w.nii"], r"several cases \(sub-1, sub-2\)"),
        (
            ["notes.txt", "a_seg.nii.gz"],
            r"holds no images of a case; expected \*_flair.*; got a_seg.nii.gz, notes.txt",
        ),
        ([], "got an empty folder"),
    ],
)
def test_ambiguous_folders_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(CaseError, match=message) as caught:
        find_case(touch(tmp_path / "case", *names))
    assert str(tmp_path / "case") in str(caught.value)


def test_folder_of_folders(tmp_path: Path) -> None:
    for n in range(9):
        touch(tmp_path / f"case{n}", f"case{n}_t1.nii.gz")
    with pytest.raises(
        CaseError, match=r"folders of cases \(case0, .*case5, ... 9 in all\); give one of them"
    ):
        find_case(tmp_path)
    with pytest.raises(CaseError, match="No such file"):
        find_case(tmp_path / "nothing")
    with pytest.raises(CaseError, match="Not a directory"):
        find_case(tmp_path / "case0/case0_t1.nii.gz")


def test_read_case(tmp_path: Path, paths: dict[str, Path]) -> None:
    volume = read_case(tmp_path)
    assert volume.modalities == MODALITIES
    assert volume.names == tuple(str(path) for path in paths.values())
    assert volume.sha256 == tuple(sha256(path.read_bytes()).hexdigest() for path in paths.values())
    assert volume.data.dtype == np.int16
    np.testing.assert_array_equal(volume.data, list(images().values()))
    assert all(image.flags.f_contiguous for image in volume.data), "the order of the file"
    assert volume.data.transpose(0, 3, 2, 1).flags.c_contiguous, "one block"
    assert isinstance(volume.header, nib.Nifti1Header)
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
        (SHAPE, shifted(5), r"affine \(1, 0, 0, 5, "),
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
