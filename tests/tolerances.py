"""How far a result may be from the exact one: a rule, not a number per test."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def allowed_error(peer: NDArray[Any], exact: NDArray[Any]) -> float:
    """Twice the error of a peer in the same dtype (NumPy, or another runtime), plus the rounding of that dtype."""
    if exact.size == 0:
        return 0.0
    rounding = np.finfo(peer.dtype).eps * np.abs(exact).max()
    return float(2 * np.abs(peer - exact).max() + rounding)


def assert_close(result: NDArray[Any], peer: NDArray[Any], exact: NDArray[Any]) -> None:
    """Fails unless the result is as near to the exact one as `allowed_error` says; NaN is never near."""
    assert result.shape == exact.shape
    assert result.dtype == peer.dtype
    error = float(np.abs(result - exact).max(initial=0.0))
    assert error <= allowed_error(peer, exact)
