"""The network in one pass and in sliding windows."""

from __future__ import annotations

import errno
import re
from typing import Any

import numpy as np
import pytest

from fastbts import DeviceError, OptionsError, Segmenter, SegmenterOptions
from fastbts.pipeline.infer import planned
from tests.conftest import VoxelEngine

Case = tuple[np.ndarray, np.ndarray]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_sliding_windows_equal_one_pass(small_case: Case, overlap: float) -> None:
    images, affine = small_case
    engine = VoxelEngine()
    sliding = Segmenter(
        engine, options=SegmenterOptions(mode="sliding", overlap=overlap), warm_up=False
    )
    result = sliding.predict(images, affine=affine)
    assert engine.n_calls == result.report["windows"]["count"] > 1
    whole = Segmenter(engine, options=SegmenterOptions(mode="one-pass"), warm_up=False).predict(
        images, affine=affine
    )
    np.testing.assert_allclose(result.logits, whole.logits, atol=1e-4)


@pytest.mark.parametrize(("free", "mode"), [(10**6, "sliding"), (10**10, "one-pass")])
def test_auto_slides_when_one_pass_does_not_fit(
    small_case: Case, monkeypatch: pytest.MonkeyPatch, free: int, mode: str
) -> None:
    images, affine = small_case
    monkeypatch.setattr("fastbts.device.host.free_bytes", lambda: free)
    result = Segmenter(VoxelEngine(), warm_up=False).predict(images, affine=affine)
    windows = result.report["windows"]
    assert windows["mode"] == mode
    assert re.fullmatch(
        r"one pass needs about 0\.00 GB more, [\d.]+ GB are free", windows["reason"]
    )


def test_one_pass_where_the_system_does_not_say_what_is_free(
    small_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, affine = small_case
    monkeypatch.setattr("fastbts.device.host.free_bytes", lambda: None)
    result = Segmenter(VoxelEngine(), warm_up=False).predict(images, affine=affine)
    windows = result.report["windows"]
    assert windows["mode"] == "one-pass"
    assert windows["reason"] == "the system does not say how much memory is free"


@pytest.mark.parametrize("mode", ["one-pass", "sliding"])
def test_a_given_mode_is_not_changed(
    small_case: Case, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr("fastbts.device.host.free_bytes", lambda: 0 if mode != "sliding" else 1)
    segmenter = Segmenter(VoxelEngine(), options=SegmenterOptions(mode=mode), warm_up=False)
    windows = segmenter.predict(small_case[0], affine=small_case[1]).report["windows"]
    assert (windows["mode"], windows["reason"]) == (mode, "the mode was given")


class BlockEngine(VoxelEngine):
    """Each voxel gets the logits of the first one in its block of 2 x 2 x 2."""

    def infer(self, tensor: np.ndarray, **given: Any) -> np.ndarray:
        each = super().infer(tensor)
        blocks = each[:, :, ::2, ::2, ::2]
        logits = blocks.repeat(2, axis=2).repeat(2, axis=3).repeat(2, axis=4)
        if given.get("out") is not None:
            given["out"][:] = logits
        return logits


def test_tensors_no_larger_than_a_window_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = VoxelEngine(window=(16, 24, 16))
    monkeypatch.setattr("fastbts.device.host.free_bytes", lambda: 1)
    modes = {
        size: planned(engine, size, engine.spec, SegmenterOptions())[:2]
        for size in [(48, 16, 8), (48, 16, 16)]
    }
    assert modes[48, 16, 8] == ("one-pass", "a sliding window is not smaller")
    assert modes[48, 16, 16][0] == "sliding"


@pytest.mark.parametrize(("device", "size"), [("cpu", [24, 16, 16]), ("cuda:0", [16, 24, 16])])
def test_a_network_on_a_device_has_its_own_windows(device: str, size: list[int]) -> None:
    """Also where the ops around it run on the CPU: a TensorRT plan takes no longer side."""
    engine = VoxelEngine(window=(16, 24, 16))
    engine.description["device"] = device
    images = np.random.default_rng(0).integers(1, 900, (4, 24, 24, 24)).astype(np.int16)
    segmenter = Segmenter(engine, options=SegmenterOptions(mode="sliding"), warm_up=False)
    assert segmenter.predict(images, affine=np.eye(4)).report["windows"]["size_zyx"] == size


@pytest.mark.parametrize("mode", ["one-pass", "sliding"])
def test_two_passes_average_the_image_and_the_moved_image(small_case: Case, mode: str) -> None:
    images, affine = small_case

    def logits(engine: VoxelEngine, passes: int) -> np.ndarray:
        options = SegmenterOptions(mode="one-pass" if passes == 1 else mode, passes=passes)
        result = Segmenter(engine, options=options, warm_up=False).predict(images, affine=affine)
        assert result.report["windows"]["passes"] == passes
        return result.logits

    exact, once = logits(VoxelEngine(), 1), logits(BlockEngine(), 1)
    # Moved by one voxel, a block begins at the odd voxels.
    odd = exact[:, 1:-1:2, 1:-1:2, 1:-1:2].repeat(2, axis=1).repeat(2, axis=2).repeat(2, axis=3)
    inside = (slice(None), *(slice(1, size - 1) for size in odd.shape[1:]))
    before = (slice(None), *(slice(0, size - 2) for size in odd.shape[1:]))
    twice = logits(BlockEngine(), 2)
    np.testing.assert_allclose(twice[inside], (once[inside] + odd[before]) / 2, atol=1e-4)
    for axis in (1, 2, 3):  # the last voxels are not in the moved image
        last, alone = (np.take(each, -1, axis) for each in (twice, once))
        np.testing.assert_allclose(last, alone, atol=1e-4)


@pytest.mark.parametrize("passes", [0, 3, True, 1.5, "2"])
def test_passes_are_one_or_two(passes: object) -> None:
    with pytest.raises(OptionsError, match="expected 1 or 2"):
        SegmenterOptions(passes=passes)


class HungryEngine(VoxelEngine):
    """Its runtime lacks memory, and says so in one of many ways."""

    error: Exception = MemoryError()

    def infer(self, *args: object, **kwargs: object) -> np.ndarray:
        raise self.error


def wrapped(error: Exception) -> DeviceError:
    try:
        raise DeviceError("the runtime failed") from error
    except DeviceError as ours:
        return ours


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("Exception from src/cpu: std::bad_alloc"),
        RuntimeError("bfc_arena.cc: Failed to allocate memory for requested buffer"),
        RuntimeError("can't start new thread"),
        RuntimeError("Exception from src/plugin.cpp:54: can't alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        wrapped(MemoryError()),
    ],
)
def test_a_lack_of_memory_says_what_is_needed(small_case: Case, error: Exception) -> None:
    for mode, way_out in (
        ("one-pass", r", or use mode='sliding' \(--mode sliding\)"),
        ("sliding", ""),
    ):
        engine = HungryEngine()
        engine.error = error
        segmenter = Segmenter(engine, options=SegmenterOptions(mode=mode), warm_up=False)
        message = (
            r"^out of memory: the network needs about [\d.]+ GB for \d+ voxels, "
            rf"[\d.]+ GB were free; free memory or use a larger machine{way_out}$"
        )
        with pytest.raises(DeviceError, match=message):
            segmenter.predict(small_case[0], affine=small_case[1])


def test_other_errors_of_an_engine_are_left_alone(small_case: Case) -> None:
    engine = HungryEngine()
    engine.error = KeyError("a bug")
    with pytest.raises(KeyError):
        Segmenter(engine, warm_up=False).predict(small_case[0], affine=small_case[1])
