"""What CLIP sees of a case, by a small open_clip model with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.training.clips import TOKENS, T
from training.clip.encoder import Clip, ClipSource, load_clip
from training.clip.views import (
    coloured,
    patch_tokens,
    slice_places,
    token_volume,
    view_embeddings,
    view_pictures,
)


@pytest.fixture(scope="module")
def clip(tiny_clip: str) -> Clip:
    return load_clip(ClipSource(tiny_clip, random=0))


def test_colours_by_hand() -> None:
    """Red is FLAIR, green T1ce, blue T2; -2.5 is black, 4.5 white, background black."""
    image = torch.tensor([[-2.5, 0.0], [9.0, 0.0], [4.5, 0.0], [1.0, 0.0]]).reshape(4, 1, 1, 2)
    assert coloured(image).flatten(1).tolist() == [[0, 0], [1, 0], [0.5, 0]]


def test_places_by_hand() -> None:
    assert slice_places(8, 2) == [2, 6]
    assert slice_places(5, 5) == [0, 1, 2, 3, 4]
    assert slice_places(1, 3) == [0, 0, 0]


def test_pictures_are_upright_slices() -> None:
    """One white voxel high (Z), in front (Y), right (X): near the top of each picture with it."""
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


def test_patch_tokens_equal_those_of_open_clip(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    tokens = patch_tokens(clip, pictures)
    assert tokens.shape == (2, TOKENS, 4, 4)
    monkeypatch.setattr(clip.model.visual, "output_tokens", True)
    _, listed = clip.model.visual(clip.fitted(pictures))
    assert torch.allclose(tokens.flatten(2).transpose(1, 2), listed, atol=1e-5)


@pytest.mark.parametrize("where", [(4, 4, 4), (28, 4, 12), (12, 44, 28)])
def test_tokens_change_where_the_image_changes(clip: Clip, where: tuple[int, int, int]) -> None:
    """A bright cube in a grey volume of four patches per side changes the tokens there most."""
    image = torch.full((4, 32, 48, 32), 0.5)
    grey = token_volume(clip, image, 4)
    d, h, w = where
    image[:, d - 4 : d + 4, h - 4 : h + 4, w - 4 : w + 4] = 4.5
    change = (token_volume(clip, image, 4) - grey).norm(dim=0)
    assert change.shape == (4, 6, 4)
    peak = np.unravel_index(int(change.argmax()), change.shape)
    assert tuple(int(i) for i in peak) == (d // 8, h // 8, w // 8)
