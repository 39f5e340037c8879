"""Finds label images of cases in folders, and which result belongs to which reference."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastbts.errors import CaseError
from fastbts.spec import REGIONS
from fastbts.write.nifti import IMAGE_SUFFIXES, image_stem

WHOLE = ""
LABELS = re.compile(rf"(?P<stem>.*seg)(_(?P<region>{'|'.join(REGIONS)}))?", re.IGNORECASE)
"""Stem of a label image: `seg`, `case1_seg`, `sub-01_dseg`, or a mask, `seg_WT`."""
ENDING = re.compile(r"([._-]?(space|seg|desc)-[0-9A-Za-z]+)*[._-]?d?seg$", re.IGNORECASE)
NO_PART = ("anat", "sourcedata", "derivatives")  # of a case's name
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
    """

    pairs: Mapping[str, tuple[Labels, Labels]]
    alone: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def find_pairs(results: Path, references: Path) -> Pairs:
    """Pairs label images of the same name; of one and one the names do not matter.

    Upper case, punctuation and "sub-" do not count: `sub-case01` belongs to `Case_01`.

    Args:
        results: A label image, or a folder of them, see `find_labels`.
        references: The same.
    Raises:
        CaseError: A folder holds no label image, two have one name, or no names agree.
    """
    found, expected = find_labels(results), find_labels(references)
    if len(found) == len(expected) == 1:
        (name, labels), (other, reference) = *found.items(), *expected.items()
        return Pairs({name or other or "case": (labels, reference)})
    by_key, names = _by_key(found, results), _by_key(expected, references)
    shared = {
        names[key]: (found[by_key[key]], expected[names[key]]) for key in names if key in by_key
    }
    if not shared:
        raise CaseError(
            f"{results}: no case has a reference in {references}: results of {_listed(found)}, "
            f"references of {_listed(expected)}; give folders or files of a case the same name"
        )
    alone = tuple(name for key, name in by_key.items() if key not in names)
    return Pairs(shared, alone, tuple(n for key, n in names.items() if key not in by_key))


def find_labels(place: Path) -> dict[str, Labels]:
    """The label images in a folder by the name of their case, sorted.

    These are the files `*seg.nii.gz` (or .nii, or masks `*seg_WT`, `_TC`, `_ET`) to a depth of
    four, named by their folders: what `fastbts predict` writes, folders of BraTS cases, BIDS
    derivatives. Several in one folder are named by themselves, `case1_seg.nii.gz`. Where there is
    none, all images of the folder itself are, `case1.nii.gz`.

    Raises:
        CaseError: There is none, or two cases would have one name.
    """
    if place.is_file():
        return {"": {WHOLE: place}}
    images = [p for p in _files(place, DEPTH) if p.name.lower().endswith(IMAGE_SUFFIXES)]
    cases: dict[tuple[Path, str], dict[str, Path]] = defaultdict(dict)
    for path in images:
        if named := LABELS.fullmatch(image_stem(path)):
            region = (named["region"] or WHOLE).upper()
            cases[path.parent, named["stem"]][region] = path
    cases = cases or {(place, image_stem(p)): {WHOLE: p} for p in images if p.parent == place}
    n_in = Counter(folder for folder, _ in cases)
    found: dict[str, Labels] = {}
    for (folder, stem), labels in cases.items():
        inside = [part for part in folder.relative_to(place).parts if part not in NO_PART]
        own = n_in[folder] > 1 or not (inside or len(cases) == 1)
        name = ENDING.sub("", stem) if own else "_".join(inside)
        if name in found:
            raise CaseError(
                f"{place}: two label images of case {name!r}: "
                f"{_listed([p.name for x in (found[name], labels) for p in x.values()])}; "
                "remove one, or give its folder alone"
            )
        found[name] = labels
    if not found:
        raise CaseError(
            f"{place}: no label images; expected *seg.nii.gz in it or in folders of cases, or one "
            "image for each case, .nii or .nii.gz"
        )
    return dict(sorted(found.items()))


def _files(folder: Path, depth: int) -> Iterable[Path]:
    try:
        entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise CaseError(
            f"{folder}: cannot list: {error.strerror}; expected a label image, or a folder of them"
        ) from error
    for path in entries:
        if path.is_file():
            yield path
        elif depth and path.is_dir():
            yield from _files(path, depth - 1)


def _by_key(names: Iterable[str], place: Path) -> dict[str, str]:
    keys: dict[str, str] = {}
    for name in names:
        key = re.sub("[^0-9a-z]", "", name.lower().removeprefix("sub-"))
        if key in keys:
            raise CaseError(f"{place}: {keys[key]!r} and {name!r} count as one name; rename one")
        keys[key] = name
    return keys


def _listed(names: Iterable[str]) -> str:
    first = [name or "one case" for name in names]
    return ", ".join(first[:4]) + (f", ... {len(first)} in all" if len(first) > 4 else "")
