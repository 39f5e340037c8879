"""The brain of cases whose background is not exactly 0: as that of the same case without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from fastbts import InputError, Segmenter, Volume, read_case
from fastbts.metrics import region_dice
from fastbts.phantom.case import PhantomCase, make_case
from fastbts.pipeline.background import FEW, _highest_and_low, _nearly_all
from fastbts.pipeline.brain import find_brain
from fastbts.pipeline.masks import bounds_of, dilated, filled, largest_part
from fastbts.read.reference import read_reference
from fastbts.volume import to_network_axes

Images = np.ndarray
Change = Callable[[Images, np.ndarray, np.random.Generator], Images]
RealCase = tuple[Volume, np.ndarray, dict[str, float]]
SPACING_MM = 2.0


def head() -> Volume:
    """A ball of 60 mm radius with dark fluid in three images and bright in T2; all 0 outside."""
    rng = np.random.default_rng(0)
    axes = [np.arange(n) - n / 2 for n in (80, 96, 78)]
    square = [axis**2 for axis in axes]
    inside = square[0][:, None, None] + square[1][:, None] + square[2] < 30**2
    fluid = rng.random(inside.shape) < 0.1
    images = np.zeros((4, *inside.shape), np.float32)
    for image, level, bright in zip(images, (200, 400, 500, 450), (0.2, 0.2, 0.2, 2), strict=True):
        tissue = rng.normal(level, level / 10, inside.shape) * np.where(fluid, bright, 1)
        image[inside] = np.rint(tissue)[inside]
    return Volume(images, np.diag([SPACING_MM] * 3 + [1]))


def noise(
    images: Images, outside: np.ndarray, rng: np.random.Generator, which: list[int]
) -> Images:
    for m in which:
        peak = images[m].max()
        images[m][outside] = rng.normal(0, 1e-3 * peak, np.count_nonzero(outside))
    return images


def rician(images: Images, outside: np.ndarray, rng: np.random.Generator) -> Images:
    for image in images:
        parts = rng.normal(0, 0.005 * image.max(), (2, np.count_nonzero(outside)))
        image[outside] = np.hypot(*parts)
    return images


def blocks(images: Images, outside: np.ndarray, rng: np.random.Generator) -> Images:
    """Small integers within 8 voxels of the brain, as JPEG leaves them."""
    near = dilated(~outside, 8) & outside
    images[:, near] = rng.integers(-3, 4, (4, np.count_nonzero(near)))
    return images


def scattered(images: Images, outside: np.ndarray, rng: np.random.Generator) -> Images:
    images[0, 2, 3, 4] = images[1, -2, -3, -4] = images[1, 40, 48, 1] = 500
    return images


def line(images: Images, outside: np.ndarray, rng: np.random.Generator) -> Images:
    images[1, :, 3, 5] = 300
    return images


def head_in_noise(images: Images, outside: np.ndarray, rng: np.random.Generator) -> Images:
    """One image without brain extraction, with the noise of the air."""
    skull(images, outside, rng)
    rician(images[1:2], images[1] == 0, rng)
    return images


def skull(images: Images, outside: np.ndarray, rng: np.random.Generator) -> Images:
    images[1][dilated(~outside, 6) & outside] = 350
    return images


def nan_outside_own_mask(images: Images, outside: np.ndarray, rng: np.random.Generator) -> Images:
    for m, image in enumerate(images):
        image[outside] = np.nan
        surface = ~outside & dilated(outside, 1) & (rng.random(image.shape) < 0.01 * m)
        image[surface] = np.nan
    return images


def edge_of_nan(images: Images, outside: np.ndarray, rng: np.random.Generator) -> Images:
    images[1, 0] = np.nan
    images[2, :, :, -3:] = np.inf
    return images


KINDS: dict[str, Change] = {
    "ringing in one image": lambda x, o, r: noise(x, o, r, [0]),
    "ringing in all images": lambda x, o, r: noise(x, o, r, [0, 1, 2, 3]),
    "z-scored over the volume": lambda x, o, r: np.stack([(i - i.mean()) / i.std() for i in x]),
    "scaled to -1 to 1": lambda x, o, r: np.stack([2 * i / i.max() - 1 for i in x]),
    "one image scaled to -1 to 1": lambda x, o, r: np.stack([2 * x[0] / x[0].max() - 1, *x[1:]]),
    "a constant": lambda x, o, r: np.where(o, np.float32(0.001), x),
    "Rician noise": rician,
    "blocks of JPEG": blocks,
    "scattered voxels": scattered,
    "a line": line,
    "a skull in one image": skull,
    "a head in noise": head_in_noise,
    "NaN": lambda x, o, r: np.where(o, np.float32(np.nan), x),
    "NaN with another edge in each image": nan_outside_own_mask,
    "edges of NaN and infinity": edge_of_nan,
}


def changed(volume: Volume, change: Change) -> Volume:
    outside = (volume.data == 0).all(axis=0)
    images = change(volume.data.astype(np.float32), outside, np.random.default_rng(1))
    return replace(volume, data=images.astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_the_brain_is_that_of_the_clean_case(kind: str) -> None:
    clean = head()
    wanted, got = find_brain(clean), find_brain(changed(clean, KINDS[kind]))
    assert got.box.bounds == wanted.box.bounds
    brain = (wanted.view != 0).any(axis=0)
    np.testing.assert_array_equal((got.view != 0).any(axis=0), brain)
    assert not got.view[:, ~brain].any()
    assert wanted.warnings == ()
    assert len(got.warnings) > 0


@pytest.mark.parametrize("axes", [(0, 3, 2, 1), (0, 2, 3, 1), (0, 1, 3, 2), (1, 2, 3, 0)])
@pytest.mark.parametrize("kind", ["Rician noise", "edges of NaN and infinity"])
def test_the_order_of_memory_changes_nothing(kind: str, axes: tuple[int, ...]) -> None:
    volume = changed(head(), KINDS[kind])
    stored = np.ascontiguousarray(volume.data.transpose(axes)).transpose(np.argsort(axes))
    wanted, got = find_brain(volume), find_brain(replace(volume, data=stored))
    assert (got.box, got.backgrounds) == (wanted.box, wanted.backgrounds)
    np.testing.assert_array_equal(got.view, wanted.view)


def test_ringing_that_decays_enlarges_the_brain_by_a_voxel() -> None:
    """As a spline leaves it: 5 % at the surface of the brain, alternating, a quarter per voxel."""
    clean = head()
    ringing = replace(clean, data=clean.data.copy())
    mask = (clean.data != 0).any(axis=0)
    for distance in range(1, 7):
        shell = dilated(mask, distance) & ~dilated(mask, distance - 1)
        amplitude = 0.2 * (-0.25) ** distance
        ringing.data[:, shell] = amplitude * clean.data.max(axis=(1, 2, 3))[:, None]
    sides = zip(find_brain(ringing).box.bounds, find_brain(clean).box.bounds, strict=True)
    assert all(abs(a - b) <= 1 for got, wanted in sides for a, b in zip(got, wanted, strict=True))


def test_a_frame_of_one_slice_is_not_the_background() -> None:
    """The outermost slices of all images, as some interpolation leaves them."""
    clean = head()
    framed = replace(clean, data=np.full_like(clean.data, 50))
    framed.data[:, 1:-1, 1:-1, 1:-1] = clean.data[:, 1:-1, 1:-1, 1:-1]
    got = find_brain(framed)
    np.testing.assert_array_equal(got.view, find_brain(clean).view)
    assert [background.value for background in got.backgrounds] == [0, 0, 0, 0]


def warnings_of(kind: str) -> tuple[str, ...]:
    return find_brain(changed(head(), KINDS[kind])).warnings


def test_warnings_say_what_was_done() -> None:
    assert warnings_of("one image scaled to -1 to 1") == (
        "flair: the background is -1 +- 0, expected exactly 0; it was taken as 0",
    )
    assert warnings_of("a line") == (
        "t1: 80 voxels that are not part of the brain are not background; they were ignored",
    )
    (skulled,) = warnings_of("a skull in one image")
    assert skulled.startswith("t1: ")
    assert "does not match the brain of the other images" in skulled
    assert "it was cut to that brain; if it has a skull, `fastbts study`" in skulled
    assert warnings_of("edges of NaN and infinity")[0] == (
        f"t1: {96 * 78} voxels of the background are NaN or infinite; they were taken as 0"
    )


def test_a_clean_case_is_used_as_it_is() -> None:
    volume = head()
    brain = find_brain(volume)
    assert np.shares_memory(brain.view, volume.data)
    normalised = changed(
        volume, lambda x, o, r: np.stack([np.where(o, 0, (i - i[~o].mean()) / i.std()) for i in x])
    )
    assert np.shares_memory(find_brain(normalised).view, normalised.data)
    negative = replace(volume, data=np.where(volume.data > 220, volume.data, -volume.data))
    assert np.shares_memory(find_brain(negative).view, negative.data)


def test_zeros_inside_the_brain_of_one_image_stay() -> None:
    volume = head()
    volume.data[2, 38:42, 40:60, 39] = 0
    brain = find_brain(changed(volume, KINDS["z-scored over the volume"]))
    assert brain.box.n_brain == find_brain(volume).box.n_brain


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["edges of NaN and infinity", "ringing in all images"])
def test_nan_inside_the_brain_is_refused(kind: str, value: float) -> None:
    volume = changed(head(), KINDS[kind])
    volume.data[3, 40, 48, 30:32] = value
    with pytest.raises(InputError, match="t2: 2 voxels inside the brain are NaN or infinite"):
        find_brain(volume)


def test_zeros_inside_the_brain_may_be_nan_like_the_background() -> None:
    volume = head()
    volume.data[0, 40, 48, 30:40] = volume.data[3, 44, 50, 30:33] = 0
    nan = replace(volume, data=np.where(volume.data == 0, np.nan, volume.data.astype(np.float32)))
    brain = find_brain(nan)
    assert brain.box.n_brain == find_brain(volume).box.n_brain
    np.testing.assert_array_equal(brain.view, find_brain(volume).view)
    nan.data[0, 38:42, 40:60, 30:40] = np.nan
    with pytest.raises(InputError, match=r"flair: \d+ voxels inside the brain are NaN"):
        find_brain(nan)


def test_nan_at_the_edge_of_an_image_that_cuts_the_brain_is_background() -> None:
    volume = head()
    cut = replace(volume, data=volume.data[:, :, :, 20:].copy())
    cut.data[1, :, :, :2] = np.nan
    brain = find_brain(cut)
    assert brain.box.n_brain == np.count_nonzero(cut.data[0])
    assert [warning.split(" voxels")[0] for warning in brain.warnings] == [f"t1: {80 * 96 * 2}"]
    cut.data[1, :, :, :9] = np.nan
    with pytest.raises(InputError, match=r"t1: \d+ voxels inside the brain are NaN"):
        find_brain(cut)


def test_nan_in_all_images_inside_the_brain_is_refused() -> None:
    volume = head()
    volume.data[:, 40, 48, 30:33] = np.nan
    with pytest.raises(InputError, match="flair: 3 voxels inside the brain are NaN or infinite"):
        find_brain(volume)


def test_no_brain_is_refused() -> None:
    with pytest.raises(InputError, match=r"flair, t1, t1ce, t2: no brain was found"):
        find_brain(Volume(np.full((4, 20, 20, 20), np.nan), np.eye(4)))


def test_skulls_in_all_images_give_a_warning_for_each() -> None:
    images = np.random.default_rng(0).integers(1, 900, (4, 80, 80, 80), np.int16)
    brain = find_brain(Volume(images, np.eye(4)))
    assert [warning.split(":")[0] for warning in brain.warnings] == ["flair", "t1", "t1ce", "t2"]
    assert brain.warnings[1].startswith("t1: 100% of the image (512 ml) is not background, too")
    assert brain.warnings[1].endswith(
        "probably not removed; `fastbts study` (fastbts.read_study) removes it"
    )
    np.testing.assert_array_equal(
        brain.view, to_network_axes(images, Volume(images, np.eye(4)).geometry)
    )


def test_more_than_a_brain_can_have_gives_a_warning() -> None:
    large = replace(head(), affine=np.diag([6.0, 6.0, 6.0, 1.0]))
    (first, *_) = find_brain(large).warnings
    assert first.startswith("flair: 19% of the image (24")
    assert "too much for a brain" in first


@pytest.mark.parametrize("value", [1e30, 3e38, -1e30])
def test_hot_voxels_change_no_other_voxel(voxel_segmenter: Segmenter, value: float) -> None:
    volume = head()
    plain = voxel_segmenter.predict(volume)
    for voxel in ((0, 40, 48, 40), (3, 41, 48, 40), (1, 2, 2, 2)):
        volume.data[voxel] = value
    hot = voxel_segmenter.predict(volume)
    # Three more outliers move the percentiles by a rank.
    assert np.count_nonzero(hot.labels != plain.labels) < 1e-3 * plain.volumes_ml["WT"] * 1000
    assert (
        hot.report["preprocessing"]["brain_box_zyx"]
        == (plain.report["preprocessing"]["brain_box_zyx"])
    )


def test_warnings_reach_the_result_once(
    voxel_segmenter: Segmenter, caplog: pytest.LogCaptureFixture
) -> None:
    result = voxel_segmenter.predict(changed(head(), KINDS["a constant"]))
    assert len([w for w in result.warnings if "the background is" in w]) == 4
    assert list(result.warnings) == json.loads(json.dumps(result.report))["warnings"]
    assert [record.getMessage() for record in caplog.records] == list(result.warnings)
    background = result.report["preprocessing"]["background"]["t1"]
    assert background["value"] == pytest.approx(0.001)
    assert background["voted"]


def test_statistics_are_in_the_units_of_the_input(voxel_segmenter: Segmenter) -> None:
    volume = head()
    plain, scaled = (
        voxel_segmenter.predict(v).report["preprocessing"]["clip_low_high_mean_std"]["t1"]
        for v in (volume, changed(volume, KINDS["scaled to -1 to 1"]))
    )
    half = float(volume.data[1].max()) / 2
    np.testing.assert_allclose(scaled[:3], np.array(plain[:3]) / half - 1, rtol=1e-5)


@pytest.fixture(scope="module")
def real_case(shipped_segmenter: Segmenter, val_cases: list[Path]) -> RealCase:
    volume = read_case(val_cases[1])
    reference = read_reference(next(val_cases[1].glob("*seg.nii.gz")))
    wanted = region_dice(shipped_segmenter.predict(volume).labels, reference)
    return volume, reference, wanted


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_dice_of_a_real_case_stays(
    kind: str, shipped_segmenter: Segmenter, real_case: RealCase
) -> None:
    volume, reference, wanted = real_case
    got = region_dice(shipped_segmenter.predict(changed(volume, KINDS[kind])).labels, reference)
    assert got == pytest.approx(wanted, abs=0.005)


@pytest.fixture(scope="module")
def phantom(shipped_segmenter: Segmenter) -> tuple[PhantomCase, dict[str, float]]:
    """A case at 2 mm, which is resampled, so that its edge mixes with the background."""
    case = make_case(shape=(120, 120, 78))
    return case, region_dice(shipped_segmenter.predict(case.volume).labels, case.labels)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ringing in all images", "scaled to -1 to 1", "NaN"])
def test_dice_of_the_phantom_stays(
    kind: str, shipped_segmenter: Segmenter, phantom: tuple[PhantomCase, dict[str, float]]
) -> None:
    case, wanted = phantom
    labels = shipped_segmenter.predict(changed(case.volume, KINDS[kind])).labels
    assert region_dice(labels, case.labels) == pytest.approx(wanted, abs=0.005)


def test_largest_part() -> None:
    mask = np.zeros((6, 7, 30), bool)
    mask[1:3, 1:3, 1:4] = mask[4, 4, 10:18] = mask[0, 0, 25] = True
    part = largest_part(mask)
    assert part.sum() == 12
    assert part[1:3, 1:3, 1:4].all()
    many = np.zeros((1, 1, 41), bool)
    many[0, 0, ::4] = many[0, 0, 1:3] = True
    assert largest_part(many).sum() == 3, "the largest part may be less than half of all"
    assert not largest_part(np.zeros((2, 3, 4), bool)).any()


def test_dilated_and_filled() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[2, 3, 3] = True
    assert dilated(mask, 1).sum() == 27
    assert dilated(mask, 9).all()
    rng = np.random.default_rng(0)
    for shape in ((5, 7, 1), (12, 9, 20)):
        mask = rng.random(shape) > 0.97
        for n in (1, 2, 3, 5, 8):
            assert np.array_equal(dilated(mask, n), maximum_filter(mask, 2 * n + 1)), (shape, n)
    shell = np.ones((5, 5, 5), bool)
    shell[2, 2, 2] = shell[0, 2, 2] = False
    holes = filled(shell)
    assert holes[2, 2, 2]
    assert not holes[0, 2, 2], "open to the outside"


@pytest.mark.parametrize("n", [1, 2, 70, 5000, 200_000])
def test_nearly_all_is_the_percentile(n: int) -> None:
    for values in (
        np.random.default_rng(n).exponential(3, n),
        np.zeros(n),
        np.arange(n, 0.0, -1),
        np.where(np.arange(n) % 64 == 0, 1.0, 0.0),  # the sample is all of the high ones
        np.where(np.arange(n) % 64 == 1, 1.0, 0.0),  # or none of them
    ):
        image = np.zeros((2, 8, -(-n // 8)))
        outside = np.zeros(image.shape, bool)
        image[0].T.flat[:n], outside[0].T.flat[:n] = values, True
        highest, n_low = _highest_and_low(image, 0.0, outside, 0.5)
        assert _nearly_all(highest, n) == pytest.approx(np.percentile(values, FEW), abs=1e-9)
        assert n_low == np.count_nonzero(values < 0.5)


def test_bounds_of() -> None:
    mask = np.zeros((5, 6, 7), bool)
    assert not mask[bounds_of(mask)].size
    mask[1, 2:4, 6] = True
    assert bounds_of(mask) == (slice(1, 2), slice(2, 4), slice(6, 7))
