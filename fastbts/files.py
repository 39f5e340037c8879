"""Files that are written whole or not at all."""

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
    """Opens a file that appears under its name, whole and on disk, when the block ends; or not at all if it fails.

    Missing parent folders are made. A file of that name is replaced. Where the file system can (Linux: O_TMPFILE), the
    unfinished file has no name, so that even a killed process leaves nothing.

    Args:
        path: The file.

    Yields:
        A binary stream to write into.

    Raises:
        OutputError: The file cannot be written.
    """
    path = Path(path)
    with _as_output_error(path):
        _refuse_irregular(path)
        _nearest_folder(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = _unfinished(path.parent)
        try:
            with os.fdopen(fd, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(fd)
                temporary = temporary or _named(fd, path.parent)
            os.replace(temporary, path)
        except BaseException:
            if temporary:
                temporary.unlink(missing_ok=True)
            raise


def check_writable(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Finds out whether `path` could be written, before the work is done; leaves nothing behind.

    Args:
        path: A file to be written later; its folder need not exist yet.
        inputs: Files that must not be overwritten.

    Raises:
        OutputError: It could not, or it is one of the inputs.
    """
    path = Path(path)
    with _as_output_error(path):
        _refuse_irregular(path)
        check_not_input(path, inputs)
        fd, temporary = _unfinished(_nearest_folder(path))
        os.close(fd)
        if temporary:
            temporary.unlink()


def check_not_input(path: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raises OutputError if `path` is one of the inputs, which would be overwritten."""
    for given in inputs:
        if os.path.exists(path) and os.path.exists(given) and os.path.samefile(path, given):
            raise OutputError(
                f"{path}: is an input of this case, which would be overwritten; choose another "
                "output"
            )


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes JSON (UTF-8, indented), whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as stream:
        stream.write(text.encode() + b"\n")


def _refuse_irregular(path: Path) -> None:
    """A rename would put a file in the place of a device or pipe."""
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; expected the name of a file")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise OutputError(f"{path}: is a device or pipe; expected the name of a file")


def _nearest_folder(path: Path) -> Path:
    """The folder of a path, or the nearest one above it that exists."""
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise OutputError(f"{path}: {folder} is not a folder; choose another output")
    return folder


def _unfinished(folder: Path) -> tuple[int, Path | None]:
    """Opens a new file, without a name if the system can, else with a hidden one."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(
            OSError
        ):  # not every file system can; if the folder is at fault, the next line says so
            return os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666), None
    temporary = _hidden_name(folder)
    return os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666
    ), temporary


def _named(fd: int, folder: Path) -> Path:
    """Gives a nameless file a hidden name, from which it can be renamed over an older file in one step."""
    temporary = _hidden_name(folder)
    # A src_dir_fd, unused with an absolute path, makes Python call linkat with AT_SYMLINK_FOLLOW, as open(2) wants.
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
