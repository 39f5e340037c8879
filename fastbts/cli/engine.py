"""Commands on engine files: `fastbts info`, `fastbts build`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastbts.cli.common import AsJson, EngineArgument, app, progress_bar, reported_errors

if TYPE_CHECKING:
    from fastbts.enginefile import EngineFile


@app.command()
def info(engine: EngineArgument = None, as_json: AsJson = False) -> None:
    """Shows what an engine file says about itself; needs no backend."""
    from fastbts.enginefile import read_engine_file
    from fastbts.engines import default_engine_path

    with reported_errors():
        file = read_engine_file(engine or default_engine_path())
    typer.echo(
        json.dumps({"path": file.path, "sha256": file.sha256, **file.manifest}, indent=1) if as_json else _described(file)
    )


@app.command()
def build(
    source: Annotated[Path, typer.Argument(help="an engine file (.fbts), or an ONNX that training.export wrote")],
    out: Annotated[Path, typer.Option("--out", "-o", help="engine file to write")],
    backend: Annotated[str, typer.Option(help="openvino, onnxruntime, tensorrt or tensorrt-rtx")] = "openvino",
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16 or int8, as far as the backend has it")] = "fp32",
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(help="case folder; repeat for more. int8 needs some; parity is measured on labelled ones"),
    ] = None,
    accept_parity: Annotated[bool, typer.Option("--accept-parity", help="write also if parity is worse than allowed")] = False,
) -> None:
    """Builds an engine for a backend and precision, measures its parity with float32, and refuses to write a bad one."""
    from fastbts.build import build_engine

    runtime_name = precision.replace("fp", "f")  # f32, as `predict` and the manifest call it
    with reported_errors(), progress_bar("build") as progress:
        about = build_engine(
            source, out, backend=backend, precision=runtime_name, calibrate=calibrate or [], accept_parity=accept_parity,
            progress=progress,
        )  # fmt: skip
    typer.echo(f"wrote {out} for {backend}, {runtime_name}; against float32: {_listed(about['parity']) or 'not measured'}")


def _described(file: EngineFile) -> str:
    spec, about = file.spec, file.manifest
    lines: dict[str, Any] = {
        "engine": spec.name,
        "file": f"{file.path} (sha256 {file.sha256[:16]}...)",
        "payloads": ", ".join(f"{name} {len(content) / 1e6:.1f} MB" for name, content in file.payloads.items()),
        "modalities": ", ".join(spec.modalities),
        "regions": ", ".join(f"{r} from p = {t:g}" for r, t in zip(spec.regions, spec.thresholds, strict=True)),
        "trained at": f"{spec.spacing_mm:g} mm, windows of {' x '.join(map(str, spec.window))} voxels (Z, Y, X)",
        "small-ET rule": f"below {spec.min_et_mm3:g} mm3" if spec.min_et_mm3 else "off",
        "trained on": about.get("data") or "not stated",
        "steps": about.get("training", {}).get("steps", "not stated"),
        "prompts": about.get("prompts", "none"),
        "parity": _listed(about.get("parity", {})) or "not measured",
        "license": about.get("license", "not stated"),
        **_built(about.get("build", {})),
    }
    return "\n".join(f"{key:14} {value}" for key, value in lines.items())


def _built(build: dict[str, Any]) -> dict[str, str]:
    if not build:
        return {}
    return {
        "built for": f"{build.get('backend')}, {build.get('precision')}",
        "against f32": _listed(build.get("parity", {})) or "not measured",
    }


def _listed(values: Any) -> str:
    """`{"a": 1.0, "b": {"WT": 2}}` -> `a 1, b (WT 2)`."""
    if not isinstance(values, dict):
        return f"{values:.3g}" if isinstance(values, int | float) else str(values)
    return ", ".join(f"{k} ({_listed(v)})" if isinstance(v, dict) else f"{k} {_listed(v)}" for k, v in values.items())
