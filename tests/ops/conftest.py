from __future__ import annotations

import pytest

from tests.ops.devices import Device, Ops, available_devices, on


@pytest.fixture(params=available_devices())
def device(request: pytest.FixtureRequest) -> Ops:
    """The ops on each device: a test that takes it runs on all."""
    return on(request.param)


@pytest.fixture(params=[*available_devices(), "emulated"])
def every_device(request: pytest.FixtureRequest) -> Ops:
    """Also on the emulated CUDA device, which is slow: for small arrays."""
    return on(request.param)


@pytest.fixture(params=[*available_devices()[1:], "emulated"])
def gpu(request: pytest.FixtureRequest) -> Device:
    """The CUDA device, if there is one, and the emulated one."""
    chosen: Device = on(request.param)
    return chosen
