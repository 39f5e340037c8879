"""Small cases for cohorts, and `fastbts predict` in a process that can be killed."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from fastbts.cli import main
from fastbts.phantom import make_case
from fastbts.write.nifti import write_labels

IMAGES = make_case(3, shape=(40, 40, 32)).volume
GO_ON = "FASTBTS_TEST_CASES"
"""How many results the process may write; it then says so and waits to be killed."""


def write_cases(folder: Path, n: int) -> list[Path]:
    """Case folders with one head, moved a little for each."""
    for i in range(n):
        case = folder / f"case{i:02d}"
        case.mkdir(parents=True)
        for modality, image in zip(IMAGES.modalities, IMAGES.data, strict=True):
            moved = np.roll(image, i, axis=0)
            path = case / f"c_{modality}.nii"
            nib.Nifti1Image(moved, np.diag([3.0, 3, 3, 1])).to_filename(path)
    return sorted(folder.iterdir())


def break_case(case: Path) -> None:
    (case / "c_t1.nii").unlink()


def run_until_killed() -> None:
    """The command line; it stops in the middle of a result after some complete ones."""
    left = int(os.environ[GO_ON])

    def write(*args: object, **kwargs: object) -> str:
        nonlocal left
        if left == 0:
            Path(os.environ["FASTBTS_TEST_REACHED"]).touch()
            time.sleep(600)
        left -= 1
        return write_labels(*args, **kwargs)  # type: ignore[arg-type]

    import fastbts.segmentation

    fastbts.segmentation.write_labels = write  # type: ignore[attr-defined]
    main()


if __name__ == "__main__":
    sys.argv[0] = "fastbts"
    run_until_killed()
