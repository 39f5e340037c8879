"""Typed errors. A message says what is wrong, in which file, what was expected, and what to do."""

from __future__ import annotations


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
