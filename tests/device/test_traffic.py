"""What a prediction on a device copies, launches and waits for; threads, devices and batches."""

from __future__ import annotations

import gc
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbts
from fastbts import DeviceError, FailedCase, Segmenter, SegmenterOptions, Volume
from fastbts.device.arrays import DeviceArray, borrow
from fastbts.engine.load import open_engine
from tests.conftest import ROOT, write_voxel_engine
from tests.device.cases import AFFINES, assert_same, images, on_device, on_the_host
from tests.fakes import EmulatedCuda
from tests.fakes.cuda_types import Status
from tests.fakes.onnxruntime import FakeOnnxRuntime
from tests.fakes.tensorrt import FakeTensorRT, write_fake_plan
from tests.fakes.voxel_engine import DeviceVoxelEngine

AROUND = [
    "brain_box_kernel",
    "resample_affine_tiles_kernel",
    "mark_brain_kernel",
    "count_kernel",
    "scale_tiles_kernel",
    "label_kernel",
    "expected_dice_kernel",
]
"""Kernels around the network, for integers; csrc/README.md states them."""


def traffic(emulated: EmulatedCuda, segmenter: Segmenter, case: Any) -> dict[str, Any]:
    """Of the second prediction of a case."""
    segmenter.predict(case)
    copies, launches = len(emulated.copies), len(emulated.launches)
    waits, mallocs = emulated.calls["cudaStreamSynchronize"], emulated.calls["cudaHostAlloc"]
    segmenter.predict(case)
    assert emulated.calls["cudaHostAlloc"] == mallocs, "pinned memory is used again"
    made = emulated.copies[copies:]
    assert all(copy.pinned for copy in made if copy.kind != "DeviceToDevice")
    return {
        "up": [copy.n_bytes for copy in made if copy.kind == "HostToDevice"],
        "down": [copy.n_bytes for copy in made if copy.kind == "DeviceToHost"],
        "within": [copy.n_bytes for copy in made if copy.kind == "DeviceToDevice"],
        "launches": emulated.launches[launches:],
        "waits": emulated.calls["cudaStreamSynchronize"] - waits,
    }


def test_a_device_array_stays_on_the_device(emulated: EmulatedCuda) -> None:
    array = images()
    segmenter = Segmenter(DeviceVoxelEngine(emulated), warm_up=False)
    case = Volume(borrow(on_device(array)), AFFINES["LPS"])
    found = traffic(emulated, segmenter, case)
    d, h, w = segmenter.predict(case).report["preprocessing"]["tensor_zyx"]
    sample, box, statistics, sums, counts = 4 * array.size, 15 * 8, 4 * 4 * 8, 3 * 4 * 8, 4 * 8
    assert found["up"] == []
    assert found["down"] == [box, sample, statistics, sums, counts]
    assert found["within"] == [3 * d * h * w * 4], "the logits, for the probabilities"
    assert sorted(found["launches"]) == sorted(AROUND)
    assert found["waits"] == 2, "for the brain box, and at the end"


def test_quality_control_does_not_wait(emulated: EmulatedCuda) -> None:
    array = images()
    segmenter = Segmenter(DeviceVoxelEngine(emulated), warm_up=False)
    found = traffic(emulated, segmenter, on_device(array))
    d, h, w = (-(-n // 4) for n in array.shape[:0:-1])
    assert found["down"][2] == 4 * d * h * w * 4, "every fourth voxel, with the brain box"
    assert sorted(found["launches"]) == sorted([*AROUND, "resample_affine_tiles_kernel"])
    assert found["waits"] == 2


def test_a_host_array_goes_up_raw_and_labels_come_down(emulated: EmulatedCuda) -> None:
    array = images()
    segmenter = Segmenter(DeviceVoxelEngine(emulated), warm_up=False)
    found = traffic(emulated, segmenter, Volume(array, AFFINES["LPS"]))
    assert sum(found["up"]) == array.nbytes, "int16 as it is"
    assert found["down"][-1] == array[0].size, "uint8 labels"
    assert sum(found["down"][2:-1]) == (16 + 12 + 4) * 8
    assert sorted(found["launches"]) == sorted(AROUND)


def test_images_of_their_own_are_gathered_on_the_device(emulated: EmulatedCuda) -> None:
    array = images()
    by_name = {m: on_device(array[i]) for i, m in enumerate(("flair", "t1", "t1ce", "t2"))}
    segmenter = Segmenter(DeviceVoxelEngine(emulated), warm_up=False)
    segmenter.predict(by_name, affine=AFFINES["LPS"])
    assert emulated.copied("DeviceToDevice")[:4] == [array[0].nbytes] * 4
    assert not [n for n in emulated.copied("HostToDevice")[4:] if n >= array[0].nbytes]


def test_threads_have_a_workspace_each(emulated: EmulatedCuda) -> None:
    affine = AFFINES["LPS"]
    cases = [images(), images(np.uint8, (27, 22, 18)), images(np.float32, (18, 22, 27))]
    expected = [on_the_host(case, affine=affine) for case in cases]
    segmenter = Segmenter(DeviceVoxelEngine(emulated), warm_up=False)
    there = [on_device(case) for case in cases]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda case: segmenter.predict(case, affine=affine), there * 2))
    for result, wanted in zip(results, expected * 2, strict=True):
        assert_same(result, wanted)


def test_two_devices(emulated: EmulatedCuda) -> None:
    array, affine = images(), AFFINES["LPS"]
    expected = on_the_host(array, affine=affine)
    for index in (1, 0, 1):
        segmenter = Segmenter(DeviceVoxelEngine(emulated, f"cuda:{index}"), warm_up=False)
        result = segmenter.predict(on_device(array, index), affine=affine)
        assert result.labels.device == f"cuda:{index}"
        assert_same(result, expected)
        assert_same(segmenter.predict(array, affine=affine), expected)
    assert emulated.device == 0, "the thread's device is what it was"


def test_batches_take_device_arrays_and_host_arrays(emulated: EmulatedCuda) -> None:
    array, affine = images(), AFFINES["LPS"]
    expected = on_the_host(array, affine=affine)
    segmenter = Segmenter(DeviceVoxelEngine(emulated), warm_up=False)
    cases = [on_device(array), array, on_device(np.zeros_like(array)), on_device(array)]
    there, here, bad, last = segmenter.predict_batch(cases, affine=affine)
    assert isinstance(bad, FailedCase)
    for result in (there, here, last):
        assert_same(result, expected)
    assert isinstance(there.labels, DeviceArray)
    assert isinstance(here.labels, np.ndarray)


def test_the_engine_is_warm_at_the_size_of_a_window(emulated: EmulatedCuda) -> None:
    engine = DeviceVoxelEngine(emulated)
    segmenter = Segmenter(engine)
    assert engine.shapes == [(1, 4, 16, 24, 16)] * 2
    array = images()
    result = segmenter.predict(on_device(array), affine=AFFINES["LPS"])
    assert_same(result, on_the_host(array, affine=AFFINES["LPS"]))


def test_a_warm_up_that_fails_on_the_device_is_an_error(emulated: EmulatedCuda) -> None:
    emulated.fail("cudaStreamSynchronize", Status.cudaErrorIllegalAddress)
    with pytest.raises(DeviceError, match="cudaErrorIllegalAddress; this process has lost"):
        Segmenter(DeviceVoxelEngine(emulated))


def test_the_document_runs(
    emulated: EmulatedCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt = FakeTensorRT(emulated)
    trt.install(monkeypatch)
    write_fake_plan(tmp_path / "model-fp16.fbts", trt)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/how-to/python.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (snippet,) = [snippet for snippet in snippets if "import cupy" in snippet]
    names = {"fastbts": fastbts, "stacked": images(), "affine": AFFINES["LPS"]}
    exec(snippet, names)
    expected = on_the_host(images(), affine=AFFINES["LPS"])
    np.testing.assert_array_equal(names["labels"].get(), expected.labels)
    assert (tmp_path / "seg.nii.gz").is_file()
    names["segmenter"].close()


def test_closed_while_it_loads_it_frees_its_memory(
    emulated: EmulatedCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def slowly(*given: Any, **choice: Any) -> Any:
        time.sleep(0.1)
        return open_engine(*given, **choice)

    trt = FakeTensorRT(emulated)
    trt.install(monkeypatch)
    write_fake_plan(tmp_path / "engine.fbts", trt)
    monkeypatch.setattr("fastbts.segmenter.open_engine", slowly)
    segmenter = Segmenter(tmp_path / "engine.fbts", background=True)
    segmenter.close()
    gc.collect()
    assert (emulated.used(0), emulated.used(None)) == (0, 0)


@pytest.mark.parametrize("passes", [1, 2])
def test_tensorrt_over_the_fakes(
    emulated: EmulatedCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, passes: int
) -> None:
    trt = FakeTensorRT(emulated)
    trt.install(monkeypatch)
    path = tmp_path / "engine.fbts"
    write_fake_plan(path, trt)
    array, affine = images(), AFFINES["LPS"]
    options = SegmenterOptions(passes=passes)
    with Segmenter(path, options=options) as segmenter:
        assert segmenter.engine.device == "cuda:0"
        results = [
            segmenter.predict(case, affine=affine)
            for case in (on_device(array), array, on_device(array), on_device(array))
        ]
        assert emulated.calls["cudaGraphLaunch"]
    with Segmenter(path, backend="onnxruntime", options=options) as on_cpu:
        expected = on_cpu.predict(array, affine=affine)
    for result in results:
        assert_same(result, expected)


def test_onnxruntime_over_the_fakes(
    emulated: EmulatedCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_voxel_engine(tmp_path / "engine.fbts")
    array, affine = images(), AFFINES["LPS"]
    with Segmenter(path, backend="onnxruntime", device="cpu") as on_cpu:
        expected = on_cpu.predict(array, affine=affine)
    FakeOnnxRuntime(emulated).install(monkeypatch)
    with Segmenter(path, backend="onnxruntime", device="cuda:1") as segmenter:
        for case in (on_device(array, 1), array):
            assert_same(segmenter.predict(case, affine=affine), expected)
