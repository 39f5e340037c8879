"""Brain-tumour segmentation that an engineer can embed.

>>> segmenter = fastbts.Segmenter()  # the shipped engine, loaded and warmed up once
>>> result = segmenter.predict("case_folder")  # or files, nibabel images, arrays, a Volume
>>> result.save("seg.nii.gz")

Research use only: not a medical device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastbts import _C
from fastbts.about import __version__ as __version__
from fastbts.device.host_cpus import n_limited_cpus
from fastbts.errors import (
    CaseError,
    DeviceError,
    EngineFileError,
    FastBTSError,
    GeometryError,
    InputError,
    OptionsError,
    OutputError,
)

if TYPE_CHECKING:
    from fastbts.engine.interface import Engine
    from fastbts.engine.load import load_engine
    from fastbts.options import SegmenterOptions
    from fastbts.read.case import read_case, read_files
    from fastbts.read.find import find_cases
    from fastbts.segmentation import FailedCase, Segmentation
    from fastbts.segmenter import Segmenter
    from fastbts.spec import EngineSpec
    from fastbts.study.study import Study, read_study
    from fastbts.volume import MODALITIES, Geometry, Volume

__all__ = [
    "MODALITIES",
    "CaseError",
    "DeviceError",
    "Engine",
    "EngineFileError",
    "EngineSpec",
    "FailedCase",
    "FastBTSError",
    "Geometry",
    "GeometryError",
    "InputError",
    "OptionsError",
    "OutputError",
    "Segmentation",
    "Segmenter",
    "SegmenterOptions",
    "Study",
    "Volume",
    "find_cases",
    "load_engine",
    "read_case",
    "read_files",
    "read_study",
]

# Loaded on first use, so that `import fastbts` costs little: not even NumPy is imported by it.
_LAZY = {
    "MODALITIES": "fastbts.volume",
    "Engine": "fastbts.engine.interface",
    "EngineSpec": "fastbts.spec",
    "FailedCase": "fastbts.segmentation",
    "Geometry": "fastbts.volume",
    "Segmentation": "fastbts.segmentation",
    "Segmenter": "fastbts.segmenter",
    "SegmenterOptions": "fastbts.options",
    "Study": "fastbts.study.study",
    "Volume": "fastbts.volume",
    "find_cases": "fastbts.read.find",
    "load_engine": "fastbts.engine.load",
    "read_case": "fastbts.read.case",
    "read_files": "fastbts.read.case",
    "read_study": "fastbts.study.study",
}


_C.limit_cpus(n_limited_cpus())  # of a container; C++ sees only the CPUs of the process


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fastbts' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
