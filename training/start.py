"""First weights of a new run: from a checkpoint or an engine file."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from fastbts.engine.file import EngineFile, read_engine_file
from fastbts.pipeline.normalize import padded_size
from training.config import model_config
from training.data.augment import cut
from training.data.cases import TrainingCase
from training.export import to_onnx
from training.loop.checkpoint import CheckpointError, averaged_weights, load_checkpoint
from training.model import UNet3d

Array = NDArray[Any]

FIRST, END = 40, 2**24
"""Range of the numbers for weights: above the graph's constants; all exact in float32."""
Node = tuple[str, list[Array | None]]
"""A node's type, and its inputs: a float weight or constant, or None for a computed one."""
TRAINING_ONLY = ("side_heads.", "bridge.teacher.")
"""Modules that are not exported."""
N_STATISTICS = 24
"""Cases over which `measure_statistics` averages."""


def begin_from(network: UNet3d, path: Path) -> list[str]:
    """Gives a new network the weights of another run; others keep their initial values.

    Args:
        network: Changed in place.
        path: A checkpoint, of which the average is used, or an engine file (.fbts).
    Returns:
        Names of the weights that are not in the file.
    Raises:
        CheckpointError: The file has weights that the network lacks, or of another shape.
    """
    is_engine = path.suffix == ".fbts"
    weights = engine_weights(path) if is_engine else averaged_weights(load_checkpoint(path)[1])
    own = network.state_dict()
    unknown = [n for n, w in weights.items() if n not in own or own[n].shape != w.shape]
    if unknown:
        raise CheckpointError(
            f"{path}: has weights that the recipe's network lacks or has in another shape: "
            f"{', '.join(unknown)}; expected a start with the recipe's model, or part of it"
        )
    network.load_state_dict(own | weights)
    return [name for name in own if name not in weights]


def measure_statistics(network: UNet3d, cases: Sequence[TrainingCase]) -> None:
    """Sets the statistics of BatchNorm to the means over whole training cases.

    Meanwhile each case is normalised by its own statistics, as by InstanceNorm. So the result suits
    weights that were trained with InstanceNorm.

    Args:
        network: Changed in place.
        cases: Up to `N_STATISTICS` of them are used.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.training, norm.momentum = True, None  # None: the plain mean over all calls
    for case in cases[:: -(-len(cases) // N_STATISTICS)]:
        with torch.no_grad():
            network(padded(case, network.config.stride))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(was_training)


def padded(case: TrainingCase, stride: int) -> Tensor:
    """All of a case, zero-padded to a size that a network with this stride takes, as at inference:
    (1, M, D, H, W)."""
    d, h, w = case.label.shape
    size = padded_size((d, h, w), stride)
    start = -((np.array(size) - case.label.shape) // 2)
    return torch.from_numpy(cut(case.image, case.label, start, size)[0][None])


def engine_weights(path: Path) -> dict[str, Tensor]:
    """Reads a network's weights and text table from an engine file.

    The exporter renames, transposes and repeats some weights, and takes the exponent of one. To see
    where each weight went, the same network is exported again with its weights numbered.

    Args:
        path: An engine file of `training export`.
    Returns:
        A state dict without the modules that only training uses.
    Raises:
        CheckpointError: The file has no training record, or another graph than is exported now.
    """
    file = read_engine_file(path)
    if "training" not in file.manifest:
        raise CheckpointError(f"{path}: no training record; expected an engine of training export")
    network = UNet3d(model_config(file.manifest["training"]["recipe"]["model"], str(path))).eval()
    state = {name: w for name, w in network.state_dict().items() if w.is_floating_point()}
    model = onnx.load_from_string(bytes(file.payloads["model.onnx"]))
    weights = {"text": torch.from_numpy(_constants(model)["text"])} if "text" in state else {}
    # Small ones first: the exponent of a small number is finite.
    names = sorted(state.keys() - {"text"}, key=lambda name: state[name].numel())
    sizes = [state[name].numel() for name in names]
    values = _values(_nodes(model), _numbered(network, names, file), FIRST + sum(sizes), path)
    for name, flat in zip(names, np.split(values[FIRST:], np.cumsum(sizes)[:-1]), strict=True):
        if not name.startswith(TRAINING_ONLY):
            weights[name] = torch.from_numpy(flat.copy()).reshape(state[name].shape)
    lost = [name for name, weight in weights.items() if weight.isnan().any()]
    if lost:
        raise _other_graph(path, f"weights that are not in it: {', '.join(lost)}")
    return weights


def _numbered(network: UNet3d, names: list[str], file: EngineFile) -> list[Node]:
    """Nodes of an export of the network whose weights are FIRST, FIRST + 1, ... by `names`."""
    network, begin = copy.deepcopy(network), FIRST
    state = network.state_dict()
    for name in names:
        end = begin + state[name].numel()
        state[name] = torch.arange(begin, end, dtype=torch.float32).reshape(state[name].shape)
        begin = end
    if begin >= END:
        raise CheckpointError(
            f"{file.path}: {begin} weights, expected fewer than {END}; start from its checkpoint"
        )
    network.load_state_dict(state)
    return _nodes(to_onnx(network, file.spec))


def _values(stored: list[Node], numbered: list[Node], end: int, path: Path) -> Array:
    """The stored value of each number below `end`; NaN for a number that is not in the graph."""
    if [kind for kind, _ in stored] != [kind for kind, _ in numbered]:
        raise _other_graph(path, f"{len(stored)} nodes, expected these {len(numbered)}")
    values = np.full(end, np.nan, np.float32)
    for (kind, contents), (_, all_numbers) in zip(stored, numbered, strict=True):
        for content, numbers in zip(_with_zeros(contents, all_numbers), all_numbers, strict=True):
            if numbers is None:
                continue
            if content is None or content.shape != numbers.shape:
                raise _other_graph(path, f"a node {kind} without weights of shape {numbers.shape}")
            _sort(values, content, numbers)
    return values


def _with_zeros(contents: list[Array | None], like: list[Array | None]) -> list[Array | None]:
    """The inputs of a node, and the bias that the exporter leaves out where it is zero."""
    zeros = [None if numbers is None else np.zeros_like(numbers) for numbers in like]
    return contents + zeros[len(contents) :]


def _sort(values: Array, content: Array, numbers: Array) -> None:
    """Puts the weights of one input at the places that their numbers give."""
    if numbers.size == 1 and numbers >= len(values):  # the exponent of a scalar
        numbers, content = np.round(np.log(numbers)), np.log(content)
    number = numbers.astype(np.int64)
    known = (number == numbers) & (number >= FIRST) & (number < len(values))
    values[number[known]] = content[known]


def _other_graph(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {what}; its graph is not what this version exports; start from its checkpoint"
    )


def _nodes(model: onnx.ModelProto) -> list[Node]:
    """The graph's nodes in order, without those that only widen a weight stored as float16."""
    constants = _constants(model)
    nodes = [node for node in model.graph.node if node.output[0] not in constants]
    return [(node.op_type, [constants.get(name) for name in node.input]) for node in nodes]


def _constants(model: onnx.ModelProto) -> dict[str, Array]:
    """Float weights and constants as float32, by the name that nodes read them under."""
    arrays = {
        t.name.removesuffix("_f16"): numpy_helper.to_array(t) for t in model.graph.initializer
    }
    floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
    return {name: array.astype(np.float32) for name, array in floats.items()}
