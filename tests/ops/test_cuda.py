"""What only a real CUDA device can show, and the errors where there is none."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from fastbts import _C, DeviceError, ops
from tests.ops.devices import OnDevice, available_devices, cupy, first_on_device, mapped, put
from tests.ops.op import Op, noise
from tests.ops.registry import ALL, OPS
from tests.ops.views import noise_image

ORIGIN = np.zeros((1, 3), np.int32)
HAS_DEVICE = "cuda" in available_devices()
needs_device = pytest.mark.skipif(not HAS_DEVICE, reason="needs a CUDA device")
without_device = pytest.mark.skipif(HAS_DEVICE, reason="needs a machine without CUDA devices")

REASON = "no CUDA device: " + (
    ".*; install a driver" if _C.HAS_CUDA else "fastbts was built without CUDA"
)


@without_device
def test_error_names_why_there_is_no_device() -> None:
    with pytest.raises(DeviceError, match=REASON):
        ops.n_cuda_devices()


class CudaInterface:
    """Numba's protocol, with an address that must not be read."""

    shape = (1, 2, 2, 2)
    __cuda_array_interface__: Any = {  # noqa: RUF012
        "shape": shape,
        "typestr": "<f4",
        "data": (4096, False),
        "version": 3,
    }


@without_device
@pytest.mark.parametrize(
    "tensor", [OnDevice((1, 2, 2, 2)), OnDevice((1, 2, 2, 2), device_type=13), CudaInterface()]
)
def test_every_protocol_for_device_memory(tensor: Any) -> None:
    out = np.full((1, 1, 1, 1, 1), 7, np.float32)
    with pytest.raises(DeviceError, match="window: tensor: " + REASON):
        ops.window(tensor, ORIGIN, (1, 1, 1), out=out)
    assert (out == 7).all()


@without_device
@pytest.mark.parametrize("op", ALL, ids=str)
def test_device_arrays_never_run_on_the_cpu(op: Op) -> None:
    arguments = op.arguments(0, (2, 3, 4))
    before = [array.tobytes() for array in op.written(arguments)]
    with pytest.raises(DeviceError, match=f": {REASON}"):
        op.function(**first_on_device(arguments))
    assert [array.tobytes() for array in op.written(arguments)] == before


@needs_device
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(dtype: str) -> None:
    """Windows keep their bits; sums and comparisons are float32."""
    tensor = torch.randn(3, 5, 6, 7, device="cuda", dtype=getattr(torch, dtype))
    out = torch.empty(1, 3, 5, 6, 7, device="cuda", dtype=tensor.dtype)
    origins = torch.zeros(1, 3, device="cuda", dtype=torch.int32)
    ops.window(tensor, origins, (5, 6, 7), out=out)
    assert torch.equal(out[0], tensor)
    total = torch.zeros(3, 5, 6, 7, device="cuda")
    ops.blend(out, origins, tuple(torch.ones(1, n, device="cuda") for n in (5, 6, 7)), total)
    assert torch.equal(total, tensor.float())
    labels, counts = (
        torch.zeros(5, 6, 7, device="cuda", dtype=torch.uint8),
        torch.zeros(4, device="cuda", dtype=torch.int64),
    )
    box = ((0, 5), (0, 6), (0, 7))
    ops.label(tensor, (0, 0, 0), box, (0.5,) * 3, (2, 1, 4), labels, counts=counts)
    assert int(counts[2]) == int((tensor[2] >= 0).sum()) == int((labels == 4).sum())


class NetworkOps:
    """Bridge, resampling and attention in a row, as in a network, on torch tensors.

    With `last` features are channels-last, but for the similarity maps.
    """

    size = (4, 6, 10)

    def __init__(self, dtype: torch.dtype, device: str = "cuda", last: bool = False) -> None:
        bridge, attention = OPS["semantic_bridge"], OPS["semantic_attention"]
        rng = np.random.default_rng(0)
        self.similarity = torch.from_numpy(noise(rng, 2, 3, 2, 3, 5)).to(device, dtype)
        self.bridge = bridge.arguments(0, self.size)
        self.attention = OPS["semantic_attention"].example(rng, self.size, n_below=7)
        self.attention |= attention.outputs(self.attention)
        self.attention["similarity"] = noise(rng, 2, 3, *self.size)
        for op, arguments in ((bridge, self.bridge), (attention, self.attention)):
            for name, value in arguments.items():
                kind = dtype if name in op.floats else torch.float32
                move = partial(torch.Tensor.to, device=device, dtype=kind)
                arguments[name] = mapped(lambda x, m=move: m(torch.from_numpy(x)), value)
                if last and name in op.floats and name != "similarity":
                    arguments[name] = arguments[name].to(memory_format=torch.channels_last_3d)
        self.attention |= {"encoded": self.bridge["out"], "decoded": self.bridge["out"]}

    def run(self, stream: Any = None) -> None:
        ops.semantic_bridge(**self.bridge, stream=stream)
        for small, maps in zip(self.similarity, self.attention["similarity"], strict=True):
            ops.resample(small, self.size, out=maps, stream=stream)
        ops.semantic_attention(**self.attention, stream=stream)

    def results(self) -> list[Any]:
        return [x["out"].float().cpu().numpy() for x in (self.bridge, self.attention)]


@needs_device
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("dtype", "atol"), [("float32", 1e-4), ("float16", 0.05), ("bfloat16", 0.4)]
)
def test_ops_of_the_network_in_each_precision(dtype: str, atol: float, last: bool) -> None:
    """Half precision rounds after each op; the bounds are twice what that costs on the CPU."""
    network = NetworkOps(getattr(torch, dtype), last=last)
    on_cpu = NetworkOps(torch.float32, "cpu")
    network.run()
    on_cpu.run()
    for result, expected in zip(network.results(), on_cpu.results(), strict=True):
        np.testing.assert_allclose(result, expected, atol=atol)


@needs_device
def test_ops_of_the_network_fit_into_a_cuda_graph() -> None:
    network, other, stream = *(NetworkOps(torch.float32) for _ in range(2)), torch.cuda.Stream()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        network.run(stream)
    for _ in range(2):
        other.bridge["reduced"].mul_(-2)
        network.bridge["reduced"].copy_(other.bridge["reduced"])
        torch.cuda.synchronize()
        graph.replay()
        other.run()
        torch.cuda.synchronize()
        assert torch.equal(network.attention["out"], other.attention["out"])


@pytest.mark.usefixtures("first_cuda_device")
def test_ops_around_the_network_fit_into_a_cuda_graph() -> None:
    """Captured once, replayed on other voxels: no allocation, no waiting, no copies to the host."""
    volume, other = noise_image((9, 10, 11), "i2", 3), noise_image((9, 10, 11), "i2", 3, seed=1)
    box, size = ((0, 9), (1, 9), (2, 10)), (9, 8, 8)
    image, out, stats = put(volume), put(np.empty((3, *size), np.float32)), put(np.empty((3, 4)))
    scratch = put(np.empty(ops.normalize_scratch(3, box), np.uint8))
    windows, total = put(np.empty((1, 3, *size), np.float32)), put(np.empty((3, *size), np.float32))
    origins, weights = put(ORIGIN), tuple(put(np.ones((1, n), np.float32)) for n in size)
    labels, counts = put(np.zeros((9, 10, 11), np.uint8)), put(np.empty(4, np.int64))
    part_counts, part_scratch = (
        put(np.empty(258, np.int64)),
        put(np.empty((2, 9 * 8 * 8), np.int32)),
    )

    def chain(stream: Any) -> None:
        ops.normalize(image, box, size, out=out, stats=stats, scratch=scratch, stream=stream)
        ops.window(out, origins, size, out=windows, stream=stream)
        total.fill(0)
        ops.blend(windows, origins, weights, total, stream=stream)
        ops.label(
            total, (0, 0, 0), box, (0.9,) * 3, (2, 1, 4), labels, counts=counts, stream=stream
        )
        ops.components(labels, box, 3, counts=part_counts, scratch=part_scratch, stream=stream)

    cupy().cuda.Stream.null.synchronize()  # the uploads; the other stream waits for nobody
    stream = cupy().cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        chain(stream)
        graph = stream.end_capture()
        for case in (volume, other):
            image.set(case, stream=stream)
            graph.launch(stream)
            stream.synchronize()
            expected = np.zeros((9, 10, 11), np.uint8)
            tensor, _ = ops.normalize(case, box, size)
            n = ops.label(tensor, (0, 0, 0), box, (0.9,) * 3, (2, 1, 4), expected)
            parts = ops.components(expected, box, 3)
            assert np.array_equal(labels.get(), expected)
            assert tuple(counts.get().tolist()) == n
            assert part_counts.get()[:2].tolist() == [parts.n_before, parts.n_after]


def test_runs_give_the_same_bits(first_cuda_device: str) -> None:
    size = (40, 50, 60) if first_cuda_device == "cuda" else (4, 5, 40)
    volume, box = noise_image(size, "f4"), tuple((0, n) for n in size)
    runs = []
    for _ in range(3):
        out, stats = put(np.empty((2, *size), np.float32)), put(np.empty((2, 4)))
        scratch = put(np.empty(ops.normalize_scratch(2, box), np.uint8))
        ops.normalize(put(volume), box, size, out=out, stats=stats, scratch=scratch)
        runs.append((out.get().tobytes(), stats.get().tobytes()))
    assert runs[0] == runs[1] == runs[2]
