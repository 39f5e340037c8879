"""The nodes of the ONNX domain `fastbts` in OpenVINO's operations.

The ONNX has bodies (model-local functions) for these nodes, which OpenVINO does not read. The maths
is defined in `csrc/ops/semantic_bridge.h` and `semantic_attention.h`.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def register_nodes(core: Any) -> None:
    """Adds the nodes to a core; `_case_conv` needs the network reshaped to a batch of 1."""
    from openvino.frontend.onnx import ConversionExtension

    core.add_extension(ConversionExtension("SemanticBridge", "fastbts", _bridge))
    core.add_extension(ConversionExtension("SemanticAttention", "fastbts", _attention))
    core.add_extension(ConversionExtension("CaseConv", "fastbts", _case_conv))


def _bridge(node: Any) -> list[Any]:
    """The semantic bridge."""
    from openvino import opset13 as ops

    x, reduced, weight, bias, axis_bias, expand = (node.get_input(i) for i in range(6))
    lift, lifted = ops.unsqueeze(expand, [2, 3]), []
    for row, axis in enumerate((2, 3, 4)):
        plane = ops.concat([ops.reduce_mean(reduced, [axis]), ops.reduce_max(reduced, [axis])], 1)
        offset = ops.unsqueeze(ops.add(bias, ops.gather(axis_bias, row, 0)), [0, 2, 3])
        hidden = _leaky(
            ops.add(ops.convolution(plane, weight, [1, 1], [1, 1], [1, 1], [1, 1]), offset)
        )
        lifted.append(
            ops.unsqueeze(ops.convolution(hidden, lift, [1, 1], [0, 0], [0, 0], [1, 1]), [axis])
        )
    third = ops.convert_like(np.float32(1 / 3), x)
    return ops.add(
        x, ops.multiply(ops.add(ops.add(lifted[0], lifted[1]), lifted[2]), third)
    ).outputs()


def _attention(node: Any) -> list[Any]:
    """Semantic attention.

    `w_a` is applied by a 1^3 convolution to 8 channels, then depth to space.
    The sigmoid is between the two: next to the last product, OpenVINO would fuse it and compute it
    again for every channel of the skip.
    """
    from openvino import opset13 as ops

    skip, encoded, decoded, similarity, w_x, bias, w_g, w_s, w_a, strength = (
        node.get_input(i) for i in range(10)
    )
    size = ops.slice(ops.shape_of(encoded), [2], [5], [1])
    up = ops.interpolate(
        similarity,
        size,
        "linear_onnx",
        "sizes",
        coordinate_transformation_mode="half_pixel",
        axes=[2, 3, 4],
    )
    hidden = ops.add(_mix(encoded, w_x), ops.unsqueeze(bias, [0, 2, 3, 4]))
    hidden = ops.add(ops.add(hidden, _mix(decoded, w_g)), _mix(up, w_s))
    octants = ops.transpose(ops.reshape(w_a, [0, 8], True), [1, 0])
    mask = ops.sigmoid(_mix(_leaky(hidden), octants))
    one, two = (ops.convert_like(np.float32(n), skip) for n in (1, 2))
    factor = ops.add(one, ops.multiply(strength, ops.subtract(ops.multiply(two, mask), one)))
    return ops.multiply(skip, ops.depth_to_space(factor, "blocks_first", 2)).outputs()


def _case_conv(node: Any) -> list[Any]:
    """x mixed by the weights of its case, as a convolution: half the cost of a matrix product.

    A convolution has one set of weights, so this takes one case at a time.
    """
    from openvino import opset13 as ops

    x, weight, bias = (node.get_input(i) for i in range(3))
    return ops.add(_mix(x, ops.squeeze(weight, [0])), ops.unsqueeze(bias, [0, 2, 3, 4])).outputs()


def exact_norms(network: Any) -> None:
    """Replaces each MVN by one that takes its means axis by axis.

    OpenVINO's own adds half a million numbers one by one, which costs four of seven digits in fp32.
    """
    from openvino import opset13 as ops

    for node in network.get_ops():
        if node.get_type_name() == "MVN":
            x = node.input_value(0)
            centred = ops.subtract(x, _mean(x))
            variance = _mean(ops.multiply(centred, centred))
            epsilon = ops.convert_like(np.float32(node.get_attributes()["eps"]), x)
            node.output(0).replace(
                ops.divide(centred, ops.sqrt(ops.add(variance, epsilon))).output(0)
            )


def _mean(x: Any) -> Any:
    """Mean over (D, H, W) of (B, C, D, H, W).

    Axes are kept and dropped in turn, so that OpenVINO does not merge the three steps.
    """
    from openvino import opset13 as ops

    planes = ops.reduce_mean(ops.reduce_mean(x, [4], False), [3], True)
    return ops.unsqueeze(ops.reduce_mean(planes, [2], False), [3, 4])


def _mix(x: Any, weight: Any) -> Any:
    """A 1^3 convolution: channels of x (B, C, D, H, W) by weight (J, C)."""
    from openvino import opset13 as ops

    return ops.convolution(x, ops.unsqueeze(weight, [2, 3, 4]), [1] * 3, [0] * 3, [0] * 3, [1] * 3)


def _leaky(x: Any) -> Any:
    from openvino import opset13 as ops

    return ops.prelu(x, ops.convert_like(np.float32(0.01), x))
