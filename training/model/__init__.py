"""The networks, one idea per file."""

from training.model.config import NORMS, SemanticConfig, UNetConfig
from training.model.unet import Outputs, UNet3d

__all__ = ["NORMS", "Outputs", "SemanticConfig", "UNet3d", "UNetConfig"]
