"""What CLIP sees of a case, by a small real open_clip model with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.training.clips import TOKENS, T
from training.clip import teacher as clip_teacher
from training.clip.encoder import Clip, ClipError, ClipSource, load_clip
from training.clip.teacher import (
    coloured,
    patch_tokens,
    slice_places,
    teacher_for,
    token_volume,
    view_embeddings,
    view_pictures,
)
from training.config import Recipe, load_recipe
from training.data.cases import TrainingCase


@pytest.fixture(scope="module")
def clip(tiny_clip: str) -> Clip:
    return load_clip(ClipSource(tiny_clip, random=0))


@pytest.fixture(scope="module")
def recipe(tiny_clip: str) -> Recipe:
    smoke = load_recipe("smoke-clip")
    model = replace(smoke.model, semantic=replace(smoke.model.semantic, teacher_width=T))
    return replace(smoke, model=model, teacher=ClipSource(tiny_clip, random=0), slices=2)


@pytest.fixture(scope="module")
def case() -> TrainingCase:
    image = np.random.default_rng(0).standard_normal((4, 40, 48, 32)).astype(np.float16)
    return TrainingCase("one", image, np.zeros((40, 48, 32), np.uint8))


def test_colours_by_hand() -> None:
    """Stored order FLAIR, T1, T1ce, T2: red is FLAIR, green T1ce, blue T2; -2.5 is black, 4.5 white, background black."""
    image = torch.tensor([[-2.5, 0.0], [9.0, 0.0], [4.5, 0.0], [1.0, 0.0]]).reshape(4, 1, 1, 2)
    assert coloured(image).flatten(1).tolist() == [[0, 0], [1, 0], [0.5, 0]]


def test_places_by_hand() -> None:
    assert slice_places(8, 2) == [2, 6]
    assert slice_places(5, 5) == [0, 1, 2, 3, 4]
    assert slice_places(1, 3) == [0, 0, 0]


def test_pictures_are_upright_slices() -> None:
    """One white voxel high (Z) at the front (Y) on the right (X): near the top of every picture that shows it."""
    image = torch.full((4, 8, 6, 4), -2.5)
    image[:, 6, 5, 3] = 4.5
    axial, coronal, sagittal = view_pictures(image, 2)
    assert [tuple(p.shape) for p in (axial, coronal, sagittal)] == [
        (2, 3, 6, 4),
        (2, 3, 8, 4),
        (2, 3, 8, 6),
    ]
    assert axial[1, 0].nonzero().tolist() == [[0, 3]], "slice 6; row: front first; column: X"
    assert not axial[0].any()
    assert coronal.count_nonzero() == 0, "slices 1 and 4 do not meet it"
    assert view_pictures(image, 6)[1][5, 0].nonzero().tolist() == [[1, 3]], (
        "row: 6 of 0..7 from below"
    )
    assert sagittal[1, 0].nonzero().tolist() == [[1, 5]]


def test_embeddings_are_means_over_slices(clip: Clip) -> None:
    image = torch.randn(4, 40, 48, 32, generator=torch.Generator().manual_seed(0))
    embeddings = view_embeddings(clip, image, 3)
    by_hand = sum(clip.pictures(p[None])[0] for p in view_pictures(image, 3)[1]) / 3
    assert embeddings.shape == (3, T)
    assert torch.allclose(embeddings[1], functional.normalize(by_hand, dim=0), atol=1e-5)


def test_patch_tokens_are_those_that_open_clip_gives(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    tokens = patch_tokens(clip, pictures)
    assert tokens.shape == (2, TOKENS, 4, 4)
    monkeypatch.setattr(clip.model.visual, "output_tokens", True)
    _, listed = clip.model.visual(clip.fitted(pictures))
    assert torch.allclose(tokens.flatten(2).transpose(1, 2), listed, atol=1e-5)


@pytest.mark.parametrize("where", [(4, 4, 4), (28, 4, 12), (12, 44, 28)])
def test_tokens_lie_where_the_picture_changed(clip: Clip, where: tuple[int, int, int]) -> None:
    """A bright cube in a grey volume of four patches a side: of all tokens those at its place change most."""
    image = torch.full((4, 32, 48, 32), 0.5)
    grey = token_volume(clip, image, 4)
    d, h, w = where
    image[:, d - 4 : d + 4, h - 4 : h + 4, w - 4 : w + 4] = 4.5
    change = (token_volume(clip, image, 4) - grey).norm(dim=0)
    assert change.shape == (4, 6, 4)
    peak = np.unravel_index(int(change.argmax()), change.shape)
    assert tuple(int(i) for i in peak) == (d // 8, h // 8, w // 8)


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
    monkeypatch.setattr(clip_teacher, "load_clip", lambda source: pytest.fail("CLIP was loaded"))
    again = teacher_for(recipe, [case], tmp_path)[0].teacher
    assert again is not None
    assert np.array_equal(again, taught)


def test_no_teacher_leaves_the_cases_alone(case: TrainingCase, tmp_path: Path) -> None:
    assert teacher_for(load_recipe("smoke-clip"), [case], tmp_path) == [case]
    assert not list(tmp_path.iterdir())


def test_a_teacher_of_another_width_is_refused(
    recipe: Recipe, case: TrainingCase, tmp_path: Path
) -> None:
    narrow = replace(
        recipe,
        model=replace(recipe.model, semantic=replace(recipe.model.semantic, teacher_width=7)),
    )
    with pytest.raises(
        ClipError,
        match=r"one: teacher random weights.* length 24, expected model\.semantic\.teacher_width = 7",
    ):
        teacher_for(narrow, [case], tmp_path)
