"""What happens around a step: moving average, log, checkpoints that survive any kill."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
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
    """An averaging rule for `AveragedModel`: the decay ramps up, so that the random start is forgotten."""

    def average(old: Tensor, new: Tensor, n: Tensor | int) -> Tensor:
        if not new.is_floating_point():  # a counter
            return new
        return torch.lerp(new, old, min(decay, (1 + int(n)) / (10 + int(n))))

    return average


class MovingAverage(WeightAveraging):
    """Averages weights and norm statistics after every step; validation sees the average, the checkpoint holds both.

    Args:
        decay: Of the moving average, once it has ramped up.
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
    """Logs rate and duration of every step, and appends one line of JSON per step to a file, one per validation to another.

    Args:
        path: The file; a resumed run goes on in it, so that steps after the last checkpoint appear twice.
        dice: The file for validations.
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
        loss = outputs["loss"].item()  # waits for the device, so that the duration is the step's
        seconds = time.monotonic() - self._began
        module.log_dict(
            {"learning_rate": trainer.optimizers[0].param_groups[0]["lr"], "step_s": seconds}
        )
        if trainer.is_global_zero:
            with self.path.open("a") as log:
                log.write(
                    json.dumps(
                        {
                            "step": trainer.global_step,
                            "loss": round(loss, 4),
                            "s": round(seconds, 3),
                        }
                    )
                    + "\n"
                )

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Writes step and mean Dice by region and group."""
        metrics = trainer.callback_metrics
        dice = {
            name.removeprefix("dice/"): round(value.item(), 4)
            for name, value in metrics.items()
            if "dice/" in name
        }
        if trainer.is_global_zero:
            with self.dice.open("a") as log:
                log.write(json.dumps({"step": trainer.global_step, **dice}) + "\n")


class Terminated(SystemExit):
    """SIGTERM came and the run is saved; exits with 143 as SIGTERM does."""

    def __init__(self, path: Path, step: int) -> None:
        super().__init__(143)
        self.message = (
            f"SIGTERM: saved step {step} in {path}; the same command continues from there"
        )

    def __str__(self) -> str:
        return self.message


class Checkpoints(Checkpoint):
    """Saves after so many steps or minutes, at the end, and on SIGTERM once the step (or validation) at hand is done.

    Args:
        path: The checkpoint.
        recipe: Tells steps and minutes.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self._recipe = path, recipe
        self._interval_s, self._saved = (
            timedelta(minutes=recipe.checkpoint_minutes).total_seconds(),
            0.0,
        )
        self._terminated = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Takes over SIGTERM from Lightning, which would not save; Lightning's teardown gives it back.

        Not in `on_fit_start`: Lightning puts its handler in place after that, before ours, and ends the run between two of our
        looks at the signal.
        """
        self._saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_terminated", True))

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Saves if it is time; all ranks decide alike.

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
        recipe, waited_s = self._recipe, time.monotonic() - self._saved
        return (
            step % recipe.checkpoint_every == 0
            or step == recipe.steps
            or waited_s >= self._interval_s
        )


class WholeFiles(CheckpointIO):
    """Lightning's checkpoints by `training.loop.checkpoint`: whole or not at all, the previous one kept, no pickled code.

    Args:
        recipe: Goes into every checkpoint.
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
            CheckpointError: It is damaged, or holds nothing to continue from.
        """
        _, state = load_checkpoint(Path(path))
        if "loops" not in state:
            raise CheckpointError(
                f"{path}: holds weights but no state of Lightning's loops, so it cannot be continued, only exported; "
                "begin a new run in another folder"
            )
        return state

    def remove_checkpoint(self, path: Any) -> None:
        """Deletes it."""
        Path(path).unlink()
