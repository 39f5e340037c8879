"""A file appears complete under its name, or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fastbts import OutputError
from fastbts.files import atomic_write, check_writable, write_json


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["nameless", "named"])
def temporary_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of temporary file: without a name (O_TMPFILE), and with a hidden one."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no O_TMPFILE")
    return str(request.param)


@pytest.mark.usefixtures("temporary_files")
def test_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new/folders/file"
    with atomic_write(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    with atomic_write(path) as file:
        file.write(b"second")
        assert path.read_bytes() == b"first", "the old file stays until the new one is complete"
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
        with pytest.raises(type(error)), atomic_write(tmp_path / name) as file:  # noqa: PT012
            file.write(b"half")
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
                match=r"seg\.json: cannot write: No space left on device; choose a folder",
            ):
                write_json(tmp_path / "seg.json", {})
        assert entries(tmp_path) == []


def test_failed_system_call_leaves_nothing(tmp_path: Path) -> None:
    """write(2) fails: the process may write files of at most 4 kB."""
    script = (
        "import resource, sys\n"
        "from fastbts.errors import OutputError\n"
        "from fastbts.files import atomic_write\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n with atomic_write(sys.argv[1]) as file: file.write(bytes(10**6))\n"
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


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without a name (O_TMPFILE)")
def test_killed_process_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, time; from fastbts.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        " file.write(bytes(10**6)); file.flush(); print('writing', flush=True); time.sleep(60)"
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
def test_check_and_write_refuse_the_same_paths(tmp_path: Path) -> None:
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
        (tmp_path / "a\0b", "has a NUL in its name"),
        (tmp_path / "a\0b/seg.nii.gz", "has a NUL in its name"),
    ]:
        for check in (check_writable, lambda path: write_json(path, {})):
            with pytest.raises(OutputError, match=message) as caught:
                check(place)
            assert str(place) in str(caught.value)
    assert entries(tmp_path) == ["fifo", "file"]


@pytest.mark.usefixtures("temporary_files")
def test_check_needs_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)  # chmod does not stop root
    with pytest.raises(
        OutputError,
        match=r"cannot write: Permission denied; choose a folder with space where you may write",
    ):
        check_writable(tmp_path / "a/b/seg.nii.gz")


@pytest.mark.usefixtures("temporary_files")
def test_check_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    check_writable(tmp_path / "a/b/seg.nii.gz")
    check_writable(tmp_path / "old", inputs=[tmp_path / "other", "flair"])
    assert entries(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


def test_a_file_may_go_while_it_is_checked(tmp_path: Path) -> None:
    """As when another process replaces its result."""
    path, done = tmp_path / "report.json", threading.Event()
    (tmp_path / "input").write_bytes(b"")

    def come_and_go() -> None:
        while not done.is_set():
            path.write_bytes(b"")
            path.unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(2000):  # before, 60 of them failed
            check_writable(path, inputs=[tmp_path / "input", tmp_path / "a\0b"])
    finally:
        done.set()
        thread.join()


def test_json_is_valid_utf8(tmp_path: Path) -> None:
    write_json(tmp_path / "a/report.json", {"ml": 1.5, "name": "Ödem"})
    assert (tmp_path / "a/report.json").read_text(
        encoding="utf-8"
    ) == '{\n "ml": 1.5,\n "name": "Ödem"\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a/report.json", {"ml": float("nan")})
    assert "Ödem" in (tmp_path / "a/report.json").read_text(encoding="utf-8")


def test_json_keeps_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"e\xff.nii.gz")
    write_json(tmp_path / "report.json", {name: 1})
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == {name: 1}
