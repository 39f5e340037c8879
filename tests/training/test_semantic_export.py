"""The semantic network as ONNX and in the engines: one file, text as an input with a default, nothing of what is off."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from fastbts import Engine, EngineSpec, OptionsError, load_engine
from fastbts.enginefile import write_engine_file
from tests.training.tiny import KINDS, awake, tiny
from training.export import halve_weights, to_onnx
from training.model import UNet3d

SPEC = EngineSpec(stride=16, window=(32, 32, 32))


@pytest.fixture(scope="module")
def network() -> UNet3d:
    network = awake(tiny(*KINDS)).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.half().float())
    return network


@pytest.fixture(scope="module")
def exported(network: UNet3d) -> onnx.ModelProto:
    return halve_weights(to_onnx(network, SPEC))


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def engine(
    request: pytest.FixtureRequest, exported: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    path = tmp_path_factory.mktemp("engine") / "tiny.fbts"
    write_engine_file(path, SPEC, {"model.onnx": exported.SerializeToString()})
    engine = load_engine(path, precision="f32", backend=request.param)
    yield engine
    engine.close()


def test_text_is_an_input_with_a_default(network: UNet3d, exported: onnx.ModelProto) -> None:
    assert [i.name for i in exported.graph.input] == ["volume", "text"]
    default = next(i for i in exported.graph.initializer if i.name == "text")
    assert np.array_equal(onnx.numpy_helper.to_array(default), network.get_buffer("text").numpy())
    assert not [i.name for i in exported.graph.initializer if "teacher" in i.name], "the teacher's head is for training only"


@pytest.mark.parametrize("shape", [(1, 4, 32, 32, 32), (3, 4, 48, 32, 64)])
def test_engines_agree_with_torch(network: UNet3d, engine: Engine, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    text = np.roll(network.get_buffer("text").numpy(), 1, axis=0)
    with torch.inference_mode():
        default, other = network(torch.from_numpy(x)).numpy(), network(torch.from_numpy(x), torch.from_numpy(text)).numpy()
    np.testing.assert_array_equal(engine.text, network.get_buffer("text"))
    assert np.abs(engine.infer(x) - default).max() <= 1e-3
    assert np.abs(engine.infer(x, text) - other).max() <= 1e-3
    assert np.abs(other - default).max() > 1e-2, "so the text was used"


def test_a_missing_modality_runs(network: UNet3d, engine: Engine) -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 32, 32, 32), np.float32)
    x[:, 2] = 0
    with torch.inference_mode():
        assert np.abs(engine.infer(x) - network(torch.from_numpy(x)).numpy()).max() <= 1e-3


def test_wrong_text_is_refused(engine: Engine) -> None:
    x = np.zeros((1, 4, 32, 32, 32), np.float32)
    with pytest.raises(OptionsError, match=r"text of shape \(2, 16\): expected \(3, 16\)"):
        engine.infer(x, np.zeros((2, 16), np.float32))


def test_bypass_leaves_nothing_behind(exported: onnx.ModelProto, tmp_path: Path) -> None:
    plain = halve_weights(to_onnx(tiny().eval(), SPEC))
    assert [i.name for i in plain.graph.input] == ["volume"]
    used, more = ({node.op_type for node in model.graph.node} for model in (plain, exported))
    semantic = {"MatMul", "Gemm", "Sigmoid", "Softmax", "Gelu", "Resize", "ReduceMax", "ReduceMean"}
    assert not used & semantic
    assert semantic <= more
    write_engine_file(tmp_path / "plain.fbts", SPEC, {"model.onnx": plain.SerializeToString()})
    engine = load_engine(tmp_path / "plain.fbts", precision="f32")
    assert engine.text is None
    with pytest.raises(OptionsError, match="reads no text"):
        engine.infer(np.zeros((1, 4, 32, 32, 32), np.float32), np.zeros((3, 16), np.float32))
