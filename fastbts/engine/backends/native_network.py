"""Runs the network of a plan with the ops of `fastbts.ops`, on a CUDA device or on the CPU.

Features are channels-last (1, D, H, W, C), float16 on a device. A convolution writes its raw result
and its sums; `fold_stats` makes scale and shift of them, and whoever reads the result applies both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fastbts import ops
from fastbts.device.arrays import DeviceArray
from fastbts.device.interface import Array, Workspace, row_major
from fastbts.device.runtime import Runtime
from fastbts.engine.backends.native_plan import Floats, Level, Plan, Unit
from fastbts.engine.backends.native_weights import Weights, upload
from fastbts.ops import network


class Features(NamedTuple):
    """Features x (1, D, H, W, C), to be read as leaky_relu(scale x + shift)."""

    x: Array
    affine: Array | None = None
    """Scale and shift, (1, 2, C); None: to be read as they are."""


class NativeNetwork:
    """A network on a workspace; serves one call at a time.

    Args:
        plan: The network.
        workspace: Where it runs. Its memory and the weights stay there.
        n_threads: On the CPU; 0 for all.
    """

    def __init__(self, plan: Plan, workspace: Workspace, n_threads: int = 0) -> None:
        self._plan, self._workspace, self._n_threads = plan, workspace, n_threads
        self._on_device = workspace.device != "cpu"
        self._type: DTypeLike = np.float16 if self._on_device else np.float32
        self._weights: Weights = upload(plan, workspace, self._type)
        self._arrays: dict[str, Array] = {}
        self._active_now = set[str]()  # names of `_active` that this case has computed
        self._stream: int | None = workspace.stream
        self._text: Floats | None = None
        workspace.wait()

    def run(
        self, tensor: Array, text: Floats | None, logits: Array, stream: int | None = None
    ) -> None:
        """Computes logits; on a device it enqueues the work and returns.

        Args:
            tensor: (B, M, D, H, W) float32, on the workspace's device.
            text: (K, T) float32, on the host; None for a network without text.
            logits: (B, K, D, H, W) float32, on the workspace's device, written.
            stream: CUDA stream; None for the workspace's. All calls must be on one stream.
        """
        self._stream = self._workspace.stream if stream is None else stream
        for b in range(len(tensor)):
            self._run_case(tensor[b : b + 1], text, logits[b : b + 1])

    def _run_case(self, tensor: Array, text: Floats | None, logits: Array) -> None:
        self._active_now.clear()
        table = self._table(text)
        skips, maps = self._encode(self._packed(tensor), table)
        bottleneck, table, pooled = self._guided(skips[-1], table)
        features = self._decode(bottleneck, skips, maps, self._trunk(pooled, table))
        self._head(features, pooled, table, logits)

    # Memory and layers.

    def _kept(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Array:
        """Memory of this network by name. It is of the workspace's stream: others wait for it."""
        found = self._arrays.get(name)
        if found is None or found.shape != shape:
            with self._alone():
                found = self._workspace.kept(f"network {name}", shape, dtype)
            self._arrays[name] = found
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """For work on the workspace's stream: what runs on another stream of ours ends before it,
        and begins after it."""
        foreign = self._on_device and self._stream != self._workspace.stream
        if foreign:
            Runtime()("cudaStreamSynchronize", self._stream)
        yield
        if foreign:
            self._workspace.wait()

    def _features(self, name: str, size: tuple[int, ...], n_channels: int) -> Array:
        return self._kept(name, (1, *size, n_channels), self._type)

    def _do(self, op: Any, *arrays: Any, **options: Any) -> None:
        op(*arrays, **options, n_threads=self._n_threads, stream=self._stream)

    def _linear(self, name: str, x: Array, weights: str, **options: Any) -> Array:
        """A linear layer of vectors (N, I)."""
        weight, bias = self._weights.linear[weights]
        out = self._kept(name, (x.shape[0], weight.shape[0]))
        self._do(network.linear, x, weight, bias=bias, out=out, **options)
        return out

    def _pointwise(self, name: str, x: Features, weights: str, **options: Any) -> Array:
        """A convolution 1^3."""
        tiles, bias = self._weights.tiles[weights], self._weights.biases[weights]
        out = self._features(name, x.x.shape[1:4], bias.shape[0])
        self._do(network.conv3d, x.x, tiles, affine=x.affine, bias=bias, out=out, **options)
        return out

    def _unit(self, name: str, x: Features, unit: Unit, film: Array | None = None) -> Features:
        tiles = self._weights.tiles[name]
        weight, bias = self._weights.linear[name]
        n_channels, size = unit.conv.shape[0], [(n - 1) // unit.stride + 1 for n in x.x.shape[1:4]]
        out = self._features(name, tuple(size), n_channels)
        d, h, w = size
        stats = self._stats(name, n_channels, (d, h, w), unit.stride)
        affine = self._kept(f"{name} affine", (1, 2, n_channels))
        self._do(
            network.conv3d, x.x, tiles, affine=x.affine, stride=unit.stride, out=out, stats=stats
        )
        self._do(
            network.fold_stats, stats, d * h * w, weight=weight, bias=bias, film=film, affine=affine
        )
        return Features(out, affine)

    def _stats(
        self, name: str, n_channels: int, size: tuple[int, int, int], stride: int = 1
    ) -> Array:
        """Room for the sums of a convolution."""
        n_bricks = network.conv3d_bricks(size, network.conv3d_brick(size, stride))
        return self._kept(f"{name} stats", (1, n_channels, n_bricks, 2))

    def _block(self, name: str, x: Features, level: Level, film: Array | None = None) -> Features:
        first, second = level.units
        return self._unit(f"{name}.1", self._unit(f"{name}.0", x, first), second, film)

    def _active(self, name: str, x: Features) -> Array:
        """Features that may be read as they are."""
        if x.affine is None:
            return x.x
        out = self._features(f"{name} active", x.x.shape[1:4], x.x.shape[4])
        if name not in self._active_now:
            self._active_now.add(name)
            self._do(network.activate, x.x, affine=x.affine, out=out)
        return out

    def _planes(self, name: str, x: Array) -> Array:
        """Features as (1, C, D, H, W): a view on a device, on the CPU a dense copy."""
        if self._on_device:
            return x.transpose(0, 4, 1, 2, 3)
        out = self._kept(f"{name} planes", (1, x.shape[4], *x.shape[1:4]))
        self._do(network.activate, x, out=out.transpose(0, 2, 3, 4, 1))
        return out

    def _from_planes(self, planes: Array, out: Array) -> None:
        """The way back, where `planes` is a copy."""
        if not self._on_device:
            self._do(network.activate, planes.transpose(0, 2, 3, 4, 1), out=out)

    # Parts of the network.

    def _packed(self, tensor: Array) -> Features:
        patch, fusion = self._plan.patch, self._weights.fusion
        n_modalities, *size = tensor.shape[1:]
        out = self._features("packed", tuple(n // patch for n in size), n_modalities * patch**3)
        if fusion is None:
            self._do(network.pack, tensor, patch, out=out)
        else:
            gate, gate_bias, background = fusion
            scratch = self._kept("gains", (2, 1, n_modalities))
            self._do(
                network.pack,
                tensor,
                patch,
                gate=gate,
                gate_bias=gate_bias,
                background=background,
                out=out,
                scratch=scratch,
            )
        return Features(out)

    def _table(self, text: Floats | None) -> Array | None:
        """Text vectors (K, E)."""
        if self._plan.guidance is None or text is None:
            return None
        if self._text is None or not np.array_equal(self._text, text):
            self._text = text.copy()
            with self._alone():
                self._arrays["text"] = self._workspace.put(self._text, "network text")
        return self._linear("table", self._arrays["text"], "table", activation="gelu")

    def _encode(self, x: Features, table: Array | None) -> tuple[list[Features], Array | None]:
        """Features of each level, finest first, and the similarity maps."""
        skips, maps = [], None
        for i, level in enumerate(self._plan.encoder):
            x = self._block(f"encoder.{i}", x, level)
            if self._plan.bridge is not None and i == self._plan.bridge[0]:
                x = self._bridged(x)
                maps = None if table is None else self._similarity(x, table)
            skips.append(x)
        return skips, maps

    def _bridged(self, x: Features) -> Features:
        assert self._weights.bridge is not None
        active = self._active("bridge", x)
        reduced = self._pointwise("reduced", Features(active), "reduce")
        out = self._features("bridged", active.shape[1:4], active.shape[4])
        planes, reduced_planes = self._planes("bridge", active), self._planes("reduced", reduced)
        out_planes = self._planes("bridged", out)
        n_scratch = ops.semantic_bridge_scratch(reduced_planes.shape, active.shape[4])
        self._do(
            ops.semantic_bridge,
            planes,
            reduced_planes,
            self._weights.bridge,
            out=out_planes,
            scratch=self._kept("bridge scratch", (n_scratch,)),
        )
        self._from_planes(out_planes, out)
        return Features(out)

    def _similarity(self, x: Features, table: Array) -> Array:
        guidance = self._plan.guidance
        assert guidance is not None
        image = self._pointwise("image", x, "image")
        text = self._linear("similarity text", table, "text")
        out = self._kept("maps", (1, table.shape[0], *x.x.shape[1:4]), self._type)
        bias = self._weights.arrays["similarity bias"]
        self._do(network.similarity, image, text, guidance.scale, bias, out=out)
        return out

    def _guided(
        self, x: Features, table: Array | None
    ) -> tuple[Features, Array | None, Array | None]:
        """Cross-attention: the bottleneck and the table, changed, and the bottleneck's mean."""
        if table is None:
            return x, None, None
        (n_k, n_e), n_channels, size = table.shape, x.x.shape[4], x.x.shape[1:4]
        n_voxels = int(np.prod(size))
        voxels = self._pointwise("attention", x, "voxels")
        query = self._linear("query", table, "text_asks")
        read = self._kept("read", (1, n_k, n_e))
        scratch = self._kept("attention weights", (1, n_k, n_voxels))
        key, value = voxels[..., :n_e], voxels[..., n_e : 2 * n_e]
        self._do(network.text_reads, query[None], key, value, out=read, scratch=scratch)
        table = self._linear("changed table", read[0], "to_text", add=table)
        keys, values = (self._linear(name, table, name) for name in ("text_key", "text_value"))
        joined = self._features("joined", size, n_channels + n_e)
        self._do(network.activate, x.x, affine=x.affine, out=joined[..., :n_channels])
        self._do(
            network.image_reads,
            voxels[..., 2 * n_e :],
            keys[None],
            values[None],
            out=joined[..., n_channels:],
        )
        # x + W read, as one product of [x, read] with [identity, W].
        stats = self._stats("bottleneck", n_channels, size)
        out = self._pointwise("bottleneck", Features(joined), "to_image", stats=stats)
        affine, pooled = (
            self._kept("unused", (1, 2, n_channels)),
            self._kept("pooled", (1, n_channels)),
        )
        self._do(network.fold_stats, stats, n_voxels, affine=affine, mean=pooled)
        return Features(out), table, pooled

    def _trunk(self, pooled: Array | None, table: Array | None) -> Array | None:
        """FiLM's hidden vector (1, E)."""
        if pooled is None or table is None:
            return None
        case = self._linear("film case", pooled, "trunk case")
        return self._linear(
            "trunk", reshaped(table, 1, -1), "trunk text", add=case, activation="leaky_relu"
        )

    def _film(self, name: str, level: Level, trunk: Array | None) -> Array | None:
        """Relative scale and shift (1, 2, C)."""
        if trunk is None or level.units[1].film is None:
            return None
        return reshaped(self._linear(f"{name} film", trunk, f"{name} film"), 1, 2, -1)

    def _decode(
        self, x: Features, skips: list[Features], maps: Array | None, trunk: Array | None
    ) -> Features:
        for i, level in enumerate(self._plan.decoder):
            below, skip, name = skips[-1 - i], skips[-2 - i], f"decoder.{i}"
            tiles, bias = self._weights.tiles[f"{name} up"], self._weights.biases[f"{name} up"]
            n_up, n_skip = bias.shape[0] // 8, skip.x.shape[4]
            joined = self._features(f"{name} joined", skip.x.shape[1:4], n_up + n_skip)
            up, rest = joined[..., :n_up], joined[..., n_up:]
            self._do(network.conv3d, x.x, tiles, affine=x.affine, bias=bias, spread=2, out=up)
            if level.gate is None or maps is None:
                self._do(network.activate, skip.x, affine=skip.affine, out=rest)
            else:
                self._gated(i, skip, below, x, maps, rest)
            x = self._block(name, Features(joined), level, self._film(name, level, trunk))
        return x

    def _gated(
        self, i: int, skip: Features, below: Features, x: Features, maps: Array, out: Array
    ) -> None:
        n = len(self._plan.decoder)
        planes = [
            self._planes(name, self._active(name, features))
            for name, features in (
                (f"skip {n - 1 - i}", skip),
                (f"skip {n - i}", below),
                (f"below {i}", x),
            )
        ]
        target = out.transpose(0, 4, 1, 2, 3) if self._on_device else planes[0]
        gate = self._weights.gates[i]
        self._do(ops.semantic_attention, *planes, maps, gate, out=target)
        self._from_planes(target, out)

    def _head(self, x: Features, pooled: Array | None, table: Array | None, logits: Array) -> None:
        tiles, bias = self._weights.tiles["head"], self._weights.biases["head"]
        if self._plan.head_mlp is not None and pooled is not None and table is not None:
            case = self._linear("head case", pooled, "head case")
            hidden = self._linear(
                "head hidden",
                table,
                "head text",
                add=repeated(case, table.shape[0]),
                activation="leaky_relu",
            )
            base = self._weights.arrays["head base"]
            self._write_tiles(self._linear("head", hidden, "head change", add=base), tiles)
        self._do(
            network.conv3d,
            x.x,
            tiles,
            affine=x.affine,
            bias=bias,
            spread=self._plan.patch,
            out=logits.transpose(0, 2, 3, 4, 1),
        )

    def _write_tiles(self, weight: Array, tiles: Array) -> None:
        """Weights of the head (K, p^3 C) into its tiles, whose columns are (child, k)."""
        n_k, n_children = weight.shape[0], self._plan.patch**3
        source = reshaped(weight, n_k, n_children, -1)
        for i in range(tiles.shape[1]):
            part = source[..., network.CHANNELS * i : network.CHANNELS * (i + 1)]
            rows = reshaped(tiles[0, i, 0, : n_k * n_children], n_children, n_k, network.CHANNELS)
            to = rows[..., : part.shape[2]].transpose(1, 0, 2)
            self._do(network.activate, part[None, :, :, None], out=to[None, :, :, None])


def reshaped(array: Array, *shape: int) -> Array:
    """A view of a dense array in another shape; one size may be -1."""
    if not isinstance(array, DeviceArray):
        return array.reshape(shape)
    known = int(np.prod([n for n in shape if n >= 0]))
    full = tuple(array.size // known if n < 0 else n for n in shape)
    return array.view(array.address, full, row_major(full, array.dtype))


def repeated(row: Array, n: int) -> Array:
    """A view of (1, J) as (n, J)."""
    if not isinstance(row, DeviceArray):
        return np.broadcast_to(row, (n, row.shape[1]))
    return row.view(row.address, (n, row.shape[1]), (0, row.strides[1]))
