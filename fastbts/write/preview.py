"""A picture of a segmentation: three planes through the tumour, without and with the labels.

Radiological convention: the patient's right is on the left of axial and coronal planes, the front
on the left of the sagittal plane. Letters at the edges of each plane show it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastbts.about import DISCLAIMER, __version__
from fastbts.device.arrays import on_host
from fastbts.errors import GeometryError, OptionsError
from fastbts.files import OpenFile, atomic_write
from fastbts.labels import COLOURS, OTHER_COLOURS, SCHEMES, label_names
from fastbts.volume import Volume, to_network_axes
from fastbts.write.ours import SOFTWARE

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

    from fastbts.segmentation import Segmentation

PLANES = (("axial", "RLAP"), ("coronal", "RLSI"), ("sagittal", "APSI"))
"""Planes across the network axes Z, Y and X; letters of the left, right, top and bottom edges."""
CONVENTION = (
    "Radiological convention: the patient's right (R) is on the left. "
    "A front, P back, S top, I bottom."
)
SHOWN = ("flair", "t1ce")  # together they show all three labels
TITLES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
TISSUES = {
    "NCR": "necrotic core",
    "NETC": "non-enhancing tumour core",
    "ED": "oedema",
    "SNFH": "surrounding FLAIR hyperintensity",
    "ET": "enhancing tumour",
}

GREY_WINDOW = (0.5, 99.7)  # percentiles of the non-zero voxels that become black and white
TILE, GAP, MARGIN, HEADER, FOOTER = 380, 12, 24, 84, 88  # pixels
LEGEND_ROW = 26  # pixels
RIM = 26  # pixels around the image in its tile, for the letters
BRAIN_MARGIN_MM = 2.0
FILL = 0.30  # opacity of the labels
LINE, FINE = 3, 2  # width of their contours in pixels, in a picture drawn FINE times larger
BACKGROUND, TEXT, DIM = (11, 13, 17), (232, 234, 238), (150, 157, 168)

Array = NDArray[Any]


def write_preview(
    path: str | Path,
    segmentation: Segmentation,
    open_file: OpenFile = atomic_write,
    *,
    title: str = "Brain tumour segmentation",
) -> str:
    """Writes the picture of a segmentation as PNG.

    Args:
        path: The file.
        segmentation: Result of `Segmenter.predict`.
        open_file: `atomic_write`, or what `write_set` yields.
        title: First words of the title line, for example the case's name.

    Returns:
        The file's sha256.

    Raises:
        OutputError: The file cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    engine = str(segmentation.report["engine"]["name"])
    labels = on_host(segmentation.labels)
    values = None if segmentation.is_glioma else label_names(segmentation.regions)
    picture = render_preview(segmentation.volume, labels, values=values, title=title, engine=engine)
    text = PngInfo()
    text.add_text("Software", f"{SOFTWARE} {__version__}")  # by this we know our files
    content = io.BytesIO()
    picture.save(content, "PNG", pnginfo=text)
    with open_file(Path(path)) as file:
        file.write(content.getbuffer())
    return hashlib.sha256(content.getbuffer()).hexdigest()


def render_preview(
    volume: Volume,
    labels: NDArray[np.uint8],
    *,
    scheme: str = "brats2021",
    values: Mapping[str, int] | None = None,
    title: str = "",
    engine: str = "",
) -> Image.Image:
    """Draws the planes with most tumour, or through the middle of the brain if there is none.

    Args:
        volume: The images; FLAIR and T1ce are shown, or the first image if both are missing.
        labels: uint8, (i, j, k), on the volume's grid; may be all 0.
        scheme: Label scheme of `labels`.
        values: Name of each label -> its value, for labels of no scheme.
        title: First words of the title line.
        engine: Name of the engine, for the title line.

    Returns:
        An RGB picture about 1200 pixels wide.

    Raises:
        GeometryError: The labels have another shape than the images.
        OptionsError: Unknown scheme, or one without a label map ("regions").
    """
    from PIL import Image, ImageDraw

    scene = _Scene.of(volume, labels, scheme, values)
    rows = [_row(scene, axis) for axis in range(3)]
    heights = [tiles[0].height for tiles in rows]
    width, voxel_ml = 2 * MARGIN + (TILE + GAP) * len(rows[0]) - GAP, volume.geometry.voxel_ml
    legend = _legend_rows(scene, voxel_ml, width - MARGIN)
    footer = FOOTER + LEGEND_ROW * (len(legend) - 1)
    size = width, HEADER + sum(heights) + GAP * 2 + footer
    canvas = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    top = HEADER
    for axis, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            left = MARGIN + (TILE + GAP) * column
            canvas.paste(tile, (left, top))
            _letters(pen, left, top, tile.height, PLANES[axis][1])
        plane = f"{PLANES[axis][0]}  {scene.centre[axis] + 1}/{scene.labels.shape[axis]}"
        _write(pen, (MARGIN + 8, top + 6), plane, 13, DIM)
        top += tiles[0].height + GAP
    _header(pen, size[0], scene, title, engine)
    _legend(pen, legend, size[1] - footer + 26)
    return canvas


@dataclass(frozen=True, eq=False)
class _Scene:
    """Content of the picture, on network axes (Z, Y, X)."""

    images: Mapping[str, Array]
    labels: Array
    values: Mapping[str, int]
    spacing_mm: tuple[float, float, float]
    box: tuple[slice, slice, slice]
    centre: tuple[int, int, int]

    @staticmethod
    def of(
        volume: Volume, labels: NDArray[np.uint8], scheme: str, values: Mapping[str, int] | None
    ) -> _Scene:
        geometry = volume.geometry
        if labels.shape != geometry.shape:
            raise GeometryError(
                f"labels of shape {labels.shape}, expected {geometry.shape}; "
                "pass labels on the grid of the images"
            )
        if scheme not in SCHEMES:
            raise OptionsError(
                f"label scheme {scheme!r}: expected one of {', '.join(SCHEMES)}, "
                "which have one label map"
            )
        names = [m for m in SHOWN if m in volume.modalities] or list(volume.modalities[:1])
        images = {
            m: to_network_axes(on_host(volume.data[list(volume.modalities).index(m)]), geometry)
            for m in names
        }
        found = to_network_axes(labels, geometry)
        steps = {
            axis: mm for (axis, _), mm in zip(geometry.ras_axes, geometry.spacing_mm, strict=True)
        }
        spacing = steps[2], steps[1], steps[0]
        box = _brain_box(images[names[0]], spacing)
        values = SCHEMES[scheme] if values is None else values
        return _Scene(images, found, values, spacing, box, _centre(found, box))

    def cut(self, array: Array, axis: int) -> Array:
        """The plane across an axis, as rows and columns of the picture."""
        inner = tuple(self.centre[a] if a == axis else side for a, side in enumerate(self.box))
        # Z, Y and X grow upwards, forwards and to the patient's right.
        return array[inner][::-1, ::-1]


def _brain_box(image: Array, spacing: tuple[float, float, float]) -> tuple[slice, slice, slice]:
    """The box of the non-zero voxels with a margin; the whole image if there are none."""
    brain = np.isfinite(image) & (image != 0)
    sides = []
    for axis, mm in enumerate(spacing):
        filled = np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis})))
        margin = int(np.ceil(BRAIN_MARGIN_MM / mm))
        first, last = (filled[0], filled[-1]) if filled.size else (0, image.shape[axis] - 1)
        sides.append(
            slice(max(int(first) - margin, 0), min(int(last) + margin + 1, image.shape[axis]))
        )
    return sides[0], sides[1], sides[2]


def _centre(labels: Array, box: tuple[slice, slice, slice]) -> tuple[int, int, int]:
    """For each axis the slice with most tumour, or the middle of the box."""
    tumour = labels[box] != 0
    areas = [np.count_nonzero(tumour, axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    z, y, x = (
        side.start + int(np.argmax(area) if area.any() else len(area) // 2)
        for side, area in zip(box, areas, strict=True)
    )
    return z, y, x


def _row(scene: _Scene, axis: int) -> list[Image.Image]:
    """The tiles of one plane: each image, then the last one with the labels."""
    from PIL import Image

    greys = [_grey(image, scene.cut(image, axis)) for image in scene.images.values()]
    size = _tile_size(scene, axis)
    plain = [Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC) for grey in greys]
    tiles = [tile.convert("RGB") for tile in plain] + [
        _overlaid(plain[-1], scene.cut(scene.labels, axis), scene.values)
    ]
    return [_framed(tile) for tile in tiles]


def _tile_size(scene: _Scene, axis: int) -> tuple[int, int]:
    """Width and height in pixels; all planes have the same scale."""
    extents = [
        (side.stop - side.start) * mm for side, mm in zip(scene.box, scene.spacing_mm, strict=True)
    ]
    scale = (TILE - 2 * RIM) / max(extents[1:])  # the columns show Y or X from left to right
    height, width = (mm for a, mm in enumerate(extents) if a != axis)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _grey(image: Array, plane: Array) -> NDArray[np.uint8]:
    """Intensities as 0-255 between two percentiles of the whole image's non-zero voxels."""
    sample = image[::2, ::2, ::2]
    sample = sample[np.isfinite(sample) & (sample != 0)]
    low, high = np.percentile(sample, GREY_WINDOW) if sample.size else (0.0, 1.0)
    plane = np.nan_to_num(plane.astype(np.float32), posinf=0.0, neginf=0.0)
    scaled = (plane - low) / max(float(high - low), 1e-6)
    return np.where(plane == 0, 0, np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _overlaid(tile: Image.Image, plane: Array, values: Mapping[str, int]) -> Image.Image:
    """A tile with the labels over it: a light fill and a sharp, smooth contour."""
    from PIL import Image

    size = tile.width * FINE, tile.height * FINE
    masks = [plane == value for value in (0, *values.values())]
    smooth = [
        np.asarray(
            Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
        )
        for mask in masks
    ]
    index = np.argmax(smooth, axis=0)  # (height, width): 0 background, 1 and up the labels
    palette = np.array([(0, 0, 0), *_colours(values).values()], np.float32)
    opacity = np.where(index == 0, 0.0, np.where(_border(index), 1.0, FILL))[..., None]
    grey = np.asarray(tile.resize(size, Image.Resampling.BICUBIC).convert("RGB"))
    mixed = grey * (1 - opacity) + palette[index] * opacity
    return Image.fromarray(np.rint(mixed).astype(np.uint8)).reduce(FINE)


def _colours(names: Collection[str]) -> dict[str, tuple[int, int, int]]:
    """Of the labels of a scheme, or of others in turn."""
    if {*names} <= {*COLOURS}:
        return {name: COLOURS[name] for name in names}
    return dict(zip(names, cycle(OTHER_COLOURS), strict=False))


def _border(index: Array) -> NDArray[np.bool_]:
    """Pixels with another label within LINE pixels along their row or column."""
    border = np.zeros(index.shape, bool)
    for axis in (0, 1):
        for shift in (-LINE, LINE):
            border |= np.roll(index, shift, axis) != index
    return border


def _framed(tile: Image.Image) -> Image.Image:
    """Centres a picture on a black tile of the column's width."""
    from PIL import Image

    frame = Image.new("RGB", (TILE, tile.height + 2 * RIM))
    frame.paste(tile, ((TILE - tile.width) // 2, RIM))
    return frame


def _write(
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


def _letters(pen: ImageDraw.ImageDraw, left: int, top: int, height: int, letters: str) -> None:
    middle, centre = top + height // 2, left + TILE // 2
    places = [
        (left + 8, middle, "lm"),
        (left + TILE - 8, middle, "rm"),
        (centre, top + 6, "ma"),
        (centre, top + height - 6, "md"),
    ]
    for letter, (x, y, anchor) in zip(letters, places, strict=True):
        _write(pen, (x, y), letter, 14, DIM, anchor)


def _header(pen: ImageDraw.ImageDraw, width: int, scene: _Scene, title: str, engine: str) -> None:
    used = _write(pen, (MARGIN, 20), title, 22, TEXT)
    if engine:
        _write(pen, (MARGIN + used + (14 if title else 0), 26), engine, 15, DIM)
    _write(pen, (width - MARGIN, 26), DISCLAIMER, 15, DIM, "ra")
    names = [TITLES.get(m, m) for m in scene.images]
    for column, name in enumerate([*names, f"{names[-1]} with labels"]):
        _write(pen, (MARGIN + (TILE + GAP) * column + TILE // 2, HEADER - 10), name, 16, TEXT, "md")


class _Entry(NamedTuple):
    """A label in the legend: where it begins, its colour, name and volume."""

    x: float
    colour: tuple[int, int, int]
    words: str
    volume: str


def _legend_rows(scene: _Scene, voxel_ml: float, right: int) -> list[list[_Entry]]:
    """The labels in rows that end left of `right`, if one label does."""
    from PIL import ImageFont

    font, rows, x = ImageFont.load_default(15), [[]], float(MARGIN)  # type: ignore[var-annotated]
    for name, colour in _colours(scene.values).items():
        ml = np.count_nonzero(scene.labels == scene.values[name]) * voxel_ml
        texts = f"{name}  {TISSUES.get(name, '')}".rstrip(), f"{ml:.1f} ml"
        width = 34 + sum(map(font.getlength, texts))
        if rows[-1] and x + width > right:
            rows.append([])
            x = float(MARGIN)
        rows[-1].append(_Entry(x, colour, *texts))
        x += width + 28
    return rows


def _legend(pen: ImageDraw.ImageDraw, rows: list[list[_Entry]], y: int) -> None:
    """Names, colours and volumes of the labels, and the convention."""
    for row in rows:
        for x, colour, words, volume in row:
            pen.rounded_rectangle((x, y - 8, x + 16, y + 8), 4, colour)
            used = _write(pen, (x + 24, y), words, 15, TEXT, "lm")
            _write(pen, (x + 34 + used, y), volume, 15, DIM, "lm")
        y += LEGEND_ROW
    _write(pen, (MARGIN, y + 34 - LEGEND_ROW), CONVENTION, 13, DIM, "lm")
