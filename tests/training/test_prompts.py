import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastbts.spec import REGIONS
from tests.training.clips import T
from training.clip.encoder import ClipSource, load_clip
from training.clip.prompts import (
    Prompts,
    PromptsError,
    clip_prompts,
    load_prompts,
    main,
    orthonormal_prompts,
    region_texts,
    save_prompts,
    shuffled,
    vector_prompts,
)
from training.config import load_recipe
from training.loop.module import LitNetwork, recipe_prompts


def test_orthonormal_prompts_are_what_they_say() -> None:
    prompts = orthonormal_prompts(REGIONS, width=16)
    assert np.allclose(prompts.embeddings @ prompts.embeddings.T, np.eye(3), atol=1e-6)
    assert prompts.encoder == "orthonormal prompts, not CLIP"
    assert not np.allclose(
        prompts.embeddings, orthonormal_prompts(REGIONS, width=16, seed=1).embeddings
    )


def test_texts_fill_every_template_with_every_word() -> None:
    texts = region_texts()
    assert tuple(texts) == REGIONS
    assert {len(t) for t in texts.values()} == {6}
    assert (
        "contrast-enhancing tumour, hyperintense on T1 after gadolinium on brain MRI" in texts["ET"]
    )


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


@pytest.mark.parametrize("labels", [("ET", "TC", "WT"), ("WT", "TC"), ("wt", "tc", "et")])
def test_prompts_of_other_regions_or_in_another_order_are_refused(
    labels: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "prompts.npz"
    save_prompts(path, orthonormal_prompts(labels, width=16))
    got, way_out = (
        ", ".join(labels),
        r"order .* training/prompts\.yaml so, and make the file anew with python -m training\.prompts",
    )
    with pytest.raises(
        PromptsError,
        match=rf"prompts\.npz: one row each for {got}, expected WT, TC, ET in this order; {way_out}",
    ):
        recipe_prompts(replace(load_recipe("smoke-clip"), prompts=str(path)))


def test_clip_prompts_are_means_of_normed_embeddings(tiny_clip: str) -> None:
    clip = load_clip(ClipSource(tiny_clip, random=0))
    prompts = clip_prompts(clip, {"WT": ["oedema", "a glioma"], "TC": ["necrosis"]})
    assert prompts.labels == ("WT", "TC")
    assert prompts.texts == (("oedema", "a glioma"), ("necrosis",))
    one, two, three = clip.texts(["oedema", "a glioma", "necrosis"]).numpy()
    mean = (one + two) / 2
    assert np.allclose(prompts.embeddings, [mean / np.linalg.norm(mean), three], atol=1e-5)
    assert prompts.encoder == f"random weights, not CLIP ({tiny_clip}, seed 0)"


def test_shuffled_prompts_give_every_region_a_wrong_vector() -> None:
    right = orthonormal_prompts(REGIONS, [["a"], ["b"], ["c"]], width=8)
    wrong = shuffled(right)
    assert wrong.labels == right.labels
    assert wrong.texts == (("b",), ("c",), ("a",))
    assert np.array_equal(wrong.embeddings, right.embeddings[[1, 2, 0]])
    assert wrong.encoder == "orthonormal prompts, not CLIP, shuffled"


def test_vectors_by_hand(tmp_path: Path) -> None:
    """Rows (3, 4), (3, 0) and (3, -4): as they are, and centred to (0, 4), (0, 0), (0, -4), of which the middle one vanishes."""
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


def test_files_that_hold_no_vectors_are_refused(tmp_path: Path) -> None:
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


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["prompts", *map(str, arguments)])
    main()


def test_command_line(tiny_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, vectors = tmp_path / "prompts.npz", tmp_path / "vectors.pth"
    run(monkeypatch, "--out", out, "--model", tiny_clip, "--random", 3)
    prompts = load_prompts(out)
    assert prompts.labels == REGIONS
    assert prompts.texts == tuple(region_texts().values())
    assert prompts.embeddings.shape == (3, T)
    torch.save(torch.eye(4), vectors)
    run(monkeypatch, "--out", out, "--vectors", vectors, "--rows", 2, 0, 1, "--shuffle")
    assert load_prompts(out).embeddings.tolist() == np.eye(4)[[0, 1, 2]].tolist()
    assert load_prompts(out).encoder.endswith("rows 2 0 1, shuffled")
    with pytest.raises(SystemExit, match=r"error: .*none\.pt: cannot be read"):
        run(monkeypatch, "--out", tmp_path / "other.npz", "--weights", tmp_path / "none.pt")
    assert not (tmp_path / "other.npz").exists()
