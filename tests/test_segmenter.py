"""The whole way with an engine that looks at single voxels: geometry, windows and options must not change its answer."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import (
    CaseError,
    GeometryError,
    InputError,
    OptionsError,
    OutputError,
    Segmenter,
    SegmenterOptions,
    Volume,
)
from tests.conftest import VoxelEngine

Case = tuple[np.ndarray, np.ndarray]


def expected_labels(images: np.ndarray, at: float = 1.0) -> np.ndarray:
    """What VoxelEngine must give, straight from its definition in float64; tumour begins `at` standard deviations."""
    brain = (images != 0).any(axis=0)
    z = np.zeros(images.shape)
    for image, out in zip(images, z, strict=True):
        values = image[brain].astype(np.float64)
        clipped = np.clip(values, *np.percentile(values, [0.1, 99.9], method="inverted_cdf"))
        out[brain] = (clipped - clipped.mean()) / clipped.std()
    labels = np.zeros(brain.shape, np.uint8)
    for channel, value in (
        (0, 2),
        (3, 1),
        (2, 4),
    ):  # WT from FLAIR, TC from T2, ET from T1ce, each overriding
        labels[z[channel] >= at] = value
    return labels


def test_known_answer(voxel_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    result = voxel_segmenter.predict(images, affine=affine)
    np.testing.assert_array_equal(result.labels, expected_labels(images))
    assert result.volumes_ml["WT"] == pytest.approx((result.labels > 0).sum() / 1000)
    assert result.volumes_ml["TC"] == pytest.approx(np.isin(result.labels, (1, 4)).sum() / 1000)
    assert result.volumes_ml["ET"] == pytest.approx((result.labels == 4).sum() / 1000)


def test_probabilities_agree_with_labels(voxel_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    result = voxel_segmenter.predict(images, affine=affine)
    assert result.probabilities.shape == (3, *images.shape[1:])
    np.testing.assert_array_equal(result.labels == 4, result.probabilities[2] >= 0.5)
    assert not result.probabilities[:, :3].any(), "nothing outside the brain box"


def _stored(
    images: np.ndarray, affine: np.ndarray, order: tuple[int, ...], signs: tuple[int, ...]
) -> Case:
    """The same patient, stored with other axes."""
    step = np.zeros((4, 4))
    step[3, 3] = 1
    shape = images.shape[1:]
    for i, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        step[axis, i], step[axis, 3] = sign, step[axis, 3] + (shape[axis] - 1 if sign < 0 else 0)
    flips = tuple(slice(None, None, s) for s in signs)
    return images.transpose(0, *(1 + a for a in order))[(slice(None), *flips)], affine @ step


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("oblique", [False, True])
def test_all_48_orientations_give_the_same_patient(
    voxel_segmenter: Segmenter, small_case: Case, order: tuple[int, ...], oblique: bool
) -> None:
    images, affine = small_case
    if oblique:
        c, s = np.cos(0.2), np.sin(0.2)
        affine = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine
    wanted = expected_labels(images)
    for signs in itertools.product((1, -1), repeat=3):
        stored, stored_affine = _stored(images, affine, order, signs)
        labels = voxel_segmenter.predict(stored, affine=stored_affine).labels
        np.testing.assert_array_equal(labels, _stored(wanted[None], affine, order, signs)[0][0])


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_files_of_any_dtype(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path, dtype: type, suffix: str
) -> None:
    images, affine = small_case
    paths = {}
    for name, image in zip(("flair", "t1", "t1ce", "t2"), images, strict=True):
        paths[name] = tmp_path / f"{name}{suffix}"
        nib.Nifti1Image(image.astype(dtype), affine).to_filename(paths[name])
    result = voxel_segmenter.predict(**paths)
    np.testing.assert_array_equal(result.labels, expected_labels(images))
    saved = nib.load(result.save(tmp_path / f"seg{suffix}")[0])
    np.testing.assert_array_equal(np.asarray(saved.dataobj), result.labels)
    np.testing.assert_array_equal(saved.affine, nib.load(paths["flair"]).affine)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_sliding_windows_equal_one_pass(small_case: Case, overlap: float) -> None:
    images, affine = small_case
    engine = VoxelEngine()
    sliding = Segmenter(
        engine, options=SegmenterOptions(mode="sliding", overlap=overlap), warm_up=False
    )
    result = sliding.predict(images, affine=affine)
    assert engine.n_calls == result.report["windows"]["count"] > 1
    whole = Segmenter(engine, options=SegmenterOptions(mode="one-pass"), warm_up=False).predict(
        images, affine=affine
    )
    np.testing.assert_allclose(result.logits, whole.logits, atol=1e-4)


def test_auto_slides_when_the_tensor_is_large(small_case: Case) -> None:
    images, affine = small_case
    options = SegmenterOptions(max_one_pass_voxels=1000)
    assert (
        Segmenter(VoxelEngine(), options=options)
        .predict(images, affine=affine)
        .report["windows"]["mode"]
        == "sliding"
    )


def test_other_spacing_is_mapped_back(voxel_segmenter: Segmenter) -> None:
    """A smooth blob at 2 x 1 x 3 mm: same grid out, and the same extent in mm as on the 1 mm grid."""
    volumes = []
    for spacing in ((1, 1, 1), (2, 1, 3)):
        grids = np.meshgrid(
            *(
                np.arange(n // s) * s + (s - 1) / 2
                for n, s in zip((60, 60, 60), spacing, strict=True)
            ),
            indexing="ij",
        )
        distance = np.sqrt(sum((g - 29.5) ** 2 for g in grids))
        image = np.where(distance < 26, 100 + 400 / (1 + np.exp(distance - 10)), 0).astype(
            np.float32
        )
        result = voxel_segmenter.predict(
            np.stack([image, image * 2, image * 3, image * 4]), affine=np.diag([*spacing, 1.0])
        )
        assert result.labels.shape == image.shape
        assert result.report["preprocessing"]["resampled"] == (spacing != (1, 1, 1))
        volumes.append(result.volumes_ml["WT"])
    assert volumes[1] == pytest.approx(volumes[0], rel=0.1)


def test_small_et_becomes_core(small_case: Case) -> None:
    images, affine = small_case
    plain = Segmenter(VoxelEngine(), warm_up=False).predict(images, affine=affine)
    ruled = Segmenter(VoxelEngine(min_et_mm3=1e9), warm_up=False).predict(images, affine=affine)
    assert plain.volumes_ml["ET"] > 0
    np.testing.assert_array_equal(ruled.labels, np.where(plain.labels == 4, 1, plain.labels))
    assert ruled.volumes_ml == {**plain.volumes_ml, "ET": 0.0}
    assert ruled.report["postprocessing"]["small_et"] == {
        "threshold_mm3": 1e9, "applied": True, "et_mm3_before": pytest.approx(1000 * plain.volumes_ml["ET"]), "et_mm3_after": 0.0,
    }  # fmt: skip


def speckled_case() -> np.ndarray:
    """Images (4, 30, 24, 24): a tumour of 6 x 6 x 6 voxels with a 3 x 3 x 3 spot of ET, and far from it 5 lone voxels of WT."""
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


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_thresholds_are_on_calibrated_probabilities(small_case: Case, temperature: float) -> None:
    images, affine = small_case
    engine = VoxelEngine(temperature=temperature, thresholds=(0.5, 0.4, 0.7))
    result = Segmenter(engine, warm_up=False).predict(images, affine=affine)
    inside = result.probabilities[2] > 0
    logits = (
        np.log(result.probabilities[2][inside] / (1 - result.probabilities[2][inside]))
        * temperature
    )
    plain = (
        Segmenter(VoxelEngine(), warm_up=False)
        .predict(images, affine=affine)
        .probabilities[2][inside]
    )
    np.testing.assert_allclose(logits, np.log(plain / (1 - plain)), atol=2e-3)
    np.testing.assert_array_equal(result.labels == 4, result.probabilities[2] >= 0.7)
    assert 0 < (result.labels == 4).sum() < inside.sum()


def test_extreme_thresholds_do_not_overflow(small_case: Case) -> None:
    """The op's threshold is the sigmoid of -69000: no voxel of the brain box lies below it."""
    engine = VoxelEngine(temperature=100.0, thresholds=(1e-300, 1e-300, 1e-300))
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


def test_threads_share_one_segmenter(shipped_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    cases = [np.roll(images, shift, axis=1) for shift in range(4)]
    alone = [shipped_segmenter.predict(case, affine=affine).logits for case in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda case: shipped_segmenter.predict(case, affine=affine).logits, cases * 2)
        )
    for got, wanted in zip(together, alone * 2, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_batch_keeps_order_and_names_the_broken_case(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path
) -> None:
    images, affine = small_case
    volumes = [Volume(np.roll(images, shift, axis=2), affine) for shift in (0, 1, 2)]
    for volume, result in zip(volumes, voxel_segmenter.predict_batch(volumes), strict=True):
        np.testing.assert_array_equal(result.labels, expected_labels(volume.data))
    results = voxel_segmenter.predict_batch([volumes[0], tmp_path / "nothing"])
    next(results)
    with pytest.raises(CaseError, match="nothing"):
        next(results)


def test_progress_runs_from_zero_to_one(voxel_segmenter: Segmenter, small_case: Case) -> None:
    seen: list[tuple[str, float]] = []
    voxel_segmenter.predict(
        small_case[0], affine=small_case[1], progress=lambda stage, done: seen.append((stage, done))
    )
    assert [stage for stage, _ in seen] == ["read", "normalize", "infer", "label", "done"]
    assert [done for _, done in seen] == sorted(done for _, done in seen)
    assert seen[-1][1] == 1.0


def test_named_images(voxel_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    named = dict(zip(("t2", "flair", "t1", "t1ce"), images[[3, 0, 1, 2]], strict=True))
    np.testing.assert_array_equal(
        voxel_segmenter.predict(**named, affine=affine).labels, expected_labels(images)
    )
    niftis = {name: nib.Nifti1Image(image, affine) for name, image in named.items()}
    result = voxel_segmenter.predict(**niftis)
    np.testing.assert_array_equal(result.labels, expected_labels(images))
    assert not result.report["warnings"]
    assert result.volume.header is niftis["flair"].header, (
        "so that results are written in the same form"
    )
    assert "RAS+" in voxel_segmenter.predict(**named).report["warnings"][0]


def test_unusable_input(voxel_segmenter: Segmenter, small_case: Case) -> None:
    images, _ = small_case
    named = dict(zip(("flair", "t1", "t1ce", "t2"), images, strict=True))
    with pytest.raises(CaseError, match="give either"):
        voxel_segmenter.predict()
    with pytest.raises(CaseError, match="t2 is missing"):
        voxel_segmenter.predict(flair=images[0], t1=images[1], t1ce=images[2])
    with pytest.raises(CaseError, match="mixed"):
        voxel_segmenter.predict(**{**named, "t1": "t1.nii.gz"})
    with pytest.raises(CaseError, match=r"read a folder with fastbts\.read_case"):
        voxel_segmenter.predict("folder")  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match="shapes differ"):
        voxel_segmenter.predict(**{**named, "t1": images[1][1:]})
    with pytest.raises(InputError, match="real numbers"):
        voxel_segmenter.predict(**{**named, "t1": images[1].astype(complex)})
    moved = np.eye(4)
    moved[0, 3] = 5
    with pytest.raises(GeometryError, match=r"t1: affine .* differs"):
        voxel_segmenter.predict(
            **{k: nib.Nifti1Image(v, moved if k == "t1" else np.eye(4)) for k, v in named.items()}
        )
    with pytest.raises(CaseError, match="arrays and nibabel images are mixed"):
        voxel_segmenter.predict(**{**named, "t1": nib.Nifti1Image(images[1], moved)})
    with pytest.raises(CaseError, match="affine was given with a Volume"):
        voxel_segmenter.predict(Volume(images, np.eye(4)), affine=np.eye(4))
    with pytest.raises(GeometryError, match="finite 4x4"):
        voxel_segmenter.predict(images, affine=np.eye(3))
    with pytest.raises(CaseError, match=r"flair .* and t1 .* hold the same voxels"):
        voxel_segmenter.predict(images[[0, 0, 2, 3]], affine=np.eye(4))


def test_odd_but_usable_arrays(voxel_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    wanted = expected_labels(images)
    frozen = images.copy()
    frozen.setflags(write=False)
    for odd in (images.astype(">i2"), frozen, np.asfortranarray(images), images.astype(np.uint16)):
        np.testing.assert_array_equal(voxel_segmenter.predict(odd, affine=affine).labels, wanted)
    niftis = {
        n: nib.Nifti1Image(i[..., None], affine)
        for n, i in zip(("flair", "t1", "t1ce", "t2"), images, strict=True)
    }
    np.testing.assert_array_equal(voxel_segmenter.predict(**niftis).labels, wanted)


def test_truncated_nibabel_image(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path
) -> None:
    images, affine = small_case
    path = tmp_path / "t.nii.gz"
    nib.Nifti1Image(images[0], affine).to_filename(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="flair: cannot be read"):
        voxel_segmenter.predict(
            flair=nib.load(path),
            **{n: nib.Nifti1Image(images[0], affine) for n in ("t1", "t1ce", "t2")},
        )


def test_absurd_spacing_is_refused_before_memory_runs_out(
    voxel_segmenter: Segmenter, small_case: Case
) -> None:
    with pytest.raises(GeometryError, match="check the header's units"):
        voxel_segmenter.predict(small_case[0], affine=np.diag([20.0, 20.0, 20.0, 1.0]))


def test_absurd_intensities_name_the_images(voxel_segmenter: Segmenter, small_case: Case) -> None:
    huge = small_case[0].astype(np.float64)
    huge[1] *= 1e303
    with pytest.raises(InputError, match=r"flair, t1, t1ce, t2: .*modality 1"):
        voxel_segmenter.predict(huge, affine=small_case[1])


def test_written_scheme_is_stated_in_the_image(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path
) -> None:
    result = voxel_segmenter.predict(small_case[0], affine=small_case[1])
    image, sidecar = result.save(tmp_path / "s.nii.gz", labels="brats2023")
    assert b'"label_scheme": "brats2023"' in nib.load(image).header.extensions[0].get_content()
    assert sidecar.name == "s.json"


def test_unwritable_sidecar_leaves_no_image(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path
) -> None:
    (tmp_path / "s.json").mkdir()
    with pytest.raises(OutputError, match=r"s\.json"):
        voxel_segmenter.predict(small_case[0], affine=small_case[1]).save(tmp_path / "s.nii.gz")
    assert not (tmp_path / "s.nii.gz").exists()


def test_unusable_content(voxel_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    broken = images.astype(np.float32)
    broken[1, 10, 10, 10] = np.nan
    with pytest.raises(InputError, match="t1: 1 voxels are NaN"):
        voxel_segmenter.predict(broken, affine=affine)
    empty = images.copy()
    empty[2] = 0
    with pytest.raises(InputError, match="t1ce: all voxels are zero"):
        voxel_segmenter.predict(empty, affine=affine)
    flat = images.copy()
    flat[3] = np.where(flat[3], 5, 0)
    flat[3][(flat != 0).any(axis=0)] = 5
    with pytest.raises(InputError, match="t2: all brain voxels have about the value 5"):
        voxel_segmenter.predict(flat, affine=affine)


def test_options_are_checked() -> None:
    for wrong, message in [
        ({"mode": "fast"}, "mode 'fast'"),
        ({"overlap": 1.0}, "overlap"),
        ({"threads": -1}, "threads"),
        ({"threads": 1.5}, "threads"),
        ({"max_one_pass_voxels": -1}, "max"),
        ({"min_part_mm3": -1.0}, "min_part_mm3"),
        ({"min_part_mm3": float("nan")}, "min_part_mm3"),
    ]:
        with pytest.raises(OptionsError, match=message):
            SegmenterOptions(**wrong)  # type: ignore[arg-type]
