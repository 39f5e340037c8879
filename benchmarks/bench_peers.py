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

from benchmarks.peers.cases import Case, case_of, cube, synthetic_case
from benchmarks.peers.contender import Kit, Machine
from benchmarks.peers.kit import make_kit
from benchmarks.peers.measure import (
    Answer,
    Field,
    exact_labels,
    exponent,
    first_calls,
    new_process,
    running,
    surroundings,
)
from benchmarks.peers.peak import gflop, peaks
from benchmarks.peers.process import ROOT, ContenderError, Process, peak_mb_of

GROUPS = {  # contenders that take turns, and rounds; all of a group are in memory together
    "ours": (("ours", "ours-int8", "ours-bf16", "ours-fp32"), 7),
    "openvino": (("ours", "openvino-bf16", "openvino-fp32", "onnxruntime"), 7),
    "torch": (("ours", "torch", "torch-tuned"), 7),
    "compile": (("ours", "torch-tuned", "compile", "compile-tuned"), 7),
    "monai": (("ours", "monai-fp32", "monai-bf16", "monai-one-window"), 3),
    "nnunet": (("ours", "nnunet", "nnunet-whole"), 3),
}
STARTS = (
    *("ours", "openvino-bf16", "onnxruntime", "torch-tuned", "compile-tuned", "compile-uncached"),
    *("monai-bf16", "nnunet"),
)
"""Contenders whose first result in a new process is measured."""
STREAMS = ("ours", "openvino-bf16", "torch-tuned")
"""Contenders that segment several cases, files to files."""
N_STREAM = 6
THREADED = ("ours", "ours-fp32", "openvino-bf16", "torch-tuned")
SIZES = (64, 96, 128, 160, 192, 224, 256, 320)
# torch needs more memory per voxel
ONE_PASS = {"ours": SIZES, "openvino-bf16": SIZES, "torch-tuned": SIZES[:-1]}
IN_WINDOWS = {"ours-sliding": (160, 192, 256), "monai-bf16": (64, 128, 192)}
FITTED_FROM = 96


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


def test_new_process(
    benchmark: Any, last_case: Case, kit: Kit, machine: Machine, work: Path
) -> None:
    """The start of a process -> the first labels, of arrays; caches on disk are filled."""
    started(benchmark, "new process", STARTS, last_case, kit, machine, arrays(last_case))


def test_files_to_file(
    benchmark: Any, last_case: Case, kit: Kit, machine: Machine, work: Path
) -> None:
    """The start of a process -> the label file, from four files; ours is the command line."""
    folders = [last_case.folder] if last_case.folder else []
    names = [name for name in STARTS if name != "compile-uncached"]

    def run(process: Process) -> Answer:
        return process.predict_files(folders, work)

    command = [sys.executable, "-m", "fastbts", "predict", str(last_case.folder), "--overwrite"]
    command += ["-o", str(work / "command"), "--threads", str(machine.n_threads)]
    started(benchmark, "files to file", names, last_case, kit, machine, run, command)


def arrays(case: Case) -> Callable[[Process], Answer]:
    return lambda process: process.predict(case.images, case.affine)


def started(
    benchmark: Any,
    section: str,
    names: Sequence[str],
    case: Case,
    kit: Kit,
    machine: Machine,
    run: Callable[[Process], Answer],
    command: list[str] | None = None,
) -> None:
    """Times new processes of all contenders in turns; of ours, a command if there is one."""
    runners = Field(names)

    def turn(name: str) -> None:
        row = runners.rows[name]
        if name == "ours" and command:
            row.info["about"] = {"around": " ".join(["fastbts", *command[3:4]])}
            row.add({"seconds": command_s(command), "peak_mb": 0.0})
            return
        try:
            answer = new_process(name, kit, machine, run)
        except ContenderError as error:
            runners.skip(name, error)
            return
        row.info |= {"about": answer["about"], "load_s": round(answer["load_s"], 3)}
        row.add(answer)

    def others() -> None:
        for name in names:
            if name != "ours" and "skipped" not in runners.rows[name].info and wanted(name):
                turn(name)

    def wanted(name: str) -> bool:  # what takes minutes runs once
        return name != "compile-uncached" or not runners.rows[name].seconds

    benchmark.pedantic(lambda: turn("ours"), setup=others, rounds=ROUNDS_OF_STARTS)
    if command:
        runners.rows["ours"].info["peak_mb"] = round(peak_mb_of(command))
    tell(benchmark, section, case, kit, machine, contenders=runners.summary())


ROUNDS_OF_STARTS = 3


def command_s(command: list[str]) -> float:
    import subprocess

    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
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
    with running(THREADED, kit, Machine(n, machine.device)) as runners:
        first_calls(runners, last_case, work)
        rows = turns(benchmark, runners, lambda p: p.predict(last_case.images, last_case.affine), 5)
    tell(benchmark, "threads", last_case, kit, Machine(n, machine.device), contenders=rows)


def test_volumes(benchmark: Any, kit: Kit, machine: Machine, work: Path) -> None:
    """Cubes of brain from 64^3 to 320^3: time, exponent of the voxels, and time in windows.

    One contender after the other, as each keeps the memory of its largest cube.
    """
    case = synthetic_case(work)
    cubes = {n: cube(case, n, work) for n in SIZES}
    rows: dict[str, Any] = {}

    def run() -> None:
        for name, sizes in (ONE_PASS | IN_WINDOWS).items():
            with running((name,), kit, machine) as runners:
                for n in sizes:
                    for _ in range(rounds_of(n, name)):
                        if name in runners.processes:
                            runners.turn(name, arrays(cubes[n]))
                rows[name] = in_sizes(name, runners.summary()[name], sizes)

    benchmark.pedantic(run, rounds=1)
    tell(benchmark, "volumes", None, kit, machine, contenders=rows, fits=fits(rows))


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
    return 2 if name in IN_WINDOWS else 6 if n <= 128 else 4 if n <= 224 else 3


def fits(rows: dict[str, Any]) -> dict[str, Any]:
    """Exponents over the sizes that run in one pass, and time of a voxel in windows against it."""
    times = {name: row["seconds_of_size"] for name, row in rows.items()}
    fitted = {
        name: round(exponent([int(n) for n in large], list(large.values())), 3)
        for name in ONE_PASS
        if len(large := {n: s for n, s in times[name].items() if int(n) >= FITTED_FROM}) > 1
    }
    ratios = {n: round(s / times["ours"][n], 2) for n, s in times["ours-sliding"].items()}
    return {"exponents": fitted, "fitted_from": FITTED_FROM, "windows_to_one_pass": ratios}


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
