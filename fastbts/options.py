"""How a Segmenter runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastbts.errors import OptionsError

MAX_THREADS = 1024
MODES = ("auto", "one-pass", "sliding")


@dataclass(frozen=True, kw_only=True)
class SegmenterOptions:
    """How to run; none of these options changes the network.

    Raises:
        OptionsError: A value outside of its range.
    """

    mode: str = "auto"
    """"one-pass": the whole brain box at once, fastest. "sliding": overlapping windows, bounded
    memory, takes longer. "auto": one pass if the memory that is free suffices for it."""
    overlap: float = 0.25
    """Minimum overlap of neighbouring sliding windows, as a fraction of their size."""
    passes: int = 1
    """2: the network runs a second time on the image moved by one voxel along each axis, and the
    logits are averaged. Twice as long, a little more accurate."""
    focus: bool = False
    """The engine's finder finds the tumour at half of the resolution, and the network runs only
    there: faster, on CPUs. It needs the path of an engine file that has a finder.
    `report["windows"]["focus"]` has the part, or why the whole brain was done."""
    n_threads: int = 0
    """CPU threads; 0 for all that the process may use, by its affinity and its container."""
    parallel: int = 1
    """Cases that are computed at once, on a CPU each with its share of the threads: in
    `predict_batch`, or when several threads call `predict`. More cases per hour, but each takes
    longer, and each needs its own memory. An engine that the caller loads needs the same in
    `load_engine`."""
    allow_missing: bool = False
    """Whether a case may lack images that the engine was trained to do without. Off by default, so
    that a misnamed file is not mistaken for a missing one: without T1ce the result is far worse."""
    min_part_mm3: float | None = None
    """Connected parts of the whole tumour smaller than this become background, before the small-ET
    rule; 0 for off, None for the engine's own value."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise OptionsError(f"mode {self.mode!r}: expected one of {', '.join(MODES)}")
        if not isinstance(self.overlap, int | float) or not 0 <= self.overlap <= 0.9:
            raise OptionsError(f"overlap {self.overlap!r}: expected a number between 0 and 0.9")
        if isinstance(self.passes, bool) or self.passes not in (1, 2):
            raise OptionsError(f"passes {self.passes!r}: expected 1 or 2")
        check_threads(self.n_threads, self.parallel)
        for name in ("focus", "allow_missing"):
            if not isinstance(value := getattr(self, name), bool):
                raise OptionsError(f"{name} {value!r}: expected True or False")
        part = 0 if self.min_part_mm3 is None else self.min_part_mm3
        if not isinstance(part, int | float) or not 0 <= part < math.inf:
            raise OptionsError(f"min_part_mm3 {part!r}: expected 0 (off) or a volume in mm3")


def check_threads(n_threads: int, parallel: int = 1) -> None:
    """Raises OptionsError unless these are numbers of threads and of cases; True is not 1."""
    if not _is_whole(n_threads) or not 0 <= n_threads <= MAX_THREADS:
        raise OptionsError(
            f"n_threads {n_threads!r}: expected 0 (all) or an integer up to {MAX_THREADS}"
        )
    if not _is_whole(parallel) or not 1 <= parallel <= MAX_THREADS:
        raise OptionsError(f"parallel {parallel!r}: expected an integer from 1 to {MAX_THREADS}")


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
