"""Typed errors. Each message says what is wrong, in which file, what was expected, what was found, and the way out."""

from __future__ import annotations


class FastBTSError(Exception):
    """Base of every error that fastbts raises on purpose."""


class InputError(FastBTSError, ValueError):
    """A file or array that cannot be used as an image: damaged, not NIfTI, non-finite, constant, too large."""


class GeometryError(FastBTSError, ValueError):
    """Voxel grids that cannot be used or do not agree: shape, spacing, affine."""


class CaseError(FastBTSError, ValueError):
    """A case that is incomplete or ambiguous: a modality is missing, or two files claim the same one."""


class EngineFileError(FastBTSError, ValueError):
    """An engine file that is damaged, lies about itself, or was written by a newer version."""


class DeviceError(FastBTSError, RuntimeError):
    """A device or backend that was asked for and cannot be used here."""


class OptionsError(FastBTSError, ValueError):
    """Options that contradict each other or the engine."""


class OutputError(FastBTSError, OSError):
    """A result that could not be written; nothing half-written is left behind."""
