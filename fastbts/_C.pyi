"""C++ ops; `fastbts.ops` is their typed, documented face."""

from collections.abc import Sequence

from fastbts.ops.arrays import Array

HAS_CUDA: bool
ISA: str

_Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

def n_cuda_devices() -> int: ...
def cuda_synchronize(stream: int) -> None: ...
def brain_box(volume: Array, found: Array, n_threads: int, stream: int) -> None: ...
def normalize_scratch(n_modalities: int, n_voxels: int) -> int: ...
def normalize(
    volume: Array,
    box: _Box,
    percentiles: tuple[float, float],
    tensor: Array,
    stats: Array,
    scratch: Array | None,
    n_threads: int,
    stream: int,
) -> None: ...
def window(tensor: Array, origins: Array, out: Array, n_threads: int, stream: int) -> None: ...
def blend(
    logits: Array,
    origins: Array,
    weights: tuple[Array, Array, Array],
    total: Array,
    n_threads: int,
    stream: int,
) -> None: ...
def label(
    logits: Array,
    offset: tuple[int, int, int],
    box: _Box,
    thresholds: tuple[float, float, float],
    values: tuple[int, int, int],
    labels: Array,
    counts: Array,
    n_threads: int,
    stream: int,
) -> None: ...
def resample(tensor: Array, out: Array, n_threads: int, stream: int) -> None: ...
def resample_affine(
    tensor: Array,
    matrix: Sequence[Sequence[float]],
    nearest: bool,
    outside: float,
    out: Array,
    n_threads: int,
    stream: int,
) -> None: ...
def components(
    labels: Array,
    box: _Box,
    min_voxels: int,
    counts: Array,
    scratch: Array | None,
    n_threads: int,
    stream: int,
) -> None: ...
def semantic_project(tensor: Array, out: Sequence[Array], n_threads: int, stream: int) -> None: ...
def semantic_plane(
    planes: Sequence[Array],
    weights: Sequence[Array],
    out: Sequence[Array],
    n_threads: int,
    stream: int,
) -> None: ...
def semantic_lift(
    planes: Sequence[Array], tensor: Array, add: bool, n_threads: int, stream: int
) -> None: ...
def semantic_bridge(
    reduced: Array,
    weights: Sequence[Array],
    target: Array,
    planes: Sequence[Array],
    seen: Sequence[Array],
    n_threads: int,
    stream: int,
) -> None: ...
def semantic_attention(
    skip: Array,
    encoded: Array,
    decoded: Array,
    similarity: Array,
    w_x: Array,
    bias: Array,
    w_g: Array,
    w_s: Array,
    w_a: Array,
    strength: float,
    out: Array,
    n_threads: int,
    stream: int,
) -> None: ...
