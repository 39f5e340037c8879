"""`fastbts build`: from a network to an engine for one backend and precision.

Its build parity, the agreement with the same network in float32, is measured and stored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.build.cases import ListedCase, balanced, listed_cases
from fastbts.build.emulation import runnable_engine
from fastbts.build.parity import (
    LabelledCase,
    ValidationCases,
    check_parity,
    labelled_cases,
    measure_parity,
)
from fastbts.engine.backends import DEFAULT_BACKEND
from fastbts.engine.file import (
    SECTIONS,
    EngineFile,
    pack_engine,
    parse_engine_file,
    parse_spec,
    read_engine_file,
)
from fastbts.engine.finder import FINDER
from fastbts.engine.load import build_payloads, check_network, open_engine
from fastbts.engine.onnx_bytes import read_metadata
from fastbts.errors import DeviceError, EngineFileError, OptionsError
from fastbts.files import atomic_write, check_writable
from fastbts.pipeline.normalize import normalize
from fastbts.progress import Progress
from fastbts.read.inputs import as_volume
from fastbts.spec import EngineSpec
from fastbts.volume import Volume

SUFFIX = ".onnx"
N_CALIBRATION = 8
"""Training cases that int8 is calibrated on."""
CALIBRATION = ("calibration_zyx", "calibration_groups")
"""Keys of the manifest's section `build` that describe those cases."""
SPEC_KEY = "spec"
"""Key of the spec, as JSON, in an ONNX's metadata or in the JSON file next to it."""


def build_engine(
    source: str | Path,
    target: str | Path,
    *,
    backend: str = DEFAULT_BACKEND,
    precision: str = "fp32",
    calibrate: Sequence[str | Path] = (),
    data: str | Path | None = None,
    max_batch: int = 1,
    accept_parity: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Builds an engine file for a backend and a precision, which become its defaults.

    Args:
        source: Any engine file; or an ONNX with its spec under the key "spec", in its metadata (as
            `training export` writes it) or in a JSON file next to it (`model.onnx`, `model.json`).
        target: The engine file to write. It keeps the ONNX, so it can be a source itself, and a
            finder.
        backend: One of `fastbts.engine.backends.BACKENDS`.
        precision: A precision that the backend has.
        calibrate: Case folders. int8 takes the ranges of its activations from them; for TensorRT,
            without them from the source if that is an int8 engine. Parity is measured on those with
            a reference segmentation (`*seg.nii.gz`), else on the phantom.
        data: Instead of `calibrate`: folder of labelled cases with `cases.csv` (columns case,
            split, and optionally group). int8 is calibrated on some "train" cases of each group,
            and parity is measured by group on all "val" cases. Precision "auto" then takes int8
            only where `fastbts.engine.auto_precision` allows it.
        max_batch: Most windows that one call of a TensorRT plan takes; its memory grows with it.
        accept_parity: Writes the file even if parity is out of the bounds in
            `fastbts.build.parity`, or cannot be measured here. Where the GPU is lacking, it is
            measured with ONNX Runtime on the CPU, which emulates the precision.
        progress: Called with the stage and the fraction done.
    Returns:
        The manifest's section `build`: backend, precision, source, calibration, parity.
    Raises:
        OptionsError: An unknown backend, an impossible batch, nothing to calibrate on, parity out
            of bounds, or `calibrate` and `data` together.
        EngineFileError: The source cannot be used.
        DeviceError: The backend or the precision cannot be used here.
        InputError, GeometryError, CaseError: A case cannot be used.
        OutputError: The target cannot be written.
    """
    on_progress = progress or (lambda stage, fraction: None)
    check_writable(target, [source])
    on_progress("read", 0.0)
    file, chosen = read_source(source), _calibration_cases(calibrate, data)
    check_network(file)
    complete = replace(file.spec, optional_modalities=())
    volumes = [as_volume(case.folder, complete) for case in chosen]
    # Now, as the build takes minutes.
    cases = _parity_cases(chosen, volumes, data, file.spec)
    tensors = [normalize(volume, file.spec).tensor for volume in volumes]
    on_progress("build", 0.1)
    payloads: dict[str, bytes | memoryview] = {
        "model.onnx": file.payloads["model.onnx"],
        **build_payloads(file, backend, precision, tensors, max_batch),
        **{name: file.payloads[name] for name in (FINDER,) if name in file.payloads},
    }
    about: dict[str, Any] = {
        "backend": backend,
        "precision": precision,
        "source_sha256": file.sha256,
        **(_calibration(file, chosen, tensors) if precision == "int8" else {}),
    }
    on_progress("measure parity", 0.6)
    built = parse_engine_file(_packed(file, payloads, about), source)
    parity = _parity(
        file, built, accept_parity, cases, lambda f: on_progress("measure parity", 0.6 + 0.35 * f)
    )
    if not accept_parity:
        check_parity(parity, precision)
    about["parity"] = parity
    on_progress("write", 0.95)
    with atomic_write(target) as output:
        output.write(_packed(file, payloads, about))
    on_progress("done", 1.0)
    return about


def read_source(source: str | Path) -> EngineFile:
    """Reads an engine file, or an ONNX as the engine file that it would make.

    Raises:
        EngineFileError: It cannot be read, or an ONNX has no spec.
    """
    path = Path(source)
    if path.suffix.lower() != SUFFIX:
        return read_engine_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineFileError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_engine_file(pack_engine(_onnx_spec(path, content), {"model.onnx": content}), path)


def _onnx_spec(path: Path, content: bytes) -> EngineSpec:
    sidecar, inside = path.with_suffix(".json"), read_metadata(content).get(SPEC_KEY)
    try:
        if inside is not None:
            return parse_spec(json.loads(inside))
        if sidecar.is_file():
            return parse_spec(json.loads(sidecar.read_bytes())[SPEC_KEY])
    except (ValueError, RecursionError, KeyError, TypeError, OSError) as error:
        raise EngineFileError(
            f"{path}: its spec cannot be read: {error}; export it again"
        ) from error
    raise EngineFileError(
        f"{path}: has no spec: expected {SPEC_KEY!r} in its metadata or in {sidecar.name}; "
        "export it with python -m training export"
    )


def _packed(
    file: EngineFile, payloads: Mapping[str, bytes | memoryview], build: dict[str, Any]
) -> bytes:
    kept = {key: file.manifest[key] for key in file.manifest if key in SECTIONS}
    kept.pop("signature", None)
    return pack_engine(file.spec, payloads, **{**kept, "build": build})


def _calibration_cases(
    calibrate: Sequence[str | Path], data: str | Path | None
) -> list[ListedCase]:
    """The cases to calibrate on; their groups are "" if they were given one by one."""
    if data is None:
        return [ListedCase(Path(folder), "") for folder in calibrate]
    if calibrate:
        raise OptionsError("calibrate and data: both choose the cases of int8; give one of them")
    return balanced(listed_cases(Path(data), "train"), N_CALIBRATION)


def _parity_cases(
    chosen: list[ListedCase], volumes: list[Volume], data: str | Path | None, spec: EngineSpec
) -> Sequence[LabelledCase]:
    if data is not None:
        return ValidationCases(Path(data), spec)
    return labelled_cases([case.folder for case in chosen], volumes, spec)


def _calibration(
    file: EngineFile, chosen: list[ListedCase], tensors: list[NDArray[np.float32]]
) -> dict[str, Any]:
    """Shapes (D, H, W) and groups of the cases that int8 was calibrated on, here or when the source
    was."""
    if not chosen:
        source = file.manifest.get("build", {})
        return {name: source[name] for name in CALIBRATION if name in source}
    groups = dict(Counter(case.group for case in chosen if case.group))
    shapes = [list(tensor.shape[1:]) for tensor in tensors]
    return dict(zip(CALIBRATION, (shapes, groups), strict=True))


def _parity(
    file: EngineFile,
    built: EngineFile,
    may_skip: bool,
    cases: Sequence[LabelledCase],
    progress: Callable[[float], None],
) -> dict[str, Any]:
    """Build parity; {} where it cannot be measured here and `may_skip` allows that."""
    try:
        engine, is_emulated = runnable_engine(built)
    except DeviceError as error:
        if may_skip:
            return {}
        raise DeviceError(
            f"{error}; so parity cannot be measured here: build on a machine with the device, or "
            "write it unmeasured with --accept-parity"
        ) from error
    exact = open_engine(file, backend=DEFAULT_BACKEND, precision="fp32")
    about = {"measured_with": engine.description["backend"], "emulated": is_emulated}
    try:
        return {**measure_parity(exact, engine, cases, progress), **about}
    finally:
        engine.close()
        exact.close()
