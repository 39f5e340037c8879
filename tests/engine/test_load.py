"""Loading: which backend, device and precision is chosen, and what cannot be loaded."""

import sys
from pathlib import Path

import pytest

from fastbts import DeviceError, EngineFileError, OptionsError, load_engine
from fastbts.engine.backends import BACKENDS
from fastbts.engine.file import EngineFile, pack_engine, read_engine_file, write_engine_file
from fastbts.engine.load import build_payloads, default_engine_path
from tests.conftest import unknown_node, write_voxel_engine

ON_CPU = [name for name, row in BACKENDS.items() if "cpu" in row.devices]


@pytest.fixture(scope="module")
def shipped() -> EngineFile:
    return read_engine_file(default_engine_path())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device": "tpu"}, "device 'tpu': expected one of auto, cpu, cuda, cuda:N"),
        ({"device": "cuda:x"}, "device 'cuda:x': expected one of auto, cpu, cuda, cuda:N"),
        ({"device": "cpu:1"}, "device 'cpu:1': expected one of"),
        ({"device": "cuda:01"}, "device 'cuda:01': expected one of"),
        ({"precision": "fp8"}, "expected one of auto, fp32, bf16, int8, tf32, fp16"),
        (
            {"backend": "tvm"},
            "backend 'tvm': expected one of auto, openvino, onnxruntime, tensorrt, tensorrt-rtx",
        ),
        ({"n_threads": -5}, r"n_threads -5: expected 0 \(all\) or an integer up to 1024"),
        ({"n_threads": True}, "n_threads True: expected 0"),
        ({"n_threads": 2.5}, "n_threads 2.5: expected 0"),
    ],
)
def test_unknown_options_are_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        load_engine(**asked)  # type: ignore[arg-type]


def test_int8_needs_a_file_that_was_built_for_it(tmp_path: Path) -> None:
    message = "the file holds no int8 network; make one with: fastbts build"
    with pytest.raises(OptionsError, match=message):
        load_engine(write_voxel_engine(tmp_path / "x.fbts"), precision="int8")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"backend": "openvino", "device": "cuda"}, "'cuda': backend 'openvino' runs on cpu"),
        ({"backend": "openvino", "device": "cuda:1"}, "'cuda:1': backend 'openvino' runs on cpu"),
        ({"backend": "tensorrt", "device": "cpu"}, "'cpu': backend 'tensorrt' runs on cuda"),
        (
            {"backend": "openvino", "precision": "fp16"},
            "'fp16': backend 'openvino' has fp32, bf16, int8",
        ),
        (
            {"backend": "onnxruntime", "precision": "bf16"},
            "'bf16': backend 'onnxruntime' has fp32, tf32, fp16",
        ),
        (
            {"backend": "onnxruntime", "precision": "tf32"},
            "'tf32': only GPUs compute in it; use device='cuda' or precision='fp32'",
        ),
    ],
)
def test_combinations_that_do_not_exist_are_refused_not_replaced(
    asked: dict[str, str], message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        load_engine(**asked)  # type: ignore[arg-type]


def test_cuda_is_never_replaced_by_the_cpu() -> None:
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with pytest.raises(DeviceError, match="pip install onnxruntime-gpu"):
        load_engine(device="cuda")


@pytest.mark.parametrize("backend", ON_CPU)
def test_missing_packages_are_reported_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    row = BACKENDS[backend]
    monkeypatch.setitem(sys.modules, row.package, None)  # what the import system calls missing
    with pytest.raises(DeviceError) as error:
        load_engine(backend=backend)
    assert str(error.value).endswith(f"install it with: {row.install}")


def test_defaults_are_what_the_file_was_built_for(shipped: EngineFile, tmp_path: Path) -> None:
    path = tmp_path / "x.fbts"
    build = {"backend": "onnxruntime", "precision": "fp32"}
    path.write_bytes(pack_engine(shipped.spec, shipped.payloads, build=build))
    about = load_engine(path).description
    assert (about["backend"], about["precision"]) == ("onnxruntime", "fp32")
    assert load_engine(path, backend="openvino").description["backend"] == "openvino"


def test_file_built_for_another_device_is_loaded_from_its_onnx(
    shipped: EngineFile, tmp_path: Path
) -> None:
    path = tmp_path / "x.fbts"
    build = {"backend": "tensorrt", "precision": "fp32"}
    path.write_bytes(pack_engine(shipped.spec, shipped.payloads, build=build))
    assert load_engine(path, device="cpu").description["backend"] == "openvino"
    with pytest.raises(DeviceError, match="holds no TensorRT plan"):
        load_engine(path)


@pytest.mark.parametrize(
    "build", [{"backend": "abacus", "precision": "fp32"}, {"precision": "fp8"}, {"backend": []}]
)
def test_file_built_for_an_unknown_backend_is_refused(
    shipped: EngineFile, tmp_path: Path, build: dict[str, object]
) -> None:
    path = tmp_path / "x.fbts"
    path.write_bytes(pack_engine(shipped.spec, shipped.payloads, build=build))
    with pytest.raises(EngineFileError, match="which this fastbts does not know; update"):
        load_engine(path)


@pytest.mark.parametrize("backend", ON_CPU)
def test_damaged_network_is_an_engine_file_error(tmp_path: Path, backend: str) -> None:
    path, spec = tmp_path / "damaged.fbts", read_engine_file(default_engine_path()).spec
    write_engine_file(path, spec, {"model.onnx": b"not an onnx"})
    with pytest.raises(EngineFileError, match=r"damaged\.fbts: not an ONNX file"):
        load_engine(path, backend=backend)
    write_engine_file(path, spec, {"model.onnx": unknown_node()})
    with pytest.raises(
        EngineFileError, match=rf"damaged\.fbts: {backend} cannot load the network: "
    ):
        load_engine(path, backend=backend)


def test_build_refuses_what_a_backend_does_not_have(shipped: EngineFile) -> None:
    with pytest.raises(OptionsError, match="backend 'tvm': expected one of openvino"):
        build_payloads(shipped, "tvm", "fp32", [])
    for precision in ("fp16", "auto"):
        with pytest.raises(DeviceError, match=f"'{precision}': backend 'openvino' has fp32, bf16"):
            build_payloads(shipped, "openvino", precision, [])
    for backend, batch, most in (("openvino", 2, 1), ("tensorrt", 65, 64), ("tensorrt-rtx", 0, 64)):
        with pytest.raises(
            OptionsError, match=f"batch {batch}: expected 1 to {most} for backend '{backend}'"
        ):
            build_payloads(shipped, backend, "fp32", [], batch)


def test_shipped_engine_is_found() -> None:
    assert default_engine_path().is_file()


def test_an_empty_path_is_not_the_shipped_engine() -> None:
    with pytest.raises(EngineFileError, match=r"^\.: "):
        load_engine("")


def test_model_cards_state_the_source_of_the_prompts() -> None:
    engines = sorted((Path(__file__).resolve().parents[2] / "models").glob("*.fbts"))
    assert default_engine_path().name in [path.name for path in engines]
    for path in engines:
        prompts = read_engine_file(path).prompts
        assert f"| prompts | {prompts} |" in path.with_suffix(".md").read_text()
