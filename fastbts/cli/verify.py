"""Checks written results against their own report: `fastbts verify OUT`. Needs no backend."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastbts.about import __version__
from fastbts.cli.findings import Finding
from fastbts.engine.file import read_engine_file
from fastbts.engine.load import default_engine_path
from fastbts.errors import FastBTSError, InputError
from fastbts.labels import REGION_SCHEME, SCHEMES
from fastbts.read.nifti import read_header

REPORT = "report.json"
MAX_REPORT_BYTES = 1 << 20
VOLUME_TOLERANCE = 1e-4  # relative: a float32 affine gives a voxel's volume no better


def reports_in(folder: str | Path) -> list[Path]:
    """The reports of one result folder, or of all cases in it.

    Raises:
        InputError: There is none.
    """
    folder = Path(folder)
    found = [folder / REPORT] if (folder / REPORT).is_file() else sorted(folder.glob(f"*/{REPORT}"))
    if not found:
        raise InputError(
            f"{folder}: no {REPORT} in it; expected a folder that `fastbts predict` wrote"
        )
    return found


def verify_result(report_path: Path, engine: str | Path | None = None) -> Iterator[Finding]:
    """Compares a report with the files beside it.

    Args:
        report_path: `report.json` of a result.
        engine: The engine file that should have made it; None for the shipped one.
    Yields:
        One finding each for the report, every image's bytes and grid, the volumes, the engine and the version.
    """
    try:
        report = _read_report(report_path)
        yield Finding(
            "report", True, f"{report['engine']['name']}, scheme {report['label_scheme']}"
        )
        images = [report_path.parent / name for name in report["files_sha256"]]
        for path, digest in zip(images, report["files_sha256"].values(), strict=True):
            yield from _image(path, digest, report["input"])
        yield _volumes(images, report)
        yield _engine(Path(engine or default_engine_path()), report["engine"]["sha256"])
        yield _version(report["software"]["fastbts"])
    except (FastBTSError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield Finding(
            "report", False, f"{report_path}: cannot be used: {type(error).__name__}: {error}"
        )


def _read_report(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_REPORT_BYTES:
        raise InputError(f"{path.stat().st_size} bytes, at most {MAX_REPORT_BYTES} are read")
    report: dict[str, Any] = json.loads(path.read_bytes())
    for name in report["files_sha256"]:
        if Path(name).name != name:
            raise InputError(f"names the file {name!r}, which is not beside it")
    return report


def _image(path: Path, digest: str, given: dict[str, Any]) -> Iterator[Finding]:
    if not path.is_file():
        yield Finding(path.name, False, "missing, though the report names it")
        return
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    yield Finding(
        path.name,
        got == digest,
        "as written" if got == digest else f"sha256 {got}, the report says {digest}",
    )
    geometry = read_header(path).geometry
    grid = {
        "shape": list(geometry.shape),
        "spacing_mm": [round(s, 6) for s in geometry.spacing_mm],
        "orientation": geometry.axis_codes,
    }
    differing = [f"{k} {v}, the input had {given[k]}" for k, v in grid.items() if v != given[k]]
    yield Finding(
        f"grid of {path.name}", not differing, "; ".join(differing) or "that of the input"
    )


def _volumes(images: list[Path], report: dict[str, Any]) -> Finding:
    """Counts voxels again: an image may be whole, and yet not the one that the report speaks of."""
    import nibabel as nib

    arrays = [np.asarray(nib.load(path).dataobj) for path in images]
    voxel_ml = read_header(images[0]).geometry.voxel_ml
    names = list(report["volumes_ml"])
    if report["label_scheme"] == REGION_SCHEME:
        counted = [int(np.count_nonzero(array)) * voxel_ml for array in arrays]
    else:
        ncr, _, et = SCHEMES[report["label_scheme"]].values()
        parts = [arrays[0] > 0, np.isin(arrays[0], (ncr, et)), arrays[0] == et]
        counted = [int(np.count_nonzero(part)) * voxel_ml for part in parts]
    wanted = [float(report["volumes_ml"][name]) for name in names]
    same = np.allclose(counted, wanted, rtol=VOLUME_TOLERANCE, atol=0)
    told = ", ".join(f"{n} {c:.3f} ml" for n, c in zip(names, counted, strict=True))
    return Finding("volumes", bool(same), told if same else f"{told}; the report says {wanted}")


def _engine(path: Path, digest: str) -> Finding:
    got = read_engine_file(path).sha256
    way_out = f"{path.name} has sha256 {got}, the report says {digest}; name the engine that was used with --engine"
    return Finding("engine", got == digest, f"made by {path.name}" if got == digest else way_out)


def _version(made_by: str) -> Finding:
    """Another version is worth a word, but no fault of the result."""
    return Finding(
        "version",
        True,
        f"fastbts {made_by}" + ("" if made_by == __version__ else f", here {__version__}"),
    )
