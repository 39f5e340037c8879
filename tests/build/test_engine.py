"""Building an engine: what is refused, what is written, what an ONNX must say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastbts import CaseError, DeviceError, EngineFileError, OptionsError, load_engine
from fastbts.build.engine import build_engine, read_source
from fastbts.engine.file import read_engine_file
from fastbts.engine.load import default_engine_path
from fastbts.phantom import make_case, write_case
from tests.conftest import write_voxel_engine

pytestmark = pytest.mark.usefixtures("small_phantom")  # on which parity is measured


def test_refused_builds_write_nothing(tmp_path: Path) -> None:
    source, target = default_engine_path(), tmp_path / "out.fbts"
    with pytest.raises(OptionsError, match="needs real cases to calibrate on"):
        build_engine(source, target, precision="int8")
    with pytest.raises(DeviceError, match="backend 'openvino' has fp32, bf16, int8"):
        build_engine(source, target, precision="fp16")
    with pytest.raises(OptionsError, match="backend 'abacus'"):
        build_engine(source, target, backend="abacus")
    assert not target.exists()


def test_parity_that_cannot_be_measured_must_be_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_device(file: object) -> None:
        raise DeviceError("no such device")

    monkeypatch.setattr("fastbts.build.emulation.open_engine", no_device)
    with pytest.raises(
        DeviceError, match=r"no such device; so parity cannot be measured here: .* --accept-parity"
    ):
        build_engine(default_engine_path(), tmp_path / "x.fbts")
    assert not list(tmp_path.iterdir())
    build_engine(default_engine_path(), tmp_path / "x.fbts", accept_parity=True)
    assert read_engine_file(tmp_path / "x.fbts").manifest["build"]["parity"] == {}


def test_built_engine_is_the_default_of_its_file(tmp_path: Path) -> None:
    about = build_engine(default_engine_path(), tmp_path / "x.fbts", backend="onnxruntime")
    parity = about["parity"]
    assert parity["label_agreement"] > 0.9999
    assert (parity["measured_with"], parity["emulated"]) == ("onnxruntime", False)
    assert load_engine(tmp_path / "x.fbts").description["backend"] == "onnxruntime"


def test_onnx_must_have_a_spec(tmp_path: Path) -> None:
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


def test_a_reference_that_cannot_be_used_fails_before_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> None:
        raise AssertionError("was built")

    monkeypatch.setattr("fastbts.build.engine.build_payloads", build)
    write_case(make_case(0, shape=(48, 48, 40)), tmp_path / "case")
    (tmp_path / "case/other_seg.nii.gz").touch()
    with pytest.raises(CaseError, match="expected one reference"):
        build_engine(default_engine_path(), tmp_path / "x.fbts", calibrate=[tmp_path / "case"])


def test_cases_are_chosen_by_folder_or_by_table(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="calibrate and data: both choose the cases"):
        build_engine(
            default_engine_path(), tmp_path / "x.fbts", calibrate=[tmp_path], data=tmp_path
        )


def test_parity_by_group_is_stored(tmp_path: Path) -> None:
    for name in "abcd":
        write_case(make_case(0, shape=(48, 48, 40)), tmp_path / name)
    rows = [f"{name},val,{group}" for name, group in zip("abc", "xxx", strict=True)]
    (tmp_path / "cases.csv").write_text("\n".join(["case,split,group", *rows, "d,train,y\n"]))
    source = write_voxel_engine(tmp_path / "s.fbts")
    build_engine(source, tmp_path / "x.fbts", precision="fp32", data=tmp_path)
    build = read_engine_file(tmp_path / "x.fbts").manifest["build"]
    assert build["parity"]["groups"] == {
        "x": {"n_cases": 3, "dice_change": 0, "worst_case": 0},
    }
    assert load_engine(tmp_path / "x.fbts").description["precision"] == "fp32"
