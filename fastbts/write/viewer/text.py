"""The text of the page as HTML: controls, volumes, warnings, and what made the result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from fastbts.write.words import REGION_WORDS, TISSUES, TITLES, one_line

VIEWS = {
    "planes": "three planes and 3D",
    "axial": "axial",
    "coronal": "coronal",
    "sagittal": "sagittal",
    "render": "3D",
}
FIRST_IMAGE = "t1ce"
PLANES = {"z": "axial", "y": "coronal", "x": "sagittal"}
MAX_WARNING = 600  # characters


def panel(number: int, heading: str, content: Mapping[str, Any]) -> str:
    """The place of a result's images, and the sliders that move its slices."""
    sliders = "\n".join(
        f"<label><span>{plane}</span>"
        f'<input type="range" data-axis="{axis}" min="0" max="{content["sides"][at]["size"] - 1}"'
        ' value="0" disabled><output></output></label>'
        for axis, plane in PLANES.items()
        for at in ["xyz".index(axis)]
    )
    title = f"<h2>{escape(heading)}</h2>\n" if heading else ""
    reduced = max(side["step"] for side in content["sides"]) > 1
    note = '<p class="small">Large images: not every voxel is shown.</p>\n' if reduced else ""
    return (
        f'<figure class="panel">\n{title}<div class="screen">'
        f'<canvas id="screen-{number}" tabindex="0" role="img" aria-label="images"></canvas>'
        '<p class="status" role="status">Loading the images</p></div>\n'
        f'<div class="positions">\n{sliders}\n</div>\n{note}</figure>'
    )


def controls(contents: Sequence[Mapping[str, Any]]) -> str:
    """What the images show: which one, in which view, with which labels."""
    images = list(dict.fromkeys(name for one in contents for name in one["images"]))
    first = FIRST_IMAGE if FIRST_IMAGE in images else images[0]
    options = "".join(
        f'<option value="{escape(name)}"{" selected" if name == first else ""}>'
        f"{escape(TITLES.get(name, name))}</option>"
        for name in images
    )
    views = "\n".join(
        f'<label class="choice"><input type="radio" name="view" value="{view}"'
        f"{' checked' if view == 'planes' else ''}>{words}</label>"
        for view, words in VIEWS.items()
    )
    sizes = [[side["n"] for side in one["sides"]] for one in contents]
    alike = " checked" if all(size == sizes[0] for size in sizes) else ""
    together = (
        f'<label class="choice"><input type="checkbox" name="together"{alike}>'
        "move both together</label>\n"
    )
    return (
        '<fieldset><legend>Image</legend>\n<label class="choice">Contrast '
        f'<select name="image">{options}</select></label>\n<div class="row">\n{views}\n</div>\n'
        '<div class="row"><button type="button" name="centre">Go to the tumour</button></div>\n'
        f"{together if len(contents) > 1 else ''}</fieldset>\n{_label_controls(contents)}"
    )


def _label_controls(contents: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(label["name"] for one in contents for label in one["labels"])
    boxes = "\n".join(
        f'<label class="choice"><input type="checkbox" name="label" value="{escape(name)}" checked>'
        f'<span class="swatch swatch-{n}"></span>{escape(_words(name, TISSUES))}</label>'
        for n, name in enumerate(names)
    )
    regions = {name: labels for one in contents for name, labels in one["regions"].items()}
    buttons = "\n".join(
        f'<button type="button" data-region="{escape(json.dumps(labels))}" '
        f'title="show {escape(_words(region, REGION_WORDS))}">{escape(region)}</button>'
        for region, labels in regions.items()
    )
    return (
        f"<fieldset><legend>Labels</legend>\n{boxes}\n"
        f'<div class="row"><span>Show</span>\n{buttons}\n'
        '<button type="button" data-region="[]">none</button></div>\n'
        '<label class="slider"><span>Opacity</span><input type="range" name="opacity" min="0" '
        'max="100" step="5" value="50"><output>50 %</output></label></fieldset>'
    )


def volumes(report: Mapping[str, Any]) -> str:
    """A table of the regions: volume, and the Dice to be expected where the report has it."""
    expected = report.get("confidence") or {}
    rows = [
        [region, f"{ml:.1f} ml", f"{expected[region]:.2f}" if region in expected else "-"]
        for region, ml in report["volumes_ml"].items()
    ]
    head = ("Region", "Volume", "Expected Dice")
    note = (
        '<p class="small">Expected Dice: how well the labels agree with an expert\'s, by the '
        "network's own estimate; 0 not at all, 1 fully.</p>"
    )
    return section("Volumes", table(head, rows) + (note if expected else ""))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column names regions, the others are numbers."""
    columns = "".join(
        f'<th scope="col"{" class=number" if n else ""}>{escape(name)}</th>'
        for n, name in enumerate(head)
    )
    lines = []
    for region, *values in rows:
        words = REGION_WORDS.get(region, "")
        small = f"<br><small>{escape(words)}</small>" if words else ""
        cells = "".join(f"<td class=number>{escape(value)}</td>" for value in values)
        lines.append(f'<tr><th scope="row">{escape(region)}{small}</th>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="scroll"><table>\n<thead><tr>{columns}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>\n"
    )


def warnings(texts: Sequence[str]) -> str:
    """A list of warnings, or that there are none."""
    if not texts:
        return section("Warnings", "<p>None.</p>")
    items = "\n".join(f"<li>{escape(one_line(text, MAX_WARNING))}</li>" for text in texts)
    return section("Warnings", f"<ul>\n{items}\n</ul>", kind="warnings")


def provenance(report: Mapping[str, Any], written: str = "", title: str = "Provenance") -> str:
    """What made the result.

    Args:
        report: Of the result.
        written: Date and time of writing, as text; "" if it is not known.
        title: Of the section.
    """
    facts = "\n".join(
        f'<tr><th scope="row">{name}</th><td>{escape(value)}</td></tr>'
        for name, value in _facts(report, written).items()
        if value
    )
    return section(title, f'<table class="facts"><tbody>\n{facts}\n</tbody></table>')


def _facts(report: Mapping[str, Any], written: str) -> dict[str, str]:
    engine, given = report["engine"], report["input"]
    backend = (engine.get("backend"), engine.get("backend_version"))
    device = (engine.get("device"), engine.get("device_name"))
    return {
        "Engine": _joined(engine.get("name")),
        "sha256": _joined(engine.get("sha256")),
        "fastbts": _joined(report["software"]["fastbts"]),
        "Precision": _joined(engine.get("precision")),
        "Backend": _joined(*backend),
        "Device": _joined(*device),
        "Images": _joined(*(TITLES.get(name, name) for name in given["modalities"])),
        "Missing": _joined(*(TITLES.get(name, name) for name in given.get("missing", ()))),
        "Voxels": " x ".join(map(str, given.get("shape", ()))),
        "Spacing": " x ".join(f"{mm:.3g}" for mm in given.get("spacing_mm", ())) + " mm",
        "Written": written,
    }


def _joined(*words: Any) -> str:
    return one_line(", ".join(str(word) for word in words if word), MAX_WARNING)


def section(title: str, content: str, kind: str = "") -> str:
    """A part of the page with a title; `content` is HTML."""
    named = f' class="{kind}"' if kind else ""
    return f"<section{named}>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _words(name: str, words: Mapping[str, str]) -> str:
    return f"{words[name]} ({name})" if name in words else name
