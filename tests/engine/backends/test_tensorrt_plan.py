"""TensorRT plans and their records: settings of the builder, precisions, and what does not fit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fastbts import DeviceError
from fastbts.engine.backends import tensorrt, tensorrt_plan
from fastbts.engine.backends.tensorrt import TensorRTEngine, TensorRTRTXEngine
from fastbts.engine.backends.tensorrt_log import shared_log
from fastbts.engine.backends.tensorrt_plan import (
    TIMINGS,
    Wanted,
    build_plan,
    check_machine,
    checked_record,
    make_record,
)
from fastbts.engine.file import EngineFile, read_engine_file
from fastbts.engine.load import default_engine_path

trt = pytest.importorskip(
    "tensorrt_rtx_bindings",
    reason="TensorRT-RTX is not installed: pip install 'fastbts[tensorrt-rtx]'",
)

SHIPPED = read_engine_file(default_engine_path())
PLAN = tensorrt_plan.Plan(b"", "", plugins=True)
RANGES = {"leaky_relu": 17.0, "leaky_relu_1": 18.5, "leaky_relu_2": 18.2}


def with_record(plan: tensorrt_plan.Plan = PLAN, **changes: Any) -> EngineFile:
    """An engine file whose plan was built on a GPU of compute capability 8.9."""
    record = json.loads(make_record(trt, Wanted("tensorrt", portable=False), plan, "8.9"))
    content = json.dumps({**record, **changes}).encode()
    payloads = {"engine.plan": memoryview(b""), "engine.json": memoryview(content)}
    return replace(SHIPPED, path="x.fbts", payloads={**SHIPPED.payloads, **payloads})


def test_tf32_is_off_for_fp32_alone() -> None:
    for precision, on in (("fp32", False), ("tf32", True), ("fp16", True)):
        builder = trt.Builder(shared_log(trt))
        config = tensorrt_plan._config(trt, builder, SHIPPED, Wanted("tensorrt-rtx", precision))
        assert config.get_flag(trt.BuilderFlag.TF32) is on, precision
        # The engine gives contexts their memory, and has its runs recorded as CUDA graphs.
        assert config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "kinds"),
    [("fp16", {"Half"}), ("bf16", {"BFloat16"}), ("int8", {"Int8", "Half"})],
)
def test_convolutions_compute_in_the_precision(precision: str, kinds: set[str]) -> None:
    plan = build_plan(trt, SHIPPED, Wanted("tensorrt-rtx", precision, ranges=RANGES))
    read = re.findall(
        r"LayerType: (?:correlation|deconv), Inputs: \[ \{[^}]*?Datatype: (\w+)", plan.log
    )
    assert set(read) == kinds
    if precision == "int8":
        assert read.count("Int8") == len(RANGES)
    activations = re.search(r"Total Activation Memory: (\d+) bytes", plan.log)
    assert activations
    assert int(activations[1]) < 0.8e9, "at the largest box; 1.2e9 in float32"


@pytest.mark.slow
def test_record_of_a_portable_plan() -> None:
    built = TensorRTRTXEngine.build(SHIPPED, "fp16", [], max_batch=3)
    record = json.loads(built["engine.json"])
    assert (record["max_batch"], record["precision"]) == (3, "fp16")
    assert record["compute_capability"] is None, "portable"
    assert TIMINGS not in built, "TensorRT-RTX times nothing"


class Shapes:
    """A builder that keeps the shapes of its profile."""

    def __init__(self) -> None:
        self.shapes: tuple[tuple[int, ...], ...] = ()

    def create_optimization_profile(self) -> Shapes:
        return self

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        assert name == "volume"
        self.shapes = shapes


def test_profile_takes_the_batch_and_the_smallest_tensor() -> None:
    profile = tensorrt_plan._profile(Shapes(), SHIPPED.spec, 3)
    assert profile.shapes == (
        (1, 4, 32, 32, 32),  # the smallest tensor that the pipeline makes
        (3, 4, 144, 176, 144),
        (3, 4, 256, 256, 256),
    )


class TimedConfig:
    """A builder's config that remembers the timing cache."""

    def __init__(self) -> None:
        self.profiling_verbosity = self.cache = None

    def add_optimization_profile(self, profile: object) -> None:
        pass

    def clear_flag(self, flag: object) -> None:
        pass

    def set_flag(self, flag: object) -> None:
        pass

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch, "timings of another GPU must not be used"
        self.cache = cache


class TimedBuilder(Shapes):
    def create_builder_config(self) -> TimedConfig:
        return TimedConfig()


def test_timings_of_an_earlier_build_are_used() -> None:
    timed = replace(SHIPPED, payloads={**SHIPPED.payloads, TIMINGS: memoryview(b"earlier")})
    full = Wanted("tensorrt", portable=False)
    for file, expected in ((SHIPPED, b""), (timed, b"earlier")):
        assert tensorrt_plan._config(trt, TimedBuilder(), file, full).cache == expected
    portable = tensorrt_plan._config(trt, TimedBuilder(), timed, Wanted("tensorrt-rtx"))
    assert portable.cache is None


def test_a_plan_of_the_full_tensorrt_is_for_this_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(trt: object, file: EngineFile, wanted: Wanted) -> tensorrt_plan.Plan:
        assert not wanted.portable
        return tensorrt_plan.Plan(b"plan", "", plugins=False, timings=b"timed")

    class Gpu:
        def compute_capability(self) -> str:
            return "8.9"

    package = SimpleNamespace(__version__="11.4.0")
    monkeypatch.setattr(TensorRTEngine, "package", classmethod(lambda cls: package))
    monkeypatch.setattr(tensorrt, "Runtime", Gpu)
    monkeypatch.setattr(tensorrt, "build_plan", build)
    built = TensorRTEngine.build(SHIPPED, "bf16", [], max_batch=2)
    assert (built["engine.plan"], built[TIMINGS]) == (b"plan", b"timed")
    record = json.loads(built["engine.json"])
    assert (record["version"], record["compute_capability"]) == ("11.4.0", "8.9")
    assert (record["precision"], record["max_batch"]) == ("bf16", 2)


def test_a_plan_needs_its_version_and_its_gpu() -> None:
    file = with_record(replace(PLAN, plugins=False))
    record = checked_record(file, "tensorrt")
    check_machine(file, record, trt.__version__, "8.9")
    check_machine(file, {**record, "compute_capability": None}, trt.__version__, "12.0")
    for version, capability in (("1.0", "8.9"), (trt.__version__, "9.0")):
        with pytest.raises(
            DeviceError,
            match=rf"built by tensorrt {trt.__version__} for compute capability 8\.9, this machine "
            rf"has {version} on compute capability {capability}.* run: fastbts build x\.fbts",
        ):
            check_machine(file, record, version, capability)


def test_a_plan_is_built_again_in_its_precision() -> None:
    build = {"backend": "tensorrt", "precision": "fp16"}
    file = with_record(replace(PLAN, plugins=False))
    file = replace(file, manifest={**file.manifest, "build": build})
    with pytest.raises(DeviceError, match=r"--backend tensorrt-rtx --precision fp16$"):
        checked_record(file, "tensorrt-rtx")


def test_a_plan_needs_the_plugins_that_it_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_plan, "plugin_library", default_engine_path)
    assert checked_record(with_record(), "tensorrt")["plugin_version"] == "1"
    with pytest.raises(
        DeviceError,
        match=r"calls version 0 of the plugins of fastbts, this installation has version 1; run: "
        r"fastbts build x\.fbts -o OUT\.fbts --backend tensorrt --precision int8$",
    ):
        checked_record(with_record(plugin_version="0"), "tensorrt")
    assert checked_record(with_record(replace(PLAN, plugins=False), plugin_version="0"), "tensorrt")
