"""Packs voxels into channels, and logits back into voxels, by our own ops around the network.

OpenVINO takes a sixth of the network's time in bf16, and a third in int8, for the transposes and
reorders of both ends, the pixel fusion and the quantisation of the input. The ops take a fifth of
that (Intel Xeon with AMX, two cores).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.engine.backends import native_plan
from fastbts.engine.backends.arguments import Floats
from fastbts.engine.backends.native_reader import read_packing
from fastbts.engine.file import EngineFile
from fastbts.ops import Packing
from fastbts.ops import network as ops

PACKED, STEP = "packed", "step "
"""Names of the packed input: compiled networks keep them, also in a cache. In int8 a second name
tells what 1 stands for."""


def without_packing(ov: Any, network: Any, file: EngineFile, kind: str) -> Any:
    """The network from the first convolution to the packed logits.

    Args:
        ov: The module `openvino`.
        network: An `openvino.Model` of the file, for one case; it is changed.
        file: Its ONNX says how it packs.
        kind: Type of both ends: "f32", or "bf16" where the network computes in it.
    Returns:
        From (1, M p^3, D, H, W), which may be int8, and the text if the network reads it, to
        (1, K p^3, D, H, W); the network as it was if it packs no voxels, or in a way unknown to us.
    """
    from openvino import opset13

    packing = read_packing(file.payloads["model.onnx"], file.path)
    ends = None if packing is None else _ends(network, packing)
    if packing is None or ends is None:
        return network
    (entry, step), logits = _quantized(ends[0]), ends[1]
    volume, *others = network.get_parameters()
    entry_kind = getattr(ov.Type, "i8" if step else kind)
    packed = opset13.parameter(entry.partial_shape, entry_kind, name=PACKED)
    packed.output(0).set_names({PACKED, *([f"{STEP}{step!r}"] if step else [])})
    _replace_shape(volume, packed, packing.patch)
    floats = opset13.convert(packed, "f32")
    entry.replace((opset13.multiply(floats, np.float32(step)) if step else floats).output(0))
    result = opset13.result(opset13.convert(logits, kind))
    return ov.Model([result], [packed, *others], network.friendly_name)


def packing_of(model: Any, file: EngineFile) -> Packing | None:
    """How a compiled network wants its tensor; None for one that packs itself."""
    names = model.inputs[0].names
    packs = read_packing(file.payloads["model.onnx"], file.path) if PACKED in names else None
    if packs is None:
        return None
    steps = [float(name.removeprefix(STEP)) for name in names if name.startswith(STEP)]
    fusion: dict[str, Any] = {}
    if packs.fusion is not None:
        gate, background = packs.fusion.gate, packs.fusion.background
        arrays = {"gate": gate.weight, "gate_bias": gate.bias, "background": background}
        fusion = {name: np.ascontiguousarray(a) for name, a in arrays.items()}
    tensor, logits = _dtype(model.inputs[0]), _dtype(model.outputs[0])
    return Packing(packs.patch, tensor, logits, steps[0] if steps else 1.0, fusion)


def _dtype(end: Any) -> np.dtype[Any]:
    """NumPy has no bfloat16: uint16 has its bits."""
    kind = end.element_type
    return np.dtype(np.uint16 if kind.get_type_name() == "bf16" else kind.to_dtype())


def _ends(network: Any, packing: native_plan.Packing) -> tuple[Any, Any] | None:
    """The tensors of the packing; None if the network lacks them."""
    tensors = {name: end for op in network.get_ops() for end in op.outputs() for name in end.names}
    entry, logits = tensors.get(packing.entry), tensors.get(packing.logits)
    if entry is None or logits is None:
        return None
    pairs = (network.inputs[0], entry), (network.outputs[0], logits)
    return (entry, logits) if all(_fit(*pair, packing.patch) for pair in pairs) else None


def _quantized(entry: Any) -> tuple[Any, float]:
    """A tensor in int8 and its step, where it is only read so; else the tensor as it is, and 0."""
    readers = [reader.get_node() for reader in entry.get_target_inputs()]
    if [reader.get_type_name() for reader in readers] != ["FakeQuantize"]:
        return entry, 0.0
    (node,) = readers
    ends = [value.get_node() for value in node.input_values()[1:]]
    low, high, *out = (end.get_data().item() if _is_number(end) else np.nan for end in ends)
    is_symmetric = high > 0 and abs(low / high + 128 / 127) < 1e-5
    is_int8 = is_symmetric and out == [low, high] and node.get_attributes()["levels"] == 256
    return (node.output(0), high / 127) if is_int8 else (entry, 0.0)


def _is_number(node: Any) -> bool:
    return node.get_type_name() == "Constant" and node.get_data().size == 1


def _fit(plain: Any, channels: Any, patch: int) -> bool:
    """Whether a tensor has the channels of the voxels of another one, for one case."""
    one, n_channels, *_ = channels.partial_shape
    n = plain.partial_shape[1]
    fixed = one == 1 and n_channels.is_static and n.is_static
    return bool(fixed and n_channels.get_length() == n.get_length() * patch**3)


def _replace_shape(volume: Any, packed: Any, patch: int) -> None:
    """Lets whatever reads the volume's shape compute it from that of the packed volume."""
    from openvino import opset13

    for reader in volume.output(0).get_target_inputs():
        node = reader.get_node()
        if node.get_type_name() == "ShapeOf":
            kind = node.get_output_element_type(0)
            n = np.array([1, patch**3, 1, 1, 1], kind.to_dtype())
            shape = opset13.divide(opset13.shape_of(packed, kind.to_string()), n)
            n = np.array([1, 1, patch, patch, patch], kind.to_dtype())
            node.output(0).replace(opset13.multiply(shape, n).output(0))


def packed(packing: Packing, volume: Floats, n_threads: int) -> NDArray[Any]:
    """A volume (M, D, H, W) as the network reads it."""
    n_m, *size = volume.shape
    out = np.empty(packing.shape(n_m, tuple(size)), packing.dtype)
    ops.pack(
        volume[None],
        packing.patch,
        **packing.fusion,
        step=packing.step,
        out=np.moveaxis(out, 0, -1)[None],
        scratch=np.empty((2, 1, n_m), np.float32) if packing.fusion else None,
        n_threads=n_threads,
    )
    return out


def as_tensor(ov: Any, packed: NDArray[Any]) -> Any:
    """OpenVINO's tensor (1, C, D, H, W) in the memory of a packed array (C, D, H, W)."""
    if packed.dtype == np.uint16:
        return ov.Tensor(packed[None], ov.Shape([1, *packed.shape]), ov.Type.bf16)
    return ov.Tensor(packed[None], shared_memory=True)
