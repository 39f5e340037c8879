"""The data of a run for Lightning: the crops of each step, and the cases to validate on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader

from training.config import Recipe
from training.data.cases import Batches, CropDataset, Sample, TrainingCase, to_batch
from training.data.heads import HeadCrops, HeadMaker


class CropData(L.LightningDataModule):
    """Training crops, from the run's present step on, and validation cases; each rank has its own.

    Args:
        cases: Prepared cases.
        recipe: Has crop sizes, batch (per rank) and augmentation.
        val: Case folders with labels, or complete images with labels.
        workers: Processes that prepare crops.
        heads: Makes synthetic heads, instead of crops of the cases.
    """

    def __init__(
        self,
        cases: Sequence[TrainingCase],
        recipe: Recipe,
        val: Sequence[Path] | Sequence[Sample] = (),
        workers: int = 1,
        heads: HeadMaker | None = None,
    ) -> None:
        super().__init__()
        self.cases, self.recipe, self.val, self.workers = cases, recipe, list(val), workers
        self.heads = heads

    def train_dataloader(self) -> DataLoader[Sample]:
        """Crops of this rank. On a CPU one process is enough: torch's threads need the cores."""
        trainer = self.trainer
        assert trainer is not None
        ranks = trainer.world_size
        return DataLoader(
            CropDataset(self.cases, self.recipe, ranks)
            if self.heads is None
            else HeadCrops(self.heads, self.recipe, ranks),
            batch_sampler=Batches(self.recipe, trainer.global_step, trainer.global_rank, ranks),
            collate_fn=to_batch,
            num_workers=self.workers,
            persistent_workers=True,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[Path | Sample]:
        """What this rank validates on; everything if there are fewer than ranks."""
        trainer = self.trainer
        assert trainer is not None
        few = len(self.val) < trainer.world_size
        mine = self.val if few else self.val[trainer.global_rank :: trainer.world_size]
        # A list is a dataset to torch.
        return DataLoader(mine, batch_size=None)  # type: ignore[arg-type]
