"""From a network to an engine for one backend and precision, with its parity against float32 measured: `fastbts build`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastbts.case import read_case
from fastbts.enginefile import EngineFile, pack_engine, parse_engine_file, read_engine_file
from fastbts.errors import OptionsError
from fastbts.output import atomic_write, check_writable
from fastbts.parity import check_parity, labelled_cases, measure_parity
from fastbts.preprocess import preprocess
from fastbts.segmenter import Progress

BACKENDS = {"openvino": ("openvino", "nncf")}
"""Backend -> distributions whose versions matter to what it builds."""


def build_engine(
    source: str | Path,
    target: str | Path,
    *,
    backend: str = "openvino",
    precision: str = "f32",
    calibrate: Sequence[str | Path] = (),
    accept_parity: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Builds an engine file for a backend and a precision, which become its default.

    Args:
        source: Any engine file.
        target: The engine file to write. Its ONNX stays in it, so that it can be a source in turn.
        backend: "openvino".
        precision: "f32", "bf16" or "int8".
        calibrate: Case folders: int8 takes the ranges of its activations from them, and parity is measured on those with a
            reference segmentation (`*seg.nii.gz`), else on the synthetic case.
        accept_parity: Writes the file even if parity is worse than the bounds in `fastbts.parity`.
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
    if backend not in BACKENDS:
        raise OptionsError(f"backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    tell = progress or (lambda stage, fraction: None)
    check_writable(target, [source])
    file = read_engine_file(source)
    tell("read", 0.0)
    folders = [Path(folder) for folder in calibrate]
    volumes = [read_case(folder) for folder in folders]
    tell("compile" if precision != "int8" else "quantize", 0.1)
    tensors = [preprocess(volume, file.spec).tensor for volume in volumes]
    payloads = _payloads(file, backend, precision, tensors)
    about = {
        "backend": backend,
        "precision": precision,
        "versions": {name: version(name) for name in BACKENDS[backend] if name == backend or precision == "int8"},
        "machine": platform.machine(),
        "source_sha256": file.sha256,
        "calibration": [list(tensor.shape[1:]) for tensor in tensors] if precision == "int8" else [],
    }
    tell("measure parity", 0.6)
    cases = labelled_cases(folders, volumes)
    parity = _parity(file, payloads, about, cases, lambda n: tell("measure parity", 0.6 + 0.35 * n / len(cases)))
    if not accept_parity:
        check_parity(parity, precision)
    content = _packed(file, payloads, {**about, "parity": parity})
    tell("write", 0.95)
    with atomic_write(target) as stream:
        stream.write(content)
    tell("done", 1.0)
    return {**about, "parity": parity}
