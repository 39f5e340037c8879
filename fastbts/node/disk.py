"""Changes of files and folders that survive a power cut once the function has returned."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from fastbts.errors import OptionsError

try:
    import fcntl
except ImportError:  # Windows: without a lock
    fcntl = None  # type: ignore[assignment]


def write_new(folder: Path, content: bytes) -> Path:
    """Writes a file of a new name."""
    path = folder / os.urandom(8).hex()
    try:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return path


def move(source: Path, target: Path) -> None:
    """Renames a file or folder; makes the folder of its new name."""
    if not target.parent.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        sync(target.parent.parent)
        sync(target.parent.parent.parent)
    os.replace(source, target)
    sync(target.parent)  # and with it the old name: file systems do a rename as one change


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    fd = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def discard(path: Path, trash: Path) -> None:
    """Removes a file or folder in one step, as seen from its old place."""
    if path.exists():
        removed = trash / os.urandom(8).hex()
        move(path, removed)
        remove(removed)


def remove(path: Path) -> None:
    """Removes a file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def n_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # moved meanwhile
                continue
    return total


def locked(folder: Path) -> BinaryIO:
    """Makes a folder, and locks it for this process until the returned file is closed.

    Raises:
        OptionsError: Another process has it, or it cannot be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (folder / "lock").open("wb")
    except OSError as error:
        raise OptionsError(
            f"{folder}: cannot be the folder of a queue: {error.strerror}; give another --queue"
        ) from error
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise OptionsError(
            f"{folder}: another `fastbts listen` uses this queue; stop it, or give another --queue"
        ) from None
    return file
