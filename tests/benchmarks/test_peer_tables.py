"""Tables and plot of peers, from made-up results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import tables

BASE = {"case": "synthetic", "n_threads": 2, "commit": "abc", "load": 1.0, "n_cpus": 2}


def row(title: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "title": title,
        "median_s": seconds,
        "p95_s": seconds,
        "seconds": [seconds] * 5,
        "first_call_s": 2 * seconds,
        "processor_s": 1.5 * seconds,
        "stages_ms": {"prepare": 10.0, "network": 1000 * seconds - 11, "label": 1.0},
        "dice": {"WT": 0.9, "TC": 0.8, "ET": 0.7},
        "agreement": 0.99,
        "peak_mb": 500,
        "about": {"lib": "1.2", "precision": "bf16", "around": f"steps of {title}"},
        **more,
    }


SKIPPED = {"title": "nobody", "skipped": "ModuleNotFoundError: No module named 'nobody'"}


@pytest.fixture
def results() -> dict[str, Any]:
    both = {"ours": row("fastbts", 0.5), "torch": row("peer", 5.0), "nnunet": SKIPPED}
    started = {"ours": row("fastbts", 1.0), "torch": row("peer", 4.0)}
    one_pass = {"64": 9.0, **{str(n): 1e-6 * n**3 for n in (96, 128)}}
    volumes = [
        {"ours-sliding": {"title": "fastbts, in windows", "seconds_of_size": {"128": 4.194304}}},
        {"ours": {"title": "fastbts", "seconds_of_size": one_pass}},
    ]
    shares = {"gflop_s": 500.0, "share_of_peak": 0.5, "share_outside": 0.05}
    entries = [
        {"section": "in memory", "group": "ours", "contenders": both},
        {"section": "in memory", "group": "b", "contenders": both | {"compile": row("late", 1.0)}},
        {"section": "new process", "contenders": started},
        {"section": "files to file", "contenders": started},
        {"section": "several cases", "contenders": started, "n_cases": 4},
        {"section": "threads", "contenders": {"ours": row("fastbts", 0.9)}, "n_threads": 1},
        {"section": "threads", "contenders": {"ours": row("fastbts", 0.5)}},
        *({"section": "volumes", "contenders": one} for one in volumes),
        {
            "section": "peak",
            "gflop": 200.0,
            "peaks_gflop_s": {"bf16": 1000.0},
            "of_peak": {"bf16": shares},
        },
    ]
    runs = [{"extra_info": BASE | entry} for entry in entries]
    return {"machine_info": {"device_name": "A processor"}, "benchmarks": runs}


def test_memory_table_has_ours_first_and_ratios(results: dict[str, Any]) -> None:
    lines = tables.memory_table(results).splitlines()
    assert lines[2].startswith("| synthetic |")
    assert lines[3].startswith("| fastbts | 0.5 | 0.5 | 1.00 | 0.75 | 0.900, 0.800, 0.700 |")
    assert lines[3].endswith(" | 99.00% | 500 | 10 / 489 / 1 |")
    assert lines[4].startswith("| peer | 5 | 5 | 10.00 |")
    assert lines[5].startswith("| late | 1 | 1 | 2.00 |"), "once each"
    assert "No module named 'nobody'" in lines[6]
    note = " ".join(lines[8:])
    assert "A processor, 2 threads, at abc, while the machine's load was up to 1.0" in note
    assert "Medians of 5 rounds" in note
    assert "lib 1.2" in note
    assert "not quiet" not in note
    assert "peer: steps of peer" in note


def test_a_busy_machine_is_named(results: dict[str, Any]) -> None:
    results["benchmarks"][0]["extra_info"] |= {"load": 3.0}
    assert "It was not quiet: the times are rough." in tables.memory_table(results)


def test_process_table_divides_by_the_cases(results: dict[str, Any]) -> None:
    text = tables.process_table(results)
    assert "| peer | 4.00 | 4.0 | 4.00 | 4.0 | 1.00 | 4.0 |" in text
    assert "fastbts 1.00 s (0.50 s)" in text.replace("\n", " ")


def test_volume_table_has_exponents_and_threads(results: dict[str, Any]) -> None:
    text = tables.volume_table(results).replace("\n", " ")
    assert "| fastbts | 9.00 | 0.88 | 2.10 | 1.00 |" in text
    assert "| fastbts, in windows | | | 4.19 | |" in text
    assert "2.0 at 128^3, whose voxels they hold 1.0 times" in text
    assert "fastbts 1.80 times as fast" in text


def test_peak_table_has_shares(results: dict[str, Any]) -> None:
    assert "| bf16 | 1000 | 500 | 50% | 5.0% |" in tables.peak_table(results)


def test_plot_is_a_small_image(results: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    tables.plot(results, tmp_path / "peers.png")
    written = (tmp_path / "peers.png").read_bytes()
    assert written.startswith(b"\x89PNG")
    assert len(written) < 100_000


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"machine_info": {}, "benchmarks": []}
    assert {make(nothing) for make in tables.TABLES.values()} == {"Not measured yet."}
    tables.plot(nothing, tmp_path / "peers.png")
    assert list(tmp_path.iterdir()) == []
