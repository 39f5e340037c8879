"""The network of an engine file in another precision, for runtimes that obey the ONNX's types."""

from __future__ import annotations

from collections.abc import Mapping

from fastbts.engine.file import EngineFile, named
from fastbts.engine.onnx_bytes import drop_default, read_metadata
from fastbts.engine.onnx_half import emulate_half, to_half
from fastbts.engine.onnx_int8 import to_int8
from fastbts.errors import EngineFileError

HALF_OF = {"fp16": "fp16", "bf16": "bf16", "int8": "fp16"}
"""Precision -> the type of 16 bits in it: what is not int8 is float16. The others have none."""
NO_RANGES: Mapping[str, float] = {}


def network_in(file: EngineFile, precision: str, ranges: Mapping[str, float] = NO_RANGES) -> bytes:
    """The ONNX in a precision; its input "text" has no default, as runtimes would fold it.

    Args:
        file: The network, in float32.
        precision: "fp32"; "tf32", which is the same ONNX; "fp16", "bf16" or "int8".
        ranges: For int8: see `to_int8`.
    Raises:
        EngineFileError: The network computes in another type than float32, or its weights do not
            fit the precision.
    """
    with named(file):
        content, half = _source(file, precision, ranges), HALF_OF.get(precision)
        return drop_default(to_half(content, half) if half else content, "text")


def emulated(file: EngineFile, precision: str, ranges: Mapping[str, float] = NO_RANGES) -> bytes:
    """The ONNX in float32, with results rounded as the precision does it, for any machine.

    "tf32" is rounded as "fp16": it has as many digits, and rounds less often.

    Raises:
        EngineFileError: See `network_in`.
    """
    with named(file):
        content = _source(file, precision, ranges)
        half = "fp16" if precision == "tf32" else HALF_OF.get(precision)
        return emulate_half(content, half) if half else content


def _source(file: EngineFile, precision: str, ranges: Mapping[str, float]) -> bytes:
    content = file.payloads["model.onnx"]
    stored = read_metadata(content).get("precision", "fp32")
    if stored != "fp32":
        raise EngineFileError(
            f"the network computes in {stored}; expected fp32, of which fastbts makes the other "
            "precisions; export it again with: python -m training export"
        )
    return to_int8(content, ranges) if precision == "int8" else bytes(content)
