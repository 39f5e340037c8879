"""The arithmetic in C++, on NumPy arrays or arrays on a CUDA device.

Around the network: `brain_box`, `normalize`, `window`, `blend`, `resample`, `resample_affine`
(`image.py`), `label`, `components`, `stray_core`, `expected_dice` (`regions.py`). Inside it:
`semantic_bridge`, `semantic_attention` (`semantic.py`). To register images: `mutual_information`
(`registration.py`), on the CPU only.
`fastbts.ops.reference` defines each op in a few lines of NumPy. The layers of the whole network,
for the native engine, are in `fastbts.ops.network`.

Axes are the network's, (D, H, W). Arrays are borrowed with their strides or refused, never
converted or copied. Images and labels may have any strides; network tensors must have a contiguous
last axis. `n_threads` is 0 for all CPUs this process may use; results have the same bits for any
number. The GIL is released.

On a CUDA device all arrays of a call must be on the same one (CuPy, torch, anything with DLPack or
`__cuda_array_interface__`). Network tensors may be float16 or bfloat16 there; weights stay float32.
Arrays of `resample` and of the semantic ops must be contiguous there. Ops are queued on the
`stream` and return at once. They allocate nothing (the caller gives outputs and scratch) and never
wait, so that a chain of them can be captured in a CUDA graph; only `brain_box` waits, as it returns
numbers. No GPU has run any of these kernels yet: they are compiled, and tested under an emulation
(csrc/README.md).

Every op raises `InputError` for an array it cannot use, `OptionsError` for boxes, sizes and numbers
that do not fit, and `DeviceError` for a device that cannot be used.
"""

from fastbts.ops import image, packing, regions, registration, semantic
from fastbts.ops.image import *  # noqa: F403
from fastbts.ops.packing import *  # noqa: F403
from fastbts.ops.regions import *  # noqa: F403
from fastbts.ops.registration import *  # noqa: F403
from fastbts.ops.semantic import *  # noqa: F403

__all__ = [
    *image.__all__,
    *packing.__all__,
    *regions.__all__,
    *registration.__all__,
    *semantic.__all__,
]
