"""Makes a kit: the network of an engine file in the forms that contenders load.

python -m benchmarks.peers.kit FOLDER [ENGINE] [INT8_ENGINE]
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields
from pathlib import Path

from benchmarks.peers.contender import Kit, Spec
from fastbts.engine.file import EngineFile, read_engine_file
from fastbts.engine.load import default_engine_path


def make_kit(folder: Path, engine: Path | None = None, int8_engine: Path | None = None) -> Kit:
    """Writes the network of an engine file into a folder, unless it is there already.

    Args:
        folder: For all kits; each is in a folder named by its engine's hash.
        engine: None for the shipped one.
        int8_engine: Where the int8 network is; None for in the engine file.
    """
    engine = default_engine_path() if engine is None else engine.resolve()
    file = read_engine_file(engine)
    kit = Kit(folder / file.sha256[:16], engine, (int8_engine or engine).resolve())
    if not (kit.folder / "kit.json").is_file():
        kit.folder.mkdir(parents=True, exist_ok=True)
        _write_onnx(file, kit.onnx)
        _write_weights(file, kit.weights)
        (kit.folder / "kit.json").write_text(json.dumps(_about(file), indent=1) + "\n")
    return kit


def gflop(kit: Kit, shape: tuple[int, int, int]) -> float:
    """GFLOP of the network's convolutions and matrix products; a multiply-add counts as two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from training.config import model_config
    from training.model import UNet3d

    network = UNet3d(model_config(kit.about["model"], str(kit.engine))).eval().to("meta")
    with FlopCounterMode(display=False) as counter:  # with gradients: it looks at their graph
        network(torch.empty((1, 4, *shape), device="meta"))
    return float(counter.get_total_flops()) / 1e9


def _about(file: EngineFile) -> dict[str, object]:
    spec = asdict(file.spec)
    return {
        "engine": file.spec.name,
        "sha256": file.sha256,
        "model": file.manifest["training"]["recipe"]["model"],
        "spec": {field.name: spec[field.name] for field in fields(Spec)},
    }


def _write_onnx(file: EngineFile, path: Path) -> None:
    """With the bodies of our own nodes written out, as OpenVINO reads no model-local functions.

    The text has a default, so it is a constant.
    """
    import onnx
    from onnx.inliner import inline_local_functions

    network = inline_local_functions(onnx.load_from_string(bytes(file.payloads["model.onnx"])))
    for given in [given for given in network.graph.input if given.name == "text"]:
        network.graph.input.remove(given)
    onnx.save(network, path)


def _write_weights(file: EngineFile, path: Path) -> None:
    import torch

    from training.config import model_config
    from training.model import UNet3d
    from training.start import begin_from

    model = file.manifest["training"]["recipe"]["model"]
    network = UNet3d(model_config(model, file.path)).eval()
    begin_from(network, Path(file.path))
    torch.save(network.state_dict(), path)


if __name__ == "__main__":
    print(make_kit(*map(Path, sys.argv[1:])).folder)
