"""The complete job: arrays in memory to labels, and four files to a label file in a new process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.peers.process import peak_mb_of
from fastbts import Segmenter, Volume
from fastbts.metrics import region_dice
from training.data.cases import read_labels

ROUNDS = 7


def _add_info(
    benchmark: Any, segmenter: Segmenter, labels: NDArray[np.uint8], folder: Path
) -> None:
    """Accuracy, reported next to the speed."""
    benchmark.extra_info.update(
        segmenter.engine.description,
        engine=segmenter.engine.spec.name,
        case=folder.name,
        n_cpus=os.cpu_count(),
    )
    benchmark.extra_info["dice"] = region_dice(labels, read_labels(folder))


def test_predict_in_memory(
    benchmark: Any, segmenter: Segmenter, volume: Volume, case_folder: Path
) -> None:
    """Arrays in memory -> labels in memory, one pass."""
    result = segmenter.predict(volume)
    assert result.labels.any()
    assert result.report["windows"]["mode"] == "one-pass"
    _add_info(benchmark, segmenter, result.labels, case_folder)
    results: list[Any] = []
    benchmark.pedantic(
        lambda: results.append(segmenter.predict(volume)), rounds=ROUNDS, warmup_rounds=1
    )
    stages = results[0].timings_ms
    benchmark.extra_info["stages_ms"] = {
        stage: median(r.timings_ms[stage] for r in results) for stage in stages
    }
    assert all(np.array_equal(r.labels, result.labels) for r in results), (
        "the same case gives the same labels every time"
    )


@pytest.mark.parametrize("cache", ["warm", "cold", "off"])
def test_files_to_file_in_a_fresh_process(
    benchmark: Any, case_folder: Path, tmp_path: Path, cache: str
) -> None:
    """Interpreter start, imports, reading, engine, network, writing: one case of a shell loop.

    `cache` is that of compiled networks: filled, emptied before each round, or switched off.
    """
    folder, out = tmp_path / "cache", tmp_path / "out"
    command = [sys.executable, "-m", "fastbts", "predict", str(case_folder), "-o", str(out)]
    environment = fresh_environment("off" if cache == "off" else str(folder))
    infer_ms: list[float] = []

    def empty() -> None:
        if cache == "cold":
            shutil.rmtree(folder, ignore_errors=True)

    def run() -> None:
        run_process(command, environment)
        infer_ms.append(json.loads((out / "report.json").read_text())["timings_ms"]["infer"])

    benchmark.pedantic(run, setup=empty, rounds=ROUNDS, warmup_rounds=1)
    assert (out / "seg.nii.gz").is_file()
    assert folder.exists() == (cache != "off")
    outside_ms = 1000 * benchmark.stats.stats.median - median(infer_ms[1:])
    benchmark.extra_info.update(
        case=case_folder.name,
        n_cpus=os.cpu_count(),
        model_cache=cache,
        outside_network_ms=outside_ms,
        peak_mb=peak_mb_of(command, environment),
    )


@pytest.mark.parametrize("command", [["-c", "import fastbts"], ["-m", "fastbts", "--help"]])
def test_start(benchmark: Any, command: list[str]) -> None:
    def run() -> None:
        run_process([sys.executable, *command], fresh_environment("off"))

    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["command"] = " ".join(command[1:])


def fresh_environment(cache: str) -> dict[str, str]:
    """As a user's: the modules are compiled to bytecode once, as pip does when it installs."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "FASTBTS_CACHE": cache}


def run_process(command: list[str], environment: dict[str, str]) -> None:
    """Runs a command to its end."""
    quiet = subprocess.DEVNULL
    subprocess.run(command, env=environment, stdout=quiet, stderr=quiet, check=True)
