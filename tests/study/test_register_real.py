"""Registration of real images, moved by known transforms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import Geometry, GeometryError, ops
from fastbts.study.register import MIN_QUALITY, register
from tests.study.heads import (
    FAR,
    NEAR,
    SCANS,
    Image,
    Movement,
    brain_points,
    centre_of,
    mean_error_mm,
    moved,
)

pytestmark = [pytest.mark.data, pytest.mark.slow]
MAX_ERROR_MM = 1.0
CASES = "Brats18_CBICA_AMH_1", "Brats18_TCIA01_201_1"


def read(path: Path) -> Image:
    image = nib.load(path)
    name = path.name.removesuffix(".nii.gz")
    return Image(name, np.asarray(image.dataobj), Geometry(image.shape, image.affine))


def case_image(data_folder: Path, case: str, modality: str) -> Image:
    return read(data_folder / case / f"{case}_{modality}.nii.gz")


@pytest.fixture(scope="module")
def heads(data_folder: Path) -> Path:
    """Raw images of a patient with their skulls, slices of 5.5 mm, and masks of the brain."""
    folder = data_folder.parent / "heads"
    if not (folder / "glioma_t1ce.nii.gz").is_file():
        pytest.skip(f"no raw heads beside the cases (looked in {folder.name}/)")
    return folder


@pytest.mark.parametrize("movement", [NEAR, FAR], ids=["near", "far"])
@pytest.mark.parametrize("slices_mm", SCANS)
def test_stripped_images(data_folder: Path, slices_mm: int, movement: Movement) -> None:
    modality, grid = SCANS[slices_mm]
    fixed = case_image(data_folder, CASES[0], "t1ce")
    centre = centre_of(fixed)
    truth = movement.about(centre)
    image = moved(case_image(data_folder, CASES[0], modality), truth, centre, grid)
    found = register(image, fixed)
    assert mean_error_mm(found.matrix, truth, brain_points(fixed)) < MAX_ERROR_MM
    assert found.quality > 1.25 * MIN_QUALITY


@pytest.mark.parametrize("slices_mm", SCANS)
def test_images_that_were_not_quite_aligned(data_folder: Path, slices_mm: int) -> None:
    """This case's T2 is 0.4 mm off its T1ce, also by SimpleITK: that is found again."""
    modality, grid = SCANS[slices_mm]
    fixed, image = (case_image(data_folder, CASES[1], m) for m in ("t1ce", modality))
    centre = centre_of(fixed)
    before = np.linalg.inv(register(image, fixed).matrix)
    truth = FAR.about(centre)
    found = register(moved(image, truth, centre, grid), fixed)
    assert mean_error_mm(found.matrix, truth @ before, brain_points(fixed)) < MAX_ERROR_MM


@pytest.mark.parametrize("modality", ["flair", "t1", "t2"])
def test_raw_heads(heads: Path, modality: str) -> None:
    """Against the masks of HD-BET, made for each image on its own."""
    fixed, image = read(heads / "glioma_t1ce.nii.gz"), read(heads / f"glioma_{modality}.nii.gz")
    found = register(image, fixed)
    brain, theirs = (read(heads / f"glioma_{m}_hdbet.nii.gz") for m in ("t1ce", modality))
    map_ = np.linalg.inv(found.matrix @ theirs.geometry.affine) @ brain.geometry.affine
    mask = theirs.voxels[None].astype(np.uint8)
    there = ops.resample_affine(mask, map_, brain.geometry.shape, nearest=True)[0]
    assert dice(there > 0, brain.voxels > 0) > 0.96
    assert found.quality > 1.25 * MIN_QUALITY


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("movement", [NEAR, FAR], ids=["near", "far"])
@pytest.mark.parametrize(("modality", "slices_mm"), [("t1", 1), ("flair", 3), ("t2", 5)])
def test_raw_heads_moved(heads: Path, modality: str, slices_mm: int, movement: Movement) -> None:
    """By the movement found before, and that of the transform."""
    fixed, image = read(heads / "glioma_t1ce.nii.gz"), read(heads / f"glioma_{modality}.nii.gz")
    brain = read(heads / "glioma_t1ce_hdbet.nii.gz")
    centre = centre_of(brain)
    before = np.linalg.inv(register(image, fixed).matrix)
    truth = movement.about(centre)
    found = register(moved(image, truth, centre, SCANS[slices_mm][1]), fixed)
    assert mean_error_mm(found.matrix, truth @ before, brain_points(brain)) < MAX_ERROR_MM


def test_another_patient_is_refused(data_folder: Path, heads: Path) -> None:
    fixed, other = (case_image(data_folder, case, "t1ce") for case in CASES)
    for moving, still in ((other, fixed), (read(heads / "other_t2.nii.gz"), fixed)):
        with pytest.raises(GeometryError, match="could not be registered to Brats18_CBICA_AMH_1"):
            register(moving, still)
    with pytest.raises(GeometryError, match="could not be registered to glioma_t1ce"):
        register(read(heads / "other_t2.nii.gz"), read(heads / "glioma_t1ce.nii.gz"))


def test_an_upside_down_head_is_refused(heads: Path) -> None:
    image = read(heads / "glioma_t2.nii.gz")
    turned = replace(image, voxels=image.voxels[:, :, ::-1])
    with pytest.raises(GeometryError, match="glioma_t2: could not be registered to glioma_t1ce"):
        register(turned, read(heads / "glioma_t1ce.nii.gz"))
