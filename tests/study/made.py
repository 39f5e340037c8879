"""Series and DICOM files for tests, without the images of a patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fastbts.phantom.case import PhantomCase, make_case
from fastbts.phantom.skull import with_skull
from fastbts.phantom.study import FLAIR, T1, T1CE, T2, Scan, _header, write_slice
from fastbts.study.read_dicom import Found, Refused
from fastbts.study.series import Facts, Series
from fastbts.volume import Geometry

SHAPE = (48, 48, 32)  # of the phantom: 5 mm
AFFINE = np.diag([-1.0, -1, 1, 1])


@cache
def head() -> PhantomCase:
    """The phantom with a skull at 5 mm."""
    return with_skull(make_case(0, SHAPE))


def series(
    name: str = "image",
    te: float | None = None,
    tr: float | None = None,
    ti: float | None = None,
    *,
    spacing: tuple[float, float, float] = (1, 1, 5),
    shape: tuple[int, int, int] = (200, 200, 30),
    read: Callable[[], Any] = lambda: None,
    **facts: Any,
) -> Series:
    """A series that has a header alone."""
    geometry = Geometry(shape, AFFINE * [*spacing, 1])
    given = {"texts": (name,), **facts}
    return Series(
        name, f"1.2.{name}", geometry, Facts(te_ms=te, tr_ms=tr, ti_ms=ti, **given),
        (Path(name),), "dicom", read,
    )  # fmt: skip


FOUR = {
    "flair": series("dark fluid", 93, 9000, 2500, sequence=("SE", "IR")),
    "t1": series("t1", 9, 600, sequence=("SE",)),
    "t1ce": series("t1 km", 9, 600, sequence=("SE",), contrast_agent="GADOVIST"),
    "t2": series("t2 tse", 99, 5500, sequence=("SE",)),
}


def found(*more: Series, without: str = "", refused: tuple[Refused, ...] = ()) -> Found:
    """Four good series, and more."""
    return Found((*(s for m, s in FOUR.items() if m != without), *more), refused)


def write_series(
    folder: Path,
    scan: Scan,
    number: int = 1,
    n_slices: int = 20,
    header: Mapping[str, Any] | None = None,
    *,
    change: Callable[[int], Mapping[str, Any]] = lambda n: {},
    leave_out: tuple[int, ...] = (),
) -> list[Path]:
    """Files of one series: 24 x 20 pixels of 8 mm, slices 6 mm apart, values by position."""
    folder.mkdir(exist_ok=True, parents=True)
    geometry = Geometry((24, 20, n_slices), AFFINE * [8, 8, 6, 1])
    values = np.indices(geometry.shape).astype(np.uint16)
    pixels, paths = values[0] + 100 * values[1] + 1000 * values[2], []
    for k in range(n_slices):
        if k in leave_out:
            continue
        path = folder / f"{(k * 7919 + number * 104729) % 1000003:06d}"
        fields = {**_header(scan, number, 0), "InstanceNumber": n_slices - k}
        fields |= {**(header or {}), **change(k)}
        write_slice(path, pixels[:, :, k].astype(np.uint16), geometry, k, fields)
        paths.append(path)
    return paths


def write_four(folder: Path, header: Mapping[str, Any] | None = None) -> dict[str, list[Path]]:
    """Headers of a whole study, with pixels that show nothing."""
    scans = {"flair": FLAIR, "t1": T1, "t1ce": T1CE, "t2": T2}
    return {
        modality: write_series(folder, scan, number, header=header)
        for number, (modality, scan) in enumerate(scans.items(), 1)
    }


def unmoved(scan: Scan) -> Scan:
    """The same scan on the grid of the case."""
    return replace(scan, spacing_mm=None, degrees=(0, 0, 0), mm=(0, 0, 0))
