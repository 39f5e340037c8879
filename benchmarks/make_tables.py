"""Writes the tables of READMEs and pages from their results: `python -m benchmarks.make_tables`.

The results are in `benchmarks/results`. Each table is between `<!-- table:NAME -->` and
`<!-- end -->`. With --check nothing is written.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import ablation_tables, accuracy_tables, brain_tables, focus_tables, pareto_tables
from benchmarks import network_tables as network
from benchmarks import threads_tables as threads
from benchmarks.accuracy_tables import REGIONS
from benchmarks.focus_tables import SPLITS
from benchmarks.markdown import table
from benchmarks.peers import tables as peers

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
MODELS = ("models/fastbts-light.md", "models/fastbts-brain.md")
RESULT_PAGES = ("docs/results/accuracy.md", "docs/results/speed.md")
PAGES = ("README.md", *RESULT_PAGES, "csrc/README.md", *MODELS, "training/README.md")


def speed_table(results: dict[str, Any]) -> str:
    """Median seconds per job, with the Dice of the computed labels."""
    runs = results["benchmarks"]
    device = results["machine_info"]["device_name"]
    info = runs[0]["extra_info"]
    n_threads = info.get("n_threads", info.get("threads", "?"))
    return table(
        (
            *("job", "precision", "median s", "outside the network s", "peak MB"),
            *("normalize / infer / label ms", "Dice WT, TC, ET"),
        ),
        map(_speed_row, runs),
        f"Measured on {device}, {n_threads} threads; `make bench` repeats it "
        "(`benchmarks/results/predict.json`). The cache is that of compiled networks: filled, "
        "emptied before each run, or switched off. The Dice of the synthetic case is no measure of "
        "accuracy.",
    )


def _speed_row(run: dict[str, Any]) -> tuple[str, ...]:
    info, job = run["extra_info"], re.sub(r"^test_|\[.*", "", run["name"]).replace("_", " ")
    if "command" in info:
        job = info["command"]
    if "case" in info:
        job += f", {'synthetic' if info['case'] == 'case' else info['case']}"
    stages = info.get("stages_ms")
    times = [f"{stages[s]:.0f}" for s in ("normalize", "infer", "label")] if stages else []
    dice = ", ".join(f"{v:.3f}" for v in info.get("dice", {}).values())
    if "model_cache" in info:
        job += f", cache {info['model_cache']}"
    median = f"{run['stats']['median']:.2f}"
    outside = f"{info['outside_network_ms'] / 1000:.2f}" if "outside_network_ms" in info else ""
    peak = f"{info['peak_mb']:.0f}" if "peak_mb" in info else ""
    return job, info.get("precision", ""), median, outside, peak, " / ".join(times), dice


def precision_table(results: dict[str, Any]) -> str:
    """Precisions compared."""
    groups = results["summary"]["fp32"]["groups"]
    rows = [
        (
            name,
            f"{row['mean_dice']:.4f}",
            *(f"{row['groups'][group]['dice_change']:+.4f}" for group in groups),
            f"{min(group['worst_case'] for group in row['groups'].values()):+.4f}",
            f"{row['infer_ms']:.0f}",
            f"{row['times_bf16']:.2f}",
        )
        for name, row in results["summary"].items()
    ]
    return table(
        (
            "precision",
            "mean Dice",
            *(f"change, {group} (n={about['n_cases']})" for group, about in groups.items()),
            "worst case",
            "network, median ms",
            "speed relative to bf16",
        ),
        rows,
        f"{results['n_cases']} {SPLITS[results['split']]} cases, interleaved rounds: "
        f"{results['rounds']}, one pass, on {results['device_name']}.{_default(results)}",
    )


def _default(results: dict[str, Any]) -> str:
    """The precision that "auto" took, and why; depends on the validation cases."""
    if results["split"] != "val":
        return ""
    return f" Here the default is {results['precision']}: {results['precision_reason']}."


def cost_table(results: dict[str, Any]) -> str:
    """Cost of the semantic mechanisms, from bench_semantic."""
    info = results["benchmarks"][0]["extra_info"]
    rows = [
        (
            name,
            f"{info[name]['mparameters']:.2f}",
            f"{info[name]['gflop']:.0f}",
            f"{info[name]['wall_s']:.3f}",
            f"{info[name]['processor_s']:.3f}",
        )
        for name in ("plain", "all")
    ]
    cost = {kind: f"{100 * share:+.1f} %" for kind, share in info["relative_cost"].items()}
    return table(
        ("network", "parameters, million", "GFLOP", "median s", "processor s"),
        rows,
        f"All mechanisms cost {cost['wall']} of wall time and {cost['processor']} of processor "
        "time (medians of pairs).",
    )


def ops_table(results: dict[str, Any]) -> str:
    """Each op on one and on two threads: time, share of a copy's bandwidth, speed-up over peers."""
    runs = {run["name"]: run["extra_info"] for run in results["benchmarks"]}
    names = dict.fromkeys(re.sub(r"^test_|\[.*", "", name) for name in runs)
    rows = [_op_row(name, *(runs[f"test_{name}[{n}]"] for n in (1, 2))) for name in names]
    n_rounds = sorted({len(run["stats"]["data"]) for run in results["benchmarks"]})
    return table(
        ("op", "ms", "share of a copy's bandwidth", "times faster than"),
        rows,
        f"On 1 / 2 threads of {results['machine_info']['device_name']}; medians of "
        f"{' or '.join(map(str, n_rounds))} rounds, more for short ops.",
    )


def _op_row(name: str, one: dict[str, Any], two: dict[str, Any]) -> tuple[str, ...]:
    times, shares = (
        f"{one[key]:{form}} / {two[key]:{form}}"
        for key, form in (("median_ms", ".2f"), ("share_of_copy", ".0%"))
    )
    peers = (
        f"{peer} {speedup:.1f} / {two['times_faster'][peer]:.1f}"
        for peer, speedup in one["times_faster"].items()
    )
    return f"`{name}`", times, shares, ", ".join(peers)


HEADS = {False: "stripped", True: "with a skull"}
STARTS = {"unmoved": "not moved", "near": "near", "far": "54 mm off", "random": "random"}


def registration_table(results: dict[str, Any]) -> str:
    """Registration of moved images to the T1ce, from `benchmarks.study`."""
    pairs, rows = results["registration"]["pairs"], results["registration"]["summary"]
    places = dict.fromkeys((row["skull"], row["start"]) for row in rows)
    cells = [
        _registration_row(*place, [row for row in rows if (row["skull"], row["start"]) == place])
        for place in places
    ]
    n_cases, n_refused = len({pair["case"] for pair in pairs}), sum(row["refused"] for row in rows)
    return table(
        ("head", "start", "FLAIR, 3 mm sagittal", "T1, 1 mm", "T2, 5 mm", "s", "processor s"),
        cells,
        f"Mean error over the brain in mm, median of the pairs and largest, of {n_cases} real "
        f"cases that were moved by known transforms; {len(pairs)} pairs, {n_refused} refused. "
        "Images that were not moved show how far they are from being aligned; the made-up head is "
        f"the same in all. Seconds: median and largest. {_measured(results)}",
    )


def _registration_row(skull: bool, start: str, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Of the three images of a head and start."""
    errors = {
        row["modality"]: f"{row['median_mm']:.2f} ({row['largest_mean_mm']:.2f})" for row in rows
    }
    seconds = max(row["median_s"] for row in rows), max(row["longest_s"] for row in rows)
    return (
        HEADS[skull],
        STARTS[start],
        *(errors.get(modality, "") for modality in ("flair", "t1", "t2")),
        f"{seconds[0]:.1f} ({seconds[1]:.1f})",
        f"{max(row['processor_s'] for row in rows):.1f}",
    )


def study_table(results: dict[str, Any]) -> str:
    """From a raw study to the files, from `benchmarks.study`."""
    cells = [
        (
            HEADS[way["skull"]],
            STARTS[way["start"]],
            str(way["n_files"]),
            f"{way['median_s']:.1f}",
            f"{statistics.median(run['processor_s'] for run in way['runs']):.1f}",
            _steps(way["runs"]),
            ", ".join(f"{way['dice'][region]:.3f}" for region in REGIONS[:3]),
        )
        for way in results["study"]
    ]
    aligned = results["study"][0]
    dice = ", ".join(f"{aligned['dice_aligned'][region]:.3f}" for region in REGIONS[:3])
    return table(
        ("head", "start", "files", "median s", "processor s", "of which", "Dice WT, TC, ET"),
        cells,
        f"{aligned['case']}; aligned and stripped it has Dice {dice}. `fastbts study` in a new "
        f"process, to seg.nii.gz, seg.dcm and sr.dcm. {_measured(results)}",
    )


def _steps(runs: list[dict[str, Any]]) -> str:
    """Seconds of the steps of the median run."""
    run = sorted(runs, key=lambda run: run["wall_s"])[len(runs) // 2]
    steps = {name: ms / 1000 for name, ms in run["steps_ms"].items() if name != "total"}
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in steps.items())


def _measured(results: dict[str, Any]) -> str:
    machine = results["machine"]
    return (
        f"Measured on {machine['n_cpus']} cores of {machine['cpu']}, whose load was "
        f"{machine['load_at_the_end']} at the end; `python -m benchmarks.study DATA` repeats it "
        "(`benchmarks/results/study.json`)."
    )


TABLES: dict[str, tuple[Any, ...]] = {
    **brain_tables.TABLES,
    **focus_tables.TABLES,
    **pareto_tables.TABLES,
    "ops": (ops_table, "ops.json"),
    "ops-tuned": (ops_table, "ops-tuned.json"),
    "speed": (speed_table, "predict.json"),
    **accuracy_tables.TABLES,
    "precision": (precision_table, "precision.json"),
    "precision-train": (precision_table, "precision-train.json"),
    "layers": (network.layers_table, "layers.json"),
    "variants": (network.variants_table, "variants.json"),
    "cost": (cost_table, "semantic.json"),
    "ablation": (ablation_tables.validation_table, "ablation.json"),
    "ablation-held-out": (ablation_tables.held_out_table, "ablation.json"),
    "registration": (registration_table, "study.json"),
    "study": (study_table, "study.json"),
    **{f"peers-{name}": (make, "peers.json") for name, make in peers.TABLES.items()},
    **{name: (make, "threads.json") for name, make in threads.TABLES.items()},
}


def filled(text: str, results: Path = RESULTS) -> str:
    """The text with all its tables regenerated."""

    def fill(match: re.Match[str]) -> str:
        content = _made(match["name"], results) or "Not measured yet."
        return f"{match['start']}{content}\n{match['end']}"

    marker = r"(?P<start><!-- table:(?P<name>[\w-]+) -->\n).*?(?P<end><!-- end -->)"
    return re.sub(marker, fill, text, flags=re.DOTALL)


def printed(results: Path) -> str:
    """The tables of those result files that are in a folder."""
    made = {name: _made(name, results) for name in TABLES}
    return "\n\n".join(f"{name}\n\n{content}" for name, content in made.items() if content)


def _made(name: str, results: Path) -> str:
    """A table of its result files; empty if one of them is missing."""
    make, *files = TABLES[name]
    paths = [results / file for file in files]
    if not all(path.is_file() for path in paths):
        return ""
    return make(*(json.loads(path.read_text()) for path in paths))


def main() -> None:
    """Rewrites the pages; with --check only compares, with a folder prints the tables of it."""
    folders = [Path(argument) for argument in sys.argv[1:] if argument != "--check"]
    if folders:
        print(*map(printed, folders), sep="\n\n")
        return
    for page in PAGES:
        text = (ROOT / page).read_text()
        new = filled(text)
        if new == text:
            continue
        if "--check" in sys.argv:
            sys.exit(
                f"{page}: the tables differ from benchmarks/results; "
                "run python -m benchmarks.make_tables"
            )
        (ROOT / page).write_text(new)
    if "--check" not in sys.argv:
        peers.plot(json.loads((RESULTS / "peers.json").read_text()), RESULTS / "peers.png")


if __name__ == "__main__":
    main()
