"""Building blocks: voxel packing, convolution block, normalisation, layers that begin at zero."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Conv3d, nn.Linear)


def pack_voxels(x: Tensor, patch: int) -> Tensor:
    """Moves blocks of p^3 voxels into channels: (B, C, D, H, W) -> (B, C p^3, D/p, H/p, W/p)."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c, d // patch, patch, h // patch, patch, w // patch, patch)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(
        b, c * patch**3, d // patch, h // patch, w // patch
    )


def unpack_voxels(x: Tensor, patch: int) -> Tensor:
    """Inverse of `pack_voxels`: (B, C p^3, D, H, W) -> (B, C, D p, H p, W p)."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c // patch**3, patch, patch, patch, d, h, w)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(
        b, c // patch**3, d * patch, h * patch, w * patch
    )


def zeroed(layer: Layer) -> Layer:
    """Sets a layer's weights and bias to zero, so that its branch initially adds nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class FrozenBatchNorm3d(nn.BatchNorm3d):
    """BatchNorm with constant statistics: computes the same in training and at inference."""

    def __init__(self, n_channels: int, momentum: float) -> None:
        super().__init__(n_channels, momentum=momentum)
        self.train()  # a new module is in training mode, and Lightning leaves it there

    def train(self, mode: bool = True) -> FrozenBatchNorm3d:
        """Stays in eval mode."""
        super().train(False)
        return self


def norm_layer(norm: str, n_channels: int) -> nn.Module:
    """The normalisation that `UNetConfig.norm` names."""
    if norm == "instance":
        return nn.InstanceNorm3d(n_channels, affine=True)
    # Crops differ much from each other, so the statistics are averaged over many.
    kind = nn.BatchNorm3d if norm == "batch" else FrozenBatchNorm3d
    return kind(n_channels, momentum=0.02)


class ConvBlock(nn.Sequential):
    """(conv 3^3, norm, LeakyReLU) twice; the first convolution may stride."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1, norm: str = "instance") -> None:
        super().__init__(*self._unit(n_in, n_out, stride, norm), *self._unit(n_out, n_out, 1, norm))

    @staticmethod
    def _unit(n_in: int, n_out: int, stride: int, norm: str) -> tuple[nn.Module, ...]:
        # No convolution bias: the norm would subtract it again.
        return (
            nn.Conv3d(n_in, n_out, 3, stride=stride, padding=1, bias=False),
            norm_layer(norm, n_out),
            nn.LeakyReLU(0.01, inplace=True),
        )

    def forward(self, x: Tensor, film: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Runs the block.

        Args:
            x: (B, n_in, D, H, W).
            film: Relative scale and shift after the second norm, each (B, n_out, 1, 1, 1), or None.
        Returns:
            (B, n_out, D', H', W').
        """
        conv_1, norm_1, act_1, conv_2, norm_2, act_2 = self
        x = norm_2(conv_2(act_1(norm_1(conv_1(x)))))
        return act_2(x if film is None else x * (1 + film[0]) + film[1])
