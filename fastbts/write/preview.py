"""A picture of a segmentation: three planes through the tumour, without and with the labels.

Radiological convention: the patient's right is on the left of axial and coronal planes, the front
on the left of the sagittal plane. Letters at the edges of each plane show it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastbts.about import __version__
from fastbts.device.arrays import on_host
from fastbts.errors import GeometryError, OptionsError
from fastbts.files import OpenFile, atomic_write
from fastbts.labels import SCHEMES, label_names
from fastbts.volume import Volume, to_network_axes
from fastbts.write.caption import (
    BACKGROUND,
    DIM,
    LEGEND_ROW,
    MARGIN,
    NOTE_ROW,
    TEXT,
    Entry,
    Note,
    draw_legend,
    draw_title,
    legend_rows,
    notes_of,
    wrapped,
    write,
)
from fastbts.write.ours import SOFTWARE
from fastbts.write.words import NO_NAME, TISSUES, TITLES, colours_of, one_line

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
GREY_WINDOW = (0.5, 99.7)  # percentiles of the non-zero voxels that become black and white
TILE, GAP, HEADER, FOOTER = 380, 12, 84, 88  # pixels
RIM = 26  # pixels around the image in its tile, for the letters
BRAIN_MARGIN_MM = 2.0
FILL = 0.30  # opacity of the labels
LINE, FINE = 3, 2  # width of their contours in pixels, in a picture drawn FINE times larger

Array = NDArray[Any]


def write_preview(
    path: str | Path,
    segmentation: Segmentation,
    open_file: OpenFile = atomic_write,
    *,
    name: str = "",
) -> str:
    """Writes the picture of a segmentation as PNG.

    Args:
        path: The file.
        segmentation: Result of `Segmenter.predict`.
        open_file: `atomic_write`, or what `write_set` yields.
        name: Of the case, for the title line.

    Returns:
        The file's sha256.

    Raises:
        OutputError: The file cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    picture = render_preview(
        segmentation.volume,
        on_host(segmentation.labels),
        values=None if segmentation.is_glioma else label_names(segmentation.regions),
        title=one_line(name) or NO_NAME,
        engine=str(segmentation.report["engine"]["name"]),
        notes=notes_of(segmentation.volumes_ml, segmentation.confidence, segmentation.warnings),
    )
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
    notes: Sequence[Note] = (),
) -> Image.Image:
    """Draws the planes with most tumour, or through the middle of the brain if there is none.

    Args:
        volume: The images; FLAIR and T1ce are shown, or the first image if both are missing.
        labels: uint8, (i, j, k), on the volume's grid; may be all 0.
        scheme: Label scheme of `labels`.
        values: Name of each label -> its value, for labels of no scheme.
        title: First words of the title line.
        engine: Name of the engine, for the title line.
        notes: Text below the labels.

    Returns:
        An RGB picture about 1200 pixels wide.

    Raises:
        GeometryError: The labels have another shape than the images.
        OptionsError: Unknown scheme, or one without a label map ("regions").
    """
    from PIL import Image, ImageDraw

    scene = _Scene.of(volume, labels, scheme, values)
    rows = [_row(scene, axis) for axis in range(3)]
    width = 2 * MARGIN + (TILE + GAP) * len(rows[0]) - GAP
    legend = legend_rows(_entries(scene, volume.geometry.voxel_ml), width - MARGIN)
    lines = wrapped(notes, width - 2 * MARGIN)
    footer = FOOTER + LEGEND_ROW * (len(legend) - 1) + NOTE_ROW * len(lines)
    size = width, HEADER + sum(tiles[0].height + GAP for tiles in rows) - GAP + footer
    canvas = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    top = HEADER
    for axis, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            left = MARGIN + (TILE + GAP) * column
            canvas.paste(tile, (left, top))
            _letters(pen, left, top, tile.height, PLANES[axis][1])
        plane = f"{PLANES[axis][0]}  {scene.centre[axis] + 1}/{scene.labels.shape[axis]}"
        write(pen, (MARGIN + 8, top + 6), plane, 13, DIM)
        top += tiles[0].height + GAP
    draw_title(pen, width, title, engine)
    _column_names(pen, scene)
    draw_legend(pen, legend, lines, size[1] - footer + 26)
    write(pen, (MARGIN, size[1] - 28), CONVENTION, 13, DIM, "lm")
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
    palette = np.array([(0, 0, 0), *colours_of(values).values()], np.float32)
    opacity = np.where(index == 0, 0.0, np.where(_border(index), 1.0, FILL))[..., None]
    grey = np.asarray(tile.resize(size, Image.Resampling.BICUBIC).convert("RGB"))
    mixed = grey * (1 - opacity) + palette[index] * opacity
    return Image.fromarray(np.rint(mixed).astype(np.uint8)).reduce(FINE)


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


def _letters(pen: ImageDraw.ImageDraw, left: int, top: int, height: int, letters: str) -> None:
    middle, centre = top + height // 2, left + TILE // 2
    places = [
        (left + 8, middle, "lm"),
        (left + TILE - 8, middle, "rm"),
        (centre, top + 6, "ma"),
        (centre, top + height - 6, "md"),
    ]
    for letter, (x, y, anchor) in zip(letters, places, strict=True):
        write(pen, (x, y), letter, 14, DIM, anchor)


def _column_names(pen: ImageDraw.ImageDraw, scene: _Scene) -> None:
    names = [TITLES.get(m, m) for m in scene.images]
    for column, name in enumerate([*names, f"{names[-1]} with labels"]):
        middle = MARGIN + (TILE + GAP) * column + TILE // 2
        write(pen, (middle, HEADER - 10), name, 16, TEXT, "md")


def _entries(scene: _Scene, voxel_ml: float) -> Iterator[Entry]:
    """The labels with their colours and volumes."""
    for name, colour in colours_of(scene.values).items():
        ml = np.count_nonzero(scene.labels == scene.values[name]) * voxel_ml
        yield Entry(colour, f"{name}  {TISSUES.get(name, '')}".rstrip(), f"{ml:.1f} ml")
