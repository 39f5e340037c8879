"""The text of the preview picture: title, legend, volumes and warnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fastbts.about import DISCLAIMER
from fastbts.write.words import Colour, one_line

if TYPE_CHECKING:
    from PIL import ImageDraw

MARGIN, LEGEND_ROW, NOTE_ROW = 24, 26, 22  # pixels
BACKGROUND, TEXT, DIM, WARN = (11, 13, 17), (232, 234, 238), (150, 157, 168), (255, 200, 97)
MAX_WARNING_ROWS = 6
NOTE_SIZE = 15  # pixels


class Entry(NamedTuple):
    """A label in the legend: its colour, name and volume."""

    colour: Colour
    words: str
    volume: str


class Note(NamedTuple):
    """A paragraph below the labels: its text and colour."""

    text: str
    colour: Colour


def notes_of(
    volumes_ml: Mapping[str, float], confidence: Mapping[str, float], warnings: Sequence[str]
) -> list[Note]:
    """The volumes of the regions with the Dice to be expected, then the warnings."""
    volumes = []
    for region, ml in volumes_ml.items():
        dice = f" (expected Dice {confidence[region]:.2f})" if region in confidence else ""
        volumes.append(f"{region} {ml:.1f} ml{dice}")
    told = [Note(f"Warning: {one_line(text, 1000)}", WARN) for text in warnings]
    return [Note("    ".join(volumes), TEXT), *told]


def wrapped(notes: Sequence[Note], width: int) -> list[Note]:
    """The lines of notes; of warnings at most MAX_WARNING_ROWS, the last of which says so."""
    rows = [Note(line, colour) for text, colour in notes for line in _lines(text, width)]
    warned = [n for n, row in enumerate(rows) if row.colour == WARN]
    if len(warned) <= MAX_WARNING_ROWS:
        return rows
    return [*rows[: warned[MAX_WARNING_ROWS - 1]], Note("More: see the report.", WARN)]


def write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: Any,
    anchor: str = "la",
) -> float:
    """Writes text; returns its width."""
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    pen.text(place, text, colour, font, anchor)
    return float(pen.textlength(text, font))


def draw_title(pen: ImageDraw.ImageDraw, width: int, title: str, engine: str) -> None:
    """Title, engine and intended use on one line; a title that is too long is cut."""
    used = write(pen, (width - MARGIN, 26), DISCLAIMER, 15, DIM, "ra")
    left = width - 2 * MARGIN - used - 2 * 14
    engine = fitted(engine, 15, left / 2)
    left -= length(engine, 15)
    used = write(pen, (MARGIN, 20), fitted(title, 22, left), 22, TEXT)
    if engine:
        write(pen, (MARGIN + used + (14 if title else 0), 26), engine, 15, DIM)


def legend_rows(entries: Iterable[Entry], right: int) -> list[list[tuple[float, Entry]]]:
    """The labels, and where each begins, in rows that end left of `right`, if one label does."""
    rows: list[list[tuple[float, Entry]]] = [[]]
    x = float(MARGIN)
    for entry in entries:
        width = 34 + length(entry.words, 15) + length(entry.volume, 15)
        if rows[-1] and x + width > right:
            rows.append([])
            x = float(MARGIN)
        rows[-1].append((x, entry))
        x += width + 28
    return rows


def draw_legend(
    pen: ImageDraw.ImageDraw,
    rows: Sequence[Sequence[tuple[float, Entry]]],
    notes: Sequence[Note],
    y: int,
) -> None:
    """Names, colours and volumes of the labels, then lines of notes."""
    for row in rows:
        for x, (colour, words, volume) in row:
            pen.rounded_rectangle((x, y - 8, x + 16, y + 8), 4, colour)
            used = write(pen, (x + 24, y), words, 15, TEXT, "lm")
            write(pen, (x + 34 + used, y), volume, 15, DIM, "lm")
        y += LEGEND_ROW
    for text, colour in notes:
        write(pen, (MARGIN, y), text, NOTE_SIZE, colour, "lm")
        y += NOTE_ROW


def fitted(text: str, size: int, width: float) -> str:
    """Text as wide as there is place for, with "..." where it was cut."""
    if length(text, size) <= width:
        return text
    n = len(text)
    while n and length(f"{text[:n]}...", size) > width:
        n -= 1
    return f"{text[:n]}..."


def length(text: str, size: int) -> float:
    """Width of text in pixels."""
    from PIL import ImageFont

    return float(ImageFont.load_default(size).getlength(text))


def _lines(text: str, width: int) -> list[str]:
    """Text in lines that are not wider than `width`; a longer word is cut."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if length(longer, NOTE_SIZE) <= width or not lines[-1]:
            lines[-1] = fitted(longer, NOTE_SIZE, width)
        else:
            lines.append(fitted(word, NOTE_SIZE, width))
    return lines
