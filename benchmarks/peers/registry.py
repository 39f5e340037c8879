"""All contenders by name, each with the environment of its process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from benchmarks.peers.contender import Contender

KEEP = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=4294967296"
    ":glibc.malloc.trim_threshold=8589934592"
}
"""glibc's malloc keeps freed memory instead of returning it to the system, page by page."""
UNCACHED = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}


@dataclass(frozen=True)
class Row:
    """How a contender is made.

    Attributes:
        title: In tables.
        module: Of benchmarks.peers.
        name: Of the class.
        arguments: For it.
        environment: What its process adds to the environment.
    """

    title: str
    module: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def made(self) -> Contender:
        """The contender, not loaded yet."""
        made: Contender = getattr(import_module(f"benchmarks.peers.{self.module}"), self.name)(
            **self.arguments
        )
        return made


OURS, TORCH, WINDOWS = ("ours", "Ours"), ("torch_script", "TorchScript"), "monai_windows"
CONTENDERS = {
    "ours": Row("fastbts, default", *OURS),
    "ours-int8": Row("fastbts, int8", *OURS, {"precision": "int8"}),
    "ours-bf16": Row("fastbts, bf16", *OURS, {"precision": "bf16"}),
    "ours-fp32": Row("fastbts, fp32", *OURS, {"precision": "fp32"}),
    "ours-once": Row("fastbts, default, not warmed up", *OURS, {"warm_up": False}),
    "ours-sliding": Row("fastbts, default, in windows", *OURS, {"mode": "sliding"}),
    "openvino-bf16": Row(
        "OpenVINO and NumPy, bf16", "openvino_plain", "PlainOpenVINO", {"precision": "bf16"}
    ),
    "openvino-fp32": Row(
        "OpenVINO and NumPy, fp32", "openvino_plain", "PlainOpenVINO", {"precision": "f32"}
    ),
    "onnxruntime": Row("ONNX Runtime and NumPy, fp32", "onnx_runtime", "OnnxRuntime"),
    "torch": Row("torch and NumPy, bf16", *TORCH, {"compiled": False}),
    "torch-tuned": Row(
        "torch and NumPy, bf16, malloc tuned (an expert's script)",
        *TORCH,
        {"compiled": False},
        KEEP,
    ),
    "compile": Row("torch.compile and NumPy, bf16", *TORCH, {"compiled": True}),
    "compile-tuned": Row(
        "torch.compile and NumPy, bf16, malloc tuned", *TORCH, {"compiled": True}, KEEP
    ),
    "compile-uncached": Row(
        "torch.compile and NumPy, bf16, never compiled before",
        *TORCH,
        {"compiled": True},
        KEEP | UNCACHED,
    ),
    "monai-fp32": Row("MONAI, windows, fp32", WINDOWS, "MonaiWindows", {"precision": "fp32"}),
    "monai-bf16": Row("MONAI, windows, bf16", WINDOWS, "MonaiWindows", {"precision": "bf16"}),
    "monai-one-window": Row(
        "MONAI, one window, bf16", WINDOWS, "MonaiWindows", {"precision": "bf16", "whole": True}
    ),
    "nnunet": Row("nnU-Net, fp32", "nnunet", "NnUnet"),
    "nnunet-whole": Row(
        "nnU-Net's predictor, whole image, fp32", "nnunet", "NnUnet", {"whole": True}
    ),
}
