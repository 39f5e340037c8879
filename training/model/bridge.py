"""3D-2D semantic bridge: projects the volume to planes, as CLIP sees it, and lifts the result back.

The bridge between the 3D network and 2D CLIP is the paper's (arXiv 2507.09966 v1/v2, abstract), the
1/3 mean over three orthogonal views its author's; the layers are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.blocks import zeroed

AXES = (2, 3, 4)
"""Axes of (B, C, D, H, W) that the three views project along: axial, coronal, sagittal."""


class SemanticBridge(nn.Module):
    """Adds the mean of three lifted views to a feature volume. Initially the identity.

    Args:
        n_channels: C.
        width: R, channels of a plane.
        teacher_width: Length of the teacher's embeddings; 0 for none.
        token_width: T', channels of the volume of CLIP's patch tokens; 0 for none.
    """

    def __init__(
        self, n_channels: int, width: int, teacher_width: int, token_width: int = 0
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(n_channels, width, 1)
        self.plane = nn.Conv2d(2 * width, width, 3, padding=1)
        self.view = nn.Parameter(torch.zeros(len(AXES), width, 1, 1))
        self.expand = zeroed(nn.Conv2d(width, n_channels, 1, bias=False))
        self.teacher = nn.Linear(width, teacher_width) if teacher_width else None
        self.tokens = (
            zeroed(nn.Conv3d(token_width, n_channels, 1, bias=False)) if token_width else None
        )

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Computes x + 1/3 (Q_z(x, y) + Q_y(x, z) + Q_x(y, z)).

        Q_d = W2 lrelu(conv2d([mean_d R; max_d R]) + view_d), R the reduced x; W2 begins at zero.

        Args:
            x: (B, C, D, H, W) at stride 8.
            tokens: CLIP's patch tokens, (B, T', D, H, W), if and only if there is a token width;
                added through weights that begin at zero.
        Returns:
            The same shape; and in training with a teacher the views' embeddings (B, 3, T), else
            None.
        Raises:
            ValueError: Tokens are missing, or not expected.
        """
        if (tokens is None) != (self.tokens is None):
            raise ValueError(
                f"patch tokens {'missing' if tokens is None else 'given'}: the bridge expects "
                "them if and only if token_width > 0; see training.clip.views.token_volume"
            )
        reduced = self.reduce(x)
        planes = [torch.cat([reduced.mean(axis), reduced.amax(axis)], 1) for axis in AXES]
        seen = [
            functional.leaky_relu(self.plane(p) + v, 0.01)
            for p, v in zip(planes, self.view, strict=True)
        ]
        # Lifting is broadcasting: a plane is repeated along the axis of its projection.
        views = [self.expand(s).unsqueeze(axis) for s, axis in zip(seen, AXES, strict=True)]
        lifted = x + (views[0] + views[1] + views[2]) / len(AXES)
        if self.tokens is not None:
            lifted = lifted + self.tokens(tokens)
        if self.teacher is None or not self.training:
            return lifted, None
        return lifted, self.teacher(torch.stack([s.mean((2, 3)) for s in seen], 1))
