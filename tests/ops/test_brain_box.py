from __future__ import annotations

import numpy as np
import pytest

from fastbts import ops
from fastbts.ops import reference
from tests.ops.devices import Ops
from tests.ops.views import IMAGE_TYPES, N_THREADS, RAGGED, noise_image, orientations


def test_by_hand(device: Ops) -> None:
    volume = np.zeros((2, 2, 3, 5), np.int16)
    volume[0, 1, 1, 2] = 7
    volume[1, 1, 1, 2] = -7
    volume[1, 1, 2, 3] = 1
    box = device.brain_box(volume)
    assert box.bounds == ((1, 2), (1, 3), (2, 4))
    assert box.size == (1, 2, 2)
    assert box.n_brain == 2
    assert box.n_nonzero == (1, 2)
    assert box.n_nonfinite == (0, 0)


def test_nonfinite_voxels_are_counted_as_brain_and_minus_zero_is_not(device: Ops) -> None:
    volume = np.zeros((1, 1, 1, 6), np.float32)
    volume[0, 0, 0] = [-0.0, np.nan, np.inf, -np.inf, 1e-45, 0.0]
    box = device.brain_box(volume)
    assert box.bounds[2] == (1, 5)
    assert (box.n_brain, box.n_nonfinite, box.n_nonzero) == (4, (3,), (4,))


@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4, 5), (3, 4, 0)])
def test_without_brain_the_box_is_empty(device: Ops, shape: tuple[int, int, int]) -> None:
    box = device.brain_box(np.zeros((2, *shape), np.uint8))
    assert box == ops.BrainBox(((0, 0), (0, 0), (0, 0)), 0, (0, 0), (0, 0))
    assert box.size == (0, 0, 0)


def as_tuple(box: ops.BrainBox) -> tuple[ops.Box, int, tuple[int, ...], tuple[int, ...]]:
    return box.bounds, box.n_brain, box.n_nonfinite, box.n_nonzero


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("shape", RAGGED)
@pytest.mark.parametrize("dtype", IMAGE_TYPES)
def test_agrees_with_the_reference(
    device: Ops, dtype: str, shape: tuple[int, int, int], n_threads: int
) -> None:
    volume = noise_image(shape, dtype, n_modalities=3)
    volume[:, : shape[0] // 3] = 0
    volume[..., shape[2] - shape[2] // 4 :] = 0
    assert as_tuple(device.brain_box(volume, n_threads)) == reference.brain_box(volume)


def test_every_orientation_in_memory_gives_the_same(device: Ops) -> None:
    volume = noise_image((7, 17, 13), "i2")
    volume[:, :2] = volume[:, :, 12:] = volume[..., :3] = 0
    expected = reference.brain_box(volume)
    for view in orientations(volume):
        assert as_tuple(device.brain_box(view)) == expected


def test_modalities_interleaved_in_memory() -> None:
    volume = noise_image((5, 6, 7), "f4", n_modalities=4)
    interleaved = np.ascontiguousarray(np.moveaxis(volume, 0, -1))
    assert ops.brain_box(np.moveaxis(interleaved, -1, 0)) == ops.brain_box(volume)
