"""The run as Lightning sees it: the module (what a step computes, how it validates) and the data (which crops a step sees)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from fastbts import Segmenter, SegmenterOptions, read_case
from fastbts.metrics import region_dice
from fastbts.spec import REGIONS
from training.clip.prompts import (
    Prompts,
    PromptsError,
    load_prompts,
    orthonormal_prompts,
    region_texts,
)
from training.config import Recipe
from training.data.cases import (
    Sample,
    engine_spec,
    group_of,
    read_labels,
)
from training.data.teacher import token_reader
from training.loop.losses import supervised_loss
from training.model import UNet3d
from training.network_engine import NetworkEngine


def learning_rate(recipe: Recipe, step: int) -> float:
    """A trapezoid: linear warm-up, constant rate, linearly to zero in the last stage."""
    rise = (step + 1) / max(1, recipe.warmup_steps)
    fall = (recipe.steps - step) / recipe.stages[-1].length
    return recipe.learning_rate * min(rise, 1.0, fall)


def recipe_prompts(recipe: Recipe) -> Prompts | None:
    """The prompts a recipe asks for; None where its network reads none.

    Raises:
        PromptsError: The file of prompts cannot be used, or does not fit the network or its regions.
    """
    model = recipe.model
    if not model.semantic.uses_text:
        return None
    texts = region_texts()
    width = model.semantic.text_width
    prompts = (
        load_prompts(Path(recipe.prompts))
        if recipe.prompts
        else orthonormal_prompts([*texts], [*texts.values()], width=width)
    )
    if (
        prompts.labels != REGIONS
    ):  # a row's place alone says whose it is: in another order each region would get a wrong vector
        raise PromptsError(
            f"{recipe.prompts or 'prompts.yaml'}: one row each for {', '.join(prompts.labels)}, "
            f"expected {', '.join(REGIONS)} in this order; order the regions of "
            "training/clip/prompts.yaml so, and make the file again with python -m training prompts"
        )
    if prompts.embeddings.shape != (model.n_regions, width):
        raise PromptsError(
            f"{recipe.prompts or 'prompts.yaml'}: embeddings of shape {prompts.embeddings.shape}, expected "
            f"{(model.n_regions, width)}: one row per region, of length model.semantic.text_width; change either"
        )
    return prompts


class LitNetwork(L.LightningModule):
    """The network of a recipe and how it learns.

    Args:
        recipe: Tells network, seed, loss weights and schedule.
    Raises:
        PromptsError: See `recipe_prompts`.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe, self.prompts, self.read_tokens = (
            recipe,
            recipe_prompts(recipe),
            token_reader(recipe),
        )
        self.network = UNet3d(
            recipe.model,
            None if self.prompts is None else torch.from_numpy(self.prompts.embeddings),
        )

    def configure_optimizers(self) -> Any:
        """AdamW; its own rate is 1, so that the schedule's values are the rates to the last bit."""
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=1.0, weight_decay=self.recipe.weight_decay
        )
        schedule = LambdaLR(optimiser, lambda step: learning_rate(self.recipe, step))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def loss(self, image: Tensor, label: Tensor, teacher: Tensor | None = None) -> Tensor:
        """Loss of images (B, M, D, H, W) and labels (B, D, H, W), and where the data give them CLIP embeddings (B, 3, T)."""
        recipe, tokens = self.recipe, None if self.read_tokens is None else self.read_tokens(image)
        return supervised_loss(
            self.network(image, tokens=tokens),
            label,
            recipe.side_weight,
            similarity_weight=recipe.similarity_weight,
            teacher=teacher,
            bridge_weight=recipe.bridge_weight,
        )

    def training_step(self, batch: Sample, index: int) -> Tensor:
        """One step's loss."""
        # Modality dropout, the network's only chance: a function of (seed, step), so that a resumed run continues exactly.
        torch.manual_seed(
            self.recipe.seed * 1_000_003 + self.global_step + self.global_rank * 1_000_000_007
        )
        loss = self.loss(*batch)
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, folder: Path, index: int) -> None:
        """Dice of one case by the product's inference; Lightning has put the averaged weights and eval mode in place."""
        options = SegmenterOptions(n_threads=torch.get_num_threads())
        segmenter = Segmenter(
            NetworkEngine(self.network, engine_spec(self.recipe), self.read_tokens),
            options=options,
            warm_up=False,
        )
        scores = region_dice(segmenter.predict(read_case(folder)).labels, read_labels(folder))
        scores["mean"] = sum(scores.values()) / len(scores)
        self.log_dict(
            {f"dice/{region}": score for region, score in scores.items()},
            batch_size=1,
            sync_dist=True,
        )
        group = group_of(folder)
        if (
            group and self.trainer.world_size == 1
        ):  # ranks may see other groups, and could not be averaged
            self.log(f"dice/{group}", scores["mean"], batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Names things as `training.export` reads them; until here `state_dict` is the moving average (`WeightAveraging`)."""
        weights, average = checkpoint.pop("current_model_state"), checkpoint.pop("state_dict")
        checkpoint["network"] = {
            name.removeprefix("network."): value for name, value in weights.items()
        }
        checkpoint["average"] = checkpoint.pop("averaging_state") | {
            name.replace("network.", "module.", 1): value for name, value in average.items()
        }
        checkpoint["prompts"] = None if self.prompts is None else self.prompts.about()
        checkpoint["teacher"] = self.recipe.teacher.encoder if self.recipe.teacher.model else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Undoes `on_save_checkpoint`."""
        average = checkpoint.pop("average")
        checkpoint["current_model_state"] = {
            f"network.{name}": value for name, value in checkpoint.pop("network").items()
        }
        checkpoint["averaging_state"] = {
            name: value for name, value in average.items() if not name.startswith("module.")
        }
        checkpoint["state_dict"] = {
            name.replace("module.", "network.", 1): value
            for name, value in average.items()
            if name.startswith("module.")
        }
