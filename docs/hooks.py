"""Hooks of MkDocs: pages of the repository that are not in docs/, and the help of all commands."""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OUTSIDE = (
    *("SECURITY.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md"),
    *("training/README.md", "csrc/README.md", "fastbts/engine/FORMAT.md"),
    *("models/fastbts-light.md", "models/fastbts-brain.md"),
    *("benchmarks/results/dice-val.csv", "benchmarks/results/dice-val.png"),
    "benchmarks/results/peers.png",
)
"""Files that become part of the site, under the same path."""


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the files of `OUTSIDE`."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Sets the links that leave docs/ right, and fills in the help of the commands."""
    uri = page.file.src_uri
    markdown = re.sub(r"^---\n.*?^---\n", "", markdown, flags=re.MULTILINE | re.DOTALL)
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", commands())
    return re.sub(r"\[([^\]\[]*)\]\(([^)\s]+)\)", lambda link: moved(link, uri), markdown)


def moved(link: re.Match[str], uri: str) -> str:
    """The link for the site; one to a file that is not in it becomes the name of the file."""
    text, (path, _, anchor) = link[1], link[2].partition("#")
    if not path or ":" in path:
        return link[0]
    page = (ROOT if uri in OUTSIDE else DOCS) / uri
    target = (page.parent / path).resolve()
    name = target.relative_to(ROOT).as_posix()
    if target == ROOT / "README.md":
        name, anchor = "index.md", ""
    elif target.is_relative_to(DOCS):
        name = target.relative_to(DOCS).as_posix()
    elif name not in OUTSIDE:
        return f"{text} (`{name}`)"
    there = posixpath.relpath(name, posixpath.dirname(uri))
    return f"[{text}]({there}{'#' * bool(anchor)}{anchor})"


def commands() -> str:
    """The help of all commands, as typer prints it in Markdown."""
    arguments = ("--app", "app", "fastbts.cli", "utils", "docs", "--name", "fastbts")
    # -P: the installed package, which has the compiled module, not that of the current folder.
    command = [sys.executable, "-P", "-m", "typer", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.partition("**Usage**")[2].join(["**Usage**", ""])
