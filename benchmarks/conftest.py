"""Fixtures of the benchmarks: the synthetic case, and a real one where the data are available."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastbts import Segmenter, Volume, read_case
from fastbts.phantom import make_case, write_case
from tests.conftest import data_folder, val_cases  # noqa: F401  (fixtures)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("peers", "of benchmarks/bench_peers.py")
    group.addoption("--case", help="folder of a real case with its segmentation")
    group.addoption("--int8-engine", help="engine file with the int8 network; default: the shipped")
    group.addoption("--device", default="cpu", choices=("cpu", "cuda"))
    group.addoption("--rounds", type=int, default=0, help="0: each benchmark has its own number")
    group.addoption("--n-threads", type=int, default=0, help="0 for one per core")


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Replaces the machine's name by that of its processor."""
    import fastbts
    from fastbts.engine.backends.openvino import OpenVINOEngine

    machine_info.pop("node", None)
    machine_info["device_name"] = str(
        OpenVINOEngine.package().Core().get_property("CPU", "FULL_DEVICE_NAME")
    ).strip()
    machine_info["fastbts"] = fastbts.__version__


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "case"
    write_case(make_case(0), folder)
    return folder


@pytest.fixture(scope="session", params=["phantom", "real"])
def case_folder(request: pytest.FixtureRequest) -> Path:
    if request.param == "phantom":
        return request.getfixturevalue("phantom_folder")
    cases: list[Path] = request.getfixturevalue("val_cases")
    return next(c for c in cases if c.name.endswith("AMH_1"))


@pytest.fixture(scope="session")
def volume(case_folder: Path) -> Volume:
    return read_case(case_folder)


@pytest.fixture(scope="session", params=["bf16", "fp32"])
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    from fastbts import DeviceError

    try:
        return Segmenter(precision=request.param)
    except DeviceError as error:
        pytest.skip(str(error))
