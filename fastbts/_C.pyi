"""C++ ops; `fastbts.ops` is their typed, documented face."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from fastbts.arrays import Array

HAS_CUDA: bool

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
    logits: Array, origins: Array, weights: tuple[Array, Array, Array], total: Array, n_threads: int, stream: int
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
def resample(tensor: NDArray[Any], out: NDArray[Any], n_threads: int) -> None: ...
def components(labels: NDArray[Any], box: _Box, min_voxels: int, n_threads: int) -> tuple[int, int, dict[int, int]]: ...
def semantic_project(tensor: NDArray[Any], z: NDArray[Any], y: NDArray[Any], x: NDArray[Any], n_threads: int) -> None: ...
def semantic_lift(
    z: NDArray[Any], y: NDArray[Any], x: NDArray[Any], tensor: NDArray[Any], add: bool, n_threads: int
) -> None: ...
def semantic_plane(
    planes: Sequence[NDArray[Any]],
    conv: NDArray[Any],
    bias: NDArray[Any],
    view: NDArray[Any],
    expand: NDArray[Any],
    out: Sequence[NDArray[Any]],
    n_threads: int,
) -> None: ...
def semantic_attention(
    skip: NDArray[Any],
    encoded: NDArray[Any],
    decoded: NDArray[Any],
    similarity: NDArray[Any],
    w_x: NDArray[Any],
    bias: NDArray[Any],
    w_g: NDArray[Any],
    w_s: NDArray[Any],
    w_a: NDArray[Any],
    strength: float,
    out: NDArray[Any],
    n_threads: int,
) -> None: ...
