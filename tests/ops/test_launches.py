"""How often the ops around the network launch a kernel or set memory, on an emulated device."""

from __future__ import annotations

import pytest

from tests.fakes import EmulatedCuda
from tests.ops.devices import CudaDevice
from tests.ops.registry import OPS

LAUNCHES = {
    ("brain_box", "i2"): 2,
    ("normalize", "u1"): 3,
    ("normalize", "i2"): 3,
    ("normalize", "f4"): 6,
    ("normalize", "f8"): 9,
    ("resample_affine", "i2"): 1,
    ("resample", "float32"): 1,
    ("window", "float32"): 1,
    ("blend", "float32"): 1,
    ("label", "float32"): 2,
    ("components", "float32"): 5,
    ("stray_core", "float32"): 10,
    ("expected_dice", "float32"): 2,
}
"""Of one call, by op and element type of the image; set memory included."""

PREDICTION = ("brain_box", "normalize", "resample_affine", "label", "expected_dice")
"""Ops of a prediction in one window; `resample_affine` reads a sample of the background."""


def n_launches(cuda: EmulatedCuda, name: str, dtype: str) -> int:
    """Launches of one call."""
    op, before = OPS[name], len(cuda.launches) + cuda.calls["cudaMemsetAsync"]
    given = op.arguments(0, (2, 3, 5), dtype)
    getattr(CudaDevice(), name)(**given)
    return len(cuda.launches) + cuda.calls["cudaMemsetAsync"] - before


@pytest.mark.parametrize(("name", "dtype"), LAUNCHES)
def test_launches_of_a_call(cuda: EmulatedCuda, name: str, dtype: str) -> None:
    assert n_launches(cuda, name, dtype) == LAUNCHES[name, dtype]


@pytest.mark.parametrize(("dtype", "n"), [("i2", 10), ("f4", 13)])
def test_launches_around_the_network(cuda: EmulatedCuda, dtype: str, n: int) -> None:
    """At most 15 of a prediction."""
    types = [dtype if dtype in OPS[name].dtypes else "float32" for name in PREDICTION]
    assert sum(map(n_launches, [cuda] * 5, PREDICTION, types)) == n
