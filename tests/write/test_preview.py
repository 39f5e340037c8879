"""The preview picture, checked pixel by pixel."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastbts.errors import GeometryError, OptionsError, OutputError
from fastbts.labels import COLOURS
from fastbts.volume import Volume
from fastbts.write.caption import (
    BACKGROUND,
    MARGIN,
    MAX_WARNING_ROWS,
    NOTE_ROW,
    TEXT,
    WARN,
    Note,
    fitted,
    length,
    notes_of,
    wrapped,
)
from fastbts.write.preview import (
    FOOTER,
    GAP,
    HEADER,
    RIM,
    TILE,
    _border,
    _brain_box,
    _centre,
    render_preview,
    write_preview,
)
from fastbts.write.words import one_line

SHAPE = (40, 48, 36)  # RAS+, so the network's (Z, Y, X) is (36, 48, 40)


def made_case(spacing: tuple[float, float, float] = (1, 1, 1)) -> tuple[Volume, np.ndarray]:
    """A grey block with a ball of nested labels in the patient's right, front, upper part."""
    data = np.zeros((4, *SHAPE), np.int16)
    data[:, 4:36, 4:44, 4:32] = np.random.default_rng(3).integers(80, 120, (4, 32, 40, 28))
    x, y, z = np.indices(SHAPE)
    radius = np.sqrt((x - 28) ** 2 + (y - 36) ** 2 + (z - 24) ** 2)
    labels = np.select([radius < 2.5, radius < 4.5, radius < 6.5], [1, 4, 2], 0).astype(np.uint8)
    return Volume(data, np.diag([*spacing, 1.0])), labels


def stored_as(
    volume: Volume, labels: np.ndarray, order: tuple[int, ...], flips: tuple[int, ...]
) -> tuple[Volume, np.ndarray]:
    """The same case in space, its voxel axes permuted and some of them reversed."""
    affine = volume.affine[:, [*order, 3]].copy()
    data, labels = volume.data.transpose(0, *(1 + i for i in order)), labels.transpose(order)
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (labels.shape[axis] - 1)
        affine[:3, axis] *= -1
        data, labels = np.flip(data, 1 + axis), np.flip(labels, axis)
    return Volume(data, affine), labels


def where(picture: Image.Image, name: str, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a label's colour in one column of tiles, from the tiles' corner."""
    left = MARGIN + (TILE + GAP) * column
    tiles = np.asarray(picture, int)[HEADER:-FOOTER, left : left + TILE]
    return np.nonzero((abs(tiles - COLOURS[name]) < 6).all(axis=-1))


def tile_heights(picture: Image.Image) -> list[int]:
    """Heights of the tiles in the first column, from the gaps between them."""
    column = np.asarray(picture)[HEADER:-FOOTER, MARGIN + 1]
    edges = np.flatnonzero(
        np.diff(np.concatenate([[0], (column != BACKGROUND).any(axis=1), [0]]).astype(int))
    )
    return [int(b - a) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def test_border_by_hand() -> None:
    """Three pixels on both sides of a change; the picture's edge is one, as it wraps around."""
    index = np.array([[0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2]] * 9)
    assert _border(index)[4].astype(int).tolist() == [1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1]


def test_box_and_centre_by_hand() -> None:
    image = np.zeros((20, 20, 20), np.int16)
    image[6:12, 5, 8:10] = 1
    assert _brain_box(image, (1, 1, 4)) == (slice(4, 14), slice(3, 8), slice(7, 11))
    assert _brain_box(np.zeros((4, 5, 6)), (1, 1, 1)) == (slice(0, 4), slice(0, 5), slice(0, 6))
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[7, 5, 8] = labels[8, 5, 8:10] = labels[9, 5, 9] = 2
    box = _brain_box(image, (1, 1, 1))
    assert _centre(labels, box) == (8, 5, 8)
    assert _centre(0 * labels, box) == (9, 5, 9)


def test_labels_are_drawn_at_their_position() -> None:
    picture = render_preview(*made_case(), title="case", engine="engine")
    for name in COLOURS:
        rows, columns = where(picture, name, 2)
        axial = rows < TILE
        assert axial.sum() > 50
        assert (columns[axial] < TILE / 2).all(), "the patient's right is on the left"
        assert (rows[axial] < TILE / 2).all(), "the front is at the top"
        assert not where(picture, name, 0)[0].size
        assert not where(picture, name, 1)[0].size


def test_sagittal_plane_has_the_front_on_the_left() -> None:
    picture = render_preview(*made_case())
    rows, columns = where(picture, "ET", 2)
    sagittal = rows > picture.height - HEADER - FOOTER - TILE * 0.8
    assert sagittal.sum() > 50
    assert (columns[sagittal] < TILE / 2).all()


@pytest.mark.parametrize(
    ("order", "flips"), [((0, 1, 2), (0, 1)), ((2, 0, 1), ()), ((1, 2, 0), (0, 1, 2))]
)
def test_storage_order_changes_nothing(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    volume, labels = made_case((0.9, 1.1, 2.0))
    want = np.asarray(render_preview(volume, labels))
    other = stored_as(volume, labels, order, flips)
    assert other[0].geometry.axis_codes != "RAS"
    assert np.array_equal(np.asarray(render_preview(*other)), want)


def test_thick_slices_keep_their_proportions() -> None:
    thin, thick = (tile_heights(render_preview(*made_case((1, 1, mm)))) for mm in (1, 2))
    assert len(thin) == 3
    assert thick[0] == thin[0], "the axial plane does not change"
    # 28 slices and 2 mm on either side: 32 mm high, or 60 mm with slices of 2 mm.
    assert (thick[1] - 2 * RIM) / (thin[1] - 2 * RIM) == pytest.approx(60 / 32, rel=0.01)
    assert thick[2] == thick[1]


def test_draws_a_case_without_tumour() -> None:
    volume, labels = made_case()
    picture = render_preview(volume, np.zeros_like(labels))
    assert not any(where(picture, name, column)[0].size for name in COLOURS for column in range(3))
    plain = np.asarray(picture)[HEADER:-FOOTER]
    step = TILE + GAP
    second, third = (
        plain[30:200, MARGIN + step * c : MARGIN + step * c + TILE].astype(int) for c in (1, 2)
    )
    assert np.abs(second - third).max() <= 40, (
        "the last column is T1ce without labels, resampled once more"
    )


def test_draws_all_zero_images() -> None:
    volume, labels = made_case()
    assert render_preview(Volume(0 * volume.data, volume.affine), 0 * labels).size[0] > 3 * TILE


def test_nan_and_infinity_are_background() -> None:
    volume, labels = made_case()
    images = volume.data.astype(np.float32)
    images[images == 0] = np.nan
    images[:, 0] = np.inf
    want = np.asarray(render_preview(volume, labels))
    got = np.asarray(render_preview(Volume(images, volume.affine), labels))
    np.testing.assert_array_equal(got, want)


def test_draws_a_single_image() -> None:
    volume, labels = made_case()
    picture = render_preview(volume.select(["t2"]), labels)
    assert picture.width == 2 * MARGIN + 2 * TILE + GAP
    assert where(picture, "ET", 1)[0].size


def test_other_schemes() -> None:
    volume, labels = made_case()
    labels_2023 = np.where(labels == 4, 3, labels).astype(np.uint8)
    want = render_preview(volume, labels)
    assert np.array_equal(
        np.asarray(render_preview(volume, labels_2023, scheme="brats2023")), np.asarray(want)
    )
    rows, _ = where(render_preview(volume, labels_2023, scheme="brats2024"), "NETC", 2)
    assert rows.size


@pytest.mark.parametrize("scheme", ["regions", "brats1999"])
def test_refuses_schemes_without_a_map(scheme: str) -> None:
    with pytest.raises(OptionsError, match=f"label scheme '{scheme}': expected one of brats2021"):
        render_preview(*made_case(), scheme=scheme)


def test_refuses_labels_on_another_grid() -> None:
    volume, labels = made_case()
    with pytest.raises(
        GeometryError, match=r"labels of shape \(39, 48, 36\), expected \(40, 48, 36\)"
    ):
        render_preview(volume, labels[1:])


def segmentation() -> Any:
    volume, labels = made_case()
    report = {"engine": {"name": "test-engine"}}
    return SimpleNamespace(
        volume=volume,
        labels=labels,
        report=report,
        is_glioma=True,
        volumes_ml={"WT": 12.34},
        confidence={"WT": 0.911},
        warnings=("t1: odd",),
    )


def test_writes_a_png(tmp_path: Path) -> None:
    path = tmp_path / "new" / "preview.png"
    digest = write_preview(path, segmentation(), name="case 7")
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        notes = [Note("WT 12.3 ml (expected Dice 0.91)", TEXT), Note("Warning: t1: odd", WARN)]
        want = render_preview(*made_case(), title="case 7", engine="test-engine", notes=notes)
        assert np.array_equal(np.asarray(picture), np.asarray(want))
    assert [p.name for p in path.parent.iterdir()] == ["preview.png"]


def test_error_names_the_unwritable_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match=r"preview\.png: .*taken is not a folder"):
        write_preview(tmp_path / "taken" / "preview.png", segmentation())


def test_many_labels_of_other_regions_fit_into_the_legend() -> None:
    volume, labels = made_case()
    few, many = (
        np.asarray(render_preview(volume, labels, values={f"long name {i}": i for i in numbers}))
        for numbers in (range(1, 2), range(1, 13))
    )
    assert many.shape[0] > few.shape[0]
    margin = many[few.shape[0] - 88 :, -20:]
    assert (margin == margin[0, 0]).all(), "no text is cut off"
    assert render_preview(volume, labels, values={"lesion": 1, "ET": 4})


def test_notes_are_below_the_images() -> None:
    """A long title, warnings and words change no pixel of the tiles, and no text is cut off."""
    plain = np.asarray(render_preview(*made_case()))
    notes = notes_of({"WT": 1.0}, {}, ["word " * 60, "x" * 500])
    title = "<script>alert(1)</script> " * 20
    noted = np.asarray(render_preview(*made_case(), title=title, engine="e" * 200, notes=notes))
    tiles = slice(HEADER, len(plain) - FOOTER)
    assert np.array_equal(noted[tiles], plain[tiles])
    assert len(noted) == len(plain) + 6 * NOTE_ROW
    assert (noted[:, -20:] == BACKGROUND).all()
    assert (noted[len(plain) - FOOTER :] == WARN).all(axis=-1).any(axis=1).sum() > 2 * NOTE_ROW / 3


def test_notes_by_hand() -> None:
    dice = {"WT": 0.5}
    assert notes_of({"WT": 2.04, "TC": 0.0}, dice, ["a\nb"]) == [
        ("WT 2.0 ml (expected Dice 0.50)    TC 0.0 ml", TEXT),
        ("Warning: a b", WARN),
    ]
    many = wrapped([Note(str(n), WARN) for n in range(50)], 500)
    assert len(many) == MAX_WARNING_ROWS
    assert many[-1].text == "More: see the report."


def test_text_is_cut_to_its_place() -> None:
    assert fitted("short", 15, 100) == "short"
    cut = fitted("long " * 50, 15, 100)
    assert cut.endswith("...")
    assert 80 < length(cut, 15) <= 100


def test_hostile_names_are_one_line() -> None:
    assert one_line("a\n\tb\x00c\u202egnp.exe\u2028d") == "a b c gnp.exe d"
    assert one_line("x" * 81) == "x" * 77 + "..."
    assert one_line("Müller 5 <b>") == "Müller 5 <b>"
