"""The data of a run for Lightning: the crops of each step, and the cases to validate on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader

from training.config import Recipe
from training.data.cases import Batches, CropDataset, Sample, TrainingCase, to_batch


class CropData(L.LightningDataModule):
    """Training crops, from the run's present step on, and validation cases; each rank has its own.

    Args:
        cases: Prepared cases.
        recipe: Has crop sizes, batch (per rank) and augmentation.
        val: Case folders with labels.
        workers: Processes that prepare crops.
    """

    def __init__(
        self,
        cases: Sequence[TrainingCase],
        recipe: Recipe,
        val: Sequence[Path] = (),
        workers: int = 1,
    ) -> None:
        super().__init__()
        self.cases, self.recipe, self.val, self.workers = cases, recipe, list(val), workers

    def train_dataloader(self) -> DataLoader[Sample]:
        """Crops of this rank. On a CPU one process is enough: torch's threads need the cores."""
        trainer = self.trainer
        assert trainer is not None
        return DataLoader(
            CropDataset(self.cases, self.recipe, trainer.world_size),
            batch_sampler=Batches(
                self.recipe, trainer.global_step, trainer.global_rank, trainer.world_size
            ),
            collate_fn=to_batch,
            num_workers=self.workers,
            persistent_workers=True,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[Path]:
        """Case folders of this rank; all cases if there are fewer than ranks."""
        trainer = self.trainer
        assert trainer is not None
        few = len(self.val) < trainer.world_size
        mine = self.val if few else self.val[trainer.global_rank :: trainer.world_size]
        # A list is a dataset to torch.
        return DataLoader(mine, batch_size=None)  # type: ignore[arg-type]
