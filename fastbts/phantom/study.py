"""A raw study for the demo and for tests: DICOM series as a scanner might send them.

Each image of a case is moved by a known rigid transform, sampled on a grid of its own and written
as unsorted files without suffixes. The T1ce stays where it is, so the case's labels are the truth
on its grid. The patient is invented. Needs the extra `[dicom]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.errors import optional_module
from fastbts.phantom.case import PhantomCase
from fastbts.volume import Geometry, Volume

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
FIELD_OF_VIEW_MM = 200.0, 240.0, 200.0  # along x, y, z
NOISE = 0.05  # of the deviation of the image's voxels that are not 0


@dataclass(frozen=True, kw_only=True)
class Scan:
    """How one series is acquired.

    Attributes:
        text: SeriesDescription.
        modality: The image of the case that it shows.
        te_ms: Echo time; likewise `tr_ms` and `ti_ms`, which is None without inversion.
        sequence: ScanningSequence.
        agent: ContrastBolusAgent.
        axes: Directions of columns, rows and slices, for example "LPS" for transverse slices.
        spacing_mm: Of the voxels; None: the grid of the case, unmoved.
        degrees: Rotation about x, y, z, and `mm`: shift of the head in this series.
        every: Writes every so many slices only.
        header: Further attributes, or others.
    """

    text: str
    modality: str
    te_ms: float
    tr_ms: float
    ti_ms: float | None = None
    sequence: Sequence[str] = ("SE",)
    agent: str = ""
    axes: str = "LPS"
    spacing_mm: tuple[float, float, float] | None = None
    degrees: tuple[float, float, float] = (0, 0, 0)
    mm: tuple[float, float, float] = (0, 0, 0)
    every: int = 1
    header: Mapping[str, Any] = field(default_factory=dict)


FLAIR = Scan(
    text="ax t2_tirm_tra_dark-fluid", modality="flair", te_ms=93, tr_ms=9000, ti_ms=2500,
    sequence=("SE", "IR"), axes="PIR", spacing_mm=(0.75, 0.75, 3.0),
    degrees=(-5, 8, -6), mm=(-7, 9, -10),
)  # fmt: skip
"""Sagittal, although its description says otherwise."""
T1 = Scan(
    text="t1_se_tra", modality="t1", te_ms=9, tr_ms=600, axes="LPS", spacing_mm=(1.0, 1.0, 1.0),
    degrees=(3, 3, -4), mm=(-4, 3, 6),
)  # fmt: skip
T1CE = Scan(
    text="t1_mprage_tra_p2 KM", modality="t1ce", te_ms=3, tr_ms=1900, ti_ms=900,
    sequence=("GR", "IR"), agent="GADOVIST",
)  # fmt: skip
T2 = Scan(
    text="T2 TSE TRA 5mm", modality="t2", te_ms=99, tr_ms=5500, spacing_mm=(0.9, 0.9, 5.0),
    degrees=(6, -4, 9), mm=(8, -6, 5),
)  # fmt: skip
DWI = Scan(
    text="ep2d_diff_b1000", modality="t2", te_ms=85, tr_ms=4000, sequence=("EP",),
    spacing_mm=(1.8, 1.8, 5.0), header={"DiffusionBValue": 1000.0},
)  # fmt: skip
LOCALIZER = Scan(
    text="localizer", modality="t1", te_ms=5, tr_ms=20, sequence=("GR",),
    spacing_mm=(1.8, 1.8, 5.0), every=12,
)  # fmt: skip
SCANS = (LOCALIZER, FLAIR, T1, DWI, T2, T1CE)
"""Five series and a localizer, in the order of acquisition."""


@dataclass(frozen=True, eq=False)
class StudyCase:
    """A study that was written.

    Attributes:
        folder: Holds its files.
        files: Text of each scan -> its files in the order of the slices.
        truth: Text of each scan -> RAS+ position in its image -> in the case, in mm, (4, 4).
        labels: The reference on the grid of the T1ce, uint8, (i, j, k).
        geometry: That grid.
    """

    folder: Path
    files: Mapping[str, tuple[Path, ...]]
    truth: Mapping[str, NDArray[np.float64]]
    labels: NDArray[np.uint8]
    geometry: Geometry


def write_study(
    case: PhantomCase,
    folder: str | Path,
    scans: Sequence[Scan] = SCANS,
    *,
    seed: int = 0,
    patient: Mapping[str, Any] | None = None,
) -> StudyCase:
    """Writes a case as a DICOM study.

    Args:
        case: Any co-registered case, for example `with_skull(make_case())`.
        folder: Created if it is missing.
        scans: What is acquired, one series each; the texts differ.
        seed: Chooses noise, UIDs and names of files: equal arguments give equal files.
        patient: Attributes of the patient and the study that replace the invented ones.
    Raises:
        DeviceError: pydicom is not installed.
        OSError: The folder cannot be written.
    """
    folder, rng = Path(folder), np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    files, truth = {}, {}
    for number, scan in enumerate(scans, 1):
        moved = movement(scan, _middle(case.volume))
        data, geometry = acquire(case.volume, scan, moved, rng)
        slices = range(0, data.shape[2], scan.every)
        header = {**_header(scan, number, seed), **(patient or {})}
        names = [folder / f"{n:012x}" for n in rng.integers(0, 1 << 48, len(slices))]
        for n, (k, path) in enumerate(zip(slices, names, strict=True), 1):
            write_slice(path, data[:, :, k], geometry, k, {"InstanceNumber": n, **header})
        files[scan.text], truth[scan.text] = tuple(names), np.linalg.inv(moved).astype(np.float64)
    return StudyCase(folder, files, truth, case.labels, case.volume.geometry)


def movement(scan: Scan, middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Position in the case -> position in the scan, RAS+ in mm, (4, 4); turns about the middle."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(scan.degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        single = np.eye(3)
        single[i, i] = single[j, j] = np.cos(angle)
        single[j, i] = np.sin(angle)
        single[i, j] = -single[j, i]
        turn = single @ turn
    moved = np.eye(4)
    moved[:3, :3] = turn
    moved[:3, 3] = middle + np.array(scan.mm) - turn @ middle
    return moved


def acquire(
    volume: Volume, scan: Scan, moved: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.uint16], Geometry]:
    """The image of a scan, (i, j, k) uint16, averaged over the thickness of its slices."""
    image = volume.data[volume.modalities.index(scan.modality)].astype(np.float32)
    geometry = volume.geometry
    if scan.spacing_mm is not None:
        geometry = _grid(scan, moved @ [*_middle(volume), 1])
        image = _sampled(image, volume.affine, geometry, moved)
    spread = NOISE * image[image > 0].std()
    image += (rng.normal(0, spread, image.shape) * (image > 0)).astype(np.float32)
    return np.clip(np.rint(image), 0, 65535).astype(np.uint16), geometry


def _middle(volume: Volume) -> NDArray[np.float64]:
    middle: NDArray[np.float64] = np.array(volume.data.shape[1:]) - 1
    return (volume.affine @ [*(middle / 2), 1])[:3]


def _grid(scan: Scan, middle: NDArray[np.float64]) -> Geometry:
    """The scan's field of view about a point."""
    assert scan.spacing_mm is not None
    affine, shape = np.eye(4), []
    for column, (letter, mm) in enumerate(zip(scan.axes, scan.spacing_mm, strict=True)):
        axis, sign = DIRECTIONS[letter]
        affine[:3, column] = 0
        affine[axis, column] = sign * mm
        shape.append(round(FIELD_OF_VIEW_MM[axis] / mm))
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry((shape[0], shape[1], shape[2]), affine)


def _sampled(
    image: NDArray[np.float32],
    affine: NDArray[np.float64],
    target: Geometry,
    moved: NDArray[np.float64],
) -> NDArray[np.float32]:
    """The mean of planes about 1 mm apart within each slice."""
    n_planes = max(1, round(target.spacing_mm[2]))
    total = np.zeros(target.shape[::-1], np.float32)
    for plane in range(n_planes):
        shift = np.eye(4)
        shift[2, 3] = (plane + 0.5) / n_planes - 0.5
        to_voxel = np.linalg.inv(affine) @ np.linalg.inv(moved) @ target.affine @ shift
        reverse = to_voxel[[2, 1, 0]][:, [2, 1, 0, 3]]
        total += ops.resample_affine(image.T[None], reverse, total.shape)[0]
    total /= n_planes
    return total.T


def _header(scan: Scan, number: int, seed: int) -> dict[str, Any]:
    """The attributes that all slices of a series share."""
    uid = optional_module("pydicom.uid", "dicom").generate_uid
    root = f"fastbts phantom {seed}"
    header: dict[str, Any] = {
        "SOPClassUID": MR_IMAGE, "Modality": "MR",
        "StudyInstanceUID": uid(entropy_srcs=[root]),
        "SeriesInstanceUID": uid(entropy_srcs=[root, str(number), scan.text]),
        "FrameOfReferenceUID": uid(entropy_srcs=[root, "frame"]),
        "PatientName": "Phantom^Fast", "PatientID": f"PHANTOM{seed}", "PatientSex": "O",
        "PatientBirthDate": "19700101", "StudyDate": "20260102", "StudyTime": "101010",
        "AccessionNumber": "A1", "StudyID": "S1", "ReferringPhysicianName": "",
        "SeriesDescription": scan.text, "SeriesNumber": number,
        "AcquisitionDate": "20260102", "AcquisitionTime": f"{101000 + number}",
        "Manufacturer": "fastbts", "ManufacturerModelName": "phantom",
        "DeviceSerialNumber": "1", "SoftwareVersions": "1",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"], "BodyPartExamined": "BRAIN",
        "PatientPosition": "HFS", "PositionReferenceIndicator": "",
        "ScanningSequence": list(scan.sequence), "SequenceVariant": "NONE", "ScanOptions": "",
        "MRAcquisitionType": "3D" if scan.ti_ms and scan.te_ms < 20 else "2D",
        "RepetitionTime": scan.tr_ms, "EchoTime": scan.te_ms, "EchoTrainLength": 1,
    }  # fmt: skip
    if scan.ti_ms is not None:
        header["InversionTime"] = scan.ti_ms
    if scan.agent:
        header["ContrastBolusAgent"] = scan.agent
    return {**header, **scan.header}


def write_slice(
    path: Path,
    pixels: NDArray[np.uint16],
    geometry: Geometry,
    k: int,
    header: Mapping[str, Any],
) -> None:
    """Writes slice k, (i, j) uint16, as a classic MR image, explicit little endian."""
    pydicom = optional_module("pydicom", "dicom")
    lps = RAS_TO_LPS @ geometry.affine
    axes = lps[:3, :3] / geometry.spacing_mm
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    place = {
        "Rows": pixels.shape[1], "Columns": pixels.shape[0],
        "PixelSpacing": _decimals([geometry.spacing_mm[1], geometry.spacing_mm[0]]),
        "SliceThickness": _decimals([geometry.spacing_mm[2]])[0],
        "SpacingBetweenSlices": _decimals([geometry.spacing_mm[2]])[0],
        "ImageOrientationPatient": _decimals([*axes[:, 0], *axes[:, 1]]),
        "ImagePositionPatient": _decimals((lps @ [0, 0, k, 1])[:3]),
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16,
        "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0,
    }  # fmt: skip
    entropy = [header["SeriesInstanceUID"], str(k)]
    dataset.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=entropy)
    for keyword, value in {**place, **header}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = np.ascontiguousarray(pixels.T).tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def coarser(scans: Sequence[Scan], factor: float) -> list[Scan]:
    """The same scans with pixels that are larger by a factor, for fast tests."""
    return [
        scan if scan.spacing_mm is None else replace(scan, spacing_mm=_coarser(scan, factor))
        for scan in scans
    ]


def _coarser(scan: Scan, factor: float) -> tuple[float, float, float]:
    assert scan.spacing_mm is not None
    i, j, k = scan.spacing_mm
    return i * factor, j * factor, max(k, min(i, j) * factor)


def _decimals(values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """Numbers that fit into DICOM's decimal strings of 16 characters."""
    return [float(f"{float(v):.8g}") for v in values]
