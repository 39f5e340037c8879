"""Forked processes: an error at once where the parent had loaded an engine, results where not."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.guard,
    pytest.mark.serial,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork"),
]

PREFIX = """
import os, sys, threading, time
import numpy as np
from fastbts import DeviceError, Segmenter, load_engine, ops
from fastbts.engine import fork
from fastbts.phantom import make_case

volume = make_case(1, (64, 64, 48)).volume
LIMIT_S = 2  # on an idle machine; a busy one gets more


def in_child(job):
    '''Exit code of a forked child that runs the job and ends as Python does; None if it hangs.'''
    pid = os.fork()
    if pid == 0:
        job()
        sys.exit(0)
    began = time.monotonic()
    while time.monotonic() - began < 10 * LIMIT_S:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def refused(job):
    def check():
        began = time.monotonic()
        try:
            job()
        except DeviceError as error:
            text = str(error)
            assert all(word in text for word in ("forked", "'spawn'", "'forkserver'")), text
            assert time.monotonic() - began < LIMIT_S
        else:
            sys.exit("not refused")
    return check
"""


def run(script: str) -> str:
    # Unbuffered, or a child would print again what its parent had not written yet.
    command = [sys.executable, "-u", "-c", PREFIX + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_child_forked_under_load_is_refused_at_once() -> None:
    script = """
segmenter, stop = Segmenter(), threading.Event()


def serve():
    while not stop.is_set():
        segmenter.predict(volume)


thread = threading.Thread(target=serve)
thread.start()
print([in_child(refused(lambda: segmenter.predict(volume))) for _ in range(20)])
stop.set()
thread.join()
assert segmenter.predict(volume).labels.any()
"""
    assert run(script) == f"{[0] * 20}\n"


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_every_way_to_an_engine_is_refused(backend: str) -> None:
    script = f"""
from fastbts.engine.backends import BACKENDS
engine = load_engine(backend="{backend}")
segmenter, own = Segmenter(engine), Segmenter(backend="{backend}")
jobs = [
    lambda: segmenter.predict(volume),
    lambda: own.predict(volume),
    lambda: own.predict_batch([volume]),
    lambda: own.engine,
    lambda: engine.infer(np.zeros((1, 4, 32, 32, 32), np.float32)),
    lambda: load_engine(backend="{backend}"),
    lambda: load_engine(backend="openvino"),
    lambda: Segmenter(background=True),
    BACKENDS["openvino"].engine_class().capabilities,
]
print([in_child(refused(job)) for job in jobs])
print(in_child(lambda: [own.close(), engine.close(), repr(own)]))
"""
    assert run(script) == f"{[0] * 9}\n0\n"


def test_a_batch_that_runs_is_refused_in_the_child_only() -> None:
    script = """
segmenter = Segmenter()
results = segmenter.predict_batch([volume] * 4)
next(results)
print(in_child(refused(lambda: next(results))))
print(len([result.labels.any() for result in results]))
"""
    assert run(script) == "0\n3\n"


def test_an_engine_that_still_loads_is_refused_too() -> None:
    script = """
segmenter = Segmenter(background=True)
print(in_child(refused(lambda: segmenter.predict(volume))), in_child(segmenter.close))
segmenter.engine
"""
    assert run(script) == "0 0\n"


def test_a_child_of_a_parent_that_loaded_nothing_works() -> None:
    script = """
import fastbts


def job():
    with Segmenter() as segmenter:
        assert segmenter.predict(volume).labels.any()


print(in_child(job), in_child(job))
job()
print(in_child(refused(job)))
"""
    assert run(script) == "0 0\n0\n"


def test_ops_work_in_a_child_of_a_parent_that_runs_them() -> None:
    """They start threads for one call, and keep none."""
    script = """
from fastbts.pipeline.normalize import normalize
from fastbts.spec import EngineSpec

stop, expected = threading.Event(), normalize(volume, EngineSpec()).tensor


def work():
    while not stop.is_set():
        normalize(volume, EngineSpec())


def job():
    for _ in range(3):
        assert np.array_equal(normalize(volume, EngineSpec(), n_threads=4).tensor, expected)


thread = threading.Thread(target=work)
thread.start()
print([in_child(job) for _ in range(10)])
stop.set()
"""
    assert run(script) == f"{[0] * 10}\n"
