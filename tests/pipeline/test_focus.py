"""Focus: the same labels from a part of the tensor, and when the whole brain is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbts import FailedCase, Segmentation, Segmenter, SegmenterOptions
from fastbts.build.finder import add_finder
from fastbts.engine.interface import Engine
from fastbts.ops import resample
from fastbts.pipeline.focus import MARGIN, Focus, is_cut_off, part_around
from fastbts.pipeline.normalize import padded_size
from fastbts.placement import Placement, box_size
from fastbts.write.viewer.images import Cut
from tests.conftest import VoxelEngine, write_voxel_engine, write_voxel_finder

SHAPE = (95, 110, 80)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
BRAIN = (slice(3, 92), slice(4, 105), slice(2, 77))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A voxel engine with its finder."""
    folder = tmp_path_factory.mktemp("focus")
    plain = write_voxel_engine(folder / "plain.fbts")
    add_finder(plain, folder / "engine.fbts", write_voxel_finder(folder / "finder.fbts"))
    return folder / "engine.fbts"


def head(*tumours: tuple[int, int, int], size: int = 12) -> np.ndarray:
    """Images (4, X, Y, Z): a dull brain, and bright cubes that begin at these voxels."""
    images = np.zeros((4, *SHAPE), np.int16)
    rng = np.random.default_rng(3)
    images[(slice(None), *BRAIN)] = rng.integers(100, 120, (4, *(s.stop - s.start for s in BRAIN)))
    for begin in tumours:
        at = tuple(slice(b, b + size) for b in begin)
        images[(slice(None), *at)] = rng.integers(400, 900, (4, size, size, size))
    return images


def segmenter(engine: Path, *, focus: bool = True, **options: Any) -> Segmenter:
    how = SegmenterOptions(focus=focus, **options)
    return Segmenter(engine, precision="fp32", options=how, warm_up=False)


def predicted(engine: Path, images: np.ndarray, affine: Any = AFFINE, **how: Any) -> Segmentation:
    with segmenter(engine, **how) as made:
        return made.predict(images, affine=affine)


def focus_of(result: Segmentation) -> dict[str, Any]:
    record: dict[str, Any] = result.report["windows"]["focus"]
    return record


@pytest.mark.parametrize("options", [{}, {"passes": 2}, {"mode": "sliding"}, {"n_threads": 2}])
@pytest.mark.parametrize("begin", [(40, 51, 33), (20, 70, 61)])
def test_labels_are_those_of_the_whole_brain(
    engine: Path, begin: tuple[int, int, int], options: dict[str, Any]
) -> None:
    images = head(begin)
    whole = predicted(engine, images, focus=False, **options)
    result = predicted(engine, images, **options)
    assert whole.labels.any()
    np.testing.assert_array_equal(result.labels, whole.labels)
    assert result.volumes_ml == whole.volumes_ml
    assert "focus" not in whole.report["windows"]
    record = focus_of(result)
    assert record["share"] < 0.5
    assert record["share"] == pytest.approx(
        np.prod(record["size_zyx"]) / np.prod(whole.report["preprocessing"]["tensor_zyx"]), abs=1e-3
    )
    assert not any(n % 2 for n in record["begin_zyx"])
    assert not any(n % 8 for n in record["size_zyx"])
    assert result.report["preprocessing"] == whole.report["preprocessing"]
    assert "find" in result.timings_ms
    assert result.report["windows"]["mode"] == options.get("mode", "one-pass")


def test_any_orientation(engine: Path) -> None:
    images, affine = head((40, 51, 33)), np.array([[0.0, 0, -1, 5], [1, 0, 0, -7], [0, -1, 0, 3]])
    affine = np.vstack([affine, [0, 0, 0, 1]])
    result = predicted(engine, images, affine)
    assert focus_of(result)["share"] < 0.5
    np.testing.assert_array_equal(
        result.labels, predicted(engine, images, affine, focus=False).labels
    )


def test_logits_probabilities_and_files(engine: Path, tmp_path: Path) -> None:
    images = head((40, 51, 33))
    whole, result = (predicted(engine, images, focus=focus) for focus in (False, True))
    box = focus_of(result)["box_zyx"]
    inside = tuple(slice(*box[axis]) for axis in (2, 1, 0))
    flipped = (slice(None), slice(None, None, -1), slice(None, None, -1))  # AFFINE is LPS
    got, wanted = (r.probabilities[flipped][(slice(None), *inside)] for r in (result, whole))
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert result.probabilities.sum() == pytest.approx(got.sum())
    assert list(result.logits.shape[1:]) == focus_of(result)["size_zyx"]
    written = result.save(
        tmp_path / "seg.nii.gz", preview=tmp_path / "x.png", html=tmp_path / "x.html"
    )
    assert all(path.is_file() for path in written)
    assert Cut.of(result).box == Cut.of(whole).box, "the page shows the whole brain"


def test_a_tumour_at_the_edge_of_the_brain_is_not_cut_off(engine: Path) -> None:
    for begin in ((3, 4, 2), (80, 93, 65), (3, 60, 65)):
        images = head(begin)
        result = predicted(engine, images)
        assert "whole_brain" not in focus_of(result), begin
        whole = predicted(engine, images, focus=False)
        np.testing.assert_array_equal(result.labels, whole.labels)


def test_nothing_found(engine: Path) -> None:
    result = predicted(engine, head())
    assert focus_of(result) == {"whole_brain": "the finder found nothing"}
    np.testing.assert_array_equal(result.labels, predicted(engine, head(), focus=False).labels)


def test_a_part_that_is_nearly_all_is_not_worth_it(engine: Path) -> None:
    images = head((5, 8, 4), (75, 90, 60))
    result = predicted(engine, images)
    record = focus_of(result)
    assert record["whole_brain"] == f"the part is {record['share']:.0%} of the tensor"
    np.testing.assert_array_equal(result.labels, predicted(engine, images, focus=False).labels)


def test_a_tumour_that_goes_on_behind_the_part(engine: Path, monkeypatch: Any) -> None:
    """The finder sees only one end of it; the result is that of the whole brain."""
    images = head((30, 20, 33), (30, 32, 33), (30, 44, 33), (30, 56, 33))
    monkeypatch.setattr(
        "fastbts.pipeline.focus.found_box", lambda *_: ((30, 40), (40, 50), (48, 60))
    )
    result = predicted(engine, images)
    record = focus_of(result)
    assert record["whole_brain"] == "the tumour reaches a face of the part"
    assert record["share"] < 0.5
    assert result.placement.brain is None
    np.testing.assert_array_equal(result.labels, predicted(engine, images, focus=False).labels)


def test_progress_does_not_go_back(engine: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("fastbts.pipeline.focus.is_cut_off", lambda *_: True)
    seen: list[tuple[str, float]] = []
    with segmenter(engine) as made:
        made.predict(head((40, 51, 33)), affine=AFFINE, progress=lambda *at: seen.append(at))
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert [stage for stage, _ in seen].count("infer") == 2
    assert seen[-1] == ("done", 1.0)


def test_resampled_images_are_done_as_a_whole(engine: Path) -> None:
    result = predicted(engine, head((40, 51, 33)), np.diag([-1.0, -1.0, 1.5, 1.0]))
    expected = "the images are resampled to the engine's spacing"
    assert focus_of(result) == {"whole_brain": expected}


def test_a_missing_image_that_the_finder_needs(tmp_path: Path) -> None:
    plain = write_voxel_engine(tmp_path / "plain.fbts", optional_modalities=("t1", "t2"))
    small = write_voxel_finder(tmp_path / "finder.fbts", optional_modalities=("t2",))
    add_finder(plain, tmp_path / "x.fbts", small)
    names, images = ("flair", "t1", "t1ce", "t2"), head((40, 51, 33))
    with segmenter(tmp_path / "x.fbts", allow_missing=True) as made:
        for left_out, expected in (
            ("t1", {"whole_brain": "the finder was not trained without t1"}),
            ("t2", None),
        ):
            given = {n: i for n, i in zip(names, images, strict=True) if n != left_out}
            record = focus_of(made.predict(given, affine=AFFINE))
            assert record == expected or (expected is None and "whole_brain" not in record)


def test_a_batch(engine: Path) -> None:
    cases = [head((40, 51, 33)), np.zeros((4, *SHAPE), np.int16), head()]
    with segmenter(engine, parallel=2, n_threads=2) as made:
        first, failed, last = made.predict_batch(cases, affine=AFFINE)
    assert isinstance(failed, FailedCase)
    assert isinstance(first, Segmentation)
    assert isinstance(last, Segmentation)
    assert focus_of(first)["share"] < 0.5
    assert focus_of(last) == {"whole_brain": "the finder found nothing"}


def test_an_engine_on_a_device_does_the_whole_brain(engine: Path, monkeypatch: Any) -> None:
    loaded: list[Any] = []

    def open_engine(file: Any, **_: Any) -> Engine:
        loaded.append(file)
        far = VoxelEngine()
        far.description["device"] = "cuda:0"
        return far

    for module in ("segmenter", "engine.finder"):
        monkeypatch.setattr(f"fastbts.{module}.open_engine", open_engine)
    images = head((40, 51, 33))
    result = predicted(engine, images)
    assert focus_of(result) == {"whole_brain": "the network does not run on the CPU"}
    assert len(loaded) == 1, "no finder"
    expected = Segmenter(VoxelEngine(), warm_up=False).predict(images, affine=AFFINE)
    np.testing.assert_array_equal(result.labels, expected.labels)


def test_the_finder_is_closed_with_the_engine(engine: Path) -> None:
    made = segmenter(engine)
    assert made._finder is not None
    assert made._finder.description["precision"] == made.engine.description["precision"]
    closed: list[str] = []
    made._finder.close = lambda: closed.append("finder")  # type: ignore[method-assign]
    made.close()
    assert closed == ["finder"]


def test_without_focus_no_finder_is_loaded(engine: Path) -> None:
    assert segmenter(engine, focus=False)._finder is None


def test_halving_is_the_mean_of_blocks() -> None:
    tensor = np.random.default_rng(0).normal(size=(2, 8, 12, 6)).astype(np.float32)
    blocks = tensor.astype(np.float64).reshape(2, 4, 2, 6, 2, 3, 2).mean(axis=(2, 4, 6))
    np.testing.assert_allclose(resample(tensor, (4, 6, 3)), blocks, rtol=0, atol=3e-7)


def test_parts_are_where_their_voxels_are() -> None:
    """Random brains and boxes: the part holds the box and its margin, on even voxels, and its
    placement says where it is."""
    rng = np.random.default_rng(1)
    for n in range(400):
        stride = (4, 8, 16)[n % 3]
        starts, sizes = rng.integers(0, 9, 3), rng.integers(1, 90, 3)
        ends = [int(v) for v in starts + sizes]
        bounds = tuple((int(a), b) for a, b in zip(starts, ends, strict=True))
        size = box_size(bounds)
        whole = Placement(bounds, size, padded_size(size, stride))
        first = [int(rng.integers(0, p // 2)) * 2 for p in whole.padded]
        pairs = zip(first, whole.padded, strict=True)
        last = [int(rng.integers(f // 2 + 1, p // 2 + 1)) * 2 for f, p in pairs]
        part = part_around(tuple(zip(first, last, strict=True)), whole, stride)
        part_is_right(part, whole, first, last, stride)
        volume = rng.normal(size=[end + 3 for end in ends]).astype(np.float32)
        tensor = np.zeros((1, *whole.padded), np.float32)
        tensor[(0, *whole.in_tensor)] = volume[whole.in_volume]
        focus = Focus(whole, part)
        np.testing.assert_array_equal(
            focus.placement.in_box(focus.tensor(tensor))[0], volume[focus.placement.in_volume]
        )
        assert focus.placement.brain_box == whole.box
        assert not focus.placement.resampled


def part_is_right(
    part: Any, whole: Placement, first: list[int], last: list[int], stride: int
) -> None:
    for axis, (begin, n) in enumerate(zip(part.begin, part.size, strict=True)):
        offset, size = whole.offset[axis], whole.size[axis]
        assert begin % 2 == 0
        assert n % stride == 0
        assert 0 <= begin <= begin + n <= whole.padded[axis]
        inside = part.box[axis]
        assert begin <= inside[0] < inside[1] <= begin + n
        wanted = [
            min(max(v, offset), offset + size) for v in (first[axis] - MARGIN, last[axis] + MARGIN)
        ]
        assert offset <= inside[0] <= wanted[0]
        assert wanted[1] <= inside[1] <= offset + size
        assert n < max(wanted[1] - wanted[0], 2 * stride) + 2 * stride or n == whole.padded[axis]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, 1])
def test_faces_behind_which_there_is_brain(axis: int, end: int) -> None:
    box = ((10, 20), (10, 20), (10, 20))
    at_edge = Placement(box, (10, 10, 10), (16, 16, 16), brain=box)
    more = [list(side) for side in box]
    more[axis][end] += 5 if end else -5
    cut = Placement(box, (10, 10, 10), (16, 16, 16), brain=tuple((a, b) for a, b in more))
    for depth in range(4):
        view = np.zeros((30, 30, 30), np.uint8)
        place = [15, 15, 15]
        place[axis] = 19 - depth if end else 10 + depth
        view[tuple(place)] = 2
        assert not is_cut_off(view, at_edge)
        assert is_cut_off(view, cut) == (depth < 2)
