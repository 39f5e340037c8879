"""What keeps the project small: fences between its parts, a short public surface, a light import, a small install."""

from __future__ import annotations

import importlib.metadata as metadata
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fastbts

ROOT = Path(__file__).resolve().parents[1]
CSRC = [p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cpp", ".cu", ".cuh")]
CODE = [
    p
    for folder in ("fastbts", "training", "benchmarks", "tests", "scripts")
    for p in (ROOT / folder).rglob("*.py")
]


def _in(path: Path, folder: str) -> bool:
    return path.is_relative_to(ROOT / folder)


def test_no_torch_in_the_product() -> None:
    torch = re.compile(r"^\s*(import|from) torch|#include\s*<(torch|ATen)", re.MULTILINE)
    guilty = [
        p
        for p in [*CSRC, *CODE]
        if (_in(p, "fastbts") or _in(p, "csrc")) and torch.search(p.read_text())
    ]
    assert not guilty


def test_no_torch_is_loaded_by_a_prediction() -> None:
    script = (
        "import sys, numpy, fastbts; s = fastbts.Segmenter(); "
        "s.predict(numpy.random.default_rng(0).random((4, 32, 32, 32))); "
        "sys.exit(any(m.split('.')[0] in ('torch', 'training', 'monai') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_only_bindings_see_pybind11_and_only_ops_launch() -> None:
    assert CSRC
    assert not [p for p in CSRC if "pybind11" in p.read_text() and not _in(p, "csrc/bindings")]
    assert not [p for p in CSRC if "<<<" in p.read_text() and not _in(p, "csrc/ops")]


def test_files_stay_short() -> None:
    long = {p.name: n for p in [*CSRC, *CODE] if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_public_names() -> None:
    assert sorted(fastbts.__all__) == [
        "CaseError", "DeviceError", "Engine", "EngineFileError", "EngineSpec", "FailedCase", "FastBTSError", "Geometry",
        "GeometryError", "InputError", "MODALITIES", "OptionsError", "OutputError", "Segmentation", "Segmenter", "SegmenterOptions", "Volume",
        "load_engine", "read_case", "read_files",
    ]  # fmt: skip
    for name in fastbts.__all__:
        assert getattr(fastbts, name).__doc__ or name == "MODALITIES"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastbts.nothing


def test_import_is_light() -> None:
    script = "import sys; old = set(sys.modules); import fastbts; print(*{m.split('.')[0] for m in set(sys.modules) - old})"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    assert not loaded & {"nibabel", "openvino", "typer", "rich", "PIL", "torch", "scipy", "onnx"}
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import fastbts"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # CPU time: what the import costs, whatever else the machine is doing.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.6, (
        "half of it is the promise (make bench measures it), half is for slow machines"
    )


def _closure(name: str, seen: set[str]) -> set[str]:
    """Names of a distribution and all that it needs at run time."""
    if name in seen:
        return seen
    seen.add(name)
    for line in metadata.requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            _closure(re.sub(r"[-_.]+", "-", requirement.name).lower(), seen)
    return seen


def test_install_is_small_and_torch_free() -> None:
    names = _closure("fastbts", set())
    assert not names & {"torch", "scipy", "monai", "onnx", "matplotlib"}
    size = sum(
        file.stat().st_size
        for n in names
        for f in metadata.files(n) or []
        if (file := Path(str(f.locate()))).is_file()
    )
    assert size < 350e6, f"{size / 1e6:.0f} MB in {sorted(names)}"


def test_versions_agree() -> None:
    assert metadata.version("fastbts") == fastbts.__version__
