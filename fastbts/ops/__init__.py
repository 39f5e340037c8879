"""The arithmetic in C++. Around the network: `brain_box`, `normalize`, `window`, `blend`, `label`, `resample`, `resample_affine`,
`components`.
Inside it: the semantic bridge (`semantic_bridge`; its steps `semantic_project`, `semantic_plane`, `semantic_lift`) and `semantic_attention`.

Axes are the network's, (D, H, W). Arrays are borrowed with their strides or refused, never silently converted or copied;
images and labels may have any strides, network tensors must have a contiguous last axis. `n_threads` is 0 for all CPUs
this process may use; results have the same bits whatever it is. The GIL is released. `fastbts.ops.reference` specifies each
op in a few lines of NumPy.

All ops also take arrays on a CUDA device (CuPy, torch, anything with DLPack or `__cuda_array_interface__`), all on the same
one, where network tensors may be float16 or bfloat16, too (weights stay float32); those of `resample` and of the semantic ops
must be contiguous there. They are queued on the `stream` and return at once; they allocate nothing (outputs and scratch are
given by the caller) and never wait, so that a chain of them can be captured in a CUDA graph. Only `brain_box` waits, as it
returns numbers. No GPU has run any of these kernels yet: they are compiled, and compared with `fastbts.ops.reference` under an
emulation (csrc/README.md).

Every op raises `InputError` for an array it cannot use, `OptionsError` for boxes, sizes and numbers that do not fit, and
`DeviceError` for a device that cannot be used.
"""

from fastbts.ops.image import (
    Box,
    BrainBox,
    Parts,
    RegionCounts,
    Size,
    blend,
    brain_box,
    components,
    label,
    n_cuda_devices,
    normalize,
    normalize_scratch,
    resample,
    resample_affine,
    window,
)
from fastbts.ops.semantic import (
    AttentionWeights,
    Planes,
    PlaneWeights,
    semantic_attention,
    semantic_bridge,
    semantic_lift,
    semantic_plane,
    semantic_project,
)

__all__ = [
    "AttentionWeights",
    "Box",
    "BrainBox",
    "Parts",
    "PlaneWeights",
    "Planes",
    "RegionCounts",
    "Size",
    "blend",
    "brain_box",
    "components",
    "label",
    "n_cuda_devices",
    "normalize",
    "normalize_scratch",
    "resample",
    "resample_affine",
    "semantic_attention",
    "semantic_bridge",
    "semantic_lift",
    "semantic_plane",
    "semantic_project",
    "window",
]
