"""Finds the images of a case, and the cases in a folder, by the names of files and folders."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastbts.errors import CaseError, OptionsError
from fastbts.formats.dicom import holds_dicom, is_dicom
from fastbts.read.header import ORDER_OPTION
from fastbts.read.names import (
    Claim,
    is_derived,
    is_image,
    is_numbered,
    narrow_claims,
    numbered_claims,
    suffix_claims,
    wide_claims,
)
from fastbts.read.nifti import count_images
from fastbts.volume import IF_MISSING, MODALITIES

EXPECTED = (
    "*_flair, *_t1, *_t1ce, *_t2, or *-t2f, *-t1n, *-t1c, *-t2w, or BIDS names; .nii or .nii.gz"
)
ONE_BY_ONE = (
    "name the files one by one: --flair FILE --t1 FILE --t1ce FILE --t2 FILE, "
    "predict(flair=..., t1=..., t1ce=..., t2=...)"
)
DICOM = (
    "DICOM, expected NIfTI; `fastbts study FOLDER` (fastbts.read_study) takes a DICOM study as it "
    "comes from the scanner"
)
DEPTH = 4  # of folders below the one that is searched: BIDS has sub-*/ses-*/anat
NOT_SEARCHED = ("derivatives", "sourcedata", "code")
"""Folders of a BIDS dataset that hold none of its own images and labels."""


def check_order(option: str, order: Any, known: Sequence[str], *, all_of: bool = False) -> None:
    """Raises OptionsError unless `order` has different names out of `known`, or all of them."""
    names = [] if isinstance(order, str) or not isinstance(order, Sequence) else list(order)
    right = names and all(name in known and names.count(name) == 1 for name in names)
    if not right or (all_of and len(names) < len(known)):
        raise OptionsError(
            f"{option} {order!r}: expected {'each of' if all_of else 'names out of'} "
            f"{', '.join(known)}, each once, for example {tuple(known)}"
        )


def find_case(
    folder: str | Path, nnunet_order: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> dict[str, Path]:
    """Finds the images of one case by their names, in upper or lower case.

    `*_flair|_t1|_t1ce|_t2` (BraTS to 2021), `*-t2f|-t1n|-t1c|-t2w` (BraTS from 2023),
    `*_FLAIR|_T1w|_ce-*_T1w|_T2w` (BIDS), and the names of other tools as far as they are clear, see
    `fastbts.read.names`; each .nii or .nii.gz. `*_0000` to `*_0003` (nnU-Net) only with
    `nnunet_order`, because those names do not say the modality.

    Returns:
        Modality -> path, in the order flair, t1, t1ce, t2.

    Raises:
        CaseError: A modality that is not in `optional` is missing, two files have the same one, or
            the folder holds several cases or none.
        OptionsError: `nnunet_order` is not a sequence of modalities, each once.
    """
    folder = Path(folder)
    if nnunet_order is not None:
        check_order("nnunet_order", nnunet_order, MODALITIES, all_of=True)
    names = _listed_names(folder)
    claims = _claims(names, nnunet_order)
    if not claims:
        raise CaseError(f"{folder}: {_nothing_found(folder, names)}")
    problem = _ambiguity(claims) or _absence(claims, names, optional)
    if problem:
        raise CaseError(f"{folder}: {problem}")
    found = {claim.modality: folder / claim.name for claim in claims}
    return {modality: found[modality] for modality in MODALITIES if modality in found}


def find_images(
    folder: str | Path,
    modalities: Sequence[str],
    nnunet_order: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> dict[str, Path]:
    """Finds the images of one case of any modalities, at least one of which is not glioma's.

    Files are `*_NAME` or `*-NAME`, in upper or lower case, .nii or .nii.gz; or nnU-Net's `*_0000`,
    ... with `nnunet_order`.

    Returns:
        Modality -> path, in the order of `modalities`.

    Raises:
        CaseError: A modality that is not in `optional` is missing, two files have the same one, or
            the folder holds several cases or none.
        OptionsError: `nnunet_order` is not a sequence of the modalities, each once.
    """
    folder = Path(folder)
    if nnunet_order is not None:
        check_order("nnunet_order", nnunet_order, modalities, all_of=True)
    claims = _claims(_listed_names(folder), nnunet_order, modalities)
    missing = [m for m in modalities if m not in {*optional, *(c.modality for c in claims)}]
    problem = _ambiguity(claims)
    if missing or not claims:
        problem = f"no file for {', '.join(missing or modalities)}"
    if problem:
        named = ", ".join(f"*_{modality}" for modality in modalities)
        raise CaseError(
            f"{folder}: {problem}; expected {named}; .nii or .nii.gz; rename the files, or name "
            "them one by one: --image NAME=FILE, predict({NAME: FILE, ...})"
        )
    found = {claim.modality: folder / claim.name for claim in claims}
    return {modality: found[modality] for modality in modalities if modality in found}


def images_of(
    folder: str | Path,
    modalities: Sequence[str],
    nnunet_order: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> dict[str, Path]:
    """The images that an engine takes: by `find_case` if all are glioma's, else `find_images`."""
    if not set(modalities) <= set(MODALITIES):
        return find_images(folder, modalities, nnunet_order, optional)
    others = [m for m in MODALITIES if m not in modalities]
    found = find_case(folder, nnunet_order, (*optional, *others))
    return {modality: found[modality] for modality in modalities if modality in found}


def find_stack(path: str | Path) -> Path:
    """The 4-D file at a path: the file itself, or the only one in a folder.

    Raises:
        CaseError: The folder cannot be listed, or holds several such files or none.
    """
    path = Path(path)
    if not os.path.isdir(path):
        return path
    listed = _listed_names(path)
    if any(is_dicom(path / name) for name in listed):
        raise CaseError(f"{path}: {DICOM}")
    names = [name for name in listed if is_image(name)]
    stacks = [name for name in names if count_images(path / name) != 1] or names
    if len(stacks) != 1:
        got = _listed(stacks) or "no .nii or .nii.gz file"
        raise CaseError(
            f"{path}: expected one 4-D file, got {got}; give the file, or leave out --channels "
            "(order=...) if each image is a file"
        )
    return path / stacks[0]


def find_cases(
    folder: str | Path,
    *,
    nnunet_order: Sequence[str] | None = None,
    order: Sequence[str] | None = None,
    modalities: Sequence[str] = MODALITIES,
) -> dict[str, Path]:
    """Finds the cases in a folder: the root of a BIDS dataset, or any folder of case folders.

    >>> cases = fastbts.find_cases("dataset")
    >>> results = segmenter.predict_batch(cases.values())

    Args:
        folder: Searched to a depth of four, without hidden folders, `derivatives` and `sourcedata`.
        nnunet_order: See `find_case`.
        order: Given if each case is one 4-D file; these are found then, and nothing else.
        modalities: Of the engine, `segmenter.spec.modalities`.

    Returns:
        Name of each case -> its folder, or its 4-D file, sorted. The names are the parts of the
        paths that differ, for example "sub-01_ses-02".

    Raises:
        CaseError: The folder, or one in it, cannot be listed, or it holds no case.
        OptionsError: Two cases would have the same name.
    """
    folder = Path(folder)
    names = _listed_names(folder)
    found = _cases_in(folder, nnunet_order, order is not None, DEPTH, modalities)
    # A link may lead to a case a second time: the shortest path counts.
    by_depth = sorted(found, key=lambda case: len(case.parts), reverse=True)
    cases = {os.path.realpath(case): case for case in by_depth}
    if not cases:
        raise CaseError(f"{folder}: {_nothing_found(folder, names)}")
    return name_cases(sorted(cases.values()))


def name_cases(cases: Iterable[Path]) -> dict[str, Path]:
    """A name for each case: the parts of its path that differ, joined by "_".

    Raises:
        OptionsError: A case was given twice, or two would have the same name.
    """
    given = list(cases)
    named: dict[str, Path] = {}
    for parts, case in zip(differing_parts(given), given, strict=True):
        name = _without_suffix("_".join(parts))
        if name in named:
            raise OptionsError(
                f"{case}: was given twice, or gets the same name ({name}) as {named[name]}, so one "
                "result would overwrite the other; give each case once, or run them one by one"
            )
        named[name] = case
    return named


def differing_parts(cases: Sequence[Path]) -> list[tuple[str, ...]]:
    """Of each path: its parts without the beginning and the end that all paths share."""
    paths = [Path(os.path.abspath(case)).parts for case in cases]
    begin, end = (_n_shared(each) for each in (paths, [parts[::-1] for parts in paths]))
    inner = [parts[begin : len(parts) - end] for parts in paths]
    if len({len(parts) for parts in inner}) == 1:
        differs = [len(set(level)) > 1 for level in zip(*inner, strict=True)]
        inner = [tuple(itertools.compress(parts, differs)) for parts in inner]
    return [parts or path[-1:] for parts, path in zip(inner, paths, strict=True)]


def _n_shared(paths: Sequence[tuple[str, ...]]) -> int:
    """How many first parts all paths share."""
    levels = zip(*paths, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))


def _without_suffix(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".nii") if is_image(name) else name


def _listed_names(folder: Path) -> list[str]:
    if os.path.isfile(folder):  # Path.is_file raises for a name that is too long
        if is_dicom(folder):
            raise CaseError(f"{folder}: {DICOM}")
        several = count_images(folder) > 1
        raise CaseError(
            f"{folder}: is a file, expected a folder; "
            + (f"say what its images are: {ORDER_OPTION}" if several else ONE_BY_ONE)
        )
    try:
        return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise CaseError(
            f"{folder}: cannot list: {reason}; expected a folder with {EXPECTED}"
        ) from error


def _cases_in(
    folder: Path,
    nnunet_order: Sequence[str] | None,
    stacks: bool,
    depth: int,
    modalities: Sequence[str] = MODALITIES,
) -> Iterator[Path]:
    names = _listed_names(folder)
    if stacks:
        files = [folder / name for name in names if is_image(name)]
        yield from (path for path in files if count_images(path) != 1)  # 0: reading says why
    elif _claims(names, nnunet_order, modalities):
        yield folder
        return
    for name in names if depth else ():
        if name not in NOT_SEARCHED and (folder / name).is_dir():
            yield from _cases_in(folder / name, nnunet_order, stacks, depth - 1, modalities)


def _claims(
    names: Iterable[str],
    nnunet_order: Sequence[str] | None,
    modalities: Sequence[str] = MODALITIES,
) -> list[Claim]:
    """By the narrow rule where the wide one does not contradict it; so other files do no harm."""
    if nnunet_order is not None:
        return list(numbered_claims(names, nnunet_order))
    if not set(modalities) <= set(MODALITIES):
        return list(suffix_claims(names, modalities))
    narrow, wide = list(narrow_claims(names)), list(wide_claims(names))
    clear = narrow and not _ambiguity(narrow) and not _contradiction(narrow, wide)
    # `p_T1_t2` beside `p_T2_t2`, of the times T1 and T2: the wide rule finds only the second.
    lost = {c.name for c in narrow if not is_derived(c.name)} - {c.name for c in wide}
    partial = lost and {c.modality for c in wide} == set(MODALITIES)
    return narrow if clear or partial else wide or narrow


def _contradiction(narrow: Sequence[Claim], wide: Sequence[Claim]) -> bool:
    """Whether the wide rule finds more, or something else, than files made from the narrow ones.

    `p_t1_bias` is made from `p_t1`; `p_t1_pre` has no other word than it, so either may be meant.
    """
    chosen = {claim.name: claim.modality for claim in narrow}
    same = [claim for claim in wide if claim.name in chosen]
    rest = [claim for claim in wide if claim.name not in chosen]
    meant = {(claim.modality, claim.others) for claim in same}
    return (
        any(chosen[claim.name] != claim.modality for claim in same)
        or any(claim.modality not in chosen.values() for claim in rest)
        or any((claim.modality, claim.others) in meant for claim in rest)
    )


def _ambiguity(claims: Sequence[Claim]) -> str | None:
    cases = sorted({claim.case or "without a name" for claim in claims})
    if len(cases) > 1:
        return (
            f"holds files of several cases ({_listed(cases)}); put each case into a folder of its "
            f"own, or {ONE_BY_ONE}"
        )
    rivals = defaultdict(list)
    for claim in claims:
        rivals[claim.modality].append(claim.name)
    double = [
        f"{modality} ({', '.join(names)})" for modality, names in rivals.items() if len(names) > 1
    ]
    if double:
        return (
            f"expected one file per modality, got more for {'; '.join(double)}; remove one, or "
            f"{ONE_BY_ONE}"
        )
    return None


def _absence(claims: Sequence[Claim], names: Sequence[str], optional: Sequence[str]) -> str | None:
    present = {claim.modality for claim in claims}
    missing = [m for m in MODALITIES if m not in optional and m not in present]
    if not missing:
        return None
    found = ", ".join(f"{claim.modality} ({claim.name})" for claim in claims)
    others = [name for name in names if is_image(name) and name not in {c.name for c in claims}]
    unclear = f"; not recognised {_listed(others)}" if others else ""
    return (
        f"no file for {', '.join(missing)}; found {found}{unclear}; expected {EXPECTED}; "
        f"{ONE_BY_ONE}; {IF_MISSING}"
    )


def _nothing_found(folder: Path, names: Sequence[str]) -> str:
    if any(is_dicom(folder / name) for name in names):
        return DICOM
    if any(is_numbered(name) for name in names):
        return (
            "nnU-Net names (_0000 ...) do not say the modality; give nnunet_order, for example "
            f"('t1', 't1ce', 't2', 'flair'), --nnunet-order t1,t1ce,t2,flair, or {ONE_BY_ONE}"
        )
    if cases := list(_cases_in(folder, None, False, DEPTH)):
        return (
            f"holds no images itself, but folders of cases ({_relative(cases, folder)}); give one "
            "of them, or all: predict_batch(find_cases(folder).values())"
        )
    if holds_dicom(folder):
        return DICOM
    stacks = [path for path in _cases_in(folder, None, True, DEPTH) if count_images(path) > 1]
    if stacks:
        return (
            f"holds 4-D files ({_relative(stacks, folder)}); say what their images are: "
            f"{ORDER_OPTION}"
        )
    return (
        f"holds no images of a case; expected {EXPECTED}; got {_listed(names) or 'an empty folder'}"
        f"; {ONE_BY_ONE}"
    )


def _relative(paths: Sequence[Path], folder: Path) -> str:
    return _listed([path.relative_to(folder).as_posix() for path in paths])


def _listed(names: Sequence[str], at_most: int = 6) -> str:
    return ", ".join(names[:at_most]) + (
        f", ... {len(names)} in all" if len(names) > at_most else ""
    )
