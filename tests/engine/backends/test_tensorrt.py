"""The TensorRT backend without a GPU: it builds, it refuses, and every name that it uses exists."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fastbts as package
from fastbts import DeviceError, EngineFileError, EngineSpec, load_engine
from fastbts.cli import app
from fastbts.device import cuda as device_cuda
from fastbts.device import runtime as device_runtime
from fastbts.engine.backends import tensorrt, tensorrt_log, tensorrt_plan, tensorrt_slot
from fastbts.engine.backends.tensorrt import TensorRTEngine, TensorRTRTXEngine
from fastbts.engine.file import (
    EngineFile,
    pack_engine,
    parse_engine_file,
    read_engine_file,
    write_engine_file,
)
from fastbts.engine.load import default_engine_path
from fastbts.engine.onnx_bytes import drop_bodies, drop_default
from fastbts.phantom import make_case, write_case
from tests.conftest import unknown_node
from tests.simt.build import ROOT
from tests.simt.plugins import library as emulated_plugins

trt = pytest.importorskip(
    "tensorrt_rtx_bindings",
    reason="TensorRT-RTX is not installed: pip install 'fastbts[tensorrt-rtx]'",
)
runtime = pytest.importorskip(
    "cuda.bindings.runtime", reason="no CUDA bindings: pip install cuda-bindings"
)

# Types of the variables in `MODULES` that hold TensorRT objects.
CLASSES = {
    "trt": trt, "builder": trt.Builder, "parser": trt.OnnxParser, "config": trt.IBuilderConfig,
    "network": trt.INetworkDefinition, "registry": trt.IPluginRegistry,
    "profile": trt.IOptimizationProfile, "layer": trt.ILayer, "runtime": trt.Runtime,
    "engine": trt.ICudaEngine, "settings": trt.IRuntimeConfig, "context": trt.IExecutionContext,
}  # fmt: skip
MODULES = (tensorrt, tensorrt_plan, tensorrt_slot, tensorrt_log)

STRONGLY_TYPED = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


@pytest.fixture(scope="module")
def built() -> dict[str, bytes]:
    file = read_engine_file(default_engine_path())
    onnx_bytes = bytes(file.payloads["model.onnx"])
    return {"model.onnx": onnx_bytes, **TensorRTRTXEngine.build(file, "fp32", [])}


def with_network(onnx_bytes: bytes) -> EngineFile:
    return parse_engine_file(pack_engine(EngineSpec(), {"model.onnx": onnx_bytes}), "x.fbts")


def write_plan(path: Path, record: bytes) -> Path:
    """An engine file whose plan has a record."""
    payloads = {"model.onnx": unknown_node(), "engine.plan": b"", "engine.json": record}
    build = {"backend": "tensorrt", "precision": "fp32"}
    write_engine_file(path, EngineSpec(), payloads, build=build)
    return path


RECORD = {
    **{"backend": "tensorrt", "version": "11.1.0", "fastbts": "0.1.0", "precision": "fp32"},
    **{"max_batch": 1, "compute_capability": "8.9", "plugins": False, "plugin_version": "1"},
    "ranges": {},
}


def has_gpu() -> bool:
    status, count = runtime.cudaGetDeviceCount()
    return status == runtime.cudaError_t.cudaSuccess and count > 0


def attributes(module: object) -> Iterator[tuple[str, str]]:
    """(variable, attribute) for each `variable.attribute` in a module, also after `self.`."""
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            yield owner, node.attr


def test_every_tensorrt_name_exists() -> None:
    found = {pair for module in MODULES for pair in attributes(module)}
    used = {(owner, name) for owner, name in found if owner in CLASSES}
    assert {owner for owner, _ in used} == set(CLASSES), "no variable was renamed"
    assert not [f"{owner}.{name}" for owner, name in used if not hasattr(CLASSES[owner], name)]
    for owner, enum in [
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("ProfilingVerbosity", "DETAILED"),
        ("LayerType", "PLUGIN_V3"),
        ("ExecutionContextAllocationStrategy", "USER_MANAGED"),
        ("CudaGraphStrategy", "WHOLE_GRAPH_CAPTURE"),
    ]:
        assert (owner, enum) in found
        assert hasattr(getattr(trt, owner), enum)
    # Methods on variables whose name differs.
    assert all(hasattr(owner, "get_plugin_registry") for owner in (trt.Builder, trt.Runtime))


def test_every_cuda_name_exists() -> None:
    source = "".join(
        Path(str(module.__file__)).read_text() for module in (*MODULES, device_cuda, device_runtime)
    )
    names = set(re.findall(r"\bcuda[A-Z]\w+", source))
    assert {
        "cudaMalloc",
        "cudaGraphInstantiate",
        "cudaMemcpyAsync",
        "cudaStreamEndCapture",
    } <= names
    enums = (
        runtime.cudaError_t,
        runtime.cudaMemcpyKind,
        runtime.cudaStreamCaptureMode,
        runtime.cudaStreamCaptureStatus,
    )
    assert not [
        name for name in names if not any(hasattr(place, name) for place in (runtime, *enums))
    ]


def test_every_cuda_call_has_as_many_arguments_as_the_function() -> None:
    trees = [
        ast.parse(Path(str(module.__file__)).read_text())
        for module in (*MODULES, device_cuda, device_runtime)
    ]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    checked = set[str]()
    for call in calls:
        for at, argument in enumerate(call.args):  # also of what is called later
            name = str(getattr(argument, "value", ""))
            if re.fullmatch(r"cuda[A-Z]\w+", name):
                n_parameters = len(inspect.signature(getattr(runtime, name)).parameters)
                assert n_parameters == len(call.args) - at - 1, name
                checked.add(name)
    assert len(checked) >= 20


@pytest.mark.slow
def test_shipped_networks_build() -> None:
    shipped = sorted(default_engine_path().parent.glob("*.fbts"))
    assert shipped
    for path in shipped:
        file = read_engine_file(path)
        plan = tensorrt_plan.build_plan(trt, file, tensorrt_plan.Wanted("tensorrt-rtx"))
        assert len(plan.content) > 1e6
        activations = re.search(r"Total Activation Memory: (\d+) bytes", plan.log)
        assert activations
        assert int(activations[1]) < 2e9, "at the largest box"
        named = re.findall(r"LayerType: (correlation|deconv),", plan.log)
        at_least = 14 if path == default_engine_path() else 1  # small networks are fused more
        assert len(named) >= at_least, "the log names the convolutions"


@pytest.mark.slow
def test_build_gives_plan_and_record(built: dict[str, bytes]) -> None:
    assert set(built) == {"model.onnx", "engine.plan", "engine.json"}
    record = {
        "backend": "tensorrt-rtx",
        "version": trt.__version__,
        "fastbts": package.__version__,
        "precision": "fp32",
        "max_batch": 1,
        "compute_capability": None,
        "plugins": False,
        "plugin_version": "1",
        "ranges": {},
    }
    assert json.loads(built["engine.json"]) == record


@pytest.mark.slow
def test_plan_is_a_device_error_without_a_gpu(built: dict[str, bytes], tmp_path: Path) -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU")
    build = {"backend": "tensorrt-rtx", "precision": "fp32"}
    write_engine_file(tmp_path / "plan.fbts", EngineSpec(), built, build=build)
    with pytest.raises(
        DeviceError, match=r"plan\.fbts: built for tensorrt-rtx: no CUDA device here"
    ):
        load_engine(tmp_path / "plan.fbts")
    with pytest.raises(
        DeviceError,
        match=r"built by tensorrt-rtx, not by tensorrt; run: fastbts build .*--backend tensorrt$",
    ):
        load_engine(tmp_path / "plan.fbts", backend="tensorrt")
    with pytest.raises(DeviceError, match="this plan computes in fp32"):
        load_engine(tmp_path / "plan.fbts", precision="fp16")
    with pytest.raises(DeviceError, match="runs on cuda"):
        load_engine(tmp_path / "plan.fbts", device="cpu", backend="tensorrt-rtx")
    on_cpu = load_engine(tmp_path / "plan.fbts", device="cpu")
    assert on_cpu.description["backend"] == "openvino", "the ONNX is still in it"


def test_files_without_plan_or_record_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="holds no TensorRT plan; run: fastbts build"):
        load_engine(backend="tensorrt-rtx")
    wrong = (
        {"backend": "tensorrt"},
        {**RECORD, "version": 1},
        {**RECORD, "max_batch": 0},
        {**RECORD, "compute_capability": 8.9},
        {key: RECORD[key] for key in RECORD if key != "plugins"},
    )
    for record in (b"", b"[]", *(json.dumps(record).encode() for record in wrong)):
        path = write_plan(tmp_path / "x.fbts", record)
        with pytest.raises(EngineFileError, match="no usable record of its plan"):
            load_engine(path)


def test_plan_that_calls_plugins_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_plan, "plugin_library", lambda: None)
    record = {**RECORD, "plugins": True}
    path = write_plan(tmp_path / "x.fbts", json.dumps(record).encode())
    with pytest.raises(
        DeviceError,
        match=r"lacks; build fastbts .*FASTBTS_TENSORRT=ON, or run: "
        r"fastbts build .* --backend tensorrt$",
    ):
        load_engine(path)


def test_plugins_are_found_beside_the_extension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_plan._C, "__file__", str(tmp_path / "_C.so"))
    assert tensorrt_plan.plugin_library() is None
    (tmp_path / "libfastbts_tensorrt.so").touch()
    assert tensorrt_plan.plugin_library() == tmp_path / "libfastbts_tensorrt.so"
    library = "add_library(\n  fastbts_tensorrt MODULE"
    assert library in (ROOT / "csrc/tensorrt.cmake").read_text(), "so that is its name"


def test_parser_looks_for_the_plugins_without_bodies() -> None:
    """TensorRT-RTX has the parser of TensorRT, and no plugins, so parsing fails here."""
    log = tensorrt_log.shared_log(trt)
    network = trt.Builder(log).create_network(STRONGLY_TYPED)  # a parser keeps none alive
    parser = trt.OnnxParser(network, log)
    content = bytes(read_engine_file(default_engine_path()).payloads["model.onnx"])
    with tensorrt_log.collected(log) as lines:
        assert not parser.parse(
            drop_bodies(drop_default(content, "text"), tensorrt_plan.PLUGIN_NODES)
        )
    looked_for = re.findall(
        r"pluginName: (\w+), pluginVersion: 1, pluginNamespace: fastbts$",
        "\n".join(lines),
        re.MULTILINE,
    )
    assert set(looked_for) == {"SemanticBridge", "SemanticAttention"}


def test_plugins_load_into_a_real_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry of TensorRT-RTX loads plugins as that of TensorRT does."""
    monkeypatch.setattr(tensorrt_plan, "plugin_library", emulated_plugins)
    log = tensorrt_log.shared_log(trt)
    builder = trt.Builder(log)
    assert tensorrt_plan.load_plugins(builder, log)
    creators = {
        (c.name, c.plugin_version, c.plugin_namespace)
        for c in builder.get_plugin_registry().all_creators
    }
    assert {("SemanticBridge", "1", "fastbts"), ("SemanticAttention", "1", "fastbts")} <= creators


def test_plugins_that_cannot_be_loaded_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tensorrt_log.shared_log(trt)
    builder = trt.Builder(log)
    monkeypatch.setattr(tensorrt_plan, "plugin_library", lambda: None)
    assert not tensorrt_plan.load_plugins(builder, log)
    damaged = tmp_path / "libfastbts_tensorrt.so"
    damaged.write_bytes(b"x")
    monkeypatch.setattr(tensorrt_plan, "plugin_library", lambda: damaged)
    with pytest.raises(
        DeviceError,
        match=r"cannot load the plugins: .*file too short.*; "
        r"build fastbts where nvcc and NvInfer.h are.* FASTBTS_TENSORRT=OFF to do without",
    ):
        tensorrt_plan.load_plugins(builder, log)


def fastbts(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.slow
def test_commands_without_a_gpu(tmp_path: Path, small_phantom: None) -> None:
    """The plan is built, and its parity measured by emulation."""
    if has_gpu():
        pytest.skip("this machine has a GPU")
    write_case(make_case(0, shape=(64, 64, 48)), tmp_path / "case")
    out = tmp_path / "rtx.fbts"
    status, said = fastbts(
        *("build", default_engine_path(), "-o", out, "--backend", "tensorrt-rtx", "--batch", 2)
    )
    assert status == 0
    assert f"wrote {out} for tensorrt-rtx, fp32; against float32: n_cases 1" in said
    assert "measured_with onnxruntime, emulated yes" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case", "rtx.fbts"]
    file = read_engine_file(out)
    assert set(file.payloads) == {"model.onnx", "engine.plan", "engine.json", "finder.fbts"}
    assert file.manifest["build"]["backend"] == "tensorrt-rtx"
    assert json.loads(bytes(file.payloads["engine.json"]))["max_batch"] == 2
    assert file.manifest["build"]["parity"]["emulated"] is True
    status, said = fastbts("info", out)
    assert "built for tensorrt-rtx, fp32 against fp32 n_cases 1" in said
    status, said = fastbts("predict", tmp_path / "case", "-o", tmp_path / "out", "--engine", out)
    assert status == 1
    assert "no CUDA device here" in said
    assert load_engine(out, device="cpu").description["backend"] == "openvino"


def test_networks_that_cannot_be_built_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    damaged_node = b"\x3a\x04\x0a\x02\xff\xff"
    with pytest.raises(EngineFileError, match="cannot parse the network"):
        TensorRTRTXEngine.build(with_network(damaged_node), "fp32", [])
    with pytest.raises(DeviceError, match=r"cannot build the network.*at least one output"):
        TensorRTRTXEngine.build(with_network(b"\x3a\x00"), "fp32", [])  # an empty graph
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(DeviceError, match=r"pip install 'fastbts\[tensorrt-rtx\]'"):
        TensorRTRTXEngine.build(with_network(b""), "fp32", [])


def test_cuda_without_a_device_is_an_error() -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="nvidia-smi"):
        device_runtime.Runtime()


def test_the_two_backends_differ_in_name_and_kind_of_plan() -> None:
    assert (TensorRTEngine.backend, TensorRTEngine.portable) == ("tensorrt", False)
    assert (TensorRTRTXEngine.backend, TensorRTRTXEngine.portable) == ("tensorrt-rtx", True)
