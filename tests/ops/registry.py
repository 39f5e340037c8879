"""Every op of `fastbts.ops`, as the tests of all ops take it.

The tests of instruction sets, kernels, registers, CUDA and DLPack, the devices that are not the
CPU and both benchmarks run over `OPS`. Adding an op adds one entry here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastbts import ops
from fastbts.ops import reference
from tests.ops import examples
from tests.ops.examples import Arguments

IMAGE_TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
"""Element types an image may have."""

NETWORK_TYPES = ("float32", "float16", "bfloat16")
"""Element types of network tensors; the CPU has the first only."""


@dataclass(frozen=True)
class Op:
    """An op and what tests need to know of it.

    Attributes:
        name: In `fastbts.ops`, and of its files in `csrc/ops`.
        example: Keyword arguments for a random generator, a size (D, H, W) and an element type.
        exact: The arrays of `results` in NumPy float64, from those arguments.
        results: Arguments that hold the results when the op returns, given or from `outputs`.
        outputs: Arguments that `ops` allocates on the CPU and a caller must give on a device.
        dtypes: Element types that `example` takes.
        floats: Arguments that may be of any of NETWORK_TYPES on a device.
        strided: Arguments that may have any strides.
        on_host: Arrays that are never on a device.
        same_bits: Whether a device gives the bits of the CPU.
        n_roundings: How often a result is rounded to the type of the network on its way.
        max_registers: Most registers a thread of its kernels may take. 64 let four blocks of 256
            threads share a multiprocessor (65 536 registers), enough to hide memory latency.
    """

    name: str
    example: Callable[[np.random.Generator, ops.Size, str], Arguments]
    exact: Callable[..., tuple[Any, ...]]
    results: tuple[str, ...]
    outputs: Callable[[Arguments], Arguments] = lambda _: {}
    dtypes: tuple[str, ...] = ("float32",)
    floats: tuple[str, ...] = ()
    strided: tuple[str, ...] = ()
    on_host: tuple[str, ...] = ()
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


def brain_box_exact(volume: Any) -> tuple[Any, ...]:
    bounds, n_brain, n_nonfinite, n_nonzero = reference.brain_box(volume)
    return (np.array([*sum(bounds, ()), n_brain, *n_nonfinite, *n_nonzero]),)


def components_exact(labels: Any, box: ops.Box, min_voxels: int) -> tuple[Any, ...]:
    after, n_before, n_after = reference.components(labels, box, min_voxels)
    n_removed = np.bincount(labels[labels != after], minlength=256)
    return after, np.array([n_before, n_after, *n_removed])


def normalize_outputs(given: Arguments) -> Arguments:
    n = len(given["volume"])
    scratch = np.empty(ops.normalize_scratch(n, given["box"]), np.uint8)
    return {"out": tensor(n, *given["size"]), "stats": np.empty((n, 4)), "scratch": scratch}


def components_outputs(given: Arguments) -> Arguments:
    n = math.prod(stop - start for start, stop in given["box"])
    return {"counts": np.empty(258, np.int64), "scratch": np.empty((2, n), np.int32)}


def resample_affine_outputs(given: Arguments) -> Arguments:
    is_labels = given.get("nearest", False) and given["tensor"].dtype == np.uint8
    shape = (len(given["tensor"]), *given["size"])
    return {"out": np.empty(shape, np.uint8) if is_labels else tensor(*shape)}


def bridge_outputs(given: Arguments) -> Arguments:
    n_scratch = ops.semantic_bridge_scratch(given["reduced"].shape, given["x"].shape[1])
    return {"out": tensor(*given["x"].shape), "scratch": tensor(n_scratch)}


def tensor(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.full(shape, 77, np.float32)


ALL = (
    Op(
        "brain_box",
        examples.brain_box,
        brain_box_exact,
        results=("found",),
        outputs=lambda given: {"found": np.empty(7 + 2 * len(given["volume"]), np.int64)},
        dtypes=IMAGE_TYPES,
        strided=("volume",),
        same_bits=True,
    ),
    Op(
        "normalize",
        examples.normalize,
        reference.normalize,
        results=("out", "stats"),
        outputs=normalize_outputs,
        floats=("out",),
        dtypes=IMAGE_TYPES,
        strided=("volume",),
    ),
    Op(
        "window",
        examples.window,
        lambda **given: (reference.window(**given),),
        results=("out",),
        outputs=lambda given: {
            "out": tensor(len(given["origins"]), len(given["tensor"]), *given["size"])
        },
        floats=("tensor", "out"),
        same_bits=True,
    ),
    Op(
        "blend",
        examples.blend,
        lambda **given: (reference.blend(**given),),
        results=("total",),
        floats=("logits",),
        same_bits=True,
    ),
    Op(
        "label",
        examples.label,
        reference.label,
        results=("labels", "counts"),
        outputs=lambda _: {"counts": np.empty(3, np.int64)},
        floats=("logits",),
        strided=("labels",),
        same_bits=True,
    ),
    Op(
        "resample",
        examples.resample,
        lambda **given: (reference.resample(**given),),
        results=("out",),
        outputs=lambda given: {"out": tensor(len(given["tensor"]), *given["size"])},
        floats=("tensor", "out"),
    ),
    Op(
        "resample_affine",
        examples.resample_affine,
        lambda **given: (reference.resample_affine(**given),),
        results=("out",),
        outputs=resample_affine_outputs,
        dtypes=IMAGE_TYPES,
        strided=("tensor",),
        on_host=("matrix",),
        same_bits=True,
        max_registers=72,  # positions are float64, elements of any type; 3 blocks of 256 threads
    ),
    Op(
        "components",
        examples.components,
        components_exact,
        results=("labels", "counts"),
        outputs=components_outputs,
        strided=("labels",),
        same_bits=True,
    ),
    Op(
        "semantic_bridge",
        examples.semantic_bridge,
        lambda **given: (reference.semantic_bridge(**given),),
        results=("out",),
        outputs=bridge_outputs,
        floats=("x", "reduced", "out"),
        n_roundings=3,
    ),
    Op(
        "semantic_attention",
        examples.semantic_attention,
        lambda **given: (reference.semantic_attention(**given),),
        results=("out",),
        outputs=lambda given: {"out": tensor(*given["skip"].shape)},
        floats=("skip", "encoded", "decoded", "similarity", "out"),
        # A voxel's 16 hidden channels and 8 logits stay in registers, so that features are read
        # once; 5 blocks of 128 threads fit.
        max_registers=96,
    ),
)

OPS = {op.name: op for op in ALL}
