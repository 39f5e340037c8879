import itertools

import numpy as np
import pytest

from fastbts import CaseError, Geometry, GeometryError, InputError, Volume
from fastbts.volume import to_network_axes


def test_lps_codes_and_spacing() -> None:
    geometry = Geometry((4, 5, 6), np.diag([-1.0, -2.0, 3.0, 1.0]))
    assert geometry.axis_codes == "LPS"
    assert geometry.spacing_mm == (1.0, 2.0, 3.0)
    assert geometry.voxel_ml == pytest.approx(0.006)


def test_network_axes_by_hand() -> None:
    """Stored L-P-S: the network's (Z, Y, X) runs upwards, to the front, to the right."""
    geometry = Geometry((2, 3, 4), np.diag([-1.0, -1.0, 1.0, 1.0]))
    stored = np.arange(24).reshape(2, 3, 4)
    view = to_network_axes(stored, geometry)
    assert view.shape == (4, 3, 2)
    assert view[0, 0, 0] == stored[1, 2, 0], "the lowest, hindmost, leftmost voxel"
    view[0, 0, 0] = 99
    assert stored[1, 2, 0] == 99, "a view, not a copy"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_all_48_orientations_agree(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    patient = np.arange(2 * 3 * 4).reshape(4, 3, 2)  # (Z, Y, X)
    stored = patient.transpose(2, 1, 0).transpose(order)[tuple(slice(None, None, s) for s in signs)]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for i, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        affine[axis, i] = sign
    np.testing.assert_array_equal(to_network_axes(stored, Geometry(stored.shape, affine)), patient)


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([1.0, 1.0, np.nan, 1.0]), "finite 4x4"),
        (np.eye(3), "finite 4x4"),
        ("RAS", "finite 4x4"),
        (np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [5.0, 0, 0, 1]]), "is it transposed"),
        (np.diag([1.0, 1.0, 0.01, 1.0]), r"0\.1-20"),
        (np.diag([1000.0, 1000.0, 1000.0, 1.0]), r"check the header's units"),
        (np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "perpendicular"),
    ],
)
def test_bad_affines(affine: np.ndarray, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        Geometry((4, 4, 4), affine)


def test_single_slice_is_refused() -> None:
    with pytest.raises(GeometryError, match="single slice"):
        Geometry((240, 240, 1), np.eye(4))


def test_difference_names_what_differs() -> None:
    one = Geometry((4, 4, 4), np.eye(4))
    shifted = np.eye(4)
    shifted[0, 3] = 2
    assert one.difference(Geometry((4, 4, 5), np.eye(4))) == "shape (4, 4, 5), expected (4, 4, 4)"
    apart = "the corner voxel (0, 0, 0) is 2 mm (2 voxels) away, at most 0.01 voxels are allowed"
    assert one.difference(Geometry((4, 4, 4), shifted)) == apart
    wider = Geometry((4, 4, 4), np.diag([1, 1, 1.1, 1]))
    assert one.difference(wider) == (
        "spacing in mm (1, 1, 1.1), expected (1, 1, 1); "
        "the corner voxel (0, 0, 3) is 0.3 mm (0.3 voxels) away, at most 0.01 voxels are allowed"
    )
    flipped = Geometry((4, 4, 4), np.diag([-1, 1, 1, 1]))
    assert str(one.difference(flipped)).startswith("orientation LAS, expected RAS; the corner")
    assert one.difference(Geometry((4, 4, 4), np.diag([1.00001, 1.00001, 1.00001, 1]))) is None


def test_corners_are_compared_in_voxels_of_the_grid() -> None:
    """A shift of 0.03 mm is 1.5 % of a voxel of 2 mm, but 0.6 % of one of 5 mm."""
    shifted = np.diag([2.0, 2.0, 5.0, 1.0])
    one = Geometry((4, 4, 4), shifted)
    for axis, voxels in ((0, 0.015), (2, 0.006)):
        moved = shifted.copy()
        moved[axis, 3] = 0.03
        assert one.voxels_apart(moved) == pytest.approx(voxels)
        assert one.mm_apart(moved) == pytest.approx(0.03)
        assert (one.difference(Geometry((4, 4, 4), moved)) is None) == (voxels < 0.01)


def sheared(cosine: float) -> np.ndarray:
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[0, 1], affine[0, 3] = 2 * cosine, -7
    return affine


def test_the_nearest_rotation_of_a_shear_by_hand() -> None:
    """A shear s is a turn by s/2 and a stretch, to first order; the centre stays."""
    grid = Geometry((101, 101, 11), sheared(0.004))
    rotation = grid.unsheared[:3, :3] / grid.spacing_mm
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation[0, 1], 0.002, rtol=1e-3)
    centre = (50, 50, 5, 1)
    np.testing.assert_allclose(grid.unsheared @ centre, grid.affine @ centre, atol=1e-9)
    # 50 voxels from the centre along both axes, each turned by 0.002.
    assert grid.voxels_apart(grid.unsheared) == pytest.approx(50 * 0.002 * np.sqrt(2), rel=0.01)


@pytest.mark.parametrize(("cosine", "warned"), [(0, False), (0.0005, False), (0.004, True)])
def test_a_shear_that_viewers_would_show_gives_a_warning(cosine: float, warned: bool) -> None:
    volume = Volume(np.zeros((4, 101, 101, 11), np.int16), sheared(cosine), warnings=("other",))
    assert (len(volume.warnings) == 2) == warned
    if warned:
        assert (
            "(ITK-SNAP, 3D Slicer) show it up to 0.28 mm (0.14 voxels) away" in volume.warnings[1]
        )
    assert volume.select(("t1", "t2")).warnings == volume.warnings, "once"


def test_volume_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(InputError, match=r"expected an array \(M, X, Y, Z\)"):
        Volume(np.zeros((4, 4, 4)), np.eye(4))
    with pytest.raises(InputError, match="expected integers, float32 or float64"):
        Volume(np.zeros((4, 4, 4, 4), complex), np.eye(4))
    with pytest.raises(InputError, match="native byte order"):
        Volume(np.zeros((4, 4, 4, 4), ">i2"), np.eye(4))
    with pytest.raises(CaseError, match="name each image exactly once"):
        Volume(np.zeros((3, 4, 4, 4)), np.eye(4))


def test_repr_is_short() -> None:
    volume = Volume(np.zeros((4, 5, 6, 7), np.int16), np.diag([-1.0, -1.0, 2.5, 1.0]))
    assert repr(volume) == "Volume(flair, t1, t1ce, t2: 5 x 6 x 7 int16, LPS, 1 x 1 x 2.5 mm)"


def test_select_reorders_and_reports_missing() -> None:
    volume = Volume(
        np.arange(2)[:, None, None, None] * np.ones((2, 3, 3, 3)),
        np.eye(4),
        ("t1", "flair"),
        ("a.nii", "b.nii"),
    )
    chosen = volume.select(("flair", "t1"))
    assert chosen.data[0, 0, 0, 0] == 1
    assert chosen.names == ("b.nii", "a.nii")
    with pytest.raises(
        CaseError,
        match="no image for t2; got t1, flair; the engine needs flair, t2; give the missing",
    ):
        volume.select(("flair", "t2"))


def test_absurd_spacing_is_refused_without_a_warning_of_numpy() -> None:
    """Squares of 1e200 overflow; pytest makes warnings of our modules errors."""
    with pytest.raises(GeometryError, match=r"spacing \(inf, 1, 1\) mm"):
        Geometry((4, 4, 4), np.diag([1e200, 1, 1, 1]))
