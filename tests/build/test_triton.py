"""A Triton model repository: configurations by Triton's schema, errors, instances on GPUs.

`test_triton_server.py` runs it in a server.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fastbts import CaseError, DeviceError, OptionsError, OutputError
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
        "fastbts_network/1/model.onnx", "fastbts_network/config.pbtxt", "start.sh",
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


class _TritonError:
    INVALID_ARG, INTERNAL = "invalid", "internal"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


def _triton_utils() -> ModuleType:
    """The names of triton_python_backend_utils that the model uses; only Triton has the module.

    NumPy's arrays serve as Triton's tensors: both have DLPack.
    """
    module = ModuleType("triton_python_backend_utils")
    module.__dict__.update(
        Tensor=SimpleNamespace(from_dlpack=lambda name, array: (name, np.from_dlpack(array))),
        TritonError=_TritonError,
        InferenceResponse=lambda output_tensors=(), error=None: SimpleNamespace(
            outputs=dict(output_tensors), error=error
        ),
        get_input_tensor_by_name=lambda request, name: request[name],
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


class _Segmenter:
    """Raises the error that the affine stands for, or says whether the images are aligned."""

    errors = (None, CaseError("bad images"), DeviceError("no memory"), KeyError("a bug"))

    def __init__(self, path: Path, device: str) -> None:
        pass

    def predict(self, images: np.ndarray, affine: np.ndarray) -> Any:
        error = self.errors[int(affine[0, 0])]
        if error is not None:
            raise error
        labels = np.full(images.shape[1:], images.flags.aligned, np.uint8, order="F")
        labels.setflags(write=False)
        return SimpleNamespace(labels=labels, volumes_ml={"WT": 2.0, "TC": 1.0})


def _unaligned(shape: tuple[int, ...]) -> np.ndarray:
    memory = np.zeros(4 * math.prod(shape) + 1, np.uint8)
    return memory[1:].view(np.float32).reshape(shape)


def test_errors_fail_only_their_own_request(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _model(repository, monkeypatch)
    monkeypatch.setattr(module, "Segmenter", _Segmenter)
    model = module.TritonPythonModel()
    model.initialize({"model_instance_kind": "CPU"})
    images = _unaligned((4, 2, 3, 5))
    good, *bad = model.execute(
        [{"images": images, "affine": np.full((4, 4), float(n))} for n in range(4)]
    )
    assert not images.flags.aligned
    assert good.error is None
    np.testing.assert_array_equal(good.outputs["labels"], np.ones((2, 3, 5)), "aligned")
    assert good.outputs["labels"].flags.c_contiguous
    np.testing.assert_array_equal(good.outputs["volumes_ml"], [2.0, 1.0])
    assert [(response.error.message, response.error.code) for response in bad] == [
        ("CaseError: bad images", "invalid"),
        ("DeviceError: no memory", "internal"),
        ("KeyError: 'a bug'", "internal"),
    ]


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
