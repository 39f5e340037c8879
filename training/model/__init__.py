"""The networks, one idea per file."""

from training.model.unet import UNet3d, UNetConfig

__all__ = ["UNet3d", "UNetConfig"]
