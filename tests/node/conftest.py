"""A queue, and an archive that gets the results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastbts.node.queue import Queue
    from tests.node.nodes import Archive


@pytest.fixture
def archive() -> Iterator[Archive]:
    from tests.node.nodes import Archive

    made = Archive()
    yield made
    made.close()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    from fastbts.node.queue import Queue

    made = Queue(tmp_path / "queue")
    yield made
    made.close()
