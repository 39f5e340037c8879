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


def tumour(stray: int = 8, ring: bool = True) -> NDArray[np.uint8]:
    """Oedema with a cube of 4^3 voxels of core, 2^3 of them inner ones, in a ring of enhancing
    tumour, and another cube, of stray^3, away from it."""
    labels = np.full((14, 14, 24), ED, np.uint8)
    if ring:
        labels[2:8, 2:8, 2:8] = ET
        labels[3:7, 3:7, 3:7] = NCR
    labels[2 : 2 + stray, 2 : 2 + stray, 12 : 12 + stray] = NCR
    return labels


def test_core_away_from_a_ring_becomes_oedema(device: Ops) -> None:
    """All of it: the corners of a cube are three steps from its inner voxels."""
    labels, without = tumour(stray=7), tumour(stray=0)
    assert device.stray_core(labels, full_box(labels), VALUES, 8) == (8, 125, 343)
    assert np.array_equal(labels, without)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"ring": False}, (0, 216, 0)),
        ({"stray": 7}, (8, 125, 343)),
        ({"stray": 8}, (8, 216, 0)),
    ],
    ids=["no ring", "a ring of a sixteenth", "a ring of less than a twentieth"],
)
def test_without_an_enclosed_core_as_evidence_nothing_changes(
    device: Ops, change: dict[str, Any], counts: tuple[int, int, int]
) -> None:
    labels = tumour(**change)
    before = labels.copy()
    assert device.stray_core(labels, full_box(labels), VALUES, 8) == counts
    assert np.array_equal(labels, before) == (counts[2] == 0)


def test_small_parts_do_not_count(device: Ops) -> None:
    labels = tumour(stray=3)
    assert device.stray_core(labels, full_box(labels), VALUES, 2) == (8, 0, 0)
    assert device.stray_core(labels, full_box(labels), VALUES, 9) == (0, 0, 0)
    assert device.stray_core(labels, full_box(labels), VALUES, 1) == (8, 1, 27)


def test_core_without_inner_voxels_is_no_part(device: Ops) -> None:
    labels = tumour(stray=0)
    labels[2:4, 2:12, 10:24] = NCR
    assert device.stray_core(labels, full_box(labels), VALUES, 0) == (8, 0, 0)


@pytest.mark.parametrize(
    ("n_to_et", "counts"), [(3, (8, 3, 45)), (4, (8, 0, 0)), (9, (8, 0, 0)), (10, (11, 0, 0))]
)
def test_what_the_core_around_a_part_touches_decides(
    device: Ops, n_to_et: int, counts: tuple[int, int, int]
) -> None:
    """A bar of 3 x 3 x 5 voxels has three inner ones with 14 faces: 3/14 is less than a quarter,
    10/14 is more than seven tenths."""
    labels = tumour(stray=0)
    bar = labels[2:7, 2:7, 12:19]
    bar[1:4, 1:4, 1:6] = NCR
    beside = [(d, h, w) for d, h in ((0, 2), (4, 2), (2, 0), (2, 4)) for w in (2, 3, 4)]
    for at in beside[:n_to_et]:
        bar[at] = ET
    assert device.stray_core(labels, full_box(labels), VALUES, 1) == counts


def test_a_thin_bridge_does_not_join_two_parts(device: Ops) -> None:
    """Of a leak through a ring the half that is nearer to the core outside changes with it."""
    labels = tumour(stray=7)
    labels[4, 4, 7:12] = NCR
    assert device.stray_core(labels, full_box(labels), VALUES, 9) == (9, 126, 343 + 3)
    assert labels[4, 4, 6:13].tolist() == [NCR, NCR, NCR, ED, ED, ED, ED]


@pytest.mark.parametrize("n_threads", N_THREADS)
@pytest.mark.parametrize("shape", [*RAGGED[:-1], (0, 4, 4)])
def test_agrees_with_the_reference(
    device: Ops, shape: tuple[int, int, int], n_threads: int
) -> None:
    labels = stray_core_example(np.random.default_rng(0), shape, "")["labels"]
    expected, *counts = reference.stray_core(labels, full_box(labels), VALUES, 1)
    assert counts[2] > 0 or min(shape) < 11
    assert device.stray_core(labels, full_box(labels), VALUES, 1, n_threads) == tuple(counts)
    assert np.array_equal(labels, expected)


def test_agrees_with_the_reference_on_fresh_random_labels() -> None:
    rng = np.random.default_rng()
    for _ in range(60):
        size = tuple(map(int, rng.integers(1, 17, 3)))
        given = stray_core_example(rng, (size[0], size[1], size[2]), "")
        expected, *counts = reference.stray_core(**given)
        assert ops.stray_core(**given) == tuple(counts)
        assert np.array_equal(given["labels"], expected)


def test_only_the_box_counts(device: Ops) -> None:
    labels = tumour()
    outside = labels[2:, :, 17:].copy()
    box = ((2, 14), (2, 14), (0, 17))
    expected, *counts = reference.stray_core(labels, box, VALUES, 5)
    assert device.stray_core(labels, box, VALUES, 5) == tuple(counts) == (8, 108, 320)
    assert np.array_equal(labels, expected)
    assert np.array_equal(labels[2:, :, 17:], outside)


def test_every_orientation_in_memory_gives_the_same(device: Ops) -> None:
    labels = stray_core_example(np.random.default_rng(0), (7, 9, 11), "")["labels"]
    expected, *counts = reference.stray_core(labels, full_box(labels), VALUES, 1)
    assert counts[2] > 0
    before = labels.copy()
    for view in orientations(labels):
        view[...] = before
        assert device.stray_core(view, full_box(labels), VALUES, 1) == tuple(counts)
        assert np.array_equal(view, expected)


def test_agrees_with_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    labels = stray_core_example(np.random.default_rng(5), (30, 40, 50), "")["labels"]
    core = labels == NCR
    inner = ndimage.binary_erosion(core)
    parts, n = ndimage.label(inner)
    rim = core & ~inner
    near_et = rim & ndimage.binary_dilation(labels == ET)
    cross = ndimage.generate_binary_structure(3, 1).astype(int)
    contact = []
    for part in range(1, n + 1):
        n_faces = ndimage.convolve((parts == part).astype(int), cross, mode="constant")
        contact.append(n_faces[near_et].sum() / n_faces[rim].sum())
    sizes = np.bincount(parts.ravel())[1:]
    large, where = sizes >= 3, np.array(contact)
    found = ops.stray_core(labels, full_box(labels), VALUES, 3)
    assert found is not None
    assert found.n_enclosed == sizes[large & (where >= 0.7)].sum()
    assert found.n_stray == sizes[large & (where < 0.25)].sum() > 0


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
