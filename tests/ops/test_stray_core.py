from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import InputError, OptionsError, ops
from fastbts.labels import ED, ET, NCR
from fastbts.ops import reference
from tests.ops.devices import Ops
from tests.ops.image_ops import stray_core_example
from tests.ops.views import N_THREADS, RAGGED, orientations

VALUES = (ED, NCR, ET)


def full_box(labels: NDArray[np.uint8]) -> ops.Box:
    d, h, w = labels.shape
    return (0, d), (0, h), (0, w)


def tumour(stray: int = 6, ring: bool = True) -> NDArray[np.uint8]:
    """Oedema with a cube of 4^3 voxels of core in a ring of enhancing tumour, and another, of
    stray^3, away from it."""
    labels = np.full((14, 14, 24), ED, np.uint8)
    if ring:
        labels[2:8, 2:8, 2:8] = ET
        labels[3:7, 3:7, 3:7] = NCR
    labels[2 : 2 + stray, 2 : 2 + stray, 12 : 12 + stray] = NCR
    return labels


def test_core_away_from_a_ring_becomes_oedema(device: Ops) -> None:
    labels, without = tumour(), tumour(stray=0)
    assert device.stray_core(labels, full_box(labels), VALUES, 20) == (64, 216, 216)
    assert np.array_equal(labels, without)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"ring": False}, (0, 216, 0)),
        ({"stray": 8}, (64, 512, 512)),
        ({"stray": 9}, (64, 729, 0)),
    ],
    ids=["no ring", "a ring of an eighth", "a ring of less than a tenth"],
)
def test_without_an_enclosed_core_as_evidence_nothing_changes(
    device: Ops, change: dict[str, Any], counts: tuple[int, int, int]
) -> None:
    labels = tumour(**change)
    before = labels.copy()
    assert device.stray_core(labels, full_box(labels), VALUES, 20) == counts
    assert np.array_equal(labels, before) == (counts[2] == 0)


def test_small_parts_do_not_count(device: Ops) -> None:
    labels = tumour(stray=2)
    assert device.stray_core(labels, full_box(labels), VALUES, 9) == (64, 0, 0)
    assert device.stray_core(labels, full_box(labels), VALUES, 65) == (0, 0, 0)
    assert device.stray_core(labels, full_box(labels), VALUES, 8) == (64, 8, 8)


@pytest.mark.parametrize(("n_to_et", "n_changed"), [(5, 3), (6, 0)], ids=["a sixth", "a fifth"])
def test_a_part_that_touches_enough_enhancing_tumour_stays(
    device: Ops, n_to_et: int, n_changed: int
) -> None:
    """A bar of 7 voxels has 30 faces, a bar of 3 has 14."""
    labels = np.zeros((9, 9, 24), np.uint8)
    labels[4, 4, 1:8] = NCR
    labels[3, 4, 1 : 1 + n_to_et] = ET
    labels[6:9, 6:9, 14:19], labels[7, 7, 15:18] = ET, NCR
    counts = device.stray_core(labels, full_box(labels), VALUES, 1)
    assert counts == (3, 7, 7) if n_changed else counts == (3, 0, 0)


def test_parts_that_touch_by_an_edge_are_two(device: Ops) -> None:
    """Else a leak of one voxel would join core inside and outside of a ring."""
    labels = tumour()
    labels[2:4, 7, 7], labels[2:8, 2:8, 8:12] = NCR, NCR
    assert device.stray_core(labels, full_box(labels), VALUES, 20)[0] == 64


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("shape", [*RAGGED[:-1], (0, 4, 4)])
def test_agrees_with_the_reference(
    device: Ops, shape: tuple[int, int, int], n_threads: int
) -> None:
    labels = stray_core_example(np.random.default_rng(0), shape, "")["labels"]
    expected, *counts = reference.stray_core(labels, full_box(labels), VALUES, 4)
    assert device.stray_core(labels, full_box(labels), VALUES, 4, n_threads) == tuple(counts)
    assert np.array_equal(labels, expected)


def test_agrees_with_the_reference_on_fresh_random_labels() -> None:
    rng = np.random.default_rng()
    for _ in range(60):
        size = tuple(map(int, rng.integers(1, 12, 3)))
        given = stray_core_example(rng, (size[0], size[1], size[2]), "")
        expected, *counts = reference.stray_core(**given)
        assert ops.stray_core(**given) == tuple(counts)
        assert np.array_equal(given["labels"], expected)


def test_only_the_box_counts(device: Ops) -> None:
    labels = tumour()
    outside = labels[2:, :, 15:].copy()
    box = ((2, 14), (2, 14), (0, 15))
    expected, *counts = reference.stray_core(labels, box, VALUES, 5)
    assert device.stray_core(labels, box, VALUES, 5) == tuple(counts) == (64, 108, 108)
    assert np.array_equal(labels, expected)
    assert np.array_equal(labels[2:, :, 15:], outside)


def test_every_orientation_in_memory_gives_the_same(device: Ops) -> None:
    labels = stray_core_example(np.random.default_rng(0), (7, 9, 11), "")["labels"]
    expected, *counts = reference.stray_core(labels, full_box(labels), VALUES, 3)
    assert counts[2] > 0
    before = labels.copy()
    for view in orientations(labels):
        view[...] = before
        assert device.stray_core(view, full_box(labels), VALUES, 3) == tuple(counts)
        assert np.array_equal(view, expected)


def test_agrees_with_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    labels = stray_core_example(np.random.default_rng(5), (30, 40, 50), "")["labels"]
    parts, n = ndimage.label(labels == NCR)
    around, faces, to_et = np.pad(labels, 1), np.zeros(n + 1), np.zeros(n + 1)
    for axis in range(3):
        for step in (0, 2):
            beside = np.moveaxis(around, axis, 0)[step : step + labels.shape[axis], 1:-1, 1:-1]
            beside = np.moveaxis(beside, 0, axis)
            faces += np.bincount(parts.ravel(), (beside != NCR).ravel(), n + 1)
            to_et += np.bincount(parts.ravel(), (beside == ET).ravel(), n + 1)
    sizes = np.bincount(parts.ravel()) * (np.bincount(parts.ravel()) >= 6)
    enclosed, stray = to_et >= 0.6 * faces, to_et < 0.2 * faces
    found = ops.stray_core(labels, full_box(labels), VALUES, 6)
    assert found is not None
    assert found[:2] == (sizes[1:][enclosed[1:]].sum(), sizes[1:][stray[1:]].sum())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": ((0, 4), (0, 5), (0, 99))}, "stray_core: box: expected to be inside labels"),
        ({"min_voxels": -1}, "stray_core: min_voxels: expected 0 or more, got -1"),
        ({"values": (2, 1, 1)}, "stray_core: values: expected three different labels .* 2, 1, 1"),
        ({"values": (2, 0, 4)}, "stray_core: values: expected three different labels .* 2, 0, 4"),
    ],
)
def test_options_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    labels = np.ones((4, 5, 6), np.uint8)
    given = {"labels": labels, "box": full_box(labels), "values": VALUES, "min_voxels": 1}
    with pytest.raises(OptionsError, match=message):
        ops.stray_core(**{**given, **change})
    assert labels.all()


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"stray_core: labels: expected uint8 \(D, H, W\)"):
        ops.stray_core(np.zeros((2, 2, 2), np.int16), ((0, 2),) * 3, VALUES, 1)
    labels = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(InputError, match=r"stray_core: counts: expected shape \(3\), got \(2\)"):
        ops.stray_core(labels, full_box(labels), VALUES, 1, counts=np.zeros(2, np.int64))
