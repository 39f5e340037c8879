"""The CUDA kernels under the SIMT emulation, as functions of NumPy arrays.

The library is built with the C++ compiler at first use, into `build/simt`, once per state of the sources.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
    "-std=c++17",
    "-O1",
    "-g",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
)
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
LAUNCH = re.compile(r"(\w+(?:<[^;]*?>)?)<<<(.*?)>>>\((.*?)\);", re.DOTALL)
"""Kernel, configuration and arguments of a launch."""
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
IMAGE_DTYPES = {
    name: i for i, name in enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"))
}
"""Numbers of the types in `DType` of core/dtype.h."""


class EmulationError(Exception):
    """What the emulation says of a launch or a kernel."""


def build(
    *options: str,
    name: str = "kernels",
    sources: tuple[Path, ...] = (),
    launchers: tuple[Path, ...] = (),
) -> Path:
    """Compiles `NAME.cpp` of this folder, more sources, and launchers (`*_cuda.cu`); returns the library."""
    sources = (ROOT / f"tests/simt/{name}.cpp", *sources)
    folders = (ROOT / "tests/simt").iterdir(), (ROOT / "csrc").rglob("*")
    headers = [p for folder in folders for p in sorted(folder) if p.suffix in (".h", ".cuh")]
    parts = b"".join(p.read_bytes() for p in (*headers, *sources, *launchers))
    state = hashlib.sha256(parts + " ".join(FLAGS + options).encode()).hexdigest()
    library = ROOT / "build/simt" / f"{name}-{state[:16]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}")
        includes = ("-DFASTBTS_SIMT", f"-I{ROOT / 'tests/simt'}", f"-I{ROOT / 'csrc'}")
        with TemporaryDirectory() as folder:
            files = (*sources, *(_emulated(p, Path(folder)) for p in launchers))
            subprocess.run(
                [
                    os.environ.get("CXX", "c++"),
                    *FLAGS,
                    *includes,
                    *options,
                    *files,
                    "-o",
                    unfinished,
                ],
                check=True,
            )
        unfinished.replace(library)
    return library


def _emulated(launcher: Path, folder: Path) -> Path:
    """The launcher as C++: its launches are calls of the emulation."""
    code, n = LAUNCH.subn(r"simt::enqueue(\2, [&] { \1(\3); });", launcher.read_text())
    assert n == launcher.read_text().count("<<<") > 0
    path = folder / f"{launcher.stem}.cpp"
    path.write_text(code)
    return path


@cache
def load(*options: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(build(*options)))


def call(name: str, *arguments: Any, options: tuple[str, ...] | None = None) -> None:
    """Calls a function of the library; arrays become pointers, lists of sizes int32 arrays."""
    if options is None:
        options = SANITIZE if os.environ.get("FASTBTS_SIMT_SANITIZE") else ()
    function = getattr(load(*options), f"simt_{name}")
    function.restype = ctypes.c_char_p
    kept = [np.array(a, np.int32) if isinstance(a, list) else a for a in arguments]
    message = function(
        *(ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in kept)
    )
    if message is not None:
        raise EmulationError(message.decode())


def stored(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """The bits of an array in a type of the network."""
    if dtype != "bfloat16":
        return array.astype(dtype)
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def loaded(array: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """The inverse of `stored`."""
    return (
        array.astype(np.float32)
        if dtype != "bfloat16"
        else (array.astype(np.uint32) << 16).view(np.float32)
    )


def layout(array: NDArray[Any]) -> NDArray[np.int64]:
    """Shape, then steps in elements."""
    return np.array([array.shape, [step // array.itemsize for step in array.strides]], np.int64)
