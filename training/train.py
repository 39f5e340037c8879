"""Training: `python -m training.train --recipe light --data DIR --out RUN`.

A recipe with an endless stage trains until SIGTERM comes, and the same command continues. Whenever a network is wanted,
`--decay RUN/last.ckpt --out OTHER` trains on from there with a falling rate and leaves RUN as it is.

On several GPUs: `torchrun --nproc_per_node=N -m training.train ...`; every rank trains on crops of its own.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from rich.progress import track

from fastbts import FastBTSError
from training.config import Recipe, load_recipe
from training.data.cases import TrainingCase, engine_spec, find_cases, prepare_case
from training.data.synthetic import load_synthetic
from training.data.teacher import teacher_for
from training.loop.callbacks import Checkpoints, Log, MovingAverage, Terminated, WholeFiles
from training.loop.checkpoint import begin_decay
from training.loop.data import LitData
from training.loop.module import LitNetwork
from training.model import UNet3d
from training.start import begin_from, measure_statistics


def fit(
    recipe: Recipe,
    cases: Sequence[TrainingCase],
    run: Path,
    *,
    start: Path | None = None,
    val: Sequence[Path] | None = None,
    progress: bool = False,
) -> UNet3d:
    """Trains to the end of the recipe, from the run's last checkpoint on if it has one.

    Args:
        recipe: What to train.
        cases: Prepared cases.
        run: Folder of the run: last.ckpt, log.jsonl, dice.jsonl, tensorboard/.
        start: Checkpoint or engine file whose weights a new run begins from; see `begin_from`. BatchNorm that begins from
            weights of InstanceNorm gets the statistics of the cases.
        val: Folders of labelled cases whose Dice is logged every `recipe.validate_every` steps; None for no validation.
        progress: Whether to show a progress bar.
    Returns:
        The averaged network.
    Raises:
        Terminated: SIGTERM came and the run is saved.
        CheckpointError: The last checkpoint cannot be continued, or `start` does not fit.
    """
    run.mkdir(parents=True, exist_ok=True)
    average, checkpoints = MovingAverage(recipe.ema), Checkpoints(run / "last.ckpt", recipe)
    callbacks = [
        average,
        Log(run / "log.jsonl", run / "dice.jsonl"),
        checkpoints,
        *([RichProgressBar(refresh_rate=1)] if progress else []),
    ]
    trainer, module = _trainer(recipe, run, callbacks, validate=bool(val)), LitNetwork(recipe)
    last = checkpoints.path if checkpoints.path.is_file() else None
    if start is not None and last is None:
        fresh = begin_from(module.network, start)
        if any(name.endswith(".running_mean") for name in fresh):
            measure_statistics(module.network, cases)
    with warnings.catch_warnings():
        # Guesses about too few workers and about a data loader that would not resume; ours does, by the step's number.
        warnings.simplefilter("ignore", PossibleUserWarning)
        trainer.fit(
            module, datamodule=LitData(cases, recipe, val or ()), ckpt_path=last, weights_only=True
        )
    return average.network


def _trainer(recipe: Recipe, run: Path, callbacks: list[Callback], *, validate: bool) -> L.Trainer:
    """Lightning's trainer on the devices that torchrun has given, or on one."""
    ranks, here = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return L.Trainer(
        devices=here,
        num_nodes=ranks // here,
        # The text table never changes, and SyncBatchNorm keeps statistics alike; ranks may validate different numbers of cases.
        sync_batchnorm=torch.cuda.is_available() and ranks > 1,
        strategy=DDPStrategy(broadcast_buffers=False) if ranks > 1 else "auto",
        precision=recipe.precision,  # type: ignore[arg-type]  # one of `config.PRECISIONS`
        max_steps=recipe.steps,
        max_epochs=1,
        gradient_clip_val=12.0,
        callbacks=callbacks,
        plugins=[WholeFiles(recipe)],
        logger=TensorBoardLogger(run, name="tensorboard", version="", default_hp_metric=False),
        log_every_n_steps=1,
        limit_val_batches=1.0 if validate else 0,
        val_check_interval=recipe.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=any(isinstance(callback, RichProgressBar) for callback in callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run,
    )


def _validation(data: Path) -> list[Path] | None:
    try:
        return find_cases(data, "val")
    except FastBTSError as error:
        print(f"training without validation: {error}", file=sys.stderr)
        return None


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--recipe", default="light", help="name or YAML file")
    kind.add_argument(
        "--decay",
        type=Path,
        help="checkpoint of a run at constant rate, to train on from with a falling rate",
    )
    parser.add_argument(
        "--decay-steps", type=int, default=0, help="steps of --decay; 0 for what the recipe says"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of cases, with cases.csv")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of the run; an interrupted run continues from there",
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="checkpoint or engine file (.fbts) whose weights a new run begins from",
    )
    parser.add_argument("--cache", type=Path, help="folder for prepared cases; default: OUT/cache")
    parser.add_argument(
        "--synthetic",
        type=Path,
        help="folder made by training.data.synthetic, for recipes that mix it in",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for all")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    recipe = (
        begin_decay(args.decay, args.out, args.decay_steps)
        if args.decay
        else load_recipe(args.recipe)
    )
    first = os.environ.get("RANK", "0") == "0"
    cache, folders = args.cache or args.out / "cache", find_cases(args.data, "train")
    cases = [
        prepare_case(f, engine_spec(recipe), cache)
        for f in track(folders, "preparing cases", disable=not first)
    ]
    if args.synthetic:
        cases += load_synthetic(args.synthetic)
    try:
        fit(
            recipe,
            teacher_for(recipe, cases, cache),
            args.out,
            start=args.start,
            val=_validation(args.data),
            progress=True,
        )
    except Terminated as stopped:
        print(stopped, file=sys.stderr)
        raise
    if first:
        print(
            f"trained {recipe.steps} steps; next: python -m training.export {args.out / 'last.ckpt'} -o {recipe.name}.fbts"
        )


if __name__ == "__main__":
    main()
