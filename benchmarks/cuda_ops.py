"""CUDA ops at BraTS size, each compared with the CPU op, then timed.

    python -m benchmarks.cuda_ops OUT.jsonl [--compiled | --once]

Adds a line to OUT for each op, and goes on after one that fails; then fails at the end.
`--compiled` times the ops inside the network only, beside compiled torch; `--once` runs each op
once, for a profiler.

Needs a CUDA device, CuPy, and torch with Triton. The L2 cache is overwritten before each run; times
are those of CUDA events around the op. The host runs ahead meanwhile, which hides most of what
Python costs a short op, ours or a peer's. Bandwidth counts inputs once and outputs once;
`share_of_copy` is its share of that of a device copy measured in the same process. Bridge and
attention take turns with the same maths in torch, once all agree; `times_faster` is a peer's median
over ours.
"""

from __future__ import annotations

import json
import statistics
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cupy
import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

import fastbts
from benchmarks.op_cases import CASES, Case, Job
from tests.ops.devices import CudaDevice, fetched, mapped
from tests.ops.op import Op
from tests.ops.registry import OPS

ROUNDS, WARM_UP = 50, 5
WITH_TORCH = ("semantic_bridge", "semantic_attention")
"""The ops that run inside networks, which torch's users would write in torch."""


class Timed(NamedTuple):
    """What to time, the bytes it must move, and the peers that take turns with it."""

    run: Job
    n_bytes: int
    peers: Mapping[str, Job]


def times_ms(runs: Sequence[Job]) -> list[list[float]]:
    """Times of each; they take turns, so that the machine's load affects all of them."""
    l2_cache = cupy.zeros(2**28, np.uint8)
    times: list[list[float]] = [[] for _ in runs]
    for i in range(WARM_UP + ROUNDS):
        for run, own in zip(runs, times, strict=True):
            l2_cache += 1
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record()
            run()
            end.record()
            end.synchronize()
            if i >= WARM_UP:
                own.append(cupy.cuda.get_elapsed_time(begin, end))
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    ordered, quarter = sorted(times), len(times) // 4
    return {
        "median_ms": statistics.median(ordered),
        "quartiles_distance_ms": ordered[-quarter - 1] - ordered[quarter],
        "n_rounds": len(ordered),
    }


def measured(timed: Timed) -> dict[str, Any]:
    own, *others = map(summary, times_ms([timed.run, *timed.peers.values()]))
    result: dict[str, Any] = {
        **own,
        "n_bytes": timed.n_bytes,
        "gb_per_s": timed.n_bytes / own["median_ms"] / 1e6,
    }
    if peers := dict(zip(timed.peers, others, strict=True)):
        result["peers"] = peers
        result["times_faster"] = {
            name: peer["median_ms"] / own["median_ms"] for name, peer in peers.items()
        }
    return result


def prepared(op: Op, case: Case, compiled: bool) -> Timed:
    """An op on the device, once it and its peers have given what the CPU gives."""
    arguments = op.outputs(case.arguments) | case.arguments
    there = CudaDevice().moved(op, arguments)
    on_cpu = {name: mapped(np.copy, value) for name, value in arguments.items()}
    op.function(**on_cpu)
    op.function(**there)
    for result, expected in zip(op.written(there), op.written(on_cpu), strict=True):
        np.testing.assert_allclose(fetched(result), expected, rtol=1e-6, atol=1e-4, err_msg=op.name)
    peers = torch_peers(op, case, compiled) if op.name in WITH_TORCH else {}
    for name, peer in peers.items():
        case.check(name, op.written(on_cpu), peer().cpu().numpy())
    return Timed(lambda: op.function(**there), case.n_bytes, peers)


def torch_peers(op: Op, case: Case, compiled: bool) -> dict[str, Job]:
    """Eager torch, and compiled if asked; torch and CuPy both queue on the default stream."""
    assert case.torch is not None
    moved = CudaDevice().moved(op, case.arguments)
    maths = case.torch(torch, {name: tensors(value) for name, value in moved.items()})
    forms = {"torch": maths}
    if compiled:
        forms["torch.compile"] = torch.compile(maths, fullgraph=True, dynamic=False)
    return {name: torch.inference_mode()(form) for name, form in forms.items()}


def tensors(value: Any) -> Any:
    """Device arrays, in tuples too, as torch sees the same memory."""
    if isinstance(value, tuple):
        return tuple(tensors(item) for item in value)
    return from_dlpack(value) if isinstance(value, cupy.ndarray) else value


def hold_torch_to_float32() -> None:
    """Equal precision: by default cuDNN rounds the inputs of float32 convolutions to TF32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # its fastest algorithms


def copy() -> Timed:
    source, target = cupy.ones(2**28, np.uint8), cupy.zeros(2**28, np.uint8)
    return Timed(lambda: cupy.copyto(target, source), 2 * source.nbytes, {})


def machine() -> dict[str, Any]:
    runtime = cupy.cuda.runtime
    return {
        "fastbts": fastbts.__version__,
        "torch": torch.__version__,
        "device": runtime.getDeviceProperties(0)["name"].decode(),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
    }


def main(path: Path, option: str = "") -> int:
    """Adds the results to the file; returns how many ops failed or disagree with the CPU's."""
    hold_torch_to_float32()
    compiled = option == "--compiled"
    names = [name for name in (WITH_TORCH if compiled else CASES) if OPS[name].on_cuda]
    n_failed, copied = 0, measured(copy())["gb_per_s"]
    for name in names:
        line: dict[str, Any] = {"step": "op", "op": name, "passed": True, **machine()}
        try:
            timed = prepared(OPS[name], CASES[name](), compiled)
            line |= {} if option == "--once" else measured(timed)
        except Exception as error:
            traceback.print_exc()
            line |= {"passed": False, "error": f"{type(error).__name__}: {error}"[:500]}
        line["share_of_copy"] = line.get("gb_per_s", 0) / copied
        n_failed += not line["passed"]
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return n_failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:3]) > 0)
