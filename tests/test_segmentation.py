"""The result: probabilities, and what `save` writes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import MODALITIES, OptionsError, OutputError, Segmenter
from fastbts.labels import ED, ET, NCR, SCHEMES
from fastbts.write.outputs import check_outputs

Case = tuple[np.ndarray, np.ndarray]


def test_probabilities_agree_with_labels(voxel_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    result = voxel_segmenter.predict(images, affine=affine)
    assert result.probabilities.shape == (3, *images.shape[1:])
    np.testing.assert_array_equal(result.labels == 4, result.probabilities[2] >= 0.5)
    assert not result.probabilities[:, :3].any(), "nothing outside the brain box"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_is_written_and_stated_in_the_image(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path, scheme: str
) -> None:
    result = voxel_segmenter.predict(small_case[0], affine=small_case[1])
    image, sidecar = result.save(tmp_path / "s.nii.gz", labels=scheme)
    written = nib.load(image)
    stated = f'"label_scheme": "{scheme}"'.encode()
    assert stated in written.header.extensions[0].get_content()
    assert sidecar.name == "s.json"
    for inside, value in zip((NCR, ED, ET), SCHEMES[scheme].values(), strict=True):
        np.testing.assert_array_equal(np.asarray(written.dataobj) == value, result.labels == inside)


def test_unwritable_sidecar_leaves_no_image(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path
) -> None:
    (tmp_path / "s.json").mkdir()
    with pytest.raises(OutputError, match=r"s\.json"):
        voxel_segmenter.predict(small_case[0], affine=small_case[1]).save(tmp_path / "s.nii.gz")
    assert not (tmp_path / "s.nii.gz").exists()


def test_repr_is_short(voxel_segmenter: Segmenter, small_case: Case) -> None:
    result = voxel_segmenter.predict(small_case[0], affine=small_case[1])
    volumes = ", ".join(f"{region} {ml:.1f} ml" for region, ml in result.volumes_ml.items())
    assert repr(result) == f"Segmentation({volumes}: 30 x 41 x 23)"
    assert repr(voxel_segmenter.predict(small_case[0])).endswith("30 x 41 x 23, 1 warning)")


def test_warnings_are_those_of_the_report(voxel_segmenter: Segmenter, small_case: Case) -> None:
    result = voxel_segmenter.predict(small_case[0])
    assert isinstance(result.warnings, tuple)
    assert list(result.warnings) == result.report["warnings"] != []


def test_outputs_are_checked_before_the_work(tmp_path: Path) -> None:
    found = check_outputs(
        tmp_path / "new/seg.nii", labels="regions", sidecar=tmp_path / "r.json"
    ).files
    names = ["new/seg_WT.nii", "new/seg_TC.nii", "new/seg_ET.nii", "r.json"]
    assert found == [tmp_path / name for name in names]
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    (tmp_path / "seg.json").mkdir()
    with pytest.raises(OutputError, match=r"seg\.json: is a folder; expected the name of a file"):
        check_outputs(tmp_path / "seg.nii.gz")
    with pytest.raises(OptionsError, match="label scheme 'mine': expected one of"):
        check_outputs(tmp_path / "seg.nii.gz", labels="mine")


def test_image_and_sidecar_are_two_files(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for sidecar in (tmp_path / "s.nii.gz", tmp_path / "link/s.nii.gz"):
        with pytest.raises(OutputError, match=r"s\.nii\.gz: is two of image, sidecar"):
            check_outputs(tmp_path / "s.nii.gz", sidecar=sidecar)
    with pytest.raises(OutputError, match=r"s_TC\.nii: is two of image, sidecar"):
        check_outputs(tmp_path / "s.nii", labels="regions", sidecar=tmp_path / "s_TC.nii")


def test_an_input_is_never_overwritten(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path
) -> None:
    images, affine = small_case
    paths = {name: tmp_path / f"{name}.nii" for name in MODALITIES}
    for path, image in zip(paths.values(), images, strict=True):
        nib.Nifti1Image(image, affine).to_filename(path)
    before = paths["t1"].read_bytes()
    result = voxel_segmenter.predict(paths)
    with pytest.raises(OutputError, match=r"t1\.nii: is an input of this case.*choose another"):
        result.save(paths["t1"])
    with pytest.raises(OutputError, match="is an input of this case"):
        result.save(tmp_path / "seg.nii", sidecar=paths["t1"])
    assert paths["t1"].read_bytes() == before
    assert not (tmp_path / "seg.nii").exists()
