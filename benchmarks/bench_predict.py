"""The complete job: arrays in memory to labels, and four files to a label file in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fastbts import Segmenter, Volume
from fastbts.metrics import region_dice
from training.data.cases import read_labels

ROUNDS = 7


def _add_info(benchmark: Any, segmenter: Segmenter, labels: np.ndarray, folder: Path) -> None:
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


def test_files_to_file_in_a_fresh_process(
    benchmark: Any, case_folder: Path, tmp_path: Path
) -> None:
    """Interpreter start, imports, reading, engine, network, writing: one case of a shell loop."""
    command = [sys.executable, "-m", "fastbts", "predict", case_folder, "-o", tmp_path / "out"]

    def run() -> None:
        subprocess.run(command, check=True, capture_output=True)

    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    assert (tmp_path / "out/seg.nii.gz").is_file()
    benchmark.extra_info.update(case=case_folder.name, n_cpus=os.cpu_count())


def test_import(benchmark: Any) -> None:
    command = [sys.executable, "-c", "import fastbts"]
    benchmark.pedantic(lambda: subprocess.run(command, check=True), rounds=ROUNDS, warmup_rounds=1)
