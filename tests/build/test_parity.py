"""Build parity: what is compared, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import CaseError, EngineSpec, GeometryError, OptionsError, Volume
from fastbts.build.parity import (
    LabelledCase,
    ValidationCases,
    check_parity,
    labelled_cases,
    measure_parity,
)
from fastbts.phantom import make_case, write_case
from fastbts.read.reference import find_reference
from tests.conftest import VoxelEngine


class ShiftedEngine(VoxelEngine):
    """Logits that are too low by 0.5."""

    def infer(
        self, tensor: np.ndarray, text: np.ndarray | None = None, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        return super().infer(tensor) - np.float32(0.5)


def test_parity_of_two_engines(small_case: tuple[np.ndarray, np.ndarray]) -> None:
    case = LabelledCase(Volume(*small_case), (small_case[0][0] > 700).astype(np.uint8))
    same = measure_parity(VoxelEngine(), VoxelEngine(), [case])
    assert same == {
        "n_cases": 1,
        "max_logit_difference": 0,
        "label_agreement": 1,
        "dice_change": {"WT": 0, "TC": 0, "ET": 0},
    }
    other = measure_parity(VoxelEngine(), ShiftedEngine(), [case, case])
    assert other["n_cases"] == 2
    assert other["max_logit_difference"] == pytest.approx(0.5, abs=1e-5)
    assert other["label_agreement"] < 1
    assert other["dice_change"]["WT"] != 0


def test_parity_by_group(small_case: tuple[np.ndarray, np.ndarray]) -> None:
    """Of the change of Dice, mean over the regions: the mean of a group, and its worst case."""
    volume = Volume(*small_case)
    easy, hard = (
        LabelledCase(volume, ((small_case[0][0] > limit) * 4).astype(np.uint8), "a")
        for limit in (500, 850)
    )
    one, two = (
        measure_parity(VoxelEngine(), ShiftedEngine(), [case])["groups"]["a"]["dice_change"]
        for case in (easy, hard)
    )
    assert one != two
    groups = measure_parity(VoxelEngine(), ShiftedEngine(), [easy, hard, replace(hard, group="b")])
    assert groups["groups"] == {
        "a": {
            "n_cases": 2,
            "dice_change": pytest.approx((one + two) / 2, abs=2e-5),
            "worst_case": min(one, two),
        },
        "b": {"n_cases": 1, "dice_change": two, "worst_case": two},
    }


def test_validation_cases_are_read_from_a_table(tmp_path: Path) -> None:
    for name in "ab":
        write_case(make_case(0, shape=(48, 48, 40)), tmp_path / name)
    (tmp_path / "cases.csv").write_text("case,split,group\na,val,SSA\nb,train,SSA\n")
    cases = ValidationCases(tmp_path, EngineSpec())
    assert len(cases) == 1
    assert cases[0].group == "SSA"
    assert cases[0].volume.geometry.shape == cases[0].reference.shape == (48, 48, 40)
    reference = find_reference(tmp_path / "a")
    assert reference is not None
    reference.unlink()
    with pytest.raises(CaseError, match=r"a: expected a reference \*seg\.nii\.gz, got none"):
        cases[0]


@pytest.mark.parametrize(("agreement", "change"), [(0.98, 0.0), (1.0, -0.02), (float("nan"), 0.0)])
def test_bad_parity_is_refused(agreement: float, change: float) -> None:
    good = {"label_agreement": 0.995, "dice_change": {"WT": -0.009, "TC": 0.0, "ET": 0.3}}
    check_parity(good, "int8")
    with pytest.raises(OptionsError, match="worse than allowed"):
        check_parity({"label_agreement": agreement, "dice_change": {"WT": change}}, "int8")


def test_cases_without_reference_are_replaced_by_the_phantom(
    tmp_path: Path, small_phantom: None
) -> None:
    volume = Volume(np.ones((4, 2, 2, 2), np.int16), np.eye(4))
    (case,) = labelled_cases([tmp_path], [volume], EngineSpec())
    assert case.volume.geometry.shape == (64, 64, 48)
    nib.Nifti1Image(np.full((2, 2, 2), 3, np.uint8), np.eye(4)).to_filename(
        tmp_path / "x_seg.nii.gz"
    )
    (case,) = labelled_cases([tmp_path], [volume], EngineSpec())
    assert case.volume is volume
    assert (case.reference == 4).all(), "3 is enhancing tumour since BraTS 2023"


def test_the_phantom_of_other_images_and_regions(small_phantom: None) -> None:
    """Each region has voxels, so that a lost one is seen."""
    spec = EngineSpec(
        modalities=("a", "b", "t1", "c", "d"),
        regions=("all", "lesion", "core", "cyst"),
        labels=((1, 2, 3, 9), (1, 3), (3,), (9,)),
        thresholds=(0.5,) * 4,
    )
    (case,) = labelled_cases([], [], spec)
    assert case.volume.modalities == spec.modalities
    assert np.unique(case.reference).tolist() == [0, 1, 2, 3, 9]
    assert all(np.isin(case.reference, labels).any() for labels in spec.labels)


def test_a_reference_must_be_the_only_one_and_on_the_grid(tmp_path: Path) -> None:
    volume = Volume(np.ones((4, 2, 2, 2), np.int16), np.eye(4))
    nib.Nifti1Image(np.ones((2, 2, 3), np.uint8), np.eye(4)).to_filename(tmp_path / "seg.nii")
    with pytest.raises(GeometryError, match=r"seg\.nii: expected the shape .* got \(2, 2, 3\)"):
        labelled_cases([tmp_path], [volume], EngineSpec())
    (tmp_path / "other_seg.nii.gz").touch()
    with pytest.raises(CaseError, match="expected one reference"):
        labelled_cases([tmp_path], [volume], EngineSpec())
