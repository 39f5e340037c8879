"""Time of the network's layers on a CPU: `python -m benchmarks.layers`.

Runs the engine with OpenVINO's counters, and in the same run what the CPU can do at most: a large
convolution and matrix product of the same precision, also in OpenVINO, and a copy in memory. Writes
the layers to `benchmarks/results/layers.json` (`--json`), and prints them by kind.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.bench_ops import copy_bandwidth
from benchmarks.peak import peak_gflops
from fastbts import FastBTSError
from fastbts.engine.backends.openvino import OpenVINOEngine
from fastbts.engine.file import EngineFile
from fastbts.engine.load import read_engine
from fastbts.ops import Size

PRECISIONS = ("fp32", "bf16", "int8")
BYTES = {"f32": 4, "i32": 4, "bf16": 2, "f16": 2, "i8": 1, "u8": 1, "i64": 8, "boolean": 1}
COPIES = "Reorder", "Transpose", "Concatenation", "Reshape", "Broadcast", "Split", "StridedSlice"
KINDS = {
    "Convolution": "convolutions",
    "Deconvolution": "up-sampling",
    "MVN": "norms",
    **dict.fromkeys(COPIES, "copies"),
}
"""Kind of a layer by OpenVINO's type; others are "others"."""


@dataclass(frozen=True)
class Layer:
    """A layer that OpenVINO runs, with all that it fused into it.

    Attributes:
        name: In OpenVINO.
        kind: One of the values of `KINDS`, or "others".
        kernel: OpenVINO's implementation and type of numbers.
        shape: Of its output.
        ms: Median time.
        gflop: Multiplications and additions of a convolution or matrix product.
        gb: Inputs and outputs, each once.
    """

    name: str
    kind: str
    kernel: str
    shape: tuple[int, ...]
    ms: float
    gflop: float
    gb: float


class ProfiledEngine(OpenVINOEngine):
    """An engine that keeps the counters of its last call."""

    ms: dict[str, float]
    model: Any

    def _run(self, call: Any, *arrays: Any) -> None:
        super()._run(call, *arrays)
        counters = call.get_profiling_info()
        self.ms = {c.node_name: c.real_time.total_seconds() * 1000 for c in counters}
        self.model = call.get_compiled_model().get_runtime_model()


def profile(file: EngineFile, precision: str, size: Size, rounds: int) -> list[Layer]:
    """The layers of a file's network on noise of that size, in the order in which they run.

    Raises:
        FastBTSError: The file or the CPU lacks the precision.
    """
    engine = profiled_engine(file, precision)
    shape = (1, len(file.spec.modalities), *size)
    tensor = np.random.default_rng(0).standard_normal(shape, np.float32)
    runs = []
    for _ in range(rounds + 1):  # the first one is the warm-up
        engine.infer(tensor)
        runs.append(engine.ms)
    ms = {name: median(run.get(name, 0.0) for run in runs[1:]) for name in runs[-1]}
    nodes = [op for op in engine.model.get_ordered_ops() if ms.get(op.friendly_name, 0) > 0]
    return [layer_of(node, ms[node.friendly_name]) for node in nodes]


def profiled_engine(file: EngineFile, precision: str) -> ProfiledEngine:
    """An engine with OpenVINO's counters on."""
    from fastbts.engine.backends.openvino import _core

    core = _core()
    core.set_property("CPU", {"PERF_COUNT": True})
    try:
        return ProfiledEngine(file, precision=precision)
    finally:
        core.set_property("CPU", {"PERF_COUNT": False})


def layer_of(node: Any, ms: float) -> Layer:
    """A node of OpenVINO's runtime model."""
    about = {key: value.astype(str) for key, value in node.rt_info.items()}
    kind = about["layerType"]
    inputs = [(source.get_node(), tuple(source.shape)) for source in node.input_values()]
    out = tuple(node.output(0).shape) if node.get_output_size() else ()
    moved = [(about, out)] + [(types_of(source), shape) for source, shape in inputs]
    return Layer(
        node.friendly_name,
        KINDS.get(kind, "others"),
        about["primitiveType"],
        out,
        ms,
        gflop_of(kind, out, [shape for _, shape in inputs]),
        sum(n_bytes(info, shape) for info, shape in moved) / 1e9,
    )


def types_of(node: Any) -> dict[str, str]:
    """OpenVINO's notes on the type of a node's output."""
    return {"outputPrecisions": node.rt_info["outputPrecisions"].astype(str)}


def n_bytes(about: dict[str, str], shape: Sequence[int]) -> int:
    """Of an output; of the first one where a node has several."""
    return math.prod(shape) * BYTES.get(about["outputPrecisions"].split(",")[0], 4)


def gflop_of(kind: str, out: Sequence[int], inputs: Sequence[Sequence[int]]) -> float:
    """Of a layer whose second input is its weights: (C_out, C_in, ...), transposed (C_in, C_out,
    ...)."""
    if kind == "Convolution":
        return 2e-9 * math.prod(out) * math.prod(inputs[1][1:])
    if kind == "Deconvolution":
        return 2e-9 * math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if kind in ("FullyConnected", "MatMul"):
        return 2e-9 * math.prod(out) * inputs[0][-1]
    return 0.0


def summary(layers: Iterable[Layer], peak: float) -> dict[str, dict[str, float]]:
    """Per kind, the slowest first: number, ms, share of the time, GFLOP/s, their share of the peak,
    GB/s. "all" is last."""
    groups: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        groups[layer.kind].append(layer)
        groups["all"].append(layer)
    total = sum(layer.ms for layer in groups["all"])
    order = sorted(groups, key=lambda kind: (kind == "all", -sum(x.ms for x in groups[kind])))
    return {kind: _row(groups[kind], total, peak) for kind in order}


def _row(layers: list[Layer], total: float, peak: float) -> dict[str, float]:
    ms, gflop, gb = (sum(getattr(x, key) for x in layers) for key in ("ms", "gflop", "gb"))
    gflops = 1000 * gflop / ms
    return {
        "n": len(layers),
        "ms": round(ms, 2),
        "share": round(ms / total, 4),
        "gflop": round(gflop, 2),
        "gflops": round(gflops, 1),
        "share_of_peak": round(gflops / peak, 4),
        "gb": round(gb, 3),
        "gb_per_s": round(1000 * gb / ms, 2),
    }


def measure(file: EngineFile, size: Size, rounds: int) -> dict[str, Any]:
    """All precisions that the file has and the CPU computes in."""
    found: dict[str, Any] = {}
    for precision in PRECISIONS:
        try:
            layers = profile(file, precision, size, rounds)
        except FastBTSError as error:
            print(f"{precision}: not measured: {error}")
            continue
        peak = peak_gflops(precision)
        found[precision] = {
            "peak": peak,
            "kinds": summary(layers, max(peak.values())),
            "layers": [asdict(layer) for layer in layers],
        }
    return found


def printed(results: dict[str, Any]) -> str:
    """The kinds of layers of each precision."""
    lines = [f"{results['engine']} {results['shape']} on {results['cpu']}"]
    lines.append(f"a copy moves {results['copy_gb_per_s']} GB/s")
    for precision, found in results["precisions"].items():
        lines.append(f"{precision}: peak {found['peak']} GFLOP/s")
        for kind, row in found["kinds"].items():
            lines.append(
                f"  {kind:14} {row['n']:4} {row['ms']:8.2f} ms {100 * row['share']:5.1f} % "
                f"{row['gflops']:8.1f} GFLOP/s {100 * row['share_of_peak']:5.1f} % of the peak "
                f"{row['gb_per_s']:6.2f} GB/s"
            )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path, help="engine file; default: the shipped one")
    parser.add_argument("--shape", type=int, nargs=3, help="D H W; default: the engine's window")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="for example benchmarks/results/layers.json")
    args = parser.parse_args()
    file = read_engine(args.engine)
    size = tuple(args.shape or file.spec.window)
    results = {
        "engine": file.spec.name,
        "sha256": file.sha256,
        "shape": size,
        "rounds": args.rounds,
        "cpu": OpenVINOEngine.capabilities(),
        "copy_gb_per_s": round(copy_bandwidth(2) / 1e9, 2),
        "precisions": measure(file, size, args.rounds),
    }
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(printed(results))


if __name__ == "__main__":
    main()
