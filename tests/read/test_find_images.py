"""Finding the images that an engine takes, by names that are not those of glioma."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastbts import CaseError, OptionsError, find_cases
from fastbts.read.find import find_images, images_of
from tests.read.test_find import touch

OTHER = ("a", "ADC", "a_b")


def test_images_of_other_modalities(tmp_path: Path) -> None:
    case = touch(tmp_path / "one", "p_a.nii.gz", "p_adc.nii", "p-a_b.nii.gz", "p_seg.nii.gz")
    found = find_images(case, OTHER)
    assert [(m, path.name) for m, path in found.items()] == [
        ("a", "p_a.nii.gz"), ("ADC", "p_adc.nii"), ("a_b", "p-a_b.nii.gz"),
    ]  # fmt: skip
    assert find_cases(tmp_path, modalities=OTHER) == {"one": case}
    (case / "p_a.nii.gz").unlink()
    assert [*find_images(case, OTHER, optional=["a"])] == ["ADC", "a_b"]
    with pytest.raises(CaseError, match=r"one: no file for a; expected \*_a, \*_ADC, \*_a_b; "):
        find_images(case, OTHER)
    touch(case, "q_adc.nii")
    with pytest.raises(CaseError, match=r"holds files of several cases \(p, q\)"):
        find_images(case, OTHER, optional=["a"])


def test_numbered_images_of_other_modalities(tmp_path: Path) -> None:
    case = touch(tmp_path, *(f"p_000{n}.nii.gz" for n in range(3)))
    assert find_images(case, OTHER, ("ADC", "a", "a_b"))["ADC"].name == "p_0000.nii.gz"
    with pytest.raises(OptionsError, match=r"nnunet_order .*: expected each of a, ADC, a_b"):
        find_images(case, OTHER, ("ADC", "a"))


def test_an_engine_may_take_some_images_of_glioma(tmp_path: Path) -> None:
    case = touch(tmp_path, "p_t2.nii.gz", "p_flair.nii.gz", "p_t1.nii.gz")
    assert [*images_of(case, ("t2", "flair"))] == ["t2", "flair"]
    with pytest.raises(CaseError, match=r"no file for t1ce; found flair \(p_flair.nii.gz\), t1"):
        images_of(case, ("t2", "t1ce"))
