from pathlib import Path

import numpy as np
import pytest

from fastbts import DeviceError, EngineFileError, OptionsError, Segmenter, load_engine
from fastbts.enginefile import read_engine_file, write_engine_file
from fastbts.engines import default_engine_path


def test_bf16_stays_near_f32() -> None:
    from openvino import Core

    if "BF16" not in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(DeviceError, match="does not compute in bf16"):
            load_engine(precision="bf16")
        return
    x = np.random.default_rng(0).standard_normal((1, 4, 64, 64, 64), np.float32)
    faithful, fast = (load_engine(precision=p).infer(x) for p in ("f32", "bf16"))
    # bf16 has 8 bits of mantissa; through some 20 layers the logits keep about two digits.
    assert np.abs(fast - faithful).max() <= 0.05 * np.abs(faithful).max() + 0.1
    assert (np.sign(fast) == np.sign(faithful)).mean() > 0.99


def test_unknown_devices_are_refused_not_replaced() -> None:
    with pytest.raises(DeviceError, match="no CUDA backend"):
        load_engine(device="cuda")
    with pytest.raises(OptionsError, match="device 'tpu'"):
        load_engine(device="tpu")
    with pytest.raises(OptionsError, match="precision 'fp8'"):
        load_engine(precision="fp8")


def test_wrong_tensors_are_refused(shipped_segmenter: Segmenter) -> None:
    for shape in [(4, 32, 32, 32), (1, 3, 32, 32, 32), (1, 4, 32, 33, 32), (1, 4, 32, 32, 0)]:
        with pytest.raises(OptionsError, match="expected"):
            shipped_segmenter.engine.infer(np.zeros(shape, np.float32))


def test_closed_engine_says_so() -> None:
    engine = load_engine(precision="f32")
    engine.close()
    with pytest.raises(DeviceError, match="closed"):
        engine.infer(np.zeros((1, 4, 32, 32, 32), np.float32))


def test_rubbish_network_is_an_engine_file_error(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "rubbish.fbts"
    write_engine_file(path, load_engine().spec, {"model.onnx": b"not an onnx"})
    with pytest.raises(EngineFileError, match="cannot compile"):
        load_engine(path)


def test_shipped_engine_is_found() -> None:
    assert default_engine_path().is_file()


def test_model_cards_say_what_made_the_prompts() -> None:
    engines = sorted((Path(__file__).resolve().parents[1] / "models").glob("*.fbts"))
    assert default_engine_path().name in [path.name for path in engines]
    for path in engines:
        assert f"| prompts | {read_engine_file(path).prompts} |" in path.with_suffix(".md").read_text()
