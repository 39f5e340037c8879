"""The files of one result: their names, and the files of earlier results that they replace."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastbts import labels as schemes
from fastbts.errors import OptionsError, OutputError
from fastbts.files import check_writable
from fastbts.spec import REGIONS
from fastbts.write.kinds import Kind, kind_of, sidecar_of
from fastbts.write.nifti import IMAGE_SUFFIXES, image_stem
from fastbts.write.ours import is_ours, listed_files

IMAGE, REPORT, PREVIEW, VIEWER = "seg.nii.gz", "report.json", "preview.png", "viewer.html"
SEG, SR, NRRD = "seg.dcm", "sr.dcm", "seg.seg.nrrd"
"""Names in a result folder."""
PAGES = (".html", ".htm")
"""Suffixes of pages."""


def case_files(folder: Path, preview: bool = False, html: bool = False) -> dict[str, Path | None]:
    """The files of a result in a folder of its own."""
    return {
        "path": folder / IMAGE,
        "sidecar": folder / REPORT,
        "preview": folder / PREVIEW if preview else None,
        "html": folder / VIEWER if html else None,
    }


@dataclass(frozen=True)
class Outputs:
    """The files of one result.

    Attributes:
        paths: As they were named; with the scheme "regions" no NIfTI file has such a name.
        images: The files of labels: one for each path, or for NIfTI one per region.
        preview: The picture, if there is one.
        html: The page, if there is one.
        report: The JSON file, which lists the others.
        tables: Further text files -> their content.
        overwrite: Whether they may replace files that fastbts did not write.
        regions: Names of the regions, of which an earlier result may have masks.
    """

    paths: tuple[Path, ...]
    images: tuple[Path, ...]
    preview: Path | None
    html: Path | None
    report: Path
    overwrite: bool = False
    regions: tuple[str, ...] = REGIONS
    tables: Mapping[Path, str] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """All files in the order of writing: images, preview, page, tables, report."""
        shown = [path for path in (self.preview, self.html) if path]
        return [*self.images, *shown, *self.tables, self.report]

    def check_not_of_others(self) -> None:
        """Raises OutputError if one of the files is of others, unless it may be replaced.

        A table that a killed process left is listed by no report, and is ours by its content.
        """
        left = [path for path, text in self.tables.items() if _holds(path, text)]
        check_not_of_others([path for path in self.files if path not in left], self.overwrite)


def check_outputs(
    path: str | Path | Sequence[str | Path],
    *,
    labels: str | None = None,
    sidecar: str | Path | None = None,
    preview: str | Path | None = None,
    html: str | Path | None = None,
    tables: Mapping[Path, str] | None = None,
    overwrite: bool = False,
    inputs: Iterable[str | Path] = (),
    regions: tuple[str, ...] = REGIONS,
) -> Outputs:
    """The files that `Segmentation.save` writes with these arguments; finds out whether it can.

    Call it before the work; it leaves nothing behind.

    Args:
        path: See `save`.
        labels: See `save`.
        sidecar: See `save`.
        preview: See `save`.
        html: See `save`.
        tables: See `save`.
        overwrite: See `save`.
        inputs: Files that must not be overwritten, as far as they are known.
        regions: Of the engine.
    Returns:
        The files.
    Raises:
        OptionsError, OutputError: See `save`.
    """
    paths = named_paths(path)
    report = sidecar_of(paths[0]) if sidecar is None else Path(sidecar)
    picture, page = (None if shown is None else Path(shown) for shown in (preview, html))
    if page:
        check_suffix(page)
    images = tuple(file for named in paths for file in _image_files(named, labels, regions))
    outputs = Outputs(paths, images, picture, page, report, overwrite, regions, tables or {})
    inputs = list(inputs)
    for target in outputs.files:
        check_writable(target, inputs)
    _check_distinct(outputs)
    outputs.check_not_of_others()
    return outputs


def check_single(
    path: str | Path,
    suffixes: Sequence[str],
    *,
    overwrite: bool = False,
    inputs: Iterable[str | Path] = (),
) -> Path:
    """A file that is written alone, such as a page or table; finds out whether it can be.

    Args:
        path: The file.
        suffixes: That its name may end in, the usual one first.
        overwrite: Whether it may replace a file that fastbts did not write.
        inputs: Files that must not be overwritten.
    Returns:
        The path.
    Raises:
        OptionsError: The name ends in another suffix.
        OutputError: It cannot be written, is an input or the report of a result, or is a file of
            others.
    """
    target = Path(path)
    check_suffix(target, suffixes)
    check_writable(target, inputs)
    if listed_files(target):
        raise OutputError(f"{target}: is the report of a result; choose another output")
    check_not_of_others([target], overwrite)
    return target


def check_suffix(path: Path, suffixes: Sequence[str] = PAGES) -> None:
    """Raises OptionsError if a file has another suffix, for example one that browsers ignore."""
    if path.suffix.lower() not in suffixes:
        raise OptionsError(f"{path}: expected a name that ends in {suffixes[0]}; rename the output")


def named_paths(path: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """One path or several, of one folder.

    Raises:
        OptionsError: There is none, or they are in several folders.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    if len({Path(named).parent for named in paths}) != 1:
        raise OptionsError(
            f"path: expected one file, or several in one folder, got {[str(p) for p in paths]}"
        )
    return tuple(map(Path, paths))


def replaced_files(outputs: Outputs) -> list[Path]:
    """Files of an earlier result that would pass for parts of this one, reports first.

    These are, with the same name before the suffix, masks of another scheme, the other suffix, a
    preview or page, and what the report that is replaced lists beside them. Not among them: the new
    files, files of others, and files that a report lists which stays.

    Raises:
        OutputError: A file that fastbts did not write has appeared since `check_outputs`.
    """
    outputs.check_not_of_others()
    new = outputs.files
    reports = [report for report in _possible_reports(outputs) if _is_replaced(report, outputs)]
    possible = list(_possible_files(outputs))
    names = {path.name for path in possible}
    # A report that lists none of them is of a result with another name, whose images stay.
    listed = [
        report.with_name(name)
        for report in reports
        if not names.isdisjoint(listed_files(report))
        for name in listed_files(report)
    ]
    found = [path for path in (*reports, *listed, *possible) if path not in new]
    found = [path for path in dict.fromkeys(found) if is_ours(path)]
    if not found:
        return []
    folder = outputs.paths[0].parent
    staying = [path for path in folder.glob("*.json") if path not in (*reports, outputs.report)]
    kept = {folder / name for report in staying for name in listed_files(report)}
    return [path for path in found if path not in kept]


def kept_files(outputs: Outputs) -> list[Path]:
    """Files that would pass for parts of this result, but are of others or were changed since."""
    possible = (path for path in _possible_files(outputs) if path not in outputs.files)
    return [path for path in possible if os.path.lexists(path) and not is_ours(path)]


def check_not_of_others(targets: Iterable[Path], overwrite: bool) -> None:
    """Raises OutputError if fastbts did not write one of these files, unless it may be replaced."""
    for target in targets:
        if not overwrite and _is_of_others(target):
            raise OutputError(
                f"{target}: exists, and fastbts did not write it or it was changed since; expected "
                "a new name or a result of fastbts; choose another output, or replace the file "
                "with --overwrite (in Python: overwrite=True)"
            )


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _is_of_others(target: Path) -> bool:
    """Looks twice: another process may be replacing its result, and the file is missing between."""
    for pause_s in (0.2, 0.0):
        if not os.path.lexists(target) or is_ours(target):
            return False
        time.sleep(pause_s)
    return True


def _possible_reports(outputs: Outputs) -> list[Path]:
    usual = [sidecar_of(path) for path in outputs.paths]
    return [outputs.report, *usual, outputs.paths[0].with_name(REPORT)]


def _is_replaced(report: Path, outputs: Outputs) -> bool:
    """Whether a report is overwritten, or lists an image that is."""
    names = {image.name for image in outputs.images}
    return report == outputs.report or not names.isdisjoint(listed_files(report))


def _possible_files(outputs: Outputs) -> Iterator[Path]:
    """Images, previews and pages that an earlier result with the same name may have."""
    for path in outputs.paths:
        yield from _same_name(path, outputs.regions)
    if outputs.report.name == REPORT:
        for name in (PREVIEW, VIEWER, SEG, SR, NRRD):
            yield outputs.paths[0].with_name(name)


def _same_name(path: Path, regions: tuple[str, ...]) -> Iterator[Path]:
    """The file, and for NIfTI those with another suffix, masks of regions, preview and page."""
    if kind_of(path) is not Kind.NIFTI:
        yield path
        return
    stem = image_stem(path)
    for suffix in IMAGE_SUFFIXES:
        for region in ("", *(f"_{region}" for region in regions)):
            yield path.with_name(f"{stem}{region}{suffix}")
    yield path.with_name(f"{stem}.png")
    yield path.with_name(f"{stem}.html")


def _check_distinct(outputs: Outputs) -> None:
    places = [os.path.realpath(file) for file in outputs.files]
    for file, place in zip(outputs.files, places, strict=True):
        if places.count(place) > 1:
            raise OutputError(
                f"{file}: is two of image, sidecar, preview, page and table, so one would "
                "overwrite the other; expected different files; choose another sidecar, preview or "
                "page"
            )


def _image_files(path: Path, scheme: str | None, regions: tuple[str, ...]) -> tuple[Path, ...]:
    schemes.check_scheme(scheme)
    if kind_of(path) is not Kind.NIFTI or scheme != schemes.REGION_SCHEME:
        return (path,)
    stem = image_stem(path)
    suffix = path.name[len(stem) :]
    return tuple(path.with_name(f"{stem}_{region}{suffix}") for region in regions)
