"""The ranges of activations that int8 needs: measured by NNCF, or taken from an earlier build."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from fastbts.engine.backends.arguments import Floats
from fastbts.engine.backends.openvino import INT8_PAYLOADS, OpenVINOEngine, activation_ranges
from fastbts.engine.file import EngineFile
from fastbts.errors import EngineFileError


def calibrated_ranges(file: EngineFile, tensors: Sequence[Floats]) -> dict[str, float]:
    """Name of a tensor -> largest absolute value: of a calibration on the tensors, as OpenVINO's
    int8 has it; without tensors, those of the file's own int8 plan or int8 network.

    Raises:
        OptionsError: There is nothing to calibrate on.
        DeviceError: NNCF is not installed.
        EngineFileError: The network or the file's ranges cannot be read.
    """
    recorded = {} if tensors else recorded_ranges(file)
    if recorded:
        return recorded
    if tensors or not set(INT8_PAYLOADS) <= set(file.payloads):
        built = OpenVINOEngine.build(file, "int8", tensors)
        quantized = {name: memoryview(content) for name, content in built.items()}
        file = replace(file, payloads={**file.payloads, **quantized})
    return activation_ranges(file)


def recorded_ranges(file: EngineFile) -> dict[str, float]:
    """The ranges in the record of the file's plan; {} if it has no int8 plan.

    Raises:
        EngineFileError: The record is damaged.
    """
    try:
        record = json.loads(bytes(file.payloads.get("engine.json", b"{}")))
        return {str(name): float(value) for name, value in record.get("ranges", {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise EngineFileError(
            f"{file.path}: the record of its plan (engine.json) has no usable ranges; calibrate "
            "again with --calibrate CASE"
        ) from error
