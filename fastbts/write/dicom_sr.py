"""DICOM structured report of the volumes, TID 1500 "Measurement Report" (PS3.16)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.about import DISCLAIMER
from fastbts.errors import optional_module, quietly
from fastbts.files import OpenFile, atomic_write
from fastbts.volume import Geometry
from fastbts.write import dicom_codes as codes
from fastbts.write.dicom_headers import EXTRA, header_errors, reference_headers

SERIES_NUMBER = 9002
MR_OF_BRAIN: codes.Code = ("816077007", "SCT", "MR of brain")
VOLUME: codes.Code = ("118565006", "SCT", "Volume")
MILLILITRE: codes.Code = ("ml", "UCUM", "milliliter")


@quietly()
def write_dicom_sr(
    path: str | Path,
    volumes_ml: Mapping[str, float],
    labels: NDArray[np.uint8],
    geometry: Geometry,
    files: Sequence[Path],
    segmentation: Any | None,
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
        segmentation: The object of `write_dicom_seg` with the same labels, which the report refers
            to. None where there is no tumour, and so no segmentation.
        engine: Name and sha256 of the engine.
        open_file: `atomic_write`, or what `write_set` yields.
    Returns:
        The report as a pydicom dataset: complete, and not verified by anybody.
    Raises:
        DeviceError: highdicom is not installed.
        InputError: The labels do not fit the grid, or a file cannot be read.
        OutputError: The file cannot be written, or is one of `files`.
    """
    path, sr = Path(path), optional_module("highdicom.sr", EXTRA)
    codes.check_labels(path, labels, geometry)
    headers = reference_headers(files)
    evidence = [*headers, *([] if segmentation is None else [segmentation])]
    source = str(headers[0].SeriesInstanceUID)
    root = _root(source, volumes_ml, labels, segmentation)
    groups = [
        _group(name, code, ml, root, source, segmentation, number)
        for name, code, ml, number in _measured(volumes_ml, labels, geometry, segmentation)
    ]
    content = sr.MeasurementReport(
        observation_context=_observer(engine or {}, root),
        procedure_reported=codes.concept(MR_OF_BRAIN),
        imaging_measurements=groups,
        title=codes.concept(("126000", "DCM", "Imaging Measurement Report")),
    )
    with header_errors(path):
        dataset = sr.ComprehensiveSR(
            evidence=evidence,
            content=content,
            series_instance_uid=codes.uid("SR series", root),
            series_number=SERIES_NUMBER,
            sop_instance_uid=codes.uid("SR", root),
            instance_number=1,
            is_complete=True,
            series_description=codes.description("volumes"),
            **codes.equipment((engine or {}).get("sha256", "")[:16]),
        )
    codes.save(path, dataset, files, open_file)
    return dataset


def _root(
    source: str,
    volumes_ml: Mapping[str, float],
    labels: NDArray[np.uint8],
    segmentation: Any | None,
) -> str:
    """A UID of this result: reports of other labels, volumes or segmentations have others."""
    digest = hashlib.sha256(labels.tobytes()).hexdigest()
    volumes = [f"{region} {ml:.3f}" for region, ml in volumes_ml.items()]
    segments = "" if segmentation is None else str(segmentation.SOPInstanceUID)
    return str(codes.uid("result", source, digest, *volumes, segments))


def _observer(engine: Mapping[str, str], root: str) -> Any:
    """The program, not a person; its name carries the intended use."""
    sr = optional_module("highdicom.sr", EXTRA)
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=codes.uid("observer", engine.get("sha256", root)),
        name=f"{codes.MANUFACTURER}: {DISCLAIMER}",
        manufacturer_name=codes.MANUFACTURER,
        model_name=engine.get("name", codes.MANUFACTURER),
        serial_number=engine.get("sha256", "")[:16] or None,
    )
    kind = codes.concept(("121007", "DCM", "Device"))
    context = sr.ObserverContext(observer_type=kind, observer_identifying_attributes=device)
    return sr.ObservationContext(observer_device_context=context)


Measured = Iterator[tuple[str, codes.Code, float, int]]
"""Name, finding, volume in ml, and number of the segment or 0 for none."""


def _measured(
    volumes_ml: Mapping[str, float],
    labels: NDArray[np.uint8],
    geometry: Geometry,
    segmentation: Any | None,
) -> Measured:
    """The regions, then the tissues that have voxels. A fractional segmentation has the regions."""
    kind = "" if segmentation is None else segmentation.SegmentationType
    order = list(codes.REGIONS)
    for region, ml in volumes_ml.items():
        code = codes.TISSUES[-1].code if region == "ET" else codes.NEOPLASM
        number = order.index(region) + 1 if kind == "FRACTIONAL" else 0
        yield f"{region}: {codes.REGIONS[region]}", code, ml, number
    for number, tissue in enumerate(codes.TISSUES, 1):
        n_voxels = int(np.count_nonzero(labels == tissue.value))
        if n_voxels and kind == "BINARY":
            yield tissue.name, tissue.code, n_voxels * geometry.voxel_ml, number


def _group(
    name: str,
    code: codes.Code,
    ml: float,
    root: str,
    source: str,
    segmentation: Any | None,
    number: int,
) -> Any:
    """A finding and its volume: TID 1411 with a segment; TID 1501 for a region of several."""
    sr = optional_module("highdicom.sr", EXTRA)
    arguments = {
        "tracking_identifier": _tracking(name, root, segmentation, number),
        "finding_type": codes.concept(code),
        "finding_sites": [sr.FindingSite(codes.concept(codes.BRAIN))],
        "measurements": [
            sr.Measurement(
                name=codes.concept(VOLUME),
                value=round(float(ml), 3),
                unit=codes.concept(MILLILITRE),
            )
        ],
    }
    if segmentation is None or not number:
        return sr.MeasurementsAndQualitativeEvaluations(**arguments)
    segment = sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=number,
        source_series=sr.SourceSeriesForSegmentation(source),
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=segment, **arguments
    )


def _tracking(name: str, root: str, segmentation: Any | None, number: int) -> Any:
    """That of the segment, which PS3.3 C.8.20.2 wants in both objects, or one of its own."""
    identifier = optional_module("highdicom.sr", EXTRA).TrackingIdentifier
    if segmentation is None or not number:
        return identifier(uid=codes.uid("measured", root, name), identifier=name)
    segment = segmentation.SegmentSequence[number - 1]
    return identifier(uid=segment.TrackingUID, identifier=segment.TrackingID)
