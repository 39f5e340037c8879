"""What the CUDA compiler makes of each kernel: no register spilled to memory, and few enough for full blocks."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ops.devices import REQUIRE_CUDA

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = sorted((ROOT / "csrc" / "ops").glob("*_cuda.cu"))
ARCHITECTURES = ("75", "90", "120")
"""The oldest and the newest that are built, and the one of the machines that run the GPU checks."""

MAX_REGISTERS = 64
"""With 256 threads a block, 4 blocks then fit on a multiprocessor (65 536 registers), enough to hide memory latency."""

MORE_REGISTERS = {"semantic_attention_cuda": 96, "resample_affine_cuda": 72}
"""Attention: a voxel's 16 hidden channels and 8 logits stay in registers, so that features are read once; 5 blocks of 128
threads fit. Affine: positions are float64, and elements of any type; 3 blocks of 256."""

NVCC = shutil.which("nvcc")


def compile_log(source: Path, folder: Path) -> str:
    assert NVCC is not None, "needs nvcc"
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHITECTURES]
    options = ["-std=c++17", "-O3", "-fmad=false", "-Xptxas=-v", f"-I{ROOT / 'csrc'}"]
    command = [
        NVCC,
        *options,
        *targets,
        "-fatbin",
        str(source),
        "-o",
        str(folder / "kernels.fatbin"),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stderr + result.stdout


def usage(log: str) -> list[tuple[str, int, int]]:
    """Entry name, bytes spilled and registers of each kernel in what ptxas prints."""
    pattern = r"Compiling entry function '(\S+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    return [
        (name, int(stores) + int(loads), int(registers))
        for name, stores, loads, registers in re.findall(pattern, log, re.DOTALL)
    ]


def test_what_ptxas_prints_is_understood() -> None:
    log = (
        "ptxas info    : Compiling entry function '_Z4kernelPf' for 'sm_90'\n"
        "ptxas info    : Function properties for _Z4kernelPf\n"
        "    8 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads\n"
        "ptxas info    : Used 22 registers, used 1 barriers\n"
    )
    assert usage(log) == [("_Z4kernelPf", 40, 22)]


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None and not REQUIRE_CUDA, reason="needs nvcc")
@pytest.mark.parametrize("source", LAUNCHERS, ids=lambda path: path.stem)
def test_kernels_stay_in_their_registers(source: Path, tmp_path: Path) -> None:
    kernels = usage(compile_log(source, tmp_path))
    n_launches = source.read_text().count("<<<")
    assert len(kernels) >= n_launches * len(ARCHITECTURES), (
        "a kernel of each launch, for each architecture"
    )
    most = MORE_REGISTERS.get(source.stem, MAX_REGISTERS)
    assert [kernel for kernel in kernels if kernel[1] > 0 or kernel[2] > most] == []
