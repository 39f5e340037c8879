"""Segments all cases of a folder, and writes one table of their volumes.

    python examples/folder_batch.py DATASET OUT

DATASET is a BIDS dataset or a folder of case folders. Writes OUT/CASE_seg.nii.gz for each case, and
OUT/volumes.csv with one row per case; what is wrong with a case is in its row. Prints

    10 cases, 1 failed: OUT/volumes.csv
"""

import csv
import sys
from pathlib import Path

from fastbts import FailedCase, Segmentation, Segmenter, find_cases

COLUMNS = ("case", "WT", "TC", "ET", "warnings", "error")


def segment_folder(dataset: Path, out: Path) -> int:
    """Segments the cases; returns how many failed."""
    cases, n_failed = find_cases(dataset), 0
    out.mkdir(parents=True, exist_ok=True)
    with Segmenter() as segmenter, (out / "volumes.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        # The next case is read and computed while this one is saved.
        results = segmenter.predict_batch(cases.values())
        for name, result in zip(cases, results, strict=True):
            n_failed += isinstance(result, FailedCase)
            table.writerow({"case": name, **row(result, out / f"{name}_seg.nii.gz")})
    print(f"{len(cases)} cases, {n_failed} failed: {out / 'volumes.csv'}")
    return n_failed


def row(result: Segmentation | FailedCase, path: Path) -> dict[str, object]:
    """Saves a result; returns its columns."""
    if isinstance(result, FailedCase):
        return {"error": result.error}
    result.save(path, overwrite=True)
    return {**result.volumes_ml, "warnings": "; ".join(result.warnings)}


if __name__ == "__main__":
    sys.exit(3 if segment_folder(Path(sys.argv[1]), Path(sys.argv[2])) else 0)
