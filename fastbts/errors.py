"""Typed errors. A message says what is wrong, in which file, what was expected, and what to do."""

from __future__ import annotations

import errno
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from threading import Lock
from typing import Any


class FastBTSError(Exception):
    """Base of every error that fastbts raises on purpose."""


class InputError(FastBTSError, ValueError):
    """A file or array that is no usable image: damaged, not NIfTI, non-finite, constant, large."""


class GeometryError(FastBTSError, ValueError):
    """Voxel grids that cannot be used or do not agree: shape, spacing, affine."""


class CaseError(FastBTSError, ValueError):
    """An incomplete or ambiguous case: a modality is missing, or two files are the same one."""


class EngineFileError(FastBTSError, ValueError):
    """An engine file that is damaged, contradicts itself, or was written by a newer version."""


class DeviceError(FastBTSError, RuntimeError):
    """A requested device or backend that cannot be used here."""


class OptionsError(FastBTSError, ValueError):
    """Options that contradict each other or the engine."""


class OutputError(FastBTSError, OSError):
    """A result that could not be written; no incomplete file is left behind."""


MEMORY_MESSAGES = re.compile(
    "bad_alloc|can't alloc|ailed to alloc|llocate memory|out of memory|MemoryAllocation"
    "|can't start new thread|Resource temporarily unavailable"
    "|failed to map segment from shared object(?!:)"  # after a colon there is another reason
)
"""How runtimes and the system report a lack of memory in errors of other types."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a lack of memory."""
    if error is None or isinstance(error, MemoryError):
        return error is not None
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if MEMORY_MESSAGES.search(str(error)):
        return True
    return is_out_of_memory(error.__cause__)


@contextmanager
def memory_errors(message: str) -> Iterator[None]:
    """Turns a lack of memory in the block, whoever reports it, into a DeviceError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FastBTSError) or not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"{message}: out of memory: {error}; free memory, or use a larger machine"
        ) from error


def optional_module(name: str, extra: str) -> Any:
    """Imports a module of an extra on first use.

    Args:
        name: The module, for example "pydicom".
        extra: The extra that installs it, for example "dicom".

    Raises:
        DeviceError: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise DeviceError(
            f"{package} is not installed; install it with: pip install 'fastbts[{extra}]'"
        ) from error


LOGGERS = ("pydicom", "highdicom")
_quiet = Lock()
_n_quiet, _loud = 0, ExitStack()


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings of pydicom: they quote files and values, which may name the patient.

    Several threads may be in such blocks at once. As long as one is, no thread shows any warning.
    """
    global _n_quiet
    with _quiet:
        _n_quiet += 1
        if _n_quiet == 1:
            _silence()
    try:
        yield
    finally:
        with _quiet:
            _n_quiet -= 1
            if _n_quiet == 0:
                _loud.close()


def _silence() -> None:
    """Until `_loud` is closed."""
    for logger in map(logging.getLogger, LOGGERS):
        _loud.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
    _loud.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
