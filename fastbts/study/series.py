"""One series of a raw study: its grid, what its header says, and its voxels on demand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastbts.volume import Geometry

Orientation = Literal["tra", "sag", "cor"]
MAX_TEXT = 64  # letters of a DICOM description
MAX_READ = 1024
_SALT = os.urandom(16)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a header says about a series; None or empty where it is silent.

    Attributes:
        te_ms: Echo time; of a 3-D turbo spin echo the effective one.
        tr_ms: Repetition time.
        ti_ms: Inversion time; 0 where the header says that there is none.
        contrast_agent: Name of the agent; empty where the header names none.
        sequence: DICOM's ScanningSequence: SE, GR, IR, EP.
        image_type: DICOM's ImageType.
        texts: Description, protocol, name of the sequence: written by people, in any language.
        body_part: DICOM's BodyPartExamined.
        b_value: Diffusion weighting in s/mm2.
        modality: DICOM's Modality; "MR" for NIfTI.
        acquired: Sorts the series of a study by time.
        manufacturer: Of the scanner.
        study_uid: DICOM's StudyInstanceUID.
        frame_of_reference_uid: Series with the same one share their patient space.
        patient: `hidden` of what identifies the patient.
    """

    te_ms: float | None = None
    tr_ms: float | None = None
    ti_ms: float | None = None
    contrast_agent: str = ""
    sequence: tuple[str, ...] = ()
    image_type: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    body_part: str = ""
    b_value: float | None = None
    modality: str = "MR"
    acquired: tuple[str, float] = ("", 0.0)
    manufacturer: str = ""
    study_uid: str = ""
    frame_of_reference_uid: str = ""
    patient: str = ""

    @property
    def is_derived(self) -> bool:
        """Whether the header says that the image was calculated from others."""
        return "DERIVED" in self.image_type[:1] or "SECONDARY" in self.image_type[1:2]


@dataclass(frozen=True, eq=False, repr=False)
class Series:
    """One image of a study.

    Attributes:
        name: SeriesDescription, or name of the file.
        uid: SeriesInstanceUID, with "/2" for the second image of a series; path of a NIfTI file.
        geometry: Its voxel grid.
        facts: What the header says.
        files: In the order of the slices, along the third axis of the grid.
        source: The kind of file.
        read: Reads and decodes the voxels.
        warnings: What is unusual but not wrong.
    """

    name: str
    uid: str
    geometry: Geometry
    facts: Facts
    files: tuple[Path, ...]
    source: Literal["dicom", "nifti"]
    read: Callable[[], NDArray[Any]] = field(repr=False)
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Series({self.label}: {self.size})"

    @property
    def label(self) -> str:
        """Names the series in messages without a word about the patient."""
        return f"{self.name or 'no description'} ({short_hash(self.uid)})"

    @property
    def size(self) -> str:
        """Voxels and spacing, for messages."""
        shape = " x ".join(map(str, self.geometry.shape))
        spacing = " x ".join(f"{mm:.3g}" for mm in self.geometry.spacing_mm)
        return f"{shape}, {spacing} mm"

    @cached_property
    def voxels(self) -> NDArray[Any]:
        """(i, j, k), first axis fastest in memory; integers as stored, or float32.

        Raises:
            InputError: A file cannot be read or decoded.
        """
        return self.read()

    @property
    def orientation(self) -> Orientation:
        """The plane of the slices, which are along the axis with the largest steps."""
        return ("sag", "cor", "tra")[self.geometry.ras_axes[self.slice_axis][0]]

    @property
    def slice_axis(self) -> int:
        """In DICOM the third axis; in NIfTI the one with the largest steps, or the third."""
        spacing = self.geometry.spacing_mm
        isotropic = max(spacing) < 1.05 * min(spacing)
        return 2 if self.source == "dicom" or isotropic else int(np.argmax(spacing))

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return self.geometry.shape[self.slice_axis]

    @property
    def slice_mm(self) -> float:
        """From one slice to the next."""
        return self.geometry.spacing_mm[self.slice_axis]

    @property
    def in_plane_mm(self) -> float:
        """The larger edge of a pixel."""
        return max(mm for i, mm in enumerate(self.geometry.spacing_mm) if i != self.slice_axis)

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Field of view along i, j, k."""
        i, j, k = (
            n * mm for n, mm in zip(self.geometry.shape, self.geometry.spacing_mm, strict=True)
        )
        return i, j, k


def cleaned(text: str) -> str:
    """Printable, in one line, and not longer than a description may be."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text[:MAX_READ])
    return " ".join(printable.split())[:MAX_TEXT]


def short_hash(text: str) -> str:
    """Four hexadecimal digits, which tell the series of a study apart in messages."""
    return hashlib.sha256(text.encode()).hexdigest()[:4]


def hidden(*texts: str) -> str:
    """What identifies a patient, for comparisons within this process only; it cannot be undone."""
    if not any(texts):
        return ""
    return hashlib.blake2b("\0".join(texts).encode(), key=_SALT, digest_size=16).hexdigest()
