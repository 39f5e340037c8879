"""What a prediction on a device refuses, as the CPU does, and what it leaves behind."""

from __future__ import annotations

import gc
import re
from typing import Any

import numpy as np
import pytest

from fastbts import DeviceError, FastBTSError, InputError, Segmenter, SegmenterOptions, Volume
from fastbts.device.arrays import borrow
from tests.conftest import VoxelEngine
from tests.device.cases import AFFINES, assert_same, images, on_device, on_the_host
from tests.fakes import EmulatedCuda
from tests.fakes.voxel_engine import DeviceVoxelEngine


def changed(kind: str) -> np.ndarray:
    """A case that cannot be segmented."""
    array = images(np.float64 if kind == "huge" else np.float32)
    inside = tuple(slice(2, n - 3) for n in array.shape[1:])
    if kind == "zero image":
        array[1] = 0
    elif kind == "no brain":
        array[:] = 0
        array[:, ::4, ::4, ::4] = 9
    elif kind == "constant":
        array[(2, *inside)] = 100
    elif kind == "NaN inside":
        array[0, 11, 13, 9] = np.nan
    elif kind == "huge":
        array[(3, *inside)] *= 1e305
    elif kind.startswith("same twice"):
        array[1] = array[0]
        array[2] *= kind == "same twice"
    return array


@pytest.mark.parametrize(
    "kind",
    ["zero image", "no brain", "constant", "NaN inside", "huge", "same twice", "same twice, zero"],
)
@pytest.mark.parametrize("where", ["device", "host"])
def test_bad_cases_are_refused_as_on_the_cpu(emulated: EmulatedCuda, kind: str, where: str) -> None:
    array = changed(kind)
    with pytest.raises(FastBTSError) as expected:
        on_the_host(array, affine=AFFINES["RAS"])
    segmenter = Segmenter(DeviceVoxelEngine(emulated), warm_up=False)
    given = on_device(array) if where == "device" else array
    with pytest.raises(type(expected.value), match=f"^{re.escape(str(expected.value))}$"):
        segmenter.predict(given, affine=AFFINES["RAS"])
    good = images()
    result = segmenter.predict(on_device(good), affine=AFFINES["RAS"])
    assert_same(result, on_the_host(good, affine=AFFINES["RAS"]))


def test_absurd_sizes_are_refused(emulated: EmulatedCuda) -> None:
    with pytest.raises(FastBTSError) as expected:
        on_the_host(images(), affine=np.diag([19.0, 19, 19, 1]), spec={"spacing_mm": 0.3})
    segmenter = Segmenter(DeviceVoxelEngine(emulated, spacing_mm=0.3), warm_up=False)
    with pytest.raises(type(expected.value), match=f"^{re.escape(str(expected.value))}$"):
        segmenter.predict(on_device(images()), affine=np.diag([19.0, 19, 19, 1]))


class NaNEngine(DeviceVoxelEngine):
    """Gives NaN in one voxel of the brain box."""

    def infer(self, tensor: Any, text: Any = None, *, out: Any = None, stream: Any = None) -> Any:
        super().infer(tensor, out=out, stream=stream)
        voxel = self.cuda.view(out.address, out.shape, np.float32, out.index)[0, 0, 8, 8]
        self.cuda.enqueue(stream, lambda: voxel.__setitem__(8, np.nan), out.address)


def test_logits_that_are_not_finite_are_refused(emulated: EmulatedCuda) -> None:
    segmenter = Segmenter(NaNEngine(emulated), warm_up=False)
    with pytest.raises(DeviceError, match=r"NaN or infinite values in 1 voxels of the brain box"):
        segmenter.predict(on_device(images()), affine=AFFINES["RAS"])


def test_an_array_on_a_device_that_is_not_the_engines(emulated: EmulatedCuda) -> None:
    on_cpu = Segmenter(VoxelEngine(), warm_up=False)
    for index, segmenter, place in (
        (0, on_cpu, "cpu"),
        (1, Segmenter(DeviceVoxelEngine(emulated), warm_up=False), "cuda:0"),
    ):
        there = on_device(images(), index)
        message = (
            rf"flair, t1, t1ce, t2: the array is on cuda:{index}, but the engine runs on {place}; "
            rf"load the engine with device='cuda:{index}' and a backend that runs there, or copy "
            "the array to host memory first"
        )
        for case in (there, Volume(borrow(there), AFFINES["RAS"])):
            with pytest.raises(InputError, match=message):
                segmenter.predict(case)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (lambda a: on_device(a.astype(np.float16)), "case: expected integers, float32 or float64"),
        (lambda a: on_device(a[0]), "expected an array"),
        (
            lambda a: {"flair": on_device(a[0]), "t1": a[1], "t1ce": a[2], "t2": a[3]},
            "arrays in host memory and on a device are mixed",
        ),
        (
            lambda a: {
                m: on_device(a[i].astype(np.float32 if i else np.int16))
                for i, m in enumerate(("flair", "t1", "t1ce", "t2"))
            },
            "images of float32 on cuda:0 and of int16 on cuda:0: expected one type",
        ),
        (
            lambda a: {
                m: on_device(a[i] if i else np.asfortranarray(a[i]))
                for i, m in enumerate(("flair", "t1", "t1ce", "t2"))
            },
            "expected the same without gaps; copy them first",
        ),
    ],
)
def test_arrays_that_cannot_be_used(emulated: EmulatedCuda, case: Any, message: str) -> None:
    segmenter = Segmenter(DeviceVoxelEngine(emulated), warm_up=False)
    with pytest.raises(InputError, match=message):
        segmenter.predict(case(images()), affine=AFFINES["RAS"])


def test_a_failing_call_leaves_the_segmenter_usable(emulated: EmulatedCuda) -> None:
    engine = DeviceVoxelEngine(emulated)
    segmenter = Segmenter(engine, warm_up=False)
    array, affine = images(), AFFINES["RAS"]
    there, expected = on_device(array), on_the_host(array, affine=affine)
    engine.error = DeviceError("TensorRT could not run the network")
    with pytest.raises(DeviceError, match="could not run"):
        segmenter.predict(there, affine=affine)
    assert_same(segmenter.predict(there, affine=affine), expected)
    emulated.fail("label_kernel")
    with pytest.raises(DeviceError):
        segmenter.predict(there, affine=affine)
    assert_same(segmenter.predict(there, affine=affine), expected)


def test_too_little_memory_names_the_way_out(emulated: EmulatedCuda) -> None:
    segmenter = Segmenter(DeviceVoxelEngine(emulated), warm_up=False)
    there = on_device(images())
    emulated.fail("cudaMallocAsync")
    with pytest.raises(DeviceError, match=r"cuda:0: out of memory: 0 MB more.* drop results that"):
        segmenter.predict(there, affine=AFFINES["RAS"])
    tight = Segmenter(DeviceVoxelEngine(emulated), warm_up=False)
    emulated.fail("cudaMallocAsync", after=6)
    with pytest.raises(DeviceError, match="out of memory"):
        tight.predict(there, affine=AFFINES["RAS"])


@pytest.mark.parametrize(("n_bytes", "mode"), [(1 << 21, "sliding"), (1 << 33, "one-pass")])
def test_auto_slides_when_one_pass_does_not_fit(
    emulated: EmulatedCuda, n_bytes: int, mode: str
) -> None:
    emulated.n_bytes = n_bytes
    engine = DeviceVoxelEngine(emulated, window=(16, 16, 16))
    result = Segmenter(engine, warm_up=False).predict(images(np.uint8), affine=AFFINES["RAS"])
    assert result.report["windows"]["mode"] == mode
    assert "one pass needs about" in result.report["windows"]["reason"]


def test_nothing_is_left_behind(emulated: EmulatedCuda) -> None:
    there, affine = on_device(images()), AFFINES["RAS"]
    gc.collect()
    before = emulated.alive(), emulated.used(0)
    segmenter = Segmenter(DeviceVoxelEngine(emulated), warm_up=False)
    result = segmenter.predict(there, affine=affine)
    used = emulated.used(0)
    for _ in range(3):
        del result
        result = segmenter.predict(there, affine=affine)
        assert emulated.used(0) == used, "memory is used again, and a dropped result frees its own"
    labels = result.labels.get()
    segmenter.close()
    assert emulated.used(0) == before[1] + result.labels.nbytes + result.output.nbytes
    np.testing.assert_array_equal(result.labels.get(), labels)
    del result, segmenter
    gc.collect()
    assert (emulated.alive(), emulated.used(0)) == before


def test_a_dropped_segmenter_frees_its_memory(emulated: EmulatedCuda) -> None:
    before = emulated.used(0)
    result = Segmenter(DeviceVoxelEngine(emulated), warm_up=False).predict(
        images(), affine=AFFINES["RAS"]
    )
    assert isinstance(result.labels, np.ndarray)
    gc.collect()
    assert emulated.used(0) == before + result.output.nbytes
    assert emulated.used(None) == 0


def test_two_passes_of_a_device_are_refused_without_an_engine_for_them() -> None:
    options = SegmenterOptions(passes=2)
    with pytest.raises(InputError, match="no CUDA device"):
        Segmenter(VoxelEngine(), options=options, warm_up=False).predict(_Elsewhere())


class _Elsewhere:
    """An array on a device where there is none."""

    shape = (4, 8, 8, 8)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0
