"""`fastbts build --finder`: puts a finder into an engine file, for focus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastbts.build.engine import read_source
from fastbts.engine.file import SECTIONS, pack_engine, read_engine_file
from fastbts.engine.finder import FINDER, check_finder
from fastbts.engine.load import check_network
from fastbts.files import atomic_write, check_writable


def add_finder(source: str | Path, target: str | Path, finder: str | Path) -> dict[str, Any]:
    """Writes an engine file with a finder; an earlier finder is replaced, a signature left out.

    Args:
        source: An engine file, or an ONNX as `build_engine` takes it. All else of it is kept.
        target: The engine file to write; may be the source.
        finder: Engine file of the finder.
    Returns:
        The manifest's section `finder`: name, sha256, training.
    Raises:
        EngineFileError: A file cannot be used, or the finder does not fit the engine.
        OutputError: The target cannot be written.
    """
    check_writable(target, [finder])
    file, found = read_source(source), read_engine_file(finder)
    check_finder(found, file.spec)
    check_network(found)
    about: dict[str, Any] = {"name": found.spec.name, "sha256": found.sha256}
    if "training" in found.manifest:
        about["training"] = found.manifest["training"]
    kept = {name: file.manifest[name] for name in file.manifest if name in SECTIONS}
    kept.pop("signature", None)
    payloads = {**file.payloads, FINDER: memoryview(Path(finder).read_bytes())}
    with atomic_write(Path(target)) as output:
        output.write(pack_engine(file.spec, payloads, **{**kept, "finder": about}))
    return about
