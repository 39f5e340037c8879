"""Runs commands in this process."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from fastbts.cli import app


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def image_of(case: Path, modality: str) -> Path:
    return next(case.glob(f"*_{modality}.nii.gz"))
