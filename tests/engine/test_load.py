import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastbts import DeviceError, Engine, EngineFileError, OptionsError, load_engine
from fastbts.engine.backends import onnxruntime
from fastbts.engine.backends.base import Pool
from fastbts.engine.backends.openvino import package
from fastbts.engine.file import read_engine_file, write_engine_file
from fastbts.engine.load import BACKENDS, default_engine_path

ON_CPU = [name for name, devices in BACKENDS.items() if "cpu" in devices]


@pytest.fixture(scope="module", params=ON_CPU)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = load_engine(precision="fp32", backend=request.param)
    assert engine.description["backend"] == request.param
    yield engine
    engine.close()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def test_what_ran_is_called_what_was_asked_for(engine: Engine) -> None:
    assert engine.description["precision"] == "fp32"


def test_bf16_stays_near_fp32() -> None:
    if "BF16" not in package().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(DeviceError, match="does not compute in bf16"):
            load_engine(precision="bf16")
        return
    x = noise(1, 4, 64, 64, 64)
    faithful, fast = (load_engine(precision=p).infer(x) for p in ("fp32", "bf16"))
    # bf16 has 8 bits of mantissa; through some 20 layers the logits keep about two digits.
    assert np.abs(fast - faithful).max() <= 0.05 * np.abs(faithful).max() + 0.1
    assert (np.sign(fast) == np.sign(faithful)).mean() > 0.99


def test_backends_agree() -> None:
    x = noise(2, 4, 32, 48, 32)
    one, other = (load_engine(precision="fp32", backend=name).infer(x) for name in ON_CPU)
    assert np.abs(one - other).max() <= 1e-3
    assert ((one > 0) == (other > 0)).mean() >= 0.99999


def test_logits_go_where_they_are_wanted(engine: Engine) -> None:
    x = noise(1, 4, 32, 32, 48)
    buffer = np.full((2, 3, 32, 32, 48), np.nan, np.float32)
    returned = engine.infer(x, out=buffer[:1])
    assert returned.base is buffer
    assert np.isnan(buffer[1]).all()
    np.testing.assert_array_equal(buffer[:1], engine.infer(x))


def test_wrong_buffers_are_refused(engine: Engine) -> None:
    x, good = np.zeros((1, 4, 32, 32, 32), np.float32), np.zeros((1, 3, 32, 32, 32), np.float32)
    frozen = good.copy()
    frozen.flags.writeable = False
    for out in [good[:, :2], good.astype(np.float64), good.transpose(0, 1, 4, 3, 2), frozen]:
        with pytest.raises(
            OptionsError,
            match=r"expected a writable, contiguous float32 array of shape \(1, 3, 32, 32, 32\)",
        ):
            engine.infer(x, out=out)


def test_wrong_tensors_are_refused(engine: Engine) -> None:
    for shape in [(4, 32, 32, 32), (1, 3, 32, 32, 32), (1, 4, 32, 33, 32), (1, 4, 32, 32, 0)]:
        with pytest.raises(OptionsError, match="expected"):
            engine.infer(np.zeros(shape, np.float32))


def test_unknown_names_and_pairs_are_refused_not_replaced() -> None:
    with pytest.raises(OptionsError, match="device 'tpu'"):
        load_engine(device="tpu")
    with pytest.raises(OptionsError, match="precision 'fp8'"):
        load_engine(precision="fp8")
    with pytest.raises(OptionsError, match="backend 'tvm'"):
        load_engine(backend="tvm")
    with pytest.raises(DeviceError, match="'openvino' runs on cpu"):
        load_engine(device="cuda", backend="openvino")
    with pytest.raises(DeviceError, match="'fp16': OpenVINO's CPU backend has fp32, bf16, int8"):
        load_engine(precision="fp16", backend="openvino")
    with pytest.raises(DeviceError, match="'bf16': the network computes in fp32"):
        load_engine(precision="bf16", backend="onnxruntime")


def test_cuda_is_cuda_or_an_error() -> None:
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with pytest.raises(DeviceError, match="pip install onnxruntime-gpu"):
        load_engine(device="cuda")


@pytest.mark.parametrize(
    ("backend", "package", "command"),
    [
        ("openvino", "openvino", "pip install openvino"),
        ("onnxruntime", "onnxruntime", r"pip install 'fastbts\[onnxruntime\]'"),
    ],
)
def test_missing_packages_come_with_the_command(
    monkeypatch: pytest.MonkeyPatch, backend: str, package: str, command: str
) -> None:
    monkeypatch.setitem(
        __import__("sys").modules, package, None
    )  # the import system's own way of "not there"
    with pytest.raises(DeviceError, match=command):
        load_engine(backend=backend)


def test_a_pool_makes_as_many_as_are_lent_at_once() -> None:
    made = iter(range(9))
    pool = Pool(read_engine_file(default_engine_path()), lambda: next(made))
    with pool.lend() as first, pool.lend() as second:
        assert (first, second) == (0, 1)
    with pytest.raises(DeviceError, match="failed"), pool.lend():
        raise DeviceError("failed")
    assert sorted(pool.close()) == [0, 1], (
        "no third one while there are idle ones, and an error loses none"
    )
    with pytest.raises(DeviceError, match="closed"), pool.lend():
        pass


@pytest.mark.parametrize(
    "first",
    [
        "from fastbts import load_engine; load_engine()",
        "from fastbts.cli.doctor import survey; survey()",
    ],
)
def test_openvino_comes_without_its_converter_and_the_report_to_its_makers(first: str) -> None:
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


@pytest.mark.parametrize("backend", ON_CPU)
def test_closed_engine_says_so(backend: str) -> None:
    engine = load_engine(precision="fp32", backend=backend)
    engine.close()
    with pytest.raises(DeviceError, match="closed"):
        engine.infer(np.zeros((1, 4, 32, 32, 32), np.float32))


@pytest.mark.parametrize("backend", ON_CPU)
def test_rubbish_network_is_an_engine_file_error(tmp_path: Path, backend: str) -> None:
    path, spec = tmp_path / "rubbish.fbts", read_engine_file(default_engine_path()).spec
    write_engine_file(path, spec, {"model.onnx": b"not an onnx"})
    with pytest.raises(EngineFileError, match=r"rubbish\.fbts: not an ONNX file"):
        load_engine(path, backend=backend)
    write_engine_file(path, spec, {"model.onnx": b"\x3a\x00"})  # an empty graph
    with pytest.raises(
        EngineFileError, match=r"rubbish\.fbts: .* cannot (compile|load) the network"
    ):
        load_engine(path, backend=backend)


def test_build_for_onnxruntime_takes_what_loads() -> None:
    file = read_engine_file(default_engine_path())
    content = bytes(file.payloads["model.onnx"])
    assert onnxruntime.build(content, file.spec) == {"model.onnx": content}
    with pytest.raises(DeviceError, match="the network computes in fp32"):
        onnxruntime.build(content, file.spec, "int8")
    with pytest.raises(EngineFileError, match="damaged or cut short"):
        onnxruntime.build(content[: len(content) // 2], file.spec)
    with pytest.raises(EngineFileError, match="cannot load the network"):
        onnxruntime.build(b"\x3a\x00", file.spec)  # an empty graph


def test_shipped_engine_is_found() -> None:
    assert default_engine_path().is_file()


def test_model_cards_say_what_made_the_prompts() -> None:
    engines = sorted((Path(__file__).resolve().parents[2] / "models").glob("*.fbts"))
    assert default_engine_path().name in [path.name for path in engines]
    for path in engines:
        assert (
            f"| prompts | {read_engine_file(path).prompts} |" in path.with_suffix(".md").read_text()
        )
