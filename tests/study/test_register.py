"""Registration finds known movements, and says where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import Geometry, GeometryError, InputError
from fastbts.study.register import MIN_QUALITY, register
from tests.study.heads import (
    FAR,
    NEAR,
    SCANS,
    TURNED,
    Image,
    Movement,
    brain_points,
    centre_of,
    head,
    mean_error_mm,
    moved,
)

MAX_ERROR_MM = 1.0  # mean over the brain, as issue 15 asks; measured: at most 0.17


def error_mm(matrix: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Mean over the phantom's brain."""
    return mean_error_mm(matrix, truth, brain_points(head("t1ce", False)))


def scan(slices_mm: int, movement: Movement, with_skull: bool) -> tuple[Image, NDArray[np.float64]]:
    """A moved image, and how it was moved."""
    modality, grid = SCANS[slices_mm]
    centre = centre_of(head("t1ce", False))
    truth = movement.about(centre)
    return moved(head(modality, with_skull), truth, centre, grid), truth


@pytest.mark.parametrize("with_skull", [False, True], ids=["stripped", "skull"])
def test_thick_slices_from_a_far_start(with_skull: bool) -> None:
    """54 mm and 22 degrees away."""
    image, truth = scan(5, FAR, with_skull)
    found = register(image, head("t1ce", with_skull))
    assert error_mm(found.matrix, truth) < MAX_ERROR_MM
    assert found.moved_mm == pytest.approx(54, abs=1)
    assert found.turned_degrees == pytest.approx(22.3, abs=0.5)
    assert found.inside > 0.99
    assert 1.1 < found.nmi < 2
    assert found.quality > 1.5 * MIN_QUALITY


@pytest.mark.slow
@pytest.mark.parametrize("with_skull", [False, True], ids=["stripped", "skull"])
@pytest.mark.parametrize("movement", [NEAR, FAR, TURNED], ids=["near", "far", "turned"])
@pytest.mark.parametrize("slices_mm", SCANS)
def test_known_movements(slices_mm: int, movement: Movement, with_skull: bool) -> None:
    image, truth = scan(slices_mm, movement, with_skull)
    found = register(image, head("t1ce", with_skull))
    assert error_mm(found.matrix, truth) < MAX_ERROR_MM
    assert found.quality > 1.5 * MIN_QUALITY


@pytest.mark.slow
def test_either_image_may_be_the_thick_one() -> None:
    image, truth = scan(5, NEAR, True)
    found = register(head("t1ce", True), image)
    assert error_mm(np.linalg.inv(found.matrix), truth) < MAX_ERROR_MM


@pytest.mark.slow
def test_a_field_of_view_that_ends_in_the_brain() -> None:
    """Slices over 60 mm of a head that is about 190 mm high."""
    centre = centre_of(head("t1ce", False))
    truth = NEAR.about(centre)
    grid = replace(SCANS[5][1], field_mm=(210, 250, 60))
    found = register(moved(head("t2", True), truth, centre, grid), head("t1ce", True))
    assert error_mm(found.matrix, truth) < MAX_ERROR_MM
    assert found.inside < 0.6


def test_threads_and_memory_order_change_no_bit() -> None:
    image, _ = scan(5, NEAR, False)
    fixed = head("t1ce", False)
    dense = replace(image, voxels=np.asfortranarray(image.voxels))
    results = [register(x, fixed, n).matrix for x, n in ((image, 1), (image, 3), (dense, 2))]
    assert np.array_equal(results[0], results[1])
    np.testing.assert_allclose(results[0], results[2], atol=0.1)


def test_nan_counts_as_background() -> None:
    image, _ = scan(5, NEAR, False)
    voxels = image.voxels.astype(np.float32)
    holes = np.where(voxels == 0, np.nan, voxels)
    fixed = head("t1ce", False)
    zero, nan = (register(replace(image, voxels=v), fixed).matrix for v in (voxels, holes))
    assert np.array_equal(zero, nan)


def upside_down(image: Image) -> Image:
    return replace(image, voxels=image.voxels[:, :, ::-1])


def mirrored(image: Image) -> Image:
    return replace(image, voxels=image.voxels[::-1])


def noise(image: Image) -> Image:
    return replace(image, voxels=np.random.default_rng(0).random(image.voxels.shape))


def ball(image: Image) -> Image:
    offset = np.indices(image.voxels.shape).T - np.array(image.voxels.shape) / 2
    inside = np.linalg.norm(offset * image.geometry.spacing_mm, axis=-1).T < 70
    return replace(image, voxels=inside.astype(np.uint8))


@pytest.mark.parametrize("wrong", [upside_down, mirrored, noise, ball])
def test_wrong_images_are_refused(wrong: Callable[[Image], Image]) -> None:
    image, _ = scan(5, NEAR, False)
    message = r"t2 moved: could not be registered to t1ce: quality [\d.-]+, expected at least"
    with pytest.raises(GeometryError, match=message):
        register(wrong(image), head("t1ce", False))


def test_images_that_hardly_overlap_are_refused() -> None:
    image, _ = scan(5, NEAR, False)
    low = image.geometry.affine.copy()
    low[:3, 3] += 15 * low[:3, 2]
    few = Image("localizer", image.voxels[:, :, 15:18], Geometry((*image.voxels.shape[:2], 3), low))
    with pytest.raises(GeometryError, match=r"localizer: only \d+% of the head in t1ce is inside"):
        register(few, head("t1ce", False))


@pytest.mark.parametrize("value", [0, 7])
def test_constant_images_are_refused(value: int) -> None:
    image, _ = scan(5, NEAR, False)
    flat = replace(image, voxels=np.full_like(image.voxels, value))
    for pair in ((flat, image), (image, flat)):
        with pytest.raises(InputError, match="t2 moved: expected an image of a head to register"):
            register(*pair)


@pytest.mark.slow
def test_simpleitk_finds_the_same() -> None:
    """Mattes mutual information on two levels, from a near start."""
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is an optional oracle")
    image, _ = scan(3, NEAR, True)
    fixed = head("t1ce", True)
    theirs = registered_by_simpleitk(sitk, image, fixed)
    ours = register(image, fixed)
    assert error_mm(ours.matrix, theirs) < 0.5


def registered_by_simpleitk(sitk: Any, moving: Image, fixed: Image) -> NDArray[np.float64]:
    """RAS+ position in the fixed image -> that in the moving image, (4, 4)."""
    flip = np.diag([-1.0, -1, 1, 1])  # ITK is LPS+

    def itk(image: Image) -> Any:
        lps, spacing = flip @ image.geometry.affine, image.geometry.spacing_mm
        made = sitk.GetImageFromArray(image.voxels.T.astype(np.float32))
        made.SetSpacing(spacing)
        made.SetOrigin(lps[:3, 3].tolist())
        made.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        return made

    still, other = itk(fixed), itk(moving)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.2)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 300)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([4, 1])
    start = sitk.CenteredTransformInitializer(
        still, other, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method.SetInitialTransform(start)
    found = method.Execute(still, other)
    matrix = np.eye(4)
    corners = np.array(
        [found.TransformPoint(p.tolist()) for p in np.vstack([np.zeros(3), np.eye(3)])]
    )
    matrix[:3, 3], matrix[:3, :3] = corners[0], (corners[1:] - corners[0]).T
    return flip @ matrix @ flip
