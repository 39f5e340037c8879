"""Text vectors that carry no meaning: what a network reads where no text encoder is named."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def orthonormal_vectors(n: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Random orthonormal vectors: they tell regions apart, but carry no meaning of words.

    Args:
        n: Number of vectors.
        width: Their length.
        seed: Equal seeds give equal vectors.
    Returns:
        (n, width) float32.
    """
    drawn = np.random.default_rng(seed).standard_normal((width, n))
    q, r = np.linalg.qr(drawn)
    rows = (q * np.sign(np.diag(r))).T  # LAPACK chooses the signs; this makes them defined
    return np.ascontiguousarray(rows.astype(np.float32))
