"""Finds label images of cases in folders, and which result belongs to which reference."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

from fastbts.errors import CaseError
from fastbts.formats.dicom import holds_dicom
from fastbts.read.find import NOT_SEARCHED, differing_parts
from fastbts.spec import REGIONS
from fastbts.write.nifti import IMAGE_SUFFIXES, image_stem

WHOLE = ""
LABELS = re.compile(rf"(?P<stem>.*seg)(_(?P<region>{'|'.join(REGIONS)}))?", re.IGNORECASE)
"""Stem of a label image: `seg`, `case1_seg`, `sub-01_dseg`, or a mask, `seg_WT`."""
ENDING = re.compile(r"([._-]?(space|seg|desc)-[0-9A-Za-z]+)*[._-]?d?seg$", re.IGNORECASE)
NO_PART = "anat"  # of a case's name
ENTITY = re.compile("(sub|ses)-")
DEPTH = 4

Labels = Mapping[str, Path]
"""Label image of a case with the key "", or masks by region."""


@dataclass(frozen=True)
class Pairs:
    """Results and references of the same cases.

    Attributes:
        pairs: Name of the case -> result and reference.
        alone: Names of results without a reference.
        missing: Names of references without a result.
        files: All label images that were found.
    """

    pairs: Mapping[str, tuple[Labels, Labels]]
    alone: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Found:
    """A case on one side: its labels, and the parts of its name."""

    labels: Labels
    parts: tuple[str, ...]


_Named = Mapping[str, tuple[str, Labels]]
"""What is compared of a name -> the name, and the labels."""


def find_pairs(results: Path, references: Path) -> Pairs:
    """Pairs label images of the same name; of one and one the names do not matter.

    A name is the parts of the path that differ among the cases, as `find_cases` names them, or all
    parts below the given folder: those that pair the most cases. Upper case, punctuation and "sub-"
    do not count: `sub-case01` belongs to `Case_01`.

    Args:
        results: A label image, or a folder of them, see `find_labels`.
        references: The same. Results in a folder below it are not taken for references.
    Raises:
        CaseError: A folder holds no label image, two have one name, or no names agree.
    """
    found, expected = find_labels(results), find_labels(references, without=results)
    files = tuple(path for one in (*found, *expected) for path in one.labels.values())
    if len(found) == len(expected) == 1:
        (name,), (other,) = _long(found), _long(expected)
        return Pairs({name or other or "case": (found[0].labels, expected[0].labels)}, files=files)
    ways = list(product(_namings(found, results), _namings(expected, references)))
    if _of_others(found, expected):
        ways = ways[:-1]
    mine, theirs = max(ways, key=lambda way: len(way[0].keys() & way[1].keys()))
    shared = {name: (mine[key][1], labels) for key, (name, labels) in theirs.items() if key in mine}
    if not shared:
        raise CaseError(
            f"{results}: no case has a reference in {references}: results of "
            f"{_listed(_long(found))}, references of {_listed(_long(expected))}; give folders or "
            "files of a case the same name"
        )
    alone = tuple(name for key, (name, _) in mine.items() if key not in theirs)
    missing = tuple(name for key, (name, _) in theirs.items() if key not in mine)
    return Pairs(shared, alone, missing, files)


def find_labels(place: Path, without: Path | None = None) -> list[_Found]:
    """The label images in a folder, by case.

    These are the files `*seg.nii.gz` (or .nii, or masks `*seg_WT`, `_TC`, `_ET`) to a depth of
    four, named by their folders: what `fastbts predict` writes, folders of BraTS cases, BIDS
    derivatives. Several in one folder are named by themselves, `case1_seg.nii.gz`. Where there is
    none, all images of the folder itself are, `case1.nii.gz`. Folders `derivatives`, `sourcedata`
    and `code` below the given one are not searched.

    Args:
        place: The folder, or one label image.
        without: A folder that is not searched.
    Raises:
        CaseError: There is none, or two cases would have one name.
    """
    if place.is_file():
        return [_Found({WHOLE: place}, ())]
    skipped = without.absolute() if without else None
    images = [p for p in _files(place, DEPTH, skipped) if p.name.lower().endswith(IMAGE_SUFFIXES)]
    cases: dict[tuple[Path, str], dict[str, Path]] = defaultdict(dict)
    for path in images:
        if named := LABELS.fullmatch(image_stem(path)):
            region = (named["region"] or WHOLE).upper()
            cases[path.parent, named["stem"]][region] = path
    cases = cases or {(place, image_stem(p)): {WHOLE: p} for p in images if p.parent == place}
    n_in = Counter(folder for folder, _ in cases)
    found: dict[tuple[str, ...], Labels] = {}
    for (folder, stem), labels in sorted(cases.items()):
        inside = tuple(part for part in folder.relative_to(place).parts if part != NO_PART)
        own = n_in[folder] > 1 or not inside
        parts = (ENDING.sub("", stem),) if own else inside
        if parts in found:
            raise CaseError(
                f"{place}: two label images of case {'_'.join(parts)!r}: "
                f"{_listed([p.name for x in (found[parts], labels) for p in x.values()])}; "
                "remove one, or give its folder alone"
            )
        found[parts] = labels
    if not found and holds_dicom(place):
        raise CaseError(
            f"{place}: DICOM, expected label images in NIfTI; `fastbts study FOLDER` segments a "
            "DICOM study, and writes seg.nii.gz"
        )
    if not found:
        raise CaseError(
            f"{place}: no label images; expected *seg.nii.gz in it or in folders of cases, or one "
            f"image for each case, .nii or .nii.gz; {', '.join(NOT_SEARCHED)} are not searched"
        )
    return [_Found(labels, parts) for parts, labels in found.items()]


def _long(found: Sequence[_Found]) -> list[str]:
    return ["_".join(one.parts) for one in found]


def _short(found: Sequence[_Found]) -> list[str]:
    """Without the parts that all have."""
    if not all(any(one.parts) for one in found):
        return _long(found)
    return ["_".join(parts) for parts in differing_parts([Path(*one.parts) for one in found])]


def _namings(found: Sequence[_Found], place: Path) -> list[_Named]:
    """The cases by long names and by short ones."""
    long, short = _by_key(_long(found), found), _by_key(_short(found), found)
    if len(long) < len(found):
        first, second = next((a, b) for a, b in combinations(_long(found), 2) if _key(a) == _key(b))
        raise CaseError(f"{place}: {first!r} and {second!r} count as one name; rename one")
    return [long, short if len(short) == len(found) else long]


def _by_key(names: Iterable[str], found: Sequence[_Found]) -> _Named:
    return {_key(name): (name, one.labels) for name, one in zip(names, found, strict=True)}


def _key(name: str) -> str:
    return re.sub("[^0-9a-z]", "", name.lower().removeprefix("sub-"))


def _of_others(found: Sequence[_Found], expected: Sequence[_Found]) -> bool:
    """Whether one side is of another subject or session as a whole, so short names say nothing."""
    mine, theirs = (
        {p[:4]: p for p in set.intersection(*(set(one.parts) for one in side)) if ENTITY.match(p)}
        for side in (found, expected)
    )
    return any(mine[key] != theirs[key] for key in mine.keys() & theirs.keys())


def _files(folder: Path, depth: int, skipped: Path | None) -> Iterable[Path]:
    try:
        entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise CaseError(
            f"{folder}: cannot list: {error.strerror}; expected a label image, or a folder of them"
        ) from error
    for path in entries:
        if path.is_file():
            yield path
        elif depth and path.is_dir() and not _is_skipped(path, skipped):
            yield from _files(path, depth - 1, skipped)


def _is_skipped(folder: Path, skipped: Path | None) -> bool:
    return folder.name in NOT_SEARCHED or folder.absolute() == skipped


def _listed(names: Iterable[str]) -> str:
    first = [name or "one case" for name in names]
    return ", ".join(first[:4]) + (f", ... {len(first)} in all" if len(first) > 4 else "")
