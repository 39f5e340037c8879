"""The report: its fields, that it is JSON, and that it names nobody and no place."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from fastbts import MODALITIES, Segmenter
from fastbts.about import DISCLAIMER, __version__

Case = tuple[np.ndarray, np.ndarray]


def test_fields(voxel_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    result = voxel_segmenter.predict(images, affine=affine)
    report = json.loads(json.dumps(result.report, allow_nan=False))
    assert report == result.report, "JSON-ready"
    assert report["software"]["fastbts"] == __version__
    assert report["engine"] == {"name": "voxel", **voxel_segmenter.engine.description}
    assert report["input"] == {
        "modalities": list(MODALITIES),
        "missing": [],
        "sha256": {},
        "shape": [30, 41, 23],
        "spacing_mm": [1, 1, 1],
        "orientation": "RAS",
        "dtype": "int16",
    }
    preprocessing = report["preprocessing"]
    assert preprocessing["brain_voxels"] == 25 * 32 * 19
    assert preprocessing["brain_box_zyx"] == [[2, 21], [5, 37], [3, 28]]
    assert preprocessing["tensor_zyx"] == [24, 32, 32], "multiples of the stride"
    assert list(preprocessing["clip_low_high_mean_std"]) == list(MODALITIES)
    reason = report["windows"].pop("reason")
    assert report["windows"] == {"mode": "one-pass", "passes": 1, "count": 1}
    assert reason.startswith("one pass needs about ")
    assert report["volumes_ml"] == result.volumes_ml
    assert {"normalize", "infer", "label", "total"} <= set(report["timings_ms"])
    assert report["warnings"] == []
    assert report["notice"] == DISCLAIMER


def test_report_holds_no_path_and_no_header_text(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path
) -> None:
    paths = {name: tmp_path / f"{name}.nii" for name in MODALITIES}
    for path, image in zip(paths.values(), small_case[0], strict=True):
        written = nib.Nifti1Image(image, small_case[1])
        written.header["descrip"] = b"Jane Doe"
        written.to_filename(path)
    report = voxel_segmenter.predict(paths).report
    assert set(report["input"]["sha256"]) == set(MODALITIES)
    text = json.dumps(report)
    assert "Jane" not in text
    assert str(tmp_path) not in text
