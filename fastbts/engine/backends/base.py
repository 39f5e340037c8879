"""The base of all engines: loads the network, checks arguments, lends per-call objects, closes.

A backend is a subclass with `backend`, `_open` and `_run`, and a row in the table of backends.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from threading import Lock, Semaphore
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastbts.device.arrays import DeviceArray, borrow
from fastbts.device.host_cpus import n_cpus, n_limited_cpus
from fastbts.engine.backends import BACKENDS, Backend
from fastbts.engine.backends.arguments import (
    Floats,
    images,
    packed_images,
    results,
    text_table,
)
from fastbts.engine.backends.pool import Pool
from fastbts.engine.file import EngineFile, named
from fastbts.engine.fork import check_fork, enter_process, is_forked
from fastbts.engine.onnx_bytes import drop_default, read_default
from fastbts.errors import (
    DeviceError,
    EngineFileError,
    FastBTSError,
    is_out_of_memory,
    memory_errors,
)
from fastbts.ops import PackedLogits, Packing
from fastbts.ops.arrays import is_on_device, stream_handle
from fastbts.progress import check_cancelled

T = TypeVar("T")


class Options(NamedTuple):
    """How to run a network, with `device` chosen; precision and threads may be "auto" and 0."""

    device: str
    precision: str
    n_threads: int
    parallel: int


class Opened(NamedTuple, Generic[T]):
    """A network that a backend has loaded."""

    new: Callable[[], T]
    """Makes what one call of `_run` needs, such as an inference request."""
    about: dict[str, Any]
    """For the report: at least "backend_version" and "precision"."""


class BaseEngine(ABC, Generic[T]):
    """An engine: see `Engine` for its methods. `infer` may be called from several threads at once.

    After a call that failed for whatever reason the network is loaded again by the next call, as
    the runtime's memory may be damaged.

    Args:
        file: The verified engine file.
        device: One of the backend's devices; "auto" for its default.
        precision: One of the backend's precisions; "auto" lets the backend choose.
        n_threads: CPU threads; 0 for all.
        parallel: Calls that run at once on the CPU, each on its share of the threads; as many as
            there are threads at most.
    Attributes:
        parallel: Likewise; 1 on other devices.
    Raises:
        DeviceError: The package or the device is missing, or the backend lacks the precision.
        OptionsError: The file was not built for the precision.
        EngineFileError: The network cannot be loaded.
    """

    backend: ClassVar[str]
    """Name of the backend's row."""
    runtime_errors: ClassVar[tuple[type[Exception], ...]] = (RuntimeError,)
    """What the runtime raises. It becomes EngineFileError on loading and DeviceError on running."""
    serial: ClassVar[bool] = False
    """Whether more calls than `parallel` would share memory inside the runtime, so that they must
    wait for their turn."""
    isolated: ClassVar[bool] = False
    """Whether a call that fails leaves the network and the other calls intact."""
    max_side: ClassVar[int | None] = None
    """Largest side of a tensor, in voxels."""
    batch: int = 1
    """Windows that one call takes best."""

    def __init__(
        self,
        file: EngineFile,
        *,
        device: str = "auto",
        precision: str = "auto",
        n_threads: int = 0,
        parallel: int = 1,
    ) -> None:
        self.device = self.row().checked_device(device)
        self.parallel = min(parallel, n_threads or n_cpus()) if self.device == "cpu" else 1
        threads = n_threads or (n_cpus() if self.parallel > 1 else n_limited_cpus())
        self._options = Options(self.device, precision, threads, self.parallel)
        if precision != "auto":
            self.row().check_precision(precision)
        self.file, self.spec, self.text = file, file.spec, baked_text(file)
        self._turn = Semaphore(self.parallel) if self.serial else nullcontext()
        self._loading, self._running, self._largest = Lock(), list[int](), 0
        self._pool, about = self._load(EngineFileError)
        self.description = _description(self.backend, file, self.device, about)

    @abstractmethod
    def _open(self, options: Options) -> Opened[T]:
        """Loads the network of `self.file`."""

    @abstractmethod
    def _run(self, call: T, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        """Runs the network: (B, M, D, H, W) and (K, T) in, (B, K, D, H, W) into `logits`.

        All arrays are checked, float32 and contiguous.
        """

    def _enqueue(
        self, call: T, tensor: DeviceArray, text: Floats | None, logits: DeviceArray, stream: int
    ) -> None:
        """The same for a tensor and logits on the engine's device: enqueues the work on a CUDA
        stream and returns. Only engines on a device need it."""
        raise NotImplementedError

    def _fits(self, call: T, stream: int | None) -> bool:
        """Whether a per-call object, which no call has now, suits a call on a stream of the device;
        None for a call with NumPy arrays."""
        return True

    def _free(self, call: T) -> None:
        """Frees a per-call object; needed only where dropping it is not enough."""

    @classmethod
    def build(
        cls, file: EngineFile, precision: str, tensors: Sequence[Floats], max_batch: int = 1
    ) -> dict[str, bytes]:
        """Payloads that a file needs besides its ONNX for this backend; none by default.

        Args:
            file: The network.
            precision: One of the backend's precisions.
            tensors: Prepared cases (M, D, H, W) to calibrate int8 on, in the shapes of later use.
            max_batch: Most windows that one call takes, where the build depends on it.
        Raises:
            DeviceError: The package is missing, or the build failed.
            OptionsError: There is nothing to calibrate on.
            EngineFileError: The network cannot be read.
        """
        return {}

    @classmethod
    def capabilities(cls) -> str:
        """What the backend offers on this machine, in one line for `fastbts doctor`.

        Raises:
            DeviceError: The package is missing.
        """
        row = cls.row()
        return (
            f"{cls.package().__version__} on {', '.join(row.devices)}: {', '.join(row.precisions)}"
        )

    @classmethod
    def row(cls) -> Backend:
        """The backend's row in the table."""
        return BACKENDS[cls.backend]

    @classmethod
    def package(cls) -> Any:
        """The runtime's Python package.

        Raises:
            DeviceError: It is not installed, or this process was forked from one that used it.
        """
        enter_process()
        row = cls.row()
        for name, value in row.environment:
            os.environ.setdefault(name, value)
        try:
            with memory_errors(f"{row.name} cannot be imported"):
                return import_module(row.package)
        except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
            raise DeviceError(
                f"{row.name} is not installed ({error}); install it with: {row.install}"
            ) from error

    @classmethod
    @contextmanager
    def reported(cls, kind: type[FastBTSError], message: str) -> Iterator[None]:
        """Turns errors of the runtime into ours."""
        try:
            yield
        except FastBTSError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise DeviceError(f"{message}: out of memory: {error}") from error
            if isinstance(error, cls.runtime_errors):
                raise kind(f"{message}: {error}") from error
            raise

    def infer(
        self,
        tensor: Any,
        text: Floats | None = None,
        *,
        out: Any = None,
        stream: Any = None,
    ) -> Any:
        """See `Engine.infer`."""
        check_fork()
        handle = stream_handle(stream)
        given, into = (borrow(a, handle) if is_on_device(a) else a for a in (tensor, out))
        given = images(self.spec, self.max_side, self.device, given)
        table = text_table(self.file, self.text, text)
        logits = results(into, given, (len(given), len(self.spec.regions), *given.shape[2:]))
        stream_of_call = handle if isinstance(given, DeviceArray) else None
        with self._call(given.shape, stream_of_call) as call:
            if isinstance(given, DeviceArray):
                self._enqueue(call, given, table, logits, handle)
            else:
                self._run(call, given, table, logits)
        return logits if out is None else out

    @property
    def packing(self) -> Packing | None:
        """See `PackedEngine.packing`."""
        return None

    def infer_packed(self, tensor: NDArray[Any]) -> PackedLogits:
        """See `PackedEngine.infer_packed`."""
        check_fork()
        packing = packed_images(self.spec, self.packing, tensor)
        size = packing.size(tensor.shape)
        logits = np.empty(packing.shape(len(self.spec.regions), size), packing.logits_dtype)
        with self._call((1, len(self.spec.modalities), *size), None) as call:
            self._run_packed(call, tensor, self.text, logits)
        return PackedLogits(logits, packing.patch)

    def _run_packed(
        self, call: T, tensor: NDArray[Any], text: Floats | None, logits: NDArray[Any]
    ) -> None:
        """`_run` for one case with packed ends, in the layout of `packing`."""
        raise NotImplementedError

    @contextmanager
    def _call(self, shape: tuple[int, ...], stream: int | None) -> Iterator[T]:
        """Lends what a call on images of this shape needs, when it is its turn."""
        failed = f"{self.file.path}: {self.backend} failed on a tensor of shape {shape}"
        fits = partial(self._fits, stream=stream)
        with self.reported(DeviceError, failed), self._turn:
            check_cancelled()  # before the network is loaded again
            with self._held(math.prod(shape[2:])), self._network().lend(fits) as call:
                yield call

    def close(self) -> None:
        """See `Engine.close`."""
        if is_forked():
            return  # the runtime would wait for threads that do not exist here
        with self._loading:
            self._pool.close()

    @property
    def n_voxels_held(self) -> int:
        """Voxels of a tensor for which the runtime still has the memory, in each of its streams."""
        return 0 if self._pool.failed else self._largest

    @contextmanager
    def _held(self, n_voxels: int) -> Iterator[None]:
        """Notes a call for `n_voxels_held`: only calls that run at once are surely in different
        streams."""
        self._running.append(n_voxels)
        held = min(self._running) if len(self._running) >= self.parallel else 0
        try:
            yield
        finally:
            self._running.remove(n_voxels)
        self._largest = max(self._largest, held)

    def _network(self) -> Pool[T]:
        """The network, loaded again if a call has failed."""
        with self._loading:
            if self._pool.failed and not self._pool.closed:
                self._pool, _ = self._load(DeviceError)
            return self._pool

    def _load(self, kind: type[FastBTSError]) -> tuple[Pool[T], dict[str, Any]]:
        with self.reported(kind, f"{self.file.path}: {self.backend} cannot load the network"):
            opened = self._open(self._options)
        self._largest = 0
        pool = Pool(self.file.path, opened.new, self._free, isolated=self.isolated)
        return pool, opened.about


def open_network(file: EngineFile) -> bytes:
    """The ONNX whose input "text" has no default: runtimes would treat it as a constant.

    Raises:
        EngineFileError: `model.onnx` is not an ONNX file.
    """
    with named(file):
        return drop_default(file.payloads["model.onnx"], "text")


def baked_text(file: EngineFile) -> Floats | None:
    """Default of the input "text", (K, T); None where the network reads no text.

    Raises:
        EngineFileError: `model.onnx` is not an ONNX file.
    """
    with named(file):
        return read_default(file.payloads["model.onnx"], "text")


def _description(
    backend: str, file: EngineFile, device: str, about: dict[str, Any]
) -> dict[str, Any]:
    return {
        "sha256": file.sha256,
        "license": file.manifest.get("license", "not stated"),
        "prompts": file.prompts,
        "backend": backend,
        "device": device,
        **about,
    }
