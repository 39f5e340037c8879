"""From a case on disk to a prediction by the engine it trained: smoke recipes, in this process."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fastbts import MODALITIES, Segmenter, read_case
from fastbts.engine.file import read_engine_file
from training.config import Recipe, StageConfig, load_recipe
from training.data.cases import TrainingCase, engine_spec, prepare_case
from training.evaluate import evaluate
from training.export import export
from training.loop.callbacks import Terminated, ramped
from training.loop.checkpoint import (
    CheckpointError,
    averaged_weights,
    begin_decay,
    load_checkpoint,
    save_checkpoint,
)
from training.loop.module import TrainingModule, learning_rate
from training.model import UNet3d
from training.network_engine import NetworkEngine
from training.scores.tables import dice_rows, mean_row
from training.start import begin_from
from training.train import fit

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_cases: Callable[[Path], None]) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_cases(folder)
    return folder


@pytest.fixture(scope="module")
def cases(data: Path) -> list[TrainingCase]:
    spec = engine_spec(load_recipe("smoke"))
    return [prepare_case(data / name, spec, data / "cache") for name in ("case1", "case2")]


@pytest.fixture(scope="module", params=["smoke", "smoke-clip"])
def run(
    cases: list[TrainingCase],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fit(load_recipe(request.param), cases, folder)
    return folder


def short(steps: int) -> Recipe:
    return replace(
        load_recipe("smoke"), stages=(StageConfig(steps, (32, 32, 32)),), checkpoint_every=1
    )


def test_exported_engine_predicts(data: Path, run: Path, tmp_path: Path) -> None:
    about = {"license": "test", "data": "phantoms", "note": "two phantoms"}
    parity = export(run / "last.ckpt", tmp_path / "smoke.fbts", case=data / "case1", **about)
    assert parity["input"] == "case1"
    assert parity["max_logit_difference"] < 1e-3
    assert parity["label_agreement"] > 0.999, (
        "an untrained network's logits lie near 0, where rounding decides"
    )
    file = read_engine_file(tmp_path / "smoke.fbts")
    recipe = load_checkpoint(run / "last.ckpt")[0]
    assert file.spec.optional_modalities == (MODALITIES if recipe.name == "smoke-clip" else ())
    assert file.manifest["training"]["recipe"]["name"] == recipe.name
    assert file.manifest["training"]["steps"] == recipe.steps == 6
    assert len(file.manifest["training"]["loss_per_100_steps"]) == 1
    assert file.manifest["training"]["note"] == "two phantoms"
    content = (tmp_path / "smoke.fbts").read_bytes()
    assert str(ROOT).encode() not in content, "no path of the machine that exported"
    assert b"stack_trace" not in content
    assert file.manifest.get("prompts", {}).get("encoder") == (
        "orthonormal prompts, not CLIP" if recipe.name == "smoke-clip" else None
    )
    result = Segmenter(tmp_path / "smoke.fbts", precision="fp32").predict(read_case(data / "case1"))
    assert result.labels.shape == (96, 96, 64)
    assert set(np.unique(result.labels)) <= {0, 1, 2, 4}


def test_learning_rate_by_hand() -> None:
    recipe = load_recipe("smoke")  # 2 steps of warm-up, 6 in all, the last stage from the fourth on
    rates = [learning_rate(recipe, step) / recipe.learning_rate for step in range(7)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 2 / 3, 1 / 3, 0])
    endless = replace(recipe, stages=(replace(recipe.stages[0], steps=0), recipe.stages[1]))
    assert {learning_rate(endless, step) for step in (2, 1000, 1_000_000)} == {recipe.learning_rate}


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_moving_average_by_hand(norm: str, cases: list[TrainingCase], tmp_path: Path) -> None:
    """After one step the average is the network; after two it keeps 2/11 of it; later at most `decay`."""
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
    from training.data.cases import CropDataset, to_batch
    from training.loop.losses import supervised_loss

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
    for name, weight in network.state_dict().items():
        assert torch.equal(trained[name], weight), name


def test_validation_runs_the_products_path_on_the_averaged_network(
    data: Path, cases: list[TrainingCase], tmp_path: Path
) -> None:
    recipe = replace(short(4), validate_every=2)
    averaged = fit(recipe, cases, tmp_path, val=[data / "case3"]).eval()
    written = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss", "learning_rate", "step_s", "dice/WT", "dice/TC", "dice/ET", "dice/mean"} <= set(
        written.Tags()["scalars"]
    )
    assert len(written.Scalars("loss")) == 4
    logged = {region: written.Scalars(f"dice/{region}") for region in ("WT", "TC", "ET", "mean")}
    assert {len(scores) for scores in logged.values()} == {2}
    with torch.autocast("cpu", torch.bfloat16):
        segmenter = Segmenter(NetworkEngine(averaged, engine_spec(recipe)))
        expected = mean_row(dice_rows(evaluate(segmenter, [data / "case3"]).rows))
    assert {region: scores[-1].value for region, scores in logged.items()} == {
        region: pytest.approx(expected[region], abs=1e-6) for region in logged
    }


def terminate_at(step: int, log: Path) -> None:
    """Sends SIGTERM to this process once the log has that step."""

    def watch() -> None:
        while not (log.is_file() and f'"step": {step},' in log.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def test_an_endless_run_stops_continues_and_decays(
    data: Path, cases: list[TrainingCase], tmp_path: Path
) -> None:
    size, steady, shipped = (32, 32, 32), tmp_path / "steady", tmp_path / "shipped"
    stages = (StageConfig(0, size), StageConfig(500, size))
    recipe = replace(load_recipe("smoke"), stages=stages, checkpoint_every=10**6, validate_every=5)
    for step in (3, 7):
        terminate_at(step, steady / "log.jsonl")
        with pytest.raises(Terminated, match="the same command continues from there"):
            fit(recipe, cases, steady)
    saved = (steady / "last.ckpt").read_bytes()
    reached = load_checkpoint(steady / "last.ckpt")[1]["step"]
    assert reached >= 7
    ending = begin_decay(steady / "last.ckpt", shipped, 4)
    assert ending.steps == reached + 4
    assert load_checkpoint(shipped / "last.ckpt")[1]["step"] == reached
    assert begin_decay(steady / "last.ckpt", shipped, 9) == ending, "a begun one is continued"
    fit(ending, cases, shipped, val=[data / "case3"])
    assert (steady / "last.ckpt").read_bytes() == saved, "the endless run stays as it was"
    state = load_checkpoint(shipped / "last.ckpt")[1]
    assert state["step"] == reached + 4
    assert state["average"]["n_averaged"] == reached + 4, "the average goes on"
    assert {int(s["step"]) for s in state["optimizer_states"][0]["state"].values()} == {
        reached + 4
    }, "the optimiser goes on"
    written = EventAccumulator(str(shipped / "tensorboard")).Reload()
    rates = [s.value / recipe.learning_rate for s in written.Scalars("learning_rate")]
    assert rates == pytest.approx([0.75, 0.5, 0.25, 0], abs=1e-6), "each step logs the next one's"
    scores = [json.loads(line) for line in (shipped / "dice.jsonl").read_text().splitlines()]
    assert {"step", "WT", "TC", "ET", "mean"} <= scores[0].keys()


def test_validation_leaves_no_trace_in_the_weights(
    data: Path, cases: list[TrainingCase], tmp_path: Path
) -> None:
    recipe = replace(short(4), validate_every=2)
    watched = fit(recipe, cases, tmp_path / "a", val=[data / "case3"]).state_dict()
    alone = fit(recipe, cases, tmp_path / "b").state_dict()
    assert all(torch.equal(watched[name], weight) for name, weight in alone.items())


def test_network_engine_by_eye(
    voxel_segmenter: Segmenter, small_case: tuple[np.ndarray, np.ndarray]
) -> None:
    """A 1x1x1 convolution that computes what the tests' voxel engine does gives the same labels."""
    images, affine = small_case
    network = nn.Conv3d(4, 3, 1)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.fill_(-4.0)
        for region, modality in enumerate((0, 3, 2)):
            network.weight[region, modality] = 4.0
    segmenter = Segmenter(NetworkEngine(network, voxel_segmenter.engine.spec))
    ours, expected = (s.predict(images, affine=affine).labels for s in (segmenter, voxel_segmenter))
    assert len(np.unique(expected)) == 4
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_teacher_counts_where_the_data_give_one() -> None:
    recipe = load_recipe("smoke-clip")
    recipe = replace(
        recipe,
        model=replace(recipe.model, semantic=replace(recipe.model.semantic, teacher_width=5)),
    )
    module = TrainingModule(recipe)
    image, label = torch.randn(1, 4, 32, 32, 32), torch.randint(0, 3, (1, 32, 32, 32))
    without, taught = (
        module.training_step([image, label], 0),
        module.training_step([image, label, torch.ones(1, 3, 5)], 0),
    )
    assert 0 < abs((taught - without).item()) <= 2 * recipe.bridge_weight


def test_checkpoint_is_whole_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, recipe = tmp_path / "last.ckpt", load_recipe("smoke")
    save_checkpoint(path, recipe, 1)
    with pytest.raises(AttributeError):
        save_checkpoint(path, recipe, 2, broken=lambda: None)
    assert load_checkpoint(path)[1]["step"] == 1

    def fail(*_: Path) -> None:
        raise OSError("stopped before the new file gets its name")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="stopped"):
            save_checkpoint(path, recipe, 2)
    assert load_checkpoint(path)[1]["step"] == 1
    save_checkpoint(path, recipe, 3)
    assert load_checkpoint(path)[1]["step"] == 3
    assert load_checkpoint(tmp_path / "last.previous")[1]["step"] == 1


def test_unusable_checkpoints_are_refused(cases: list[TrainingCase], tmp_path: Path) -> None:
    recipe, path = load_recipe("smoke"), tmp_path / "last.ckpt"
    save_checkpoint(path, recipe, 4, network={}, average={})
    with pytest.raises(
        CheckpointError, match=r"last\.ckpt: holds weights but no state of Lightning's loops"
    ):
        fit(recipe, cases, tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"not a whole checkpoint.*last\.previous"):
        load_checkpoint(path)
    torch.save({"recipe": Path("x")}, path)
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        load_checkpoint(path)


def test_a_run_may_begin_from_another_ones_weights(
    cases: list[TrainingCase], run: Path, tmp_path: Path
) -> None:
    """Fresh mechanisms change nothing, so the network begins where the other ended; and it must have room for all weights."""
    recipe, state = load_checkpoint(run / "last.ckpt")
    more = replace(
        recipe.model, semantic=replace(recipe.model.semantic, bridge=True, bridge_width=4)
    )
    network, before = UNet3d(more).eval(), UNet3d(recipe.model).eval()
    before.load_state_dict(averaged_weights(state))
    begin_from(network, run / "last.ckpt")
    image = torch.randn(1, 4, 32, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network(image), before(image))
    with pytest.raises(CheckpointError, match=r"weights that the recipe's network has not"):
        begin_from(UNet3d(replace(more, widths=(4, 8))), run / "last.ckpt")
    still = replace(recipe, learning_rate=0.0, stages=(StageConfig(1, (32, 32, 32)),))
    trained = fit(still, cases, tmp_path, start=run / "last.ckpt").eval()
    for name, weight in trained.state_dict().items():
        torch.testing.assert_close(weight, averaged_weights(state)[name])
