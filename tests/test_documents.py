"""The README and the documents: each block of code and each command runs, or says why not.

A block that no test here runs has `<!-- not run: WHY -->` on the line before it; of one with
`<!-- not run (NAME, NAME): WHY -->` all commands run but these.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastbts.phantom import make_case, write_case
from tests.cli.commands import run
from tests.conftest import write_voxel_engine

ROOT = Path(__file__).resolve().parents[1]
DOCS = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
TOP = (
    *("README.md", "SECURITY.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md"),
    *("training/README.md", "csrc/README.md", "fastbts/engine/FORMAT.md", "examples/README.md"),
    *("models/fastbts-light.md", "models/fastbts-brain.md"),
)
PAGES = (*TOP, *DOCS)
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
PROGRAM = re.compile(
    r"^(fastbts|make|pip|python|torchrun|docker|curl|scripts/\S+|sbatch|cmake) ", re.M
)
PYTHON = re.compile(r"^(import|from) \w|^\w+(\.\w+)+\(", re.M)
MARK = r"(?:^<!-- not run(?: \((?P<names>[^)]*)\))?: (?P<why>[^>]+) -->\n+)?"
FENCED = re.compile(MARK + r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
INDENTED = re.compile(MARK + r"(?:\A|(?<=\n\n)|(?<=-->\n))(?P<code>(?:^    .*\n?)+)", re.M)
FILES = {"f": "flair", "t1": "t1", "t1c": "t1ce", "t2": "t2"}


@dataclass(frozen=True)
class Block:
    """A block of code: what is in it, and what of it is not run."""

    language: str
    code: str
    names: tuple[str, ...]
    why: str

    @property
    def is_run(self) -> bool:
        return not self.why or bool(self.names)


def blocks(page: str) -> list[Block]:
    """Of a page, in order."""
    text = (ROOT / page).read_text()
    found = [*FENCED.finditer(text), *INDENTED.finditer(FENCED.sub(blank, text))]
    return [block_of(match) for match in sorted(found, key=lambda match: match.start())]


def blank(match: re.Match[str]) -> str:
    """As long as the match, so that the places of what follows stay."""
    return "\n" * len(match[0])


def block_of(match: re.Match[str]) -> Block:
    parts = match.groupdict()
    names = tuple(name.strip() for name in (parts["names"] or "").split(",") if name.strip())
    code = (
        re.sub("^    ", "", parts["code"], flags=re.M) if "language" not in parts else parts["code"]
    )
    return Block(parts.get("language", ""), re.sub(r"\\\n\s*", "", code), names, parts["why"] or "")


def commands(block: Block) -> list[list[str]]:
    """The lines that begin with a program, as words."""
    lines = [line.removeprefix("$ ") for line in block.code.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if PROGRAM.match(f"{line} ")]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine that compiles and runs in no time."""
    return write_voxel_engine(tmp_path_factory.mktemp("engine") / "voxel.fbts")


@pytest.fixture
def place(tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files that the documents name, and that engine as shipped."""
    first = tmp_path / "case_folder"
    for path in write_case(make_case(0, shape=(64, 64, 48)), first):
        path.rename(first / path.name.replace("phantom_000", "case"))
    for name in ("case", "CASE_FOLDER", "CASE_1", "CASE_2", "dataset/sub-1", "dataset/sub-2"):
        shutil.copytree(first, tmp_path / name)
    for name, modality in FILES.items():
        shutil.copy(first / f"case_{modality}.nii.gz", tmp_path / f"{name}.nii.gz")
    shutil.copy(engine, tmp_path / "engine.fbts")
    for module in ("engine.load", "study.stripping"):
        monkeypatch.setattr(f"fastbts.{module}.default_engine_path", lambda *name: engine)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_results(place: Path, page: str) -> None:
    """The results of two examinations, where a page compares them."""
    for month in {"january", "april"} if "out/january" in TEXTS[page] else ():
        code, output = run("predict", "case_folder", "-o", f"out/{month}", "--html")
        assert code == 0, output


def test_blocks_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (
        "a\n\n    fastbts info\n\nb\n\n<!-- not run: no GPU -->\n    make x\n\n```python\n1\n```\n"
    )
    text += "\n<!-- not run (study): long -->\n\n    fastbts study X\n    fastbts doctor  # here\n"
    (tmp_path / "page.md").write_text(text)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    found = blocks("page.md")
    assert [(b.language, b.is_run, b.names) for b in found] == [
        *(("", True, ()), ("", False, ()), ("python", True, ()), ("", True, ("study",))),
    ]
    assert commands(found[3]) == [["fastbts", "study", "X"], ["fastbts", "doctor"]]


@pytest.mark.parametrize("page", PAGES)
def test_what_cannot_be_run_here_says_so(page: str) -> None:
    for block in blocks(page):
        others = [words[0] for words in commands(block) if words[0] != "fastbts"]
        languages = ("", "python", "text", "json", "yaml")
        assert not block.is_run or block.language in languages, f"{page}: {block.code}"
        assert not block.is_run or not others, f"{page}: mark the block of {others}"
        known = {words[1] for words in commands(block) if words[0] == "fastbts"}
        assert set(block.names) <= known, f"{page}: not in the block: {block.names}"
        assert block.language or not PYTHON.search(block.code), f"{page}: fence {block.code}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "    fastbts " in TEXTS[page]])
def test_commands_run(page: str, place: Path) -> None:
    write_results(place, page)
    for block in filter(lambda block: block.is_run, blocks(page)):
        for program, *arguments in commands(block):
            if program == "fastbts" and arguments[0] not in block.names:
                code, output = run(*arguments)
                assert code == 0, f"{page}: fastbts {shlex.join(arguments)}: {output}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in TEXTS[page]])
def test_snippets_run(page: str, place: Path) -> None:
    write_results(place, page)
    code = [block.code for block in blocks(page) if block.language == "python" and block.is_run]
    exec("\n".join(code), {"__name__": "__main__"})
    assert (place / "seg.nii.gz").is_file() or "seg.nii.gz" not in "".join(code)


EXAMPLES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "examples").rglob("*")
    if path.suffix in (".py", ".ipynb", ".sh", ".sbatch") and path.name != "__init__.py"
)


@pytest.fixture(scope="module")
def run_by_tests() -> set[str]:
    """Modules that the tests import, and texts of theirs such as paths and `MODULE:NAME`."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "examples" in text else ():
            if isinstance(node, ast.ImportFrom):
                found |= {node.module or "", *(f"{node.module}.{a.name}" for a in node.names)}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value.partition(":")[0])
    return found


def test_examples_are_found() -> None:
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_is_run_by_a_test(name: str, run_by_tests: set[str]) -> None:
    """A test imports it, or has its path or module as an argument."""
    assert {name, name.removesuffix(".py").replace("/", ".")} & run_by_tests
