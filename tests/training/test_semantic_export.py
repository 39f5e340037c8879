"""The semantic network as ONNX and in the engines: one file, text an input with a default."""

import copy
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import fastbts
from fastbts import MODALITIES, Engine, EngineSpec, OptionsError, Segmenter, load_engine, read_case
from fastbts.engine.backends.tensorrt_plan import Wanted, build_plan
from fastbts.engine.file import pack_engine, parse_engine_file, write_engine_file
from fastbts.engine.load import open_engine
from fastbts.engine.onnx_bytes import read_metadata
from fastbts.engine.onnx_half import emulate_half
from fastbts.pipeline.normalize import normalize
from tests.training.conftest import Exported
from tests.training.tiny import MECHANISMS, randomize_zeros, rounded, tiny
from training.clip.prompts import ORTHONORMAL
from training.config import parse_recipe
from training.export import optional_modalities
from training.model import UNet3d
from training.start import begin_from

SPEC = EngineSpec(stride=16, window=(32, 32, 32))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network() -> UNet3d:
    return rounded(randomize_zeros(tiny(*MECHANISMS)).eval())


@pytest.fixture(scope="module")
def model(network: UNet3d, exported: Exported) -> onnx.ModelProto:
    return onnx.load_from_string(exported(network, SPEC))


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def engine(
    request: pytest.FixtureRequest,
    model: onnx.ModelProto,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    path = tmp_path_factory.mktemp("engine") / "tiny.fbts"
    write_engine_file(
        path, SPEC, {"model.onnx": model.SerializeToString()}, prompts={"encoder": ORTHONORMAL}
    )
    engine = load_engine(path, precision="fp32", backend=request.param)
    yield engine
    engine.close()


def op_types(model: onnx.ModelProto) -> set[str]:
    bodies = [
        body
        for body in model.functions
        if body.name in {node.op_type for node in model.graph.node if node.domain}
    ]
    return {node.op_type for part in (model.graph, *bodies) for node in part.node}


@pytest.mark.slow
def test_the_mechanisms_are_nodes_with_bodies(model: onnx.ModelProto) -> None:
    nodes = Counter(node.op_type for node in model.graph.node if node.domain == "fastbts")
    assert nodes == {
        "SemanticBridge": 1,
        "SemanticAttention": 2,
        "CaseConv": 1,
    }  # gates on the skips at strides 2 and 4
    assert {f.name: len(f.input) for f in model.functions} == {
        "SemanticBridge": 6,
        "SemanticAttention": 10,
        "CaseConv": 3,
        "InstanceNormalization": 3,
    }


def test_the_file_says_what_it_is(model: onnx.ModelProto) -> None:
    about = read_metadata(model.SerializeToString())
    assert (about["name"], about["version"], about["precision"]) == (
        SPEC.name,
        fastbts.__version__,
        "fp32",
    )
    assert json.loads(about["spec"]) == json.loads(json.dumps(asdict(SPEC)))


def test_a_network_is_read_back_from_its_engine(
    network: UNet3d, model: onnx.ModelProto, tmp_path: Path
) -> None:
    path, record = tmp_path / "tiny.fbts", {"recipe": {"model": asdict(network.config)}}
    write_engine_file(path, SPEC, {"model.onnx": model.SerializeToString()}, training=record)
    begun, image = UNet3d(network.config), torch.randn(1, 4, 32, 32, 48)
    missing = begin_from(begun, path)
    assert all(name.startswith(("side_heads.", "bridge.teacher.")) for name in missing)
    with torch.inference_mode():
        expected, logits = network(image), begun.eval()(image)
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "allowed"), [("fp16", 0.01), ("bf16", 0.06)])
def test_precisions_agree_with_pytorch(
    network: UNet3d, model: onnx.ModelProto, precision: str, allowed: float
) -> None:
    """float16 has 11 bits of mantissa, bfloat16 8; some 15 layers lose one digit."""
    x = np.random.default_rng(0).standard_normal((1, 4, 32, 32, 48), np.float32)
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    with torch.inference_mode():
        exact = network(torch.from_numpy(x)).numpy()
        peer = copy.deepcopy(network).to(kind)(torch.from_numpy(x).to(kind)).float().numpy()
    content = emulate_half(model.SerializeToString(), precision)
    file = parse_engine_file(pack_engine(SPEC, {"model.onnx": content}), "emulated.fbts")
    logits = open_engine(file, backend="onnxruntime", precision="fp32").infer(x)
    assert np.abs(logits - exact).max() <= allowed * np.abs(exact).max()
    # Twice PyTorch's own error in that type.
    assert np.abs(logits - exact).max() <= 2 * np.abs(peer - exact).max()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_it(model: onnx.ModelProto, precision: str) -> None:
    trt = pytest.importorskip(
        "tensorrt_rtx_bindings",
        reason="TensorRT-RTX is not installed: pip install 'fastbts[tensorrt-rtx]'",
    )
    content = model.SerializeToString()
    file = parse_engine_file(pack_engine(SPEC, {"model.onnx": content}), "exported.fbts")
    plan = build_plan(trt, file, Wanted("tensorrt-rtx", precision))
    layers = re.findall(
        r"^Name: .*?LayerType: (\w+).*Outputs: \[(.*?)\], Tactic", plan.log, re.MULTILINE
    )
    heavy = [outputs for kind, outputs in layers if kind in ("correlation", "deconv", "gemm")]
    assert len(heavy) >= 10, "the log names the layers"
    wanted = "Float" if precision == "fp32" else "Half"
    assert not [outputs for outputs in heavy if f"Datatype: {wanted}" not in outputs]
    activations = re.search(r"Total Activation Memory: (\d+) bytes", plan.log)
    assert activations
    assert int(activations[1]) < 2e9, "at the largest box"
    assert "Name: text, IOMode: Input" in plan.log


def test_text_is_an_input_with_a_default(network: UNet3d, model: onnx.ModelProto) -> None:
    assert [i.name for i in model.graph.input] == ["volume", "text"]
    default = next(i for i in model.graph.initializer if i.name == "text")
    assert np.array_equal(onnx.numpy_helper.to_array(default), network.get_buffer("text").numpy())
    assert not [i.name for i in model.graph.initializer if "teacher" in i.name], (
        "the teacher's head is for training only"
    )


@pytest.mark.parametrize("shape", [(1, 4, 32, 32, 32), (3, 4, 48, 32, 64)])
def test_engines_agree_with_torch(network: UNet3d, engine: Engine, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    text = np.roll(network.get_buffer("text").numpy(), 1, axis=0)
    with torch.inference_mode():
        default, other = (
            network(torch.from_numpy(x)).numpy(),
            network(torch.from_numpy(x), torch.from_numpy(text)).numpy(),
        )
    np.testing.assert_array_equal(engine.text, network.get_buffer("text"))
    assert np.abs(engine.infer(x) - default).max() <= 1e-3
    assert np.abs(engine.infer(x, text) - other).max() <= 1e-3
    assert np.abs(other - default).max() > 1e-2, "so the text was used"


@pytest.mark.data
def test_engines_agree_with_torch_on_a_real_case(
    network: UNet3d, engine: Engine, val_cases: list[Path]
) -> None:
    x = normalize(read_case(val_cases[0]), SPEC).tensor[None]
    with torch.inference_mode():
        exact = network(torch.from_numpy(x)).numpy()
    logits = engine.infer(x)
    assert np.abs(logits - exact).max() <= 1e-3
    assert ((logits > 0) == (exact > 0)).mean() >= 0.99999


def test_a_missing_modality_runs(network: UNet3d, engine: Engine) -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 32, 32, 32), np.float32)
    x[:, 2] = 0
    with torch.inference_mode():
        assert np.abs(engine.infer(x) - network(torch.from_numpy(x)).numpy()).max() <= 1e-3


def test_modalities_are_optional_where_training_hid_them() -> None:
    for semantic, optional in (
        ({"fusion": True, "modality_dropout": 0.1}, MODALITIES),
        ({"fusion": True, "modality_dropout": 0.0}, ()),
        ({"fusion": False, "modality_dropout": 0.1}, ()),
    ):
        assert optional_modalities(parse_recipe({"model": {"semantic": semantic}})) == optional


def test_reports_of_its_predictions_say_what_the_prompts_are(engine: Engine) -> None:
    volume = np.random.default_rng(0).random((4, 32, 32, 32), np.float32)
    assert (
        Segmenter(engine, warm_up=False).predict(volume).report["engine"]["prompts"]
        == "orthonormal prompts, not CLIP"
    )


def test_wrong_text_is_refused(engine: Engine) -> None:
    x = np.zeros((1, 4, 32, 32, 32), np.float32)
    with pytest.raises(OptionsError, match=r"text of shape \(2, 16\): expected \(3, 16\)"):
        engine.infer(x, np.zeros((2, 16), np.float32))


@pytest.mark.slow
def test_bypass_leaves_nothing_behind(
    model: onnx.ModelProto, exported: Exported, tmp_path: Path
) -> None:
    network = rounded(randomize_zeros(tiny()).eval())
    plain = onnx.load_from_string(exported(network, SPEC))
    assert [i.name for i in plain.graph.input] == ["volume"]
    used, more = op_types(plain), op_types(model)
    assert [f.name for f in plain.functions] == ["InstanceNormalization"]
    semantic = {"MatMul", "Gemm", "Sigmoid", "Softmax", "Gelu", "Resize", "ReduceMax", "ReduceMean"}
    assert not used & semantic
    assert semantic <= more
    write_engine_file(tmp_path / "plain.fbts", SPEC, {"model.onnx": plain.SerializeToString()})
    engine = load_engine(tmp_path / "plain.fbts", precision="fp32")
    assert engine.text is None
    with pytest.raises(OptionsError, match="reads no text"):
        engine.infer(np.zeros((1, 4, 32, 32, 32), np.float32), np.zeros((3, 16), np.float32))
