"""Shared fixtures: the real labelled cases if available, and an engine that is easy to verify."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbts import EngineSpec, Segmenter
from fastbts.engine.file import write_engine_file
from tests.fakes import EmulatedCuda, emulated_cuda

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: one process takes a whole file, and none should be left alone
    with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def no_model_cache() -> None:
    """Tests compile their networks, and leave nothing in the user's cache."""
    os.environ["FASTBTS_CACHE"] = "off"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real labelled cases; skips where there is none."""
    places = [Path(p) for p in [os.environ.get("FASTBTS_DATA", "")] if p] or [
        ROOT.parent / "shared/data/brats18"
    ]
    for place in places:
        if (place / "cases.csv").is_file():
            return place
    pytest.skip(
        f"no real cases: set FASTBTS_DATA to a folder with cases.csv (looked in {places[0].name}/)"
    )


@pytest.fixture(scope="session")
def val_cases(data_folder: Path) -> list[Path]:
    with (data_folder / "cases.csv").open(newline="") as file:
        return [data_folder / row["case"] for row in csv.DictReader(file) if row["split"] == "val"]


class VoxelEngine:
    """An engine whose logits depend on one voxel each: crops, padding and windows must not matter.

    WT where FLAIR, TC where T2, ET where T1ce is more than one standard deviation above the mean.
    """

    def __init__(self, **spec: Any) -> None:
        self.spec = replace(EngineSpec(name="voxel", stride=8, window=(16, 24, 16)), **spec)
        self.description = {"backend": "test", "device": "cpu", "precision": "fp32"}
        self.text = None
        self.n_calls = 0

    def infer(
        self, tensor: np.ndarray, text: np.ndarray | None = None, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        self.n_calls += 1
        assert text is None
        assert self.spec.takes(tensor.shape[2:])
        out = np.empty((len(tensor), 3, *tensor.shape[2:]), np.float32) if out is None else out
        out[:] = (tensor[:, [0, 3, 2]] - 1.0) * 8.0
        return out

    def close(self) -> None:
        pass


def write_voxel_engine(path: Path, channels: tuple[int, ...] = (0, 3, 2), **spec: Any) -> Path:
    """`VoxelEngine` as an engine file, with half of its logits: it is less sure."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {"channels": np.array(channels), "one": np.float32(1), "gain": np.float32(4)}
    nodes = [
        helper.make_node("Gather", ["volume", "channels"], ["picked"], axis=1),
        helper.make_node("Sub", ["picked", "one"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "gain"], ["logits"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", n, "d", "h", "w"])
        for name, n in (("volume", 4), ("logits", len(channels)))
    ]
    weights = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "voxel", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    spec = {"name": "voxel", "stride": 8, "window": (16, 24, 16), **spec}
    write_engine_file(path, EngineSpec(**spec), {"model.onnx": model.SerializeToString()})
    return path


def write_voxel_finder(path: Path, **spec: Any) -> Path:
    """A finder for it: the tumour is where FLAIR, at 2 mm, is well above the mean."""
    of_finder: dict[str, Any] = {
        "name": "voxel-finder",
        "regions": ("WT",),
        "labels": ((1, 2, 4),),
        "thresholds": (0.9,),
        "spacing_mm": 2.0,
    }
    return write_voxel_engine(path, (0,), **{**of_finder, **spec})


def unknown_node() -> bytes:
    """An ONNX of the right inputs and outputs, with a node that no runtime has."""
    from onnx import TensorProto, helper

    volume, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", n, "d", "h", "w"])
        for name, n in (("volume", 4), ("logits", 3))
    )
    node = helper.make_node("NoSuchNode", ["volume"], ["logits"])
    graph = helper.make_graph([node], "unknown", [volume], [logits])
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


@pytest.fixture
def voxel_segmenter() -> Segmenter:
    return Segmenter(VoxelEngine(), warm_up=False)


@pytest.fixture(scope="session")
def shipped_segmenter() -> Iterator[Segmenter]:
    segmenter = Segmenter()
    yield segmenter
    segmenter.close()


@pytest.fixture
def small_case() -> tuple[np.ndarray, np.ndarray]:
    """Asymmetric images (4, 30, 41, 23), int16, background 0; and an affine (RAS+, 1 mm)."""
    rng = np.random.default_rng(7)
    images = np.zeros((4, 30, 41, 23), np.int16)
    images[:, 3:28, 5:37, 2:21] = rng.integers(50, 900, (4, 25, 32, 19))
    affine = np.eye(4)
    affine[:3, 3] = -15, -20, -11
    return images, affine


@pytest.fixture
def small_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands take a phantom of 64 x 64 x 48 voxels of 1 mm: a full head takes half a minute."""
    from fastbts.phantom import PhantomCase, make_case

    def make_small(seed: int = 0) -> PhantomCase:
        case = make_case(seed, shape=(64, 64, 48))
        spacing = np.diag([*case.volume.geometry.spacing_mm, 1.0])
        small = replace(case.volume, affine=case.volume.affine @ np.linalg.inv(spacing))
        return replace(case, volume=small)

    monkeypatch.setattr("fastbts.phantom.make_case", make_small)


@pytest.fixture
def cuda() -> Iterator[EmulatedCuda]:
    """`fastbts` on one emulated CUDA device; see tests/fakes."""
    with emulated_cuda() as device:
        yield device
