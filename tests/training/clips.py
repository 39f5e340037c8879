"""A small open_clip model, made by its API from our own config: random weights, no download."""

from __future__ import annotations

import json
from pathlib import Path

TINY_CLIP = "fastbts-tiny"
T = 24
"""Length of its embeddings."""
TOKENS = 64
"""Width of its ViT."""
CONFIG = {
    "embed_dim": T,
    "vision_cfg": {
        "image_size": 32,
        "layers": 2,
        "width": TOKENS,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def register_tiny_clip(folder: Path) -> str:
    """Makes the tiny architecture known to open_clip; returns its name."""
    import open_clip

    path = folder / f"{TINY_CLIP}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    return TINY_CLIP
