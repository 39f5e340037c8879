"""After a call that failed, no result of an engine is wrong: it is loaded again or refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from fastbts import DeviceError
from fastbts.engine.backends import BACKENDS, Backend
from fastbts.engine.backends.arguments import Floats
from fastbts.engine.backends.base import BaseEngine, Opened, Options
from fastbts.engine.file import read_engine_file
from fastbts.engine.load import default_engine_path
from tests.budget import budget

INPUT = np.ones((1, 4, 32, 32, 32), np.float32)
SCRIPT = Path(__file__).with_name("memory_limits.py")


class FragileEngine(BaseEngine[int]):
    """Gives the number of the network, 1 for the first; fails while `fails` is an error."""

    backend = "fragile"
    n_loaded = 0
    fails: BaseException | None = None
    load_fails: Exception | None = None
    running: Event | None = None
    may_end: Event | None = None

    def _open(self, options: Options) -> Opened[int]:
        if self.load_fails:
            raise self.load_fails
        self.n_loaded += 1
        number = self.n_loaded
        return Opened(lambda: number, {"backend_version": "1", "precision": "fp32"})

    def _run(self, call: int, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        logits[:] = call
        if tensor.flat[0] == 2 and self.running and self.may_end:  # a slow call
            self.running.set()
            assert self.may_end.wait(30)
        elif self.fails:
            raise self.fails


class SerialEngine(FragileEngine):
    serial = True


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Backend("fragile", ("cpu",), ("fp32",), f"{__name__}:FragileEngine", "numpy", "")
    monkeypatch.setitem(BACKENDS, row.name, row)


@pytest.fixture
def engine() -> FragileEngine:
    return FragileEngine(read_engine_file(default_engine_path()))


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (MemoryError(), DeviceError),
        (RuntimeError("std::bad_alloc"), DeviceError),
        (DeviceError("cudaErrorIllegalAddress"), DeviceError),
        (KeyError("a bug"), KeyError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_the_next_call_loads_the_network_again(
    engine: FragileEngine, error: BaseException, raised: type[BaseException]
) -> None:
    assert engine.infer(INPUT).max() == 1
    engine.fails = error
    with pytest.raises(raised):
        engine.infer(INPUT)
    engine.fails = None
    assert [engine.infer(INPUT).max() for _ in range(2)] == [2, 2]


def test_a_network_that_cannot_be_loaded_again_is_refused(engine: FragileEngine) -> None:
    engine.fails = engine.load_fails = MemoryError()
    with pytest.raises(DeviceError, match=r"fragile failed on a tensor of .*: out of memory"):
        engine.infer(INPUT)
    engine.fails = None
    for error in (MemoryError(), RuntimeError("broken")):
        engine.load_fails = error
        with pytest.raises(DeviceError, match="fragile cannot load the network"):
            engine.infer(INPUT)
    engine.load_fails = None
    assert engine.infer(INPUT).max() == 2


def test_a_failed_engine_can_be_closed(engine: FragileEngine) -> None:
    engine.fails = MemoryError()
    with pytest.raises(DeviceError):
        engine.infer(INPUT)
    engine.close()
    with pytest.raises(DeviceError):
        engine.infer(INPUT)
    assert engine.n_loaded == 1


@pytest.mark.parametrize("kind", [FragileEngine, SerialEngine])
def test_a_call_beside_a_failed_one_gives_no_wrong_result(kind: type[FragileEngine]) -> None:
    """It fails too; or, where calls run one after the other, it is over before the other one."""
    engine, outcome = kind(read_engine_file(default_engine_path())), []
    engine.running, engine.may_end, engine.fails = Event(), Event(), MemoryError()

    def slow() -> None:
        try:
            outcome.append(float(engine.infer(2 * INPUT).max()))
        except DeviceError as error:
            outcome.append(str(error))

    def failing() -> None:
        with pytest.raises(DeviceError, match="out of memory"):
            engine.infer(INPUT)

    threads = [Thread(target=slow), Thread(target=failing)]
    threads[0].start()
    assert engine.running.wait(30)
    threads[1].start()
    threads[1].join(30 if kind is FragileEngine else 0.2)
    engine.may_end.set()
    for thread in threads:
        thread.join(30)
    engine.fails = None
    if kind is FragileEngine:
        assert "another call on this engine failed during this one" in outcome[0]
    else:
        assert outcome == [1.0]
    assert engine.infer(INPUT).max() == 2


@pytest.mark.serial
@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.guard
def test_no_wrong_mask_after_a_call_that_lacked_memory(backend: str) -> None:
    command = [sys.executable, str(SCRIPT), backend, str(budget(3, 40))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
