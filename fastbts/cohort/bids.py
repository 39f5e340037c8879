"""Results as a BIDS derivative dataset: https://bids-specification.readthedocs.io, 1.10.0.

    OUT/dataset_description.json, README, .bidsignore
    OUT/sub-01/ses-02/anat/sub-01_ses-02_space-orig_seg-brats2021_dseg.nii.gz, .json, .tsv

The JSON file is the report of fastbts with what BIDS asks for.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastbts.about import DISCLAIMER, __version__
from fastbts.cohort.jobs import Job, scheme_of
from fastbts.cohort.summary import NAME as SUMMARY
from fastbts.errors import OptionsError, OutputError
from fastbts.files import atomic_write, write_json
from fastbts.labels import (
    COLOURS,
    ENGINE_SCHEME,
    OTHER_COLOURS,
    REGION_SCHEME,
    SCHEMES,
    label_names,
)
from fastbts.read.names import is_image
from fastbts.spec import EngineSpec
from fastbts.write.ours import TABLE_SUFFIX

VERSION = "1.10.0"
DESCRIPTION = "dataset_description.json"
IGNORED = (SUMMARY, "*_dseg.png", "*_dseg.html")
ENTITY = re.compile(r"(sub|ses)-([0-9A-Za-z]+)")
FOLDERS = re.compile(r"/sub-(?P<sub>[0-9A-Za-z]+)(/ses-(?P<ses>[0-9A-Za-z]+))?(/anat)?$")
FIELDS = {
    "Description": "Brain-tumour labels by fastbts, on the grid of the case's own images",
    "SpatialReference": "orig",
}
README = f"""\
Brain-tumour segmentations by fastbts {__version__}: one label image per case, with a table of its
labels (.tsv) and a report (.json) of volumes, confidence, warnings and settings. summary.csv has a
line for each case. Limits: {DISCLAIMER}.
"""


def bids_files(
    out: Path, cases: Mapping[str, Any], scheme: str, preview: bool = False, html: bool = False
) -> list[dict[str, Path | None]]:
    """For each case the files that `Segmentation.save` writes.

    Args:
        out: The dataset.
        cases: Name -> what `Segmenter.predict` takes.
        scheme: Label scheme.
        preview, html: Whether to write a picture and a page, which validators ignore.
    Raises:
        OptionsError: Two cases would be one subject and session, a case has no name, or the scheme
            has one file per region.
    """
    if scheme == REGION_SCHEME:
        raise OptionsError(
            "--out-format bids: has one label image per case; expected --labels "
            f"{', '.join(SCHEMES)}, not {REGION_SCHEME}"
        )
    stems: dict[Path, str] = {}
    common = common_folder(cases.values())
    for name, case in cases.items():
        stem = _stem(out, entities(name, case, common), scheme)
        if stem in stems:
            raise OptionsError(
                f"--out-format bids: {stems[stem]} and {name} would both be {stem.name}; run them "
                "one by one with different outputs, or rename their folders"
            )
        stems[stem] = name
    return [
        {
            "path": stem.with_name(f"{stem.name}.nii.gz"),
            "sidecar": stem.with_name(f"{stem.name}.json"),
            "preview": stem.with_name(f"{stem.name}.png") if preview else None,
            "html": stem.with_name(f"{stem.name}.html") if html else None,
        }
        for stem in stems
    ]


def common_folder(cases: Iterable[Any]) -> Path:
    """The nearest folder that holds all cases, if these are paths."""
    paths = [Path(case).absolute().parent for case in cases if isinstance(case, str | Path)]
    return Path(os.path.commonpath(paths)) if paths else Path()


def entities(name: str, case: Any, common: Path) -> dict[str, str]:
    """Subject and, where there is one, session: from the folders of the case, else its name.

    Those folders are `sub-X`, `sub-X/ses-Y` or either with `anat` directly above the images, or any
    below the folder `common` of all cases: others are no subjects, for example `sub-project`.

    Raises:
        OptionsError: The name has no letter or digit.
    """
    found: dict[str, str] = {}
    if isinstance(case, str | Path):
        path = Path(case).absolute()
        folder = path.parent if is_image(path.name) else path
        if chain := FOLDERS.search(folder.as_posix()):
            found = {key: value for key, value in chain.groupdict().items() if value}
        else:
            parts = folder.relative_to(common).parts
            found = {m[1]: m[2] for part in parts if (m := ENTITY.fullmatch(part))}
    if "sub" not in found:
        found = {m[1]: m[2] for m in ENTITY.finditer(name)}
    if "sub" not in found:
        found = {"sub": re.sub("[^0-9A-Za-z]", "", name)}
    if not found["sub"]:
        raise OptionsError(
            "--out-format bids: the case has no name to make sub-NAME of; give a case folder"
        )
    return found


def with_table(job: Job, spec: EngineSpec) -> Job:
    """The job with the table of its labels, and with fields in its report."""
    table = job.report.with_suffix(TABLE_SUFFIX)
    text = label_table_of(scheme_of(job.save.get("labels"), spec), spec)
    return replace(job, fields=FIELDS, save={**job.save, "tables": {table: text}})


def label_table_of(scheme: str, spec: EngineSpec) -> str:
    """Columns index, name and color of the labels of a scheme."""
    is_own = scheme == ENGINE_SCHEME
    names = label_names(spec.region_labels) if is_own else SCHEMES[scheme]
    colours = {name: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, name in enumerate(names)}
    colours |= {} if is_own else COLOURS
    lines = [
        f"{value}\t{name}\t#{''.join(f'{x:02X}' for x in colours[name])}"
        for name, value in names.items()
    ]
    return "\n".join(["index\tname\tcolor", *lines]) + "\n"


def prepare_dataset(out: Path, *, overwrite: bool = False) -> None:
    """Writes what a dataset needs besides its cases; several processes may do so at once.

    README and .bidsignore of others stay, unless they may be replaced.

    Args:
        out: The dataset.
        overwrite: Whether files of others may be replaced.

    Raises:
        OutputError: The folder is a dataset of others.
    """
    description = out / DESCRIPTION
    if description.exists() and not overwrite and not _is_ours(description):
        raise OutputError(
            f"{description}: is of a dataset that fastbts did not write; expected a folder of its "
            f"own; choose another output, for example {out / 'derivatives' / 'fastbts'}"
        )
    content = {
        "Name": "Brain-tumour segmentations by fastbts",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "fastbts", "Version": __version__}],
    }
    write_json(description, content)
    for name, text in (("README", README), (".bidsignore", "".join(f"{x}\n" for x in IGNORED))):
        if overwrite or not (out / name).exists() or _is_our_text(out / name):
            with atomic_write(out / name) as file:
                file.write(text.encode())


def _stem(out: Path, found: Mapping[str, str], scheme: str) -> Path:
    parts = [f"{key}-{found[key]}" for key in ("sub", "ses") if key in found]
    name = "_".join([*parts, "space-orig", f"seg-{scheme}", "dseg"])
    return out.joinpath(*parts, "anat", name)


def _is_our_text(path: Path) -> bool:
    """Whether this is a README of any version of fastbts, or a .bidsignore without other lines."""
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError):
        return False
    begin = README.partition(__version__)[0]
    return text.startswith(begin) or {*text.splitlines()} <= {*IGNORED}


def _is_ours(description: Path) -> bool:
    try:
        made_by = json.loads(description.read_bytes())["GeneratedBy"]
        return bool(made_by[0]["Name"] == "fastbts")
    except (OSError, ValueError, LookupError, TypeError):
        return False
