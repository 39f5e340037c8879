"""DICOM segmentations (PS3.3 A.51) on the grid of the series that was segmented."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.about import DISCLAIMER, __version__
from fastbts.errors import InputError, OptionsError, optional_module, quietly
from fastbts.files import OpenFile, atomic_write
from fastbts.labels import COLOURS
from fastbts.volume import Geometry
from fastbts.write import dicom_codes as codes
from fastbts.write.dicom_headers import EXTRA, header_errors, reference_headers

SERIES_NUMBER = 9001
MAX_FRACTION = 255
MAX_SLICE_APART = 0.06  # of a step; steps between the slices of a series are not quite equal
RLE = "1.2.840.10008.1.2.5"


@quietly()
def write_dicom_seg(
    path: str | Path,
    labels: NDArray[np.uint8],
    geometry: Geometry,
    files: Sequence[Path],
    *,
    probabilities: NDArray[np.float32] | None = None,
    engine: Mapping[str, str] | None = None,
    open_file: OpenFile = atomic_write,
) -> Any:
    """Writes the labels as segments 1 necrosis, 2 oedema and 3 enhancing tumour.

    The same arguments give the same UIDs.

    Args:
        path: The file, by custom `.dcm`.
        labels: uint8, (i, j, k), values of `fastbts.labels`.
        geometry: The grid of labels, that of the series.
        files: The series that was segmented, one file per slice or one enhanced file.
        probabilities: Of WT, TC and ET, (3, i, j, k), 0 to 1: writes a fractional segmentation of
            these regions, which few viewers show. None: a binary one of the labels.
        engine: Name and sha256 of the engine, see `Segmentation.report`.
        open_file: `atomic_write`, or what `write_set` yields.
    Returns:
        The object as a pydicom dataset, which `write_dicom_sr` refers to.
    Raises:
        DeviceError: highdicom is not installed.
        InputError: The labels do not fit the grid, or the grid not the files.
        OptionsError: There is nothing to write: no voxel has a label.
        OutputError: The file cannot be written, or is one of `files`.
    """
    path, hd = Path(path), optional_module("highdicom", EXTRA)
    codes.check_labels(path, labels, geometry)
    headers = reference_headers(files)
    _check_grid(path, geometry, headers)
    voxels, names = _segments(path, labels, probabilities)
    series = str(headers[0].SeriesInstanceUID)
    digest = hashlib.sha256(voxels.tobytes()).hexdigest()
    kind = "BINARY" if probabilities is None else "FRACTIONAL"
    with header_errors(path):
        dataset = hd.seg.Segmentation(
            source_images=headers,
            pixel_array=_volume(voxels, geometry, headers[0], len(names)),
            segmentation_type=kind,
            segment_descriptions=_descriptions(names, series),
            series_instance_uid=codes.uid(f"{kind} series", series, digest),
            series_number=SERIES_NUMBER,
            sop_instance_uid=codes.uid(kind, series, digest),
            instance_number=1,
            series_description=codes.description("segmentation"),
            content_description=DISCLAIMER,
            content_label="BRAIN_TUMOUR",
            **codes.equipment((engine or {}).get("sha256", "")[:16]),
            **({} if kind == "BINARY" else _fractional()),
        )
    codes.save(path, dataset, files, open_file)
    return dataset


def _fractional() -> dict[str, Any]:
    return {
        "fractional_type": "PROBABILITY",
        "max_fractional_value": MAX_FRACTION,
        "transfer_syntax_uid": RLE,
    }


Names = list[tuple[str, codes.Code, tuple[int, int, int]]]
"""Of each segment: name, code, colour."""


def _segments(
    path: Path, labels: NDArray[np.uint8], probabilities: NDArray[np.float32] | None
) -> tuple[NDArray[Any], Names]:
    """Numbers of the segments, (i, j, k) uint8, or their probabilities, (i, j, k, 3)."""
    shown = labels if probabilities is None else probabilities >= 1 / MAX_FRACTION
    if not shown.any():
        raise OptionsError(
            f"{path}: no voxel is tumour, and DICOM has no segmentation without a segment; write "
            "NIfTI or the report alone"
        )
    if probabilities is None:
        numbers = np.zeros(256, np.uint8)
        numbers[[tissue.value for tissue in codes.TISSUES]] = 1, 2, 3
        return numbers[labels], [(t.name, t.code, t.rgb) for t in codes.TISSUES]
    if probabilities.shape != (len(codes.REGIONS), *labels.shape):
        raise InputError(
            f"{path}: expected probabilities of shape {(len(codes.REGIONS), *labels.shape)}, got "
            f"{probabilities.shape}"
        )
    last = codes.TISSUES[-1]
    tumours: Names = [
        (codes.REGIONS["WT"], codes.NEOPLASM, COLOURS["ED"]),
        (codes.REGIONS["TC"], codes.NEOPLASM, COLOURS["NCR"]),
        (codes.REGIONS["ET"], last.code, last.rgb),
    ]
    return np.moveaxis(probabilities, 0, -1).astype(np.float32).clip(0, 1), tumours


def _volume(voxels: NDArray[Any], geometry: Geometry, header: Any, n_segments: int) -> Any:
    """highdicom's volume: slices, rows, columns, in LPS."""
    hd = optional_module("highdicom", EXTRA)
    affine = (codes.RAS_TO_LPS @ geometry.affine)[:, [2, 1, 0, 3]]
    channels = {"SegmentNumber": list(range(1, n_segments + 1))} if voxels.ndim == 4 else None
    return hd.Volume(
        np.swapaxes(voxels, 0, 2),
        affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=header.FrameOfReferenceUID,
        channels=channels,
    )


def _descriptions(names: Names, series: str) -> list[Any]:
    hd = optional_module("highdicom", EXTRA)
    algorithm = hd.AlgorithmIdentificationSequence(
        name=codes.MANUFACTURER,
        family=codes.concept(("123109", "DCM", "Artificial Intelligence")),
        version=__version__,
    )
    return [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.concept(codes.MORPHOLOGY),
            segmented_property_type=codes.concept(code),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=codes.uid("tracking", series, name),
            tracking_id=name,
            anatomic_regions=[codes.concept(codes.BRAIN)],
            display_color=hd.color.CIELabColor.from_rgb(*rgb),
        )
        for number, (name, code, rgb) in enumerate(names, 1)
    ]


def _check_grid(path: Path, geometry: Geometry, headers: Sequence[Any]) -> None:
    """Refuses files of another series: a segmentation on a wrong place looks right."""
    columns, rows, n = geometry.shape
    size = int(headers[0].Columns), int(headers[0].Rows)
    if size != (columns, rows):
        raise InputError(
            f"{path}: the slices of the files have {size} pixels, those of the grid "
            f"{(columns, rows)}; give the files of the series that was segmented"
        )
    lps = codes.RAS_TO_LPS @ geometry.affine
    expected = lps[:3, 3] + np.arange(n)[:, None] * lps[:3, 2]
    there = np.array([position for header in headers for position in _positions(header)], float)
    apart = np.linalg.norm(expected[:, None] - there[None], axis=2).min(axis=1).max()
    if apart > MAX_SLICE_APART * geometry.spacing_mm[2]:
        raise InputError(
            f"{path}: a slice of the grid is {apart:.2g} mm away from those of the files; give "
            "the files of the series that was segmented"
        )


def _positions(header: Any) -> list[Any]:
    """Positions of the slices in a file."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        return [header.ImagePositionPatient]
    groups = header.PerFrameFunctionalGroupsSequence
    return [group.PlanePositionSequence[0].ImagePositionPatient for group in groups]
