"""int8 by NNCF: which layers are left in floating point."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from fastbts.engine.backends import openvino_int8
from fastbts.engine.backends.openvino import OpenVINOEngine, _core, _logits
from fastbts.engine.backends.openvino_int8 import _quantized as quantized_network
from fastbts.engine.backends.openvino_int8 import quantize, sensitivities, worth_keeping

# Not imported here: each process that collects tests would do so.
pytestmark = pytest.mark.skipif(
    find_spec("nncf") is None, reason="NNCF is not installed: pip install 'fastbts[quantize]'"
)


def two_layers() -> Any:
    """Two convolutions; the second reads one channel a thousand times as large as the others, which
    int8 cannot hold with one scale."""
    import openvino as ov
    from openvino import opset13 as ops

    OpenVINOEngine.package()
    rng = np.random.default_rng(0)
    volume = ops.parameter([1, 4, -1, -1, -1], np.float32, name="volume")

    def layer(x: Any, weight: np.ndarray, name: str) -> Any:
        return ops.convolution(x, weight, [1] * 3, [1] * 3, [1] * 3, [1] * 3, name=name)

    first = layer(volume, rng.standard_normal((8, 4, 3, 3, 3)).astype(np.float32), "good")
    large = np.ones((1, 8, 1, 1, 1), np.float32)
    large[:, 0] = 1000
    second = rng.standard_normal((3, 8, 3, 3, 3)).astype(np.float32)
    second[:, 0] /= 1000
    logits = layer(ops.multiply(first, ops.constant(large)), second, "bad")
    return ov.Model([ops.result(logits)], [volume], "two_layers")


def test_the_layer_that_int8_harms_most_is_left_in_floating_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensor = np.random.default_rng(1).standard_normal((4, 8, 8, 8)).astype(np.float32)
    given = []

    def run(model: Any, precision: str, samples: Any) -> Any:
        given.append(precision)
        return _logits(_core(), model, precision, samples)

    monkeypatch.setattr(openvino_int8, "MAX_WORK", 0.6)  # either, but not both
    xml, weights = quantize(two_layers(), None, [tensor], run)
    assert given == ["fp32", "int8", "int8", "int8"]
    network = _core().read_model(xml, OpenVINOEngine.package().Tensor(np.frombuffer(weights, "u1")))
    layers = {op.get_friendly_name(): op for op in network.get_ops()}
    quantized = {
        name: layers[name].input_value(0).get_node().get_type_name() == "FakeQuantize"
        for name in ("good", "bad")
    }
    assert quantized == {"good": True, "bad": False}


def test_sensitivity_is_the_share_of_the_error() -> None:
    sample = [np.random.default_rng(1).standard_normal((1, 4, 8, 8, 8)).astype(np.float32)]
    network = two_layers()
    quantized = quantized_network(network, [sample])
    exact = np.ones((1, 3, 8, 8, 8), np.float32)
    given = iter([exact, exact + 1, exact + 1, exact])  # float32, int8, int8 but for each layer
    found = sensitivities(network, quantized, [sample], lambda *_: [next(given)])
    assert found == {"good": 0, "bad": 1}


def test_logging_of_the_caller_is_left_as_it_was() -> None:
    openvino_int8._nncf()  # its import sets a level
    logger, handler = logging.getLogger("nncf"), logging.NullHandler(logging.DEBUG)
    before, sample = logger.level, np.ones((1, 4, 8, 8, 8), np.float32)
    logger.addHandler(handler)
    try:
        quantized_network(two_layers(), [[sample]])
    finally:
        logger.removeHandler(handler)
    assert (logger.level, handler.level) == (before, logging.DEBUG)


def test_layers_are_kept_by_their_gain_per_multiplication(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_int8, "MAX_WORK", 0.25)
    gains = {"cheap": 0.1, "costly": 0.5, "large": 0.4, "none": -0.1}
    work = {"cheap": 1.0, "costly": 20.0, "large": 50.0, "none": 1.0}
    assert worth_keeping(gains, work) == ["cheap"], "the others are more than a quarter"
    work["large"] = 100.0
    assert worth_keeping(gains, work) == ["cheap", "costly"]
