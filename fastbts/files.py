"""Atomic writing: files appear complete under their names, alone or as a set, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fastbts.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: without locks
    fcntl = None  # type: ignore[assignment]

OpenFile = Callable[[Path], AbstractContextManager[BinaryIO]]
"""Opens a new file for writing: `atomic_write`, or what `write_set` yields."""
TEMPORARY_FILES = ".fastbts-*.tmp"


@contextmanager
def write_set(obsolete: Callable[[], Iterable[Path]] = tuple) -> Iterator[OpenFile]:
    """Writes files that belong together: they get their names when the block ends without an error.

    Until then nothing changes, so a full disk leaves the old files. A process that is killed never
    leaves files of two sets: the old files are removed before the new ones appear, and the last new
    file, for example a report on the others, appears last. Only the first file is replaced in one
    step, so it is never missing. Folders are locked for that moment, so two processes do not mix
    their sets; file systems without locks (some network drives) do not have this protection.

    Args:
        obsolete: Called while the folders are locked; the files to remove besides those that the
            new ones replace. An error that it raises leaves the old files.

    Yields:
        A function that opens a file of the set, see `atomic_write`.

    Raises:
        OutputError: A file cannot be written.
    """
    files: list[_NewFile] = []
    with ExitStack() as opened:

        @contextmanager
        def new_file(path: Path) -> Iterator[BinaryIO]:
            with _as_output_error(path):
                files.append(opened.enter_context(_open_new(path)))
                yield files[-1].file
                files[-1].file.flush()
                os.fsync(files[-1].file.fileno())

        yield new_file
        if files:
            _give_names(files, obsolete)


def _give_names(files: list[_NewFile], obsolete: Callable[[], Iterable[Path]]) -> None:
    paths = [file.path for file in files]
    with _as_output_error(paths[-1]), _locked({path.parent for path in paths}):
        for file in files:
            file.give_hidden_name()
        for old in (*obsolete(), *paths[:0:-1]):
            old.unlink(missing_ok=True)
        for file in files:
            with _as_output_error(file.path):
                file.give_final_name()


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file that gets its name when the block ends without an error, complete and on disk.

    Missing parent folders are created. An existing file of that name is replaced. Until then the
    file has no name where the system supports this (O_TMPFILE on Linux), else a hidden one that
    the next writer in this folder removes if the process was killed.

    Yields:
        A binary file to write into.

    Raises:
        OutputError: The file cannot be written.
    """
    with write_set() as new_file, new_file(Path(path)) as file:
        yield file


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
        file, hidden = _open_temporary(_nearest_folder(path))
        file.close()
        if hidden:
            hidden.unlink(missing_ok=True)  # unlocked, another process may have removed it


def check_not_input(path: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raises OutputError if `path` is one of the inputs, which would be overwritten."""
    for given in inputs:
        if _is_same(path, given):
            raise OutputError(
                f"{path}: is an input of this case and would be overwritten; choose another output"
            )


def _is_same(path: str | Path, given: str | Path) -> bool:
    try:
        return os.path.samefile(path, given)
    except (OSError, ValueError):  # one of them is not there, or has a NUL in its name
        return False


def write_json(
    path: str | Path, content: Mapping[str, Any], open_file: OpenFile = atomic_write
) -> None:
    """Writes JSON (UTF-8, indented) atomically, or as a file of a set.

    Raises:
        OutputError: The file cannot be written.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with open_file(Path(path)) as file:
        # Names of files may have bytes that are no text; as \udcff they are valid JSON.
        file.write(text.encode(errors="backslashreplace") + b"\n")


def hashed(open_file: OpenFile, digests: dict[str, str]) -> OpenFile:
    """Opens files like `open_file`, in memory until they are closed; notes the sha256 of each.

    Args:
        open_file: Writes the file.
        digests: Gets name -> sha256.
    """

    @contextmanager
    def opened(path: Path) -> Iterator[BinaryIO]:
        content = io.BytesIO()
        yield content
        with open_file(path) as file:
            file.write(content.getbuffer())
        digests[path.name] = hashlib.sha256(content.getbuffer()).hexdigest()

    return opened


class _NewFile:
    """A file on its way to its name; locked until it is closed, so that nobody removes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file, self._hidden = _open_temporary(path.parent)

    def give_hidden_name(self) -> None:
        """Only a rename replaces an existing file in one step, and a rename needs a name."""
        if self._hidden is None:
            self._hidden = _hidden_name(self.path.parent)
            _link(self.file.fileno(), self._hidden)

    def give_final_name(self) -> None:
        assert self._hidden
        if fcntl is None:
            self.file.close()  # Windows renames no open file
        os.replace(self._hidden, self.path)

    def close(self) -> None:
        """Removes the file, unless it has its final name."""
        if self._hidden:
            self._hidden.unlink(missing_ok=True)
        self.file.close()


@contextmanager
def _open_new(path: Path) -> Iterator[_NewFile]:
    _refuse_irregular(path)
    _nearest_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_temporaries(path.parent)
    new = _NewFile(path)
    try:
        yield new
    finally:
        with suppress(OSError):  # a full disk: closing would write again
            new.close()


def _refuse_irregular(path: Path) -> None:
    """Refuses folders, devices and pipes; a rename would replace a device or pipe by a file."""
    if "\0" in str(path):
        raise OutputError(f"{path}: has a NUL in its name, which no file has; rename the output")
    try:  # looks once: another process may remove it at any moment
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path}: is a folder; expected the name of a file")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{path}: is a device or pipe; expected the name of a file")


def _nearest_folder(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise OutputError(f"{path}: {folder} is not a folder; choose another output")
    return folder


def _open_temporary(folder: Path) -> tuple[BinaryIO, Path | None]:
    """Opens a new locked file, without a name where the system supports this, else a hidden one."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        # Not every file system supports this. If the folder is at fault, the second try says so.
        with suppress(OSError):
            fd = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666)
            _lock(fd)
            return os.fdopen(fd, "wb"), None
    hidden = _hidden_name(folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with _locked({folder}):  # nobody may take it for a left-over before it is locked
        fd = os.open(hidden, flags, 0o666)
        _lock(fd)
    return os.fdopen(fd, "wb"), hidden


def _hidden_name(folder: Path) -> Path:
    return folder / TEMPORARY_FILES.replace("*", os.urandom(8).hex())


def _link(fd: int, path: Path) -> None:
    """Gives a name to a file that has none."""
    # src_dir_fd has no meaning for an absolute path, but makes Python call linkat with
    # AT_SYMLINK_FOLLOW, which open(2) asks for.
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)


def _clear_temporaries(folder: Path) -> None:
    """Removes what killed processes left: temporary files that nobody has locked."""
    for path in folder.glob(TEMPORARY_FILES):
        with suppress(OSError), _locked({folder}), path.open("rb+") as file:
            if _lock(file.fileno()):
                path.unlink()


def _lock(fd: int, *, wait: bool = False) -> bool:
    """Locks an open file until it is closed; False if another process has it, or it cannot be."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Waits until no other process or thread is in such a block with this file.

    The file is made, and stays. Without an effect on file systems without locks.

    Raises:
        OutputError: The file cannot be made.
    """
    with _as_output_error(path), path.open("ab") as file:
        _lock(file.fileno(), wait=True)
        yield


@contextmanager
def _locked(folders: Iterable[Path]) -> Iterator[None]:
    """Waits until no other process or thread gives names in these folders."""
    with ExitStack() as opened:
        # One order for all processes, and each folder once, also under two names.
        for _, folder in sorted({_identity(folder): folder for folder in folders}.items()):
            if fcntl is not None:
                fd = os.open(folder, os.O_RDONLY)
                opened.callback(os.close, fd)
                if _lock(fd, wait=True):
                    opened.callback(fcntl.flock, fd, fcntl.LOCK_UN)  # also for forked processes
        yield


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


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
