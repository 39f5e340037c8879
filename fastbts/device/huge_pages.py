"""Huge pages for memory that a library allocates, on Linux.

The network's intermediate results fill about 250 MB. The system gives them in pages of 4 kB, which
are all over the memory once it has run for a while; then the network takes 10 to 30 % longer. glibc
itself asks for huge pages only if the environment says so before a process starts.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastbts.device.cgroups import text_of

PAGE = 2**21
"""Bytes of a huge page."""
ADVISE, COLLAPSE = 14, 25
"""MADV_HUGEPAGE: also for pages to come. MADV_COLLAPSE: now; from Linux 6.1 on."""
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MAPS = Path("/proc/self/maps")

Span = tuple[int, int]
"""First address, and the one after the last."""


@contextmanager
def huge_pages() -> Iterator[None]:
    """Moves the large memory that is allocated inside, by any thread, to huge pages at the end.

    Contents and addresses stay. It does nothing where the system does not offer it or its
    administrator has switched it off.
    """
    if not _are_offered():
        yield
        return
    before = _spans()
    yield
    madvise = ctypes.CDLL(None).madvise
    for begin, end in _whole_pages(_without(_spans(), before)):
        for advice in (ADVISE, COLLAPSE):  # what fails leaves the memory as it is
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), ctypes.c_int(advice))


def _are_offered() -> bool:
    setting = text_of(SETTING)
    return sys.platform == "linux" and bool(setting) and "[never]" not in setting


def _spans() -> list[Span]:
    """Private memory of this process that is of no file, in the order of addresses."""
    spans = []
    for line in text_of(MAPS).splitlines():
        addresses, rights, _, _, inode, *name = line.split()
        if rights == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            begin, _, end = addresses.partition("-")
            spans.append((int(begin, 16), int(end, 16)))
    return spans


def _without(spans: list[Span], others: list[Span]) -> list[Span]:
    """The parts of spans that are in no other one; both are in order."""
    left = []
    for begin, end in spans:
        for other_begin, other_end in others:
            if other_end > begin and other_begin < end:
                left.append((begin, other_begin))
                begin = other_end
        left.append((begin, end))
    return left


def _whole_pages(spans: list[Span]) -> list[Span]:
    """The huge pages that fit into spans."""
    rounded = [(-(-begin // PAGE) * PAGE, end // PAGE * PAGE) for begin, end in spans]
    return [(begin, end) for begin, end in rounded if begin < end]
