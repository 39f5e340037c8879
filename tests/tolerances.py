"""The allowed error of a result: one rule instead of a number per test."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def allowed_error(peer: NDArray[Any], exact: NDArray[Any]) -> float:
    """Twice a peer's error in the same dtype (NumPy, another runtime), plus one rounding."""
    if exact.size == 0:
        return 0.0
    rounding = np.finfo(peer.dtype).eps * np.abs(exact).max()
    return float(2 * np.abs(peer - exact).max() + rounding)


def assert_close(result: NDArray[Any], peer: NDArray[Any], exact: NDArray[Any]) -> None:
    """Fails if the error is above `allowed_error`, or anything is NaN."""
    assert result.shape == exact.shape
    assert result.dtype == peer.dtype
    error = float(np.abs(result - exact).max(initial=0.0))
    assert error <= allowed_error(peer, exact)
