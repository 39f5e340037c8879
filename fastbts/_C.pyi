"""
C++ ops of fastbts; use them through fastbts.ops.
"""

from __future__ import annotations

import collections.abc
import typing

__all__: list[str] = [
    "HAS_CUDA",
    "ISA",
    "activate",
    "blend",
    "brain_box",
    "components",
    "conv3d",
    "conv3d_bricks",
    "cuda_synchronize",
    "describe",
    "dlpack_capsule",
    "expected_dice",
    "fold_stats",
    "image_reads",
    "label",
    "limit_cpus",
    "linear",
    "mutual_information",
    "n_cuda_devices",
    "normalize",
    "normalize_scratch",
    "pack",
    "resample",
    "resample_affine",
    "semantic_attention",
    "semantic_bridge",
    "semantic_bridge_scratch",
    "similarity",
    "stray_core",
    "text_reads",
    "unpack",
    "window",
]

def activate(
    x: typing.Any, affine: typing.Any | None, out: typing.Any, n_threads: int, stream: int
) -> None: ...
def blend(
    logits: typing.Any,
    origins: typing.Any,
    weights: typing.Annotated[collections.abc.Sequence[typing.Any], "FixedSize(3)"],
    total: typing.Any,
    n_threads: int,
    stream: int,
) -> None: ...
def brain_box(volume: typing.Any, found: typing.Any, n_threads: int, stream: int) -> None: ...
def components(
    labels: typing.Any,
    box: typing.Annotated[
        collections.abc.Sequence[typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"]],
        "FixedSize(3)",
    ],
    min_voxels: int,
    counts: typing.Any,
    scratch: typing.Any | None,
    n_threads: int,
    stream: int,
) -> None: ...
def conv3d(
    x: typing.Any,
    tiles: typing.Any,
    affine: typing.Any | None,
    bias: typing.Any | None,
    stride: int,
    spread: int,
    brick: int,
    out: typing.Any,
    stats: typing.Any | None,
    n_threads: int,
    stream: int,
) -> None: ...
def conv3d_bricks(
    shape: typing.Annotated[collections.abc.Sequence[int], "FixedSize(3)"], brick: int
) -> int: ...
def cuda_synchronize(stream: int) -> None: ...
def describe(
    array: typing.Any, stream: int
) -> tuple[typing.Any, int, tuple[int, ...], tuple[int, ...], str, int, bool]: ...
def dlpack_capsule(
    owner: typing.Any,
    address: int,
    shape: collections.abc.Sequence[int],
    strides: collections.abc.Sequence[int],
    typestr: str,
    device: int,
    versioned: bool,
) -> typing.Any: ...
def expected_dice(
    logits: typing.Any,
    patch: int,
    offset: typing.Annotated[collections.abc.Sequence[int], "FixedSize(3)"],
    size: typing.Annotated[collections.abc.Sequence[int], "FixedSize(3)"],
    step: int,
    temperatures: collections.abc.Sequence[float],
    thresholds: collections.abc.Sequence[float],
    sums: typing.Any,
    n_threads: int,
    stream: int,
) -> None: ...
def fold_stats(
    stats: typing.Any,
    n_voxels: int,
    weight: typing.Any | None,
    bias: typing.Any | None,
    film: typing.Any | None,
    affine: typing.Any,
    mean: typing.Any | None,
    n_threads: int,
    stream: int,
) -> None: ...
def image_reads(
    query: typing.Any,
    key: typing.Any,
    value: typing.Any,
    out: typing.Any,
    n_threads: int,
    stream: int,
) -> None: ...
def label(
    logits: typing.Any,
    patch: int,
    offset: typing.Annotated[collections.abc.Sequence[int], "FixedSize(3)"],
    box: typing.Annotated[
        collections.abc.Sequence[typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"]],
        "FixedSize(3)",
    ],
    thresholds: typing.Annotated[collections.abc.Sequence[float], "FixedSize(3)"],
    values: typing.Annotated[collections.abc.Sequence[int], "FixedSize(3)"],
    labels: typing.Any,
    counts: typing.Any,
    n_threads: int,
    stream: int,
) -> None: ...
def limit_cpus(n: int) -> None: ...
def linear(
    x: typing.Any,
    weight: typing.Any,
    bias: typing.Any | None,
    add: typing.Any | None,
    activation: int,
    out: typing.Any,
    n_threads: int,
    stream: int,
) -> None: ...
def mutual_information(
    points: typing.Any,
    values: typing.Any,
    moving: typing.Any,
    maps: typing.Any,
    out: typing.Any,
    n_threads: int,
) -> None: ...
def n_cuda_devices() -> int: ...
def normalize(
    volume: typing.Any,
    box: typing.Annotated[
        collections.abc.Sequence[typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"]],
        "FixedSize(3)",
    ],
    percentiles: typing.Annotated[collections.abc.Sequence[float], "FixedSize(2)"],
    patch: int,
    gate: typing.Any | None,
    gate_bias: typing.Any | None,
    background: typing.Any | None,
    step: float,
    tensor: typing.Any,
    stats: typing.Any,
    scratch: typing.Any | None,
    n_threads: int,
    stream: int,
) -> None: ...
def normalize_scratch(n_modalities: int, n_voxels: int) -> int: ...
def pack(
    volume: typing.Any,
    patch: int,
    gate: typing.Any | None,
    gate_bias: typing.Any | None,
    background: typing.Any | None,
    step: float,
    out: typing.Any,
    scratch: typing.Any | None,
    n_threads: int,
    stream: int,
) -> None: ...
def resample(tensor: typing.Any, out: typing.Any, n_threads: int, stream: int) -> None: ...
def resample_affine(
    tensor: typing.Any,
    matrix: typing.Annotated[
        collections.abc.Sequence[typing.Annotated[collections.abc.Sequence[float], "FixedSize(4)"]],
        "FixedSize(3)",
    ],
    nearest: bool,
    outside: float,
    out: typing.Any,
    n_threads: int,
    stream: int,
) -> None: ...
def semantic_attention(
    skip: typing.Any,
    encoded: typing.Any,
    decoded: typing.Any,
    similarity: typing.Any,
    w_x: typing.Any,
    bias: typing.Any,
    w_g: typing.Any,
    w_s: typing.Any,
    w_a: typing.Any,
    strength: float,
    out: typing.Any,
    n_threads: int,
    stream: int,
) -> None: ...
def semantic_bridge(
    x: typing.Any,
    reduced: typing.Any,
    conv: typing.Any,
    bias: typing.Any,
    axis_bias: typing.Any,
    expand: typing.Any,
    out: typing.Any,
    scratch: typing.Any | None,
    n_threads: int,
    stream: int,
) -> None: ...
def semantic_bridge_scratch(
    reduced: typing.Annotated[collections.abc.Sequence[int], "FixedSize(5)"], n_channels: int
) -> int: ...
def similarity(
    image: typing.Any,
    text: typing.Any,
    scale: float,
    bias: typing.Any,
    out: typing.Any,
    n_threads: int,
    stream: int,
) -> None: ...
def stray_core(
    labels: typing.Any,
    box: typing.Annotated[
        collections.abc.Sequence[typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"]],
        "FixedSize(3)",
    ],
    values: typing.Annotated[collections.abc.Sequence[int], "FixedSize(3)"],
    min_voxels: int,
    counts: typing.Any,
    scratch: typing.Any | None,
    n_threads: int,
    stream: int,
) -> None: ...
def text_reads(
    query: typing.Any,
    key: typing.Any,
    value: typing.Any,
    out: typing.Any,
    scratch: typing.Any,
    n_threads: int,
    stream: int,
) -> None: ...
def unpack(x: typing.Any, patch: int, out: typing.Any, n_threads: int, stream: int) -> None: ...
def window(
    tensor: typing.Any, origins: typing.Any, out: typing.Any, n_threads: int, stream: int
) -> None: ...

HAS_CUDA: bool
ISA: str
