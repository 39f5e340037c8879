import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbts.spec import REGIONS
from training.clip.encoder import ClipSource, load_clip
from training.clip.prompts import (
    Prompts,
    PromptsError,
    clip_prompts,
    load_prompts,
    orthonormal_prompts,
    region_texts,
    save_prompts,
    shuffled,
    vector_prompts,
)


def test_orthonormal_prompts_are_orthonormal() -> None:
    prompts = orthonormal_prompts(REGIONS, width=16)
    assert np.allclose(prompts.embeddings @ prompts.embeddings.T, np.eye(3), atol=1e-6)
    assert prompts.encoder == "orthonormal prompts, not CLIP"
    assert not np.allclose(
        prompts.embeddings, orthonormal_prompts(REGIONS, width=16, seed=1).embeddings
    )


def test_every_template_is_filled_with_every_description() -> None:
    texts = region_texts()
    assert tuple(texts) == REGIONS
    assert {len(t) for t in texts.values()} == {6}
    assert (
        "contrast-enhancing tumour, hyperintense on T1 after gadolinium on brain MRI" in texts["ET"]
    )


def test_prompts_survive_saving_and_loading(tmp_path: Path) -> None:
    prompts = orthonormal_prompts(REGIONS, [*region_texts().values()], width=16)
    save_prompts(tmp_path / "prompts.npz", prompts)
    loaded = load_prompts(tmp_path / "prompts.npz")
    assert loaded.about() == prompts.about()
    assert np.array_equal(loaded.embeddings, prompts.embeddings)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
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


def test_clip_prompts_are_means_of_normalised_embeddings(tiny_clip: str) -> None:
    clip = load_clip(ClipSource(tiny_clip, random=0))
    prompts = clip_prompts(clip, {"WT": ["oedema", "a glioma"], "TC": ["necrosis"]})
    assert prompts.labels == ("WT", "TC")
    assert prompts.texts == (("oedema", "a glioma"), ("necrosis",))
    one, two, three = clip.texts(["oedema", "a glioma", "necrosis"]).numpy()
    mean = (one + two) / 2
    assert np.allclose(prompts.embeddings, [mean / np.linalg.norm(mean), three], atol=1e-5)
    assert prompts.encoder == f"random weights, not CLIP ({tiny_clip}, seed 0)"


def test_shuffled_prompts_swap_the_vectors() -> None:
    right = orthonormal_prompts(REGIONS, [["a"], ["b"], ["c"]], width=8)
    wrong = shuffled(right)
    assert wrong.labels == right.labels
    assert wrong.texts == (("b",), ("c",), ("a",))
    assert np.array_equal(wrong.embeddings, right.embeddings[[1, 2, 0]])
    assert wrong.encoder == "orthonormal prompts, not CLIP, shuffled"


def test_vectors_by_hand(tmp_path: Path) -> None:
    """Rows (3, 4), (3, 0), (3, -4); centred they are (0, 4), (0, 0), (0, -4), one of length 0."""
    path = tmp_path / "vectors.pth"
    torch.save(torch.tensor([[9.0, 9.0], [3, 4], [3, 0], [3, -4]], dtype=torch.float16), path)
    prompts = vector_prompts(path, [1, 2, 3])
    assert np.allclose(prompts.embeddings, [[0.6, 0.8], [1, 0], [0.6, -0.8]])
    assert (
        prompts.encoder
        == f"vectors vectors.pth sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}, rows 1 2 3"
    )
    centred = vector_prompts(path, [1, 3], ("WT", "TC"), centre=True)
    assert np.allclose(centred.embeddings, [[0, 1], [0, -1]])
    assert centred.encoder.endswith("rows 1 3, centred")
    with pytest.raises(PromptsError, match="normalise the embeddings"):
        vector_prompts(path, [1, 2, 3], centre=True)


def test_files_without_vectors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.pth"
    torch.save(torch.eye(4), path)
    with pytest.raises(PromptsError, match=r"rows \[1, 2, 4\], got \(4, 4\)"):
        vector_prompts(path, [1, 2, 4])
    torch.save({"rows": [1]}, path)
    with pytest.raises(PromptsError, match="got dict"):
        vector_prompts(path, [0, 1, 2])
    torch.save(Path("an object that could run code"), path)
    with pytest.raises(PromptsError, match="not a torch file of plain tensors"):
        vector_prompts(path, [0, 1, 2])
