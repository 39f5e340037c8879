"""Signatures: unsigned files load unless a key is given, which then must have signed the file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastbts import DeviceError, EngineFileError, EngineSpec, OptionsError, OutputError, load_engine
from fastbts.cli import app
from fastbts.engine.file import (
    EngineFile,
    pack_engine,
    parse_engine_file,
    read_engine_file,
    write_engine_file,
)
from fastbts.engine.signing import check_signature, generate_keys, sign_engine

pytest.importorskip("cryptography", reason="signatures need the extra [sign]")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "key", generate_keys(tmp_path / "key")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "x.fbts"
    write_engine_file(
        path,
        EngineSpec(),
        {"model.onnx": b"network"},
        license="CC0",
        parity={"max_logit_difference": 1.25e-7},
    )
    return path


def test_keys_sign_and_check(keys: tuple[Path, Path], engine: Path) -> None:
    before = read_engine_file(engine)
    sign_engine(engine, keys[0], engine)
    after = read_engine_file(engine)
    check_signature(after, keys[1])
    assert {k: v for k, v in after.manifest.items() if k != "signature"} == before.manifest
    once = engine.read_bytes()
    sign_engine(engine, keys[0], engine)
    assert engine.read_bytes() == once, (
        "Ed25519 is deterministic, and the old signature is not signed"
    )


def _altered(file: EngineFile, **changes: object) -> EngineFile:
    about = {k: v for k, v in file.manifest.items() if k not in ("spec", "payloads")}
    return parse_engine_file(
        pack_engine(file.spec, file.payloads, **{**about, **changes}), "altered.fbts"
    )


def test_any_change_breaks_the_signature(keys: tuple[Path, Path], engine: Path) -> None:
    sign_engine(engine, keys[0], engine)
    file = read_engine_file(engine)
    check_signature(_altered(file), keys[1])
    about = {k: v for k, v in file.manifest.items() if k not in ("spec", "payloads")}
    others = [
        _altered(file, license="mine"),
        _altered(file, extra=1),
        _altered(file, signature={}),
        _altered(file, signature={**file.manifest["signature"], "algorithm": "none"}),
        _altered(file, signature={**file.manifest["signature"], "value": "00" * 64}),
        _altered(file, signature={**file.manifest["signature"], "value": 7}),
        parse_engine_file(
            pack_engine(EngineSpec(min_et_mm3=1.0), file.payloads, **about), "spec.fbts"
        ),
        parse_engine_file(
            pack_engine(file.spec, {"model.onnx": b"another"}, **about), "payload.fbts"
        ),
    ]
    for other in others:
        with pytest.raises(EngineFileError, match="signature does not match"):
            check_signature(other, keys[1])


def test_loader_checks_the_signature_first(
    keys: tuple[Path, Path], engine: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineFileError, match="no signature, expected one by"):
        load_engine(engine, trusted_key=keys[1])
    sign_engine(engine, keys[0], engine)
    # The signature is valid, so the network is read, and it is not one.
    with pytest.raises(EngineFileError, match="not an ONNX file"):
        load_engine(engine, trusted_key=keys[1])
    with pytest.raises(EngineFileError, match="signature does not match"):
        load_engine(engine, trusted_key=generate_keys(tmp_path / "other"))


def test_keys_are_private_and_never_overwritten(
    keys: tuple[Path, Path], engine: Path, tmp_path: Path
) -> None:
    assert keys[0].stat().st_mode & 0o077 == 0
    with pytest.raises(OutputError, match="exists; choose another name"):
        generate_keys(keys[0])
    with pytest.raises(OptionsError, match="cannot be read as a key"):
        sign_engine(engine, keys[1], engine)
    with pytest.raises(OptionsError, match="cannot be read as a key"):
        check_signature(read_engine_file(engine), tmp_path / "none")


def test_missing_package_is_reported_with_the_install_command(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(DeviceError, match=r"pip install 'fastbts\[sign\]'"):
        check_signature(read_engine_file(engine), "key.pub")


def test_commands(engine: Path, tmp_path: Path) -> None:
    def run(*args: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(a) for a in args])
        return result.exit_code, result.output

    assert run("keygen", tmp_path / "k")[0] == 0
    assert run("verify-engine", engine, "--trusted-key", tmp_path / "k.pub")[0] == 1
    assert run("sign", engine, "--key", tmp_path / "k", "-o", tmp_path / "signed.fbts")[0] == 0
    assert (
        run("verify-engine", tmp_path / "signed.fbts", "--trusted-key", tmp_path / "k.pub")[0] == 0
    )
    assert "present" in run("info", tmp_path / "signed.fbts")[1]
