"""Ops that write a packed tensor and read packed logits, against `pack` and `unpack` in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops
from fastbts.ops import PackedLogits, Packing, network, network_reference, reference
from tests.ops.views import N_THREADS, noise_image, orientations

HALF_OF_BFLOAT16 = 2.0**-8
BOX = ((1, 8), (0, 9), (2, 13))
SIZE = (8, 10, 16)  # the box begins at an odd voxel along W, and is odd itself


def full_box(volume: NDArray[Any]) -> ops.Box:
    d, h, w = volume.shape[1:]
    return (0, d), (0, h), (0, w)


def fusion_of(n: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return {
        "gate": rng.standard_normal((n, n)).astype(np.float32),
        "gate_bias": rng.standard_normal(n).astype(np.float32),
        "background": rng.standard_normal(n).astype(np.float32),
    }


def floats(bits: NDArray[Any]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32) if bits.dtype == np.uint16 else bits


def packed_exactly(volume: NDArray[Any], packing: Packing) -> NDArray[np.float64]:
    tensor, _ = reference.normalize(volume, BOX, SIZE, (0.1, 99.9))
    packed = network_reference.pack(tensor[None], packing.patch, **packing.fusion)
    return np.moveaxis(packed[0], -1, 0)


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("fuses", [True, False])
@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_normalize_packs_what_it_normalizes(
    patch: int, fuses: bool, dtype: str, n_threads: int
) -> None:
    volume = noise_image((9, 9, 14), dtype)
    fusion = fusion_of(len(volume)) if fuses else {}
    for each in orientations(volume):
        for kind in (np.float32, np.uint16):
            packing = Packing(patch, np.dtype(kind), fusion=fusion)
            got, stats = ops.normalize(each, BOX, SIZE, n_threads=n_threads, packing=packing)
            exact = packed_exactly(each, packing)
            rounding = 1e-5 if kind == np.float32 else 1.01 * HALF_OF_BFLOAT16
            np.testing.assert_allclose(floats(got), exact, rtol=rounding, atol=1e-5)
            _, plain = ops.normalize(each, BOX, SIZE)
            np.testing.assert_array_equal(stats, plain)


def test_normalize_packs_as_pack_does() -> None:
    """The same bits, in int8 too, where an image has voxels only where blocks do not begin."""
    volume = noise_image((9, 9, 14), "i2")
    volume[1] = 0
    volume[1, 2::2, 1::2, 1::2] = np.arange(4 * 4 * 7).reshape(4, 4, 7) + 1
    volume[1, 0::2] = 0
    n = len(volume)
    tensor, _ = ops.normalize(volume, full_box(volume), (10, 10, 14))
    for dtype in (np.float32, np.uint16, np.int8):
        packing = Packing(2, np.dtype(dtype), step=0.02, fusion=fusion_of(n))
        got, _ = ops.normalize(volume, full_box(volume), (10, 10, 14), packing=packing)
        expected = np.zeros_like(got)
        network.pack(
            tensor[None],
            2,
            **packing.fusion,
            step=packing.step,
            out=np.moveaxis(expected, 0, -1)[None],
            scratch=np.zeros((2, 1, n), np.float32),
        )
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("bits", [True, False])
def test_labels_and_sums_of_packed_logits_are_those_of_voxels(
    patch: int, bits: bool, n_threads: int
) -> None:
    rng = np.random.default_rng(0)
    array = rng.standard_normal((3 * patch**3, 4, 5, 19)).astype(np.float32)
    array[0, 1, 1, 2] = np.nan
    packed = PackedLogits((array.view(np.uint32) >> 16).astype("u2") if bits else array, patch)
    channels = floats(packed.array)
    voxels = network_reference.unpack(np.moveaxis(channels, 0, -1)[None], patch)[0]
    np.testing.assert_array_equal(packed.voxels(n_threads), voxels)
    assert packed.shape == voxels.shape
    offset, size = (1, 0, 1), (2, 4, 15)
    thresholds, values = (0.4, 0.5, 0.6), (2, 1, 4)
    box = ((0, 2), (1, 5), (2, 17))
    for labels in orientations(np.zeros((1, 3, 6, 18), np.uint8)):
        counts = ops.label(packed, offset, box, thresholds, values, labels[0], n_threads)
        expected, n = reference.label(
            voxels, offset, box, thresholds, values, np.zeros(labels[0].shape, np.uint8)
        )
        np.testing.assert_array_equal(labels[0], expected)
        assert counts == n
    for step in (1, 2, 3):
        args = (offset, size, [1.3, 0.7, 2.0][: len(thresholds)], thresholds, step, n_threads)
        sums = ops.expected_dice(packed, *args)
        np.testing.assert_array_equal(sums, ops.expected_dice(voxels, *args))


def test_what_does_not_fit_is_refused() -> None:
    volume = noise_image((9, 9, 14), "i2")
    n = len(volume)
    size = (10, 10, 14)
    with pytest.raises(OptionsError, match="normalize: patch: expected 1 or 2, got 3"):
        ops.normalize(volume, full_box(volume), (12, 12, 15), packing=Packing(3))
    with pytest.raises(OptionsError, match="normalize: step: expected more than 0, got 0"):
        ops.normalize(volume, full_box(volume), size, packing=Packing(2, step=0))
    fusion = {**fusion_of(n), "gate": np.ones((1, 1), np.float32)}
    with pytest.raises(InputError, match=r"normalize: gate: expected shape \(.*, got \(1, 1\)"):
        ops.normalize(volume, full_box(volume), size, packing=Packing(2, fusion=fusion))
    labels = np.zeros((2, 2, 2), np.uint8)
    box, half = full_box(labels[None]), (0.5, 0.5, 0.5)
    packed = PackedLogits(np.zeros((3, 1, 1, 1), np.float32), 2)
    with pytest.raises(InputError, match="label: logits: expected a multiple of 8 channels, got 3"):
        ops.label(packed, (0, 0, 0), box, half, (2, 1, 4), labels)
    packed = PackedLogits(np.zeros((3, 2, 2, 2), np.int8), 1)
    with pytest.raises(InputError, match="label: logits: expected float32 or uint16, got int8"):
        ops.label(packed, (0, 0, 0), box, half, (2, 1, 4), labels)
