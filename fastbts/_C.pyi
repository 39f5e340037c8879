"""C++ ops; `fastbts.ops` is their typed, documented face."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

HAS_CUDA: bool
_Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

def n_cuda_devices() -> int: ...
def brain_box(volume: NDArray[Any], n_threads: int) -> tuple[_Box, int, list[int], list[int]]: ...
def normalize(
    volume: NDArray[Any],
    box: _Box,
    percentiles: tuple[float, float],
    tensor: NDArray[Any],
    stats: NDArray[Any],
    n_threads: int,
) -> None: ...
def window(tensor: NDArray[Any], origins: NDArray[Any], out: NDArray[Any], n_threads: int) -> None: ...
def blend(
    logits: NDArray[Any],
    origins: NDArray[Any],
    weights: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    total: NDArray[Any],
    n_threads: int,
) -> None: ...
def label(
    logits: NDArray[Any],
    offset: tuple[int, int, int],
    box: _Box,
    thresholds: tuple[float, float, float],
    values: tuple[int, int, int],
    labels: NDArray[Any],
    n_threads: int,
) -> list[int]: ...
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
