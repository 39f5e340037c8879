"""A raw study of the phantom at 5 mm, and fake engines for the whole way through it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from fastbts import EngineSpec, Geometry
from fastbts.engine.file import write_engine_file
from fastbts.phantom.case import make_case
from fastbts.phantom.skull import ROOM_MM
from fastbts.phantom.study import FLAIR, T1, T1CE, T2
from fastbts.study.read_dicom import read_dicom
from fastbts.study.series import Series
from fastbts.volume import to_network_axes
from tests.conftest import write_voxel_engine
from tests.study.made import SHAPE

MM = 5.0  # of the phantom
STRIDE = 8
TEXTS = {"flair": FLAIR.text, "t1": T1.text, "t1ce": T1CE.text, "t2": T2.text}


def stripped_case() -> tuple[NDArray[np.float32], Geometry]:
    """The phantom's brain (4, i, j, k) on the grid of its head, see `tests.study.made.head`."""
    case = make_case(0, SHAPE)
    pad = round(ROOM_MM / MM)
    data = np.pad(case.volume.data, [(0, 0), *[(pad, pad)] * 3]).astype(np.float32)
    affine = case.volume.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, pad)
    i, j, k = data.shape[1:]
    return data, Geometry((i, j, k), affine)


def write_fake_brain_engine(path: Path) -> Path:
    """An engine file that says the phantom's brain, whatever the image on the T1ce's grid shows."""
    from onnx import TensorProto, helper, numpy_helper

    data, geometry = stripped_case()
    brain = to_network_axes((data != 0).any(axis=0), geometry)
    size = [-(-n // STRIDE) * STRIDE for n in brain.shape]
    ends = [(0, whole - n) for n, whole in zip(brain.shape, size, strict=True)]
    logits = 16 * np.pad(brain, ends).astype(np.float32)[None, None] - 8
    weights = [
        numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in {"zero": np.float32(0), "brain": logits}.items()
    ]
    nodes = [
        helper.make_node("Mul", ["volume", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "brain"], ["logits"]),
    ]
    value = helper.make_tensor_value_info
    axes = ["b", 1, "d", "h", "w"]
    first, last = (value(name, TensorProto.FLOAT, axes) for name in ("volume", "logits"))
    graph = helper.make_graph(nodes, "fake brain", [first], [last], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    spec = EngineSpec(
        name="fake brain",
        modalities=("head",),
        regions=("brain",),
        thresholds=(0.5,),
        stride=STRIDE,
        spacing_mm=MM,
        window=(32, 32, 32),
    )
    write_engine_file(path, spec, {"model.onnx": model.SerializeToString()})
    return path


def write_fake_tumour_engine(path: Path) -> Path:
    """`VoxelEngine` at the phantom's spacing."""
    return write_voxel_engine(path, spacing_mm=MM)


def write_nifti(folder: Path, study: Path, changes: Mapping[str, Any] | None = None) -> list[Path]:
    """The four images of a DICOM study as NIfTI, on their own grids, without any header."""
    folder.mkdir(parents=True, exist_ok=True)
    series = {one.name: one for one in read_dicom(study).series}
    return [write_image(folder / f"{m}.nii.gz", series[text]) for m, text in TEXTS.items()]


def write_image(path: Path, series: Series) -> Path:
    nib.Nifti1Image(series.voxels, series.geometry.affine).to_filename(path)
    return path
