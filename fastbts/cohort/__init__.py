"""Many cases: parts, restarts, one table, BIDS derivatives, a Ray cluster, scores.

>>> from fastbts import cohort
>>> outcomes = cohort.predict(["case_1", "case_2"], "out", skip_done=True)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastbts.cohort.outcome import Outcome
    from fastbts.cohort.part import Part
    from fastbts.cohort.run import predict

__all__ = ["Outcome", "Part", "predict"]

# Loaded on first use, so that the command line loads what it needs.
_LAZY = {"Outcome": "outcome", "Part": "part", "predict": "run"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fastbts.cohort' has no attribute {name!r}")
    return getattr(import_module(f"fastbts.cohort.{_LAZY[name]}"), name)
