"""Measures contenders in turns, and what `extra_info` of a benchmark says about them."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.cases import Case
from benchmarks.peers.contender import Kit, Machine
from benchmarks.peers.process import ROOT, ContenderError, Process
from benchmarks.peers.registry import CONTENDERS
from fastbts.metrics import region_dice

Answer = dict[str, Any]
PAUSE_S = 0.1


@dataclass
class Measured:
    """What was measured of one contender.

    Attributes:
        seconds: Of each round.
        processor_s: Of all threads in each round.
        info: Everything else, for `extra_info`.
        stages_ms: Of each round.
    """

    seconds: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    stages_ms: list[dict[str, float]] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        """Takes the answer of one round."""
        self.seconds.append(answer["seconds"])
        self.processor_s.append(answer.get("processor_s", float("nan")))
        self.stages_ms.append(answer.get("stages_ms", {}))
        self.info["peak_mb"] = round(answer["peak_mb"])

    def summary(self) -> dict[str, Any]:
        """Median, 95th percentile, all rounds, stages and `info`."""
        if not self.seconds:
            return self.info
        stages = {
            name: round(median(stages[name] for stages in self.stages_ms), 1)
            for name in self.stages_ms[0]
        }
        return {
            "median_s": round(median(self.seconds), 4),
            "p95_s": round(float(np.percentile(self.seconds, 95)), 4),
            "seconds": [round(s, 4) for s in self.seconds],
            "processor_s": round(median(self.processor_s), 4),
            **({"stages_ms": stages} if stages else {}),
            **self.info,
        }


class Field:
    """The contenders of one benchmark, each in its own process where it has one.

    Attributes:
        processes: Those that run here.
        rows: What was measured, by name; also of those that do not run here.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.rows = {name: Measured(info={"title": CONTENDERS[name].title}) for name in names}
        self.processes: dict[str, Process] = {}

    def start(self, name: str, kit: Kit, machine: Machine, stack: ExitStack) -> None:
        """Starts a contender, or notes why it does not run."""
        try:
            process = stack.enter_context(Process(name, kit, machine))
        except ContenderError as error:
            self.skip(name, error)
            return
        self.processes[name] = process
        loaded = process.loaded
        self.rows[name].info |= {"load_s": round(loaded["load_s"], 3), "about": loaded["about"]}
        self.rows[name].info["environment"] = dict(CONTENDERS[name].environment)

    def skip(self, name: str, error: ContenderError) -> None:
        """Leaves a contender out from now on."""
        self.processes.pop(name, None)
        reason = str(error).partition(": ")[2].replace(f"{ROOT}/", "")
        self.rows[name] = Measured(info={"title": CONTENDERS[name].title, "skipped": reason})

    def turn(self, name: str, run: Callable[[Process], Answer]) -> None:
        """One round of a contender, when the threads of the one before no longer spin."""
        time.sleep(PAUSE_S)
        try:
            self.rows[name].add(run(self.processes[name]))
        except ContenderError as error:
            self.skip(name, error)

    def others(self, run: Callable[[Process], Answer], first: str = "ours") -> None:
        """One round of all but one, in another order each time."""
        names = [name for name in self.processes if name != first]
        random.shuffle(names)
        for name in names:
            self.turn(name, run)

    def forget(self) -> None:
        """Drops the rounds so far: a warm-up."""
        for row in self.rows.values():
            row.seconds, row.processor_s, row.stages_ms = [], [], []

    def summary(self) -> dict[str, dict[str, Any]]:
        """All rows."""
        return {name: row.summary() for name, row in self.rows.items()}


@contextmanager
def running(names: Sequence[str], kit: Kit, machine: Machine) -> Iterator[Field]:
    """All contenders, loaded and waiting.

    They start in a random order: the first ones get memory in scattered pages, which ended
    processes have left, and are up to 20 % slower for that in all rounds.
    """
    field_ = Field(names)
    with ExitStack() as stack:
        for name in random.sample(names, len(names)):
            field_.start(name, kit, machine, stack)
        yield field_


def exact_labels(case: Case, kit: Kit, n_threads: int, work: Path) -> NDArray[np.uint8]:
    """The labels that all others are compared with: fastbts in float32 on the CPU."""
    path = work / f"{case.name}-{kit.folder.name}-exact.npy"
    if not path.is_file():
        with Process("ours-fp32", kit, Machine(n_threads)) as process:
            process.predict(case.images, case.affine, path)
    return np.load(path)


def first_calls(runners: Field, case: Case, exact: NDArray[np.uint8], work: Path) -> None:
    """Lets each segment the case once; notes its time, and how good its labels are."""
    for name in list(runners.processes):
        path = work / f"{name}.npy"
        try:
            answer = runners.processes[name].predict(case.images, case.affine, path)
        except ContenderError as error:
            runners.skip(name, error)
            continue
        info = {"first_call_s": round(answer["seconds"], 3), "peak_mb": round(answer["peak_mb"])}
        runners.rows[name].info |= info | accuracy(np.load(path), exact, case.reference)


def accuracy(
    labels: NDArray[np.uint8], ours: NDArray[np.uint8], reference: NDArray[np.uint8] | None
) -> dict[str, Any]:
    """Dice with the reference, and how far the labels are those of fastbts in float32."""
    labelled = (labels > 0) | (ours > 0)
    different = int((labels != ours).sum())
    share = 1 - different / max(int(labelled.sum()), 1)
    dice = {} if reference is None else region_dice(labels, reference)
    return {
        "dice": {region: round(value, 4) for region, value in dice.items()},
        "different_voxels": different,
        "agreement": round(share, 5),
    }


def new_process(name: str, kit: Kit, machine: Machine, run: Callable[[Process], Answer]) -> Answer:
    """First answer of a new process; `seconds` are from its start on."""
    with Process(name, kit, machine) as process:
        answer = run(process)
        seconds = time.perf_counter() - process.started
        about, load_s = process.loaded["about"], process.loaded["load_s"]
    return {**answer, "seconds": seconds, "about": about, "load_s": load_s}


def surroundings(kit: Kit, machine: Machine) -> dict[str, Any]:
    """Commit, engine, threads and load, for `extra_info`."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    about: Mapping[str, Any] = kit.about
    return {
        "commit": commit.stdout.strip(),
        "engine": about["engine"],
        "engine_sha256": about["sha256"],
        "n_threads": machine.n_threads,
        "device": machine.device,
        "n_cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
