"""First weights of a run: from engine files, and from InstanceNorm to BatchNorm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from fastbts import OptionsError
from fastbts.engine.file import read_engine_file, write_engine_file
from tests.training.tiny import MECHANISMS, TINY, randomize_zeros
from training import start
from training.config import StageConfig, load_recipe
from training.data.cases import TrainingCase, engine_spec
from training.export import export, trained_network
from training.loop.checkpoint import CheckpointError, save_checkpoint
from training.model import SemanticConfig, UNet3d
from training.start import begin_from, engine_weights, measure_statistics, padded
from training.train import fit

pytestmark = pytest.mark.usefixtures("one_thread")


def average_of(network: UNet3d) -> dict[str, Any]:
    weights = {f"module.{name}": weight for name, weight in network.state_dict().items()}
    return {**weights, "n_averaged": torch.tensor(1)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, UNet3d]:
    """An engine file with BatchNorm and all mechanisms, and its network."""
    on = replace(TINY.semantic, teacher_width=0, **dict.fromkeys(MECHANISMS, True))
    model = replace(TINY, widths=(4, 8, 8), norm="batch", semantic=on)
    folder, recipe = tmp_path_factory.mktemp("engine"), replace(load_recipe("smoke"), model=model)
    network = randomize_zeros(UNet3d(model))
    network(torch.randn(1, 4, 64, 64, 64))  # statistics other than 0 and 1
    average = average_of(network)
    save_checkpoint(folder / "last.ckpt", recipe, 1, average=average)
    export(folder / "last.ckpt", folder / "tiny.fbts")
    return folder / "tiny.fbts", trained_network(recipe, {"average": average})


@pytest.mark.slow
def test_a_network_with_batch_norm_is_read_back(exported: tuple[Path, UNet3d]) -> None:
    """`test_semantic_export` does this for InstanceNorm."""
    path, network = exported
    begun, image = UNet3d(network.config), torch.randn(1, 4, 32, 32, 48)
    missing = begin_from(begun, path)
    assert {name.split(".")[0] for name in missing if "num_batches" not in name} == {"side_heads"}
    with torch.inference_mode():
        expected, logits = network(image), begun.eval()(image)
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.slow
def test_an_engine_of_another_graph_is_refused(
    exported: tuple[Path, UNet3d], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, path = read_engine_file(exported[0]), tmp_path / "changed.fbts"
    model = onnx.load_from_string(bytes(file.payloads["model.onnx"]))
    nodes = start._nodes(model)
    monkeypatch.setattr(start, "_numbered", lambda *_: nodes)  # instead of another export
    model.graph.node[-1].op_type = "Identity"
    content, training = {"model.onnx": model.SerializeToString()}, file.manifest["training"]
    write_engine_file(path, file.spec, content, training=training)
    message = r"changed\.fbts: \d+ nodes, expected these \d+; its graph is not what this"
    with pytest.raises(CheckpointError, match=message):
        engine_weights(path)
    write_engine_file(path, file.spec, content)
    with pytest.raises(CheckpointError, match=r"changed\.fbts: no training record"):
        engine_weights(path)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_statistics_of_one_case_make_batch_norm_an_instance_norm(
    norm: str, cases: list[TrainingCase]
) -> None:
    semantic = SemanticConfig()
    before = UNet3d(replace(TINY, norm="instance", semantic=semantic)).eval()
    after = UNet3d(replace(TINY, norm=norm, semantic=semantic)).eval()
    after.load_state_dict(after.state_dict() | before.state_dict())
    image = padded(cases[0], TINY.stride)
    with torch.inference_mode():
        expected, untouched = before(image), after(image)
    measure_statistics(after, cases[:1])
    with torch.inference_mode():
        logits = after(image)
    # BatchNorm keeps the unbiased variance: 1 % more at the coarsest level of some 100 voxels.
    assert (logits - expected).abs().max() < 0.02 * expected.abs().max()
    assert (untouched - expected).abs().max() > 0.1 * expected.abs().max()
    means = [m for name, m in after.state_dict().items() if name.endswith("running_mean")]
    measure_statistics(after, [cases[0]] * 2)
    again = [m for name, m in after.state_dict().items() if name.endswith("running_mean")]
    assert all(torch.equal(one, two) for one, two in zip(means, again, strict=True)), (
        "a mean, not a sum"
    )


def test_frozen_statistics_need_a_start(cases: list[TrainingCase], tmp_path: Path) -> None:
    recipe = load_recipe("smoke")
    frozen = replace(recipe, model=replace(recipe.model, norm="frozen"))
    with pytest.raises(OptionsError, match=r"model\.norm: frozen needs statistics.* give --start"):
        fit(frozen, cases[:1], tmp_path)


@pytest.mark.slow
def test_a_run_converts_the_norm_of_its_start(cases: list[TrainingCase], tmp_path: Path) -> None:
    still = replace(load_recipe("smoke"), learning_rate=0.0, stages=(StageConfig(1, (32, 32, 32)),))
    save_checkpoint(tmp_path / "start.ckpt", still, 1, average=average_of(UNet3d(still.model)))
    frozen = replace(still, model=replace(still.model, norm="frozen"))
    begun = fit(frozen, cases[:1], tmp_path / "run", start=tmp_path / "start.ckpt")
    expected = UNet3d(frozen.model)
    begin_from(expected, tmp_path / "start.ckpt")
    measure_statistics(expected, cases[:1])
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(begun.state_dict()[name], weight)


def test_complete_cases_are_padded_as_at_inference(cases: list[TrainingCase]) -> None:
    case, stride = cases[0], engine_spec(load_recipe("smoke")).stride
    image = padded(case, stride)[0].numpy()
    sizes = list(zip(image.shape[1:], case.label.shape, strict=True))
    assert all(0 <= size - n < stride and size % stride == 0 for size, n in sizes)
    inner = image[
        (slice(None), *(slice((size - n) // 2, (size - n) // 2 + n) for size, n in sizes))
    ]
    np.testing.assert_array_equal(inner, case.image.astype(np.float32))
    assert np.count_nonzero(image) == np.count_nonzero(inner)
