"""Exports a checkpoint as an engine file: `python -m training.export CHECKPOINT -o ENGINE.fbts`."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import fastbts
from fastbts import MODALITIES, EngineSpec, OptionsError, read_case
from fastbts.engine.backends.openvino import OpenVINOEngine
from fastbts.engine.file import read_engine_file, write_engine_file
from fastbts.pipeline.normalize import normalize
from training.config import Recipe
from training.data.cases import engine_spec
from training.loop.checkpoint import averaged_weights, load_checkpoint
from training.model import UNet3d
from training.onnx_nodes import OPSET, add_bodies, translations, with_nodes, with_standard_norms

PRECISIONS = ("fp32", "fp16")
LARGE = 1024
"""Weights of at least this many numbers are stored as float16."""


class Half(nn.Module):
    """A network in float16 between float32 ends, for devices that take their precision from the ONNX (TensorRT)."""

    def __init__(self, network: UNet3d) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, volume: Tensor, text: Tensor | None = None) -> Tensor:
        """As `UNet3d.forward` in eval mode."""
        logits: Tensor = self.network(volume.half(), None if text is None else text.half())
        return logits.float()


def trained_network(recipe: Recipe, state: dict[str, Any]) -> UNet3d:
    """The checkpoint's averaged network, weights rounded to float16, as the large ones will be stored."""
    network = UNet3d(recipe.model).eval()
    network.load_state_dict(averaged_weights(state))
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.half().float())
    return network


def to_onnx(network: UNet3d, spec: EngineSpec, precision: str = "fp32") -> onnx.ModelProto:
    """Exports with dynamic batch and spatial sizes (multiples of the stride); inputs and logits are float32 in any precision.

    Bridge, attention and the head's product become nodes of the domain `fastbts`; they and the norms bring their bodies along
    (`onnx_nodes.py`). A network that reads text gets a second input, "text" (K, T), whose default is the network's own table.

    Args:
        network: In eval mode.
        spec: Also goes into the file's metadata, as JSON.
        precision: What the graph computes in, "fp32" or "fp16".
    """
    text = network.get_buffer("text") if network.config.semantic.uses_text else None
    sample = torch.zeros(
        2, len(spec.modalities), *(2 * spec.stride, 3 * spec.stride, 4 * spec.stride)
    )
    sizes = {
        axis: spec.stride * torch.export.Dim(name, min=1, max=64)
        for axis, name in ((2, "d"), (3, "h"), (4, "w"))
    }
    exported = Half(with_nodes(network)) if precision == "fp16" else with_nodes(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            exported, (sample,) if text is None else (sample, text.clone()), dynamo=True, opset_version=OPSET,
            input_names=["volume", "text"][: 1 if text is None else 2], output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("b", min=1, max=16), **sizes}, *([] if text is None else [{}])), verbose=False,
            custom_translation_table=translations(),
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    if text is not None:
        # An initializer of an input's name is that input's default (ONNX IR, "Graphs").
        model.graph.initializer.append(numpy_helper.from_array(text.numpy(), "text"))
    _forget_origin(model)
    with_standard_norms(model)
    add_bodies(model)
    about = {"name": spec.name, "version": fastbts.__version__, "precision": precision}
    helper.set_model_props(model, {**about, "spec": json.dumps(dataclasses.asdict(spec))})
    onnx.checker.check_model(model, full_check=True)
    return model


def _forget_origin(model: onnx.ModelProto) -> None:
    """Drops the exporter's stack traces and scopes: they hold paths of the machine that exported."""
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.initializer,
        *graph.value_info,
    ):
        del part.metadata_props[:]
        part.doc_string = ""


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Stores large float32 weights as float16 with a Cast behind them: half the file, the same float32 network.

    Biases and scalars stay: they weigh nothing, and among them are constants such as sqrt(512), which are not weights at all.
    """
    casts, inputs = [], {i.name for i in model.graph.input}
    for weight in model.graph.initializer:
        small = np.prod(weight.dims) < LARGE
        if (
            weight.data_type != TensorProto.FLOAT or small or weight.name in inputs
        ):  # a default stays what a caller would give
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
    """Largest logit difference and label agreement between the engine in float32 and PyTorch on (B, M, D, H, W)."""
    logits = OpenVINOEngine(read_engine_file(engine_path), precision="fp32").infer(tensor)
    with torch.inference_mode():
        exact = network(torch.from_numpy(tensor)).numpy()
    return {
        "max_logit_difference": float(np.abs(logits - exact).max()),
        "largest_logit": float(np.abs(exact).max()),
        "label_agreement": float(((logits > 0) == (exact > 0)).mean()),
    }


def parity_input(case: Path | None, spec: EngineSpec) -> NDArray[np.float32]:
    """What parity is measured on, (1, M, D, H, W): a prepared case, or noise where there is none.

    Raises:
        FastBTSError: The case cannot be read.
    """
    if case is None:
        return np.random.default_rng(0).standard_normal(
            (1, len(spec.modalities), *(4 * spec.stride,) * 3), np.float32
        )
    return normalize(read_case(case), spec).tensor[None]


def optional_modalities(recipe: Recipe) -> tuple[str, ...]:
    """All modalities where training hid them at times, else none."""
    semantic = recipe.model.semantic
    return MODALITIES if semantic.fusion and semantic.modality_dropout > 0 else ()


def training_record(
    checkpoint: Path, recipe: Recipe, state: dict[str, Any], note: str
) -> dict[str, Any]:
    """What the manifest tells about training: recipe, steps, mean loss per 100 steps (from the run's log), note."""
    log = checkpoint.parent / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    losses = {
        line["step"]: line["loss"] for line in lines if line["step"] <= state["step"]
    }  # repeated steps: the last counts
    curve = [
        np.mean([losses[s] for s in range(a + 1, a + 101) if s in losses] or [np.nan])
        for a in range(0, len(losses), 100)
    ]
    return {
        "recipe": dataclasses.asdict(recipe),
        "steps": state["step"],
        "loss_per_100_steps": [round(float(loss), 4) for loss in curve if np.isfinite(loss)],
        "teacher": state.get("teacher"),
        "torch": torch.__version__,
        "note": note,
    }


def export(
    checkpoint: Path,
    target: Path,
    *,
    note: str = "",
    spec: dict[str, Any] | None = None,
    precision: str = "fp32",
    case: Path | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Writes the engine file with its training record and measured parity; returns the parity.

    Args:
        checkpoint: From `training.train`.
        target: The engine file.
        note: Anything about the training that the recipe does not tell.
        spec: Fields of `EngineSpec` that were chosen after training, such as `name`.
        precision: What the ONNX computes in, "fp32" or "fp16".
        case: Folder of the case on which parity with PyTorch is measured; None for noise.
        **about: For the manifest: license, data.
    Raises:
        OptionsError: The network reads CLIP's patch tokens, which no engine computes.
    """
    recipe, state = load_checkpoint(checkpoint)
    if recipe.model.semantic.token_width:
        raise OptionsError(
            f"{checkpoint}: its bridge reads CLIP's patch tokens; train without model.semantic.token_width to export"
        )
    network = trained_network(recipe, state)
    final = replace(
        engine_spec(recipe), optional_modalities=optional_modalities(recipe), **spec or {}
    )
    payloads = {"model.onnx": halve_weights(to_onnx(network, final, precision)).SerializeToString()}
    if state.get("prompts"):
        about["prompts"] = state["prompts"]
    about["training"] = training_record(checkpoint, recipe, state, note)
    write_engine_file(target, final, payloads, **about)
    parity = {
        "input": case.name if case else "noise",
        **measure_parity(target, network, parity_input(case, final)),
    }
    write_engine_file(target, final, payloads, **about, parity=parity)
    return parity


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="engine file to write")
    parser.add_argument(
        "--license", default="Apache-2.0", help="terms of the weights, for the manifest"
    )
    parser.add_argument("--data", default="", help="what it was trained on, for the manifest")
    parser.add_argument(
        "--note", default="", help="anything about the training that the recipe does not tell"
    )
    parser.add_argument(
        "--name", help="name of the engine; default: fastbts- and the recipe's name"
    )
    parser.add_argument(
        "--case",
        type=Path,
        help="folder of a case to measure parity with PyTorch on; default: noise",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="what the ONNX computes in; fp16 is for TensorRT",
    )
    args = parser.parse_args()
    chosen = {"name": args.name} if args.name else {}
    about = {"license": args.license, "data": args.data}
    parity = export(
        args.checkpoint,
        args.out,
        note=args.note,
        spec=chosen,
        precision=args.precision,
        case=args.case,
        **about,
    )
    print(
        f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB; parity with PyTorch float32: {parity}"
    )


if __name__ == "__main__":
    main()
