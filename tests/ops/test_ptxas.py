"""What the CUDA compiler makes of each kernel: no spilled registers, and few enough of them.

What it prints is kept in `build/ptxas`, once per state of the sources.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ops.devices import REQUIRE_CUDA
from tests.ops.registry import ALL

ROOT = Path(__file__).resolve().parents[2]
MAX_REGISTERS = {op.name: op.max_registers for op in ALL} | {"widen": 64}
"""By name; the TensorRT plugins alone use `widen`."""

# A warp keeps 64 sums per thread. 128 registers let four blocks of 128 threads share a
# multiprocessor; Turing, which has no asynchronous copies, needs 158, for three.
MAX_REGISTERS |= dict.fromkeys(("activate", "fold_stats", "linear", "pack"), 64)
MAX_REGISTERS["guidance"] = 72
MAX_REGISTERS |= {"conv3d": 160}

TARGETS = (
    "-gencode=arch=compute_75,code=sm_75",
    "-gencode=arch=compute_90,code=[sm_90,sm_120]",
)
"""The oldest and the newest that are built, and the one of the machines that run the GPU checks."""

N_ARCHITECTURES = 3
NVCC = shutil.which("nvcc")


def compile_log(source: Path) -> str:
    """What nvcc prints about a launcher and its kernels."""
    assert NVCC is not None, "needs nvcc"
    options = ["-std=c++17", "-O3", "-fmad=false", "-Xptxas=-v", f"-I{ROOT / 'csrc'}", *TARGETS]
    log = ROOT / "build/ptxas" / f"{source.stem}-{state(source, options)}.log"
    if not log.exists():
        log.parent.mkdir(parents=True, exist_ok=True)
        unfinished = log.with_suffix(f".{os.getpid()}")
        command = [NVCC, *options, "-fatbin", str(source), "-o", os.devnull]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        unfinished.write_text(result.stderr + result.stdout)
        unfinished.replace(log)
    return log.read_text()


def state(source: Path, options: list[str]) -> str:
    """Of all that the log depends on."""
    version = subprocess.run([str(NVCC), "--version"], capture_output=True, check=True).stdout
    headers = (p for p in sorted((ROOT / "csrc").rglob("*")) if p.suffix in (".h", ".cuh"))
    parts = [version, str(options).encode(), *(p.read_bytes() for p in (source, *headers))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def usage(log: str) -> list[tuple[str, int, int]]:
    """Entry name, bytes spilled and registers of each kernel in what ptxas prints."""
    pattern = (
        r"Compiling entry function '(\S+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers"
    )
    return [
        (name, int(stores) + int(loads), int(registers))
        for name, stores, loads, registers in re.findall(pattern, log, re.DOTALL)
    ]


def test_usage_is_read_from_what_ptxas_prints() -> None:
    log = (
        "ptxas info    : Compiling entry function '_Z4kernelPf' for 'sm_90'\n"
        "ptxas info    : Function properties for _Z4kernelPf\n"
        "    8 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads\n"
        "ptxas info    : Used 22 registers, used 1 barriers\n"
    )
    assert usage(log) == [("_Z4kernelPf", 40, 22)]


def test_every_launcher_belongs_to_an_op() -> None:
    launchers = (ROOT / "csrc/ops").glob("*_cuda.cu")
    assert {path.stem.removesuffix("_cuda") for path in launchers} == set(MAX_REGISTERS)


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None and not REQUIRE_CUDA, reason="needs nvcc")
@pytest.mark.parametrize("name", MAX_REGISTERS)
def test_kernels_stay_in_their_registers(name: str) -> None:
    source = ROOT / f"csrc/ops/{name}_cuda.cu"
    kernels = usage(compile_log(source))
    n_launches = source.read_text().count("<<<")
    assert len(kernels) >= n_launches * N_ARCHITECTURES, "a kernel per launch and architecture"
    assert [k for k in kernels if k[1] > 0 or k[2] > MAX_REGISTERS[name]] == []
