"""Atomic writing: a file appears complete under its name, or not at all."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fastbts.errors import OutputError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file that gets its name when the block ends without an error, complete and on disk.

    Missing parent folders are created. An existing file of that name is replaced. Until then the
    file has no name where the system supports this (O_TMPFILE on Linux), so that even a killed
    process leaves nothing behind.

    Yields:
        A binary file to write into.

    Raises:
        OutputError: The file cannot be written.
    """
    path = Path(path)
    with _as_output_error(path):
        _refuse_irregular(path)
        _nearest_folder(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = _open_temporary(path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                yield file
                file.flush()
                os.fsync(fd)
                temporary = temporary or _give_name(fd, path.parent)
            os.replace(temporary, path)
        except BaseException:
            if temporary:
                temporary.unlink(missing_ok=True)
            raise


def check_writable(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Checks that a file can be written later, by writing a temporary one; leaves nothing behind.

    Args:
        path: The file; its folder need not exist yet.
        inputs: Files that must not be overwritten.

    Raises:
        OutputError: The file cannot be written, or is one of the inputs.
    """
    path = Path(path)
    with _as_output_error(path):
        _refuse_irregular(path)
        check_not_input(path, inputs)
        fd, temporary = _open_temporary(_nearest_folder(path))
        os.close(fd)
        if temporary:
            temporary.unlink()


def check_not_input(path: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raises OutputError if `path` is one of the inputs, which would be overwritten."""
    for given in inputs:
        if os.path.exists(path) and os.path.exists(given) and os.path.samefile(path, given):
            raise OutputError(
                f"{path}: is an input of this case and would be overwritten; choose another output"
            )


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes JSON (UTF-8, indented) atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text.encode() + b"\n")


def _refuse_irregular(path: Path) -> None:
    """Refuses folders, devices and pipes; a rename would replace a device or pipe by a file."""
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; expected the name of a file")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise OutputError(f"{path}: is a device or pipe; expected the name of a file")


def _nearest_folder(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise OutputError(f"{path}: {folder} is not a folder; choose another output")
    return folder


def _open_temporary(folder: Path) -> tuple[int, Path | None]:
    """Opens a new file, without a name where the system supports this, else with a hidden one."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        # Not every file system supports this. If the folder is at fault, the second try says so.
        with suppress(OSError):
            return os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666), None
    temporary = _hidden_name(folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(temporary, flags, 0o666), temporary


def _give_name(fd: int, folder: Path) -> Path:
    """Gives a nameless file a hidden name, because only a rename replaces an existing file."""
    temporary = _hidden_name(folder)
    # src_dir_fd has no meaning for an absolute path, but makes Python call linkat with
    # AT_SYMLINK_FOLLOW, which open(2) asks for.
    os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd, follow_symlinks=True)
    return temporary


def _hidden_name(folder: Path) -> Path:
    return folder / f".fastbts-{os.urandom(8).hex()}.tmp"


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path}: cannot write: {reason}; choose a folder with space where you may write"
        ) from error
