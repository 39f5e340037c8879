"""The project stays small: fences in C++, short files, few public names, a light import.

The layers of the Python code are in pyproject.toml (import-linter, ruff's banned imports).
"""

from __future__ import annotations

import importlib.metadata as metadata
import re
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fastbts

ROOT = Path(__file__).resolve().parents[1]
CPP_SUFFIXES = (".h", ".cpp", ".cu", ".cuh")
CSRC = [p for p in (ROOT / "csrc").rglob("*") if p.suffix in CPP_SUFFIXES]
FOLDERS = ("fastbts", "training", "benchmarks", "examples", "tests", "scripts")
PYTHON = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")]

MAY_INCLUDE = {  # files of csrc -> parts of csrc/core that they may include
    r"core/array/.*": {"array"},
    r"(core/cpu/.*|ops/.*_cpu\.cpp)": {"array", "cpu"},
    r"(core/cuda/.*|ops/.*\.cuh?)": {"array", "cuda"},
}


def in_csrc(path: Path) -> str:
    return path.relative_to(ROOT / "csrc").as_posix()


def folders_with(pattern: str) -> set[str]:
    """Folders of csrc with files that contain a pattern."""
    found = [p for p in CSRC if re.search(pattern, p.read_text())]
    return {in_csrc(p).partition("/")[0] for p in found}


def test_only_bindings_include_pybind11() -> None:
    assert folders_with("pybind11") == {"bindings"}


def test_only_ops_launch_kernels() -> None:
    assert folders_with("<<<") == {"ops"}


def test_no_torch_in_csrc() -> None:
    assert folders_with(r"#include\s*<(torch|ATen|c10)") == set()


@pytest.mark.parametrize("pattern", MAY_INCLUDE)
def test_host_and_device_code_include_their_own_core(pattern: str) -> None:
    files = [p for p in CSRC if re.fullmatch(pattern, in_csrc(p))]
    assert files
    for path in files:
        parts = set(re.findall(r'#include "core/(\w+)/', path.read_text()))
        assert parts <= MAY_INCLUDE[pattern], in_csrc(path)


def test_each_constant_of_csrc_has_one_definition() -> None:
    """Files share a namespace: two values for one name are undefined behaviour."""
    pattern = re.compile(r"^inline constexpr [\w:<> ]+ (k\w+)(?:<\w+>)? =", re.M)
    names = [name for path in CSRC for name in set(pattern.findall(path.read_text()))]
    assert len(names) > 20
    assert [name for name, n in Counter(names).items() if n > 1] == []


def test_files_stay_short() -> None:
    n_lines = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in [*CSRC, *PYTHON]}
    assert {name: n for name, n in n_lines.items() if n > 400} == {}


def prose(path: Path) -> list[str]:
    """Lines of a file; of Markdown without tables, code and links, which cannot be wrapped."""
    lines = path.read_text().splitlines()
    if path.suffix == ".md":
        text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        lines = [line for line in text.splitlines() if not line.startswith(("|", "    "))]
    return [line for line in lines if "https://" not in line]


def test_other_files_keep_to_100_columns() -> None:
    """ruff checks Python; clang-format breaks code of C++, but not its comments."""
    top = [ROOT / name for name in ("Makefile", "CMakeLists.txt", "CMakePresets.json")]
    folders = (*FOLDERS, "csrc", "models", "docs", ".github")
    below = [p for folder in folders for p in (ROOT / folder).rglob("*")]
    suffixes = (".md", ".sh", ".cmake", ".toml", ".yaml", ".yml", ".cff", *CPP_SUFFIXES)
    files = top + [p for p in (*ROOT.iterdir(), *below) if p.suffix in suffixes]
    assert {"README.md", "train.sh", "pyproject.toml"} <= {p.name for p in files}
    long = [f"{p.relative_to(ROOT)}: {line}" for p in files for line in prose(p) if len(line) > 100]
    assert long == []


def test_few_modules_beside_the_folders() -> None:
    modules = {p.stem for p in (ROOT / "fastbts").glob("*.py")} - {"__init__", "__main__"}
    assert len(modules) <= 12, modules


def test_public_names() -> None:
    assert sorted(fastbts.__all__) == [
        *("CaseError", "DeviceError", "Engine", "EngineFileError", "EngineSpec", "FailedCase"),
        *("FastBTSError", "Geometry", "GeometryError", "InputError", "MODALITIES"),
        *("OptionsError", "OutputError", "Segmentation", "Segmenter", "SegmenterOptions"),
        *("Study", "Volume", "find_cases", "load_engine", "read_case", "read_files"),
        "read_study",
    ]
    for name in fastbts.__all__:
        assert getattr(fastbts, name).__doc__ or name == "MODALITIES"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastbts.nothing


@pytest.mark.slow
def test_no_torch_is_loaded_by_a_prediction() -> None:
    script = (
        "import sys, numpy, fastbts; s = fastbts.Segmenter(); "
        "s.predict(numpy.random.default_rng(0).random((4, 32, 32, 32))); "
        "sys.exit(any(m.split('.')[0] in ('torch', 'training', 'monai') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_import_loads_little() -> None:
    script = (
        "import sys; old = set(sys.modules); import fastbts; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - old})"
    )
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {
        *("numpy", "nibabel", "openvino", "typer", "rich", "PIL", "torch", "scipy")
    }


@pytest.mark.serial
def test_import_is_fast() -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import fastbts"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # CPU time does not depend on what else the machine does.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.6, "0.3 s is the target (make bench measures it); slow machines get 0.6"


def closure(name: str, seen: set[str]) -> set[str]:
    """Names of a distribution and of all that it needs at run time."""
    if name in seen:
        return seen
    seen.add(name)
    for line in metadata.requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            closure(re.sub(r"[-_.]+", "-", requirement.name).lower(), seen)
    return seen


def test_install_is_small_and_torch_free() -> None:
    names = closure("fastbts", set())
    assert not names & {"torch", "scipy", "monai", "onnx", "matplotlib"}
    paths = [Path(str(f.locate())) for name in names for f in metadata.files(name) or []]
    n_bytes = sum(path.stat().st_size for path in paths if path.is_file())
    assert n_bytes < 350e6, f"{n_bytes / 1e6:.0f} MB in {sorted(names)}"
