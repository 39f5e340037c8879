"""A Triton model repository: configurations by Triton's schema, the model as Triton calls it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import fastbts.phantom
from fastbts import OptionsError, OutputError, Segmenter
from fastbts.build.triton import export_triton
from fastbts.cli import app
from fastbts.engine.file import read_engine_file
from fastbts.engine.load import default_engine_path


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "repository"
    result = CliRunner().invoke(app, ["export-triton", str(folder), "--instances", "2"])
    assert result.exit_code == 0, result.output
    return folder


def _config(path: Path) -> Any:
    """Parsed strictly by Triton's model_config.proto: unknown fields and wrong types are errors."""
    schema = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="tritonclient carries Triton's schema"
    )
    from google.protobuf import text_format

    return text_format.Parse(path.read_text(), schema.ModelConfig())


def test_repository_has_all_files(repository: Path) -> None:
    assert sorted(str(p.relative_to(repository)) for p in repository.rglob("*") if p.is_file()) == [
        "fastbts/1/engine.fbts", "fastbts/1/model.py", "fastbts/config.pbtxt",
        "fastbts_network/1/model.onnx", "fastbts_network/config.pbtxt",
    ]  # fmt: skip
    assert (repository / "fastbts/1/engine.fbts").read_bytes() == default_engine_path().read_bytes()


def test_segmenter_config_fits_the_schema(repository: Path) -> None:
    config = _config(repository / "fastbts/config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("fastbts", "python", 0)
    assert [(i.name, list(i.dims)) for i in config.input] == [
        ("images", [4, -1, -1, -1]),
        ("affine", [4, 4]),
    ]
    assert [(o.name, list(o.dims)) for o in config.output] == [
        ("labels", [-1, -1, -1]),
        ("volumes_ml", [3]),
    ]
    assert [(g.count, g.kind == g.KIND_CPU) for g in config.instance_group] == [(2, True)]


def test_network_config_fits_the_schema_and_the_onnx(repository: Path) -> None:
    config = _config(repository / "fastbts_network/config.pbtxt")
    assert (config.name, config.platform, config.max_batch_size) == (
        "fastbts_network",
        "onnxruntime_onnx",
        4,
    )
    warm = config.model_warmup[0].inputs["volume"]
    assert warm.zero_data
    assert list(warm.dims) == [4, 32, 32, 32]
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(
        repository / "fastbts_network/1/model.onnx", providers=["CPUExecutionProvider"]
    )
    assert [i.name for i in session.get_inputs()] == [i.name for i in config.input] == ["volume"]
    assert [o.name for o in session.get_outputs()] == [o.name for o in config.output]
    (logits,) = session.run(None, {"volume": np.zeros((1, *warm.dims), np.float32)})
    assert logits.shape == (1, 3, 32, 32, 32)


class _Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> np.ndarray:
        return self.array


def _triton_utils() -> ModuleType:
    """The names of triton_python_backend_utils that the model uses; only Triton has the module."""
    module = ModuleType("triton_python_backend_utils")
    module.__dict__.update(
        Tensor=_Tensor,
        TritonError=str,
        InferenceResponse=lambda output_tensors=(), error=None: SimpleNamespace(
            tensors=output_tensors, error=error
        ),
        get_input_tensor_by_name=lambda request, name: _Tensor(name, request[name]),
    )
    return module


def _model(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`model.py` as Triton loads it."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", _triton_utils())
    found = importlib.util.spec_from_file_location("model", repository / "fastbts/1/model.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_each_instance_runs_on_its_gpu(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, devices = _model(repository, monkeypatch), list[str]()
    monkeypatch.setattr(module, "Segmenter", lambda path, device: devices.append(device))
    for number in ("0", "1"):
        instance = {"model_instance_kind": "GPU", "model_instance_device_id": number}
        module.TritonPythonModel().initialize(instance)
    assert devices == ["cuda:0", "cuda:1"]


def test_model_answers_like_the_segmenter(
    repository: Path, monkeypatch: pytest.MonkeyPatch, small_phantom: None
) -> None:
    module = _model(repository, monkeypatch)
    volume = fastbts.phantom.make_case(3).volume
    request = {"images": np.asarray(volume.data, np.float32), "affine": volume.affine}
    model = module.TritonPythonModel()
    model.initialize({"model_instance_kind": "CPU"})
    good, bad = model.execute([request, {**request, "images": np.zeros_like(request["images"])}])
    model.finalize()
    expected = Segmenter(warm_up=False).predict(volume)
    assert good.error is None
    np.testing.assert_array_equal(good.tensors[0].array, expected.labels)
    np.testing.assert_allclose(good.tensors[1].array, list(expected.volumes_ml.values()), rtol=1e-6)
    assert "CaseError" in bad.error, "empty images are refused"


def test_nothing_is_overwritten_or_guessed(repository: Path, tmp_path: Path) -> None:
    engine = default_engine_path()
    with pytest.raises(OutputError, match="exists; choose another --name"):
        export_triton(engine, repository)
    for wrong in ({"device": "tpu"}, {"name": "../x"}, {"name": 'a"b'}, {"instances": 0}):
        with pytest.raises(OptionsError, match="expected cpu or cuda"):
            export_triton(engine, tmp_path, **wrong)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    assert read_engine_file(export_triton(engine, tmp_path, name="b", device="cuda")[2]).spec.name
    assert "KIND_GPU" in (tmp_path / "b/config.pbtxt").read_text()
