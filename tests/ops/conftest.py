from __future__ import annotations

import pytest

from tests.ops.devices import Device, Ops, available_devices, on


@pytest.fixture(params=[*available_devices(), "emulated-cuda"])
def device(request: pytest.FixtureRequest) -> Ops:
    """The ops on each device: a test that takes it runs on all.

    "emulated-cuda" is the SIMT emulation, with arrays of the fake CuPy in place of CuPy's.
    """
    if request.param != "emulated-cuda":
        return on(request.param)
    request.getfixturevalue("cuda")
    return on("cuda")


@pytest.fixture(params=[*available_devices()[1:], "emulated"])
def gpu(request: pytest.FixtureRequest) -> Device:
    """The CUDA device, if there is one, and the emulated one."""
    chosen: Device = on(request.param)
    return chosen


@pytest.fixture(params=[*available_devices()[1:], "emulated-cuda"])
def first_cuda_device(request: pytest.FixtureRequest) -> str:
    """A CUDA device for arrays of `devices.cupy`: the first real one, and the emulated one."""
    if request.param == "emulated-cuda":
        request.getfixturevalue("cuda")
    name: str = request.param
    return name
