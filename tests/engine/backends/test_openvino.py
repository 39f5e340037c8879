"""The OpenVINO backend: precisions, and a light import."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from fastbts import DeviceError, EngineFileError, OptionsError, load_engine
from fastbts.engine import auto_precision
from fastbts.engine.backends.openvino import INT8_PAYLOADS, OpenVINOEngine
from fastbts.engine.file import read_engine_file, write_engine_file
from fastbts.progress import Cancelled, cancelled_by
from tests.conftest import write_voxel_engine

N_CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def has_bf16() -> bool:
    core = OpenVINOEngine.package().Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.slow
def test_bf16_stays_near_fp32() -> None:
    if not has_bf16():
        with pytest.raises(DeviceError, match="does not compute in bf16"):
            load_engine(precision="bf16")
        return
    engines = [load_engine(precision=p) for p in ("fp32", "bf16")]
    # Thin images too: kernels may read beyond them.
    for size in [(48, 48, 48), (64, 64, 32), (64, 32, 64), (32, 64, 64), (32, 32, 32)]:
        x = np.random.default_rng(0).standard_normal((1, 4, *size), np.float32)
        exact, fast = (engine.infer(x) for engine in engines)
        # bf16 has 8 bits of mantissa; through some 20 layers the logits keep about two digits.
        assert np.abs(fast - exact).max() <= 0.05 * np.abs(exact).max() + 0.1, size
        assert (np.sign(fast) == np.sign(exact)).mean() > 0.99, size


def test_auto_is_bf16_where_the_cpu_has_it_and_there_is_no_int8(tmp_path: Path) -> None:
    able, expected = ("computes", "bf16") if has_bf16() else ("does not compute", "fp32")
    about = load_engine(write_voxel_engine(tmp_path / "x.fbts")).description
    assert about["precision"] == expected
    assert about["precision_reason"].startswith(f"this CPU {able} in bf16, and the file holds no")
    assert ("bf16" in OpenVINOEngine.capabilities()) == has_bf16()


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "from fastbts import load_engine; load_engine()",
        "from fastbts.cli.doctor import survey; list(survey())",
    ],
)
def test_import_leaves_out_the_converter_and_its_telemetry(first: str) -> None:
    script = f"""
import sys
{first}
assert not {{"openvino.tools.ovc", "openvino_telemetry"}} & set(sys.modules)
sys.modules["openvino_telemetry"] = None
import openvino
try:
    openvino.convert_model("none.onnx")
except Exception as error:
    assert type(error).__module__.startswith("openvino.tools.ovc"), error
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.slow
def test_signals_are_handled_after_engines_were_closed() -> None:
    """In the order in which they were loaded; on a CPU with AMX this needs a common core."""
    script = """
import os, signal
from fastbts import load_engine
first, second = load_engine(), load_engine()
first.close()
del first
second.close()
del second
signal.signal(signal.SIGINT, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGINT)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "handled\n"


@pytest.mark.slow
def test_threads_do_not_wait_for_each_other_at_the_first_use_of_a_type() -> None:
    """Several may load their first engines at once; OpenVINO alone would hang."""
    script = """
import sys, threading
from fastbts.engine.backends.openvino import OpenVINOEngine, _core
_core()
kind, together = OpenVINOEngine.package().Type.f32, threading.Barrier(4)
sys.setswitchinterval(1e-6)
def use():
    together.wait()
    kind.to_dtype()
threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.skipif(N_CPUS < 2, reason="needs two CPUs")
def test_engines_of_one_thread_do_not_share_a_cpu() -> None:
    """OpenVINO would pin the threads of both, and of other processes, to the first CPU."""
    script = """
import os, threading
import numpy as np
from fastbts import load_engine

engines = [load_engine(n_threads=1) for _ in range(2)]
x = np.zeros((1, 4, 64, 64, 64), np.float32)
threads = [threading.Thread(target=engine.infer, args=[x]) for engine in engines]
seen = set()
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    for task in os.listdir("/proc/self/task"):
        try:
            seen.add(frozenset(os.sched_getaffinity(int(task))))
        except ProcessLookupError:
            pass
print(seen == {frozenset(os.sched_getaffinity(0))})
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_running_call_can_be_cancelled(parallel: int) -> None:
    """It ends after the layer; the next call loads the network again."""
    engine, stop = load_engine(precision="fp32", n_threads=2, parallel=parallel), Event()
    small, large = (np.ones((1, 4, side, side, side), np.float32) for side in (32, 160))
    expected, ends = engine.infer(small), []

    def call() -> None:
        try:
            with cancelled_by(stop):
                engine.infer(large)
        except Cancelled:
            ends.append(time.monotonic())

    threads = [Thread(target=call) for _ in range(parallel + 1)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    stop.set()
    for thread in threads:
        thread.join()
    assert len(ends) == parallel + 1
    waited_s, began = max(ends) - began, time.monotonic()
    engine.infer(large)
    assert waited_s < max(1, time.monotonic() - began), "sooner than the call ends"
    np.testing.assert_array_equal(engine.infer(small), expected)


def quantized(path: Path, n_channels: int = 3, with_branch: bool = False, **about: object) -> Path:
    """An engine file whose int8 network, an OpenVINO IR, is not that of its ONNX."""
    import openvino as ov
    from openvino import opset13 as ops

    volume = ops.parameter([1, 4, -1, -1, -1], np.float32, name="volume")
    logits = ops.slice(volume, [0], [n_channels], [1], [1])
    if with_branch:
        inner = ops.parameter([1, n_channels, -1, -1, -1], np.float32)
        bodies = [ov.Model([ops.result(node)], [p]) for node, p in ((inner, inner),)]
        other = ops.parameter([1, n_channels, -1, -1, -1], np.float32)
        bodies.append(ov.Model([ops.result(ops.relu(other))], [other]))
        branch = ops.if_op(ops.constant(True))
        branch.set_then_body(bodies[0])
        branch.set_else_body(bodies[1])
        branch.set_input(logits.output(0), inner, other)
        logits = branch.set_output(bodies[0].results[0], bodies[1].results[0])
    ov.save_model(ov.Model([ops.result(logits)], [volume], "x"), path.with_suffix(".xml"))
    write_voxel_engine(path)
    file = read_engine_file(path)
    ir = [path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")]
    payloads = {**file.payloads, **dict(zip(INT8_PAYLOADS, ir, strict=True))}
    write_engine_file(path, file.spec, payloads, **about)
    return path


def test_int8_networks_are_checked_like_the_onnx(tmp_path: Path) -> None:
    message = r"x\.fbts: openvino\.xml: expected 1 inputs, .* build it again"
    good = load_engine(quantized(tmp_path / "x.fbts"), precision="int8")
    x = np.ones((1, 4, 32, 32, 32), np.float32)
    assert good.infer(x).shape == (1, 3, 32, 32, 32)
    for wrong in ({"n_channels": 2}, {"with_branch": True}):
        with pytest.raises(EngineFileError, match=message):
            load_engine(quantized(tmp_path / "x.fbts", **wrong), precision="int8")


def test_auto_takes_int8_by_the_parity_in_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways; and without int8 the other precisions compute the same as before."""
    features, x = tmp_path / "cpuinfo", np.ones((1, 4, 32, 32, 32), np.float32)
    features.write_text("flags : avx512_vnni")
    monkeypatch.setattr(auto_precision, "CPU_FEATURES", features)
    floats = "bf16" if has_bf16() else "fp32"
    for change, taken in ((-0.002, "int8"), (-0.003, floats)):
        groups = {"all": {"n_cases": 2, "dice_change": change, "worst_case": -0.004}}
        build = {"backend": "openvino", "precision": "int8", "parity": {"groups": groups}}
        path = quantized(tmp_path / "x.fbts", build=build)
        engine = load_engine(path)
        assert engine.description["precision"] == taken
        assert (
            f"on 2 cases int8 changes mean Dice by {change:+.4f} (all)"
            in (engine.description["precision_reason"])
        )
        assert load_engine(path, precision="int8").description["precision"] == "int8"
        exact = load_engine(write_voxel_engine(tmp_path / "y.fbts"), precision=floats).infer(x)
        other = load_engine(path, precision=floats).infer(x)
        np.testing.assert_array_equal(other, exact)
        assert np.array_equal(engine.infer(x), exact) == (taken == floats)


def test_a_file_that_was_built_for_int8_without_groups_defaults_to_it(tmp_path: Path) -> None:
    build = {"backend": "openvino", "precision": "int8", "parity": {"label_agreement": 1}}
    about = load_engine(quantized(tmp_path / "x.fbts", build=build)).description
    assert (about["precision"], about["precision_reason"]) == ("int8", "the file was built for it")


def test_a_file_without_the_int8_network_of_its_manifest_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_precision, "int8_instructions", lambda: ["AVX512-VNNI"])
    groups = {"all": {"n_cases": 2, "dice_change": 0, "worst_case": 0}}
    build = {"backend": "openvino", "precision": "int8", "parity": {"groups": groups}}
    file = read_engine_file(write_voxel_engine(tmp_path / "x.fbts"))
    write_engine_file(tmp_path / "x.fbts", file.spec, file.payloads, build=build)
    with pytest.raises(OptionsError, match=r"x\.fbts: precision 'int8': the file holds no int8"):
        load_engine(tmp_path / "x.fbts")
