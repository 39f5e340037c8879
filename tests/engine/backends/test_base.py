"""What every backend does the same way: arguments, outputs, closing; run with each CPU backend."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest

from fastbts import DeviceError, Engine, OptionsError, load_engine
from fastbts.engine.backends import BACKENDS
from fastbts.engine.interface import parallel_of
from tests.conftest import write_voxel_engine

ON_CPU = [name for name, row in BACKENDS.items() if "cpu" in row.devices]


@pytest.fixture(scope="module", params=ON_CPU)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = load_engine(precision="fp32", backend=request.param)
    assert engine.description["backend"] == request.param
    yield engine
    engine.close()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def test_description_has_what_the_report_needs(engine: Engine) -> None:
    about = engine.description
    assert (about["precision"], about["device"]) == ("fp32", "cpu")
    assert {"sha256", "license", "prompts", "backend_version", "n_threads"} <= set(about)


def test_backends_agree() -> None:
    x = noise(2, 4, 32, 48, 32)
    one, other = (load_engine(precision="fp32", backend=name).infer(x) for name in ON_CPU)
    assert np.abs(one - other).max() <= 1e-3
    assert ((one > 0) == (other > 0)).mean() >= 0.99999


def test_logits_are_written_to_out(engine: Engine) -> None:
    x = noise(1, 4, 32, 32, 48)
    buffer = np.full((2, 3, 32, 32, 48), np.nan, np.float32)
    returned = engine.infer(x, out=buffer[:1])
    assert returned.base is buffer
    assert np.isnan(buffer[1]).all()
    np.testing.assert_array_equal(buffer[:1], engine.infer(x))


def test_threads_can_share_an_engine(engine: Engine) -> None:
    inputs = [noise(1, 4, 32, 32, side) for side in (32, 48, 64)]
    expected, got = [engine.infer(x) for x in inputs], dict[int, np.ndarray]()
    barrier = Barrier(len(inputs))

    def infer(n: int) -> None:
        barrier.wait()
        got[n] = engine.infer(inputs[n])

    threads = [Thread(target=infer, args=(n,)) for n in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, logits in enumerate(expected):
        np.testing.assert_allclose(got[n], logits, rtol=0, atol=1e-4)


def test_wrong_out_is_refused(engine: Engine) -> None:
    x, good = np.zeros((1, 4, 32, 32, 32), np.float32), np.zeros((1, 3, 32, 32, 32), np.float32)
    frozen = good.copy()
    frozen.flags.writeable = False
    expected = r"expected a writable, contiguous float32 array of shape \(1, 3, 32, 32, 32\)"
    for out in [good[:, :2], good.astype(np.float64), good.transpose(0, 1, 4, 3, 2), frozen]:
        with pytest.raises(OptionsError, match=expected):
            engine.infer(x, out=out)


def test_wrong_tensors_are_refused(engine: Engine) -> None:
    wrong = [(4, 32, 32, 32), (1, 3, 32, 32, 32), (1, 4, 32, 33, 32), (1, 4, 32, 32, 0)]
    expected = r"expected \(B, 4, D, H, W\) with D, H, W multiples of 16, 32 or more"
    for shape in [*wrong, (1, 4, 16, 32, 32), (1, 4, 64, 64, 16)]:
        with pytest.raises(OptionsError, match=expected):
            engine.infer(np.zeros(shape, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.parametrize("backend", ON_CPU)
def test_earlier_sizes_leave_no_trace(backend: str, precision: str) -> None:
    """Kernels that a runtime made for one size, and what is in its memory, serve the next one."""
    used = load_engine(backend=backend, precision=precision)
    for size in [(32, 32, 32), (64, 64, 32), (64, 80, 64), (48, 64, 32), (32, 32, 64)]:
        x = noise(1, 4, *size)
        fresh = load_engine(backend=backend, precision=precision).infer(x)
        assert np.abs(used.infer(x) - fresh).max() <= 1e-4 * np.abs(fresh).max(), size


@pytest.mark.parametrize("backend", ON_CPU)
def test_text_is_refused_by_a_network_that_reads_none(backend: str, tmp_path: Path) -> None:
    engine = load_engine(write_voxel_engine(tmp_path / "voxel.fbts"), backend=backend)
    assert engine.text is None
    with pytest.raises(OptionsError, match=r"voxel\.fbts: its network reads no text; omit `text`"):
        engine.infer(np.zeros((1, 4, 32, 32, 32), np.float32), noise(3, 8))


def test_text_replaces_the_table_in_the_network(engine: Engine) -> None:
    x, table = noise(1, 4, 32, 32, 32), engine.text
    assert table is not None
    np.testing.assert_array_equal(engine.infer(x, table.copy()), engine.infer(x))
    assert not np.array_equal(engine.infer(x, table[::-1]), engine.infer(x))
    with pytest.raises(OptionsError, match=r"text of shape .* one embedding per region"):
        engine.infer(x, table[:, 1:])


@pytest.mark.parametrize("backend", ON_CPU)
def test_closed_engine_raises_device_error(backend: str) -> None:
    engine = load_engine(precision="fp32", backend=backend)
    engine.infer(np.zeros((1, 4, 32, 32, 32), np.float32))
    engine.close()
    engine.close()
    with pytest.raises(DeviceError, match="the engine has been closed; load it again"):
        engine.infer(np.zeros((1, 4, 32, 32, 32), np.float32))


@pytest.mark.parametrize("backend", ON_CPU)
def test_calls_run_at_once_with_equal_results(backend: str) -> None:
    """On streams of their own, and one call more waits for its turn."""
    alone = load_engine(precision="fp32", backend=backend, n_threads=1)
    engine = load_engine(precision="fp32", backend=backend, n_threads=2, parallel=2)
    inputs = [noise(1, 4, 32, 32, side) for side in (32, 48, 64, 80)] * 2
    with ThreadPoolExecutor(3) as pool:
        for got, x in zip(pool.map(engine.infer, inputs), inputs, strict=True):
            np.testing.assert_array_equal(got, alone.infer(x))


def test_no_more_calls_run_at_once_than_there_are_threads() -> None:
    engines = [load_engine(n_threads=n, parallel=8) for n in (1, 2)]
    for n, engine in enumerate(engines, 1):
        assert (parallel_of(engine), engine.description["parallel"]) == (n, n)
        assert engine.description["n_threads"] == n
    for n in (0, 1.5, True):
        with pytest.raises(OptionsError, match=f"parallel {n}: expected an integer from 1 to"):
            load_engine(parallel=n)
