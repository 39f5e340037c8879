import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastbts.engine import REGIONS
from training.config import load_recipe
from training.lit import LitNetwork, recipe_prompts
from training.prompts import Prompts, PromptsError, load_prompts, orthonormal_prompts, region_texts, save_prompts


def test_orthonormal_prompts_are_what_they_say() -> None:
    prompts = orthonormal_prompts(REGIONS, width=16)
    assert np.allclose(prompts.embeddings @ prompts.embeddings.T, np.eye(3), atol=1e-6)
    assert prompts.encoder == "orthonormal prompts, not CLIP"
    assert not np.allclose(prompts.embeddings, orthonormal_prompts(REGIONS, width=16, seed=1).embeddings)


def test_texts_fill_every_template_with_every_word() -> None:
    texts = region_texts()
    assert tuple(texts) == REGIONS
    assert {len(t) for t in texts.values()} == {6}
    assert "contrast-enhancing tumour, hyperintense on T1 after gadolinium on brain MRI" in texts["ET"]


def test_a_file_gives_back_the_prompts(tmp_path: Path) -> None:
    prompts = orthonormal_prompts(REGIONS, [*region_texts().values()], width=16)
    save_prompts(tmp_path / "prompts.npz", prompts)
    loaded = load_prompts(tmp_path / "prompts.npz")
    assert loaded.about() == prompts.about()
    assert np.array_equal(loaded.embeddings, prompts.embeddings)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.npz"
    about = orthonormal_prompts(REGIONS, width=16).about()
    path.write_bytes(b"no zip")
    with pytest.raises(PromptsError, match="not a prompts file"):
        load_prompts(path)
    np.savez(path, embeddings=np.eye(3, 16, dtype=np.float32), about=np.array(json.dumps(about)))
    with pytest.raises(PromptsError, match="expected " + about["sha256"]):
        load_prompts(path)
    with pytest.raises(PromptsError, match="normalise the embeddings"):
        Prompts(("WT",), ((),), np.full((1, 4), 2.0, np.float32), "test")


def test_the_recipe_decides_on_the_prompts(tmp_path: Path) -> None:
    assert recipe_prompts(load_recipe("smoke")) is None
    recipe = replace(load_recipe("smoke-clip"), prompts=str(tmp_path / "prompts.npz"))
    mine = Prompts(REGIONS, ((),) * 3, np.eye(3, 16, dtype=np.float32), "mine")
    save_prompts(tmp_path / "prompts.npz", mine)
    assert np.array_equal(LitNetwork(recipe).network.get_buffer("text").numpy(), mine.embeddings)
    save_prompts(tmp_path / "prompts.npz", orthonormal_prompts(REGIONS, width=8))
    with pytest.raises(PromptsError, match=r"expected \(3, 16\)"):
        recipe_prompts(recipe)
