"""MONAI: its normalisation and its sliding window over the whole image, as in its BraTS tutorials.

Its tutorials neither crop to the brain nor clip the intensities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Kit, Machine, Stages
from benchmarks.peers.numpy_steps import region_labels, zyx


class MonaiWindows:
    """`sliding_window_inference` with half of a window as overlap.

    Args:
        precision: "fp32", or "bf16" for autocast.
        whole: One window of 240 x 240 x 160 voxels, as in the bundle `brats_mri_segmentation`;
            otherwise the window that the network was trained on.
    """

    def __init__(self, precision: str, whole: bool = False) -> None:
        self._precision, self._whole = precision, whole
        self.stages_ms: dict[str, float] = {}

    def load(self, kit: Kit, machine: Machine) -> None:
        import monai
        import torch
        from monai.inferers import SlidingWindowInferer
        from monai.transforms import NormalizeIntensity

        from benchmarks.peers.torch_network import load_network, versions

        self._torch, self._spec, self._device = torch, kit.spec, machine.device
        self._network = load_network(kit, machine)
        roi = (160, 240, 240) if self._whole else self._spec.window
        self._windows = SlidingWindowInferer(roi, sw_batch_size=1, overlap=0.5)
        self._normalize = NormalizeIntensity(nonzero=True, channel_wise=True)
        self.about = versions(
            monai=monai.__version__,
            precision=self._precision,
            around=f"MONAI: z-score, windows of {'x'.join(map(str, roi))} with overlap 0.5 over "
            "the whole image",
        )

    def predict(self, images: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
        torch, clock = self._torch, Stages()
        bf16 = torch.autocast(self._device, torch.bfloat16, enabled=self._precision == "bf16")
        with torch.inference_mode(), bf16:
            with clock("prepare"):
                view = np.ascontiguousarray(zyx(images, affine), np.float32)
                tensor = self._normalize(torch.from_numpy(view).to(self._device))
            with clock("network"):
                logits = self._windows(tensor[None], self._network)[0].float().cpu()
        with clock("label"):
            regions = logits.numpy() >= self._spec.least_logits
            labels = np.zeros(images.shape[:0:-1], np.uint8).T
            zyx(labels, affine)[:] = region_labels(regions, self._spec)
        self.stages_ms = clock.ms
        return labels
