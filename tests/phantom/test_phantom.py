"""The synthetic case: first values worked out by hand, then properties of every case."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts.errors import GeometryError, OutputError
from fastbts.labels import ED, ET, NCR
from fastbts.phantom.case import PhantomCase, _blur, _spread, make_case, write_case
from fastbts.phantom.head import _capsule, _ellipsoid, _join, ramp

COARSE = (120, 120, 78)  # 2 mm voxels: an eighth of the work
FLAIR, T1, T1CE, T2 = range(4)


@pytest.fixture(scope="module")
def case() -> PhantomCase:
    return make_case(0)


@pytest.fixture(scope="module")
def coarse() -> list[PhantomCase]:
    return [make_case(seed, COARSE) for seed in range(4)]


def images_of(case: PhantomCase) -> np.ndarray:
    return np.asarray(case.volume.data, np.float32)


def test_depths_by_hand() -> None:
    x = np.array([0.0, 3.0, 10.0, 12.0])
    zero = np.zeros(4)
    np.testing.assert_allclose(
        _ellipsoid((x, zero, zero), (0, 0, 0), (10, 10, 10)), [10, 7, 0, -2], atol=1e-5
    )
    # A rod along x from 0 to 10 whose radius falls from 4 to 2, seen at 1 mm from its axis.
    np.testing.assert_allclose(
        _capsule((x, zero + 1, zero), (0, 0, 0), (10, 0, 0), (4, 2))[:3], [3, 2.4, 1], atol=1e-6
    )
    np.testing.assert_allclose(ramp(np.array([-1.0, -0.25, 0.0, 0.5])), [0, 0.25, 0.5, 1])
    # Where two depths are equal, a quarter of the blend is added; elsewhere nothing.
    np.testing.assert_allclose(_join(np.array([1.0, 9.0]), np.array([1.0, 1.0]), 4.0), [2, 9])


def test_splines_by_hand() -> None:
    knots = np.eye(4, dtype=np.float32).reshape(4, 2, 2)  # the spline of each knot alone
    basis = _spread(knots, 0, np.array([0.0, 0.5])).reshape(2, 4)
    np.testing.assert_allclose(basis[0], [1 / 6, 4 / 6, 1 / 6, 0], atol=1e-6)  # on the second knot
    np.testing.assert_allclose(
        basis[1], [1 / 48, 23 / 48, 23 / 48, 1 / 48], atol=1e-6
    )  # half-way to the third


def test_blur_by_hand() -> None:
    image = np.zeros((1, 5, 5, 5), np.float32)
    image[0, 2, 2, 2] = 64
    blurred = _blur(image)[0]
    assert blurred[2].tolist() == [
        [0, 0, 0, 0, 0],
        [0, 2, 4, 2, 0],
        [0, 4, 8, 4, 0],
        [0, 2, 4, 2, 0],
        [0, 0, 0, 0, 0],
    ]
    assert blurred.sum() == 64


@pytest.mark.slow
def test_has_the_form_of_a_brats_case(case: PhantomCase) -> None:
    assert case.volume.data.shape == (4, 240, 240, 155)
    assert case.volume.data.dtype == np.int16
    assert case.labels.shape == (240, 240, 155)
    assert case.labels.dtype == np.uint8
    assert case.volume.geometry.axis_codes == "LPS"
    assert case.volume.affine.tolist() == [
        [-1, 0, 0, 0],
        [0, -1, 0, 239],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]
    assert np.unique(case.labels).tolist() == [0, NCR, ED, ET]


@pytest.mark.slow
def test_background_is_zero_and_the_brain_is_not(case: PhantomCase) -> None:
    filled = images_of(case) > 0
    assert (filled == filled[0]).all(), "the four images share one mask"
    assert not case.labels[~filled[0]].any()
    assert 1200 < filled[0].sum() / 1000 < 1700  # ml, as in adults
    border = np.ones(filled.shape[1:], bool)
    border[20:-20, 20:-20, 2:-2] = False
    assert not filled[0][border].any()


@pytest.mark.slow
def test_regions_are_nested_shells(case: PhantomCase) -> None:
    """The rim is a shell of 2 to 6 mm around the necrosis; oedema surrounds both."""
    necrosis, core = case.labels == NCR, np.isin(case.labels, (NCR, ET))
    beside = np.concatenate(
        [np.roll(case.labels, step, axis)[necrosis] for axis in range(3) for step in (-1, 1)]
    )
    # Not all: where the core's surface is steep, the rim may be thinner than a voxel.
    assert np.isin(beside, (NCR, ET)).mean() > 0.999
    thickness_mm = (case.labels == ET).sum() / surface_mm2(core)
    assert 2 < thickness_mm < 6
    for axis in range(3):
        inner, outer = (
            np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
            for mask in (core, case.labels > 0)
        )
        assert outer[0] <= inner[0] <= inner[-1] <= outer[-1]


def surface_mm2(mask: np.ndarray) -> float:
    """Area of a mask: its voxel faces have 1.5 times the area of a smooth surface."""
    return sum(np.count_nonzero(np.diff(mask, axis=axis)) for axis in range(3)) / 1.5


@pytest.mark.slow
def test_bits_depend_only_on_the_seed(coarse: list[PhantomCase]) -> None:
    again = make_case(1, COARSE)
    assert np.array_equal(again.volume.data, coarse[1].volume.data)
    assert np.array_equal(again.labels, coarse[1].labels)
    assert again.name == "phantom_001"
    assert not np.array_equal(coarse[0].labels, coarse[1].labels)


@pytest.mark.slow
def test_voxel_size_does_not_change_the_anatomy(
    case: PhantomCase, coarse: list[PhantomCase]
) -> None:
    assert coarse[0].volume.geometry.spacing_mm == pytest.approx((2, 2, 155 / 78))
    for value in (NCR, ED, ET):
        fine_ml = (case.labels == value).sum() * case.volume.geometry.voxel_ml
        coarse_ml = (coarse[0].labels == value).sum() * coarse[0].volume.geometry.voxel_ml
        assert coarse_ml == pytest.approx(fine_ml, rel=0.05)


@pytest.mark.slow
def test_tumours_are_of_plausible_size(coarse: list[PhantomCase]) -> None:
    for made in coarse:
        ml = {
            value: (made.labels == value).sum() * made.volume.geometry.voxel_ml
            for value in (NCR, ED, ET)
        }
        assert 3 < ml[NCR] < 60
        assert 20 < ml[ED] < 150
        assert 5 < ml[ET] < 40


def test_tumour_contrasts(coarse: list[PhantomCase]) -> None:
    rows = []
    for made in coarse:
        images, labels = images_of(made), made.labels
        rows.append(
            [images[:, (labels == v) & (images[0] > 0)].mean(axis=1) for v in (0, NCR, ED, ET)]
        )
        healthy, necrosis, oedema, rim = rows[-1]
        assert rim[T1CE] > 1.2 * max(healthy[T1CE], oedema[T1CE], necrosis[T1CE])
        assert min(oedema[FLAIR], rim[FLAIR], necrosis[FLAIR]) > 1.2 * healthy[FLAIR]
        assert min(oedema[T2], rim[T2], necrosis[T2]) > healthy[T2]
        assert necrosis[T1] < oedema[T1]
    _, necrosis, oedema, _ = np.mean(rows, axis=0)
    assert necrosis[T2] > oedema[T2]
    assert necrosis[T1CE] < oedema[T1CE] * 1.1


@pytest.mark.slow
def test_healthy_contrasts(case: PhantomCase) -> None:
    """Fluid, grey and white matter, separated by T1, have the expected order in other images."""
    images = images_of(case)
    voxels = images[:, (case.labels == 0) & (images[0] > 0)]
    cuts = np.percentile(voxels[T1], [4, 45, 65, 90])
    fluid = voxels[:, voxels[T1] < cuts[0]].mean(axis=1)
    grey = voxels[:, (voxels[T1] > cuts[1]) & (voxels[T1] < cuts[2])].mean(axis=1)
    white = voxels[:, voxels[T1] > cuts[3]].mean(axis=1)
    assert fluid[T2] > 1.3 * grey[T2]
    assert grey[T2] > 1.1 * white[T2]
    assert fluid[T1CE] < 0.8 * grey[T1CE]
    assert grey[T1CE] < 0.97 * white[T1CE]
    assert fluid[FLAIR] < 0.75 * white[FLAIR]
    assert white[FLAIR] < 0.98 * grey[FLAIR]


@pytest.mark.parametrize("shape", [(240, 240), (240, 240, 31), (8, 8, 8)])
def test_refuses_grids_that_are_too_coarse(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="expected three axes of at least 32 voxels"):
        make_case(shape=shape)


def test_writes_a_brats_folder(tmp_path: Path, coarse: list[PhantomCase]) -> None:
    written = write_case(coarse[2], tmp_path / "new" / "case")
    assert [p.name for p in written] == [
        f"phantom_002_{kind}.nii.gz" for kind in ("flair", "t1", "t1ce", "t2", "seg")
    ]
    for path, array in zip(written, (*coarse[2].volume.data, coarse[2].labels), strict=True):
        image = nib.load(path)
        assert image.get_data_dtype() == array.dtype
        assert np.array_equal(np.asanyarray(image.dataobj), array)
        np.testing.assert_allclose(image.affine, coarse[2].volume.affine)
    first = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_case(coarse[2], tmp_path / "new" / "case")] == first


def test_error_names_the_unwritable_file(tmp_path: Path, coarse: list[PhantomCase]) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match=r"phantom_000_flair\.nii\.gz"):
        write_case(coarse[0], tmp_path / "taken")
