"""What a CPU computes at most in OpenVINO, in GFLOP/s: large layers bound by arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbts.engine.backends.openvino import OpenVINOEngine, _core

MATRIX, CHANNELS, SIDE = 2048, 256, 24
ROUNDS = 10
MULTIPLIES = "gemm", "conv"
"""In the names of kernels that multiply matrices."""
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
NAMES = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}
"""Of the precisions, among OpenVINO's capabilities of a CPU."""


def peak_gflops(
    precision: str, n_threads: int = 0, matrix: int = MATRIX, side: int = SIDE
) -> dict[str, float]:
    """Of a matrix product of 2048^3, and of a convolution 3^3 of 256 channels over 24^3 voxels: the
    best of some rounds, on some threads; 0 for all.

    Raises:
        RuntimeError: OpenVINO computes the layer in another precision.
    """
    product, convolution = _product(matrix, precision), _convolution(side, precision)
    work = 2e-9 * 27 * CHANNELS**2 * side**3
    return {
        "matrix product": _gflops(product, 2e-9 * matrix**3, precision, n_threads),
        "convolution 3^3": _gflops(convolution, work, precision, n_threads),
    }


def peaks(n_threads: int) -> dict[str, float]:
    """The larger of the two in each precision that the CPU computes in."""
    OpenVINOEngine.package()
    known = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    found = [precision for precision, name in NAMES.items() if name in known]
    return {precision: max(peak_gflops(precision, n_threads).values()) for precision in found}


def _product(n: int, precision: str) -> Any:
    from openvino import opset13 as ops

    x = ops.parameter([n, n], np.float32)
    weight = _constant((n, n))
    return x, ops.matmul(_steps(x, precision, 256), _steps(weight, precision, 255), False, True)


def _convolution(side: int, precision: str) -> Any:
    from openvino import opset13 as ops

    x = ops.parameter([1, CHANNELS, side, side, side], np.float32)
    weight = _steps(_constant((CHANNELS, CHANNELS, 3, 3, 3)), precision, 255)
    one, given = [1, 1, 1], _steps(x, precision, 256)
    return x, ops.convolution(given, weight, one, one, one, one)


def _constant(shape: tuple[int, ...]) -> Any:
    from openvino import opset13 as ops

    return ops.constant(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))


def _steps(x: Any, precision: str, levels: int) -> Any:
    """Rounded to the steps of int8, which OpenVINO then computes in."""
    from openvino import opset13 as ops

    low, high = np.float32(-1.0 if levels == 255 else -128 / 127), np.float32(1.0)
    return ops.fake_quantize(x, low, high, low, high, levels) if precision == "int8" else x


def _gflops(layer: Any, gflop: float, precision: str, n_threads: int) -> float:
    """By OpenVINO's counter of the layer alone, without the conversion of its ends."""
    x, out = layer
    ov, core = OpenVINOEngine.package(), _core()
    settings = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERF_COUNT": True}
    settings |= {"INFERENCE_NUM_THREADS": n_threads} if n_threads else {}
    model = core.compile_model(ov.Model([out], [x], "peak"), "CPU", settings)
    request, seconds = model.create_infer_request(), []
    given = np.random.default_rng(1).uniform(-1, 1, tuple(x.shape)).astype(np.float32)
    for _ in range(ROUNDS):
        request.infer([given])
        counters = request.get_profiling_info()
        found = [c for c in counters if any(word in c.exec_type for word in MULTIPLIES)]
        counter = max(found, key=lambda c: c.real_time)
        _check(counter.exec_type, precision)
        seconds.append(counter.real_time.total_seconds())
    return round(gflop / min(seconds), 1)


def _check(kernel: str, precision: str) -> None:
    expected = {"fp32": ("f32",), "bf16": ("bf16",), "int8": ("i8", "u8", "I8")}[precision]
    if not kernel.endswith(expected):
        raise RuntimeError(
            f"peak: expected a kernel in {precision}, OpenVINO chose {kernel}; the peak would be "
            "that of another precision"
        )
