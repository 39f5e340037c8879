"""What tests need to know of an op: see `registry`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts import ops

NETWORK_TYPES = ("float32", "float16", "bfloat16")
"""Element types of network tensors; the CPU has the first only."""

Arguments = dict[str, Any]
"""Keyword arguments of an op."""

Random = np.random.Generator


@dataclass(frozen=True)
class Op:
    """An op and what tests need to know of it.

    Attributes:
        name: In `fastbts.ops`, and of its files in `csrc/ops`.
        example: Keyword arguments for a random generator, a size (D, H, W), an element type.
        exact: The arrays of `results` in NumPy float64, from those arguments.
        results: Arguments that hold the results when the op returns, given or from `outputs`.
        outputs: Arguments that `ops` allocates on the CPU and a caller must give on a device.
        dtypes: Element types that `example` takes.
        floats: Arguments that may be of any of NETWORK_TYPES on a device.
        strided: Arguments that may have any strides.
        on_host: Arrays that are never on a device.
        on_cuda: Whether there is a CUDA version.
        same_bits: Whether a device gives the bits of the CPU.
        n_roundings: How often a result is rounded to the type of the network on its way.
        max_registers: Most registers a thread of its kernels may take. 64 let four blocks of 256
            threads share a multiprocessor (65 536 registers), enough to hide memory latency.
    """

    name: str
    example: Callable[..., Arguments]
    exact: Callable[..., tuple[Any, ...]]
    results: tuple[str, ...]
    outputs: Callable[[Arguments], Arguments] = lambda _: {}
    dtypes: tuple[str, ...] = ("float32",)
    floats: tuple[str, ...] = ()
    strided: tuple[str, ...] = ()
    on_host: tuple[str, ...] = ()
    on_cuda: bool = True
    same_bits: bool = False
    n_roundings: int = 1
    max_registers: int = 64

    def __str__(self) -> str:
        return self.name

    @property
    def function(self) -> Callable[..., Any]:
        """The op itself."""
        found: Callable[..., Any] = getattr(ops, self.name)
        return found

    def arguments(self, seed: int, size: ops.Size, dtype: str | None = None) -> Arguments:
        """An example with arrays for all that is written."""
        given = self.example(np.random.default_rng(seed), size, dtype or self.dtypes[0])
        return given | self.outputs(given)

    def written(self, arguments: Arguments) -> list[Any]:
        """The arrays of `results`."""
        return [arguments[name] for name in self.results]


def noise(rng: Random, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32)


def tensor(*shape: int) -> NDArray[np.float32]:
    """An array for a result, full of a mark."""
    return np.full(shape, 77, np.float32)
