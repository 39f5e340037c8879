"""What cheaper networks would take: `python -m benchmarks.variants`.

Exports untrained variants of the shipped network, in fp32 and int8, and times them in turns on
noise: the time does not depend on the weights. Dice needs training, see `training/README.md`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastbts import DeviceError, EngineSpec
from fastbts.engine.backends.openvino import OpenVINOEngine
from fastbts.engine.file import read_engine_file, write_engine_file
from fastbts.engine.load import read_engine
from fastbts.ops import Size
from training.config import model_config
from training.export import to_onnx
from training.model import UNet3d, UNetConfig
from training.model.blocks import ConvBlock

PRECISIONS = ("fp32", "bf16", "int8")
CALIBRATION = (64, 64, 64)
"""Voxels of the noise that int8 is calibrated on."""


class Added(UNet3d):
    """Adds a skip to the up-sampled features instead of joining their channels."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.decoder = nn.ModuleList(ConvBlock(n, n, norm=config.norm) for n in finer(config))

    def _joined(self, x: Tensor, skip: Tensor) -> Tensor:
        return x + skip


class Reduced(UNet3d):
    """A convolution 1^3 halves the joined channels before each decoder block."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.decoder = nn.ModuleList(ReducedBlock(n, config.norm) for n in finer(config))


class ReducedBlock(nn.Module):
    """A convolution 1^3 from 2 n to n channels, then a block."""

    def __init__(self, n: int, norm: str) -> None:
        super().__init__()
        self.reduce, self.block = nn.Conv3d(2 * n, n, 1), ConvBlock(n, n, norm=norm)

    def forward(self, x: Tensor, film: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, 2 n, D, H, W) -> (B, n, D, H, W)."""
        features: Tensor = self.block(self.reduce(x), film=film)
        return features


class OneFinest(UNet3d):
    """One convolution less at the decoder's finest level."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.decoder[-1] = FirstUnit(2 * config.widths[0], config.widths[0], norm=config.norm)


class FirstUnit(ConvBlock):
    """The first unit of a block."""

    def forward(self, x: Tensor, film: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, n_in, D, H, W) -> (B, n_out, D, H, W)."""
        conv, norm, act, *_ = self
        features: Tensor = act(norm(conv(x)))
        return features


def finer(config: UNetConfig) -> tuple[int, ...]:
    """Channels of the decoder's levels, coarsest first."""
    return config.widths[-2::-1]


def narrow(n: int) -> Callable[[UNetConfig], UNet3d]:
    """The network with n channels at the finest level."""
    return lambda config: UNet3d(replace(config, widths=(n, *config.widths[1:])))


VARIANTS: dict[str, Callable[[UNetConfig], UNet3d]] = {
    "shipped": UNet3d,
    "skips added": Added,
    "joined, then 1^3": Reduced,
    "one convolution less": OneFinest,
    "finest 24": narrow(24),
    "finest 16": narrow(16),
}


def export(folder: Path, config: UNetConfig, spec: EngineSpec, names: list[str]) -> None:
    """Writes the variants as engine files, unless they are there."""
    for name in names:
        path = path_of(folder, name)
        if path.is_file():
            continue
        torch.manual_seed(0)
        onnx = to_onnx(VARIANTS[name](config).eval(), spec).SerializeToString()
        write_engine_file(path, spec, {"model.onnx": onnx})
        file = read_engine_file(path)
        noise = np.random.default_rng(0).standard_normal(
            (len(spec.modalities), *CALIBRATION), np.float32
        )
        int8 = OpenVINOEngine.build(file, "int8", [noise])
        write_engine_file(path, spec, {"model.onnx": onnx, **int8})


def path_of(folder: Path, name: str) -> Path:
    """File of a variant."""
    return folder / (name.replace(" ", "-").replace(",", "").replace("^", "") + ".fbts")


def measure(folder: Path, names: list[str], size: Size, rounds: int) -> dict[str, dict[str, float]]:
    """Median ms of each variant in each precision of this CPU, in turns."""
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    files = {name: read_engine_file(path_of(folder, name)) for name in names}
    for precision in PRECISIONS:
        try:
            engines = {n: OpenVINOEngine(f, precision=precision) for n, f in files.items()}
        except DeviceError as error:
            print(f"{precision}: not measured: {error}")
            continue
        for name, ms in times(engines, size, rounds).items():
            found[name][precision] = ms
    return found


def times(engines: dict[str, OpenVINOEngine], size: Size, rounds: int) -> dict[str, float]:
    """Median ms of each engine."""
    n_modalities = len(next(iter(engines.values())).spec.modalities)
    tensor = np.random.default_rng(0).standard_normal((1, n_modalities, *size), np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds + 1):  # the first one is the warm-up
        for name, engine in engines.items():
            began = time.perf_counter()
            engine.infer(tensor)
            seconds[name].append(time.perf_counter() - began)
    return {name: round(1000 * median(values[1:]), 1) for name, values in seconds.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keeps the exported variants")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--shape", type=int, nargs=3, help="D H W; default: the engine's window")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="for example benchmarks/results/variants.json")
    args = parser.parse_args()
    shipped = read_engine(None)
    config = model_config(shipped.manifest["training"]["recipe"]["model"], shipped.path)
    size = tuple(args.shape or shipped.spec.window)
    with tempfile.TemporaryDirectory() as work:
        folder = args.folder or Path(work)
        export(folder, config, shipped.spec, args.variants)
        ms = measure(folder, args.variants, size, args.rounds)
    cpu = OpenVINOEngine.capabilities()
    results: dict[str, Any] = {"cpu": cpu, "shape": size, "rounds": args.rounds, "ms": ms}
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
