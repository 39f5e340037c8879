"""What users try on any command line: --version, -h, -q, -v, completion, folders of DICOM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from fastbts import CaseError, InputError, find_cases
from fastbts.about import __version__
from fastbts.cli import app
from fastbts.read.find import find_case, find_stack
from fastbts.read.nifti import read_header
from tests.cli.commands import run


def test_version() -> None:
    assert run("--version") == (0, f"fastbts {__version__}\n")


@pytest.mark.parametrize("arguments", [("-h",), ("predict", "-h"), ("study", "--help")])
def test_short_help(arguments: tuple[str, ...]) -> None:
    code, output = run(*arguments)
    assert code == 0
    assert output.startswith("Usage: ")


def test_commands_are_listed_in_order_of_use() -> None:
    listed = run("--help")[1].partition("Commands:")[2].split()
    first = [listed.index(name) for name in ("predict", "study", "verify", "doctor", "build")]
    assert first == sorted(first)


def test_summaries_of_commands_are_whole_sentences() -> None:
    for command in typer.main.get_command(app).commands.values():
        assert command.get_short_help_str().endswith("."), command.name
        assert not command.get_short_help_str().endswith("..."), command.name


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_prints_nothing_but_warnings(
    place: str, case: Path, voxel_engine: Path, tmp_path: Path
) -> None:
    command = ["predict", case, "-o", tmp_path / "out", "--engine", voxel_engine]
    code, output = run(*(["-q", *command] if place == "before" else [*command, "--quiet"]))
    assert code == 0
    assert all(line.startswith("warning: ") for line in output.splitlines())
    assert (tmp_path / "out/seg.nii.gz").is_file()


def test_quiet_commands_on_engines_print_nothing(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    assert run("keygen", tmp_path / "key.pem", "-q") == (0, "")


def test_verbose_prints_device_and_times(case: Path, voxel_engine: Path, tmp_path: Path) -> None:
    command = ("predict", case, "-o", tmp_path / "out", "--engine", voxel_engine)
    assert "; ms: read " in run(*command, "-v")[1]
    assert "; ms: read " not in run(*command)[1]


def test_verbose_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    """In a process of its own, as the test runner catches the error stream."""
    command = [sys.executable, "-m", "fastbts", "info", str(tmp_path / "no.fbts")]
    plain, verbose = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=False).stderr
        for more in ((), ("-v",))
    )
    assert "Traceback" not in plain
    assert verbose.startswith("Traceback")
    assert verbose.endswith(plain)


def test_a_file_of_that_name_after_two_dashes(tmp_path: Path) -> None:
    code, output = run("predict", "-o", tmp_path, "--", "-v")
    assert code == 1
    assert "error: -v: " in output


def test_completion_knows_the_commands() -> None:
    command = "import sys; sys.argv = ['fastbts']; from fastbts.cli import main; main()"
    asked = {"_FASTBTS_COMPLETE": "complete_bash", "COMP_WORDS": "fastbts ver", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", command], env=os.environ | asked, capture_output=True, text=True
    )
    assert done.stdout.split() == ["verify", "verify-engine"]


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    """A folder with a file that begins as DICOM does."""
    folder = tmp_path / "study/series 1"
    folder.mkdir(parents=True)
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(300))
    return folder


def test_a_folder_of_dicom_names_the_command_that_reads_it(dicom: Path, tmp_path: Path) -> None:
    for path in (dicom, dicom.parent, dicom / "IM0001"):
        code, output = run("predict", path, "-o", tmp_path / "out")
        assert code == 1
        assert "DICOM" in output
        assert "fastbts study FOLDER" in output
        with pytest.raises(CaseError, match="fastbts study FOLDER"):
            find_case(path)
        with pytest.raises(CaseError, match="fastbts study FOLDER"):
            find_cases(path)
    with pytest.raises(CaseError, match="fastbts study FOLDER"):
        find_stack(dicom)


def test_a_dicom_file_for_an_image_names_the_command(dicom: Path) -> None:
    with pytest.raises(
        InputError, match=r"got DICOM; segment its folder by `fastbts study FOLDER`"
    ):
        read_header(dicom / "IM0001")
    with pytest.raises(InputError, match=r"got a folder, .* by `fastbts study FOLDER`"):
        read_header(dicom)


@pytest.mark.parametrize("command", ["compare", "verify", "evaluate"])
def test_dicom_where_a_result_belongs_names_the_command(
    command: str, dicom: Path, tmp_path: Path
) -> None:
    for path in (dicom.parent, dicom / "IM0001"):
        code, output = run(command, path, *([tmp_path] if command != "verify" else []))
        assert code == 1
        assert "DICOM" in output
        assert "`fastbts study FOLDER`" in output


def test_images_with_a_skull_name_the_command_that_strips() -> None:
    from fastbts.pipeline.brain import _what_is_too_large

    mask, brain = np.ones((200, 200, 150), bool), np.zeros((200, 200, 150), bool)
    brain[50:150, 50:150, 30:130] = True
    for voted in (True, False):
        message = _what_is_too_large(mask, brain, voted, voxel_ml=0.001)
        assert message is not None
        assert "`fastbts study`" in message
