"""Compiles C++ and CUDA launchers for the SIMT emulation, once per state of the sources.

Objects and libraries are kept in `build/emulated`. One process compiles at a time, on all CPUs;
others, such as pytest-xdist's workers, wait for it and use its output.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build/emulated"
WARNINGS = ("-Wall", "-Wextra", "-Wno-unknown-pragmas")
FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off")
INCLUDES = ("-DFASTBTS_SIMT", f"-I{ROOT / 'tests/simt'}", f"-I{ROOT / 'csrc'}")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
LAUNCH = re.compile(r"(\w+(?:<[^;]*?>)?)\s*<<<(.*?)>>>\((.*?)\);", re.DOTALL)
"""Kernel, configuration and arguments of a launch."""


def sanitizers() -> tuple[str, ...]:
    """Options of code that the sanitizers check, in the runs of `run_sanitized`."""
    return SANITIZE if os.environ.get("FASTBTS_SIMT_SANITIZE") else ()


def shared_library(name: str, sources: Sequence[Path], options: Sequence[str] = ()) -> Path:
    """A library of these sources; all but the host code of the ops is optimised and sanitized."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _locked(FOLDER / "lock"), ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(partial(_compiled, options=tuple(options)), sources))
        library = FOLDER / f"{name}-{_digest(*map(str, objects), *sanitizers())}.so"
        if not library.exists():
            _run(["-shared", *sanitizers(), *map(str, objects)], library)
    return library


def written_source(name: str, code: str) -> Path:
    """A generated source file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / name
    if not path.exists() or path.read_text() != code:
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(code)
        unfinished.replace(path)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that other processes wait for; it ends with the process, too."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compiled(source: Path, options: tuple[str, ...]) -> Path:
    text = source.read_text()
    emulated = source.suffix == ".cu" or source.parent.name in ("simt", "tensorrt")
    own = ("-O1", "-g1", *WARNINGS, *sanitizers()) if emulated else ("-O0",)
    flags = [*FLAGS, *INCLUDES, *options, *own]
    target = FOLDER / f"{source.stem}-{_digest(text, *flags, _headers())}.o"
    if not target.exists():
        code = target.with_suffix(".cpp")
        code.write_text(f'#line 1 "{source}"\n{emulated_launches(text)}')
        _run([*flags, f"-I{source.parent}", "-c", str(code)], target)
        code.unlink()
    return target


def emulated_launches(code: str) -> str:
    """A launcher as C++: its launches are calls of the emulation."""
    emulated, n = LAUNCH.subn(r"simt::enqueue(\2, [&] { \1(\3); });", code)
    assert n == code.count("<<<"), "a launch in a form that LAUNCH does not know"
    return emulated


def _run(arguments: Sequence[str], target: Path) -> None:
    """Runs the C++ compiler; the target appears when it is complete."""
    unfinished = target.with_suffix(".part")
    compiler = os.environ.get("CXX", "c++")
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}  # of sanitizers
    command = [compiler, *arguments, "-o", str(unfinished)]
    subprocess.run(command, check=True, env=environment)
    unfinished.replace(target)


@cache
def _headers() -> str:
    folders = (ROOT / "tests/simt", ROOT / "csrc")
    paths = (path for folder in folders for path in sorted(folder.rglob("*")))
    return _digest(*(p.read_text() for p in paths if p.suffix in (".h", ".cuh")))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
