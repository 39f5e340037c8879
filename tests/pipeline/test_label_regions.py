"""From logits to labels for any regions, and the files of such results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastbts import DeviceError, OptionsError, Segmentation, Segmenter, SegmenterOptions, Volume
from fastbts.labels import REGION_LABELS, label_names, label_table
from fastbts.ops import reference
from tests.cli.commands import run
from tests.conftest import VoxelEngine
from tests.device.cases import assert_same
from tests.fakes import EmulatedCuda, cupy
from tests.fakes.voxel_engine import DeviceVoxelEngine
from tests.pipeline.test_label import SickEngine, speckled_case

OTHER: dict[str, Any] = {
    "regions": ("lesion", "core", "rim"),
    "labels": tuple(REGION_LABELS.values()),
    "modalities": ("swi", "t1", "adc", "dwi"),
}
"""Those of glioma by other names."""
Case = tuple[np.ndarray, np.ndarray]


def test_for_glioma_the_table_is_the_rule_of_the_op() -> None:
    """All eight sets of WT, TC and ET."""
    sets = np.arange(8)
    logits = np.stack([np.where(sets >> k & 1, 1, -1) for k in range(3)]).astype(np.float32)
    box, labels = ((0, 1), (0, 1), (0, 8)), np.zeros((1, 1, 8), np.uint8)
    arguments = logits.reshape(3, 1, 1, 8), (0, 0, 0), box, (0.5,) * 3, (2, 1, 4), labels
    expected, _ = reference.label(*arguments)
    assert label_table([*REGION_LABELS.values()]).tolist() == expected.ravel().tolist()


@pytest.mark.parametrize(
    ("regions", "table", "names"),
    [
        ({"a": (1, 2, 4)}, [0, 1], {"a": 1}),
        ({"a": (3,), "b": (9,)}, [0, 3, 9, 9], {"a": 3, "b": 9}),
        ({"a": (1, 2), "b": (2, 3)}, [0, 1, 3, 2], {"a": 1, "a & b": 2, "b": 3}),
        ({"core": (2,), "all": (1, 2)}, [0, 2, 1, 2], {"core": 2, "all": 1}),
        ({"a": (1,), "all": (1, 2), "b": (2,)}, [0, 1, 1, 1, 2, 2, 2, 2], {"a": 1, "b": 2}),
    ],
)
def test_label_of_each_set_of_regions(
    regions: dict[str, tuple[int, ...]], table: list[int], names: dict[str, int]
) -> None:
    assert label_table([*regions.values()]).tolist() == table
    assert label_names(regions) == names


def both(images: np.ndarray, spec: dict[str, Any], **options: Any) -> list[Segmentation]:
    """The case with glioma's regions, and with the same regions by other names."""
    chosen = SegmenterOptions(**options)
    return [
        Segmenter(VoxelEngine(**spec, **names), options=chosen, warm_up=False).predict(
            images, affine=np.eye(4)
        )
        for names in ({}, OTHER)
    ]


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ({}, {}),
        ({"temperatures": (2.5, 1.0, 0.6), "thresholds": (0.5, 0.4, 0.7)}, {}),
        ({"spacing_mm": 2.0}, {}),
        ({"spacing_mm": 2.0}, {"mode": "sliding"}),
        ({}, {"min_part_mm3": 2}),
    ],
)
def test_the_same_regions_by_other_names_give_the_same_labels(
    spec: dict[str, Any], options: dict[str, Any]
) -> None:
    expected, result = both(speckled_case(), spec, **options)
    assert expected.labels.any()
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert [*result.volumes_ml.items()] == [
        *zip(OTHER["regions"], expected.volumes_ml.values(), strict=True)
    ]
    assert [*result.confidence.values()] == [*expected.confidence.values()]
    post = [r.report["postprocessing"] for r in (expected, result)]
    assert post[0]["small_parts"] == post[1]["small_parts"]
    assert post[1]["small_et"] == {}


def test_labels_on_a_device_are_those_of_the_host(cuda: EmulatedCuda, small_case: Case) -> None:
    images, affine = small_case
    for spec in (OTHER, {**OTHER, "min_part_mm3": 3.0}, {**OTHER, "spacing_mm": 2.0}):
        expected = Segmenter(VoxelEngine(**spec), warm_up=False).predict(images, affine=affine)
        segmenter = Segmenter(DeviceVoxelEngine(cuda, **spec), warm_up=False)
        result = segmenter.predict(cupy.asarray(images), affine=affine)
        again = segmenter.predict(cupy.asarray(images[::-1].copy()), affine=affine)
        assert not np.array_equal(again.labels.get(), expected.labels)
        assert_same(result, expected)


def test_logits_that_are_not_finite_are_refused(small_case: Case) -> None:
    with pytest.raises(DeviceError, match="gave NaN or infinite values in 3 voxels"):
        Segmenter(SickEngine(**OTHER), warm_up=False).predict(small_case[0], affine=small_case[1])


def is_verified(report: Path, name: str) -> bool:
    """Whether a check of `fastbts verify` passes; that of the engine does not."""
    checks = json.loads(run("verify", report, "--json")[1])
    return {check["name"]: check["ok"] for check in checks}[name]


def test_files_of_other_regions(small_case: Case, tmp_path: Path) -> None:
    volume = Volume(*small_case, OTHER["modalities"])
    result = Segmenter(VoxelEngine(**OTHER), warm_up=False).predict(volume)
    image, report = result.save(tmp_path / "x.nii.gz")
    assert np.array_equal(nib.load(image).dataobj, result.labels)
    stated = nib.load(image).header.extensions[0].get_content()
    assert b'"labels": {"core": 1, "lesion": 2, "rim": 4}' in stated
    assert json.loads(report.read_text())["region_labels"]["core"] == [1, 4]
    assert is_verified(report, "volumes")
    masks = result.save(tmp_path / "x.nii.gz", labels="regions", preview=tmp_path / "x.png")
    names = ["x_lesion.nii.gz", "x_core.nii.gz", "x_rim.nii.gz", "x.png", "x.json"]
    assert [path.name for path in masks] == names
    assert not image.exists(), "files of the earlier result go"
    assert np.array_equal(nib.load(masks[1]).dataobj, np.isin(result.labels, (1, 4)))
    assert is_verified(report, "volumes")


@pytest.mark.parametrize("name", ["x.dcm", "x.sr.dcm", "x.seg.nrrd"])
def test_files_that_know_glioma_only_are_refused(
    small_case: Case, tmp_path: Path, name: str
) -> None:
    result = Segmenter(VoxelEngine(**OTHER), warm_up=False).predict(*small_case[:1])
    message = rf"{name}: expected WT, TC and ET, this result has the regions lesion, core, rim"
    with pytest.raises(OptionsError, match=message):
        result.save(tmp_path / name)
    with pytest.raises(OptionsError, match=r"scheme 'brats2023': expected WT, TC and ET, this"):
        result.save(tmp_path / "x.nii", labels="brats2023")
    assert not any(tmp_path.iterdir())
