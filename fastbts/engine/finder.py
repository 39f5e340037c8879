"""The finder of an engine file: a small network that finds where the engine's own has to run.

It is an engine file of its own, whole, in the payload `finder.fbts`; see FORMAT.md.
"""

from __future__ import annotations

from fastbts.engine.file import EngineFile, parse_engine_file
from fastbts.engine.interface import Engine
from fastbts.engine.load import open_engine
from fastbts.errors import EngineFileError, OptionsError
from fastbts.spec import EngineSpec

FINDER = "finder.fbts"
"""Name of the payload."""
FACTOR = 2
"""Voxels of the engine along each side of a voxel of its finder."""


def finder_of(file: EngineFile) -> EngineFile | None:
    """The finder in an engine file, with all checksums verified; None if there is none.

    Raises:
        EngineFileError: It is damaged, or does not fit the engine.
    """
    content = file.payloads.get(FINDER)
    if content is None:
        return None
    finder = parse_engine_file(bytes(content), f"{file.path}: {FINDER}")
    check_finder(finder, file.spec)
    return finder


def needed_finder(source: Engine | EngineFile) -> EngineFile:
    """The finder of an engine that is used with focus.

    Raises:
        OptionsError: There is none, or the engine is loaded already.
        EngineFileError: See `finder_of`.
    """
    if not isinstance(source, EngineFile):
        raise OptionsError(
            f"focus: {source.spec.name} is loaded already, without its finder; give the path of "
            "its file instead"
        )
    finder = finder_of(source)
    if finder is None:
        raise OptionsError(
            f"focus: {source.path} has no finder; put one in with `fastbts build "
            "ENGINE -o OUT --finder FINDER.fbts`, or leave focus out"
        )
    return finder


def check_finder(finder: EngineFile, spec: EngineSpec) -> None:
    """Checks that a finder fits an engine: it takes the engine's tensor, halved.

    Args:
        finder: The finder's file.
        spec: Of the engine.
    Raises:
        EngineFileError: It has a finder itself, or another spec than the engine's asks for.
    """
    if FINDER in finder.payloads:
        raise EngineFileError(
            f"{finder.path}: has a finder itself; expected a finder alone, as "
            "`python -m training export` writes it"
        )
    labels = sorted({label for region in spec.labels for label in region})
    own, spacing_mm = finder.spec, FACTOR * spec.spacing_mm
    checks = [
        ("modalities", spec.modalities, own.modalities),
        ("spacing_mm", spacing_mm, own.spacing_mm),
        ("percentiles", spec.percentiles, own.percentiles),
        ("labels of its one region", [labels], [sorted(region) for region in own.labels]),
        (f"of {spec.name} a stride that is a multiple of", FACTOR, _factor(spec.stride)),
    ]
    wrong = [f"{what} {wanted}, got {got}" for what, wanted, got in checks if wanted != got]
    if wrong:
        raise EngineFileError(
            f"{finder.path}: does not fit {spec.name}: expected {'; '.join(wrong)}; train a finder "
            "for this engine (training/recipes/finder.yaml)"
        )


def open_finder(
    finder: EngineFile, engine: Engine, n_threads: int = 0, parallel: int = 1
) -> Engine | None:
    """Loads a finder beside its engine, with the same backend and precision.

    Of an int8 engine it has its own default precision. None if the engine runs on another device
    than the CPU: there the finder is not used.

    Raises:
        EngineFileError, DeviceError, OptionsError: See `load_engine`.
    """
    about = engine.description
    if about["device"] != "cpu":
        return None
    precision = "auto" if about["precision"] == "int8" else about["precision"]
    return open_engine(
        finder,
        backend=about["backend"],
        device="cpu",
        precision=precision,
        n_threads=n_threads,
        parallel=parallel,
    )


def _factor(stride: int) -> int:
    return FACTOR if stride % FACTOR == 0 else 1
