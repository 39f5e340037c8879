"""A network in PyTorch as an engine, so that the inference package can run it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastbts import EngineSpec


class NetworkEngine:
    """A network in eval mode as the engine of a `fastbts.Segmenter`.

    So validation takes the path of the product.

    Args:
        network: Maps images (B, M, D, H, W) to logits (B, K, D, H, W).
        spec: Preprocessing and shapes.
        read_tokens: Computes the patch tokens of images, for a network that reads them.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: EngineSpec,
        read_tokens: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.spec, self._network, self._read_tokens = spec, network, read_tokens
        self._device = next(network.parameters()).device
        self.text = (
            network.get_buffer("text").cpu().numpy()
            if "text" in dict(network.named_buffers())
            else None
        )
        self.description = {
            "backend": "torch",
            "device": str(self._device),
            "precision": "as in training",
        }

    def infer(
        self,
        tensor: NDArray[np.float32],
        text: NDArray[np.float32] | None = None,
        *,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """See `Engine.infer`."""
        image = torch.from_numpy(tensor).to(self._device)
        given = {} if text is None else {"text": torch.from_numpy(text).to(self._device)}
        with torch.inference_mode():
            if self._read_tokens is not None:
                given["tokens"] = self._read_tokens(image)
            logits: NDArray[np.float32] = self._network(image, **given).float().cpu().numpy()
        if out is None:
            return logits
        out[:] = logits
        return out

    def close(self) -> None:
        """Does nothing: the network belongs to its run."""
