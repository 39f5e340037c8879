"""`fastbts doctor`: what this machine and installation can run, and how to get the rest."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from fastbts.about import __version__
from fastbts.cli.checks import Check, print_checks
from fastbts.cli.common import AsJson, app
from fastbts.engine.backends import BACKENDS, Backend
from fastbts.errors import DeviceError, FastBTSError

if TYPE_CHECKING:
    from fastbts.device.runtime import Runtime


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Shows which backends and devices work here. Says how to get the others."""
    print_checks(survey(), as_json)


def survey() -> Iterator[Check]:
    """Checks software, the shipped engine, and every backend; a missing one raises nothing."""
    system = f"{__version__}, Python {platform.python_version()}, {platform.system()}"
    yield Check("fastbts", True, system)
    yield Check("processor", True, f"{platform.machine()}, {os.cpu_count()} threads")
    yield _check("shipped engine", _shipped_engine)
    yield _check("its precision", _shipped_precision)
    for row in BACKENDS.values():
        yield _check(row.name, partial(_capabilities, row))
    yield _check("compiled networks", _model_cache)
    yield _check("cuda devices", _cuda)
    yield _check("int8 (nncf)", partial(_extra, "nncf", "quantize"))
    yield _check("signatures", partial(_extra, "cryptography", "sign"))


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except FastBTSError as error:
        return Check(name, False, str(error))


def _shipped_engine() -> str:
    from fastbts.engine.file import read_engine_file
    from fastbts.engine.load import default_engine_path

    file = read_engine_file(default_engine_path())
    return f"{file.spec.name}, sha256 {file.sha256[:16]}..."


def _shipped_precision() -> str:
    from fastbts.engine.backends.openvino import OpenVINOEngine
    from fastbts.engine.load import read_engine

    return ": ".join(OpenVINOEngine.chosen(read_engine(None)))


def _capabilities(row: Backend) -> str:
    return row.engine_class().capabilities()


def _model_cache() -> str:
    from fastbts.engine import model_cache

    return model_cache.describe()


def _cuda() -> str:
    from fastbts.device.runtime import Runtime

    runtime = Runtime()
    return ", ".join(f"cuda:{i} {_capability(runtime, i)}" for i in range(runtime.n_devices))


def _capability(runtime: Runtime, index: int) -> str:
    with runtime.on(index):
        return f"compute capability {runtime.compute_capability()}"


def _extra(name: str, extra: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        raise DeviceError(
            f"{name} is not installed; install it with: pip install 'fastbts[{extra}]'"
        ) from None
