"""The processor's peak in each precision: a matrix product by OpenVINO, the best of some."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

SIZES = (1024, 2048, 3072)
SECONDS = 1.5
"""How long each size is repeated."""


def peaks(n_threads: int) -> dict[str, float]:
    """GFLOP/s in fp32, bf16 and int8 (there GOP/s); without those that the CPU does not have."""
    import openvino as ov

    core = ov.Core()
    known = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    found = {"fp32": "f32"} | ({"bf16": "bf16"} if "BF16" in known else {})
    found |= {"int8": found.get("bf16", "f32")} if "INT8" in known else {}
    return {
        precision: round(max(_rate(core, n, precision, hint, n_threads) for n in SIZES), 1)
        for precision, hint in found.items()
    }


def _rate(core: Any, n: int, precision: str, hint: str, n_threads: int) -> float:
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": n_threads}
    model = core.compile_model(_product(n, precision == "int8"), "CPU", settings)
    request, given = model.create_infer_request(), np.ones((n, n), np.float32)
    request.infer([given])
    best, began = np.inf, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        request.infer(share_inputs=True)
        best = min(best, time.perf_counter() - start)
    return N_PRODUCTS * 2 * n**3 / best / 1e9


N_PRODUCTS = 8
"""In a row, so that what is around them counts little."""


def _product(n: int, quantized: bool) -> Any:
    """A chain of products with constant matrices, in int8 if quantized."""
    from openvino import Model, opset13

    def limited(x: Any) -> Any:
        ends = [np.float32(e) for e in (-1.28, 1.27)]
        return opset13.fake_quantize(x, *ends, *ends, 256) if quantized else x

    rng = np.random.default_rng(0)
    given = opset13.parameter([n, n], np.float32)
    x: Any = given
    for _ in range(N_PRODUCTS):
        matrix = rng.uniform(-1, 1, (n, n)).astype(np.float32) / np.float32(np.sqrt(n))
        x = opset13.matmul(limited(x), limited(opset13.constant(matrix)), False, False)
    return Model([x], [given], "product")


def gflop(kit: Any, shape: tuple[int, int, int]) -> float:
    """GFLOP of the network's convolutions and matrix products; a multiply-add counts as two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from training.config import model_config
    from training.model import UNet3d

    network = UNet3d(model_config(kit.about["model"], str(kit.engine))).eval().to("meta")
    with FlopCounterMode(display=False) as counter:  # with gradients: it looks at their graph
        network(torch.empty((1, 4, *shape), device="meta"))
    return float(counter.get_total_flops()) / 1e9
