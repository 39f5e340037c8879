"""A model repository for Triton Inference Server from an engine file: `fastbts export-triton`.

Two models. NAME segments: images and affine in, labels and volumes out; Python backend, needs
fastbts in the server's Python. NAME_network is the network alone: normalised tensor in, logits out;
ONNX Runtime backend. `start.sh` starts a server on both. Layout and fields: Triton's "Model
Repository" and "Model Configuration" pages and model_config.proto.
"""

from __future__ import annotations

import re
from pathlib import Path

from fastbts.engine.file import EngineFile, read_engine_file
from fastbts.errors import OptionsError, OutputError
from fastbts.files import atomic_write
from fastbts.labels import label_names
from fastbts.spec import EngineSpec

KINDS = {"cpu": "KIND_CPU", "cuda": "KIND_GPU"}
MAX_BATCH = 4
"""Brain boxes of one size in a batch of the network; at 1 mm each needs about 0.7 GB."""
NAME = re.compile(r"[A-Za-z0-9_.-]+")
START = """\
#!/bin/sh
# Starts Triton on the models of this folder; takes the options of tritonserver.
# ONNX Runtime sends telemetry from its start on, unless the server's environment forbids it.
export ORT_DISABLE_TELEMETRY=1
exec tritonserver --model-repository="$(dirname "$0")" "$@"
"""


def export_triton(
    engine: str | Path,
    repository: str | Path,
    *,
    name: str = "fastbts",
    device: str = "cpu",
    instances: int = 1,
) -> list[Path]:
    """Writes a model repository.

    Args:
        engine: The engine file.
        repository: Folder for the two models and `start.sh`; created if needed. Has no model of
            either name yet.
        name: Name of the model that segments; the network is `<name>_network`.
        device: "cpu" or "cuda".
        instances: Copies of each model that run at once.
    Returns:
        The files written.
    Raises:
        EngineFileError: The engine cannot be read.
        OptionsError: An unknown device, an unusable name or number.
        OutputError: A model of that name exists, or a file cannot be written.
    """
    if device not in KINDS or not NAME.fullmatch(name) or instances < 1:
        raise OptionsError(
            f"device {device!r}, name {name!r}, {instances} instances: expected "
            f"{' or '.join(KINDS)}; letters, digits, _ . -; and at least 1"
        )
    file, network = read_engine_file(engine), f"{name}_network"
    folder = Path(repository)
    for model in (name, network):
        if (folder / model).exists():
            raise OutputError(f"{folder / model}: exists; choose another --name or remove it")
    contents = {
        f"{name}/config.pbtxt": _segmenter_config(file.spec, name, device, instances).encode(),
        f"{name}/1/model.py": Path(__file__).with_name("triton_model.py").read_bytes(),
        f"{name}/1/engine.fbts": Path(engine).read_bytes(),
        f"{network}/config.pbtxt": _network_config(file, network, device, instances).encode(),
        f"{network}/1/model.onnx": bytes(file.payloads["model.onnx"]),
    }
    contents["start.sh"] = START.encode()
    written = [_written(folder / path, content) for path, content in contents.items()]
    written[-1].chmod(0o755)
    return written


def _written(path: Path, content: bytes) -> Path:
    with atomic_write(path) as file:
        file.write(content)
    return path


def _segmenter_config(spec: EngineSpec, name: str, device: str, instances: int) -> str:
    """Warm-up is in `initialize`: Triton would send random images, which are refused."""
    channels, scheme = len(spec.modalities), label_names(spec.region_labels)
    named = ", ".join(f"{value} {name}" for name, value in scheme.items())
    labels = "as in brats2021" if spec.is_glioma else named
    return f'''# {", ".join(spec.modalities)} as (M, X, Y, Z); affine: voxel index to RAS+ mm.
# Labels: {labels}.
name: "{name}"
backend: "python"
max_batch_size: 0
input [
  {{ name: "images" data_type: TYPE_FP32 dims: [ {channels}, -1, -1, -1 ] }},
  {{ name: "affine" data_type: TYPE_FP64 dims: [ 4, 4 ] }}
]
output [
  {{ name: "labels" data_type: TYPE_UINT8 dims: [ -1, -1, -1 ] }},
  {{ name: "volumes_ml" data_type: TYPE_FP32 dims: [ {len(spec.regions)} ] }}
]
{_instances(device, instances)}'''


def _network_config(file: EngineFile, name: str, device: str, instances: int) -> str:
    spec = file.spec
    zeros = f"dims: [ {len(spec.modalities)}, {', '.join([str(spec.least_side)] * 3)} ]"
    return f'''# D, H, W: multiples of {spec.stride}, {spec.least_side} or more.
# Input: from fastbts.pipeline.normalize.
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {MAX_BATCH}
input [
  {{ name: "volume" data_type: TYPE_FP32 dims: [ {len(spec.modalities)}, -1, -1, -1 ] }}
]
output [
  {{ name: "logits" data_type: TYPE_FP32 dims: [ {len(spec.regions)}, -1, -1, -1 ] }}
]
dynamic_batching {{ }}
model_warmup [
  {{
    name: "zeros"
    batch_size: 1
    inputs {{ key: "volume" value: {{ data_type: TYPE_FP32 {zeros} zero_data: true }} }}
  }}
]
{_instances(device, instances)}'''


def _instances(device: str, count: int) -> str:
    return f"instance_group [ {{ count: {count} kind: {KINDS[device]} }} ]\n"
