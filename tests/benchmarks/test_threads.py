"""The benchmark of threads and batches, on two tiny cases, and its tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import threads
from benchmarks.threads_tables import batch_table, threads_table
from fastbts.phantom import make_case, write_case

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
]


def test_every_way_is_timed_and_its_labels_compared(tmp_path: Path) -> None:
    for seed in range(2):
        write_case(make_case(seed, shape=(48, 48, 32)), tmp_path / f"cases/case{seed}")
    file = tmp_path / "threads.json"
    given = ["--data", tmp_path / "cases", "--cases", 2, "--rounds", 1, "--json", file]
    threads.main([str(argument) for argument in given])
    results = json.loads(file.read_text())
    assert [row["way"] for row in results["batch"]] == list(threads.WAYS)
    assert results["scaling"][0]["cpus"] == 1
    assert all(row["voxels_that_differ"] < 100 for row in results["batch"])
    first, batch, *_ = results["batch"]
    assert (first["times_faster"], batch["voxels_that_differ"]) == (1, 0)
    ways, stages = batch_table(results), threads_table(results)
    assert f"| `predict_batch` | {batch['median_s']:.2f} | {batch['times_faster']:.2f} |" in ways
    assert "2 real cases in " in ways
    assert stages.startswith("| CPUs | read ms | normalize ms | infer ms | label ms | save ms |")


def test_cases_come_from_all_parts_of_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {str(n): Path(str(n)) for n in range(10)}
    monkeypatch.setattr(threads, "find_cases", lambda folder: names)
    assert [case.name for case in threads.chosen(Path(), 3)] == ["0", "3", "6"]
    assert len(threads.chosen(Path(), 20)) == 10
    assert list(threads.powers_of_two(6)) == [1, 2, 4]
