"""Parity: what is compared, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import DeviceError, EngineFileError, OptionsError, Volume
from fastbts.build.engine import build_engine, read_source
from fastbts.engine.file import pack_engine, read_engine_file
from fastbts.engine.load import default_engine_path
from fastbts.build.parity import LabelledCase, check_parity, labelled_cases, measure_parity
from tests.conftest import VoxelEngine


class ShiftedEngine(VoxelEngine):
    """Its logits are too low by 0.5."""

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


@pytest.mark.parametrize(("agreement", "change"), [(0.98, 0.0), (1.0, -0.02), (float("nan"), 0.0)])
def test_bad_parity_is_refused(agreement: float, change: float) -> None:
    good = {"label_agreement": 0.995, "dice_change": {"WT": -0.009, "TC": 0.0, "ET": 0.3}}
    check_parity(good, "int8")
    with pytest.raises(OptionsError, match="worse than allowed"):
        check_parity({"label_agreement": agreement, "dice_change": {"WT": change}}, "int8")


def test_cases_without_labels_are_replaced_by_the_synthetic_one(tmp_path: Path) -> None:
    volume = Volume(np.ones((4, 2, 2, 2), np.int16), np.eye(4))
    (case,) = labelled_cases([tmp_path], [volume])
    assert case.volume.geometry.shape == (240, 240, 155)
    nib.Nifti1Image(np.full((2, 2, 2), 3, np.uint8), np.eye(4)).to_filename(
        tmp_path / "x_seg.nii.gz"
    )
    (case,) = labelled_cases([tmp_path], [volume])
    assert case.volume is volume
    assert (case.truth == 4).all(), "3 is enhancing tumour since BraTS 2023"


def test_what_cannot_be_built_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source, target = default_engine_path(), tmp_path / "out.fbts"
    with pytest.raises(OptionsError, match="needs real cases to calibrate on"):
        build_engine(source, target, precision="int8")
    with pytest.raises(
        DeviceError, match="precision 'fp16': OpenVINO's CPU backend has fp32, bf16, int8"
    ):
        build_engine(source, target, precision="fp16")
    with pytest.raises(OptionsError, match="backend 'abacus'"):
        build_engine(source, target, backend="abacus")
    assert not target.exists()


def test_parity_that_cannot_be_measured_must_be_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_device(file: object) -> None:
        raise DeviceError("no CUDA device")

    monkeypatch.setattr("fastbts.build.engine.open_engine", no_device)
    with pytest.raises(DeviceError, match="no CUDA device; so parity cannot be measured here"):
        build_engine(default_engine_path(), tmp_path / "x.fbts")
    assert not list(tmp_path.iterdir())
    build_engine(default_engine_path(), tmp_path / "x.fbts", accept_parity=True)
    assert read_engine_file(tmp_path / "x.fbts").manifest["build"]["parity"] == {}


def test_an_onnx_must_say_what_it_takes(tmp_path: Path) -> None:
    path, source = tmp_path / "x.onnx", read_engine_file(default_engine_path())
    path.write_bytes(b"")
    with pytest.raises(EngineFileError, match=r"expected 'spec' in its metadata or in x\.json"):
        read_source(path)
    (tmp_path / "x.json").write_text('{"spec": {}}')
    with pytest.raises(EngineFileError, match="exactly the fields"):
        read_source(path)
    (tmp_path / "x.json").write_text(json.dumps({"spec": source.manifest["spec"]}))
    assert read_source(path).spec == source.spec
    with pytest.raises(EngineFileError, match="cannot be read"):
        read_source(tmp_path / "none.onnx")


def test_a_file_built_for_what_is_unknown_is_refused(tmp_path: Path) -> None:
    from fastbts import load_engine

    source, path = read_engine_file(default_engine_path()), tmp_path / "x.fbts"
    path.write_bytes(
        pack_engine(source.spec, source.payloads, build={"backend": "abacus", "precision": "fp32"})
    )
    with pytest.raises(EngineFileError, match="built for backend 'abacus'"):
        load_engine(path)
    with pytest.raises(OptionsError, match="holds no int8 network"):
        load_engine(precision="int8")
