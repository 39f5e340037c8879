"""Predicts under address-space limits from just above the present use upwards, then without one.

`python memory_limits.py BACKEND N_STEPS`. Prints how the limited calls ended. Exit code 1 if a
later mask is wrong, an error is not ours, or no limited call failed.
"""

from __future__ import annotations

import resource
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import fastbts
from fastbts.device import host_memory
from fastbts.phantom import make_case

NONE = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
LEAST_MB, MOST_MB = 10, 600  # what a full-size pass takes beyond a small one is in between


def used() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmSize")) << 10


def outcome(segmenter: fastbts.Segmenter, volume: fastbts.Volume, limit: int) -> str:
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        segmenter.predict(volume)
    except fastbts.FastBTSError:
        return "typed"
    except BaseException as error:
        return f"untyped {type(error).__name__}"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, NONE)
    return "ran"


def n_wrong(
    segmenter: fastbts.Segmenter, other: fastbts.Segmenter, volume: fastbts.Volume, want: np.ndarray
) -> int:
    """Wrong masks after another engine has used what memory the first one takes for its own."""
    for _ in range(3):
        other.predict(volume)
    wrong = 0
    for _ in range(4):
        with suppress(fastbts.FastBTSError):
            wrong += not np.array_equal(segmenter.predict(volume).labels, want)
    return wrong


def main(backend: str, n_steps: int) -> int:
    large = make_case(seed=1).volume
    cut = np.ascontiguousarray(np.asarray(large.data)[:, 72:168, 72:168, 36:116])
    small = fastbts.Volume(cut, large.affine)
    if backend == "onnxruntime":  # try what would be refused; OpenVINO could end the process
        host_memory.limit_bytes = lambda: None
    options = fastbts.SegmenterOptions(mode="one-pass")
    choice: dict[str, Any] = {"backend": backend, "options": options, "warm_up": False}
    seen: Counter[str] = Counter()  # no warm-up: it would take what the large case needs
    for extra in np.linspace(LEAST_MB, MOST_MB, n_steps).astype(int).tolist():
        with fastbts.Segmenter(**choice) as segmenter:
            want = segmenter.predict(small).labels.copy()
            assert want.any()
            seen[outcome(segmenter, large, used() + (extra << 20))] += 1
            with fastbts.Segmenter(**choice) as other:
                seen["wrong afterwards"] += n_wrong(segmenter, other, small, want)
    print(dict(seen))
    untyped = sum(n for name, n in seen.items() if name.startswith("untyped"))
    return int(bool(seen["wrong afterwards"] or untyped or not seen["typed"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
