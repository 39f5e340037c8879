"""Exports a checkpoint as an engine file: `python -m training export CHECKPOINT -o ENGINE.fbts`."""

from __future__ import annotations

import dataclasses
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import torch
import typer
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

import fastbts
from fastbts import EngineSpec, OptionsError
from fastbts.engine.backends.openvino import OpenVINOEngine
from fastbts.engine.file import read_engine_file, write_engine_file
from fastbts.pipeline.normalize import normalize
from training.config import Recipe
from training.data.cases import engine_spec, read_images
from training.loop.checkpoint import averaged_weights, load_checkpoint
from training.model import UNet3d
from training.onnx_nodes import OPSET, add_bodies, translations, with_nodes, with_standard_norms

LARGE = 1024
"""Weights of at least this many numbers are stored as float16."""


def trained_network(recipe: Recipe, state: dict[str, Any]) -> UNet3d:
    """The checkpoint's averaged network, with weights rounded to float16 as they will be stored."""
    network = UNet3d(recipe.model).eval()
    network.load_state_dict(averaged_weights(state))
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.half().float())
    return network


def to_onnx(network: UNet3d, spec: EngineSpec) -> onnx.ModelProto:
    """Exports with dynamic batch and spatial sizes, which are multiples of the stride.

    It computes in float32; `fastbts build` makes other precisions of it. Bridge, attention and the
    head's product become nodes of the domain `fastbts`; they and the norms have bodies of standard
    operations (`onnx_nodes.py`). A network with text has a second input, "text" (K, T), whose
    default is the network's own table.

    Args:
        network: In eval mode.
        spec: Also stored in the file's metadata, as JSON.
    """
    text = network.get_buffer("text") if network.config.semantic.uses_text else None
    model = _traced(network, spec, text)
    if text is not None:
        # An initializer of an input's name is that input's default (ONNX IR, "Graphs").
        model.graph.initializer.append(numpy_helper.from_array(text.numpy(), "text"))
    _forget_origin(model)
    with_standard_norms(model)
    add_bodies(model)
    about = {"name": spec.name, "version": fastbts.__version__, "precision": "fp32"}
    helper.set_model_props(model, {**about, "spec": json.dumps(dataclasses.asdict(spec))})
    onnx.checker.check_model(model, full_check=True)
    return model


def _traced(network: UNet3d, spec: EngineSpec, text: Tensor | None) -> onnx.ModelProto:
    """The graph as torch exports it."""
    size = (2 * spec.stride, 3 * spec.stride, 4 * spec.stride)
    volume = torch.zeros(2, len(spec.modalities), *size)
    batch = torch.export.Dim("b", min=1, max=16)
    axes = {i: spec.stride * torch.export.Dim(n, min=1, max=64) for i, n in enumerate("dhw", 2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            with_nodes(network),
            (volume,) if text is None else (volume, text.clone()),
            input_names=["volume"] if text is None else ["volume", "text"],
            output_names=["logits"],
            dynamic_shapes=({0: batch, **axes}, *([] if text is None else [{}])),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=translations(),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _forget_origin(model: onnx.ModelProto) -> None:
    """Drops the exporter's stack traces and scopes: they contain paths of this machine."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    for part in (model, graph, *graph.node, *values):
        del part.metadata_props[:]
        part.doc_string = ""


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Stores large float32 weights as float16 with a Cast: half the file, the same network.

    Biases and scalars stay float32: they are small, and some are constants such as sqrt(512). The
    default of an input stays too, as it has the type that a caller would give.
    """
    casts, inputs = [], {i.name for i in model.graph.input}
    for weight in model.graph.initializer:
        is_large = weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= LARGE
        if not is_large or weight.name in inputs:
            continue
        name, values = weight.name, numpy_helper.to_array(weight)
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_f16"))
        casts.append(
            helper.make_node("Cast", [f"{name}_f16"], [name], f"{name}_cast", to=TensorProto.FLOAT)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    # Not every tool updates these after the rewrite; they are optional.
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def measure_parity(
    engine_path: Path, network: UNet3d, tensor: NDArray[np.float32]
) -> dict[str, float]:
    """Compares the engine in float32 with PyTorch on a tensor (B, M, D, H, W).

    Returns:
        "max_logit_difference", "largest_logit", and "label_agreement", the share of equal labels.
    """
    logits = OpenVINOEngine(read_engine_file(engine_path), precision="fp32").infer(tensor)
    with torch.inference_mode():
        exact = network(torch.from_numpy(tensor)).numpy()
    return {
        "max_logit_difference": float(np.abs(logits - exact).max()),
        "largest_logit": float(np.abs(exact).max()),
        "label_agreement": float(((logits > 0) == (exact > 0)).mean()),
    }


def parity_input(case: Path | None, spec: EngineSpec) -> NDArray[np.float32]:
    """What parity is measured on, (1, M, D, H, W): a prepared case, or noise without one.

    Raises:
        FastBTSError: The case cannot be read.
    """
    if case is None:
        shape = (1, len(spec.modalities), *(4 * spec.stride,) * 3)
        return np.random.default_rng(0).standard_normal(shape, np.float32)
    return normalize(read_images(case, spec.modalities), spec).tensor[None]


def optional_modalities(recipe: Recipe) -> tuple[str, ...]:
    """All modalities if training sometimes hid them, else none."""
    semantic = recipe.model.semantic
    return recipe.modalities if semantic.fusion and semantic.modality_dropout > 0 else ()


def training_record(
    checkpoint: Path, recipe: Recipe, state: dict[str, Any], note: str
) -> dict[str, Any]:
    """The manifest's record of the training.

    Returns:
        "recipe", "steps", "loss_per_100_steps" (means, from the run's log), "teacher", "torch" (its
        version), "note".
    """
    log = checkpoint.parent / "log.jsonl"
    return {
        "recipe": dataclasses.asdict(recipe),
        "steps": state["step"],
        "loss_per_100_steps": _mean_losses(log, state["step"]) if log.is_file() else [],
        "teacher": state.get("teacher"),
        "torch": torch.__version__,
        "note": note,
    }


def _mean_losses(log: Path, last_step: int) -> list[float]:
    """Mean loss of each 100 steps up to the last one; of a repeated step, the last loss."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if line["step"] <= last_step}
    curve = [
        np.mean([losses[s] for s in range(a + 1, a + 101) if s in losses] or [np.nan])
        for a in range(0, len(losses), 100)
    ]
    return [round(float(loss), 4) for loss in curve if np.isfinite(loss)]


def export(
    checkpoint: Path,
    target: Path,
    *,
    note: str = "",
    spec: dict[str, Any] | None = None,
    case: Path | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Writes the engine file with its training record and measured parity; returns the parity.

    Args:
        checkpoint: Of `training train`.
        target: The engine file.
        note: Anything about the training that the recipe does not tell.
        spec: Fields of `EngineSpec` that were chosen after training, such as `name`.
        case: Folder of the case on which parity with PyTorch is measured; None for noise.
        **about: For the manifest: license, data.
    Raises:
        OptionsError: The network reads CLIP's patch tokens, which no engine computes.
    """
    recipe, state = load_checkpoint(checkpoint)
    if recipe.model.semantic.token_width:
        raise OptionsError(
            f"{checkpoint}: its bridge reads CLIP's patch tokens, which no engine computes; "
            "to export, train without model.semantic.token_width"
        )
    network, optional = trained_network(recipe, state), optional_modalities(recipe)
    final = replace(engine_spec(recipe), optional_modalities=optional, **spec or {})
    payloads = {"model.onnx": halve_weights(to_onnx(network, final)).SerializeToString()}
    if state.get("prompts"):
        about["prompts"] = state["prompts"]
    about["training"] = training_record(checkpoint, recipe, state, note)
    write_engine_file(target, final, payloads, **about)
    measured = measure_parity(target, network, parity_input(case, final))
    parity = {"input": case.name if case else "noise", **measured}
    write_engine_file(target, final, payloads, **about, parity=parity)
    return parity


def command(
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint of `training train`")],
    out: Annotated[Path, typer.Option("--out", "-o", help="engine file to write")],
    licence: Annotated[
        str, typer.Option("--license", help="terms of the weights, for the manifest")
    ] = "not stated",
    data: Annotated[
        str, typer.Option(help="what the network was trained on, for the manifest")
    ] = "",
    note: Annotated[
        str, typer.Option(help="anything about the training that the recipe does not tell")
    ] = "",
    name: Annotated[
        str, typer.Option(help="name of the engine; default: fastbts- and the recipe's name")
    ] = "",
    case: Annotated[
        Path | None, typer.Option(help="case to measure parity with PyTorch on; default: noise")
    ] = None,
) -> None:
    """Write the network of a checkpoint as an engine file."""
    spec, about = {"name": name} if name else {}, {"license": licence, "data": data}
    parity = export(checkpoint, out, note=note, spec=spec, case=case, **about)
    size_mb = out.stat().st_size / 1e6
    typer.echo(f"{out}: {size_mb:.1f} MB; parity with PyTorch float32: {parity}")
