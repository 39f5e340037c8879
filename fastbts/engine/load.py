"""Loads an engine file with the backend that runs it, and builds for a backend."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastbts.device.host_memory import check_limits
from fastbts.engine.auto_precision import int8_parity
from fastbts.engine.backends import BACKENDS, Backend, device_kind, devices, precisions
from fastbts.engine.file import EngineFile, named, read_engine_file
from fastbts.engine.graph import check_graph
from fastbts.engine.interface import Engine
from fastbts.errors import DeviceError, EngineFileError, OptionsError, memory_errors
from fastbts.options import check_threads

NUMBERED = re.compile(r"cuda:(0|[1-9][0-9]{0,5})")
"""A CUDA device by its number."""

LOAD_BYTES = 500_000_000
"""Address space that OpenVINO takes with the network, from 0.45 GB measured."""

TUMOUR_ENGINE, BRAIN_ENGINE = "fastbts-light.fbts", "fastbts-brain.fbts"
"""Names of the shipped engines."""


def default_engine_path(name: str = TUMOUR_ENGINE) -> Path:
    """A shipped engine, inside the installed package or, in a checkout, in `models/`."""
    installed = Path(__file__).parents[1] / "models" / name
    return installed if installed.is_file() else Path(__file__).parents[2] / "models" / name


def load_engine(
    path: str | Path | None = None,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    n_threads: int = 0,
    parallel: int = 1,
    trusted_key: str | Path | None = None,
) -> Engine:
    """Loads an engine file.

    Args:
        path: A `.fbts` file; None for the shipped engine.
        backend: One of `fastbts.engine.backends.BACKENDS`. "auto" takes what the file was built
            for if that runs on the device, else the first backend that runs on the device.
        device: "cpu"; "cuda:1" for the second CUDA device, "cuda" for the first; or "auto" for the
            backend's default.
        precision: "fp32", "tf32", "bf16", "fp16" or "int8", if the backend has it. "fp32" is exact;
            "bf16" is about twice as fast on CPUs that compute in it; "int8" needs a file that
            `fastbts build` made for it. "auto" takes what the file was built for; where that is
            int8 with parity by group, only if the CPU is fast in it and parity allows it
            (`fastbts.engine.auto_precision`). Else it takes bf16 on CPUs that compute in it, and
            fp32 on others. A TensorRT plan has the precision that it was built in.
        n_threads: CPU threads for the network; 0 for all.
        parallel: Calls of `infer` that run at once on a CPU, each on its share of the threads and
            with its own memory.
        trusted_key: Public key (PEM, `fastbts keygen`) that must have signed the file; None to
            accept unsigned files.

    Raises:
        EngineFileError: The file is damaged, not an engine, or not signed by that key.
        DeviceError: The backend, device or precision cannot be used here.
        OptionsError: An unknown backend, device or precision, or an impossible `n_threads` or
            `parallel`.
    """
    check_choice(backend, device, precision)
    check_threads(n_threads, parallel)
    choice = {"backend": backend, "device": device, "precision": precision}
    file = read_engine(path, trusted_key)
    return open_engine(file, **choice, n_threads=n_threads, parallel=parallel)


def read_engine(path: str | Path | None, trusted_key: str | Path | None = None) -> EngineFile:
    """Reads an engine file and checks its signature; see `load_engine`."""
    if path is None and trusted_key is None and (ahead := _ahead[:]):
        return ahead[0].file.result()
    path = default_engine_path() if path is None else path
    with memory_errors(f"{path}: cannot be read"):
        file = read_engine_file(path)
    if trusted_key is not None:
        from fastbts.engine.signing import check_signature

        check_signature(file, trusted_key)
    return file


def open_engine(
    file: EngineFile,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    n_threads: int = 0,
    parallel: int = 1,
) -> Engine:
    """Loads an engine from a file that was read before; see `load_engine`."""
    check_choice(backend, device, precision)
    check_threads(n_threads, parallel)
    choice = (backend, device, precision, n_threads, parallel)
    ahead = _taken(file, choice)
    return _opened(file, *choice) if ahead is None else ahead.result()


def _opened(
    file: EngineFile, backend: str, device: str, precision: str, n_threads: int, parallel: int
) -> Engine:
    built_for, built_in = _built(file)
    row = BACKENDS[backend] if backend != "auto" else _choice(device, built_for)
    if precision == "auto" and row.name == built_for and int8_parity(file) is None:
        precision = built_in
    check_network(file)
    with memory_errors(file.path):
        check_limits(LOAD_BYTES, "loading it")
    choice = {"device": device, "precision": precision}
    return row.engine_class()(file, **choice, n_threads=n_threads, parallel=parallel)


Choice = tuple[str, str, str, int, int]
"""Backend, device, precision, threads and calls at once of `open_engine`."""


class _Ahead(NamedTuple):
    """The shipped engine, which a thread loads."""

    choice: Choice
    file: Future[EngineFile]
    engine: Future[Engine]


_ahead: list[_Ahead] = []
"""At most one."""


def load_ahead(n_threads: int = 0, parallel: int = 1) -> None:
    """Begins to load the shipped engine in a thread.

    The next `open_engine` returns it, or raises why it cannot be loaded, if it is of that file with
    these and otherwise default arguments; else the engine is dropped. For a process that has
    something else to do first.
    """
    choice = ("auto", "auto", "auto", n_threads, parallel)
    pool = ThreadPoolExecutor(1, "fastbts-ahead")
    file = pool.submit(read_engine, default_engine_path())
    # Here, as imports in a thread would take turns with those that follow here. Compiling does not.
    with suppress(DeviceError):  # not installed; the file may be for another backend
        _choice("auto", "auto").engine_class().package()
    engine = pool.submit(lambda: _opened(file.result(), *choice))
    pool.shutdown(wait=False)
    _ahead[:] = [_Ahead(choice, file, engine)]


def _taken(file: EngineFile, choice: Choice) -> Future[Engine] | None:
    """The engine that is loaded ahead, if it is the one wanted; only one caller gets it."""
    try:
        ahead = _ahead.pop()
    except IndexError:
        return None
    if choice == ahead.choice and ahead.file.result() is file:
        return ahead.engine
    ahead.engine.cancel()
    return None


def chosen_device(file: EngineFile, backend: str, device: str) -> str:
    """The device that `open_engine` would load a file on; does not load it."""
    built_for, _ = _built(file)
    row = BACKENDS[backend] if backend != "auto" else _choice(device, built_for)
    return row.checked_device(device)


def check_choice(backend: str = "auto", device: str = "auto", precision: str = "auto") -> None:
    """Raises OptionsError for an unknown backend, device or precision."""
    _check_known("backend", backend, ("auto", *BACKENDS))
    if device not in (known := ("auto", *devices())) and not NUMBERED.fullmatch(str(device)):
        raise OptionsError(f"device {device!r}: expected one of {', '.join(known)}, cuda:N")
    _check_known("precision", precision, ("auto", *precisions()))


def build_payloads(
    file: EngineFile,
    backend: str,
    precision: str,
    tensors: Sequence[NDArray[np.float32]],
    max_batch: int = 1,
) -> dict[str, bytes]:
    """Payloads that a file needs besides its ONNX for a backend and a precision.

    Args:
        file: The source, after `check_network`.
        backend: One of `BACKENDS`.
        precision: A precision that the backend has.
        tensors: Prepared cases (M, D, H, W) to calibrate int8 on.
        max_batch: Most windows that one call of a TensorRT plan takes.

    Raises:
        OptionsError: An unknown backend, an impossible batch, or nothing to calibrate on.
        DeviceError: The backend lacks the precision or cannot be used here.
        EngineFileError: The backend cannot read the network.
    """
    _check_known("backend", backend, tuple(BACKENDS))
    row = BACKENDS[backend]
    row.check_precision(precision)
    row.check_batch(max_batch)
    return row.engine_class().build(file, precision, tensors, max_batch)


def check_network(file: EngineFile) -> None:
    """Checks the network of a file before a runtime sees it; see `check_graph`.

    Raises:
        EngineFileError: It is no network that fastbts runs.
    """
    with named(file):
        check_graph(file.payloads["model.onnx"], file.spec)


def _built(file: EngineFile) -> tuple[str, str]:
    """Backend and precision that the file was built for; "auto" if it was not built for any."""
    build = file.manifest.get("build", {})
    backend, precision = build.get("backend", "auto"), build.get("precision", "auto")
    if backend not in ("auto", *BACKENDS) or precision not in ("auto", *precisions()):
        raise EngineFileError(
            f"{file.path}: built for backend {backend!r} in {precision!r}, which this fastbts does "
            "not know; update fastbts or rebuild the file"
        )
    return backend, precision


def _choice(device: str, built_for: str) -> Backend:
    """The backend that "auto" stands for."""
    built = [BACKENDS[built_for]] if built_for != "auto" else []
    rows = [*built, *BACKENDS.values()]
    return next(row for row in rows if device_kind(device) in ("auto", *row.devices))


def _check_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OptionsError(f"{what} {value!r}: expected one of {', '.join(known)}")
