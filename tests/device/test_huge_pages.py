"""Huge pages for memory that is allocated inside a block."""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbts import Segmenter
from fastbts.device import huge_pages
from fastbts.device.huge_pages import PAGE, Span
from tests.conftest import VoxelEngine

SMAPS = Path("/proc/self/smaps")


def memory() -> mmap.mmap:
    mapped = mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapped[:] = b"x" * len(mapped)
    return mapped


def is_advised(mapped: mmap.mmap) -> bool:
    """Whether the system knows that the middle of this memory shall have huge pages."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped)) + len(mapped) // 2
    inside = False
    for line in SMAPS.read_text().splitlines():
        name, *values = line.split()
        begin, dash, end = name.partition("-")
        if dash:
            inside = int(begin, 16) <= address < int(end, 16)
        elif inside and name == "VmFlags:":
            return "hg" in values
    return False


@pytest.fixture
def offered() -> None:
    if sys.platform != "linux" or not huge_pages._are_offered():
        pytest.skip("this system does not offer huge pages")
    if "VmFlags:" not in SMAPS.read_text():
        pytest.skip("this system does not tell what memory was advised")


@pytest.mark.usefixtures("offered")
def test_memory_allocated_inside_has_huge_pages() -> None:
    before = memory()
    with huge_pages.huge_pages():
        inside = memory()
    after = memory()
    assert [is_advised(m) for m in (before, inside, after)] == [False, True, False]
    assert inside[:] == b"x" * (4 * PAGE)


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("setting", ["always madvise [never]", None])
def test_what_is_switched_off_stays_so(
    setting: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huge_pages, "SETTING", tmp_path / "enabled")
    if setting:
        huge_pages.SETTING.write_text(setting)
    with huge_pages.huge_pages():
        inside = memory()
    assert not is_advised(inside)


def test_an_error_inside_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="of the block"), huge_pages.huge_pages():
        raise RuntimeError("of the block")


@pytest.mark.parametrize(
    ("spans", "others", "left"),
    [
        ([(0, 9)], [], [(0, 9)]),
        ([(0, 9)], [(0, 9)], []),
        ([(0, 9)], [(2, 3), (5, 6)], [(0, 2), (3, 5), (6, 9)]),
        ([(2, 5), (7, 9)], [(0, 3), (8, 12)], [(3, 5), (7, 8)]),
        ([(2, 5)], [(0, 2), (5, 6)], [(2, 5)]),
        ([(2, 5)], [(0, 9)], []),
    ],
)
def test_what_is_new(spans: list[Span], others: list[Span], left: list[Span]) -> None:
    assert [s for s in huge_pages._without(spans, others) if s[0] < s[1]] == left


@pytest.mark.parametrize(
    ("span", "whole"),
    [
        ((0, PAGE), [(0, PAGE)]),
        ((1, 2 * PAGE), [(PAGE, 2 * PAGE)]),
        ((1, 2 * PAGE - 1), []),
        ((PAGE, PAGE), []),
        ((PAGE + 1, 5 * PAGE - 1), [(2 * PAGE, 4 * PAGE)]),
    ],
)
def test_only_whole_pages_are_moved(span: Span, whole: list[Span]) -> None:
    assert huge_pages._whole_pages([span]) == whole


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("warm_up", [True, False])
def test_a_warm_up_moves_the_networks_memory(warm_up: bool) -> None:
    class Keeps(VoxelEngine):
        def infer(self, *arguments: Any, **named: Any) -> NDArray[np.float32]:
            self.kept = memory()
            return super().infer(*arguments, **named)

    engine = Keeps()
    Segmenter(engine, warm_up=warm_up)
    assert hasattr(engine, "kept") == warm_up
    assert not warm_up or is_advised(engine.kept)
