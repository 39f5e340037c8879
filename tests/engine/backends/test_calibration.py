"""The ranges for int8: from a calibration, from an int8 network, from the record of a plan."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastbts import EngineFileError, OptionsError
from fastbts.engine.backends.calibration import calibrated_ranges
from fastbts.engine.backends.openvino import OpenVINOEngine
from fastbts.engine.file import EngineFile, read_engine_file
from fastbts.engine.load import default_engine_path

SHIPPED = read_engine_file(default_engine_path())
ONNX = replace(SHIPPED, payloads={"model.onnx": SHIPPED.payloads["model.onnx"]})
"""The shipped engine without its int8 network."""


def with_payloads(**payloads: bytes) -> EngineFile:
    named = {name.replace("_", "."): memoryview(content) for name, content in payloads.items()}
    return replace(ONNX, path="x.fbts", payloads={**ONNX.payloads, **named})


def test_a_plan_is_rebuilt_with_its_own_ranges() -> None:
    record = json.dumps({"ranges": {"a": 2, "b": 0.5}}).encode()
    assert calibrated_ranges(with_payloads(engine_json=record), []) == {"a": 2.0, "b": 0.5}


def test_nothing_to_calibrate_on_is_refused() -> None:
    for file in (ONNX, with_payloads(engine_json=b'{"ranges": {}}')):
        with pytest.raises(OptionsError, match="needs real cases to calibrate on"):
            calibrated_ranges(file, [])


def test_a_damaged_record_is_refused() -> None:
    for record in (b"x", b"[]", b'{"ranges": 1}', b'{"ranges": {"a": "wide"}}'):
        with pytest.raises(EngineFileError, match=r"x\.fbts: the record .* no usable ranges"):
            calibrated_ranges(with_payloads(engine_json=record), [])


@pytest.mark.slow
def test_ranges_are_those_of_openvinos_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nncf", reason="NNCF is not installed: pip install 'fastbts[quantize]'")
    tensor = np.random.default_rng(0).standard_normal((4, 32, 32, 48)).astype(np.float32)
    builds, build = list[dict[str, bytes]](), OpenVINOEngine.build

    def kept(*arguments: Any) -> dict[str, bytes]:
        builds.append(build(*arguments))
        return builds[-1]

    monkeypatch.setattr(OpenVINOEngine, "build", kept)
    measured = calibrated_ranges(ONNX, [tensor])
    # The first convolution reads the images; a range may be a little wider than what was seen.
    assert measured["where"] == pytest.approx(np.abs(tensor).max(), rel=0.3)
    (quantized,) = builds
    file = with_payloads(**{name.replace(".", "_"): c for name, c in quantized.items()})
    assert calibrated_ranges(file, []) == measured
