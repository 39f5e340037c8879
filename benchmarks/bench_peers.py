"""fastbts next to other ways to run the same network: `make bench-peers`.

All contenders (`benchmarks/peers/registry.py`) have the weights of one engine file, get the same
images and give labels, each in a process of its own. In a benchmark they take turns, in another
order each round. Its own time is that of fastbts by default; those of all, with Dice, agreement of
voxels, memory and stages, are in `extra_info["contenders"]`.

Options: --case DIR for a real case, which is then measured besides the synthetic one; --int8-engine
FILE, if the int8 network is in another file; --device cuda; --n-threads N; --rounds N.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks.peak import peaks
from benchmarks.peers.cases import Case, case_of, cube, synthetic_case
from benchmarks.peers.contender import Kit, Machine
from benchmarks.peers.kit import gflop, make_kit
from benchmarks.peers.measure import (
    Answer,
    Field,
    exact_labels,
    first_calls,
    new_process,
    running,
    surroundings,
)
from benchmarks.peers.process import BYTECODE, ROOT, ContenderError, Process, peak_mb_of

GROUPS = {  # contenders that take turns, and rounds; all of a group are in memory together
    "ours": (("ours", "ours-int8", "ours-bf16", "ours-fp32"), 7),
    "openvino": (("ours", "openvino-bf16", "openvino-fp32", "onnxruntime"), 7),
    "torch": (("ours", "torch", "torch-tuned"), 7),
    "compile": (("ours", "torch-tuned", "compile", "compile-tuned"), 7),
    "monai": (("ours", "monai-fp32", "monai-bf16", "monai-one-window"), 3),
    "nnunet": (("ours", "nnunet", "nnunet-whole"), 3),
}
STARTS = (
    "ours-once",
    *("openvino-bf16", "onnxruntime", "torch-tuned", "compile-tuned", "compile-uncached"),
    *("monai-bf16", "nnunet"),
)
"""Contenders whose first result in a new process is measured, each next to fastbts."""
STARTS_OF_FILES = [name for name in STARTS if name not in ("ours-once", "compile-uncached")]
STREAMS = ("ours", "openvino-bf16", "torch-tuned")
"""Contenders that segment several cases, files to files."""
N_STREAM = 6
THREADED = ("ours", "ours-fp32", "openvino-bf16", "torch-tuned")
SIZES = (64, 96, 128, 160, 192, 224, 256, 320)
# torch needs more memory per voxel
ONE_PASS: dict[str, Sequence[int]] = {
    "ours": SIZES,
    "openvino-bf16": SIZES,
    "torch-tuned": SIZES[:-1],
}
IN_WINDOWS: dict[str, Sequence[int]] = {
    "ours-sliding": (160, 192, 256),
    "monai-bf16": (64, 128, 192),
}


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> Machine:
    given = request.config.getoption("--n-threads") or os.cpu_count() or 1
    return Machine(given, request.config.getoption("--device"))


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int:
    """Given ones; 0 for those of each benchmark."""
    return request.config.getoption("--rounds")


@pytest.fixture(scope="session")
def kit(request: pytest.FixtureRequest) -> Kit:
    int8 = request.config.getoption("--int8-engine")
    return make_kit(ROOT / "build/peers-kit", None, Path(int8) if int8 else None)


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("peers")
    yield folder
    shutil.rmtree(folder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The synthetic case, and the real one; for what takes long, the last of these alone."""
    real = metafunc.config.getoption("--case")
    kinds = ["synthetic", *(["real"] if real else [])]
    if "each_case" in metafunc.fixturenames:
        metafunc.parametrize("each_case", kinds, indirect=True, scope="session")
    if "last_case" in metafunc.fixturenames:
        metafunc.parametrize("last_case", kinds[-1:], indirect=True, scope="session")


@pytest.fixture(scope="session")
def each_case(request: pytest.FixtureRequest, work: Path) -> Case:
    return case_named(request, work)


@pytest.fixture(scope="session")
def last_case(request: pytest.FixtureRequest, work: Path) -> Case:
    return case_named(request, work)


def case_named(request: pytest.FixtureRequest, work: Path) -> Case:
    if request.param == "synthetic":
        return synthetic_case(work)
    return case_of(Path(request.config.getoption("--case")).resolve(), work)


def turns(
    benchmark: Any, runners: Field, run: Callable[[Process], Answer], rounds: int
) -> dict[str, Any]:
    """Times fastbts by `benchmark`, all by their own clocks; returns what was measured."""
    ours = partial(runners.turn, "ours", run)
    benchmark.pedantic(ours, setup=lambda: runners.others(run), rounds=rounds)
    return runners.summary()


def tell(
    benchmark: Any, section: str, case: Case | None, kit: Kit, machine: Machine, **more: Any
) -> None:
    """Fills `extra_info`."""
    about = {"case": case.name, "shape": case.shape} if case else {}
    benchmark.extra_info.update({"section": section, **about, **more})
    benchmark.extra_info.update(surroundings(kit, machine))


@pytest.mark.parametrize("group", GROUPS)
def test_in_memory(
    benchmark: Any,
    group: str,
    each_case: Case,
    kit: Kit,
    machine: Machine,
    work: Path,
    rounds: int,
) -> None:
    """Arrays in memory -> labels in memory."""
    names, usual = GROUPS[group]
    exact = exact_labels(each_case, kit, machine.n_threads, work)
    with running(names, kit, machine) as runners:
        first_calls(runners, each_case, exact, work)
        rows = turns(benchmark, runners, arrays(each_case), rounds or usual)
    tell(benchmark, "in memory", each_case, kit, machine, group=group, contenders=rows)


@pytest.mark.parametrize("name", STARTS)
def test_new_process(
    benchmark: Any, name: str, last_case: Case, kit: Kit, machine: Machine, rounds: int
) -> None:
    """The start of a process -> the first labels, of arrays; caches on disk are filled."""
    runners = started(benchmark, name, kit, machine, arrays(last_case), rounds)
    tell(benchmark, "new process", last_case, kit, machine, contenders=runners.summary())


@pytest.mark.parametrize("name", STARTS_OF_FILES)
def test_files_to_file(
    benchmark: Any, name: str, last_case: Case, kit: Kit, machine: Machine, work: Path, rounds: int
) -> None:
    """The start of a process -> the label file, from four files; ours is the command line."""
    folders = [last_case.folder] if last_case.folder else []
    command = [sys.executable, "-m", "fastbts", "predict", str(last_case.folder), "--overwrite"]
    command += ["-o", str(work / "command"), "--threads", str(machine.n_threads)]

    def run(process: Process) -> Answer:
        return process.predict_files(folders, work)

    runners = started(benchmark, name, kit, machine, run, rounds, command)
    runners.rows["ours"].info["peak_mb"] = round(peak_mb_of(command))
    tell(benchmark, "files to file", last_case, kit, machine, contenders=runners.summary())


def arrays(case: Case) -> Callable[[Process], Answer]:
    return lambda process: process.predict(case.images, case.affine)


def started(
    benchmark: Any,
    other: str,
    kit: Kit,
    machine: Machine,
    run: Callable[[Process], Answer],
    rounds: int,
    command: Sequence[str] = (),
) -> Field:
    """Times new processes of fastbts and another in turns; of fastbts, a command if there is one.

    The other one also runs once before, untimed: it fills its caches.
    """
    runners = Field(("ours", other))

    def turn(name: str) -> None:
        if name == "ours" and command:
            runners.rows[name].add({"seconds": command_s(command), "peak_mb": 0.0})
            return
        try:
            answer = new_process(name, kit, machine, run)
        except ContenderError as error:
            runners.skip(name, error)
            return
        runners.rows[name].info |= {"about": answer["about"], "load_s": answer["load_s"]}
        runners.rows[name].add(answer)

    def others() -> None:
        if "skipped" not in runners.rows[other].info:
            turn(other)

    once = other == "compile-uncached"  # takes minutes
    if not once:
        others()
        runners.forget()
    n_rounds = 1 if once else rounds or ROUNDS_OF_STARTS
    benchmark.pedantic(lambda: turn("ours"), setup=others, rounds=n_rounds, warmup_rounds=0)
    return runners


ROUNDS_OF_STARTS = 3


def command_s(command: Sequence[str]) -> float:
    import subprocess

    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | BYTECODE)
    return time.perf_counter() - began


def test_several_cases(
    benchmark: Any, last_case: Case, kit: Kit, machine: Machine, work: Path
) -> None:
    """Case folders -> label files, in one process that has loaded its network."""
    folders = copies(last_case, work)
    with running(STREAMS, kit, machine) as runners:
        rows = turns(benchmark, runners, lambda p: p.predict_files(folders, work), rounds=3)
    tell(benchmark, "several cases", last_case, kit, machine, n_cases=N_STREAM, contenders=rows)


def copies(case: Case, work: Path) -> list[Path]:
    """The case some times, by links."""
    assert case.folder
    folders = [work / f"copy-{n}" for n in range(N_STREAM)]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        for path in case.folder.glob("*.nii.gz"):
            if not (folder / path.name).exists() and "_seg" not in path.name:
                (folder / path.name).symlink_to(path)
    return folders


@pytest.mark.parametrize("n", [1, 2])
def test_threads(
    benchmark: Any, n: int, last_case: Case, kit: Kit, machine: Machine, work: Path
) -> None:
    """Arrays in memory -> labels in memory, on one and two threads."""
    if n > (os.cpu_count() or 1):
        pytest.skip(f"{n} threads on {os.cpu_count()} cores")
    exact = exact_labels(last_case, kit, machine.n_threads, work)
    with running(THREADED, kit, Machine(n, machine.device)) as runners:
        first_calls(runners, last_case, exact, work)
        rows = turns(benchmark, runners, lambda p: p.predict(last_case.images, last_case.affine), 5)
    tell(benchmark, "threads", last_case, kit, Machine(n, machine.device), contenders=rows)


@pytest.mark.parametrize("name", ONE_PASS | IN_WINDOWS)
def test_volumes(benchmark: Any, name: str, kit: Kit, machine: Machine, work: Path) -> None:
    """Cubes of brain from 64^3 to 320^3, of which fastbts crops one voxel at each side."""
    case, sizes = synthetic_case(work), (ONE_PASS | IN_WINDOWS)[name]

    def run() -> dict[str, Any]:
        with running((name,), kit, machine) as runners:
            for n in sizes:
                given = cube(case, n, work)
                for _ in range(rounds_of(n, name)):
                    if name in runners.processes:
                        runners.turn(name, arrays(given))
            return runners.summary()[name]

    row = in_sizes(name, benchmark.pedantic(run, rounds=1), sizes)
    tell(benchmark, "volumes", None, kit, machine, contenders={name: row})


def in_sizes(name: str, row: dict[str, Any], sizes: Sequence[int]) -> dict[str, Any]:
    """A row whose rounds are those of one size after the other."""
    seconds, found = iter(row.get("seconds", [])), {}
    for n in sizes:
        of_size = list(islice(seconds, rounds_of(n, name)))
        if of_size:
            found[str(n)] = round(median(of_size[1:]), 4)
    kept = {key: row[key] for key in ("title", "about", "peak_mb", "skipped") if key in row}
    return kept | {"seconds_of_size": found}


def rounds_of(n: int, name: str) -> int:
    """The first round of a size is a warm-up."""
    slow = name in IN_WINDOWS and not name.startswith("ours")
    return 2 if slow else 6 if n <= 128 else 4 if n <= 224 else 3


def test_peak(benchmark: Any, last_case: Case, kit: Kit, machine: Machine, work: Path) -> None:
    """How much of the processor's peak the network reaches, and the share of time around it."""
    if machine.device != "cpu":
        pytest.skip("the peak is measured on a CPU")
    precisions = ("int8", "bf16", "fp32")
    names = ("ours", *(f"ours-{p}" for p in precisions))
    peak = benchmark.pedantic(peaks, args=(machine.n_threads,), rounds=1)
    with running(names, kit, machine) as runners:
        for n in range(8):
            runners.others(arrays(last_case), first="")
            if n == 0:  # a warm-up
                runners.forget()
        rows = runners.summary()
    work_gflop = gflop(kit, tensor_size(last_case, kit))
    found = {
        p: shares(rows[f"ours-{p}"], work_gflop, peak[p])
        for p in precisions
        if p in peak and "stages_ms" in rows[f"ours-{p}"]
    }
    more = {"gflop": round(work_gflop, 1), "peaks_gflop_s": peak, "of_peak": found}
    tell(benchmark, "peak", last_case, kit, machine, contenders=rows, **more)


def shares(row: dict[str, Any], work_gflop: float, peak: float) -> dict[str, float]:
    """GFLOP/s of the network, its share of the peak, and the share of time outside it."""
    network_s = row["stages_ms"]["infer"] / 1000
    return {
        "gflop_s": round(work_gflop / network_s, 1),
        "share_of_peak": round(work_gflop / network_s / peak, 3),
        "share_outside": round(1 - network_s / row["median_s"], 3),
    }


def tensor_size(case: Case, kit: Kit) -> tuple[int, int, int]:
    """(D, H, W) of the network's tensor for a case."""
    import numpy as np

    from benchmarks.peers.numpy_steps import prepared, zyx

    images = np.load(case.images).transpose(0, 3, 2, 1)
    d, h, w = prepared(zyx(images, case.affine), kit.spec).tensor.shape[2:]
    return d, h, w
