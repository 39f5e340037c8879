"""Every op of `fastbts.ops`, as the tests of all ops take it.

The tests of instruction sets, kernels, registers, CUDA and DLPack, the devices that are not the
CPU and both benchmarks run over `OPS`. Adding an op adds one entry, in `image_ops` or
`semantic_ops`.
"""

from __future__ import annotations

from tests.ops.image_ops import IMAGE_OPS
from tests.ops.op import Op
from tests.ops.semantic_ops import SEMANTIC_OPS

ALL: tuple[Op, ...] = (*IMAGE_OPS, *SEMANTIC_OPS)

OPS = {op.name: op for op in ALL}
"""By name."""

CUDA_OPS: tuple[Op, ...] = tuple(op for op in ALL if op.on_cuda)
"""Those with a CUDA version; the others refuse arrays on a device."""
