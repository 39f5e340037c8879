"""CLIP: encoder, prompts, teacher."""
