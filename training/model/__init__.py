"""The networks, one idea per file."""

from training.model.config import SemanticConfig, UNetConfig
from training.model.unet import Outputs, UNet3d

__all__ = ["Outputs", "SemanticConfig", "UNet3d", "UNetConfig"]
