"""Loading CLIP through open_clip: the id of its weights, and weights that cannot be loaded."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from tests.training.clips import T
from training.clip.encoder import RANDOM, ClipError, ClipSource, load_clip


@pytest.mark.parametrize(
    ("source", "mistake"),
    [
        (ClipSource(), ""),
        (ClipSource("ViT-B-32", pretrained="openai"), ""),
        (ClipSource("ViT-B-32", random=0), ""),
        (ClipSource("ViT-B-32"), "with 0 of pretrained, weights and random"),
        (ClipSource("ViT-B-32", pretrained="openai", random=0), "with 2 of"),
        (ClipSource(weights="file.pt"), "model '' with 1 of"),
        (ClipSource("hf-hub:a/b", pretrained="openai"), "expected a plain name"),
    ],
)
def test_weights_have_exactly_one_origin(source: ClipSource, mistake: str) -> None:
    assert mistake in source.mistake()
    assert bool(mistake) == bool(source.mistake())


def test_id_names_the_weights(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"abc")
    assert (
        ClipSource("ViT-B-32", pretrained="laion2b_s34b_b79k").encoder
        == "ViT-B-32 laion2b_s34b_b79k"
    )
    assert (
        ClipSource("ViT-B-32", weights=str(file)).encoder
        == f"ViT-B-32 sha256:{hashlib.sha256(b'abc').hexdigest()}"
    )
    assert ClipSource("ViT-B-32", random=3).encoder == "random weights, not CLIP (ViT-B-32, seed 3)"
    with pytest.raises(ClipError, match=r"none\.pt: cannot be read"):
        _ = ClipSource("ViT-B-32", weights=str(tmp_path / "none.pt")).encoder


def test_seed_changes_only_the_random_weights(tiny_clip: str) -> None:
    state = torch.random.get_rng_state()
    one, same, other = (load_clip(ClipSource(tiny_clip, random=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    embeddings = one.texts(["a glioma", "oedema"])
    assert embeddings.shape == (2, T)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(2))
    assert torch.equal(embeddings, same.texts(["a glioma", "oedema"]))
    assert not torch.allclose(embeddings, other.texts(["a glioma", "oedema"]), atol=1e-2)
    assert RANDOM in one.encoder
    assert not any(p.requires_grad for p in one.model.parameters())


def test_pictures_are_normalised_to_the_model(tiny_clip: str) -> None:
    clip = load_clip(ClipSource(tiny_clip, random=0))
    assert clip.size == (32, 32)
    fitted = clip.fitted(torch.ones(1, 3, 40, 50))
    assert fitted.shape == (1, 3, 32, 32)
    # open_clip's default is OpenAI's mean and deviation: white is (1 - 0.48145466) / 0.26862954.
    assert torch.allclose(fitted[0, 0], torch.tensor(1.930336), atol=1e-5)
    pictures = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(clip.pictures(pictures).norm(dim=1), torch.ones(2))


def test_weights_of_a_file_are_used_and_named(tiny_clip: str, tmp_path: Path) -> None:
    random, file = load_clip(ClipSource(tiny_clip, random=5)), tmp_path / "weights.pt"
    torch.save(random.model.state_dict(), file)
    loaded = load_clip(ClipSource(tiny_clip, weights=str(file)))
    assert torch.equal(loaded.texts(["a glioma"]), random.texts(["a glioma"]))
    assert loaded.encoder == f"{tiny_clip} sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    file.write_bytes(b"no weights")
    with pytest.raises(
        ClipError, match=r"weights\.pt: cannot load .* download the weights elsewhere"
    ):
        load_clip(ClipSource(tiny_clip, weights=str(file)))


def test_unknown_models_and_tags_name_the_known_ones(tiny_clip: str) -> None:
    with pytest.raises(ClipError, match=r"expected one of open_clip\.list_models"):
        load_clip(ClipSource())
    with pytest.raises(ClipError, match=r"cannot load ViT-none"):
        load_clip(ClipSource("ViT-none", random=0))
    with pytest.raises(ClipError, match=r"known tags: .*laion2b_s34b_b79k"):
        load_clip(ClipSource("ViT-B-32", pretrained="mine"))
    with pytest.raises(ClipError, match=r"known tags: none; or give a file"):
        load_clip(ClipSource(tiny_clip, pretrained="openai"))


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ClipError,
        match=r"ViT-B-32 laion2b_s34b_b79k: .*download the weights elsewhere and give their file",
    ):
        load_clip(ClipSource("ViT-B-32", pretrained="laion2b_s34b_b79k"))


def test_missing_open_clip_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ClipError, match=r"pip install 'fastbts\[train\]'"):
        load_clip(ClipSource("ViT-B-32", random=0))
