"""What the ops demand of arrays on a device, real or emulated, and report about it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fastbts import DeviceError, InputError
from tests.ops.devices import Device
from tests.ops.op import Op
from tests.ops.registry import CUDA_OPS, OPS
from tests.ops.views import noise_image

SIZE = (2, 4, 6)
DENSE = [
    op for op in CUDA_OPS if op.name.startswith(("resample", "semantic")) and "out" in op.floats
]


def run_with(gpu: Device, op: Op, **changed: Any) -> Any:
    """The op on an example, with some arrays of the host or the device instead."""
    return gpu.run(op.function, gpu.moved(op, op.arguments(0, SIZE)) | changed)


@pytest.mark.parametrize("op", CUDA_OPS, ids=str)
def test_arrays_of_one_call_are_on_one_device(gpu: Device, op: Op) -> None:
    name = op.results[-1]
    message = re.escape(f"{op.name}: ") + r".*: expected an array on cuda:0 as the first one, got"
    with pytest.raises(InputError, match=message + " one on the CPU"):
        run_with(gpu, op, **{name: op.arguments(0, SIZE)[name]})


@pytest.mark.parametrize("op", DENSE, ids=str)
def test_network_tensors_are_contiguous(gpu: Device, op: Op) -> None:
    for name in op.floats:
        array = op.arguments(0, SIZE)[name]
        gapped = np.repeat(array, 2, axis=2)[:, :, ::2]
        message = f"{op.name}: {name}: expected a contiguous .*array on"
        with pytest.raises(InputError, match=message):
            run_with(gpu, op, **{name: gpu.put(gapped)})


@pytest.mark.parametrize("op", DENSE, ids=str)
def test_network_tensors_have_one_type(gpu: Device, op: Op) -> None:
    first, *others = op.floats
    for name in others:
        half = op.arguments(0, SIZE)[name].astype(np.float16)
        message = f"{op.name}: {name}: expected the element type of {first}"
        with pytest.raises(InputError, match=message):
            run_with(gpu, op, **{name: gpu.put(half)})


def test_normalize_refuses_scratch_that_is_too_small(gpu: Device) -> None:
    with pytest.raises(InputError, match=r"normalize: scratch: expected at least \d+ bytes"):
        run_with(gpu, OPS["normalize"], scratch=gpu.put(np.empty(8, np.uint8)))


def test_components_refuses_scratch_that_is_too_small(gpu: Device) -> None:
    """The box has 2 x 3 x 5 voxels."""
    for scratch in (None, gpu.put(np.empty((2, 29), np.int32))):
        with pytest.raises(InputError, match=r"components: scratch: expected shape \(2, 30\) or"):
            run_with(gpu, OPS["components"], scratch=scratch)


def test_stray_core_refuses_scratch_that_is_too_small(gpu: Device) -> None:
    """The box has 2 x 3 x 5 voxels."""
    for scratch in (None, gpu.put(np.empty((4, 29), np.int32))):
        with pytest.raises(InputError, match=r"stray_core: scratch: expected shape \(4, 30\) or"):
            run_with(gpu, OPS["stray_core"], scratch=scratch)


def test_bridge_refuses_scratch_that_is_too_small(gpu: Device) -> None:
    with pytest.raises(InputError, match=r"semantic_bridge: scratch: expected at least \d+"):
        run_with(gpu, OPS["semantic_bridge"], scratch=gpu.put(np.empty(8, np.float32)))


def test_a_launch_that_fails_is_reported_once(gpu: Device) -> None:
    """Each modality takes 8 bytes of a block's shared memory: these need more than there is."""
    volume = np.ones((40_000, 1, 1, 1), np.uint8)
    with pytest.raises(DeviceError, match=r"brain_box_kernel: cudaErrorInvalid"):
        gpu.brain_box(volume)
    assert gpu.brain_box(volume[:1]).n_brain == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_brain_shows_in_the_statistics(gpu: Device, bad: float) -> None:
    volume = noise_image((4, 5, 6), "f4")
    volume[1, 2, 2, 3] = bad
    _, stats = gpu.normalize(volume, ((0, 4), (0, 5), (0, 6)), (4, 5, 6))
    assert np.isfinite(stats[0]).all()
    assert np.isnan(stats[1, 2:]).all()
