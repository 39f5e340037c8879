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

from tests.training.clips import TINY_CLIP, T
from training.config import RECIPES, Recipe, load_recipe
from training.data.cases import CropDataset, TrainingCase, engine_spec, prepare_case, to_batch
from training.data.teacher import teacher_for
from training.loop.checkpoint import load_checkpoint
from training.loop.module import TrainingModule
from training.train import fit

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def lengthened(
    name: str, *steps: int, semantic: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """The values of a shipped recipe with so many steps per stage, validating, and saving at the end only.

    Recipe `smoke` has 6 steps, which are over before five starts can be killed. More of them change nothing that a kill could
    break: weights, average, optimiser, schedule, place in the crops and in the stages, validation and random numbers are carried
    from step to step as in 6, only more often.
    """
    values = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    stages = [stage | {"steps": n} for stage, n in zip(values["stages"], steps, strict=True)]
    values["model"]["semantic"] = values["model"].get("semantic", {}) | (semantic or {})
    return values | {"stages": stages, "validate_every": 9, "checkpoint_every": 1000} | changes


RECIPE = lengthened("smoke", 20, 20)
# All that the random numbers of a step and the network may depend on: dropout in nearly every crop, lest a wrong draw go unseen.
SEMANTIC = {"modality_dropout": 0.5, "teacher_width": T}
CLIP_RECIPE = lengthened(
    "smoke-clip", 12, 18, semantic=SEMANTIC, teacher={"model": TINY_CLIP, "random": 0}, slices=2
)


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory, write_cases: Callable[[Path], None], tiny_clip: str
) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_cases(folder)
    return folder


def write_recipe(folder: Path, values: dict[str, Any], **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def prepared(recipe: Recipe, data: Path) -> list[TrainingCase]:
    """The training cases; their CLIP embeddings are from here on in the cache, as no other process knows the tiny CLIP."""
    cases = [
        prepare_case(data / name, engine_spec(recipe), data / "cache")
        for name in ("case1", "case2")
    ]
    return teacher_for(recipe, cases, data / "cache")


def finish(recipe: Path, data: Path, run: Path) -> dict[str, Any]:
    """Trains to the end in this process; returns the last checkpoint."""
    loaded = load_recipe(recipe)
    fit(loaded, prepared(loaded, data), run, val=[data / "case3"])
    return load_checkpoint(run / "last.ckpt")[1]


def start(recipe: Path, data: Path, run: Path) -> subprocess.Popen[str]:
    options = {"recipe": recipe, "data": data, "out": run, "cache": data / "cache", "threads": 1}
    command = [
        sys.executable,
        "-m",
        "training.train",
        *(text for k, v in options.items() for text in (f"--{k}", str(v))),
    ]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def steps_of(run: Path) -> list[int]:
    log = run / "log.jsonl"
    return (
        [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.is_file() else []
    )


def wait_for(step: int, process: subprocess.Popen[str], run: Path) -> None:
    while process.poll() is None and step not in steps_of(run):
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()[1]


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


@pytest.mark.parametrize(
    ("values", "n_kills"), [(RECIPE, 5), (CLIP_RECIPE, 3)], ids=["smoke", "smoke-clip"]
)
def test_killed_and_continued_ends_with_the_same_bits(
    values: dict[str, Any], n_kills: int, data: Path, tmp_path: Path
) -> None:
    """Killed wherever it is right after each of some steps drawn at random: in the next, in saving, in validating."""
    whole = finish(write_recipe(tmp_path, values), data, tmp_path / "whole")
    recipe, run = write_recipe(tmp_path, values, checkpoint_every=1), tmp_path / "run"
    first_stage, n_steps = values["stages"][0]["steps"], load_recipe(recipe).steps
    steps = sorted(random.Random(0).sample(range(2, n_steps - 8), n_kills))
    assert steps[0] < first_stage < steps[-1], "killed in both stages"
    for step in steps:
        process = start(recipe, data, run)
        wait_for(step, process, run)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert load_checkpoint(run / "last.ckpt")[1]["step"] >= step - 1
    assert_same_run(finish(recipe, data, run), whole)
    repeated = len(steps_of(run)) - n_steps
    assert 0 <= repeated <= n_kills, "every start went on at the last checkpoint"


def test_sigterm_saves_and_exits(data: Path, tmp_path: Path) -> None:
    n_steps = 200  # long enough to be stopped on the way, however late this process is
    recipe, run = (
        write_recipe(tmp_path, RECIPE, stages=[{"steps": n_steps, "crop": [32, 32, 32]}]),
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
    assert (
        f"SIGTERM: saved step {saved} in {run / 'last.ckpt'}; the same command continues from there"
        in errors
    )
    assert_same_run(finish(recipe, data, run), finish(recipe, data, tmp_path / "whole"))
    assert steps_of(run) == list(range(1, n_steps + 1)), "no step was lost"


@pytest.fixture(scope="module")
def ranks(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke recipe on two ranks over gloo, by torchrun; every rank also writes the network it ends with."""
    run = tmp_path_factory.mktemp("ranks")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "--module",
    ]
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
    assert_same(
        one,
        {
            name.removeprefix("module."): w
            for name, w in state["average"].items()
            if name != "n_averaged"
        },
    )
    assert steps_of(ranks) == [1, 2, 3, 4, 5, 6], "one log, by rank 0"
    assert {path.name for path in ranks.glob("last*")} == {"last.ckpt", "last.previous"}


def test_two_ranks_learn_from_crops_of_their_own(ranks: Path, data: Path) -> None:
    """They end where one process does that takes the mean of both ranks' gradients, on the crops written out here."""
    crops = (
        [[0], [2], [4], [6, 7], [10, 11], [14, 15]],
        [[1], [3], [5], [8, 9], [12, 13], [16, 17]],
    )
    recipe = load_recipe("smoke")
    module, dataset = TrainingModule(recipe), CropDataset(prepared(recipe, data), recipe, ranks=2)
    made = module.configure_optimizers()
    for step in zip(*crops, strict=True):
        for numbers in step:
            batch = to_batch(
                [dataset[i] for i in numbers]
            )  # outside autocast, as in the loader's process
            with torch.autocast("cpu", torch.bfloat16):
                loss = module.loss(*batch)
            (loss / 2).backward()
        torch.nn.utils.clip_grad_norm_(module.network.parameters(), 12.0)
        made["optimizer"].step()
        made["optimizer"].zero_grad()
        made["lr_scheduler"]["scheduler"].step()
    assert_same(load_checkpoint(ranks / "last.ckpt")[1]["network"], module.network.state_dict())
