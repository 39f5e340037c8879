"""Label images: on the grid of their input, the same bytes for the same arguments."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastbts import InputError, OptionsError, OutputError, Volume, files, read_files
from fastbts.files import check_writable
from fastbts.read.nifti import read_image
from fastbts.write.nifti import FORM_FIELDS, image_stem, write_labels
from tests.read.hostile_nifti import VOXELS, nifti

LABELS = (VOXELS % 5).astype(np.uint8)  # 0 to 4
VALUES = {"NCR": 1, "ED": 2, "ET": 4}


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def volume(affine: np.ndarray | None = None) -> Volume:
    return Volume(VOXELS[None], np.eye(4) if affine is None else affine, ("flair",))


def test_labels_by_hand(tmp_path: Path) -> None:
    """Read back with nibabel and a JSON parser."""
    write_labels(
        tmp_path / "seg.nii.gz",
        LABELS,
        volume(np.diag([-1.0, -1, 3, 1])),
        VALUES,
        {"engine": "light"},
    )
    image = nib.load(tmp_path / "seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), LABELS)
    assert image.get_data_dtype() == np.uint8
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(image.header.get_qform(), image.affine)
    assert image.header.get_zooms() == (1, 1, 3)
    (comment,) = image.header.extensions
    assert comment.get_code() == 6
    assert json.loads(comment.get_content()) == {
        "labels": {"NCR": 1, "ED": 2, "ET": 4},
        "provenance": {"engine": "light"},
        "voxels_crc32": zlib.crc32(LABELS.tobytes("F")),
    }


def test_inputs_are_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "flair.nii"
    path.write_bytes(nifti())
    (tmp_path / "link.nii").symlink_to(path)
    os.link(path, tmp_path / "hard.nii")
    case = read_files(flair=path)
    for name in ("flair.nii", "../" + tmp_path.name + "/flair.nii", "link.nii", "hard.nii"):
        with pytest.raises(OutputError, match="is an input of this case"):
            check_writable(tmp_path / name, [path])
        with pytest.raises(OutputError, match="is an input of this case"):
            write_labels(tmp_path / name, LABELS, case, VALUES, {})
    assert path.read_bytes() == nifti()


def oblique(order: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[:, order] * signs * (0.5, 1, 3)
    affine[:3, 3] = 10, -20, 30
    return affine


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_arrays_in_all_48_orientations(tmp_path: Path, order: tuple[int, ...]) -> None:
    for signs in itertools.product((1, -1), repeat=3):
        affine = oblique(order, signs)
        write_labels(tmp_path / "seg.nii", LABELS, volume(affine), VALUES, {})
        image = read_image(tmp_path / "seg.nii")
        np.testing.assert_allclose(image.geometry.affine, affine, atol=1e-5)
        np.testing.assert_allclose(image.header.qform(), affine, atol=1e-4)
        assert image.warnings == ()
        np.testing.assert_array_equal(image.data, LABELS)


def is_rotation(matrix: np.ndarray) -> bool:
    """As ITK tests it, to 1e-4 (NiftiImageIO::SetImageIOOrientationFromNIfTI)."""
    directions = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return bool(np.allclose(directions @ directions.T, np.eye(3), atol=1e-4))


@pytest.mark.parametrize("shear", [0.0005, 0.009])
def test_a_sheared_affine_gets_the_nearest_rotation_as_qform(tmp_path: Path, shear: float) -> None:
    """By hand: a shear s is a rotation by s/2 and a stretch; the centre (2, 1.5, 1) stays."""
    affine = np.eye(4)
    affine[0, 1] = shear
    write_labels(tmp_path / "seg.nii", LABELS, volume(affine), VALUES, {})
    header = read_image(tmp_path / "seg.nii").header
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(header.sform(), affine, atol=1e-7)
    qform = header.qform()
    assert is_rotation(qform)
    expected = [[1, shear / 2, 0], [-shear / 2, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(qform[:3, :3], expected, atol=1e-4)
    np.testing.assert_allclose(qform @ (2, 1.5, 1, 1), affine @ (2, 1.5, 1, 1), atol=1e-6)


LONG = {"qform_code": 1, "quatern_d": 1.0000004}  # nibabel refuses this quaternion
GARBAGE = {"qform_code": 1, "quatern_b": 0.9, "quatern_c": 0.9, "quatern_d": 0.9}
TURNED = np.diag([-1.0, -1, 1, 1])
REPAIRED: list[tuple[str, dict[str, Any], np.ndarray, int]] = [
    ("qform too long", {"sform_code": 0, **LONG}, TURNED, 1),
    ("qform too long beside sform", {"sform_code": 4, **LONG}, np.eye(4), 4),
    ("qform garbage", {"sform_code": 2, **GARBAGE}, np.eye(4), 2),
    ("qform NaN", {"sform_code": 2, "qform_code": 1, "quatern_b": np.nan}, np.eye(4), 2),
    ("sform only", {"sform_code": 3}, np.eye(4), 3),
    ("sform of the newest code", {"sform_code": 5}, np.eye(4), 5),
    ("pixdim negative", {"pixdim": [1, 1, -1, 1, 0, 0, 0, 0]}, np.eye(4), 1),
    ("pixdim zero", {"pixdim": [0] * 8, "qform_code": 1}, np.eye(4), 1),
    ("sform zero", {"srow_x": 0, "srow_y": 0, "srow_z": 0, "qform_code": 2}, np.eye(4), 2),
    ("sform NaN", {"srow_x": np.nan, "qform_code": 3}, np.eye(4), 3),
    ("sform sheared", {"srow_x": [1, 0.03, 0, 0], "qform_code": 1}, np.eye(4), 1),
]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("how", REPAIRED, ids=lambda how: how[0])
def test_results_have_both_forms_whatever_the_input_has(
    tmp_path: Path, how: tuple[str, dict[str, Any], np.ndarray, int], version: int
) -> None:
    _, fields, affine, code = how
    (tmp_path / "flair.nii").write_bytes(nifti(version=version, **fields))
    write_labels(tmp_path / "seg.nii", LABELS, read_files(flair=tmp_path / "flair.nii"), VALUES, {})
    header = nib.load(tmp_path / "seg.nii").header
    for form, got_code in (header.get_sform(coded=True), header.get_qform(coded=True)):
        np.testing.assert_allclose(form, affine, atol=1e-3)
        assert is_rotation(form)
        assert got_code == code
    np.testing.assert_array_equal(header["pixdim"][1:4], 1)


def test_both_forms_are_kept_where_they_contradict_each_other(tmp_path: Path) -> None:
    """So that a program that prefers the qform shows the labels where it shows the image."""
    fields = {"qform_code": 1, "qoffset_x": 40, "quatern_c": 1, "sform_code": 4}
    (tmp_path / "flair.nii").write_bytes(nifti(**fields))
    write_labels(tmp_path / "seg.nii", LABELS, read_files(flair=tmp_path / "flair.nii"), VALUES, {})
    given, got = (nib.load(tmp_path / name).header for name in ("flair.nii", "seg.nii"))
    np.testing.assert_array_equal(got.get_qform(), given.get_qform())
    np.testing.assert_array_equal(got.get_sform(), given.get_sform())
    assert (got["qform_code"], got["sform_code"]) == (1, 4)


FORMS: list[dict[str, Any]] = [
    {},
    {"sform_code": 4},
    {
        "sform_code": 2,
        "qform_code": 1,
        "qoffset_x": 9,
        "quatern_d": 1,
        "pixdim": [-1, 1, 1, 1, 0, 0, 0, 0],
    },
    {
        "sform_code": 0,
        "qform_code": 2,
        "qoffset_z": -3,
        "quatern_b": 0.6,
        "pixdim": [1, 0.5, 1, 4, 0, 0, 0, 0],
    },
    {"sform_code": 0},
]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("forms", FORMS)
def test_round_trip_keeps_grid_and_codes(
    tmp_path: Path, forms: dict[str, Any], suffix: str, order: str, version: int
) -> None:
    (tmp_path / "flair.nii").write_bytes(
        nifti(version=version, order=order, xyzt_units=10, descrip=b"Jane Doe", **forms)
    )
    case = read_files(flair=tmp_path / "flair.nii")
    write_labels(tmp_path / f"seg{suffix}", LABELS, case, VALUES, {})
    given_header, image = case.header, read_image(tmp_path / f"seg{suffix}")
    assert image.header.version == given_header.version, "NIfTI-2 only for NIfTI-2"
    for name, kept in FORM_FIELDS.items():
        if given_header[f"{name}_code"]:
            for field in kept:
                np.testing.assert_array_equal(image.header[field], given_header[field])
    assert (image.header["sform_code"] > 0) == (
        given_header["sform_code"] + given_header["qform_code"] > 0
    )
    assert image.header["xyzt_units"] == 10
    np.testing.assert_array_equal(image.header["pixdim"][:4], given_header["pixdim"][:4])
    np.testing.assert_allclose(image.geometry.affine, case.affine, atol=1e-6)
    np.testing.assert_allclose(
        nib.load(tmp_path / f"seg{suffix}").affine,
        nib.load(tmp_path / "flair.nii").affine,
        atol=1e-6,
    )
    np.testing.assert_array_equal(image.data, LABELS)
    content = (tmp_path / f"seg{suffix}").read_bytes()
    assert b"Jane" not in (gzip.decompress(content) if suffix == ".nii.gz" else content), (
        "free text may name the patient"
    )


def test_header_that_contradicts_the_affine_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "flair.nii").write_bytes(nifti(sform_code=4))
    case = read_files(flair=tmp_path / "flair.nii")
    moved = replace(case, affine=np.diag([-2.0, 2, 2, 1]))
    write_labels(tmp_path / "seg.nii", LABELS, moved, VALUES, {})
    image = read_image(tmp_path / "seg.nii")
    np.testing.assert_array_equal(image.geometry.affine, moved.affine)
    assert (image.header["sform_code"], image.warnings) == (1, ())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.tuples(*[st.integers(2, 12)] * 3),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
    seed=st.integers(0, 999),
    text=st.text(max_size=40),
    c_order=st.booleans(),
)
def test_round_trip_of_any_labels_and_text(
    tmp_path: Path, shape: tuple[int, ...], suffix: str, seed: int, text: str, c_order: bool
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 256, shape).astype(np.uint8, order="C" if c_order else "F")
    labels.flat[0], labels.flat[1] = 0, 1
    path = tmp_path / f"seg{suffix}"
    write_labels(path, labels, Volume(labels[None], np.eye(4), ("flair",)), VALUES, {"note": text})
    np.testing.assert_array_equal(read_image(path).data, labels)
    assert json.loads(nib.load(path).header.extensions[0].get_content())["provenance"] == {
        "note": text
    }


def test_same_arguments_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_labels(tmp_path / "a.nii.gz", LABELS, volume(), VALUES, {"n": 1})
    later = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: later)
    write_labels(tmp_path / "b.nii.gz", np.ascontiguousarray(LABELS), volume(), VALUES, {"n": 1})
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content == (tmp_path / "b.nii.gz").read_bytes()
    assert content[3:8] == bytes(5), "neither flags, so no name, nor time in the gzip header"


def test_refuses_labels_of_another_shape_or_type(tmp_path: Path) -> None:
    for labels in (LABELS[1:], LABELS.astype(np.int16)):
        with pytest.raises(
            InputError, match=r"seg.nii: expected uint8 labels of shape \(5, 4, 3\)"
        ):
            write_labels(tmp_path / "seg.nii", labels, volume(), VALUES, {})
    assert entries(tmp_path) == []


def test_image_stem(tmp_path: Path) -> None:
    assert [image_stem(name) for name in ("a/seg.nii.gz", "seg.nii", "a.b.nii", "X.NII.GZ")] == [
        "seg",
        "seg",
        "a.b",
        "X",
    ]
    for name in ("seg.nrrd", "seg", ".nii.gz", "seg.gz"):
        with pytest.raises(OptionsError, match=r"expected a name that ends in \.nii\.gz or \.nii"):
            image_stem(name)
        with pytest.raises(OptionsError, match=name):
            write_labels(tmp_path / name, LABELS, volume(), VALUES, {})


@pytest.mark.serial
def test_large_labels_are_written_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time for 8.9 M voxels, which does not depend on the load of the machine."""
    monkeypatch.setattr(files.os, "fsync", lambda fd: None)
    labels = np.zeros((155, 240, 240), np.uint8).transpose(2, 1, 0)
    blocks = np.random.default_rng(0).integers(0, 5, (12, 12, 8))
    labels[60:120, 70:130, 50:90] = blocks.repeat(5, 0).repeat(5, 1).repeat(5, 2)
    case = Volume(labels[None], np.eye(4), ("flair",))
    seconds = []
    for _ in range(3):
        began = time.process_time()
        write_labels(tmp_path / "seg.nii.gz", labels, case, VALUES, {})
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.1
    assert (tmp_path / "seg.nii.gz").stat().st_size < 60_000
