"""Commands on engine files: `fastbts info`, `build`, `export-triton`, `keygen`, `sign`,
`verify-engine`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastbts.cli.common import (
    AsJson,
    EngineArgument,
    EngineOption,
    app,
    progress_bar,
    reported_errors,
)
from fastbts.cli.verbosity import say
from fastbts.engine.auto_precision import (
    INSTRUCTIONS,
    any_of,
    int8_instructions,
    int8_parity,
)
from fastbts.engine.backends import BACKENDS, DEFAULT_BACKEND, devices, precisions
from fastbts.errors import OptionsError
from fastbts.labels import label_names

if TYPE_CHECKING:
    from fastbts.engine.file import EngineFile
    from fastbts.spec import EngineSpec

Source = Annotated[Path, typer.Argument(help="engine file, or an ONNX of `training export`")]
Target = Annotated[Path, typer.Option("--out", "-o", help="engine file to write")]
Backend = Annotated[
    str | None, typer.Option(help=f"{', '.join(BACKENDS)}; default: {DEFAULT_BACKEND}")
]
Precision = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(precisions())}: if the backend has it; default: fp32"),
]
Finder = Annotated[
    Path | None,
    typer.Option(
        help="engine file of a finder (`python -m training export`) to put in for --focus; alone: "
        "all else stays as it is, but for a signature"
    ),
]
Calibrate = Annotated[
    list[Path] | None,
    typer.Option(
        help="case folder, repeatable: int8 is calibrated on all, parity is measured on those "
        "with a reference segmentation"
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="instead of --calibrate: folder of labelled cases with cases.csv (case, split, group):"
        " int8 is calibrated on training cases of all groups, parity is measured by group on the "
        "validation cases"
    ),
]
MaxBatch = Annotated[
    int, typer.Option("--batch", help="most windows that one call of a TensorRT plan takes")
]
AcceptParity = Annotated[
    bool,
    typer.Option(
        "--accept-parity", help="write even if parity is out of bounds or cannot be measured here"
    ),
]


@app.command()
def info(engine: EngineArgument = None, as_json: AsJson = False) -> None:
    """Shows what an engine file holds. Needs no backend."""
    from fastbts.engine.load import read_engine

    with reported_errors():
        file = read_engine(engine)
        content = {"path": file.path, "sha256": file.sha256, **file.manifest}
        typer.echo(json.dumps(content, indent=1) if as_json else _described(file))


@app.command()
def build(
    source: Source,
    out: Target,
    backend: Backend = None,
    precision: Precision = None,
    calibrate: Calibrate = None,
    data: Data = None,
    batch: MaxBatch = 1,
    accept_parity: AcceptParity = False,
    finder: Finder = None,
) -> None:
    """Builds an engine for a backend and precision.

    Writes it only if its results agree with those of float32 (parity).
    """
    if finder is not None:
        others = (backend, precision, calibrate, data, accept_parity or None)
        _put_finder(source, out, finder, alone=not any(others) and batch == 1)
        return
    from fastbts.build.engine import build_engine
    from fastbts.engine.file import read_engine_file

    with reported_errors(), progress_bar("build") as progress:
        about = build_engine(
            source,
            out,
            backend=backend or DEFAULT_BACKEND,
            precision=precision or "fp32",
            calibrate=calibrate or [],
            data=data,
            max_batch=batch,
            accept_parity=accept_parity,
            progress=progress,
        )
    parity = _listed(about["parity"]) or "not measured"
    built = f"{about['backend']}, {about['precision']}"
    say(f"wrote {out} for {built}; against float32: {parity}")
    for what, text in _auto_precision(read_engine_file(out)).items():
        say(f"{what}: {text}")


def _put_finder(source: Path, out: Path, finder: Path, *, alone: bool) -> None:
    from fastbts.build.finder import add_finder

    with reported_errors():
        if not alone:
            raise OptionsError(
                f"--finder {finder}: cannot be combined with other options of a build; put the "
                "finder in first or afterwards, builds keep it"
            )
        about = add_finder(source, out, finder)
    say(f"wrote {out} with the finder {about['name']}")


@app.command(name="export-triton")
def export_triton(
    repository: Annotated[Path, typer.Argument(help="folder of the model repository")],
    engine: EngineOption = None,
    name: Annotated[
        str, typer.Option(help="name of the model; the network alone becomes NAME_network")
    ] = "fastbts",
    device: Annotated[str, typer.Option(help=" or ".join(devices()))] = "cpu",
    instances: Annotated[int, typer.Option(help="copies of each model that run at once")] = 1,
) -> None:
    """Writes a model repository for Triton."""
    from fastbts.build.triton import export_triton as export
    from fastbts.engine.load import default_engine_path

    source = default_engine_path() if engine is None else engine
    with reported_errors():
        written = export(source, repository, name=name, device=device, instances=instances)
    say("wrote " + ", ".join(str(path) for path in written))


@app.command()
def keygen(
    key: Annotated[
        Path, typer.Argument(help="private key to write; the public key becomes KEY.pub")
    ],
) -> None:
    """Creates keys for signing engine files."""
    from fastbts.engine.signing import generate_keys

    with reported_errors():
        public = generate_keys(key)
    say(f"wrote {key} (keep it secret) and {public} (give it to users of your engines)")


@app.command()
def sign(
    engine: Annotated[Path, typer.Argument(help="engine file")],
    key: Annotated[Path, typer.Option(help="private key of `fastbts keygen`")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="signed engine file; default: in place")
    ] = None,
) -> None:
    """Signs an engine file (Ed25519). Replaces an earlier signature."""
    from fastbts.engine.signing import sign_engine

    with reported_errors():
        sign_engine(engine, key, out or engine)
    say(f"wrote {out or engine}")


@app.command(name="verify-engine")
def verify_engine(
    engine: Annotated[Path, typer.Argument(help="engine file")],
    trusted_key: Annotated[Path, typer.Option(help="public key of the signer")],
) -> None:
    """Checks an engine file and its signature."""
    from fastbts.engine.file import read_engine_file
    from fastbts.engine.signing import check_signature

    with reported_errors():
        file = read_engine_file(engine)
        check_signature(file, trusted_key)
    say(f"{engine}: undamaged, and signed by {trusted_key}")


def _described(file: EngineFile) -> str:
    about = file.manifest
    lines: dict[str, Any] = {
        "engine": file.spec.name,
        "file": f"{file.path} (sha256 {file.sha256[:16]}...)",
        "payloads": ", ".join(
            f"{name} {len(content) / 1e6:.1f} MB" for name, content in file.payloads.items()
        ),
        **_network(file.spec),
        "trained on": about.get("data") or "not stated",
        "steps": about.get("training", {}).get("steps", "not stated"),
        "prompts": file.prompts,
        "finder": _finder(file),
        "export parity": _listed(about.get("parity", {})) or "not measured",
        "license": about.get("license", "not stated"),
        "signature": "present; check it with: fastbts verify-engine"
        if "signature" in about
        else "none",
        **_built(file),
    }
    return "\n".join(f"{key:14} {value}" for key, value in lines.items())


def _finder(file: EngineFile) -> str:
    from fastbts.engine.finder import FINDER, finder_of

    finder = finder_of(file)
    if finder is None:
        return "none"
    spec, n_bytes = finder.spec, len(file.payloads[FINDER])
    (threshold,) = spec.thresholds
    return f"{spec.name}, at {spec.spacing_mm:g} mm from p = {threshold:g}, {n_bytes / 1e6:.1f} MB"


def _network(spec: EngineSpec) -> dict[str, str]:
    thresholds = zip(spec.regions, spec.thresholds, strict=True)
    temperatures = zip(spec.regions, spec.temperatures, strict=True)
    window = " x ".join(map(str, spec.window))
    named = ", ".join(f"{value} {name}" for name, value in label_names(spec.region_labels).items())
    return {
        "modalities": ", ".join(spec.modalities),
        "may be missing": ", ".join(spec.optional_modalities) or "none",
        "regions": ", ".join(f"{region} from p = {t:g}" for region, t in thresholds),
        "labels": "as in brats2021" if spec.is_glioma else named,
        "trained at": f"{spec.spacing_mm:g} mm, windows of {window} voxels (Z, Y, X)",
        "small-ET rule": f"below {spec.min_et_mm3:g} mm3" if spec.min_et_mm3 else "off",
        "stray core": (
            f"oedema from {spec.stray_core_mm3:g} mm3 on" if spec.stray_core_mm3 else "kept"
        ),
        "small parts": f"removed below {spec.min_part_mm3:g} mm3" if spec.min_part_mm3 else "kept",
        "calibration": ", ".join(f"{region} / {t:g}" for region, t in temperatures),
    }


def _built(file: EngineFile) -> dict[str, str]:
    build = file.manifest.get("build", {})
    if not build:
        return {}
    return {
        "built for": f"{build.get('backend')}, {build.get('precision')}",
        "against fp32": _listed(build.get("parity", {})) or "not measured",
        **_auto_precision(file),
    }


def _auto_precision(file: EngineFile) -> dict[str, str]:
    """Whether precision "auto" takes int8, and why; needs no backend."""
    parity = int8_parity(file)
    if parity is None:
        return {}
    here = " and ".join(int8_instructions()) or "none of them is known"
    where = f"where the CPU has {any_of(INSTRUCTIONS)} (here: {here})"
    taken = f"int8 {where}" if parity.is_good else "not int8, as it is worse than float32"
    return {"auto precision": f"{taken}: {parity.figures}"}


def _listed(values: Any) -> str:
    """`{"a": 1.0, "b": {"WT": 2}}` -> `a 1, b (WT 2)`."""
    if isinstance(values, bool):
        return "yes" if values else "no"
    if not isinstance(values, dict):
        return f"{values:.3g}" if isinstance(values, int | float) else str(values)
    return ", ".join(
        f"{k} ({_listed(v)})" if isinstance(v, dict) else f"{k} {_listed(v)}"
        for k, v in values.items()
    )
