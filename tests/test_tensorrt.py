"""The TensorRT backend as far as a machine without GPU goes: it builds, it refuses, and it calls only what exists."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastbts import DeviceError, EngineFileError, EngineSpec, OptionsError, load_engine
from fastbts.enginefile import read_engine_file, write_engine_file
from fastbts.engines import cuda, default_engine_path, tensorrt

trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: pip install 'fastbts[tensorrt-rtx]'")
runtime = pytest.importorskip("cuda.bindings.runtime", reason="no CUDA bindings: pip install cuda-bindings")

# What the variables of tensorrt.py hold; a name that is not here is no TensorRT object.
CLASSES = {
    "trt": trt, "builder": trt.Builder, "parser": trt.OnnxParser, "config": trt.IBuilderConfig,
    "profile": trt.IOptimizationProfile, "_runtime": trt.Runtime, "engine": trt.ICudaEngine, "_context": trt.IExecutionContext,
}  # fmt: skip


@pytest.fixture(scope="module")
def built() -> dict[str, bytes]:
    file = read_engine_file(default_engine_path())
    return tensorrt.build(bytes(file.payloads["model.onnx"]), file.spec, backend="tensorrt-rtx")


def has_gpu() -> bool:
    status, count = runtime.cudaGetDeviceCount()
    return status == runtime.cudaError_t.cudaSuccess and count > 0


def attributes(module: object) -> Iterator[tuple[str, str]]:
    """(variable, attribute) for each `variable.attribute` and `self.variable.attribute` in the module's source."""
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            yield owner, node.attr


def test_every_tensorrt_name_exists() -> None:
    used = {(owner, name) for owner, name in attributes(tensorrt) if owner in CLASSES}
    assert {owner for owner, _ in used} == set(CLASSES), "so none of the variables has been renamed"
    assert not [f"{owner}.{name}" for owner, name in used if not hasattr(CLASSES[owner], name)]
    for owner, enum in [("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"), ("ProfilingVerbosity", "DETAILED")]:
        assert (owner, enum) in set(attributes(tensorrt))
        assert hasattr(getattr(trt, owner), enum)


def test_every_cuda_name_exists() -> None:
    source = "".join(Path(str(module.__file__)).read_text() for module in (tensorrt, cuda))
    names = set(re.findall(r"\bcuda[A-Z]\w+", source))
    assert {"cudaMalloc", "cudaGraphInstantiate", "cudaMemcpyAsync", "cudaStreamEndCapture"} <= names
    enums = (runtime.cudaError_t, runtime.cudaMemcpyKind, runtime.cudaStreamCaptureMode)
    assert not [name for name in names if not any(hasattr(place, name) for place in (runtime, *enums))]


def test_every_cuda_call_has_as_many_arguments_as_the_function() -> None:
    trees = [ast.parse(Path(str(module.__file__)).read_text()) for module in (tensorrt, cuda)]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    checked = 0
    for call in calls:
        name = str(getattr(call.args[0], "value", ""))
        if re.fullmatch(r"cuda[A-Z]\w+", name):
            assert len(inspect.signature(getattr(runtime, name)).parameters) == len(call.args) - 1, name
            checked += 1
    assert checked >= 14


@pytest.mark.slow
def test_the_shipped_networks_build() -> None:
    shipped = sorted(default_engine_path().parent.glob("*.fbts"))
    assert shipped
    for path in shipped:
        file = read_engine_file(path)
        plan = tensorrt.build_plan(bytes(file.payloads["model.onnx"]), file.spec, "tensorrt-rtx")
        assert len(plan.content) > 1e6
        activations = re.search(r"Total Activation Memory: (\d+) bytes", plan.log)
        assert activations
        assert int(activations[1]) < 2e9, "at the largest box"
        assert len(re.findall(r"LayerType: (correlation|deconv),", plan.log)) >= 16, "the log names the convolutions"


@pytest.mark.slow
def test_what_a_build_gives(built: dict[str, bytes]) -> None:
    assert set(built) == {"model.onnx", "engine.plan", "engine.json"}
    assert json.loads(built["engine.json"]) == {"backend": "tensorrt-rtx", "version": trt.__version__, "precision": "fp32"}


@pytest.mark.slow
def test_a_plan_is_a_device_error_where_there_is_no_gpu(built: dict[str, bytes], tmp_path: Path) -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU")
    write_engine_file(tmp_path / "plan.fbts", EngineSpec(), built)
    with pytest.raises(DeviceError, match="no CUDA device here"):
        load_engine(tmp_path / "plan.fbts")
    with pytest.raises(DeviceError, match=r"built by tensorrt-rtx, not by tensorrt; run: fastbts build .*--backend tensorrt$"):
        load_engine(tmp_path / "plan.fbts", backend="tensorrt")
    with pytest.raises(DeviceError, match="this plan computes in fp32"):
        load_engine(tmp_path / "plan.fbts", precision="fp16")
    with pytest.raises(DeviceError, match="runs on cuda"):
        load_engine(tmp_path / "plan.fbts", device="cpu", backend="tensorrt-rtx")
    assert load_engine(tmp_path / "plan.fbts", device="cpu").description["backend"] == "openvino", "the ONNX is still in it"


def test_files_without_plan_or_record_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="holds no TensorRT plan; run: fastbts build"):
        load_engine(backend="tensorrt-rtx")
    for record in (b"", b"[]", b'{"backend": "tvm"}', b'{"backend": "tensorrt", "version": 1, "precision": "fp32"}'):
        write_engine_file(tmp_path / "x.fbts", EngineSpec(), {"model.onnx": b"", "engine.plan": b"", "engine.json": record})
        with pytest.raises(EngineFileError, match="no usable record of its plan"):
            load_engine(tmp_path / "x.fbts")


def test_what_cannot_be_built_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=r"computes in fp32.*training\.export --precision"):
        tensorrt.build(b"", EngineSpec(), "fp16", backend="tensorrt-rtx")
    with pytest.raises(EngineFileError, match="cannot parse the network"):
        tensorrt.build(b"\x3a\x04\x0a\x02\xff\xff", EngineSpec(), backend="tensorrt-rtx")  # a graph with a damaged node
    with pytest.raises(DeviceError, match=r"cannot build the network.*at least one output"):
        tensorrt.build(b"\x3a\x00", EngineSpec(), backend="tensorrt-rtx")  # an empty graph
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(DeviceError, match=r"pip install 'fastbts\[tensorrt-rtx\]'"):
        tensorrt.build(b"", EngineSpec(), backend="tensorrt-rtx")


def test_cuda_without_a_device_says_so() -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="nvidia-smi"):
        cuda.Cuda()


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(OptionsError, match="precision 'f32': expected one of auto, fp32, bf16, fp16, int8"):
        load_engine(precision="f32")
