"""Ctrl-C during a call ends it; the engine can be used afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys, threading, time
import numpy as np
from fastbts import load_engine

signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
engine = load_engine(backend=sys.argv[1])
large = np.random.default_rng(0).standard_normal((1, 4, 192, 192, 160), np.float32)
small = np.ascontiguousarray(large[..., :32, :32, :32])
expected = engine.infer(small)
interrupted = 0.0


def interrupt():
    global interrupted
    time.sleep(0.4)
    interrupted = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)


threading.Thread(target=interrupt).start()
began = time.monotonic()
try:
    engine.infer(large)
except KeyboardInterrupt:
    ended = time.monotonic()
else:
    sys.exit("not interrupted")
assert np.array_equal(engine.infer(small), expected)
engine.infer(large)
print(ended - interrupted, time.monotonic() - ended)
"""


@pytest.mark.serial
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_ctrl_c_ends_a_call(backend: str) -> None:
    """After the layer that runs: within a second on two idle cores, sooner than the call would."""
    command = [sys.executable, "-c", SCRIPT, backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    waited_s, whole_s = map(float, done.stdout.split())
    assert waited_s < max(1, whole_s / 2)
