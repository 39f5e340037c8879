"""CLIP's embeddings of cases, by a small open_clip model with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.clips import T
from training.clip.encoder import ClipError, ClipSource
from training.config import Recipe, load_recipe
from training.data import teacher
from training.data.cases import TrainingCase
from training.data.teacher import teacher_for


@pytest.fixture(scope="module")
def recipe(tiny_clip: str) -> Recipe:
    smoke = load_recipe("smoke-clip")
    model = replace(smoke.model, semantic=replace(smoke.model.semantic, teacher_width=T))
    return replace(smoke, model=model, teacher=ClipSource(tiny_clip, random=0), slices=2)


@pytest.fixture(scope="module")
def case() -> TrainingCase:
    image = np.random.default_rng(0).standard_normal((4, 40, 48, 32)).astype(np.float16)
    return TrainingCase("one", image, np.zeros((40, 48, 32), np.uint8))


def test_embeddings_are_cached_by_encoder_settings_and_image(
    recipe: Recipe, case: TrainingCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = teacher_for(recipe, [case], tmp_path)[0].teacher
    assert taught is not None
    assert taught.shape == (3, T)
    assert np.allclose(np.linalg.norm(taught, axis=1), 1, atol=1e-5)
    teacher_for(replace(recipe, slices=3), [case], tmp_path)
    teacher_for(replace(recipe, teacher=replace(recipe.teacher, random=1)), [case], tmp_path)
    teacher_for(recipe, [replace(case, image=case.image + np.float16(1))], tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    monkeypatch.setattr(teacher, "load_clip", lambda source: pytest.fail("CLIP was loaded"))
    again = teacher_for(recipe, [case], tmp_path)[0].teacher
    assert again is not None
    assert np.array_equal(again, taught)


def test_cases_are_unchanged_without_a_teacher(case: TrainingCase, tmp_path: Path) -> None:
    assert teacher_for(load_recipe("smoke-clip"), [case], tmp_path) == [case]
    assert not list(tmp_path.iterdir())


def test_teacher_of_another_width_is_refused(
    recipe: Recipe, case: TrainingCase, tmp_path: Path
) -> None:
    narrow = replace(
        recipe,
        model=replace(recipe.model, semantic=replace(recipe.model.semantic, teacher_width=7)),
    )
    with pytest.raises(
        ClipError,
        match=r"one: teacher random .* length 24, expected model\.semantic\.teacher_width = 7",
    ):
        teacher_for(narrow, [case], tmp_path)
