"""Every op at BraTS size: verified, then timed next to libraries that do the same work.

    pytest benchmarks/bench_ops.py --benchmark-json ops.json

Each op is compared with its reference implementation on a small input, and with its peers on the
large one. Then op and peers take turns, each right after untimed calls of its own.
`extra_info` of each benchmark holds the bytes that the op must move (inputs once, outputs once),
the bandwidth this makes, its share of that of a copy measured in the same run with as many threads,
the peers' medians, how glibc's malloc was tuned, and the machine's load.

By default malloc returns the memory of large temporaries to the system and requests it again, page
by page, which can be half of a peer's time. `make bench` therefore runs this twice, the second time
with GLIBC_TUNABLES that keep it: peers at their best.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest

from benchmarks.op_cases import CASES, Case, Job, optional
from tests.ops.devices import mapped
from tests.ops.op import Op
from tests.ops.registry import OPS

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers

ROUNDS, SHORT_ROUNDS = 7, 35
"""Of ops that take longer than 3 ms, and of others, whose times scatter more."""


@cache
def copy_bandwidth(n_threads: int) -> float:
    """Bytes read and written per second by np.copyto: best of five, 256 MiB, beyond any cache."""
    sources, targets = (
        [np.ones(2**26 // n_threads, np.float32) for _ in range(n_threads)] for _ in range(2)
    )
    seconds = []
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(5):
            began = time.perf_counter()
            list(pool.map(np.copyto, targets, sources))
            seconds.append(time.perf_counter() - began)
    return 2 * 2**28 / min(seconds)


def warm_up(job: Job) -> None:
    """Calls it for some milliseconds, to fill the caches.

    It waits first: OpenMP threads of a peer keep spinning for a while.
    """
    time.sleep(0.02)
    began = time.perf_counter()
    while time.perf_counter() - began < 0.005:
        job()


def seconds_of(job: Job) -> float:
    """Time of one call, right after others."""
    warm_up(job)
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


@pytest.fixture(params=(1, 2))
def n_threads(request: pytest.FixtureRequest) -> int:
    if torch := optional("torch"):
        torch.set_num_threads(request.param)
    return request.param


def verify_small(op: Op, n_threads: int) -> None:
    """Compares the op with its reference implementation."""
    given = op.example(np.random.default_rng(0), (8, 9, 12), op.dtypes[0])
    exact, arguments = op.exact(**given), op.outputs(given) | given
    op.function(**arguments, n_threads=n_threads)
    for result, wanted in zip(op.written(arguments), exact, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-5)


def peers_of(case: Case) -> dict[str, Job]:
    """All of them, torch's on tensors that share the memory of the arrays."""
    peers = dict(case.peers)
    if case.torch and (torch := optional("torch")):
        tensors = {name: mapped(torch.from_numpy, value) for name, value in case.arguments.items()}
        peers["torch"] = torch.inference_mode()(case.torch(torch, tensors))
    return dict(sorted(peers.items(), key=lambda peer: ORDER.index(peer[0])))


ORDER = ("numpy", "torch", "monai", "scipy")


def verify_large(op: Op, case: Case, peers: Mapping[str, Job], n_threads: int) -> None:
    """Compares each peer, run once, with the op, run once on a copy of what it changes."""
    given = {name: mapped(np.copy, value) for name, value in case.arguments.items()}
    arguments = op.outputs(given) | given
    op.function(**arguments, n_threads=n_threads)
    for name, peer in peers.items():
        case.check(name, op.written(arguments), peer())


def job_of(op: Op, case: Case, n_threads: int) -> Job:
    """The op as it is timed: it allocates its outputs, but for those of `given`."""
    outputs = op.outputs(case.arguments) if case.given else {}
    arguments = case.arguments | {name: outputs[name] for name in case.given}

    def job() -> None:
        if case.before:
            case.before(n_threads)
        op.function(**arguments, n_threads=n_threads)

    return job


def timed(benchmark: Any, job: Job, peers: Mapping[str, Job]) -> dict[str, float]:
    """Times job by `benchmark`, in turns with the peers; returns their medians in ms."""
    times: dict[str, list[float]] = {name: [] for name in peers}

    def peers_turn() -> None:
        for name, peer in peers.items():
            times[name].append(1000 * seconds_of(peer))
        warm_up(job)

    rounds = ROUNDS if seconds_of(job) > 0.003 else SHORT_ROUNDS
    benchmark.pedantic(job, setup=peers_turn, rounds=rounds)
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def speed(stats: Any, case: Case, peers_ms: Mapping[str, float], n_threads: int) -> dict[str, Any]:
    """The `extra_info` of one op."""
    ms, copy = 1000 * stats.median, copy_bandwidth(n_threads)
    rate = case.n_bytes / stats.median
    return {
        "n_threads": n_threads,
        "median_ms": round(ms, 3),
        "best_ms": round(1000 * stats.min, 3),
        "target_ms": case.target_ms,
        "n_bytes": case.n_bytes,
        "gb_per_s": round(rate / 1e9, 2),
        "copy_gb_per_s": round(copy / 1e9, 2),
        "share_of_copy": round(rate / copy, 3),
        "peers_ms": peers_ms,
        "times_faster": {name: round(peer / ms, 2) for name, peer in peers_ms.items()},
    }


def environment() -> dict[str, Any]:
    modules = ((name, optional(name)) for name in ("numpy", "scipy", "torch", "monai"))
    return {
        "malloc": os.environ.get("GLIBC_TUNABLES", "default"),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "n_cpus": os.cpu_count(),
            "load": os.getloadavg(),
        },
        "versions": {name: module.__version__ for name, module in modules if module},
    }


@pytest.mark.parametrize("name", CASES)
def test_op(benchmark: Any, name: str, n_threads: int) -> None:
    op, case = OPS[name], CASES[name]()
    verify_small(op, n_threads)
    peers = peers_of(case)
    verify_large(op, case, peers, n_threads)
    benchmark.name = f"test_{name}[{n_threads}]"  # by which make_tables finds it
    peers_ms = timed(benchmark, job_of(op, case, n_threads), peers)
    benchmark.extra_info.update(speed(benchmark.stats.stats, case, peers_ms, n_threads))
    benchmark.extra_info.update(environment())
