"""Small cases for cohorts, and `fastbts predict` in a process that can be killed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

import fastbts.segmentation
from fastbts import files
from fastbts.cli import main
from fastbts.phantom import make_case

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
    """The command line; it stops in the middle of a result after some complete ones.

    Then the image is written, and the report in part: before any file has its name (stage "write"),
    or when the image has its own and the report does not (stage "name").
    """
    left = int(os.environ[GO_ON])
    stage = os.environ["FASTBTS_TEST_STAGE"]
    give_name = files._NewFile.give_final_name

    def stop() -> None:
        nonlocal left
        if left == 0:
            Path(os.environ["FASTBTS_TEST_REACHED"]).touch()
            time.sleep(600)
        left -= 1

    def write(path: Path, content: Mapping[str, Any], open_file: files.OpenFile) -> None:
        if left == 0:
            with open_file(path) as file:
                file.write(b"{")
                file.flush()
                stop()
        stop()
        files.write_json(path, content, open_file)

    def name(self: files._NewFile) -> None:
        if self.path.name == "report.json":
            stop()
        give_name(self)

    if stage == "write":
        fastbts.segmentation.write_json = write  # type: ignore[attr-defined]
    else:
        files._NewFile.give_final_name = name  # type: ignore[method-assign]
    main()


if __name__ == "__main__":
    sys.argv[0] = "fastbts"
    run_until_killed()
