"""OpenVINO's network without its packing gives the logits of the whole one, and of PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fastbts.engine.backends.base import open_network
from fastbts.engine.backends.openvino import OpenVINOEngine, _core, _read
from fastbts.engine.backends.openvino_pack import as_tensor, packed, packing_of, without_packing
from fastbts.engine.file import EngineFile, pack_engine, parse_engine_file
from fastbts.errors import OptionsError
from fastbts.ops import PackedLogits
from tests.training.conftest import Exported
from tests.training.kinds import CONFIGS, name_of, randomized, spec_of
from training.model import UNetConfig

Floats = NDArray[np.float32]


def engine_file(config: UNetConfig, exported: Exported) -> EngineFile:
    spec = spec_of(config)
    content = {"model.onnx": exported(randomized(config), spec)}
    return parse_engine_file(pack_engine(spec, content), "exported")


def noise(config: UNetConfig) -> Floats:
    """A case whose second image is missing, and whose background is 0."""
    rng, side = np.random.default_rng(0), 2 * config.stride
    x = rng.standard_normal((1, config.n_modalities, side, 2 * side, side), np.float32)
    x[:, 1:2] = 0
    x[..., :3] = 0
    return x


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS[::-1], ids=name_of)  # not as in another process
def test_logits_are_those_of_pytorch(config: UNetConfig, exported: Exported) -> None:
    file, x = engine_file(config, exported), noise(config)
    with torch.inference_mode():
        exact = randomized(config)(torch.from_numpy(x)).numpy()
    engine = OpenVINOEngine(file, precision="fp32")
    assert (engine.packing is not None) == (config.patch == 2)
    for case in (x, x[:, :, : x.shape[2] // 2 * 2], x):  # the same request, other sizes
        logits = engine.infer(case)
    assert np.abs(logits - exact).max() <= 1e-4 * np.abs(exact).max()
    if engine.packing is not None:
        ends = engine.infer_packed(packed(engine.packing, x[0], 1))
        np.testing.assert_array_equal(ends.voxels(), logits[0])
        with pytest.raises(OptionsError, match=r"packed tensor: float32 of shape .*: expected"):
            engine.infer_packed(x[0])


def with_steps(network: Any, tensor: str, high: float, low: float) -> Any:
    """The network with int8 at a tensor, as NNCF marks it."""
    from openvino import opset13 as ops

    ends = {name: end for op in network.get_ops() for end in op.outputs() for name in end.names}
    readers = list(ends[tensor].get_target_inputs())
    limits = [np.float32(low), np.float32(high)] * 2
    steps = ops.fake_quantize(ends[tensor], *limits, 256)
    for reader in readers:
        reader.replace_source_output(steps.output(0))
    return network


def run(network: Any, file: EngineFile, x: Floats, text: Floats) -> Floats:
    """Logits of a network that went through a cache of compiled networks."""
    ov, core, hint = OpenVINOEngine.package(), _core(), {"INFERENCE_PRECISION_HINT": "f32"}
    blob = core.compile_model(network, "CPU", hint).export_model()
    model = core.import_model(blob, "CPU", hint)
    packing, call = packing_of(model, file), model.create_infer_request()
    call.set_input_tensor(1, ov.Tensor(text))
    if packing is None:
        call.set_input_tensor(0, ov.Tensor(x))
        call.infer()
        result: Floats = call.get_output_tensor(0).data.copy()
        return result
    entry = packed(packing, x[0], 1)  # OpenVINO reads it in place, and does not keep it alive
    call.set_input_tensor(0, as_tensor(ov, entry))
    out = np.empty(packing.shape(3, x.shape[2:]), packing.logits_dtype)
    call.set_output_tensor(as_tensor(ov, out))
    call.infer()
    return PackedLogits(out, packing.patch).voxels()[None]


@pytest.mark.slow
@pytest.mark.parametrize(("low", "kind"), [(-128 / 127, "i8"), (-1.0, "f32")])
def test_a_network_in_int8_gets_int8_where_steps_are_symmetric(
    low: float, kind: str, exported: Exported
) -> None:
    config = next(c for c in CONFIGS if c.patch == 2 and c.semantic.fusion)
    ov, file, x = OpenVINOEngine.package(), engine_file(config, exported), noise(config)
    text = randomized(config).get_buffer("text").numpy()
    whole, inner = (
        with_steps(_read(_core(), open_network(file)), "where", 4.0, 4 * low) for _ in range(2)
    )
    inner = without_packing(ov, inner, file, "f32")
    assert inner.inputs[0].element_type.get_type_name() == kind
    logits, exact = run(inner, file, x, text), run(whole, file, x, text)
    # A voxel in the middle between two steps may be rounded to either.
    assert np.abs(logits - exact).mean() <= 1e-3 * np.abs(exact).max()


@pytest.mark.slow
def test_a_network_without_the_names_of_its_onnx_keeps_its_packing(exported: Exported) -> None:
    config = next(c for c in CONFIGS if c.patch == 2)
    ov, file = OpenVINOEngine.package(), engine_file(config, exported)
    network = _read(_core(), open_network(file))
    for op in network.get_ops():
        for end in op.outputs():
            end.set_names(set())
    assert without_packing(ov, network, file, "f32") is network
