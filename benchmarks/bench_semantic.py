"""Cost of the semantic mechanisms on the CPU engine: none against all, one whole-brain pass.

    pytest benchmarks/bench_semantic.py --benchmark-only --benchmark-json semantic.json

Both are the light network with random weights. They run in turns, so that a change of the machine's
load affects both. Other processes disturb the processor time less than the wall time.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastbts import EngineSpec
from fastbts.engine.backends.openvino import OpenVINOEngine
from fastbts.engine.file import read_engine_file, write_engine_file
from training.export import halve_weights, to_onnx
from training.model import SemanticConfig, UNet3d, UNetConfig

N_ROUNDS, N_THREADS = 15, 2
SHAPE = (1, 4, 144, 176, 144)
CONFIGS = {
    "plain": UNetConfig(),
    "all": UNetConfig(
        semantic=SemanticConfig(fusion=True, bridge=True, guidance=True, attention=True, head=True)
    ),
}


def build(config: UNetConfig, path: Path) -> tuple[OpenVINOEngine, dict[str, float]]:
    """A random network as an engine, checked against PyTorch; its parameters (1e6), FLOPs (1e9)."""
    torch.manual_seed(0)
    network = UNet3d(config).eval()
    with torch.no_grad():
        for weight in network.parameters():
            # Zeros might be optimised away; the file stores float16.
            weight.copy_(
                (weight if weight.any() else 0.05 * torch.randn(weight.shape)).half().float()
            )
    write_engine_file(
        path,
        EngineSpec(),
        {"model.onnx": halve_weights(to_onnx(network, EngineSpec())).SerializeToString()},
    )
    file, small = (
        read_engine_file(path),
        np.random.default_rng(0).standard_normal((1, 4, 32, 48, 32), np.float32),
    )
    exact = OpenVINOEngine(file, precision="fp32", n_threads=N_THREADS).infer(small)
    with torch.inference_mode():
        assert np.abs(exact - network(torch.from_numpy(small)).numpy()).max() <= 1e-3
    numbers = {
        "mparameters": sum(p.numel() for p in network.parameters()) / 1e6,
        "gflop": gflop(network),
    }
    return OpenVINOEngine(file, n_threads=N_THREADS), numbers


def gflop(network: UNet3d) -> float:
    """GFLOP of convolutions and matrix products at SHAPE; a multiply-add counts as two."""
    from torch.utils.flop_counter import FlopCounterMode

    network = network.to("meta")
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(SHAPE, device="meta"))
    return counter.get_total_flops() / 1e9


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[OpenVINOEngine, dict[str, float]]]:
    folder = tmp_path_factory.mktemp("engines")
    return {name: build(config, folder / f"{name}.fbts") for name, config in CONFIGS.items()}


def test_semantic_path(
    benchmark: Any, built: dict[str, tuple[OpenVINOEngine, dict[str, float]]]
) -> None:
    x = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    wall_s: dict[str, list[float]] = {name: [] for name in built}
    processor_s: dict[str, list[float]] = {name: [] for name in built}

    def turn() -> None:
        for name, (engine, _) in built.items():
            began = time.perf_counter(), time.process_time()
            engine.infer(x)
            wall_s[name].append(time.perf_counter() - began[0])
            processor_s[name].append(time.process_time() - began[1])

    benchmark.pedantic(turn, rounds=N_ROUNDS, warmup_rounds=2)
    for name, (engine, numbers) in built.items():
        times = {
            "wall_s": float(np.median(wall_s[name])),
            "wall_min_s": min(wall_s[name]),
            "processor_s": float(np.median(processor_s[name])),
        }
        benchmark.extra_info[name] = {
            k: round(float(v), 4) for k, v in {**times, **numbers}.items()
        } | engine.description
    pairs = {"wall": wall_s, "processor": processor_s}
    benchmark.extra_info["relative_cost"] = {
        kind: round(float(np.median(np.divide(s["all"], s["plain"]))) - 1, 4)
        for kind, s in pairs.items()
    }
    print(benchmark.extra_info)
