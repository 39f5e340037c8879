"""DICOM structured report of the volumes, TID 1500 "Measurement Report" (PS3.16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.about import DISCLAIMER
from fastbts.errors import optional_module, quietly
from fastbts.files import OpenFile, atomic_write
from fastbts.volume import Geometry
from fastbts.write import dicom_codes as codes

SERIES_NUMBER = 9002
MR_OF_BRAIN: codes.Code = ("816077007", "SCT", "MR of brain")
VOLUME: codes.Code = ("118565006", "SCT", "Volume")
MILLILITRE: codes.Code = ("ml", "UCUM", "milliliter")
ALGORITHM: codes.Code = ("122406", "DCM", "Algorithmic")


@quietly()
def write_dicom_sr(
    path: str | Path,
    volumes_ml: Mapping[str, float],
    labels: NDArray[np.uint8],
    geometry: Geometry,
    files: Sequence[Path],
    segmentation: Any,
    *,
    engine: Mapping[str, str] | None = None,
    open_file: OpenFile = atomic_write,
) -> Any:
    """Writes the volumes of the regions, and of each segment with a reference to it.

    Args:
        path: The file, by custom `.dcm`.
        volumes_ml: Region WT, TC and ET -> volume, see `Segmentation.volumes_ml`.
        labels: uint8, (i, j, k), values of `fastbts.labels`.
        geometry: Their grid.
        files: The series that was segmented.
        segmentation: The object of `write_dicom_seg`, with the same labels, not fractional.
        engine: Name and sha256 of the engine.
        open_file: `atomic_write`, or what `write_set` yields.
    Returns:
        The report as a pydicom dataset: complete, and not verified by anybody.
    Raises:
        DeviceError: highdicom is not installed.
        InputError: The labels do not fit the grid, or a file cannot be read.
        OutputError: The file cannot be written, or is one of `files`.
    """
    path, sr = Path(path), optional_module("highdicom.sr", codes.EXTRA)
    codes.check_labels(path, labels, geometry)
    headers = codes.reference_headers(files)
    seg_uid = str(segmentation.SOPInstanceUID)
    groups = [
        *(_region(region, ml, seg_uid) for region, ml in volumes_ml.items()),
        *_segments(labels, geometry.voxel_ml, segmentation, headers[0]),
    ]
    content = sr.MeasurementReport(
        observation_context=_observer(engine or {}, seg_uid),
        procedure_reported=codes.concept(MR_OF_BRAIN),
        imaging_measurements=groups,
        title=codes.concept(("126000", "DCM", "Imaging Measurement Report")),
    )
    dataset = sr.ComprehensiveSR(
        evidence=[*headers, segmentation],
        content=content,
        series_instance_uid=codes.uid("SR series", seg_uid),
        series_number=SERIES_NUMBER,
        sop_instance_uid=codes.uid("SR", seg_uid),
        instance_number=1,
        is_complete=True,
        series_description=codes.description("volumes"),
        **codes.equipment((engine or {}).get("sha256", "")[:16]),
    )
    codes.save(path, dataset, files, open_file)
    return dataset


def _observer(engine: Mapping[str, str], seg_uid: str) -> Any:
    """The program, not a person; its name carries the intended use."""
    sr = optional_module("highdicom.sr", codes.EXTRA)
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=codes.uid("observer", engine.get("sha256", seg_uid)),
        name=f"{codes.MANUFACTURER}: {DISCLAIMER}",
        manufacturer_name=codes.MANUFACTURER,
        model_name=engine.get("name", codes.MANUFACTURER),
        serial_number=engine.get("sha256", "")[:16] or None,
    )
    kind = codes.concept(("121007", "DCM", "Device"))
    context = sr.ObserverContext(observer_type=kind, observer_identifying_attributes=device)
    return sr.ObservationContext(observer_device_context=context)


def _volume(ml: float) -> Any:
    sr = optional_module("highdicom.sr", codes.EXTRA)
    return sr.Measurement(
        name=codes.concept(VOLUME), value=round(float(ml), 3), unit=codes.concept(MILLILITRE)
    )


def _tracking(name: str, seg_uid: str) -> Any:
    sr = optional_module("highdicom.sr", codes.EXTRA)
    return sr.TrackingIdentifier(uid=codes.uid("measured", seg_uid, name), identifier=name)


def _region(region: str, ml: float, seg_uid: str) -> Any:
    """A region, which is more than one segment: TID 1501, without a reference."""
    sr = optional_module("highdicom.sr", codes.EXTRA)
    code = codes.TISSUES[-1].code if region == "ET" else codes.NEOPLASM
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(f"{region}: {codes.REGIONS[region]}", seg_uid),
        finding_type=codes.concept(code),
        finding_sites=[sr.FindingSite(codes.concept(codes.BRAIN))],
        measurements=[_volume(ml)],
    )


def _segments(
    labels: NDArray[np.uint8], voxel_ml: float, segmentation: Any, header: Any
) -> list[Any]:
    """The segments that have voxels: TID 1411, with a reference to each."""
    sr = optional_module("highdicom.sr", codes.EXTRA)
    source = sr.SourceSeriesForSegmentation(header.SeriesInstanceUID)
    groups = []
    for number, tissue in enumerate(codes.TISSUES, 1):
        n_voxels = int(np.count_nonzero(labels == tissue.value))
        if not n_voxels:
            continue
        segment = sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=source,
        )
        groups.append(
            sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=_tracking(tissue.name, str(segmentation.SOPInstanceUID)),
                referenced_segment=segment,
                finding_type=codes.concept(tissue.code),
                finding_sites=[sr.FindingSite(codes.concept(codes.BRAIN))],
                measurements=[_volume(n_voxels * voxel_ml)],
            )
        )
    return groups
