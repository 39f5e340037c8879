"""Runs in processes of their own: killed, terminated, and on two ranks."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.training.clips import TINY_CLIP, T
from training.__main__ import main
from training.config import RECIPES, Recipe, load_recipe
from training.data.cases import CropDataset, TrainingCase, engine_spec, prepare_case, to_batch
from training.data.teacher import teacher_for
from training.loop.checkpoint import averaged_weights, load_checkpoint
from training.loop.module import TrainingModule
from training.train import fit

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ("case1", "case2")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread", "tiny_clip")]


def values_of(name: str, *steps: int, **changes: Any) -> dict[str, Any]:
    """A shipped recipe with these steps per stage, which validates, and saves at the end only.

    The shipped smoke recipes have 6 steps, too few to be killed several times.
    """
    values = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    stages = [stage | {"steps": n} for stage, n in zip(values["stages"], steps, strict=True)]
    return values | {"stages": stages, "validate_every": 9, "checkpoint_every": 1000} | changes


def semantic_values() -> dict[str, Any]:
    """Everything that a run must restore: a teacher, statistics of BatchNorm, much dropout."""
    teacher = {"model": TINY_CLIP, "random": 0}
    values = values_of("smoke-clip", 12, 18, teacher=teacher, slices=2)
    values["model"]["semantic"] |= {"modality_dropout": 0.5, "teacher_width": T}
    values["model"]["norm"] = "batch"
    return values


def write_recipe(folder: Path, values: dict[str, Any], **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def prepared(recipe: Recipe, data: Path) -> list[TrainingCase]:
    """The training cases. Caches their CLIP embeddings: other processes lack the tiny CLIP."""
    spec, cache = engine_spec(recipe), data / "cache"
    return teacher_for(recipe, [prepare_case(data / n, spec, cache) for n in TRAINING], cache)


def finish(recipe: Path, data: Path, run: Path) -> dict[str, Any]:
    """Trains to the end in this process; returns the last checkpoint."""
    loaded = load_recipe(recipe)
    fit(loaded, prepared(loaded, data), run, val=[data / "case3"])
    return load_checkpoint(run / "last.ckpt")[1]


def arguments(recipe: Path | str, data: Path, run: Path) -> list[str]:
    options = {"recipe": recipe, "data": data, "out": run, "cache": data / "cache", "threads": 1}
    return ["train", *(text for k, v in options.items() for text in (f"--{k}", str(v)))]


def run_program(command: list[str]) -> None:
    multiprocessing.set_start_method("fork", force=True)  # of the loader's process, as usual
    main(command)


def start(command: list[str]) -> BaseProcess:
    """The program in a process of its own, forked from one that has imported PyTorch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.train", "monai.transforms"])
    process = context.Process(target=run_program, args=(command,))
    process.start()
    return process


def steps_of(run: Path) -> list[int]:
    log = run / "log.jsonl"
    return (
        [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.is_file() else []
    )


def wait_for(step: int, is_running: Callable[[], bool], run: Path) -> None:
    while is_running() and step not in steps_of(run):
        time.sleep(0.005)
    assert is_running(), f"ended before step {step}"


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


def test_killed_and_continued_ends_with_the_same_bits(phantoms: Path, tmp_path: Path) -> None:
    """Killed right after some random steps: in the next step, in saving, in validating."""
    values, run = semantic_values(), tmp_path / "run"
    expected = finish(write_recipe(tmp_path, values), phantoms, tmp_path / "expected")
    recipe = write_recipe(tmp_path, values, checkpoint_every=1)
    n_steps, first_stage = load_recipe(recipe).steps, values["stages"][0]["steps"]
    steps = sorted(random.Random(0).sample(range(2, n_steps - 8), 4))
    assert steps[0] < first_stage < steps[-1], "killed in both stages"
    for step in steps:
        process = start(arguments(recipe, phantoms, run))
        wait_for(step, process.is_alive, run)
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert load_checkpoint(run / "last.ckpt")[1]["step"] >= step - 1
    assert_same_run(finish(recipe, phantoms, run), expected)
    repeated = len(steps_of(run)) - n_steps
    assert 0 <= repeated <= len(steps), "every start continued at the last checkpoint"


def test_sigterm_saves_and_exits(phantoms: Path, tmp_path: Path) -> None:
    n_steps = 200  # long enough to be stopped even if this process is slow
    stages = [{"steps": n_steps, "crop": [16, 16, 16]}]
    values = values_of("smoke", 1, 1) | {"stages": stages, "validate_every": 50}
    recipe, run = write_recipe(tmp_path, values), tmp_path / "run"
    command = [sys.executable, "-m", "training", *arguments(recipe, phantoms, run)]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for(3, lambda: process.poll() is None, run)
    assert not (run / "last.ckpt").exists()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    saved = load_checkpoint(run / "last.ckpt")[1]["step"]
    assert 3 <= saved == max(steps_of(run)) < n_steps
    message = f"SIGTERM: saved step {saved} in {run / 'last.ckpt'}; the same command continues"
    assert message in errors
    expected = finish(recipe, phantoms, tmp_path / "expected")
    assert_same_run(finish(recipe, phantoms, run), expected)
    assert steps_of(run) == list(range(1, n_steps + 1)), "no step was lost"


@pytest.fixture(scope="module")
def ranks(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke recipe on two ranks over gloo; every rank also writes its final network."""
    run = tmp_path_factory.mktemp("ranks")
    torchrun = ("torch.distributed.run", "--standalone", "--nproc_per_node=2", "--module")
    _, *options = arguments("smoke", phantoms, run)
    command = [sys.executable, "-m", *torchrun, "tests.training.two_ranks", *options]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=quiet, check=True, timeout=500, capture_output=True)
    return run


def test_two_ranks_end_with_equal_weights_and_one_checkpoint(ranks: Path) -> None:
    one, two = (torch.load(ranks / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(one, two)
    state = load_checkpoint(ranks / "last.ckpt")[1]
    assert state["step"] == 6
    assert_same(one, averaged_weights(state))
    assert steps_of(ranks) == [1, 2, 3, 4, 5, 6], "one log, by rank 0"
    assert {path.name for path in ranks.glob("last*")} == {"last.ckpt", "last.previous"}


def test_two_ranks_learn_from_crops_of_their_own(ranks: Path, phantoms: Path) -> None:
    """They end as one process with the mean of both ranks' gradients, on the crops listed here."""
    crops = (
        [[0], [2], [4], [6, 7], [10, 11], [14, 15]],
        [[1], [3], [5], [8, 9], [12, 13], [16, 17]],
    )
    recipe = load_recipe("smoke")
    module, dataset = (
        TrainingModule(recipe),
        CropDataset(prepared(recipe, phantoms), recipe, ranks=2),
    )
    made = module.configure_optimizers()
    for step in zip(*crops, strict=True):
        for numbers in step:
            batch = to_batch([dataset[i] for i in numbers])  # without autocast, as in the loader
            with torch.autocast("cpu", torch.bfloat16):
                loss = module.loss(*batch)
            (loss / 2).backward()
        torch.nn.utils.clip_grad_norm_(module.network.parameters(), 12.0)
        made["optimizer"].step()
        made["optimizer"].zero_grad()
        made["lr_scheduler"]["scheduler"].step()
    assert_same(load_checkpoint(ranks / "last.ckpt")[1]["network"], module.network.state_dict())
