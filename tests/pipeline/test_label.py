"""From logits to labels: thresholds, and the rules for small parts and small ET."""

from __future__ import annotations

import numpy as np
import pytest

from fastbts import DeviceError, Segmenter, SegmenterOptions
from fastbts.labels import ED, ET, NCR
from tests.conftest import VoxelEngine

Case = tuple[np.ndarray, np.ndarray]


def test_small_et_becomes_core(small_case: Case) -> None:
    images, affine = small_case
    plain = Segmenter(VoxelEngine(), warm_up=False).predict(images, affine=affine)
    ruled = Segmenter(VoxelEngine(min_et_mm3=1e9), warm_up=False).predict(images, affine=affine)
    assert plain.volumes_ml["ET"] > 0
    np.testing.assert_array_equal(ruled.labels, np.where(plain.labels == 4, 1, plain.labels))
    assert ruled.volumes_ml == {**plain.volumes_ml, "ET": 0.0}
    assert ruled.report["postprocessing"]["small_et"] == {
        "threshold_mm3": 1e9,
        "applied": True,
        "et_mm3_before": pytest.approx(1000 * plain.volumes_ml["ET"]),
        "et_mm3_after": 0.0,
    }


def speckled_case() -> np.ndarray:
    """Images (4, 30, 24, 24): a tumour and, far from it, 5 single voxels of WT.

    The tumour has 6 x 6 x 6 voxels, 3 x 3 x 3 of which are ET.
    """
    images = np.zeros((4, 30, 24, 24), np.float32)
    images[:, 2:28, 2:22, 2:22] = np.random.default_rng(0).normal(100, 0.1, (4, 26, 20, 20))
    images[0, 6:12, 6:12, 6:12] = images[2:, 7:10, 7:10, 7:10] = 200
    images[0, 24, 18, 4:17:3] = 200
    return images


def test_small_parts_become_background_before_the_small_et_rule() -> None:
    images, engine = speckled_case(), VoxelEngine(min_et_mm3=27.5)
    whole = Segmenter(engine, warm_up=False).predict(images, affine=np.eye(4))
    assert whole.report["postprocessing"]["small_parts"] == {"threshold_mm3": 0.0}
    assert whole.report["postprocessing"]["small_et"]["applied"]
    assert int((whole.labels > 0).sum()) == 6**3 + 5
    cleaned = Segmenter(engine, options=SegmenterOptions(min_part_mm3=2), warm_up=False).predict(
        images, affine=np.eye(4)
    )
    assert cleaned.report["postprocessing"]["small_parts"] == {
        "threshold_mm3": 2, "n_parts_before": 6, "n_parts_after": 1, "removed_mm3": 5.0,
    }  # fmt: skip
    np.testing.assert_array_equal(cleaned.labels[:20], whole.labels[:20])
    assert not cleaned.labels[20:].any()
    assert cleaned.volumes_ml == {"WT": pytest.approx(0.216), "TC": pytest.approx(0.027), "ET": 0}
    nothing = Segmenter(engine, options=SegmenterOptions(min_part_mm3=217), warm_up=False).predict(
        images, affine=np.eye(4)
    )
    assert not nothing.labels.any()
    assert set(nothing.volumes_ml.values()) == {0}
    assert nothing.report["postprocessing"]["small_et"] == {
        "threshold_mm3": 27.5, "applied": False, "et_mm3_before": 0, "et_mm3_after": 0,
    }  # fmt: skip


def test_the_engine_may_ask_to_remove_small_parts() -> None:
    images, engine = speckled_case(), VoxelEngine(min_part_mm3=2)
    for option, n_after in ((None, 1), (0, 6), (217, 0)):
        segmenter = Segmenter(engine, options=SegmenterOptions(min_part_mm3=option), warm_up=False)
        report = segmenter.predict(images, affine=np.eye(4)).report["postprocessing"]["small_parts"]
        assert report.get("n_parts_after", 6) == n_after


def ringed_case() -> np.ndarray:
    """Images (4, 30, 24, 24): oedema, in it core of 4^3 voxels in a ring, and of 5^3 without."""
    images = np.zeros((4, 30, 24, 24), np.float32)
    images[:, 2:28, 2:22, 2:22] = np.random.default_rng(0).normal(100, 0.1, (4, 26, 20, 20))
    images[0, 5:24, 5:13, 5:13] = 200
    images[2:, 6:12, 6:12, 6:12], images[2, 7:11, 7:11, 7:11] = 200, 100
    images[3, 17:22, 7:12, 7:12] = 200
    return images


def test_core_away_from_the_ring_becomes_oedema() -> None:
    images = ringed_case()
    plain, ruled, small = (
        Segmenter(VoxelEngine(**rules), warm_up=False).predict(images, affine=np.eye(4))
        for rules in (
            {},
            {"stray_core_mm3": 8.0, "min_part_mm3": 2.0},
            {"stray_core_mm3": 8.0, "min_et_mm3": 1e9},
        )
    )
    assert plain.report["postprocessing"]["stray_core"] == {"threshold_mm3": 0.0}
    stray = np.zeros_like(plain.labels, bool)
    stray[17:22, 7:12, 7:12] = True
    assert (plain.labels[stray] == NCR).all()
    np.testing.assert_array_equal(ruled.labels, np.where(stray, ED, plain.labels))
    assert ruled.report["postprocessing"]["stray_core"] == {
        "threshold_mm3": 8.0, "enclosed_mm3": 8.0, "stray_mm3": 27.0, "changed_mm3": 125.0,
    }  # fmt: skip
    assert ruled.volumes_ml["TC"] == pytest.approx(plain.volumes_ml["TC"] - 0.125)
    assert ruled.volumes_ml["TC"] == pytest.approx((ruled.labels % 3 == 1).sum() / 1000)
    assert ruled.volumes_ml["WT"] == pytest.approx(plain.volumes_ml["WT"])
    # Without enhancing tumour nothing says that this core is stray.
    np.testing.assert_array_equal(small.labels, np.where(plain.labels == ET, NCR, plain.labels))
    assert small.report["postprocessing"]["stray_core"]["changed_mm3"] == 0
    assert small.volumes_ml["TC"] == pytest.approx(plain.volumes_ml["TC"])


class SickEngine(VoxelEngine):
    """A few logits of one region are not finite."""

    value, region, n = np.nan, 0, 3

    def infer(
        self, tensor: np.ndarray, text: np.ndarray | None = None, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        logits = super().infer(tensor, out=out)
        d, h, w = (n // 2 for n in logits.shape[2:])
        logits[:, self.region, d, h, w : w + self.n] = self.value
        return logits


@pytest.mark.parametrize("region", [0, 1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(
    small_case: Case, value: float, region: int
) -> None:
    engine = SickEngine()
    engine.value, engine.region = value, region
    message = "gave NaN or infinite values in 3 voxels of the brain box; .* another engine file"
    with pytest.raises(DeviceError, match=message):
        Segmenter(engine, warm_up=False).predict(small_case[0], affine=small_case[1])


def test_logits_that_are_not_finite_are_refused_at_another_spacing(small_case: Case) -> None:
    images, affine = small_case
    for options in (SegmenterOptions(mode="one-pass"), SegmenterOptions(mode="sliding")):
        segmenter = Segmenter(SickEngine(spacing_mm=2.0), options=options, warm_up=False)
        with pytest.raises(DeviceError, match="gave NaN or infinite values"):
            segmenter.predict(images, affine=affine)


@pytest.mark.parametrize("temperatures", [(0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (2.5, 1.0, 0.7)])
def test_thresholds_are_on_calibrated_probabilities(
    small_case: Case, temperatures: tuple[float, ...]
) -> None:
    images, affine = small_case
    engine = VoxelEngine(temperatures=temperatures, thresholds=(0.5, 0.4, 0.7))
    result = Segmenter(engine, warm_up=False).predict(images, affine=affine)
    plain = Segmenter(VoxelEngine(), warm_up=False).predict(images, affine=affine)
    both = np.stack([result.probabilities[2], plain.probabilities[2]])
    inside = (np.abs(both - 0.5) < 0.4999).all(axis=0)  # float32 resolves their logits
    logits, expected = np.log(both[:, inside]) - np.log1p(-both[:, inside])
    np.testing.assert_allclose(temperatures[2] * logits, expected, atol=2e-3)
    np.testing.assert_array_equal(result.labels == 4, result.probabilities[2] >= 0.7)
    assert 0 < (result.labels == 4).sum() < inside.sum()


def test_extreme_thresholds_do_not_overflow(small_case: Case) -> None:
    """The op's threshold is the sigmoid of -69000: no voxel of the brain box is below it."""
    engine = VoxelEngine(temperatures=(100.0,) * 3, thresholds=(1e-300, 1e-300, 1e-300))
    labels = Segmenter(engine, warm_up=False).predict(small_case[0], affine=small_case[1]).labels
    assert (labels > 0).sum() == np.prod(np.ptp(np.argwhere(labels), axis=0) + 1)


def test_small_parts_are_measured_in_mm3() -> None:
    """The tumour has 216 voxels: at 2 x 2 x 2 mm, 1728 mm3."""
    images, affine = speckled_case(), np.diag([2.0, 2.0, 2.0, 1.0])
    for threshold, n_after in ((8, 6), (8.01, 1), (1728, 1), (1728.1, 0)):
        segmenter = Segmenter(
            VoxelEngine(spacing_mm=2.0),
            options=SegmenterOptions(min_part_mm3=threshold),
            warm_up=False,
        )
        parts = segmenter.predict(images, affine=affine).report["postprocessing"]["small_parts"]
        assert (parts["n_parts_before"], parts["n_parts_after"]) == (6, n_after)
