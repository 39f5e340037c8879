"""Runs in processes of their own: killed, terminated, and on two ranks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from training.checkpoint import load_checkpoint
from training.config import load_recipe
from training.data import engine_spec, prepare_case
from training.train import fit

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
STEPS = 40
RECIPE = {
    "name": "killed",
    "model": {"widths": [4, 8, 8]},
    "stages": [{"steps": STEPS, "crop": [32, 32, 32]}],
    "warmup_steps": 2,
    "validate_every": 9,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_cases: Callable[[Path], None]) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_cases(folder)
    return folder


def write_recipe(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | changes))
    return path


def finish(recipe: Path, data: Path, run: Path) -> dict[str, Any]:
    """Trains to the end in this process; returns the last checkpoint."""
    loaded = load_recipe(recipe)
    cases = [prepare_case(data / name, engine_spec(loaded), data / "cache") for name in ("case1", "case2")]
    fit(loaded, cases, run, val=[data / "case3"])
    return load_checkpoint(run / "last.ckpt")[1]


def start(recipe: Path, data: Path, run: Path) -> subprocess.Popen[str]:
    options = {"recipe": recipe, "data": data, "out": run, "cache": data / "cache", "threads": 1}
    command = [sys.executable, "-m", "training.train", *(text for k, v in options.items() for text in (f"--{k}", str(v)))]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def steps_of(run: Path) -> list[int]:
    log = run / "log.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.is_file() else []


def wait_for(step: int, process: subprocess.Popen[str], run: Path) -> None:
    while process.poll() is None and step not in steps_of(run):
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()[1]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Any]:
    """The last checkpoint of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return finish(write_recipe(folder), data, folder / "run")


def assert_same(one: Any, other: Any, where: str = "checkpoint") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_same(value, other[key], f"{where}.{key}")
    elif isinstance(one, list):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}.{i}")
    else:
        assert one == other, where


def assert_same_run(one: dict[str, Any], other: dict[str, Any]) -> None:
    for part in ("step", "network", "average", "optimizer_states", "lr_schedulers"):
        assert_same(one[part], other[part], part)


def test_killed_five_times_ends_with_the_same_bits(data: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    """Killed wherever it is right after one of five steps drawn at random: in the next, in saving, in validating."""
    recipe, run = write_recipe(tmp_path, checkpoint_every=1), tmp_path / "run"
    for step in sorted(random.Random(0).sample(range(2, 32), 5)):
        process = start(recipe, data, run)
        wait_for(step, process, run)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert load_checkpoint(run / "last.ckpt")[1]["step"] >= step - 1
    assert_same_run(finish(recipe, data, run), whole)
    repeated = len(steps_of(run)) - STEPS
    assert 0 <= repeated <= 5, "every start went on at the last checkpoint"


def test_sigterm_saves_and_exits(data: Path, tmp_path: Path) -> None:
    n_steps = 5 * STEPS  # long enough to be stopped on the way, however late this process is
    recipe, run = (
        write_recipe(tmp_path, stages=[{"steps": n_steps, "crop": [32, 32, 32]}], checkpoint_every=1000),
        tmp_path / "run",
    )
    process = start(recipe, data, run)
    wait_for(3, process, run)
    assert not (run / "last.ckpt").exists()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    saved = load_checkpoint(run / "last.ckpt")[1]["step"]
    assert 3 <= saved == max(steps_of(run)) < n_steps
    assert f"SIGTERM: saved step {saved} in {run / 'last.ckpt'}; the same command continues from there" in errors
    assert_same_run(finish(recipe, data, run), finish(recipe, data, tmp_path / "whole"))
    assert steps_of(run) == list(range(1, n_steps + 1)), "no step was lost"


@pytest.fixture(scope="module")
def ranks(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke recipe on two ranks over gloo, by torchrun; every rank also writes the network it ends with."""
    run = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--module"]
    arguments = ["--recipe", "smoke", "--data", str(data), "--out", str(run), "--threads", "1"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, "tests.training.two_ranks", *arguments], cwd=ROOT, env=environment, check=True, timeout=500, capture_output=True
    )  # fmt: skip
    return run


def test_two_ranks_end_with_equal_weights_and_one_checkpoint(ranks: Path) -> None:
    one, two = (torch.load(ranks / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(one, two)
    state = load_checkpoint(ranks / "last.ckpt")[1]
    assert state["step"] == 6
    assert_same(one, {name.removeprefix("module."): w for name, w in state["average"].items() if name != "n_averaged"})
    assert steps_of(ranks) == [1, 2, 3, 4, 5, 6], "one log, by rank 0"
    assert {path.name for path in ranks.glob("last*")} == {"last.ckpt", "last.previous"}


def test_two_ranks_learn_from_both(ranks: Path, data: Path, tmp_path: Path) -> None:
    alone = finish(Path("smoke"), data, tmp_path)["network"]
    together = load_checkpoint(ranks / "last.ckpt")[1]["network"]
    assert any(not torch.equal(alone[name], weight) for name, weight in together.items())
