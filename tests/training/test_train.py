"""Training in this process: steps, validation, SIGTERM, decay, first weights."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fastbts import Segmenter
from fastbts.scores.tables import dice_rows, mean_row
from tests.training.commands import terminate_at
from training.config import Recipe, StageConfig, load_recipe
from training.data.cases import CropDataset, TrainingCase, engine_spec, to_batch
from training.evaluate import evaluate
from training.loop.callbacks import Checkpoints, Terminated, ramped
from training.loop.checkpoint import (
    CheckpointError,
    averaged_weights,
    begin_decay,
    load_checkpoint,
    save_checkpoint,
)
from training.loop.losses import supervised_loss
from training.loop.module import TrainingModule, learning_rate
from training.model import UNet3d
from training.network_engine import NetworkEngine
from training.start import begin_from
from training.train import fit

pytestmark = pytest.mark.usefixtures("one_thread")


def short(steps: int) -> Recipe:
    return replace(
        load_recipe("smoke"), stages=(StageConfig(steps, (32, 32, 32)),), checkpoint_every=1
    )


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_moving_average_by_hand(norm: str, cases: list[TrainingCase], tmp_path: Path) -> None:
    """The average is the network after one step, keeps 2/11 of it after two, later `decay`."""
    old, new = torch.tensor([1.0]), torch.tensor([0.0])
    assert ramped(0.9)(old, new, 1).item() == pytest.approx(2 / 11)
    assert ramped(0.9)(old, new, 1000).item() == pytest.approx(0.9)
    recipe = short(2)
    averaged = fit(
        replace(recipe, model=replace(recipe.model, norm=norm)), cases, tmp_path
    ).state_dict()
    first, second = (load_checkpoint(tmp_path / name)[1] for name in ("last.previous", "last.ckpt"))
    assert (first["step"], second["step"]) == (1, 2)
    for name, weight in first["network"].items():
        assert torch.equal(first["average"][f"module.{name}"], weight), name
        counter = not weight.is_floating_point()  # of BatchNorm's batches
        newest = second["network"][name]
        expected = newest if counter else torch.lerp(newest, weight, 2 / 11)
        assert torch.allclose(second["average"][f"module.{name}"], expected, atol=1e-7), name
        assert torch.equal(averaged[name], second["average"][f"module.{name}"]), name


def test_step_is_that_of_a_plain_loop(cases: list[TrainingCase], tmp_path: Path) -> None:
    """One step written out: same seed, crop and rate, Adam with decay, gradients clipped at 12."""
    recipe = short(1)
    fit(recipe, cases, tmp_path)
    network = TrainingModule(recipe).network
    image, label, _ = to_batch([CropDataset(cases, recipe)[0]])
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(image)
    supervised_loss(outputs, label, recipe.side_weight).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 12.0)
    torch.optim.AdamW(
        network.parameters(), lr=learning_rate(recipe, 0), weight_decay=recipe.weight_decay
    ).step()
    trained = load_checkpoint(tmp_path / "last.ckpt")[1]["network"]
    for name, weight in network.state_dict().items():  # the fused optimiser rounds in its own way
        torch.testing.assert_close(trained[name], weight, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.slow
def test_validation_measures_the_average_and_changes_no_weight(
    phantoms: Path, cases: list[TrainingCase], tmp_path: Path
) -> None:
    """The logged Dice is that of the averaged network in `fastbts.Segmenter`."""
    recipe, val = replace(short(4), validate_every=2), [phantoms / "case3"]
    averaged = fit(recipe, cases, tmp_path / "a", val=val).eval()
    written = EventAccumulator(str(tmp_path / "a/tensorboard")).Reload()
    regions = ("WT", "TC", "ET", "mean")
    logged = {region: written.Scalars(f"dice/{region}") for region in regions}
    assert {len(scores) for scores in logged.values()} == {2}
    assert {"learning_rate", "step_s"} <= set(written.Tags()["scalars"])
    assert len(written.Scalars("loss")) == 4
    with torch.autocast("cpu", torch.bfloat16):
        segmenter = Segmenter(NetworkEngine(averaged, engine_spec(recipe)))
        expected = mean_row(dice_rows(evaluate(segmenter, val).rows))
    for region in regions:
        assert logged[region][-1].value == pytest.approx(expected[region], abs=1e-6)
    alone = fit(recipe, cases, tmp_path / "b").state_dict()
    assert all(torch.equal(averaged.state_dict()[n], weight) for n, weight in alone.items())


@pytest.mark.slow
def test_an_endless_run_stops_continues_and_decays(
    phantoms: Path, cases: list[TrainingCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, steady, shipped = (32, 32, 32), tmp_path / "steady", tmp_path / "shipped"
    stages = (StageConfig(0, size), StageConfig(500, size))
    recipe = replace(load_recipe("smoke"), stages=stages, checkpoint_every=10**6, validate_every=5)
    for step in (3, 7):
        with monkeypatch.context() as patch:
            terminate_at(step, patch)
            with pytest.raises(Terminated, match="the same command continues from there"):
                fit(recipe, cases, steady)
    saved = (steady / "last.ckpt").read_bytes()
    reached = load_checkpoint(steady / "last.ckpt")[1]["step"]
    assert reached == 7
    ending = begin_decay(steady / "last.ckpt", shipped, 4)
    assert ending.steps == reached + 4
    assert load_checkpoint(shipped / "last.ckpt")[1]["step"] == reached
    assert begin_decay(steady / "last.ckpt", shipped, 9) == ending, (
        "a decay that has begun is continued"
    )
    fit(ending, cases, shipped, val=[phantoms / "case3"])
    assert (steady / "last.ckpt").read_bytes() == saved, "the endless run does not change"
    state = load_checkpoint(shipped / "last.ckpt")[1]
    assert state["step"] == reached + 4
    assert state["average"]["n_averaged"] == reached + 4, "the average continues"
    assert {int(s["step"]) for s in state["optimizer_states"][0]["state"].values()} == {
        reached + 4
    }, "the optimiser continues"
    written = EventAccumulator(str(shipped / "tensorboard")).Reload()
    rates = [s.value / recipe.learning_rate for s in written.Scalars("learning_rate")]
    assert rates == pytest.approx([0.75, 0.5, 0.25, 0], abs=1e-6), (
        "each step logs the rate of the next"
    )
    scores = [json.loads(line) for line in (shipped / "dice.jsonl").read_text().splitlines()]
    assert {"step", "WT", "TC", "ET", "mean"} <= scores[0].keys()


def test_a_run_terminated_before_its_first_step_saves_that_step(
    cases: list[TrainingCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until training starts, Lightning handles the signal: it trains one step and saves nothing."""
    start = Checkpoints.on_train_start

    def terminated(self: Checkpoints, *arguments: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        start(self, *arguments)

    monkeypatch.setattr(Checkpoints, "on_train_start", terminated)
    with pytest.raises(Terminated, match="saved step 1 "):
        fit(short(4), cases, tmp_path)
    assert load_checkpoint(tmp_path / "last.ckpt")[1]["step"] == 1


def test_a_checkpoint_of_weights_only_is_not_continued(
    cases: list[TrainingCase], tmp_path: Path
) -> None:
    recipe = load_recipe("smoke")
    save_checkpoint(tmp_path / "last.ckpt", recipe, 4, network={}, average={})
    message = r"last\.ckpt: has weights but no state of Lightning's loops"
    with pytest.raises(CheckpointError, match=message):
        fit(recipe, cases, tmp_path)


def test_a_run_starts_from_weights_of_another(cases: list[TrainingCase], tmp_path: Path) -> None:
    """New mechanisms change nothing initially; all weights of the start must fit."""
    recipe, start = short(1), tmp_path / "start/last.ckpt"
    before = fit(recipe, cases, start.parent).eval()
    network = UNet3d(replace(load_recipe("smoke-clip").model, widths=recipe.model.widths)).eval()
    begin_from(network, start)
    image = torch.randn(1, 4, 32, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), before(image))
    message = "has weights that the recipe's network lacks or has in another shape: encoder"
    with pytest.raises(CheckpointError, match=message):
        begin_from(UNet3d(replace(recipe.model, widths=(4, 8))), start)
    still = replace(recipe, learning_rate=0.0)
    trained, state = fit(still, cases, tmp_path / "run", start=start), load_checkpoint(start)[1]
    for name, weight in trained.state_dict().items():
        torch.testing.assert_close(weight, averaged_weights(state)[name])
