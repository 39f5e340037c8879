"""From a network to an engine for one backend and precision, with its parity against float32 measured: `fastbts build`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastbts.read.case import read_case
from fastbts.spec import EngineSpec
from fastbts.engine.file import SECTIONS, EngineFile, pack_engine, parse_engine_file, parse_spec, read_engine_file
from fastbts.engine.load import build_payloads, open_engine
from fastbts.errors import DeviceError, EngineFileError
from fastbts.engine.onnx_bytes import read_metadata
from fastbts.files import atomic_write, check_writable
from fastbts.build.parity import LabelledCase, check_parity, labelled_cases, measure_parity
from fastbts.pipeline.normalize import normalize
from fastbts.progress import Progress

SUFFIX = ".onnx"
SPEC_KEY = "spec"
"""Key of the spec, as JSON, in an ONNX's metadata or in the JSON file beside it."""


def build_engine(
    source: str | Path,
    target: str | Path,
    *,
    backend: str = "openvino",
    precision: str = "fp32",
    calibrate: Sequence[str | Path] = (),
    accept_parity: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Builds an engine file for a backend and a precision, which become its default.

    Args:
        source: Any engine file; or an ONNX with its spec in its metadata, as `training.export` writes it, or in a JSON file beside it (`model.onnx`, `model.json`), under the key "spec" both times.
        target: The engine file to write. Its ONNX stays in it, so that it can be a source in turn.
        backend: One of `fastbts.engine.load.BACKENDS`.
        precision: One that the backend has: "fp32", "bf16" or "int8".
        calibrate: Case folders: int8 takes the ranges of its activations from them, and parity is measured on those with a
            reference segmentation (`*seg.nii.gz`), else on the synthetic case.
        accept_parity: Writes the file even if parity is worse than the bounds in `fastbts.build.parity`, or cannot be measured because
            this machine has no device for it (TensorRT-RTX builds without a GPU).
        progress: Called with the stage and the fraction done.
    Returns:
        What the manifest says under `build`: backend, precision, versions, source, calibration, parity.
    Raises:
        OptionsError: An unknown backend or precision, nothing to calibrate on, or parity worse than allowed.
        EngineFileError: The source cannot be used.
        DeviceError: The backend cannot be used here.
        InputError, GeometryError, CaseError: A case cannot be used.
        OutputError: The target cannot be written.
    """
    tell = progress or (lambda stage, fraction: None)
    check_writable(target, [source])
    tell("read", 0.0)
    file, folders = read_source(source), [Path(folder) for folder in calibrate]
    volumes = [read_case(folder) for folder in folders]
    tensors = [normalize(volume, file.spec).tensor for volume in volumes]
    tell("build", 0.1)
    payloads: dict[str, bytes | memoryview] = {
        "model.onnx": file.payloads["model.onnx"],
        **build_payloads(file, backend, precision, tensors),
    }
    about = {
        "backend": backend,
        "precision": precision,
        "source_sha256": file.sha256,
        "calibration_zyx": [list(tensor.shape[1:]) for tensor in tensors] if precision == "int8" else [],
    }
    tell("measure parity", 0.6)
    cases = labelled_cases(folders, volumes)
    built = parse_engine_file(_packed(file, payloads, about), source)
    parity = _parity(file, built, accept_parity, cases, lambda n: tell("measure parity", 0.6 + 0.35 * n / len(cases)))
    if not accept_parity:
        check_parity(parity, precision)
    tell("write", 0.95)
    with atomic_write(target) as stream:
        stream.write(_packed(file, payloads, {**about, "parity": parity}))
    tell("done", 1.0)
    return {**about, "parity": parity}


def read_source(source: str | Path) -> EngineFile:
    """Reads what an engine can be built from; an ONNX comes back as the engine file that it would be.

    Raises:
        EngineFileError: It cannot be read, or an ONNX does not say what it takes and gives.
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
        raise EngineFileError(f"{path}: its spec cannot be read: {error}; export it again") from error
    raise EngineFileError(
        f"{path}: does not say what it takes and gives: expected {SPEC_KEY!r} in its metadata or in {sidecar.name}; "
        "export it with training.export"
    )


def _packed(file: EngineFile, payloads: Mapping[str, bytes | memoryview], build: dict[str, Any]) -> bytes:
    kept = {key: value for key, value in file.manifest.items() if key in SECTIONS and key != "signature"}
    return pack_engine(file.spec, payloads, **{**kept, "build": build})


def _parity(
    file: EngineFile, built: EngineFile, may_miss: bool, cases: list[LabelledCase], progress: Callable[[int], None]
) -> dict[str, Any]:
    """Parity of what is about to be written with the source's ONNX in float32; {} where it cannot run here and may not be."""
    try:
        engine = open_engine(built)
    except DeviceError as error:
        if may_miss:
            return {}
        raise DeviceError(
            f"{error}; so parity cannot be measured here: build on a machine with the device, or write it unmeasured with "
            "--accept-parity"
        ) from error
    reference = open_engine(file, backend="openvino", precision="fp32")
    try:
        return measure_parity(reference, engine, cases, progress)
    finally:
        engine.close()
        reference.close()
