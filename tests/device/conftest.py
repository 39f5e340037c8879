from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes import EmulatedCuda, emulated_cuda


@pytest.fixture
def emulated() -> Iterator[EmulatedCuda]:
    """Two emulated devices, for the whole of fastbts."""
    with emulated_cuda(n_devices=2) as machine:
        yield machine
        assert not machine.wrong_device
