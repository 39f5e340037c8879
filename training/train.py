"""The training loop: `python -m training.train --recipe light --data DIR --out RUN`."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from rich.progress import Progress, track
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from fastbts import EngineSpec
from training.checkpoint import load_checkpoint, save_checkpoint
from training.clip_teacher import teacher_for, token_reader
from training.config import Recipe, load_recipe
from training.data import CropDataset, TrainingCase, batches, find_cases, prepare_case, to_batch
from training.losses import supervised_loss
from training.model import UNet3d
from training.prompts import Prompts, PromptsError, load_prompts, orthonormal_prompts, region_texts


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then cosine to zero over all stages."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Moving average of the weights; the decay ramps up so that the random start is forgotten."""

    def average(old: torch.Tensor, new: torch.Tensor, n: torch.Tensor | int) -> torch.Tensor:
        return torch.lerp(new, old, min(decay, (1 + int(n)) / (10 + int(n))))

    return AveragedModel(network, avg_fn=average)


def recipe_prompts(recipe: Recipe) -> Prompts | None:
    """The prompts a recipe asks for; None where its network reads none.

    Raises:
        PromptsError: The file of prompts cannot be used, or does not fit the network.
    """
    model = recipe.model
    if not model.semantic.uses_text:
        return None
    texts = region_texts()
    width = model.semantic.text_width
    prompts = (
        load_prompts(Path(recipe.prompts)) if recipe.prompts else orthonormal_prompts([*texts], [*texts.values()], width=width)
    )
    if prompts.embeddings.shape != (model.n_regions, width):
        raise PromptsError(
            f"{recipe.prompts or 'prompts.yaml'}: embeddings of shape {prompts.embeddings.shape}, expected "
            f"{(model.n_regions, width)}: one row per region, of length model.semantic.text_width; change either"
        )
    return prompts


class Trainer:
    """One run: network, moving average, optimiser and the step they are at."""

    def __init__(self, recipe: Recipe, run: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.checkpoint, self.step = recipe, run / "last.ckpt", 0
        self.prompts = recipe_prompts(recipe)
        self.teacher = recipe.teacher.encoder if recipe.teacher.model else None
        self.read_tokens = token_reader(recipe)
        self.network = UNet3d(recipe.model, None if self.prompts is None else torch.from_numpy(self.prompts.embeddings))
        self.average = averaged(self.network, recipe.ema)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), weight_decay=recipe.weight_decay)
        self.log = run / "log.jsonl"

    def resume(self) -> None:
        """Continues from the run's last checkpoint."""
        _, state = load_checkpoint(self.checkpoint)
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])

    def save(self) -> None:
        """Writes the run's checkpoint."""
        save_checkpoint(
            self.checkpoint,
            self.recipe,
            self.step,
            network=self.network.state_dict(),
            average=self.average.state_dict(),
            optimiser=self.optimiser.state_dict(),
            prompts=None if self.prompts is None else self.prompts.about(),
            teacher=self.teacher,
        )

    def train_step(self, image: torch.Tensor, label: torch.Tensor, teacher: torch.Tensor | None = None) -> float:
        """One optimiser step; returns the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        # Modality dropout, the network's only chance: a function of (seed, step), so that a resumed run continues exactly.
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
        tokens = None if self.read_tokens is None else self.read_tokens(image)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = self.network(image, tokens=tokens)
        recipe = self.recipe
        loss = supervised_loss(
            outputs, label, recipe.side_weight, similarity_weight=recipe.similarity_weight, teacher=teacher,
            bridge_weight=recipe.bridge_weight,
        )  # fmt: skip
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 12.0)
        self.optimiser.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return loss.item()

    def fit(self, cases: list[TrainingCase]) -> None:
        """Trains to the end of the recipe, with a progress bar, a log and checkpoints."""
        data = DataLoader(
            CropDataset(cases, self.recipe), batch_sampler=batches(self.recipe, self.step), collate_fn=to_batch, num_workers=1
        )
        with Progress(*Progress.get_default_columns(), "{task.fields[loss]}") as progress, self.log.open("a") as log:
            bar = progress.add_task("training", total=self.recipe.steps, completed=self.step, loss="")
            for image, label, teacher in data:
                began = time.monotonic()
                loss = self.train_step(image, label, teacher)
                log.write(
                    json.dumps({"step": self.step, "loss": round(loss, 4), "s": round(time.monotonic() - began, 3)}) + "\n"
                )
                log.flush()
                progress.update(bar, completed=self.step, loss=f"loss {loss:.3f}")
                if self.step % self.recipe.checkpoint_every == 0 or self.step == self.recipe.steps:
                    self.save()


def engine_spec(recipe: Recipe) -> EngineSpec:
    """The preprocessing and shapes that the recipe's network expects at inference."""
    d, h, w = recipe.stages[-1].crop
    return EngineSpec(name=f"fastbts-{recipe.name}", stride=recipe.model.stride, window=(d, h, w))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="light", help="name or YAML file")
    parser.add_argument("--data", type=Path, required=True, help="folder of cases, with cases.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an interrupted run continues from there")
    parser.add_argument("--cache", type=Path, help="folder for prepared cases; default: OUT/cache")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for all")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = load_recipe(args.recipe)
    args.out.mkdir(parents=True, exist_ok=True)
    folders, cache = find_cases(args.data, "train"), args.cache or args.out / "cache"
    cases = [prepare_case(folder, engine_spec(recipe), cache) for folder in track(folders, "preparing cases")]
    trainer = Trainer(recipe, args.out)
    if trainer.checkpoint.is_file():
        trainer.resume()
    trainer.fit(teacher_for(recipe, cases, cache))
    print(f"trained {trainer.step} steps; next: python -m training.export {trainer.checkpoint} -o {recipe.name}.fbts")


if __name__ == "__main__":
    main()
