"""Training with CLIP's image side: embeddings that teach the bridge, patch tokens added to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbts import OptionsError
from tests.training.clips import TOKENS, T
from tests.training.tiny import TINY, randomize_zeros
from training.clip.encoder import ClipError, ClipSource
from training.config import Recipe, RecipeError, StageConfig, load_recipe, parse_recipe
from training.data.cases import CropDataset, TrainingCase, to_batch
from training.data.teacher import teacher_for, token_reader
from training.export import export, training_record
from training.loop.checkpoint import load_checkpoint
from training.loop.module import TrainingModule
from training.model import UNet3d
from training.train import fit

IMAGE = torch.randn(2, 4, 32, 48, 32, generator=torch.Generator().manual_seed(1))
LABEL = torch.randint(
    0, 3, (2, 32, 48, 32), generator=torch.Generator().manual_seed(2), dtype=torch.uint8
)


def with_clip(tiny_clip: str, **widths: int) -> Recipe:
    smoke = load_recipe("smoke-clip")
    model = replace(smoke.model, semantic=replace(smoke.model.semantic, **widths))
    return replace(
        smoke,
        model=model,
        teacher=ClipSource(tiny_clip, random=0),
        slices=2,
        stages=(StageConfig(1, (32, 32, 32)),),
    )


@pytest.fixture
def cases() -> list[TrainingCase]:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (40, 40, 40), np.uint8)
    return [
        TrainingCase(name, rng.standard_normal((4, 40, 40, 40)).astype(np.float16), label)
        for name in ("a", "b")
    ]


def test_crops_carry_the_teacher_of_their_case(
    tiny_clip: str, cases: list[TrainingCase], tmp_path: Path
) -> None:
    recipe = replace(
        with_clip(tiny_clip, teacher_width=T), stages=(StageConfig(1, (32, 32, 32), batch=2),)
    )
    taught = teacher_for(recipe, cases, tmp_path)
    dataset = CropDataset(taught, recipe)
    _, _, teachers = to_batch([dataset[0], dataset[1]])
    assert teachers is not None
    assert teachers.shape == (2, 3, T)
    assert {t.numpy().tobytes() for t in teachers} == {
        case.teacher.tobytes() for case in taught if case.teacher is not None
    }
    assert to_batch([CropDataset(cases, recipe)[0]])[2] is None


def test_the_teacher_teaches_the_bridge(tiny_clip: str) -> None:
    """The teacher adds its loss, and only with it the bridge's linear layer gets a gradient."""
    recipe = replace(with_clip(tiny_clip, teacher_width=T), bridge_weight=1.0, warmup_steps=0)
    teacher = torch.eye(3, T).expand(2, 3, T)
    taught, alone = TrainingModule(recipe), TrainingModule(recipe)
    losses = []
    for module, given in ((taught, teacher), (alone, None)):
        torch.manual_seed(0)  # the same modalities dropped
        losses.append(module.loss(IMAGE, LABEL, given))
        losses[-1].backward()
    assert (losses[0] - losses[1]).item() == pytest.approx(1, abs=0.5), (
        "1 - cosine of unrelated vectors"
    )
    assert alone.network.bridge.teacher.weight.grad is None
    assert taught.network.bridge.teacher.weight.grad.any()


@pytest.mark.slow
def test_checkpoint_and_manifest_say_who_taught(
    tiny_clip: str, cases: list[TrainingCase], tmp_path: Path
) -> None:
    recipe = with_clip(tiny_clip, teacher_width=T)
    fit(recipe, teacher_for(recipe, cases, tmp_path / "cache"), tmp_path)
    checkpoint = tmp_path / "last.ckpt"
    loaded, state = load_checkpoint(checkpoint)
    assert loaded == recipe
    assert state["teacher"] == f"random weights, not CLIP ({tiny_clip}, seed 0)"
    assert training_record(checkpoint, loaded, state, "")["teacher"] == state["teacher"]


def test_patch_tokens_reach_the_logits_through_weights_that_begin_at_zero(tiny_clip: str) -> None:
    semantic = replace(TINY.semantic, bridge=True)
    torch.manual_seed(0)
    plain = UNet3d(replace(TINY, semantic=semantic)).eval()
    torch.manual_seed(0)
    network = UNet3d(replace(TINY, semantic=replace(semantic, token_width=TOKENS))).eval()
    read = token_reader(with_clip(tiny_clip, token_width=TOKENS))
    assert read is not None
    tokens = read(IMAGE)
    assert tokens.shape == (2, TOKENS, 4, 6, 4)
    with torch.no_grad():
        assert torch.equal(plain(IMAGE), network(IMAGE, tokens=tokens))
        randomize_zeros(network)
        assert (
            network(IMAGE, tokens=tokens) - network(IMAGE, tokens=0 * tokens)
        ).abs().max() > 1e-3
    with pytest.raises(ValueError, match="patch tokens missing"):
        network(IMAGE)
    with pytest.raises(ValueError, match="patch tokens given"):
        plain(IMAGE, tokens=tokens)


@pytest.mark.slow
def test_accuracy_mode_trains_but_is_not_exported(
    tiny_clip: str, cases: list[TrainingCase], tmp_path: Path
) -> None:
    network = fit(with_clip(tiny_clip, token_width=TOKENS), cases, tmp_path)
    assert network.bridge.tokens.weight.any(), "began at zero"
    with pytest.raises(OptionsError, match=r"train without model\.semantic\.token_width"):
        export(tmp_path / "last.ckpt", tmp_path / "engine.fbts")
    wrong = token_reader(with_clip(tiny_clip, token_width=5))
    assert wrong is not None
    with pytest.raises(
        ClipError, match=f"patch tokens of width {TOKENS}, model.semantic.token_width is 5"
    ):
        wrong(IMAGE)
    assert token_reader(load_recipe("smoke-clip")) is None


def test_recipes_name_a_teacher_exactly_where_the_bridge_has_one() -> None:
    clip = {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}
    on = {"semantic": {"bridge": True, "teacher_width": 512}}
    assert (
        parse_recipe({"teacher": clip, "model": on}).teacher.encoder == "ViT-B-32 laion2b_s34b_b79k"
    )
    for values in (
        {"teacher": clip},
        {"model": on},
        {"teacher": clip, "model": {"semantic": {"teacher_width": 512}}},
    ):
        with pytest.raises(
            RecipeError,
            match=r"teacher: needs model\.semantic\.bridge with teacher_width or token_width",
        ):
            parse_recipe(values)
    with pytest.raises(RecipeError, match=r"exactly one of them; slices: 0, expected at least 1"):
        parse_recipe({"teacher": {"model": "ViT-B-32"}, "model": on, "slices": 0})
