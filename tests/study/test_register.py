"""Registration finds known movements, and says where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import Geometry, GeometryError, InputError
from fastbts.phantom import make_case
from fastbts.phantom.study import FLAIR, T1, T1CE, T2, StudyCase
from fastbts.study.read import read_series
from fastbts.study.register import MIN_QUALITY, register
from tests.study.heads import (
    FAR,
    MOVEMENTS,
    NEAR,
    SCANS,
    Image,
    head,
    mean_error_mm,
    moved,
    points_of,
)
from tests.study.made import SHAPE

MAX_ERROR_MM = 1.0  # as issue 15 asks; measured: at most 0.2
SKULLS = pytest.mark.parametrize("has_skull", [False, True], ids=["stripped", "skull"])


def error_mm(matrix: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Mean over the phantom's brain."""
    return mean_error_mm(matrix, truth, points_of(head("t1ce", False)))


def scan(
    slices_mm: int, place: dict[str, Any], has_skull: bool
) -> tuple[Image, NDArray[np.float64]]:
    """A moved image of the phantom, and how it was moved."""
    return moved(head(SCANS[slices_mm].modality, has_skull), slices_mm, place)


@SKULLS
def test_thick_slices_from_a_far_start(has_skull: bool) -> None:
    """54 mm and 22 degrees away."""
    image, truth = scan(5, FAR, has_skull)
    found = register(image, head("t1ce", has_skull))
    assert error_mm(found.matrix, truth) < MAX_ERROR_MM
    assert found.turned_degrees == pytest.approx(22.3, abs=0.5)
    assert found.inside > 0.95
    assert 1.1 < found.nmi < 2
    assert found.quality > 1.5 * MIN_QUALITY


@pytest.mark.slow
@SKULLS
@pytest.mark.parametrize("place", MOVEMENTS)
@pytest.mark.parametrize("slices_mm", SCANS)
def test_known_movements(slices_mm: int, place: str, has_skull: bool) -> None:
    image, truth = scan(slices_mm, MOVEMENTS[place], has_skull)
    found = register(image, head("t1ce", has_skull))
    assert error_mm(found.matrix, truth) < MAX_ERROR_MM
    assert found.quality > 1.5 * MIN_QUALITY


def test_a_shifted_header() -> None:
    """The same voxels elsewhere: the matrix takes them back, exactly."""
    fixed = head("t2", False)
    affine = fixed.geometry.affine.copy()
    affine[:3, 3] += 10, -20, 5
    found = register(replace(fixed, geometry=Geometry(fixed.geometry.shape, affine)), fixed)
    np.testing.assert_allclose(found.matrix[:3, 3], [-10, 20, -5], atol=0.1)
    assert found.moved_mm == pytest.approx(np.sqrt(525), abs=0.1)
    assert found.turned_degrees < 0.1


@pytest.mark.slow
def test_either_image_may_be_the_thick_one() -> None:
    image, truth = scan(5, NEAR, True)
    found = register(head("t1ce", True), image)
    assert error_mm(np.linalg.inv(found.matrix), truth) < MAX_ERROR_MM


@pytest.mark.slow
def test_a_field_of_view_that_ends_in_the_brain() -> None:
    """Slices over 60 mm of the head."""
    image, truth = scan(5, NEAR, True)
    found = register(image.slices(16, 28), head("t1ce", True))
    assert error_mm(found.matrix, truth) < MAX_ERROR_MM
    assert found.inside < 0.6


def test_series_of_a_dicom_study(study: StudyCase) -> None:
    """At 5 mm, so that the accuracy is a fraction of that."""
    series = {one.name: one for one in read_series(study.folder).series}
    brain = make_case(0, SHAPE).volume
    points = points_of(Image("t1ce", brain.data[2], brain.geometry))
    for scan in (FLAIR, T1, T2):
        found = register(series[scan.text], series[T1CE.text])
        truth = np.linalg.inv(study.truth[scan.text])
        assert mean_error_mm(found.matrix, truth, points) < MAX_ERROR_MM


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
    few = replace(image.slices(15, 18), label="localizer")
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
@SKULLS
def test_simpleitk_finds_the_same(has_skull: bool) -> None:
    """Mattes mutual information on two levels, from a near start; from a far one it fails."""
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed (extra test)")
    image, _ = scan(3, NEAR, has_skull)
    fixed = head("t1ce", has_skull)
    theirs = registered_by_simpleitk(sitk, image, fixed)
    ours = register(image, fixed)
    assert error_mm(ours.matrix, theirs) < MAX_ERROR_MM


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
    method.SetNumberOfThreads(1)  # repeatable
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
