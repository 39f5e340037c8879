from __future__ import annotations

import numpy as np
import pytest

from fastbts.study.prepared import Prepared
from fastbts.study.spatial import SpatialImage

AFFINE = np.array([[0, 0, -2.0, 5], [1, 0, 0, -7], [0, 3, 0, 1], [0, 0, 0, 1]])


def place_image(shape: tuple[int, int, int] = (24, 20, 16)) -> SpatialImage:
    """A mix of the position's coordinates at each voxel, so that values tell positions."""
    index = np.indices(shape).reshape(3, -1).T
    values = SpatialImage(np.zeros(shape), AFFINE).to_mm(index) @ [1.0, 0.1, 0.01]
    return SpatialImage(values.reshape(shape), AFFINE)


def inner_points(image: SpatialImage, margin: int = 5) -> np.ndarray:
    shape = np.array(image.voxels.shape)
    index = np.random.default_rng(0).uniform(margin, shape - 1 - margin, (50, 3))
    return image.to_mm(index)


def test_values_between_voxels() -> None:
    image = place_image()
    points = inner_points(image)
    np.testing.assert_allclose(image.at(points), points @ [1.0, 0.1, 0.01])
    outside = image.to_mm(np.array([[-9, 3, 3]]))
    assert image.at(outside) == image.voxels[0, 3, 3]


@pytest.mark.parametrize("steps", [(1, 1, 1), (2, 3, 1), (3, 2, 4)])
def test_every_nth_voxel_stays_where_it_was(steps: tuple[int, int, int]) -> None:
    image = place_image()
    reduced = image.blurred(np.array([1.0, 2.0, 0.1]), np.array(steps))
    points = inner_points(image, 6)
    np.testing.assert_allclose(reduced.at(points), image.at(points), atol=1e-4)


def test_a_cut_and_a_transposed_image_stay_where_they_were() -> None:
    image = place_image()
    points = inner_points(image)
    part = image.cut(np.array([3, 1, 2]), np.array([22, 19, 15]))
    np.testing.assert_allclose(part.at(points), image.at(points))
    fortran = SpatialImage(np.asfortranarray(image.voxels), AFFINE).in_memory_order()
    assert fortran.voxels.flags.c_contiguous
    np.testing.assert_allclose(fortran.at(points), image.at(points))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blur_has_the_variance_asked_for(axis: int) -> None:
    voxels = np.zeros((31, 31, 31))
    voxels[15, 15, 15] = 1
    sigma = np.zeros(3)
    sigma[axis] = 2.0
    blurred = SpatialImage(voxels, np.eye(4)).blurred(sigma, np.ones(3, int)).voxels
    profile = np.moveaxis(blurred, axis, 0)[:, 15, 15]
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    variance = (profile * (np.arange(31) - 15) ** 2).sum()
    assert variance == pytest.approx(4, rel=0.1), "cut off at 2.5 standard deviations"


def test_the_size_of_a_voxel_along_other_axes() -> None:
    """Slices of 6 mm along Y, seen from a grid whose first axis is Y."""
    thick = SpatialImage(np.zeros((2, 2, 2)), np.diag([1.0, 6, 1, 1]))
    other = SpatialImage(np.zeros((2, 2, 2)), AFFINE)
    np.testing.assert_allclose(thick.variance_along(other), [3, 1 / 12, 1 / 12])


def test_points_are_in_and_around_the_signal() -> None:
    """A cube of 40 mm: points up to 8 mm away, and as many as asked for."""
    voxels = np.zeros((100, 100, 100), np.int16)
    voxels[30:70, 30:70, 30:70] = 100
    ready = Prepared.of(voxels, np.eye(4))
    np.testing.assert_allclose(ready.centre, 49.5, atol=0.5)
    for n in (100, 9_000):
        points = ready.points(n)
        assert points.shape == (n, 3)
        assert 14 <= points.min() < 30
        assert 69 < points.max() <= 85
    assert ready.image.voxels.shape == (84, 84, 84), "20 mm around, on whole voxels of 4 mm"


def test_thick_slices_blur_the_other_image() -> None:
    """Both end with the blur of the thicker slices, on voxels of that size."""
    thin, thick = (
        Prepared.of(np.random.default_rng(0).random((n, 60, 60)), np.diag([s, 1.0, 1, 1]))
        for n, s in ((60, 1.0), (10, 6.0))
    )
    assert thin.level(1.0, thin).spacing_mm.tolist() == [1, 1, 1]
    assert thin.level(1.0, thick).spacing_mm.tolist() == [1, 1, 1]
    assert thin.level(4.0, thick).spacing_mm.tolist() == [4, 4, 4]
    blurred, sharp = (thin.level(1.0, x).voxels.astype(float) for x in (thick, thin))
    assert np.abs(np.diff(blurred, axis=0)).mean() < 0.7 * np.abs(np.diff(sharp, axis=0)).mean()
