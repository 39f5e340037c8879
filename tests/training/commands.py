"""Runs the commands of training in this process, and ends them."""

from __future__ import annotations

import signal
from typing import Any

import lightning as L
import pytest

from training.__main__ import main
from training.loop.callbacks import Log


def run(*arguments: object) -> Any:
    """Runs a command to its end; returns the exit code."""
    with pytest.raises(SystemExit) as done:
        main([str(argument) for argument in arguments])
    return done.value.code or 0


def terminate_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a run get SIGTERM at the end of that step."""
    log = Log.on_train_batch_end

    def log_and_terminate(self: Log, trainer: L.Trainer, *rest: Any) -> None:
        log(self, trainer, *rest)
        if trainer.global_step == step:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Log, "on_train_batch_end", log_and_terminate)
