"""A session of ONNX Runtime on a CUDA device, in the order of the caller's stream.

**Nothing here has run on a GPU.** Tests run it over fakes of CUDA and of ONNX Runtime.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import finalize

import numpy as np

from fastbts.device.arrays import DeviceArray
from fastbts.device.runtime import Runtime, Stream, free_with
from fastbts.engine.backends.arguments import Floats
from fastbts.errors import DeviceError

# The default tries all algorithms of each convolution again for each new shape.
SETTINGS = {"cudnn_conv_algo_search": "HEURISTIC"}
NO_WAIT = ("disable_synchronize_execution_providers", "1")


class CudaSession:
    """A session with a stream of its own, for one call at a time: a session has only one stream.

    Args:
        new: Makes a session from the settings of the CUDA provider.
        index: Number of the device.
        tf32: Whether float32 may be computed with the 10 bits of mantissa of TF32.
    """

    def __init__(self, new: Callable[[dict[str, str]], Any], index: int, *, tf32: bool) -> None:
        self._cuda, self._index = Runtime(), index
        stream = Stream(self._cuda, index)
        where = {"device_id": str(index), "user_compute_stream": str(stream.handle)}
        self.session = new({**where, **SETTINGS, "use_tf32": "1" if tf32 else "0"})
        with self._cuda.on(index):
            flag = self._cuda.api.cudaEventDisableTiming
            self._event = self._cuda("cudaEventCreateWithFlags", flag)
        free_with(self, self._cuda, index, "cudaEventDestroy", self._event)
        self._stream = stream  # after the session, which must be gone before it
        finalize(self, _finish, os.getpid(), self.session, stream).atexit = False

    def bind(self, tensor: DeviceArray, text: Floats | None, logits: DeviceArray) -> Any:
        """The binding of a run whose tensor and logits are on the device."""
        binding = self.session.io_binding()
        where = ("cuda", self._index, np.float32)
        binding.bind_input("volume", *where, tensor.shape, tensor.address)
        if text is not None:
            binding.bind_cpu_input("text", text)
        binding.bind_output("logits", *where, logits.shape, logits.address)
        return binding

    def begin(self, stream: int) -> None:
        """Lets the session wait for the work on a stream so far."""
        self._order(stream, self._stream.handle)

    def end(self, stream: int) -> None:
        """Lets a stream wait for the work of the session so far."""
        self._order(self._stream.handle, stream)

    def _order(self, first: int, second: int) -> None:
        with self._cuda.on(self._index):
            self._cuda("cudaEventRecord", self._event, first)
            self._cuda("cudaStreamWaitEvent", second, self._event, 0)


def _finish(process: int, session: Any, stream: Stream) -> None:
    """Waits for the last work of a session, which is kept until then."""
    if os.getpid() == process:  # a forked process cannot use what its parent made
        with suppress(DeviceError):
            stream.wait()
