"""Coded names of what fastbts segments and measures, and what all its DICOM objects say.

Codes are those of DICOM PS3.16: CID 7150 "Segmentation Property Category", CID 7159 "Lesion
Segmentation Types". SNOMED CT names necrosis, oedema and neoplasm; DICOM takes enhancing lesions
from the NCI Thesaurus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.about import DISCLAIMER, __version__
from fastbts.errors import InputError, optional_module
from fastbts.files import OpenFile, check_not_input
from fastbts.labels import COLOURS, ED, ET, NCR
from fastbts.volume import Geometry
from fastbts.write.dicom_headers import EXTRA, header_errors

MANUFACTURER = "fastbts"
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Code = tuple[str, str, str]
"""Value, scheme, meaning."""
MORPHOLOGY: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")
BRAIN: Code = ("12738006", "SCT", "Brain")
NEOPLASM: Code = ("108369006", "SCT", "Neoplasm")


@dataclass(frozen=True)
class Tissue:
    """A segment.

    Attributes:
        value: Of `fastbts.labels`.
        name: For people.
        code: For programs.
        rgb: Its colour, 0 to 255.
    """

    value: int
    name: str
    code: Code
    rgb: tuple[int, int, int]


TISSUES = (
    Tissue(NCR, "Necrotic core", ("6574001", "SCT", "Necrosis"), COLOURS["NCR"]),
    Tissue(ED, "Peritumoral oedema", ("79654002", "SCT", "Edema"), COLOURS["ED"]),
    Tissue(ET, "Enhancing tumour", ("C113842", "NCIt", "Enhancing Lesion"), COLOURS["ET"]),
)
"""Segments 1, 2 and 3."""
REGIONS = {"WT": "Whole tumour", "TC": "Tumour core", "ET": "Enhancing tumour"}
"""Region of `volumes_ml` -> name for people."""


def concept(code: Code) -> Any:
    """A code as highdicom's object."""
    return optional_module("highdicom.sr.coding", EXTRA).CodedConcept(*code)


def uid(kind: str, *parts: str) -> Any:
    """A UID that depends on its arguments only: sent twice, a PACS keeps one object."""
    entropy = [MANUFACTURER, __version__, kind, *parts]
    return optional_module("pydicom.uid", EXTRA).generate_uid(entropy_srcs=entropy)


def equipment(serial_number: str) -> dict[str, str]:
    """Who made an object, as arguments of highdicom."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": __version__,
        "device_serial_number": serial_number or __version__,
    }


def description(text: str) -> str:
    """A SeriesDescription (at most 64 characters) with the intended use."""
    return f"{MANUFACTURER} {text}: {DISCLAIMER}"[:64]


def check_labels(path: Path, labels: NDArray[Any], geometry: Geometry) -> None:
    """Raises InputError unless these are labels of `fastbts.labels` on the grid."""
    if labels.dtype != np.uint8 or labels.shape != geometry.shape:
        raise InputError(
            f"{path}: expected uint8 labels of shape {geometry.shape}, got {labels.dtype} "
            f"{labels.shape}"
        )
    unknown = sorted(set(np.unique(labels).tolist()) - {0, *(t.value for t in TISSUES)})
    if unknown:
        raise InputError(f"{path}: labels {unknown}: expected 0, {NCR}, {ED} and {ET} only")


def save(path: Path, dataset: Any, inputs: Sequence[Path], open_file: OpenFile) -> None:
    """Writes a DICOM object atomically, or as a file of a set."""
    check_not_input(path, inputs)
    with open_file(path) as file, header_errors(path):
        dataset.save_as(file, enforce_file_format=True)
