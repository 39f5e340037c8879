"""The working grid, images brought to it, and logits brought back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastbts import Geometry, GeometryError, Segmenter, Volume
from fastbts.study.already import is_stripped
from fastbts.study.back import on_reference
from fastbts.study.grid import on_grid, working_grid
from tests.study.made import series

TURNED = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])


def geometry(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], turn: np.ndarray | None = None
) -> Geometry:
    """Stored LPS, or oblique."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * [-1, -1, 1] * spacing
    affine[:3, 3] = 12, -7, 30
    return Geometry(shape, affine)


def outer_corners(grid: Geometry) -> np.ndarray:
    ends = np.array(np.meshgrid(*((-0.5, n - 0.5) for n in grid.shape), [1])).reshape(4, -1)
    return (grid.affine @ ends)[:3]


@pytest.mark.parametrize("turn", [None, TURNED])
def test_the_working_grid_has_the_faces_of_the_reference(turn: np.ndarray | None) -> None:
    reference = geometry((512, 400, 30), (0.5, 0.5, 5), turn)
    grid = working_grid(reference)
    assert grid.shape == (256, 200, 150)
    assert grid.spacing_mm == pytest.approx((1, 1, 1))
    np.testing.assert_allclose(outer_corners(grid), outer_corners(reference), atol=1e-9)


def test_about_1_mm_stays_as_it_is() -> None:
    reference = geometry((200, 210, 180), (0.94, 0.94, 1.05))
    assert working_grid(reference).difference(reference) is None


def test_an_absurd_reference_is_refused() -> None:
    with pytest.raises(GeometryError, match="2000 x 2000 x 100 voxels at 1 mm"):
        working_grid(geometry((100, 100, 100), (20, 20, 1)))


def test_an_image_on_its_own_grid_is_not_changed() -> None:
    grid = geometry((10, 11, 12), (1, 1, 1))
    voxels = np.random.default_rng(0).integers(0, 999, grid.shape)
    np.testing.assert_array_equal(on_grid(voxels, grid, np.eye(4), grid), voxels)


@pytest.mark.parametrize("mm", [0.25, 0.5])
def test_fine_voxels_are_averaged(mm: float) -> None:
    n = round(24 / mm)
    source, target = geometry((n, n, 24), (mm, mm, 1)), geometry((24, 24, 24), (1, 1, 1))
    stripes = np.zeros(source.shape, np.int16)
    stripes[::2] = 1000
    found = on_grid(stripes, source, np.eye(4), target)
    assert np.abs(found[3:-3, 3:-3, 3:-3] - 500).max() < 300, "not 0 or 1000"


def test_an_image_is_moved_by_its_matrix() -> None:
    source, target = geometry((60, 60, 40), (1, 1, 2), TURNED), geometry((60, 60, 60), (1, 1, 1))
    steps = [3.0, 5.0, 7.0]
    index = np.moveaxis(np.indices(source.shape), 0, -1)
    voxels = 2000 + (index @ source.affine[:3, :3].T + source.affine[:3, 3]) @ steps
    matrix = np.eye(4)
    matrix[:3, 3] = (target.affine - source.affine)[:3] @ [30, 30, 20, 1] + [0, 0, 15]
    found = on_grid(voxels, source, matrix, target)
    place = (target.affine @ [31, 27, 33, 1] - matrix[:, 3])[:3]
    assert found[31, 27, 33] == pytest.approx(2000 + place @ steps, rel=1e-5)


def test_nan_is_background() -> None:
    grid = geometry((10, 11, 12), (1, 1, 1))
    voxels = np.full(grid.shape, np.nan, np.float32)
    voxels[3:6, 3:6, 3:6] = 7
    assert np.nansum(on_grid(voxels, grid, np.eye(4), grid)) == 7 * 27


@pytest.mark.parametrize("turn", [None, TURNED])
@pytest.mark.parametrize("spacing", [(1, 1, 4), (0.5, 0.5, 2), (2, 1, 1)])
def test_labels_come_back_to_the_reference(
    voxel_segmenter: Segmenter, spacing: tuple[float, float, float], turn: np.ndarray | None
) -> None:
    """A ball stays where it is, and keeps its volume."""
    shape = tuple(round(48 / mm) for mm in spacing)
    reference = geometry((shape[0], shape[1], shape[2]), spacing, turn)
    grid = working_grid(reference)
    centre = reference.affine[:3, :3] @ (np.array(shape) / [2.2, 2.6, 1.9])
    data = [ball(grid, reference, centre, radius) for radius in (12, 0, 7, 9)]
    result = voxel_segmenter.predict(Volume(np.stack(data), grid.affine))
    images = Volume(np.zeros((1, *reference.shape), np.float32), reference.affine, ["t1ce"])
    back = on_reference(result, images, voxel_segmenter.spec)
    assert back.labels.shape == reference.shape
    expected = ball(reference, reference, centre, 12) > 600
    found = back.labels > 0
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9
    assert back.volumes_ml["WT"] == pytest.approx(found.sum() * reference.voxel_ml)
    assert back.volumes_ml["WT"] == pytest.approx(result.volumes_ml["WT"], rel=0.1)
    assert back.report["volumes_ml"] == dict(back.volumes_ml)
    np.testing.assert_array_equal(back.probabilities.max(axis=0) >= 0.5, found)


def ball(grid: Geometry, reference: Geometry, centre: np.ndarray, radius: float) -> np.ndarray:
    """An image of 200 with a ball of 1000, soft by a voxel, in a frame of 0."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    place = index @ grid.affine[:3, :3].T + grid.affine[:3, 3] - reference.affine[:3, 3]
    distance = np.linalg.norm(place - centre, axis=-1)
    image = 200 + 800 * np.clip(radius + 0.5 - distance, 0, 1)
    image += np.random.default_rng(int(radius)).normal(0, 1, image.shape)
    image[:2] = image[-2:] = image[:, :2] = image[:, -2:] = 0
    return image.astype(np.float32)


def test_the_same_grid_is_left_alone(voxel_segmenter: Segmenter) -> None:
    grid = geometry((48, 48, 48), (1, 1, 1))
    data = np.stack([ball(grid, grid, np.array([-20.0, -20, 20]), r) for r in (12, 0, 7, 9)])
    result = voxel_segmenter.predict(Volume(data, grid.affine))
    back = on_reference(result, replace(result.volume), voxel_segmenter.spec)
    assert back.labels is result.labels


@pytest.mark.parametrize(
    ("filled", "stripped"),
    [
        ((slice(40, 140), slice(40, 150), slice(10, 28)), True),
        ((slice(40, 140), slice(40, 150), slice(0, 28)), False),  # a neck at the lower face
        ((slice(5, 195), slice(5, 195), slice(1, 29)), False),  # too large
        ((slice(90, 110), slice(90, 110), slice(10, 20)), False),  # too small
    ],
)
def test_what_is_stripped_for_certain(filled: tuple[slice, ...], stripped: bool) -> None:
    voxels = np.zeros((200, 200, 30), np.float32)
    voxels[filled] = 100
    voxels[0, 0, 0] = np.nan
    assert is_stripped(series(read=lambda: voxels)) == stripped
