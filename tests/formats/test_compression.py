"""gzip by isal, or by zlib where isal is not installed."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import zlib

import pytest

from fastbts.formats import compression
from fastbts.formats.compression import open_gzip

CONTENT = bytes(range(256)) * 1000


@pytest.fixture(params=["isal", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "zlib":
        monkeypatch.setattr(compression, "fast_zlib", zlib)
    else:
        pytest.importorskip("isal")
    return str(request.param)


def test_opens_gzip(library: str) -> None:
    packed = gzip.compress(CONTENT[:7]) + gzip.compress(CONTENT[7:])
    with open_gzip(io.BytesIO(packed)) as file:
        assert (file.read(5), file.read()) == (CONTENT[:5], CONTENT[5:])


def test_damage_is_an_error_that_callers_know(library: str) -> None:
    packed = bytearray(gzip.compress(CONTENT))
    packed[30] ^= 255
    known = (OSError, EOFError, zlib.error, compression.fast_zlib.error)
    with pytest.raises(known):
        open_gzip(io.BytesIO(bytes(packed))).read()
    with pytest.raises(known):
        open_gzip(io.BytesIO(gzip.compress(CONTENT)[:-3])).read()


def test_isal_is_used_where_it_is_installed() -> None:
    isal_zlib = pytest.importorskip("isal.isal_zlib")
    assert compression.fast_zlib is isal_zlib


def test_works_without_isal() -> None:
    """As on a system for which isal has no wheel."""
    code = (
        "import sys; sys.modules['isal'] = None\n"
        "import zlib; from fastbts.formats.compression import fast_zlib; assert fast_zlib is zlib"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
