"""Fakes of a GPU's libraries, and the emulated CUDA device that they use.

`emulated_cuda` puts `fastbts._C` as tests/simt builds it in place of the real one: all ops, for
NumPy arrays too, with an emulated CUDA runtime whose devices have host memory. Nothing here shows
how fast a GPU is, nor what only a GPU's hardware does.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from unittest.mock import patch

from tests.simt.emulated import library, module, module_in_place

OUT_OF_MEMORY, LAUNCH_FAILURE = 2, 719
"""Errors of the CUDA runtime, for `EmulatedCuda.fail`."""

FAKES = {"cupy": "tests.fakes.cupy", "cuda.bindings.runtime": "tests.fakes.cuda_runtime"}
"""Modules that `emulated_cuda` replaces."""


class EmulatedCuda:
    """The emulated CUDA runtime (tests/simt/runtime.cpp), from its reset on."""

    def __init__(self, n_devices: int = 1) -> None:
        self.library = ctypes.CDLL(str(library()))
        self.library.simt_take_log.restype = ctypes.c_char_p
        self.module: ModuleType = module()
        self.reset(n_devices)

    def reset(self, n_devices: int = 1) -> None:
        """Begins anew: an empty log, no failures to come, so many devices."""
        self.library.simt_plan(0, 1, ctypes.c_size_t(0), None)
        self.library.simt_reset(n_devices)

    def log(self) -> list[str]:
        """What was asked of the runtime since the last call, in order.

        "launch KERNEL", "copy host to device BYTES", "set BYTES", "graph", "wait".
        """
        return self.library.simt_take_log().decode().splitlines()

    def fail(self, name: str, n_before: int = 0, error: int = OUT_OF_MEMORY) -> None:
        """Lets a function of the runtime, or the launch of a kernel, fail once.

        Args:
            name: Of the function or the kernel.
            n_before: Calls that succeed first.
            error: The status that it returns.
        """
        self.library.simt_fail(name.encode(), n_before, error)


@contextmanager
def emulated_cuda(n_devices: int = 1) -> Iterator[EmulatedCuda]:
    """Within it `fastbts`, cuda.bindings and cupy use emulated CUDA devices."""
    fakes = {name: import_module(fake) for name, fake in FAKES.items() if find_spec(fake)}
    with module_in_place(), patch.dict(sys.modules, fakes):
        device = EmulatedCuda(n_devices)
        yield device
        device.reset()
