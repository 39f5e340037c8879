"""Files are written whole or not at all, and labels lie where their input lies."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastbts import InputError, OptionsError, OutputError, Volume, files, read_files
from fastbts.files import atomic_write, check_writable, write_json
from fastbts.read.nifti import read_image
from fastbts.write.nifti import image_stem, write_labels
from tests.read.hostile_nifti import VOXELS, nifti

LABELS = (VOXELS % 5).astype(np.uint8)  # 0 to 4
VALUES = {"NCR": 1, "ED": 2, "ET": 4}


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def volume(affine: np.ndarray | None = None) -> Volume:
    return Volume(VOXELS[None], np.eye(4) if affine is None else affine, ("flair",))


@pytest.fixture(params=["nameless", "named"])
def temporary_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of making an unfinished file: with O_TMPFILE, and what is left where a system has none."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no O_TMPFILE")
    return str(request.param)


def test_labels_by_eye(tmp_path: Path) -> None:
    """What nibabel and a JSON parser find in the file."""
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
    }


@pytest.mark.usefixtures("temporary_files")
def test_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/folders/file"
    with atomic_write(path) as stream:
        stream.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    with atomic_write(path) as stream:
        stream.write(b"second")
        assert path.read_bytes() == b"first", "the old file stays until the new one is whole"
    assert path.read_bytes() == b"second"
    assert entries(path.parent) == ["file"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.usefixtures("temporary_files")
@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()])
def test_failed_write_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "old").write_bytes(b"old")
    for name in ("old", "new"):
        with pytest.raises(type(error)), atomic_write(tmp_path / name) as stream:  # noqa: PT012
            stream.write(b"half")
            raise error
    assert entries(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


@pytest.mark.usefixtures("temporary_files")
def test_failure_at_the_end_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(
                OutputError,
                match=r"seg\.json: cannot write: No space left on device; choose a folder with space",
            ):
                write_json(tmp_path / "seg.json", {})
        assert entries(tmp_path) == []


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A real failure of write(2): the process may write files of 4 kB at most."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); from fastbts.files import *; from fastbts.errors import OutputError\n"
        "try:\n with atomic_write(sys.argv[1]) as stream: stream.write(bytes(10**6))\n"
        "except OutputError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "file"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{tmp_path / 'file'}: cannot write: File too large" in done.stdout
    assert entries(tmp_path) == []


@pytest.mark.skipif(
    not hasattr(os, "O_TMPFILE"), reason="other systems cannot hide an unfinished file"
)
def test_killed_process_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, time; from fastbts.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as stream:\n"
        " stream.write(bytes(10**6)); stream.flush(); print('writing', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "file"], stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout
        assert child.stdout.readline() == b"writing\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert entries(tmp_path) == []


@pytest.mark.usefixtures("temporary_files")
def test_bad_outputs_are_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo")
    for place, message in [
        (tmp_path, "is a folder; expected the name of a file"),
        (tmp_path / "fifo", "is a device or pipe"),
        (Path("/dev/null"), "is a device or pipe"),
        (tmp_path / "file/seg.nii.gz", r"file is not a folder; choose another output"),
        (tmp_path / "file/deeper/seg.nii.gz", r"file is not a folder; choose another output"),
        (tmp_path / ("x" * 300), "cannot write: File name too long"),
        (Path("/proc/nothing/seg.nii.gz"), "cannot write"),
    ]:
        for check in (check_writable, lambda path: write_json(path, {})):
            with pytest.raises(OutputError, match=message) as caught:
                check(place)
            assert str(place) in str(caught.value)
    assert entries(tmp_path) == ["fifo", "file"]


@pytest.mark.usefixtures("temporary_files")
def test_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)  # chmod does not stop root
    with pytest.raises(
        OutputError,
        match=r"cannot write: Permission denied; choose a folder with space where you may write",
    ):
        check_writable(tmp_path / "a/b/seg.nii.gz")


@pytest.mark.usefixtures("temporary_files")
def test_good_outputs_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    check_writable(tmp_path / "a/b/seg.nii.gz")
    check_writable(tmp_path / "old", inputs=[tmp_path / "other", "flair"])
    assert entries(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


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
        np.testing.assert_allclose(image.header.get_qform(coded=True)[0], affine, atol=1e-4)
        assert image.warnings == ()
        np.testing.assert_array_equal(image.data, LABELS)


def test_qform_is_left_out_where_it_cannot_hold_the_affine(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.009  # a shear just within tolerance
    write_labels(tmp_path / "seg.nii", LABELS, volume(affine), VALUES, {})
    header = read_image(tmp_path / "seg.nii").header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-7)


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
    assert type(image.header) is type(given_header), "NIfTI-2 only for NIfTI-2"
    for field in ("sform_code", "qform_code", "xyzt_units", "srow_x", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(image.header[field], given_header[field])
    np.testing.assert_array_equal(image.header["pixdim"][:4], given_header["pixdim"][:4])
    np.testing.assert_array_equal(image.geometry.affine, case.affine)
    np.testing.assert_array_equal(
        nib.load(tmp_path / f"seg{suffix}").affine, nib.load(tmp_path / "flair.nii").affine
    )
    np.testing.assert_array_equal(image.data, LABELS)
    content = (tmp_path / f"seg{suffix}").read_bytes()
    assert b"Jane" not in (gzip.decompress(content) if suffix == ".nii.gz" else content), (
        "free text may name the patient"
    )


def test_a_header_that_no_longer_fits_is_not_used(tmp_path: Path) -> None:
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
@given(shape=st.tuples(*[st.integers(2, 12)] * 3), suffix=st.sampled_from([".nii", ".nii.gz"]), seed=st.integers(0, 999),
       text=st.text(max_size=40), c_order=st.booleans())  # fmt: skip
def test_any_labels_and_any_text_survive(
    tmp_path: Path, shape: tuple[int, ...], suffix: str, seed: int, text: str, c_order: bool
) -> None:
    labels = (
        np.random.default_rng(seed)
        .integers(0, 256, shape)
        .astype(np.uint8, order="C" if c_order else "F")
    )
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


def test_labels_must_fit(tmp_path: Path) -> None:
    for labels in (LABELS[1:], LABELS.astype(np.int16)):
        with pytest.raises(
            InputError, match=r"seg.nii: expected uint8 labels of shape \(5, 4, 3\)"
        ):
            write_labels(tmp_path / "seg.nii", labels, volume(), VALUES, {})
    assert entries(tmp_path) == []


def test_names(tmp_path: Path) -> None:
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


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a/report.json", {"ml": 1.5, "name": "Ödem"})
    assert (tmp_path / "a/report.json").read_text(
        encoding="utf-8"
    ) == '{\n "ml": 1.5,\n "name": "Ödem"\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a/report.json", {"ml": float("nan")})
    assert "Ödem" in (tmp_path / "a/report.json").read_text(encoding="utf-8")


def test_large_labels_are_written_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time for 8.9 M voxels; a loaded machine does not count."""
    monkeypatch.setattr(files.os, "fsync", lambda fd: None)
    labels = np.zeros((155, 240, 240), np.uint8).transpose(2, 1, 0)
    labels[60:120, 70:130, 50:90] = (
        np.random.default_rng(0).integers(0, 5, (12, 12, 8)).repeat(5, 0).repeat(5, 1).repeat(5, 2)
    )
    case = Volume(labels[None], np.eye(4), ("flair",))
    seconds = []
    for _ in range(3):
        began = time.process_time()
        write_labels(tmp_path / "seg.nii.gz", labels, case, VALUES, {})
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.1
    assert (tmp_path / "seg.nii.gz").stat().st_size < 60_000
