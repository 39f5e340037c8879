"""Callbacks of a run: moving average, log, checkpoints that a kill cannot damage."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, WeightAveraging
from torch import Tensor

from training.config import Recipe
from training.loop.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from training.model import UNet3d


def ramped(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """A rule for `AveragedModel`: the decay ramps up, so that the random start is forgotten."""

    def average(old: Tensor, new: Tensor, n: Tensor | int) -> Tensor:
        if not new.is_floating_point():  # a counter
            return new
        return torch.lerp(new, old, min(decay, (1 + int(n)) / (10 + int(n))))

    return average


class MovingAverage(WeightAveraging):
    """Averages weights and norm statistics after every step; validation uses the average.

    Args:
        decay: Final decay of the moving average.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=True, avg_fn=ramped(decay))

    @property
    def network(self) -> UNet3d:
        """The averaged network, after `Trainer.fit` has begun."""
        assert self._average_model is not None
        network = self._average_model.module.network
        assert isinstance(network, UNet3d)
        return network


class Log(Callback):
    """Logs each step's learning rate and duration; writes JSON lines of steps and validations.

    Args:
        path: File of steps. A resumed run appends, so steps after the last checkpoint appear twice.
        dice: File of validations.
    """

    def __init__(self, path: Path, dice: Path) -> None:
        self.path, self.dice, self._began = path, dice, 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, index: int
    ) -> None:
        """Starts the clock."""
        self._began = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Writes step, loss and duration."""
        loss = outputs["loss"].item()  # waits for the device, for a correct duration
        seconds = time.monotonic() - self._began
        module.log_dict(
            {"learning_rate": trainer.optimizers[0].param_groups[0]["lr"], "step_s": seconds}
        )
        _append(trainer, self.path, loss=round(loss, 4), s=round(seconds, 3))

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Writes step and mean Dice by region and group."""
        metrics = trainer.callback_metrics
        dice = {
            name.removeprefix("dice/"): round(value.item(), 4)
            for name, value in metrics.items()
            if "dice/" in name
        }
        _append(trainer, self.dice, **dice)


def _append(trainer: L.Trainer, path: Path, **values: float) -> None:
    if trainer.is_global_zero:
        with path.open("a") as file:
            file.write(json.dumps({"step": trainer.global_step, **values}) + "\n")


class Terminated(SystemExit):
    """SIGTERM came and the run is saved; exits with 143, as usual for SIGTERM."""

    def __init__(self, path: Path, step: int) -> None:
        super().__init__(143)
        self.message = (
            f"SIGTERM: saved step {step} in {path}; the same command continues from there"
        )

    def __str__(self) -> str:
        return self.message


class Checkpoints(Checkpoint):
    """Saves after some steps or minutes, at the end, and on SIGTERM after the step or validation.

    Args:
        path: The checkpoint.
        recipe: Has the steps and minutes between checkpoints.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self._recipe = path, recipe
        self._saved, self._terminated = 0.0, False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Replaces Lightning's handler of SIGTERM, which would not save; its teardown restores it.

        Not in `on_fit_start`: Lightning installs its own handler after that, which would end the
        run without saving.
        """
        self._saved = time.monotonic()
        self._terminated = trainer.received_sigterm  # before the first step
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_terminated", True))

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Saves if it is time; all ranks decide the same.

        Raises:
            Terminated: SIGTERM came.
        """
        either = trainer.strategy.reduce_boolean_decision
        if not either(self._terminated or self._due(trainer.global_step), all=False):
            return
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()
        if either(self._terminated, all=False):
            raise Terminated(self.path, trainer.global_step)

    def _due(self, step: int) -> bool:
        recipe, minutes = self._recipe, (time.monotonic() - self._saved) / 60
        is_counted = step % recipe.checkpoint_every == 0 or step == recipe.steps
        return is_counted or minutes >= recipe.checkpoint_minutes


class AtomicCheckpointIO(CheckpointIO):
    """Writes and reads Lightning's checkpoints by `training.loop.checkpoint`.

    Args:
        recipe: Stored in every checkpoint.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Writes it."""
        save_checkpoint(Path(path), self._recipe, checkpoint["global_step"], **checkpoint)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads it onto the CPU.

        Raises:
            CheckpointError: It is damaged, or has no state to continue from.
        """
        _, state = load_checkpoint(Path(path))
        if "loops" not in state:
            raise CheckpointError(
                f"{path}: has weights but no state of Lightning's loops, so it can be exported but "
                "not continued; begin a new run in another folder"
            )
        return state

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes it."""
        Path(path).unlink()
