"""An enhanced DICOM file for tests: all slices of a series in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="needs fastbts[dicom]")


def write_enhanced(path: Path, slices: list[Any]) -> None:
    """An Enhanced MR Image (PS3.3 A.36.2) with the functional groups that are read."""
    first, dataset = slices[0], pydicom.Dataset()
    dataset.file_meta = first.file_meta
    for keyword in (
        *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
        *("SeriesDescription", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
        *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    ):
        setattr(dataset, keyword, first[keyword].value)
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.EnhancedMRImageStorage, "1.2.3.5"
    dataset.NumberOfFrames = len(slices)
    dataset.EchoPulseSequence, dataset.InversionRecovery = "SPIN", "YES"
    dataset.ContrastBolusAgentSequence = [item(CodeMeaning="Gadobutrol")]
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(PixelSpacing=list(first.PixelSpacing), SliceThickness=6.0)],
            PlaneOrientationSequence=[
                item(ImageOrientationPatient=list(first.ImageOrientationPatient))
            ],
            MREchoSequence=[item(EffectiveEchoTime=93.0)],
            MRTimingAndRelatedParametersSequence=[item(RepetitionTime=9000.0)],
            MRModifierSequence=[item(InversionTimes=[2500.0])],
        )
    ]
    order = np.random.default_rng(0).permutation(len(slices))
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=list(slices[n].ImagePositionPatient))],
            FrameContentSequence=[item(FrameAcquisitionNumber=1)],
        )
        for n in order
    ]
    dataset.PixelData = b"".join(slices[n].PixelData for n in order)
    path.parent.mkdir(exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def item(**values: Any) -> Any:
    dataset = pydicom.Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset
