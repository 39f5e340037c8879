"""A run for Lightning: what a step computes, its learning rate, and how the run is validated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from fastbts import Segmenter, SegmenterOptions
from fastbts.metrics import region_dice
from training.clip.prompts import (
    Prompts,
    PromptsError,
    load_prompts,
    orthonormal_prompts,
    region_texts,
)
from training.config import Recipe
from training.data.cases import Sample, engine_spec, group_of, read_images, read_labels
from training.data.teacher import token_reader
from training.loop.losses import region_overlap, supervised_loss
from training.model import UNet3d
from training.network_engine import NetworkEngine


def learning_rate(recipe: Recipe, step: int) -> float:
    """A trapezoid: linear warm-up, constant, and linear to zero in the last stage."""
    rise = (step + 1) / max(1, recipe.warmup_steps)
    fall = (recipe.steps - step) / recipe.stages[-1].length
    return recipe.learning_rate * min(rise, 1.0, fall)


def recipe_prompts(recipe: Recipe) -> Prompts | None:
    """The prompts a recipe asks for; None where its network reads none.

    Raises:
        PromptsError: The file of prompts is unusable, or does not fit the network or its regions.
    """
    model = recipe.model
    if not model.semantic.uses_text:
        return None
    texts, width = region_texts(), model.semantic.text_width
    if recipe.prompts:
        prompts = load_prompts(Path(recipe.prompts))
    else:
        prompts = orthonormal_prompts([*texts], [*texts.values()], width=width)
    _check_prompts(prompts, recipe.prompts or "prompts.yaml", (*recipe.regions,), width)
    return prompts


def _check_prompts(prompts: Prompts, source: str, regions: tuple[str, ...], width: int) -> None:
    shape = len(regions), width
    # Rows have no names in the network: in another order each region would get a wrong vector.
    if prompts.labels != regions:
        raise PromptsError(
            f"{source}: one row each for {', '.join(prompts.labels)}, expected "
            f"{', '.join(regions)} in this order; give training/clip/prompts.yaml this order and "
            "make the file again with python -m training prompts"
        )
    if prompts.embeddings.shape != shape:
        raise PromptsError(
            f"{source}: embeddings of shape {prompts.embeddings.shape}, expected {shape}: one row "
            "per region, of length model.semantic.text_width; change one of the two"
        )


class TrainingModule(L.LightningModule):
    """The network of a recipe and how it is trained.

    Args:
        recipe: Has network, seed, loss weights and schedule.
    Raises:
        PromptsError: See `recipe_prompts`.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe, self.prompts = recipe, recipe_prompts(recipe)
        self.read_tokens = token_reader(recipe)
        text = None if self.prompts is None else torch.from_numpy(self.prompts.embeddings)
        self.network = UNet3d(recipe.model, text)

    def configure_optimizers(self) -> Any:
        """AdamW with lr 1, so that the schedule's values are exactly the learning rates."""
        optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=1.0,
            weight_decay=self.recipe.weight_decay,
            # 5 % less time per step. The scaler of 16-mixed would unscale after the clipping.
            fused=self.recipe.precision != "16-mixed",
        )
        schedule = LambdaLR(optimiser, lambda step: learning_rate(self.recipe, step))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the norm; by torch, as Lightning refuses to where the optimiser is fused."""
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val or torch.inf)

    def loss(self, image: Tensor, label: Tensor, teacher: Tensor | None = None) -> Tensor:
        """Loss of a batch.

        Args:
            image: (B, M, D, H, W).
            label: (B, D, H, W).
            teacher: CLIP embeddings (B, 3, T), or None.
        """
        recipe, tokens = self.recipe, None if self.read_tokens is None else self.read_tokens(image)
        return supervised_loss(
            self.network(image, tokens=tokens),
            label,
            recipe.side_weight,
            regions=recipe.regions,
            similarity_weight=recipe.similarity_weight,
            teacher=teacher,
            bridge_weight=recipe.bridge_weight,
        )

    def training_step(self, batch: Sample, index: int) -> Tensor:
        """One step's loss."""
        # Modality dropout, all that is random here, is a function of (seed, step, rank): a resumed
        # run continues with the same bits.
        torch.manual_seed(
            self.recipe.seed * 1_000_003 + self.global_step + self.global_rank * 1_000_000_007
        )
        loss = self.loss(*batch)
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, case: Path | Sample, index: int) -> None:
        """Logs the Dice of one case; Lightning has set eval mode and the average."""
        scores = self._dice_of_case(case) if isinstance(case, Path) else self._dice_of_image(case)
        scores["mean"] = sum(scores.values()) / len(scores)
        self.log_dict(
            {f"dice/{region}": score for region, score in scores.items()},
            batch_size=1,
            sync_dist=True,
        )
        group = group_of(case) if isinstance(case, Path) else ""
        # Ranks may validate different groups, whose scores could not be averaged over ranks.
        if group and self.trainer.world_size == 1:
            self.log(f"dice/{group}", scores["mean"], batch_size=1)

    def _dice_of_case(self, folder: Path) -> dict[str, float]:
        """Of a case, by `fastbts.Segmenter`."""
        spec = engine_spec(self.recipe)
        options = SegmenterOptions(n_threads=torch.get_num_threads())
        segmenter = Segmenter(
            NetworkEngine(self.network, spec, self.read_tokens),
            options=options,
            warm_up=False,
        )
        volume = read_images(folder, self.recipe.modalities)
        labels = segmenter.predict(volume).labels
        return region_dice(labels, read_labels(folder, spec), spec.region_labels)

    def _dice_of_image(self, sample: Sample) -> dict[str, float]:
        """Of a complete image with labels, such as a synthetic head."""
        image, label, _ = sample
        dice = region_overlap(self.network(image[None]) > 0, label[None], self.recipe.regions)
        return dict(zip(self.recipe.regions, dice.tolist(), strict=True))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Gives entries the names that `training export` reads.

        `WeightAveraging` has put the moving average into `state_dict`.
        """
        weights, average = checkpoint.pop("current_model_state"), checkpoint.pop("state_dict")
        checkpoint["network"] = _renamed(weights, "network.", "")
        checkpoint["average"] = checkpoint.pop("averaging_state") | _renamed(
            average, "network.", "module."
        )
        checkpoint["prompts"] = None if self.prompts is None else self.prompts.about()
        checkpoint["teacher"] = self.recipe.teacher.encoder if self.recipe.teacher.model else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Undoes `on_save_checkpoint`."""
        average = checkpoint.pop("average")
        weights = {name: value for name, value in average.items() if name.startswith("module.")}
        checkpoint["current_model_state"] = _renamed(checkpoint.pop("network"), "", "network.")
        checkpoint["averaging_state"] = {k: v for k, v in average.items() if k not in weights}
        checkpoint["state_dict"] = _renamed(weights, "module.", "network.")


def _renamed(values: dict[str, Any], prefix: str, new_prefix: str) -> dict[str, Any]:
    return {new_prefix + name.removeprefix(prefix): value for name, value in values.items()}
