"""The frames of DICOM images: one per file, or many in an enhanced file (PS3.3 C.7.6.16)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.study.series import Facts, cleaned, hidden

Numbers = NDArray[np.float64]
# Of the axes' components, spacing in mm, echo and inversion time in ms, b-value.
_TOLERANCES = (*[0.005] * 6, *[0.001] * 2, 0.1, 1.0, 1.0)
MAX_UNIT_ERROR = 0.01  # of the length of a direction
_NO_AGENT = ("", "no", "none", "n", "0", "ohne", "unknown")


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice.

    Attributes:
        file: Where it is.
        index: Its number in the file; None where the file holds one.
        uid: SOPInstanceUID and index.
        position: Centre of its first pixel, LPS, in mm.
        axes: Directions of growing column and row index, (2, 3).
        spacing: Between rows and between columns, in mm.
        shape: Rows, columns.
        scale: Slope and intercept.
        acquisition: AcquisitionNumber and temporal position.
        facts: What the header says of it.
    """

    file: Path
    index: int | None
    uid: str
    position: Numbers
    axes: Numbers
    spacing: tuple[float, float]
    shape: tuple[int, int]
    scale: tuple[float, float]
    acquisition: tuple[float, float]
    facts: Facts = field(repr=False)

    @cached_property
    def _numbers(self) -> tuple[float, ...]:
        """What differs by rounding at most between slices of one image; -1 for what is unknown."""
        facts = (self.facts.te_ms, self.facts.ti_ms, self.facts.b_value)
        known = (-1.0 if number is None else number for number in facts)
        return (*self.axes.ravel().tolist(), *self.spacing, *known)

    def is_like(self, other: Frame) -> bool:
        """Whether both can be slices of one image: the same but for their positions."""
        same = self.shape == other.shape and self.facts.image_type == other.facts.image_type
        return same and all(
            abs(a - b) <= most
            for a, b, most in zip(self._numbers, other._numbers, _TOLERANCES, strict=True)
        )

    @property
    def normal(self) -> Numbers:
        """Direction in which the slices are sorted."""
        return np.cross(self.axes[0], self.axes[1])


def frames_of(path: Path, dataset: Any) -> Iterator[Frame]:
    """The slices of a file.

    Raises:
        ValueError, TypeError, KeyError: The header has no position, spacing or the like.
    """
    n = int(dataset.get("NumberOfFrames") or 1)
    multi = "PerFrameFunctionalGroupsSequence" in dataset
    if n > 1 and not multi:
        raise ValueError("several frames without positions")
    if multi and n != len(dataset.PerFrameFunctionalGroupsSequence):
        raise ValueError(f"{n} frames, but not as many positions")
    for index in range(n if multi else 1):
        yield _frame(path, index if multi else None, _flat(dataset, index))


def _flat(dataset: Any, index: int) -> dict[str, Any]:
    """Keyword -> value, with those of a frame's functional groups."""
    flat = {element.keyword: element.value for element in dataset}
    shared = flat.pop("SharedFunctionalGroupsSequence", None) or []
    frames = flat.pop("PerFrameFunctionalGroupsSequence", None) or []
    for group in (*shared[:1], *frames[index : index + 1]):
        for sequence in group:
            if sequence.VR == "SQ" and sequence.value:
                flat.update({element.keyword: element.value for element in sequence.value[0]})
    return flat


def _frame(path: Path, index: int | None, flat: Mapping[str, Any]) -> Frame:
    rows, columns = int(flat["Rows"]), int(flat["Columns"])
    down, across = _numbers(flat["PixelSpacing"], 2)
    if not min(down, across) > 0:
        raise ValueError(f"PixelSpacing {down:g}, {across:g}: expected numbers above 0")
    acquisition = flat.get("FrameAcquisitionNumber", flat.get("AcquisitionNumber"))
    temporal = flat.get("TemporalPositionIndex", flat.get("TemporalPositionIdentifier"))
    return Frame(
        file=path,
        index=index,
        uid=f"{flat.get('SOPInstanceUID', path)} {index}",
        position=_numbers(flat["ImagePositionPatient"], 3),
        axes=_directions(flat["ImageOrientationPatient"]),
        spacing=(float(down), float(across)),
        shape=(rows, columns),
        scale=(
            _or_default(flat.get("RescaleSlope"), 1.0),
            _or_default(flat.get("RescaleIntercept"), 0.0),
        ),
        acquisition=(_or_default(acquisition, 0.0), _or_default(temporal, 0.0)),
        facts=_facts(flat),
    )


def _directions(value: Any) -> Numbers:
    """Two directions of unit length, (2, 3)."""
    axes = _numbers(value, 6).reshape(2, 3)
    lengths = np.linalg.norm(axes, axis=1, keepdims=True)
    if np.abs(lengths - 1).max() > MAX_UNIT_ERROR:
        raise ValueError("ImageOrientationPatient: expected directions of unit length")
    return axes / lengths


def _facts(flat: Mapping[str, Any]) -> Facts:
    inversion = flat.get("InversionTime") or flat.get("InversionTimes")
    return Facts(
        te_ms=_number(flat.get("EffectiveEchoTime", flat.get("EchoTime"))),
        tr_ms=_number(flat.get("RepetitionTime")),
        ti_ms=_number(inversion),
        contrast_agent=_agent(flat),
        sequence=_sequence(flat),
        image_type=tuple(
            word.upper() for word in _texts(flat.get("FrameType", flat.get("ImageType")))
        ),
        texts=tuple(
            cleaned(word)
            for key in ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
            for word in _texts(flat.get(key))
        ),
        body_part=" ".join(_texts(flat.get("BodyPartExamined"))),
        b_value=_number(flat.get("DiffusionBValue")),
        modality=str(flat.get("Modality", "")),
        acquired=_acquired(flat),
        manufacturer=" ".join(_texts(flat.get("Manufacturer"))),
        study_uid=str(flat.get("StudyInstanceUID", "")),
        frame_of_reference_uid=str(flat.get("FrameOfReferenceUID", "")),
        patient=patient_of(flat),
    )


def patient_of(flat: Mapping[str, Any]) -> str:
    """What identifies the patient of a header, `hidden`."""
    patient = str(flat.get("PatientID") or "").strip()
    if patient:
        return hidden(patient)
    return hidden(str(flat.get("PatientName") or ""), str(flat.get("PatientBirthDate") or ""))


def _agent(flat: Mapping[str, Any]) -> str:
    agent = " ".join(_texts(flat.get("ContrastBolusAgent")))
    if agent.strip().lower() not in _NO_AGENT:
        return agent.strip()
    coded = flat.get("ContrastBolusAgentSequence") or []
    return str(coded[0].get("CodeMeaning", "")) if coded else ""


def _sequence(flat: Mapping[str, Any]) -> tuple[str, ...]:
    """ScanningSequence, or what an enhanced header says in its place."""
    classic = _texts(flat.get("ScanningSequence"))
    if classic:
        return classic
    echo = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}
    words = echo.get(str(flat.get("EchoPulseSequence")), ())
    words += ("IR",) if flat.get("InversionRecovery") == "YES" else ()
    return words + (("EP",) if flat.get("EchoPlanarPulseSequence") == "YES" else ())


def _acquired(flat: Mapping[str, Any]) -> tuple[str, float]:
    """Sorts by time, then by number."""
    pairs = (("AcquisitionDate", "AcquisitionTime"), ("SeriesDate", "SeriesTime"))
    times = [str(flat.get("FrameAcquisitionDateTime") or flat.get("AcquisitionDateTime") or "")]
    times += [f"{flat.get(date) or ''}{flat.get(time)}" for date, time in pairs if flat.get(time)]
    return next((time for time in times if time), ""), _number(flat.get("SeriesNumber")) or 0.0


def _texts(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    return (str(value),) if isinstance(value, str) else tuple(str(word) for word in value)


def _numbers(value: Any, n: int) -> Numbers:
    numbers = np.array([float(v) for v in value])
    if numbers.shape != (n,) or not np.isfinite(numbers).all():
        raise ValueError(f"expected {n} finite numbers")
    return numbers


def _number(value: Any) -> float | None:
    """The number, or the first of several."""
    if value is None or value == "":
        return None
    try:
        number = float(value[0]) if hasattr(value, "__len__") and value else float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _or_default(value: Any, default: float) -> float:
    number = _number(value)
    return default if number is None else number
