"""Commands do their work without standard streams, or with ones that cannot be written."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fastbts.phantom import make_case, write_case
from tests.conftest import write_voxel_engine

FULL = "error: standard output: cannot write: No space left on device"
# Redirection of the shell, exit code, whether the error is told. A reader that wants no more and a
# closed stream are no error, as the results are files; a full disk is one.
REDIRECTIONS = [
    ("2>&-", 0, False),
    (">&-", 0, False),
    ("<&- >&- 2>&-", 0, False),
    ("2>/dev/full", 0, False),
    (">/dev/full", 1, True),
    (">/dev/full 2>&-", 1, False),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and a shell"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    write_case(make_case(3, shape=(48, 48, 32)), folder / "case")
    write_voxel_engine(folder / "voxel.fbts")
    done = shell(folder, "predict case -o done --engine voxel.fbts", "")
    assert done.returncode == 0, done.stderr
    return folder


def shell(folder: Path, command: str, redirection: str) -> subprocess.CompletedProcess[str]:
    whole = f"{shlex.quote(sys.executable)} -m fastbts {command} {redirection}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", whole],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("redirection", "code", "told"), REDIRECTIONS)
def test_predict_writes_its_files(
    folder: Path, tmp_path: Path, redirection: str, code: int, told: bool
) -> None:
    out = tmp_path / "out"
    command = f"predict case -o {out} --engine voxel.fbts --preview"
    done = shell(folder, command, redirection)
    assert done.returncode == code, done.stderr
    names = ["preview.png", "report.json", "seg.nii.gz"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert "Traceback" not in done.stderr
    assert (FULL in done.stderr) == told
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == told


def test_all_cases_are_done_though_nothing_can_be_printed(folder: Path, tmp_path: Path) -> None:
    write_case(make_case(4, shape=(48, 48, 32)), tmp_path / "other")
    cases, out = f"case {tmp_path / 'other'}", tmp_path / "out"
    done = shell(folder, f"predict {cases} -o {out} --engine voxel.fbts", ">/dev/full")
    assert done.returncode == 1
    names = [path.parent.name for path in sorted(out.glob("*/seg.nii.gz"))]
    assert [name.rpartition("_")[2] for name in names] == ["case", "other"]


@pytest.mark.parametrize(
    "command", ["info voxel.fbts", "verify done --engine voxel.fbts", "--help"]
)
@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [(">&-", 0, False), (">/dev/full", 1, True), ("| head -0", 0, False)],
)
def test_other_commands(
    folder: Path, command: str, redirection: str, code: int, told: bool
) -> None:
    done = shell(folder, command, redirection)
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == told
    assert (FULL in done.stderr) == told


@pytest.mark.parametrize(
    ("command", "redirections"),
    [
        ("doctor", [">/dev/full", "| head -0"]),
        ("build voxel.fbts -o built.fbts --accept-parity", [">/dev/full", "2>&-"]),
        ("demo -o demo", [">/dev/full", "2>&-"]),
    ],
)
def test_slow_commands(folder: Path, command: str, redirections: list[str]) -> None:
    for redirection in redirections:
        done = shell(folder, command, redirection)
        assert done.returncode == (1 if "full" in redirection else 0), done.stderr
        assert "Traceback" not in done.stderr


def test_errors_keep_their_exit_code(folder: Path) -> None:
    for redirection in ("2>&-", "2>/dev/full", ">/dev/full"):
        assert shell(folder, "predict none -o out", redirection).returncode == 1
        assert shell(folder, "predict", redirection).returncode == 2


def test_the_library_needs_no_streams(folder: Path) -> None:
    """As under pythonw, where both are None."""
    script = (
        "import sys; sys.stdout = sys.stderr = None\n"
        "import fastbts\n"
        "result = fastbts.Segmenter('voxel.fbts').predict('case')\n"
        "result.save('none/seg.nii.gz', preview='none/seg.png')\n"
        "from fastbts.cli import app\n"
        "app(['predict', 'case', '-o', 'none_cli', '--engine', 'voxel.fbts'])"
    )
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
    assert (folder / "none/seg.png").is_file()
    assert (folder / "none_cli/report.json").is_file()


def test_names_that_are_no_text_are_printed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "\udcff"
    command = ["predict", "case", "-o", str(out), "--engine", "voxel.fbts"]
    done = subprocess.run(
        [sys.executable, "-m", "fastbts", *command], cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert rb"\udcff" in done.stdout
