"""Configuration of the network: the backbone and its semantic mechanisms."""

from __future__ import annotations

from dataclasses import dataclass, field

NORMS = ("instance", "batch", "frozen")


@dataclass(frozen=True)
class SemanticConfig:
    """The CLIP-guided mechanisms. One that is off has no module, weights or ONNX operation."""

    fusion: bool = False
    """Pixel level: brain mask, modality gate, modality dropout (`fusion.py`)."""
    bridge: bool = False
    """3D-2D semantic bridge at stride 8 (`bridge.py`)."""
    guidance: bool = False
    """Similarity map, bottleneck cross-attention, FiLM from the text table (`guidance.py`)."""
    attention: bool = False
    """Semantic attention on the skips at strides 2 and 4 (`attention.py`)."""
    head: bool = False
    """Text-conditioned head (`head.py`)."""
    text_width: int = 512
    """T, length of a text embedding: 512 for CLIP ViT-B/32."""
    width: int = 64
    """E, length of the network's own text vectors."""
    bridge_width: int = 32
    """R, channels of the bridge's planes."""
    gate_width: int = 16
    """Channels inside an attention gate."""
    teacher_width: int = 0
    """Length of the teacher's CLIP image embeddings; 0 for no teacher. Training only."""
    token_width: int = 0
    """Accuracy mode: width of CLIP's patch tokens, 768 for ViT-B/32; 0 for none. No export."""
    modality_dropout: float = 0.03
    """Chance, per modality and crop, that fusion hides a modality in training."""

    @property
    def uses_text(self) -> bool:
        """Whether the network reads the text table."""
        return self.guidance or self.head


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the backbone."""

    n_modalities: int = 4
    """Input channels: the recipe's modalities."""
    n_regions: int = 3
    """Output channels: the recipe's regions."""
    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels per level, finest first; each level halves the resolution."""
    patch: int = 2
    """Voxels per axis that the stem packs into channels and the head unpacks: 1 or 2."""
    norm: str = "instance"
    """"instance", "batch", or "frozen" for BatchNorm with constant statistics."""
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    """Mechanisms around the backbone; by default none."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Input voxels per voxel of each level, finest first."""
        return tuple(self.patch * 2**level for level in range(len(self.widths)))

    @property
    def stride(self) -> int:
        """Spatial sizes must be multiples of this."""
        return self.strides[-1]

    @property
    def semantic_level(self) -> int:
        """Level of bridge and similarity map: that of stride 8, or the deepest one before."""
        return max(level for level, stride in enumerate(self.strides) if stride <= 8)
