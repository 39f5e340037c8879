"""Draws the pictures of the README and the documents from the phantom: `make pictures`.

No image of a patient is in them. docs/pictures/preview.webp is what `fastbts demo`
writes; docs/pictures/demo.webp walks through the slices for ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import fastbts
from fastbts.labels import COLOURS, SCHEMES
from fastbts.phantom import make_case
from fastbts.write.preview import write_preview

PICTURES = Path(__file__).resolve().parents[1] / "docs/pictures"
NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
TISSUES = {"NCR": "necrotic core", "ED": "oedema", "ET": "enhancing tumour"}
TILE, HEAD, FOOT = 200, 30, 56  # pixels: of an image, above and below the four
BACKGROUND, TEXT, DIM = (13, 17, 23), (230, 237, 243), (139, 148, 158)
OPACITY = 0.55
N_FRAMES, FRAME_MS = 80, 125  # ten seconds: down without labels, up with them
MAX_BYTES = {"preview.webp": 300_000, "demo.webp": 1_500_000}


def main() -> None:
    """Writes both pictures, and checks that they are small."""
    case = make_case(0)
    result = fastbts.Segmenter().predict(case.volume)
    PICTURES.mkdir(exist_ok=True)
    convert_preview(result, case.name)
    write_animation(result)
    for name, most in MAX_BYTES.items():
        size = (PICTURES / name).stat().st_size
        print(f"{PICTURES / name}: {size / 1000:.0f} kB")
        if size > most:
            raise SystemExit(f"{name}: {size} bytes; expected at most {most}")


def convert_preview(result: fastbts.Segmentation, name: str) -> None:
    """The picture of a result, as `fastbts predict --preview` writes it, but as WebP."""
    with TemporaryDirectory() as folder:
        write_preview(Path(folder) / "preview.png", result, name=name)
        with Image.open(Path(folder) / "preview.png") as picture:
            picture.save(PICTURES / "preview.webp", quality=88, method=6)


def write_animation(result: fastbts.Segmentation) -> None:
    """Axial slices of the four images, first bare, then with the labels."""
    frames = list(frames_of(result))
    frames[0].save(
        PICTURES / "demo.webp",
        save_all=True,
        append_images=frames[1:],
        duration=FRAME_MS,
        loop=0,
        quality=45,
        method=4,
    )


def frames_of(result: fastbts.Segmentation) -> Iterator[Image.Image]:
    """Down through the brain without labels, and up with them."""
    box = square(np.asarray(result.volume.data).any((0, 3)))
    grey = [window(image)[box] for image in np.asarray(result.volume.data)]
    labels = result.labels[box]
    where = np.flatnonzero(labels.any((0, 1)))
    slices = np.linspace(where[-1] + 8, where[0] - 8, N_FRAMES // 2).round().astype(int)
    for with_labels, order in ((False, slices), (True, slices[::-1])):
        for k in order:
            planes = [image[:, :, k] for image in grey]
            yield frame(result, planes, labels[:, :, k] if with_labels else None)


def square(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest square around a mask, with a margin of 4."""
    ends = [np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0)]
    half = max(int(last - first) for first, last in ends) // 2 + 4
    middles = [int(first + last) // 2 for first, last in ends]
    i, j = (slice(max(middle - half, 0), middle + half) for middle in middles)
    return i, j


def window(image: NDArray[np.generic]) -> NDArray[np.float32]:
    """Intensities from 0 to 255; the brightest half per cent is white."""
    data = np.asarray(image, np.float32)
    return np.clip(data / np.percentile(data[data > 0], 99.5), 0, 1) * 255


def frame(
    result: fastbts.Segmentation,
    planes: list[NDArray[np.float32]],
    labels: NDArray[np.uint8] | None,
) -> Image.Image:
    """One picture: four tiles, their names, and what is going on."""
    size = (TILE * len(planes), HEAD + TILE + FOOT)
    picture = Image.new("RGB", size, BACKGROUND)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for i, (plane, name) in enumerate(zip(planes, NAMES.values(), strict=True)):
        picture.paste(tile(plane, labels), (i * TILE, HEAD))
        pen.text((i * TILE + 8, 6), name, DIM, font)
    pen.text((8, HEAD + TILE + 8), "$ fastbts predict case -o out/", TEXT, font)
    if labels is not None:
        volumes = ", ".join(f"{name} {ml:.1f} ml" for name, ml in result.volumes_ml.items())
        pen.text((8, HEAD + TILE + 31), volumes, TEXT, font)
        legend(pen, font, size[0] - 8, HEAD + TILE + 31)
    return picture


def tile(plane: NDArray[np.float32], labels: NDArray[np.uint8] | None) -> Image.Image:
    """An axial slice, front up, the patient's right on the left, with labels in colour."""
    rgb = np.repeat(plane[..., None], 3, axis=-1)
    for name, value in SCHEMES["brats2021"].items() if labels is not None else ():
        mask = labels == value
        rgb[mask] = (1 - OPACITY) * rgb[mask] + OPACITY * np.array(COLOURS[name])
    upright = np.swapaxes(rgb, 0, 1).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(upright)).resize((TILE, TILE))


def legend(pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, right: int, y: int) -> None:
    """Names of the tissues, in their colours, from the right."""
    for name, words in reversed(TISSUES.items()):
        right -= int(pen.textlength(words, font))
        pen.text((right, y), words, COLOURS[name], font)
        right -= 20


if __name__ == "__main__":
    main()
