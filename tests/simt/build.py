"""Compiles C++ and CUDA launchers for the SIMT emulation, once per state of the sources.

Objects and libraries are kept in `build/emulated`. One process compiles at a time, on all CPUs;
others, such as pytest-xdist's workers, wait for it and use its output.

python tests/simt/build.py LAUNCHERS.cu OUT.cpp: the launchers as C++, for CMake (simt.cmake).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
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
LAUNCH = re.compile(r"(\w+)((?:<[^;]*?>)?)\s*<<<(.*?)>>>\((.*?)\);", re.DOTALL)
"""Kernel, its template arguments, configuration and arguments of a launch."""


def sanitizers() -> tuple[str, ...]:
    """Options of code that the sanitizers check, in the runs of `run_sanitized`."""
    return SANITIZE if os.environ.get("FASTBTS_SIMT_SANITIZE") else ()


def shared_library(name: str, sources: Sequence[Path], options: Sequence[str] = ()) -> Path:
    """A library of these sources; emulated code alone is sanitized."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with locked(FOLDER / "lock"), ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(partial(_compiled, options=tuple(options)), sources))
        library = FOLDER / f"{name}-{_digest(*map(str, objects), *sanitizers())}.so"
        if not library.exists():
            _run(
                ["-shared", "-pthread", "-Wl,-Bsymbolic", *sanitizers(), *map(str, objects)],
                library,
            )
    return library


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that other processes wait for; it ends with the process, too."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compiled(source: Path, options: tuple[str, ...]) -> Path:
    text = source.read_text()
    emulated = source.suffix == ".cu" or source.parent.name in ("simt", "tensorrt")
    own = ("-g1", *WARNINGS, *sanitizers()) if emulated else ()
    level = "-O0" if source.parent.name == "bindings" else "-O1"
    flags = [*FLAGS, *INCLUDES, *options, level, *own]
    target = FOLDER / f"{source.stem}-{_digest(text, *flags, _headers())}.o"
    if not target.exists():
        code = target.with_suffix(".cpp")
        write_emulated(source, code)
        _run([*flags, f"-I{source.parent}", "-c", str(code)], target)
        code.unlink()
    return target


def write_emulated(source: Path, target: Path) -> None:
    """Writes a source with its launches emulated."""
    target.write_text(f'#line 1 "{source}"\n{emulated_launches(source.read_text())}')


def emulated_launches(code: str) -> str:
    """A launcher as C++: its launches are calls of the emulation."""
    call = r'simt::enqueue("\1", \3, [=] { \1\2(\4); });'
    emulated, n = LAUNCH.subn(call, code)
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


if __name__ == "__main__":
    write_emulated(*map(Path, sys.argv[1:3]))
