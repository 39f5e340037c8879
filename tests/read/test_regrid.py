"""Registered images that are stored on different grids, resampled to one."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from typer.testing import CliRunner

from fastbts import CaseError, Geometry, GeometryError, Segmenter, read_case, read_files
from fastbts.cli import app
from fastbts.metrics import region_dice
from fastbts.phantom import make_case, write_case
from fastbts.read.regrid import resample_to_grid

C, S = np.cos(0.2), np.sin(0.2)
OBLIQUE = Geometry(
    (250, 230, 110), from_matvec([[C, 0, 2 * S], [0, -1.1, 0], [-S, 0, 2 * C]], [-264, 246, -11])
)
"""Turned by 11 degrees, voxels of 1.0 x 1.1 x 2.0 mm."""


def positions(geometry: Geometry) -> np.ndarray:
    """Position of each voxel in mm, (i, j, k, 3)."""
    return apply_affine(geometry.affine, np.moveaxis(np.indices(geometry.shape), 0, -1))


def test_every_point_keeps_its_place_in_the_patient() -> None:
    """A function linear in mm is the same on any grid; outside of the image there is nothing."""
    source = Geometry((40, 30, 20), from_matvec(np.diag([-2.0, 3.0, 2.5]), [40, -30, 5]))
    target = Geometry(
        (25, 28, 31), from_matvec([[1.9, 0.3, 0], [-0.3, 1.9, 0], [0, 0, 1.1]], [0, -9, 12])
    )
    slope = np.array([0.5, -0.25, 1.0])
    moved = resample_to_grid((positions(source) @ slope + 100).astype(np.float32), source, target)
    assert moved.shape == target.shape
    assert moved.flags.f_contiguous
    voxels = apply_affine(np.linalg.inv(source.affine), positions(target))
    inside = ((voxels >= 0) & (voxels <= np.array(source.shape) - 1)).all(-1)
    outside = ((voxels < -0.5) | (voxels > np.array(source.shape) - 0.5)).any(-1)
    np.testing.assert_allclose(moved[inside], (positions(target) @ slope + 100)[inside], atol=1e-3)
    assert inside.any()
    assert outside.any()
    assert not moved[outside].any()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A case on one grid, and the same with T2 and FLAIR on an oblique grid of thicker slices."""
    root = tmp_path_factory.mktemp("grids")
    case = make_case(3)
    write_case(case, root / "one")
    write_case(case, root / "many")
    for modality in ("t2", "flair"):
        moved = resample_to_grid(
            case.volume.data[case.volume.modalities.index(modality)], case.volume.geometry, OBLIQUE
        )
        path = next((root / "many").glob(f"*_{modality}.nii.gz"))
        nib.Nifti1Image(moved.round().astype(np.int16), OBLIQUE.affine).to_filename(path)
    return root / "one", root / "many"


@pytest.mark.slow
def test_the_same_tumour_is_found(folders: tuple[Path, Path], shipped_segmenter: Segmenter) -> None:
    one, many = folders
    with pytest.raises(GeometryError, match="resample them to one grid"):
        read_case(many)
    expected, volume = shipped_segmenter.predict(read_case(one)), read_case(many, grid="t1ce")
    result = shipped_segmenter.predict(volume)
    np.testing.assert_array_equal(volume.affine, expected.volume.affine)
    assert [w for w in volume.warnings if "resampled" in w] == [
        f"{m}: resampled to the grid of t1ce" for m in ("flair", "t2")
    ]
    assert region_dice(result.labels, expected.labels)["WT"] > 0.9


@pytest.mark.slow
def test_a_shared_grid_changes_no_voxel(folders: tuple[Path, Path]) -> None:
    one, _ = folders
    plain, volume = read_case(one), read_case(one, grid="t2")
    np.testing.assert_array_equal(volume.data, plain.data)
    assert volume.sha256 == plain.sha256
    assert volume.warnings == plain.warnings


@pytest.mark.slow
def test_what_cannot_be_put_on_a_grid_is_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    one, _ = folders
    flair, t1 = (next(one.glob(f"*_{m}.nii.gz")) for m in ("flair", "t1"))
    with pytest.raises(
        CaseError, match=r"grid: expected one of the images given \(flair, t1\), got t2"
    ):
        read_files(flair=flair, t1=t1, grid="t2")
    far, image = tmp_path / "far.nii.gz", nib.load(t1)
    nib.Nifti1Image(np.asarray(image.dataobj), from_matvec(np.eye(3), [900, 0, 0])).to_filename(far)
    with pytest.raises(
        GeometryError,
        match=f"{far}: shows nothing inside the grid of .*; are the images registered with each",
    ):
        read_files(flair=flair, t1=far, grid="flair")


@pytest.mark.slow
def test_command_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    _, many = folders
    result = CliRunner().invoke(
        app, ["predict", str(many), "--grid", "t1ce", "-o", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    labels, grid = (
        nib.load(path) for path in (tmp_path / "out/seg.nii.gz", next(many.glob("*_t1ce.nii.gz")))
    )
    np.testing.assert_array_equal(labels.affine, grid.affine)
    assert labels.shape == grid.shape
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "out")]).exit_code == 0
