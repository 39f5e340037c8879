"""Small cases, and what a prediction of them must give on any device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import Segmentation, Segmenter, SegmenterOptions
from fastbts.device.arrays import on_host
from tests.conftest import VoxelEngine
from tests.fakes import cupy

LAYOUTS: dict[str, Any] = {
    "C order": np.ascontiguousarray,
    "order of NIfTI files": lambda a: np.ascontiguousarray(a.transpose(0, 3, 2, 1)).T.transpose(
        3, 0, 1, 2
    ),
    "channels last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
    "flipped": lambda a: np.ascontiguousarray(a[:, ::-1, :, ::-1])[:, ::-1, :, ::-1],
}
"""Layouts of (M, X, Y, Z) in memory."""

AFFINES = {
    "RAS": np.eye(4),
    "LPS": np.diag([-1.0, -1, 1, 1]),
    "permuted": np.array([[0.0, 0, -1, 5], [1, 0, 0, -7], [0, -1, 0, 3], [0, 0, 0, 1]]),
    "oblique": np.array([[0.96, -0.28, 0, 1], [0.28, 0.96, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]),
    "other spacing": np.diag([1.0, 1.0, 2.0, 1.0]),
}


def images(dtype: Any = np.int16, shape: tuple[int, int, int] = (22, 27, 18)) -> NDArray[Any]:
    """Noise in a block that is not in the middle, background 0, (4, X, Y, Z)."""
    whole = np.zeros((4, *shape))
    inside = tuple(slice(2, n - 3) for n in shape)
    size = (4, *(n - 5 for n in shape))
    whole[(slice(None), *inside)] = np.random.default_rng(7).integers(30, 250, size)
    return whole.astype(dtype)


def on_device(array: NDArray[Any], device: int = 0) -> cupy.ndarray:
    """The array on an emulated device, in its layout."""
    with cupy.cuda.Device(device):
        low, high = np.lib.array_utils.byte_bounds(array)
        begin = array.ctypes.data - low
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        offset = low - base.ctypes.data
        memory = np.ascontiguousarray(base).view(np.uint8).reshape(-1)
        there = cupy.asarray(np.ndarray(memory.shape, np.uint8, base)[offset : offset + high - low])
        return cupy.ndarray(array.shape, array.dtype, there.data + begin, array.strides)


def on_the_host(case: Any, *, options: Any = None, spec: Any = None, **given: Any) -> Segmentation:
    """The result of the CPU."""
    engine = VoxelEngine(**(spec or {}))
    options = SegmenterOptions(**(options or {}))
    return Segmenter(engine, options=options, warm_up=False).predict(case, **given)


def assert_same(got: Segmentation, expected: Segmentation) -> None:
    """Labels, volumes and warnings are equal, other numbers nearly."""
    np.testing.assert_array_equal(on_host(got.labels), on_host(expected.labels))
    assert got.volumes_ml == expected.volumes_ml
    assert got.warnings == expected.warnings
    for part in ("input", "windows", "postprocessing"):
        other = {"reason": got.report[part].get("reason")} if part == "windows" else {}
        assert got.report[part] == {**expected.report[part], **other}, part
    _assert_near(got.report["preprocessing"], expected.report["preprocessing"])
    _assert_near(got.confidence, expected.confidence)
    np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=1e-5)


def _assert_near(got: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key in expected:
            _assert_near(got[key], expected[key])
    elif isinstance(expected, float):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-4)
    elif isinstance(expected, list):
        for one, other in zip(got, expected, strict=True):
            _assert_near(one, other)
    else:
        assert got == expected
