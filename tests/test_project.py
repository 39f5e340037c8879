"""What a visitor finds around the code: version, citation, model cards, site, build messages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fastbts
from fastbts import cohort
from fastbts.about import __version__

ROOT = Path(__file__).resolve().parents[1]


def test_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    newest = re.search(r"^## (\S+) \((\S+)\)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None
    assert newest.groups() == (__version__, str(citation["date-released"]))


@pytest.mark.parametrize("name", ["fastbts-light", "fastbts-brain"])
def test_model_cards_have_the_front_matter_of_a_hub(name: str) -> None:
    _, front, text = (ROOT / f"models/{name}.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["license"] == "apache-2.0"
    assert card["library_name"] == "fastbts"
    assert "## Intended use" in text
    for model in card.get("model-index", []):
        for metric in model["results"][0]["metrics"]:
            assert f"**{metric['value']}**" in text


def test_a_folder_for_the_hub_is_complete(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts/make_hub.py", tmp_path], check=True)
    for name in ("fastbts-light", "fastbts-brain"):
        folder = tmp_path / name
        sums = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
        assert sorted(sums) == sorted({p.name for p in folder.iterdir()} - {"SHA256SUMS"})
        assert {f"{name}.fbts", "LICENSE", "README.md"} <= set(sums)
        for target in re.findall(r"\]\(([^):#]+)\)", (folder / "README.md").read_text()):
            assert (folder / target).is_file(), target


def test_workflows_and_forms_are_yaml() -> None:
    files = sorted((ROOT / ".github").rglob("*.yml"))
    assert len(files) >= 7
    for path in files:
        assert yaml.safe_load(path.read_text()), path


def test_nothing_is_released_without_the_tests() -> None:
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    assert release["tests"]["uses"] == "./.github/workflows/test.yml"
    for name in ("release", "pypi"):
        assert "tests" in release[name]["needs"], name


def test_pages_of_the_site_exist() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    named = re.findall(r": ([\w/-]+\.md)$", text, re.M)
    for name in named:
        assert any((base / name).is_file() for base in (ROOT, ROOT / "docs")), name
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert pages <= set(named)


def test_reference_has_all_public_names() -> None:
    page = (ROOT / "docs/reference/python.md").read_text()
    modules = re.findall(r"^::: (\S+)", page, re.M)
    named = {module.rpartition(".")[2] for module in modules}
    errors = {name for name in fastbts.__all__ if name.endswith("Error")}  # by fastbts.errors
    for name in {*fastbts.__all__, *cohort.__all__} - errors - {"MODALITIES", "__version__"}:
        assert name in named, name
    assert {"compare", "metrics", "errors"} <= named


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the site needs the extra [docs]")
    pytest.importorskip("mkdocstrings", reason="the site needs the extra [docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fastbts predict" in (tmp_path / "site/reference/commands.html").read_text()


def test_missing_headers_of_python_are_one_sentence(tmp_path: Path) -> None:
    """With a FindPython that finds none, as on a machine without python3-dev."""
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    if cmake is None:
        pytest.skip("cmake is not installed")
    (tmp_path / "FindPython.cmake").write_text("set(Python_FOUND TRUE)\n")
    command = [cmake, "-S", ROOT, "-B", tmp_path / "build", f"-DCMAKE_MODULE_PATH={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    words = " ".join(done.stderr.split())
    assert done.returncode != 0
    assert "fastbts: the C headers of Python (Python.h) were not found; install them: apt" in words
    assert "pybind11" not in words
