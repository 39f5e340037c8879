"""Runs the commands of training in this process."""

from __future__ import annotations

from typing import Any

import pytest

from training.__main__ import main


def run(*arguments: object) -> Any:
    """Runs a command to its end; returns the exit code."""
    with pytest.raises(SystemExit) as done:
        main([str(argument) for argument in arguments])
    return done.value.code or 0
