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
from tests.study.heads import FAR, NEAR, SCANS, Image, mean_error_mm, moved, points_of

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


PLACES = {"near": NEAR, "far": FAR}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("slices_mm", SCANS)
def test_stripped_images(data_folder: Path, slices_mm: int, place: str) -> None:
    fixed = case_image(data_folder, CASES[0], "t1ce")
    image = case_image(data_folder, CASES[0], SCANS[slices_mm].modality)
    scan, truth = moved(image, slices_mm, PLACES[place])
    found = register(scan, fixed)
    assert mean_error_mm(found.matrix, truth, points_of(fixed)) < MAX_ERROR_MM
    assert found.quality > 1.25 * MIN_QUALITY


@pytest.mark.parametrize("slices_mm", SCANS)
def test_images_that_were_not_quite_aligned(data_folder: Path, slices_mm: int) -> None:
    """This case's T2 is 0.4 mm off its T1ce, also by SimpleITK: that is found again."""
    fixed = case_image(data_folder, CASES[1], "t1ce")
    image = case_image(data_folder, CASES[1], SCANS[slices_mm].modality)
    before = np.linalg.inv(register(image, fixed).matrix)
    scan, truth = moved(image, slices_mm, FAR)
    found = register(scan, fixed)
    assert mean_error_mm(found.matrix, truth @ before, points_of(fixed)) < MAX_ERROR_MM


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


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("slices_mm", SCANS)
def test_raw_heads_moved(heads: Path, slices_mm: int, place: str) -> None:
    """By the movement found before, and that of the transform."""
    fixed, brain = (read(heads / f"glioma_{name}.nii.gz") for name in ("t1ce", "t1ce_hdbet"))
    image = read(heads / f"glioma_{SCANS[slices_mm].modality}.nii.gz")
    before = np.linalg.inv(register(image, fixed).matrix)
    scan, truth = moved(image, slices_mm, PLACES[place])
    found = register(scan, fixed)
    assert mean_error_mm(found.matrix, truth @ before, points_of(brain)) < MAX_ERROR_MM


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
