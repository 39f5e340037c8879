"""From a Volume to the network's tensor, and what is refused on the way."""

from __future__ import annotations

import numpy as np
import pytest

from fastbts import MODALITIES, EngineSpec, GeometryError, InputError, Segmenter, Volume
from fastbts.pipeline.normalize import normalize
from tests.conftest import VoxelEngine

Case = tuple[np.ndarray, np.ndarray]


def test_other_spacing_is_mapped_back(voxel_segmenter: Segmenter) -> None:
    """A smooth blob at 2 x 1 x 3 mm: same grid out, same extent in mm as on the 1 mm grid."""
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


def test_unusable_content(voxel_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    broken = images.astype(np.float32)
    broken[1, 10, 10, 10] = np.nan
    with pytest.raises(InputError, match="t1: 1 voxels inside the brain are NaN"):
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


@pytest.mark.parametrize("without", MODALITIES)
def test_a_missing_channel_is_zero_and_changes_no_other(small_case: Case, without: str) -> None:
    images, affine = small_case
    spec = VoxelEngine(optional_modalities=MODALITIES).spec
    whole = normalize(Volume(images, affine), spec)
    kept = {m: image for m, image in zip(MODALITIES, images, strict=True) if m != without}
    part = normalize(Volume(np.stack(list(kept.values())), affine, tuple(kept)), spec)
    wanted = whole.tensor.copy()
    wanted[MODALITIES.index(without)] = 0
    np.testing.assert_array_equal(part.tensor, wanted)
    np.testing.assert_array_equal(part.numbers, whole.numbers[[MODALITIES.index(m) for m in kept]])


def test_negative_brain_voxels_are_clipped_like_any_outlier() -> None:
    """Interpolation makes a few negative: they stay brain, and other voxels do not change."""
    image = np.random.default_rng(0).uniform(100, 900, (4, 32, 32, 32)).astype(np.float32)
    # 8 of 32768 voxels, below the 0.1st percentile.
    negative, middle = image.copy(), (slice(None), *[slice(15, 17)] * 3)
    negative[middle] = -500
    plain, changed = (
        normalize(Volume(voxels, np.eye(4)), EngineSpec()).tensor for voxels in (image, negative)
    )
    lowest = changed.min((1, 2, 3))
    assert (changed[middle] == lowest[:, None, None, None]).all()
    np.testing.assert_allclose(lowest, plain.min((1, 2, 3)), atol=0.01)
    changed[middle] = plain[middle]
    np.testing.assert_allclose(changed, plain, atol=0.01)
