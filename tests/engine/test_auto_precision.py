"""The rule of precision "auto" on the CPU: instructions, measured parity, and the reason given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastbts import EngineFileError
from fastbts.engine import auto_precision
from fastbts.engine.auto_precision import choose, int8_instructions
from fastbts.engine.file import EngineFile
from fastbts.engine.load import default_engine_path, read_engine
from fastbts.spec import EngineSpec

GOOD = {
    "HGG + 2021": {"n_cases": 9, "dice_change": 0.0003, "worst_case": -0.006},
    "LGG": {"n_cases": 3, "dice_change": -0.002, "worst_case": -0.01},
}


def built(groups: Any = GOOD, **changes: Any) -> EngineFile:
    """A file that was built for OpenVINO's int8."""
    build = {"backend": "openvino", "precision": "int8", "parity": {"groups": groups}, **changes}
    return EngineFile("x.fbts", "", {"build": build}, EngineSpec(), {})


def changed(group: str, **values: Any) -> EngineFile:
    return built({**GOOD, group: {**GOOD[group], **values}})


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list of CPU features that is read: of a CPU with VNNI."""
    path = tmp_path / "cpuinfo"
    path.write_text("model name : x\nflags : fpu avx512f avx512_vnni sse\n")
    monkeypatch.setattr(auto_precision, "CPU_FEATURES", path)
    return path


def test_int8_is_taken_where_it_is_fast_and_as_good(features: Path) -> None:
    assert choose(built(), "auto", has_bf16=True) == (
        "int8",
        "this CPU has AVX512-VNNI, and on 12 cases int8 changes mean Dice by +0.0003 (HGG + 2021), "
        "-0.0020 (LGG), and that of the worst case by -0.0100; allowed are -0.002 and -0.01",
    )


def test_the_shipped_engine_takes_int8(features: Path) -> None:
    """Its parity was measured with the labels of its own rules: measure it anew after a change."""
    shipped = read_engine(default_engine_path())
    assert choose(shipped, "auto", has_bf16=True).name == "int8"
    features.write_text("flags : fpu avx2 avx512_bf16\n")
    assert choose(shipped, "auto", has_bf16=True).name == "bf16"
    assert choose(shipped, "auto", has_bf16=False).name == "fp32"


@pytest.mark.parametrize(
    "values",
    [
        {"dice_change": -0.0021},
        {"worst_case": -0.0101},
        {"dice_change": float("nan")},
        {"worst_case": float("nan")},
    ],
)
@pytest.mark.parametrize("group", GOOD)
def test_int8_that_is_worse_in_a_group_or_a_case_is_not_taken(
    features: Path, group: str, values: dict[str, float]
) -> None:
    precision, reason = choose(changed(group, **values), "auto", has_bf16=True)
    assert precision == "bf16"
    assert reason.startswith("this CPU computes in bf16, and int8 is not as good as float32: on 12")
    assert choose(changed(group, **values), "auto", has_bf16=False).name == "fp32"


def test_int8_is_not_taken_where_it_may_be_slow(features: Path) -> None:
    for content in ("flags : avx2 avx512f\n", "Features : asimd asimddp i8mm\n", ""):
        features.write_text(content)
        assert choose(built(), "auto", has_bf16=True) == (
            "bf16",
            "this CPU computes in bf16, and int8 needs AVX512-VNNI, AVX-VNNI or AMX-INT8, which it "
            "is not known to have",
        )
    features.unlink()  # not Linux
    assert choose(built(), "auto", has_bf16=False).name == "fp32"


def test_all_instructions_are_named(features: Path) -> None:
    features.write_text("flags : amx_int8 avx512_vnni avx_vnni\n")
    assert int8_instructions() == ["AVX512-VNNI", "AVX-VNNI", "AMX-INT8"]


def test_without_parity_by_group_int8_is_not_chosen(features: Path) -> None:
    """Loading then gives the precision that it was built for."""
    others = built(backend="onnxruntime"), built(precision="fp32"), built({}), built(None)
    for file in (*others, replace(built(), manifest={})):
        precision, reason = choose(file, "auto", has_bf16=True)
        assert precision == "bf16"
        assert reason.endswith("the file holds no int8 network with parity by group")


def test_a_given_precision_is_obeyed(features: Path) -> None:
    features.unlink()
    bad = changed("LGG", dice_change=-0.5)
    assert choose(bad, "int8", has_bf16=True) == ("int8", "the file was built for it")
    assert choose(bad, "fp32", has_bf16=True) == ("fp32", "it was asked for")


@pytest.mark.parametrize(
    "groups",
    [{"a": {}}, {"a": 1}, [1], "x", *({"a": {**GOOD["LGG"], "n_cases": n}} for n in (None, 1e999))],
)
def test_damaged_parity_is_an_engine_file_error(features: Path, groups: Any) -> None:
    with pytest.raises(EngineFileError, match=r"x\.fbts: build\.parity\.groups .* build it again"):
        choose(built(groups), "auto", has_bf16=True)
