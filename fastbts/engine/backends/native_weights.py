"""The weights of a plan, in the forms that the ops read, on a workspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastbts.device.interface import Array, Workspace
from fastbts.engine.backends.native_plan import Floats, Guidance, Level, Linear, Plan
from fastbts.ops import AttentionWeights, BridgeWeights
from fastbts.ops.network import conv_tiles, upconv_tiles


@dataclass
class Weights:
    """Weights on a workspace, by the names that `NativeNetwork` gives its layers."""

    linear: dict[str, tuple[Array, Array | None]] = field(default_factory=dict)
    """Weight and bias; of a unit the norm's two."""
    tiles: dict[str, Array] = field(default_factory=dict)
    """Of convolutions."""
    biases: dict[str, Array] = field(default_factory=dict)
    """Of convolutions, where they have one."""
    arrays: dict[str, Array] = field(default_factory=dict)
    gates: dict[int, AttentionWeights] = field(default_factory=dict)
    """By position in the decoder."""
    bridge: BridgeWeights | None = None
    fusion: tuple[Array, Array, Array] | None = None


def upload(plan: Plan, workspace: Workspace, dtype: DTypeLike) -> Weights:
    """Puts all weights on a workspace; tiles in `dtype`, the rest float32."""
    return _Upload(plan, workspace, dtype).all()


class _Upload:
    def __init__(self, plan: Plan, workspace: Workspace, dtype: DTypeLike) -> None:
        self.plan, self.workspace, self.dtype = plan, workspace, dtype
        self.to, self.n = Weights(), 0

    def all(self) -> Weights:
        plan = self.plan
        for i, level in enumerate(plan.encoder):
            self.level(f"encoder.{i}", level)
        for i, level in enumerate(plan.decoder):
            self.level(f"decoder.{i}", level)
            if level.gate is not None:
                self.to.gates[i] = self.gate(level.gate)
        if plan.fusion is not None:
            gate = plan.fusion.gate
            background = self.put(plan.fusion.background)
            self.to.fusion = self.put(gate.weight), self.put(gate.bias), background
        if plan.bridge is not None:
            _, bridge = plan.bridge
            self.pointwise("reduce", bridge.reduce)
            self.to.bridge = BridgeWeights(*map(self.put, bridge.weights))
        if plan.guidance is not None:
            self.guidance(plan.guidance)
        self.head()
        return self.to

    def put(self, array: Any, dtype: DTypeLike = np.float32) -> Array:
        """An array on the workspace, under a name of its own."""
        self.n += 1
        return self.workspace.put(np.ascontiguousarray(array, dtype), f"weight {self.n}")

    def gate(self, gate: AttentionWeights) -> AttentionWeights:
        w_x, bias, w_g, w_s, w_a = map(self.put, gate[:5])
        return AttentionWeights(w_x, bias, w_g, w_s, w_a, gate.strength)

    def linear(self, name: str, weight: Floats, bias: Floats | None) -> None:
        self.to.linear[name] = self.put(weight), None if bias is None else self.put(bias)

    def tiles(self, name: str, tiles: Floats, bias: Floats | None) -> None:
        self.to.tiles[name] = self.put(tiles, self.dtype)
        if bias is not None:
            self.to.biases[name] = self.put(bias)

    def pointwise(self, name: str, layer: Linear) -> None:
        self.tiles(name, conv_tiles(layer.weight[..., None, None, None]), layer.bias)

    def level(self, name: str, level: Level) -> None:
        for i, unit in enumerate(level.units):
            self.tiles(f"{name}.{i}", conv_tiles(unit.conv), None)
            self.linear(f"{name}.{i}", unit.weight, unit.bias)
            if unit.film is not None:
                self.linear(f"{name} film", unit.film.weight, unit.film.bias)
        if level.up is not None:
            self.tiles(f"{name} up", upconv_tiles(level.up.weight), np.tile(level.up.bias, 8))

    def guidance(self, guidance: Guidance) -> None:
        for name in ("table", "text", "text_asks", "to_text", "text_key", "text_value"):
            layer: Linear = getattr(guidance, name)
            self.linear(name, layer.weight, layer.bias)
        self.pointwise("image", guidance.image)
        self.to.arrays["similarity bias"] = self.put(guidance.bias)
        voxels = guidance.image_key, guidance.image_value, guidance.image_asks
        joined = Linear(
            np.concatenate([layer.weight for layer in voxels]),
            np.concatenate([layer.bias for layer in voxels]),
        )
        self.pointwise("voxels", joined)
        to_image = guidance.to_image
        identity = np.eye(len(to_image.bias), dtype=np.float32)
        added = Linear(np.concatenate([identity, to_image.weight], 1), to_image.bias)
        self.pointwise("to_image", added)
        trunk, n_pooled = guidance.trunk, len(to_image.bias)
        self.linear("trunk case", trunk.weight[:, :n_pooled], trunk.bias)
        self.linear("trunk text", trunk.weight[:, n_pooled:], None)

    def head(self) -> None:
        plan, n_children = self.plan, self.plan.patch**3
        n_k, n_channels = len(plan.head.bias) // n_children, plan.head.weight.shape[1]
        columns = plan.head.weight.reshape(n_k, n_children, n_channels).swapaxes(0, 1)
        bias = plan.head.bias.reshape(n_k, n_children).T.reshape(-1)
        weight = columns.reshape(-1, n_channels, 1, 1, 1)
        self.tiles("head", conv_tiles(weight), bias)
        if plan.head_mlp is None:
            return
        first, second = plan.head_mlp
        n_pooled = plan.encoder[-1].units[1].conv.shape[0]
        self.linear("head case", first.weight[:, :n_pooled], first.bias)
        self.linear("head text", first.weight[:, n_pooled:], None)
        self.linear("head change", second.weight, second.bias)
        self.to.arrays["head base"] = self.put(plan.head.weight.reshape(n_k, -1))
