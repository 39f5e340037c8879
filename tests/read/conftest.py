"""Fixtures of reading: each library that decompresses."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from fastbts.read import byte_stream


@pytest.fixture(params=["isal", "zlib"])
def gunzip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the test with isal, and with zlib as where isal is not installed."""
    library = zlib if request.param == "zlib" else pytest.importorskip("isal.isal_zlib")
    monkeypatch.setattr(byte_stream, "fast_zlib", library)
    return library
