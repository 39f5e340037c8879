"""Writes the README's tables from `benchmarks/results/*.json`, between their markers: `python -m benchmarks.make_tables`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
REGIONS = ("WT", "TC", "ET", "mean")
SCORES = {  # key in the evaluation's summary -> what the table calls it
    "hd95_mm": "HD95, mm", "hd95_nonempty_mm": "HD95 where both have voxels, mm", "sensitivity": "sensitivity",
    "lesion_recognition": "lesions found, F1", "lesion_dice": "Dice of the lesions found",
}  # fmt: skip
PAPER_DICE = 0.8567  # "overall", BraTS 2020: abstract of arXiv 2507.09966 v1
ARM_NAMES = {
    "all": "all, orthonormal text"
}  # arms whose name in the results is too short for a table


def speed_table(results: dict[str, Any]) -> str:
    """Median seconds per job, with the Dice of what was computed."""
    machine = results["machine_info"]
    lines = [
        "| job | precision | median s | normalize / infer / label ms | Dice WT, TC, ET |",
        "|---|---|---|---|---|",
    ]
    for run in results["benchmarks"]:
        job = re.sub(r"^test_|\[.*", "", run["name"]).replace("_", " ")
        info, stages = run["extra_info"], run["extra_info"].get("stages_ms", {})
        parts = (
            " / ".join(f"{stages[s]:.0f}" for s in ("normalize", "infer", "label"))
            if stages
            else ""
        )
        dice = ", ".join(f"{v:.3f}" for v in info.get("dice", {}).values())
        where = (
            f", {'synthetic' if info['case'] == 'case' else info['case']}" if "case" in info else ""
        )
        lines.append(
            f"| {job}{where} | {info.get('precision', '')} | {run['stats']['median']:.2f} | {parts} | {dice} |"
        )
    about = f"{machine['device_name']}, {results['benchmarks'][0]['extra_info'].get('threads', '?')} threads"
    return "\n".join(
        [
            *lines,
            "",
            f"Measured on {about}; `make bench` repeats it (`benchmarks/results/predict.json`). The Dice of the synthetic case says nothing about accuracy.",
        ]
    )


def dice_table(results: dict[str, Any]) -> str:
    """Dice per case and mean, and how far that is from the paper's."""
    lines = ["| case | " + " | ".join(REGIONS) + " |", "|---" * (1 + len(REGIONS)) + "|"]
    for row in [*results["cases"], results["mean"]]:
        lines.append(f"| {row['case']} | " + " | ".join(f"{row[r]:.3f}" for r in REGIONS) + " |")
    more = results["mean"]["mean"] - PAPER_DICE
    where = f"{abs(more):.3f} {'above' if more > 0 else 'below'}"
    about = f"The mean is {where} the {PAPER_DICE} overall that the paper reports, on other data (BraTS 2020)."
    return "\n".join([*lines, "", about])


def scores_table(results: dict[str, Any]) -> str:
    """Means per region of the other scores, Dice without each modality, calibration."""
    lines = ["| score | " + " | ".join(REGIONS) + " |", "|---" * (1 + len(REGIONS)) + "|"]
    n_cases, summary, calibration = (
        len(results["cases"]),
        results["summary"],
        results["calibration"],
    )
    for key, name in SCORES.items():
        if key in summary["mean"]:  # --lesions was given
            lines.append(
                f"| {name} | "
                + " | ".join(
                    _score(summary[r][key], 3 if r == "mean" else n_cases) for r in REGIONS
                )
                + " |"
            )
    for modality, score in results["missing_modalities"].items():
        lines.append(
            f"| Dice without {modality} | "
            + " | ".join(f"{score['dice'][r]:.3f}" for r in REGIONS)
            + " |"
        )
    lines.append(
        "| expected calibration error | "
        + " | ".join(f"{calibration['ece'][r]:.4f}" for r in REGIONS)
        + " |"
    )
    best = " | ".join(f"{calibration['best_temperature'][r]:.2f}" for r in REGIONS[:3])
    lines.append(f"| temperature that is best for the region | {best} | |")
    about = (
        f"n = {n_cases} cases. Calibration over {calibration['n_voxels'] / 1e6:.1f} million brain voxels, in {calibration['bins']} bins, "
        f"each region by itself, at the engine's one temperature of {calibration['temperature']:.2f}."
    )
    return "\n".join([*lines, "", about])


def _score(score: dict[str, Any], expected: int) -> str:
    """A mean, with its n where that is not all."""
    mean = "-" if score["mean"] is None else f"{score['mean']:#.3g}"
    return mean if score["n"] == expected else f"{mean} (n={score['n']})"


def precision_table(results: dict[str, Any]) -> str:
    """Precisions side by side."""
    lines = [
        "| precision | mean Dice | change | network, median ms | times bf16's speed |",
        "|---|---|---|---|---|",
    ]
    for name, row in results["summary"].items():
        numbers = f"{row['mean_dice']:.4f} | {row['dice_change']:+.4f} | {row['infer_ms']:.0f} | {row['times_bf16']:.2f}"
        lines.append(f"| {name} | {numbers} |")
    return "\n".join(
        [
            *lines,
            "",
            f"n = {results['n_cases']} validation cases, {results['rounds']} interleaved rounds, one pass.",
        ]
    )


def cost_table(results: dict[str, Any]) -> str:
    """What the semantic mechanisms cost, from bench_semantic."""
    info = results["benchmarks"][0]["extra_info"]
    lines = [
        "| network | parameters, million | GFLOP | median s | processor s |",
        "|---|---|---|---|---|",
    ]
    for name in ("plain", "all"):
        row = info[name]
        lines.append(
            f"| {name} | {row['mparameters']:.2f} | {row['gflop']:.0f} | {row['wall_s']:.3f} | {row['processor_s']:.3f} |"
        )
    cost = info["relative_cost"]
    about = f"All on costs {100 * cost['wall']:+.1f} % of wall time, {100 * cost['processor']:+.1f} % of processor time (medians of pairs)."
    return "\n".join([*lines, "", about])


def _dice(arm: dict[str, Any]) -> str:
    return " | ".join(f"{arm[r]:.3f}" for r in ("WT", "TC", "ET", "mean"))


def ablation_table(results: dict[str, Any]) -> str:
    """Every arm against its bases: difference of the mean Dice in points, interval and p."""
    lines = [
        "| network | seeds | WT | TC | ET | mean | against | points, 95 % interval | p |",
        "|---" * 9 + "|",
    ]
    for name, arm in results["arms"].items():
        against = [c for c in results["comparisons"] if c["name"] == name]
        lines.append(
            f"| {_arm(name)} | {arm['n_seeds']} | {_dice(arm)} | "
            + (" | ".join(_against(against[0])) if against else " | | ")
            + " |"
        )
        lines += ["| | | | | | | " + " | ".join(_against(c)) + " |" for c in against[1:]]
    n_cases = results["comparisons"][0]["n_cases"] if results["comparisons"] else 0
    about = (
        f"n = {n_cases} validation cases; compared over the seeds that both networks have. Interval: bootstrap over cases and seeds; p: Wilcoxon's "
        f"signed-rank test over case means, exact, not corrected for the number of rows; none can be below "
        f"{2 ** (1 - n_cases):.3f}."
    )
    return "\n".join([*lines, "", about])


def curve_table(results: dict[str, Any]) -> str:
    """Dice of the plain network by training cases and steps."""
    lines = ["| training cases | steps | seeds | WT | TC | ET | mean |", "|---" * 7 + "|"]
    plain = [arm for name, arm in results["arms"].items() if name.startswith("plain")]
    for arm in sorted(plain, key=lambda arm: (arm["steps"], arm["n_cases"])):
        lines.append(f"| {arm['n_cases']} | {arm['steps']} | {arm['n_seeds']} | {_dice(arm)} |")
    return "\n".join(lines)


def _arm(name: str) -> str:
    return ARM_NAMES.get(name, name)


def _against(comparison: dict[str, Any]) -> tuple[str, str, str]:
    points = [f"{100 * comparison[key]:+.1f}" for key in ("difference", "low", "high")]
    return (
        _arm(comparison["base"]),
        f"{points[0]} [{points[1]}, {points[2]}]",
        f"{comparison['p']:.3f}",
    )


def ops_table(results: dict[str, Any]) -> str:
    """Every op on one and on two threads: its time, its share of a copy's bandwidth, how many times faster than peers it is."""
    lines = ["| op | ms | share of a copy's bandwidth | times faster than |", "|---|---|---|---|"]
    runs = {run["name"]: run["extra_info"] for run in results["benchmarks"]}
    for name in dict.fromkeys(re.sub(r"^test_|\[.*", "", name) for name in runs):
        one, two = (runs[f"test_{name}[{n}]"] for n in (1, 2))
        peers = ", ".join(
            f"{peer} {times:.1f} / {two['times_faster'][peer]:.1f}"
            for peer, times in one["times_faster"].items()
        )
        times, shares = (
            f"{one[key]:{form}} / {two[key]:{form}}"
            for key, form in (("median_ms", ".2f"), ("share_of_copy", ".0%"))
        )
        lines.append(f"| `{name}` | {times} | {shares} | {peers} |")
    n_turns = sorted({len(run["stats"]["data"]) for run in results["benchmarks"]})
    about = (
        f"On 1 / 2 threads of {results['machine_info']['device_name']}; medians of {' or '.join(map(str, n_turns))} turns, more where "
        "an op is short."
    )
    return "\n".join([*lines, "", about])


TABLES = {
    "ops": (ops_table, "ops.json"),
    "ops-tuned": (ops_table, "ops-tuned.json"),
    "speed": (speed_table, "predict.json"),
    "dice": (dice_table, "dice-val.json"),
    "scores": (scores_table, "dice-val.json"),
    "precision": (precision_table, "precision.json"),
    "cost": (cost_table, "semantic.json"),
    "ablation": (ablation_table, "ablation.json"),
    "curve": (curve_table, "ablation.json"),
}
PAGES = (
    ROOT / "README.md",
    ROOT / "csrc/README.md",
    ROOT / "models/fastbts-light.md",
    ROOT / "training/README.md",
)


def filled(text: str, results: Path = RESULTS) -> str:
    """The text with every `<!-- table:NAME -->...<!-- end -->` filled in."""
    for name, (make, file) in TABLES.items():
        path = results / file
        table = make(json.loads(path.read_text())) if path.is_file() else "Not measured yet."
        text = re.sub(
            rf"(<!-- table:{name} -->\n).*?(<!-- end -->)",
            lambda m, t=table: f"{m[1]}{t}\n{m[2]}",
            text,
            flags=re.DOTALL,
        )  # type: ignore[misc]
    return text


def main() -> None:
    """Rewrites the pages; with --check only compares."""
    for path in PAGES:
        text = path.read_text()
        if filled(text) == text:
            continue
        if "--check" in sys.argv:
            sys.exit(
                f"{path.name}: tables are not those of benchmarks/results; run python -m benchmarks.make_tables"
            )
        path.write_text(filled(text))


if __name__ == "__main__":
    main()
