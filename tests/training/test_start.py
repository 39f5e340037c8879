"""Where a run begins: engine files read back, and InstanceNorm turned into BatchNorm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from fastbts import EngineSpec
from fastbts.engine.file import read_engine_file, write_engine_file
from tests.training.tiny import MECHANISMS, TINY, randomize_zeros
from training.config import Recipe, StageConfig, load_recipe
from training.data.cases import TrainingCase, engine_spec, prepare_case
from training.export import export, trained_network
from training.loop.checkpoint import CheckpointError, save_checkpoint
from training.model import SemanticConfig, UNet3d
from training.start import begin_from, engine_weights, measure_statistics, padded
from training.train import fit

pytestmark = pytest.mark.usefixtures("one_thread")


def semantic_recipe(norm: str) -> Recipe:
    on = replace(TINY.semantic, teacher_width=0, **dict.fromkeys(MECHANISMS, True))
    return replace(load_recipe("smoke"), model=replace(TINY, norm=norm, semantic=on))


def average_of(network: UNet3d) -> dict[str, Any]:
    weights = {f"module.{name}": weight for name, weight in network.state_dict().items()}
    return {**weights, "n_averaged": torch.tensor(1)}


@pytest.fixture(scope="module", params=["instance", "batch"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, UNet3d]:
    """An engine, and the network that is in it."""
    folder, recipe = tmp_path_factory.mktemp("engine"), semantic_recipe(request.param)
    network = randomize_zeros(UNet3d(recipe.model))
    if request.param == "batch":
        network(torch.randn(1, 4, 64, 64, 64))  # statistics other than 0 and 1
    average = average_of(network)
    save_checkpoint(folder / "last.ckpt", recipe, 1, average=average)
    export(folder / "last.ckpt", folder / "tiny.fbts")
    return folder / "tiny.fbts", trained_network(recipe, {"average": average})


def test_an_engine_gives_its_network_back(exported: tuple[Path, UNet3d]) -> None:
    path, network = exported
    begun, image = UNet3d(network.config), torch.randn(1, 4, 32, 32, 48)
    fresh = begin_from(begun, path)
    assert {name.split(".")[0] for name in fresh if "num_batches" not in name} == {"side_heads"}
    with torch.inference_mode():
        expected, logits = network(image), begun.eval()(image)
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


def test_an_engine_of_another_graph_is_refused(
    exported: tuple[Path, UNet3d], tmp_path: Path
) -> None:
    file = read_engine_file(exported[0])
    model = onnx.load_from_string(bytes(file.payloads["model.onnx"]))
    model.graph.node[-1].op_type = "Identity"
    training = file.manifest["training"]
    changed, bare = tmp_path / "changed.fbts", tmp_path / "bare.fbts"
    write_engine_file(
        changed, file.spec, {"model.onnx": model.SerializeToString()}, training=training
    )
    with pytest.raises(
        CheckpointError,
        match=r"changed\.fbts: \d+ nodes, expected these \d+; its graph is not what this",
    ):
        engine_weights(changed)
    write_engine_file(bare, file.spec, {"model.onnx": bytes(file.payloads["model.onnx"])})
    with pytest.raises(CheckpointError, match=r"bare\.fbts: no training record"):
        engine_weights(bare)


@pytest.fixture(scope="module")
def case(
    tmp_path_factory: pytest.TempPathFactory, write_small_case: Callable[[int, Path], None]
) -> TrainingCase:
    folder = tmp_path_factory.mktemp("data")
    write_small_case(1, folder / "case1")
    return prepare_case(folder / "case1", EngineSpec(), folder / "cache")


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_statistics_of_one_case_make_batch_norm_an_instance_norm(
    norm: str, case: TrainingCase
) -> None:
    semantic = SemanticConfig()
    before = UNet3d(replace(TINY, norm="instance", semantic=semantic)).eval()
    after = UNet3d(replace(TINY, norm=norm, semantic=semantic)).eval()
    after.load_state_dict(after.state_dict() | before.state_dict())
    image = padded(case, TINY.stride)
    with torch.inference_mode():
        expected, untouched = before(image), after(image)
    measure_statistics(after, [case])
    with torch.inference_mode():
        logits = after(image)
    # The kept variance is the unbiased one: at the coarsest level, of some 100 voxels, that is 1 %.
    assert (logits - expected).abs().max() < 0.02 * expected.abs().max()
    assert (untouched - expected).abs().max() > 0.1 * expected.abs().max()
    means = [m for name, m in after.state_dict().items() if name.endswith("running_mean")]
    measure_statistics(after, [case, case])
    again = [m for name, m in after.state_dict().items() if name.endswith("running_mean")]
    assert all(torch.equal(one, two) for one, two in zip(means, again, strict=True)), (
        "a mean, not a sum"
    )


def test_a_run_converts_the_norm_of_its_start(case: TrainingCase, tmp_path: Path) -> None:
    still = replace(load_recipe("smoke"), learning_rate=0.0, stages=(StageConfig(1, (32, 32, 32)),))
    save_checkpoint(tmp_path / "start.ckpt", still, 1, average=average_of(UNet3d(still.model)))
    frozen = replace(still, model=replace(still.model, norm="frozen"))
    begun = fit(frozen, [case], tmp_path / "run", start=tmp_path / "start.ckpt")
    expected = UNet3d(frozen.model)
    begin_from(expected, tmp_path / "start.ckpt")
    measure_statistics(expected, [case])
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(begun.state_dict()[name], weight)


def test_whole_cases_are_padded_as_at_inference(case: TrainingCase) -> None:
    stride = engine_spec(load_recipe("smoke")).stride
    image = padded(case, stride)[0].numpy()
    assert all(
        0 <= padded - n < stride
        for padded, n in zip(image.shape[1:], case.label.shape, strict=True)
    )
    d, h, w = ((p - n) // 2 for p, n in zip(image.shape[1:], case.label.shape, strict=True))
    inner = image[:, d:, h:, w:][
        :, : case.label.shape[0], : case.label.shape[1], : case.label.shape[2]
    ]
    np.testing.assert_array_equal(inner, case.image.astype(np.float32))
    assert np.count_nonzero(image) == np.count_nonzero(inner)
