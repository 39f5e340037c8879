"""What only a CUDA device can show, and what is said where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastbts import _C, DeviceError, InputError, ops
from tests.ops.devices import OnDevice, available_devices, cupy, first_on_device, put
from tests.ops.registry import ALL, Op
from tests.ops.views import noise_image

ORIGIN = np.zeros((1, 3), np.int32)
HAS_DEVICE = "cuda" in available_devices()
needs_device = pytest.mark.skipif(not HAS_DEVICE, reason="needs a CUDA device")
without_device = pytest.mark.skipif(HAS_DEVICE, reason="needs a machine without CUDA devices")

REASON = "no CUDA device: " + (
    ".*; install a driver" if _C.HAS_CUDA else "fastbts was built without CUDA"
)


@without_device
def test_says_why_there_is_no_device() -> None:
    with pytest.raises(DeviceError, match=REASON):
        ops.n_cuda_devices()


class CudaInterface:
    """Numba's protocol, with an address that must not be looked at."""

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
def test_every_way_to_say_that_memory_is_on_a_device(tensor: Any) -> None:
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
def test_an_impossible_launch_is_reported() -> None:
    """Each modality takes 8 bytes of a block's shared memory: these need more than there is."""
    volume = put(np.ones((40_000, 1, 1, 1), np.uint8))
    with pytest.raises(DeviceError, match=r"brain_box_kernel: cudaErrorInvalid"):
        ops.brain_box(volume, found=put(np.zeros(80_007, np.int64)))
    assert ops.brain_box(volume[:1], found=put(np.zeros(9, np.int64))).n_brain == 1, (
        "the error must be gone"
    )


@needs_device
def test_arrays_of_one_call_lie_on_one_device() -> None:
    tensor = put(np.ones((1, 2, 2, 2), np.float32))
    with pytest.raises(
        InputError,
        match=r"window: origins: expected an array on cuda:0 as the first one, got one on the CPU",
    ):
        ops.window(tensor, ORIGIN, (1, 1, 1), out=put(np.zeros((1, 1, 1, 1, 1), np.float32)))


@needs_device
def test_tensors_inside_the_network_are_contiguous() -> None:
    tensor, out = put(np.ones((1, 2, 2, 4), np.float32)), put(np.ones((1, 2, 2, 2), np.float32))
    with pytest.raises(
        InputError,
        match=r"resample: tensor: expected a contiguous array on a CUDA device, got strides",
    ):
        ops.resample(tensor[..., :2], (2, 2, 2), out=out)
    planes = ops.Planes(out, out, out[:, :, ::-1])
    with pytest.raises(InputError, match=r"semantic_lift: x: expected a contiguous array"):
        ops.semantic_lift(planes, put(np.ones((1, 2, 2, 2, 2), np.float32)))


@needs_device
def test_tensors_of_one_call_have_one_type() -> None:
    tensor, out = put(np.ones((1, 2, 2, 2), np.float32)), put(np.ones((1, 2, 2, 2), np.float16))
    with pytest.raises(InputError, match=r"resample: out: expected the element type of tensor"):
        ops.resample(tensor, (2, 2, 2), out=out)
    with pytest.raises(InputError, match=r"semantic_lift: y: expected the element type of tensor"):
        ops.semantic_lift(
            ops.Planes(tensor, out, tensor), put(np.ones((1, 2, 2, 2, 2), np.float32))
        )


@needs_device
def test_scratch_that_is_too_small_is_refused() -> None:
    volume, box = noise_image((4, 5, 6), "i2"), ((0, 4), (0, 5), (0, 6))
    out, stats = put(np.empty((2, 4, 5, 6), np.float32)), put(np.empty((2, 4)))
    with pytest.raises(InputError, match=r"normalize: scratch: expected at least \d+ bytes"):
        ops.normalize(
            put(volume), box, (4, 5, 6), out=out, stats=stats, scratch=put(np.empty(8, np.uint8))
        )
    labels, counts = put(np.ones((4, 5, 6), np.uint8)), put(np.empty(258, np.int64))
    for scratch in (None, put(np.empty((2, 119), np.int32))):
        with pytest.raises(
            InputError, match=r"components: scratch: expected shape \(2, 120\) or more"
        ):
            ops.components(labels, box, 2, counts=counts, scratch=scratch)


@needs_device
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_brain_shows_in_the_statistics(bad: float) -> None:
    volume, box = noise_image((4, 5, 6), "f4"), ((0, 4), (0, 5), (0, 6))
    volume[1, 2, 2, 3] = bad
    stats = put(np.empty((2, 4)))
    scratch = put(np.empty(ops.normalize_scratch(2, box), np.uint8))
    ops.normalize(
        put(volume),
        box,
        (4, 5, 6),
        out=put(np.empty((2, 4, 5, 6), np.float32)),
        stats=stats,
        scratch=scratch,
    )
    assert np.isfinite(stats.get()[0]).all()
    assert np.isnan(stats.get()[1, 2:]).all()


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
        torch.zeros(3, device="cuda", dtype=torch.int64),
    )
    box = ((0, 5), (0, 6), (0, 7))
    found = ops.label(tensor, (0, 0, 0), box, (0.5,) * 3, (2, 1, 4), labels, counts=counts)
    assert int(found.n_et) == int((tensor[2] >= 0).sum()) == int((labels == 4).sum())


class Bridge:
    """Project, plane, lift and attention on a device, and the arrays that they write."""

    shape = (4, 6, 10)

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator("cuda").manual_seed(0)
        d, h, w = self.shape

        def normal(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
            return torch.randn(*shape, device="cuda", generator=generator).to(dtype)

        def weights(*shape: int) -> torch.Tensor:
            return normal(*shape, dtype=torch.float32)

        self.tensor, self.skip = normal(2, 3, d, h, w), normal(2, 2, 2 * d, 2 * h, 2 * w)
        self.sizes = ((h, w), (d, w), (d, h))
        self.projected, self.seen = (
            ops.Planes(*(normal(2, n, *size) for size in self.sizes)) for n in (6, 5)
        )
        self.lifted, self.maps, self.out = (
            normal(2, 5, d, h, w),
            normal(2, 3, *self.shape),
            torch.empty_like(self.skip),
        )
        self.small = normal(2, 3, 2, 3, 5)
        self.plane = ops.PlaneWeights(weights(3, 6, 3, 3), weights(3), weights(3, 3), weights(5, 3))
        self.mix = ops.AttentionWeights(
            weights(4, 5), weights(4), weights(4, 5), weights(4, 3), weights(4, 2, 2, 2), 0.5
        )

    def run(self, stream: Any = None) -> None:
        ops.semantic_project(self.tensor, out=self.projected, stream=stream)
        ops.semantic_plane(self.projected, self.plane, out=self.seen, stream=stream)
        ops.semantic_lift(self.seen, out=self.lifted, stream=stream)
        for small, maps in zip(self.small, self.maps, strict=True):
            ops.resample(small, self.shape, out=maps, stream=stream)
        ops.semantic_attention(
            self.skip, self.lifted, self.lifted, self.maps, self.mix, self.out, stream=stream
        )

    def expected(self) -> tuple[Any, Any]:
        """Lifted volume and skip, on the CPU in float32 from the same inputs."""
        tensor, small, skip = (
            x.float().cpu().numpy() for x in (self.tensor, self.small, self.skip)
        )
        plane = ops.PlaneWeights(*(w.cpu().numpy() for w in self.plane))
        mix = ops.AttentionWeights(*(w.cpu().numpy() for w in self.mix[:5]), self.mix.strength)
        lifted = ops.semantic_lift(ops.semantic_plane(ops.semantic_project(tensor), plane))
        maps, out = np.stack([ops.resample(x, self.shape) for x in small]), np.empty_like(skip)
        ops.semantic_attention(skip, lifted, lifted, maps, mix, out)
        return lifted, out


@needs_device
@pytest.mark.parametrize(
    ("dtype", "atol"), [("float32", 1e-4), ("float16", 0.05), ("bfloat16", 0.4)]
)
def test_ops_of_the_network_in_each_precision(dtype: str, atol: float) -> None:
    """Half precision rounds after each op; the bounds are twice what that costs on the CPU."""
    bridge = Bridge(getattr(torch, dtype))
    bridge.run()
    for result, expected in zip((bridge.lifted, bridge.out), bridge.expected(), strict=True):
        np.testing.assert_allclose(result.float().cpu().numpy(), expected, atol=atol)


@needs_device
def test_ops_of_the_network_fit_into_a_cuda_graph() -> None:
    bridge, other, stream = Bridge(torch.float32), Bridge(torch.float32), torch.cuda.Stream()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        bridge.run(stream)
    for _ in range(2):
        other.tensor.mul_(-2)
        bridge.tensor.copy_(other.tensor)
        torch.cuda.synchronize()
        graph.replay()
        other.run()
        torch.cuda.synchronize()
        assert torch.equal(bridge.out, other.out)


@needs_device
def test_ops_around_the_network_fit_into_a_cuda_graph() -> None:
    """Captured once, replayed on other voxels: no allocation, no waiting, no copies to the host."""
    volume, other = noise_image((9, 10, 11), "i2", 3), noise_image((9, 10, 11), "i2", 3, seed=1)
    box, size = ((0, 9), (1, 9), (2, 10)), (9, 8, 8)
    image, out, stats = put(volume), put(np.empty((3, *size), np.float32)), put(np.empty((3, 4)))
    scratch = put(np.empty(ops.normalize_scratch(3, box), np.uint8))
    windows, total = put(np.empty((1, 3, *size), np.float32)), put(np.empty((3, *size), np.float32))
    origins, weights = put(ORIGIN), tuple(put(np.ones((1, n), np.float32)) for n in size)
    labels, counts = put(np.zeros((9, 10, 11), np.uint8)), put(np.empty(3, np.int64))
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


@needs_device
def test_runs_give_the_same_bits() -> None:
    volume, box = noise_image((40, 50, 60), "f4"), ((0, 40), (0, 50), (0, 60))
    runs = []
    for _ in range(3):
        out, stats = put(np.empty((2, 40, 50, 60), np.float32)), put(np.empty((2, 4)))
        scratch = put(np.empty(ops.normalize_scratch(2, box), np.uint8))
        ops.normalize(put(volume), box, (40, 50, 60), out=out, stats=stats, scratch=scratch)
        runs.append((out.get().tobytes(), stats.get().tobytes()))
    assert runs[0] == runs[1] == runs[2]
