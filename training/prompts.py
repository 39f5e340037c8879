"""Writes a file of prompts: `python -m training prompts --out prompts.npz --model ViT-B-32 ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastbts import OptionsError
from training.clip.encoder import ClipSource, load_clip
from training.clip.prompts import (
    Prompts,
    clip_prompts,
    region_texts,
    save_prompts,
    shuffled,
    vector_prompts,
)


def command(
    out: Annotated[Path, typer.Option(help="file to write, .npz")],
    model: Annotated[str, typer.Option(help="open_clip's name of the architecture")] = "ViT-B-32",
    pretrained: Annotated[
        str, typer.Option(help="tag of weights to download, such as laion2b_s34b_b79k")
    ] = "",
    weights: Annotated[str, typer.Option(help="local file of weights")] = "",
    random: Annotated[
        int | None, typer.Option(help="seed of random weights, to try the code; not CLIP")
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="torch file of vectors (N, T) instead of a model")
    ] = None,
    rows: Annotated[
        tuple[int, int, int] | None, typer.Option(help="rows of WT, TC, ET, with --vectors")
    ] = None,
    centre: Annotated[
        bool, typer.Option("--centre", help="subtract the rows' mean, with --vectors")
    ] = False,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="give each region another one's vector: the control")
    ] = False,
) -> None:
    """Write the text embeddings of the prompts."""
    n_origins = bool(pretrained) + bool(weights) + (random is not None) + (vectors is not None)
    if n_origins != 1:
        raise OptionsError(
            "expected exactly one of --pretrained, --weights, --random and --vectors, "
            f"got {n_origins}"
        )
    if vectors is not None:
        prompts = _of_vectors(vectors, rows, centre)
    else:
        source = ClipSource(model, pretrained, weights, -1 if random is None else random)
        prompts = clip_prompts(load_clip(source), region_texts())
    prompts = shuffled(prompts) if shuffle else prompts
    save_prompts(out, prompts)
    shape = prompts.embeddings.shape
    typer.echo(f"{out}: {', '.join(prompts.labels)}, embeddings {shape}, {prompts.encoder}")


def _of_vectors(path: Path, rows: tuple[int, int, int] | None, centre: bool) -> Prompts:
    if rows is None:
        raise OptionsError("--vectors: expected --rows with the rows of WT, TC and ET")
    return vector_prompts(path, rows, centre=centre)
