"""Raw studies: the accuracy and time of registration, and of the whole way to labels.

    python -m benchmarks.study DATA [--json benchmarks/results/study.json] [--brain-engine FILE]

DATA holds labelled cases, whose images are aligned and stripped. The study maker moves them by
known transforms: the FLAIR in sagittal slices of 3 mm, the T1 in voxels of 1 mm, the T2 in slices
of 5 mm; with and without a made-up head around the brain. Registration: several cases, from the
study maker's start, from 54 mm away, and from random starts. The whole way: one case as a DICOM
study, `fastbts study` in a new process; its Dice beside that of the aligned case. For its times the
machine must do nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from fastbts import GeometryError, Segmenter, read_case
from fastbts.metrics import region_dice
from fastbts.phantom import PhantomCase
from fastbts.phantom.skull import with_skull
from fastbts.phantom.study import FLAIR, SCANS, T1, T2, Scan, acquire, movement, write_study
from fastbts.study.register import register
from fastbts.study.series import Facts, Series
from fastbts.volume import Geometry
from training.data.cases import read_labels

CASES = (
    "Brats18_CBICA_AMH_1",
    "Brats18_CBICA_ASV_1",
    "Brats18_2013_3_1",
    "Brats18_TCIA01_201_1",
    "Brats18_TCIA02_135_1",
    "Brats18_TCIA10_628_1",
)
MOVING = (FLAIR, T1, T2)
FAR_DEGREES, FAR_MM = (12.0, -10.0, 15.0), (30.0, -30.0, 33.0)
"""54 mm away."""
MAX_DEGREES, MAX_MM = 15.0, 50.0  # of a random start
STARTS = ("unmoved", "near", "far", "random")
"""The first shows how far a case's own images are from being aligned."""
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    given = parsed(arguments)
    starts = [(s, n) for s in given.starts for n in range(given.seeds if s == "random" else 1)]
    pairs = list(registrations(given.data, given.cases, starts))
    ways = list(whole_ways(given)) if given.rounds else []
    results: dict[str, Any] = {
        "machine": machine(),
        "registration": {"summary": summary(pairs), "pairs": pairs},
        "study": ways,
    }
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results["registration"]["summary"], indent=1))


def registrations(
    data: Path, cases: Iterable[str], starts: Sequence[tuple[str, int]]
) -> Iterator[Row]:
    """A row for each pair of images; prints them."""
    for name, skull in product(cases, (False, True)):
        case = real_case(data / name, skull)
        brain = brain_points(data / name)
        for (start, seed), scan in product(starts, MOVING):
            row = registered(case, moved(scan, start, seed), brain, seed)
            yield {"case": name, "skull": skull, "start": start, "seed": seed, **row}
            print(name, "skull" if skull else "stripped", start, seed, row, flush=True)


def real_case(folder: Path, skull: bool) -> PhantomCase:
    case = PhantomCase(read_case(folder), read_labels(folder), folder.name)
    return with_skull(case) if skull else case


def brain_points(folder: Path, step: int = 97) -> NDArray[np.float64]:
    """Positions (4, n) in mm of some voxels of the brain."""
    volume = read_case(folder)
    where = np.argwhere(volume.data[volume.modalities.index("t1ce")] > 0)[::step]
    return volume.affine @ np.c_[where, np.ones(len(where))].T


def moved(scan: Scan, start: str, seed: int) -> Scan:
    """The scan from a start, `STARTS`."""
    if start == "unmoved":
        return replace(scan, degrees=(0, 0, 0), mm=(0, 0, 0))
    if start == "far":
        return replace(scan, degrees=FAR_DEGREES, mm=FAR_MM)
    if start == "near":
        return scan
    rng = np.random.default_rng([seed, *scan.modality.encode()])
    direction, length = rng.normal(size=3), rng.uniform(0, MAX_MM)
    mm = direction * (length / np.linalg.norm(direction))
    return replace(scan, degrees=tuple(rng.uniform(-MAX_DEGREES, MAX_DEGREES, 3)), mm=tuple(mm))


def registered(case: PhantomCase, scan: Scan, brain: NDArray[np.float64], seed: int) -> Row:
    """Registers one scan of a case to its T1ce."""
    volume = case.volume
    middle = volume.affine @ [*((np.array(volume.geometry.shape) - 1) / 2), 1]
    truth = movement(scan, middle[:3])
    voxels, geometry = acquire(volume, scan, truth, np.random.default_rng(seed))
    fixed = series("t1ce", volume.data[volume.modalities.index("t1ce")], volume.geometry)
    moving = series(scan.modality, voxels, geometry)
    row = {"modality": scan.modality, "slices_mm": scan.spacing_mm[2] if scan.spacing_mm else 1}
    wall, processor = time.perf_counter(), time.process_time()
    try:
        found = register(moving, fixed)
    except GeometryError as error:
        return {**row, "refused": str(error)}
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    apart = np.linalg.norm(((np.linalg.inv(found.matrix) - truth) @ brain)[:3], axis=0)
    numbers = {
        "mean_mm": apart.mean(),
        "max_mm": apart.max(),
        "quality": found.quality,
        "wall_s": wall,
        "processor_s": processor,
    }
    return {**row, **{key: round(float(value), 3) for key, value in numbers.items()}}


def series(name: str, voxels: NDArray[Any], geometry: Geometry) -> Series:
    return Series(name, name, geometry, Facts(), (), "nifti", lambda: voxels)


def summary(pairs: Sequence[Row]) -> list[Row]:
    """A row for each skull, start and modality."""
    rows = []
    for skull, start, scan in product((False, True), STARTS, MOVING):
        key = {"skull": skull, "start": start, "modality": scan.modality}
        chosen = [pair for pair in pairs if key.items() <= pair.items()]
        done = [pair for pair in chosen if "refused" not in pair]
        if done:
            rows.append({**key, "n": len(chosen), "refused": len(chosen) - len(done), **_of(done)})
    return rows


def _of(done: Sequence[Row]) -> Row:
    """Medians and maxima."""
    mean, worst = ([pair[key] for pair in done] for key in ("mean_mm", "max_mm"))
    wall, processor = ([pair[key] for pair in done] for key in ("wall_s", "processor_s"))
    numbers = {
        "median_mm": statistics.median(mean),
        "largest_mean_mm": max(mean),
        "largest_mm": max(worst),
        "lowest_quality": min(pair["quality"] for pair in done),
        "median_s": statistics.median(wall),
        "longest_s": max(wall),
        "processor_s": statistics.median(processor),
    }
    return {key: round(value, 3) for key, value in numbers.items()}


def whole_ways(given: argparse.Namespace) -> Iterator[Row]:
    """One case as a raw study, with and without skull, from near and far."""
    folder = given.data / given.study_case
    with Segmenter() as segmenter:
        aligned = segmenter.predict(read_case(folder)).labels
    dice = {"dice_aligned": rounded(region_dice(aligned, read_labels(folder)))}
    for skull, start in product((False, True), ("near", "far")):
        way = whole_way(real_case(folder, skull), start, given)
        yield {"case": folder.name, "skull": skull, "start": start, **dice, **way}
        print("skull" if skull else "stripped", start, way, flush=True)


def whole_way(case: PhantomCase, start: str, given: argparse.Namespace) -> Row:
    """`fastbts study` on a case that was written as DICOM."""
    scans = [moved(scan, start, 0) if scan in MOVING else scan for scan in SCANS]
    with tempfile.TemporaryDirectory() as folder:
        made = write_study(case, Path(folder, "study"), scans)
        row: Row = {"n_files": sum(map(len, made.files.values())), "runs": []}
        for n in range(given.rounds):
            out = Path(folder, f"out{n}")
            row["runs"].append(timed(made.folder, out, given.brain_engine))
            print(row["runs"][-1], flush=True)
        labels = np.asarray(nib.load(out / "seg.nii.gz").dataobj).astype(np.uint8)
        report = json.loads((out / "report.json").read_text())
    row["median_s"] = statistics.median(run["wall_s"] for run in row["runs"])
    row["dice"] = rounded(region_dice(labels, made.labels))
    row["volumes_ml"] = report["volumes_ml"]
    row["warnings"] = report["input"].get("warnings", [])
    return row


def timed(study: Path, out: Path, brain_engine: Path | None) -> Row:
    """Raw study -> SEG, SR and NIfTI in a new process; times in seconds, steps in ms."""
    command = [sys.executable, "-m", "fastbts", "study", str(study), "-o", str(out)]
    command += ["--brain-engine", str(brain_engine)] if brain_engine else []
    began, processor = time.perf_counter(), _children_s()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, processor = time.perf_counter() - began, _children_s() - processor
    expected = ("seg.nii.gz", "seg.dcm", "sr.dcm")
    missing = [name for name in expected if not (out / name).is_file()]
    if missing:
        sys.exit(f"{command[3]}: expected {', '.join(expected)}, missing {', '.join(missing)}")
    steps = json.loads((out / "report.json").read_text())["timings_ms"]
    return {"wall_s": round(wall, 2), "processor_s": round(processor, 2), "steps_ms": steps}


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rounded(scores: dict[str, float]) -> dict[str, float]:
    return {region: round(float(score), 4) for region, score in scores.items()}


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of labelled cases")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--cases", nargs="*", default=CASES, help="to register; none: leave out")
    parser.add_argument("--starts", nargs="*", choices=STARTS, default=STARTS)
    parser.add_argument("--seeds", type=int, default=2, help="random starts of each pair")
    parser.add_argument("--study-case", default=CASES[0], help="case of the whole way")
    parser.add_argument("--rounds", type=int, default=3, help="whole ways; 0: leave out")
    parser.add_argument("--brain-engine", type=Path, help="default: the shipped one")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
