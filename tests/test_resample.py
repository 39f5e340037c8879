import numpy as np
import pytest

from fastbts.resample import resample


def test_by_hand() -> None:
    line = np.array([0, 4], np.float32).reshape(1, 2, 1, 1)
    np.testing.assert_array_equal(resample(line, (4, 1, 1)).ravel(), [0, 1, 3, 4])
    np.testing.assert_array_equal(resample(resample(line, (4, 1, 1)), (2, 1, 1)).ravel(), [0.5, 3.5])


def test_same_size_is_untouched() -> None:
    array = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    assert resample(array, (3, 4, 5)) is array


@pytest.mark.parametrize("size", [(6, 9, 4), (1, 1, 1), (13, 5, 20)])
def test_linear_functions_survive(size: tuple[int, int, int]) -> None:
    """Interpolation is exact for a linear ramp, away from the edge voxels where it is held constant."""
    shape = (6, 9, 10)
    centres = [(np.arange(n) + 0.5) / n for n in shape]
    ramp = sum(c.reshape([-1 if a == axis else 1 for a in range(3)]) for axis, c in enumerate(centres))
    out = resample(ramp[None].astype(np.float32), size)[0]
    wanted = sum(
        np.clip((np.arange(n) + 0.5) / n, centres[axis][0], centres[axis][-1]).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
        for axis, n in enumerate(size)
    )
    np.testing.assert_allclose(out, wanted, atol=1e-5)
