"""Dockerfile and compose.yaml keep their promises, as far as their text shows: no daemon runs here.

docs/how-to/docker.md says what was tried beside these tests.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from fastbts.cli import app

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
Step = tuple[str, str]


@pytest.fixture(scope="module")
def stages() -> list[list[Step]]:
    """Instructions and their arguments by stage."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", "").splitlines() if line.strip()]
    steps = [(line.split()[0], line.partition(" ")[2]) for line in lines]
    starts = [n for n, (name, _) in enumerate(steps) if name == "FROM"]
    ends = [*starts[1:], len(steps)]
    return [steps[start:end] for start, end in zip(starts, ends, strict=True)]


@pytest.fixture(scope="module")
def node() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["fastbts"]


def test_compiler_stays_in_the_first_stage(stages: list[list[Step]]) -> None:
    build, final = stages
    assert "g++" in dict(build)["RUN"] or any("g++" in step for _, step in build)
    assert not any(re.search(r"apt-get|pip |g\+\+|cmake", step) for _, step in final)
    assert ("COPY", "--from=build /opt/fastbts /opt/fastbts") in final
    assert any("--require-hashes" in step for _, step in build)


def test_the_user_is_not_root(stages: list[list[Step]]) -> None:
    final = stages[-1]
    (user,) = [step for name, step in final if name == "USER"]
    assert int(user) > 1000
    assert any(f"--uid {user} " in step for _, step in final)
    last = [name for name, _ in final]
    assert last.index("USER") > max(n for n, name in enumerate(last) if name in ("RUN", "COPY"))


def test_all_that_is_copied_gets_into_the_build(stages: list[list[Step]]) -> None:
    sent = set((ROOT / ".dockerignore").read_text().splitlines())
    copied = [step.split()[:-1] for name, step in stages[0] if name == "COPY"]
    names = {name for sources in copied for name in sources}
    assert {"fastbts", "csrc", "models", "pyproject.toml", "constraints.txt"} <= names
    assert "*" in sent
    for name in names:
        assert (ROOT / name).exists()
        assert f"!{name}" in sent


def test_what_the_build_reads_is_copied(stages: list[list[Step]]) -> None:
    copied = " ".join(step for name, step in stages[0] if name == "COPY")
    installed = (ROOT / "CMakeLists.txt").read_text()
    for name in {*re.findall(r"install\(FILES (\w+)/", installed), "README.md", "LICENSE"}:
        assert name in copied


def test_the_node_has_few_rights(node: dict[str, Any]) -> None:
    assert node["read_only"] is True
    assert node["cap_drop"] == ["ALL"]
    assert node["security_opt"] == ["no-new-privileges:true"]
    assert node["volumes"] == ["queue:/queue"]
    assert "privileged" not in node
    assert node["ports"] == ["127.0.0.1:11112:11112"], "not for the network unless one says so"


def test_the_node_is_a_command_of_fastbts(node: dict[str, Any]) -> None:
    name, *arguments = node["command"]
    command: Any = typer.main.get_command(app)
    known = {option for each in command.commands[name].params for option in each.opts}
    assert {word for word in arguments if word.startswith("--")} <= known
    assert arguments[arguments.index("--queue") + 1] == "/queue"
    aet = next(each for each in command.commands[name].params if each.name == "aet").default
    assert node["healthcheck"]["test"][-1] == aet
