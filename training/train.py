"""Training: `python -m training train --recipe light --data DIR --out RUN`.

A recipe with an endless stage trains until SIGTERM, and the same command continues. For a network,
`--decay RUN/last.ckpt --out OTHER` trains the last stage from there; RUN does not change.

On several GPUs: `torchrun --nproc_per_node=N -m training train ...`. Each rank has its own crops.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import lightning as L
import torch
import typer
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from fastbts import OptionsError
from training.config import Recipe, load_recipe
from training.data.cases import Sample, TrainingCase
from training.data.heads import HeadMaker
from training.data.sources import Sources, cases_of, heads_of, is_first_rank
from training.loop.callbacks import AtomicCheckpointIO, Checkpoints, Log, MovingAverage, Terminated
from training.loop.checkpoint import begin_decay
from training.loop.data import CropData
from training.loop.module import TrainingModule
from training.model import UNet3d
from training.start import begin_from, measure_statistics


def fit(
    recipe: Recipe,
    cases: Sequence[TrainingCase],
    run: Path,
    *,
    start: Path | None = None,
    val: Sequence[Path] | Sequence[Sample] | None = None,
    workers: int = 1,
    progress: bool = False,
    heads: HeadMaker | None = None,
) -> UNet3d:
    """Trains to the end of the recipe, from the run's last checkpoint if it has one.

    Args:
        recipe: What to train.
        cases: Prepared cases.
        run: Folder of the run: last.ckpt, log.jsonl, dice.jsonl, tensorboard/.
        start: Checkpoint or engine file with the first weights of a new run; see `begin_from`. If
            only the recipe has BatchNorm, its statistics are measured on the cases.
        val: Folders of labelled cases, or complete images with labels, whose Dice is logged every
            `recipe.validate_every` steps; None for no validation.
        workers: Processes that prepare crops.
        progress: Whether to show a progress bar.
        heads: Makes the crops of a recipe whose source is "heads".
    Returns:
        The averaged network.
    Raises:
        Terminated: SIGTERM came and the run is saved.
        CheckpointError: The last checkpoint cannot be continued, or `start` does not fit.
        OptionsError: The recipe's norm is frozen and there is no start; or a start has no
            statistics, and there are no cases to measure them on.
    """
    run.mkdir(parents=True, exist_ok=True)
    average, checkpoints = MovingAverage(recipe.ema), Checkpoints(run / "last.ckpt", recipe)
    bars = [RichProgressBar(refresh_rate=1)] if progress else []
    callbacks = [average, Log(run / "log.jsonl", run / "dice.jsonl"), checkpoints, *bars]
    trainer = _trainer(recipe, run, callbacks, validate=bool(val))
    module, data = TrainingModule(recipe), CropData(cases, recipe, val or (), workers, heads)
    last = checkpoints.path if checkpoints.path.is_file() else None
    if last is None:
        _begin(recipe, module.network, start, cases)
    with warnings.catch_warnings():
        # Lightning guesses that more workers would help and that the loader cannot resume. Ours
        # resumes by the number of the step.
        warnings.simplefilter("ignore", PossibleUserWarning)
        trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    return average.network


def _begin(
    recipe: Recipe, network: UNet3d, start: Path | None, cases: Sequence[TrainingCase]
) -> None:
    if start is None:
        if recipe.model.norm == "frozen":
            raise OptionsError(
                "model.norm: frozen needs statistics, which a new network has not; give --start "
                "CHECKPOINT or ENGINE, or train with batch or instance"
            )
        return
    not_in_file = begin_from(network, start)
    if any(name.endswith(".running_mean") for name in not_in_file):
        if not cases:
            raise OptionsError(
                f"{start}: has no statistics of BatchNorm, and a recipe with source heads has no "
                "cases to measure them on; start from a checkpoint of the same recipe"
            )
        measure_statistics(network, cases)


def _trainer(recipe: Recipe, run: Path, callbacks: list[Callback], *, validate: bool) -> L.Trainer:
    """Lightning's trainer on the devices that torchrun gives, or on one."""
    ranks, here = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return L.Trainer(
        devices=here,
        num_nodes=ranks // here,
        sync_batchnorm=torch.cuda.is_available() and ranks > 1,
        # No broadcast: the text table is constant, SyncBatchNorm keeps statistics equal, and ranks
        # may validate different numbers of cases.
        strategy=DDPStrategy(broadcast_buffers=False) if ranks > 1 else "auto",
        precision=recipe.precision,  # type: ignore[arg-type]  # one of `config.PRECISIONS`
        max_steps=recipe.steps,
        max_epochs=1,
        gradient_clip_val=12.0,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(recipe)],
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


def command(
    out: Annotated[Path, typer.Option(help="folder of the run; a run in it is continued")],
    data: Annotated[
        Path | None,
        typer.Option(help="folder of cases, with cases.csv; not needed for synthetic heads"),
    ] = None,
    recipe: Annotated[str, typer.Option(help="name or YAML file; default: light")] = "",
    decay: Annotated[
        Path | None,
        typer.Option(help="checkpoint at constant rate whose last stage to train, with its recipe"),
    ] = None,
    decay_steps: Annotated[
        int, typer.Option(min=0, help="steps of the last stage, with --decay; 0: as in the recipe")
    ] = 0,
    start: Annotated[
        Path | None, typer.Option(help="checkpoint or engine file with a new run's first weights")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="folder for prepared cases; default: OUT/cache")
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="folder of `training synthetic`, for recipes that use it")
    ] = None,
    anatomy: Annotated[
        Path | None,
        typer.Option(help="folder of head label maps (*.nii.gz), for recipes with source heads"),
    ] = None,
    shapes: Annotated[
        Path | None, typer.Option(help="tumour label maps (.npz), with --anatomy")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 for all")] = 0,
    workers: Annotated[
        int, typer.Option(min=1, help="processes that prepare crops; more than one for a GPU")
    ] = 1,
) -> None:
    """Train the network of a recipe, or continue an interrupted run."""
    if threads:
        torch.set_num_threads(threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    chosen, cache = _recipe(recipe, decay, decay_steps, out), cache or out / "cache"
    sources = Sources(data, cache, synthetic, anatomy, shapes)
    ready = heads_of(chosen, sources) if chosen.source == "heads" else cases_of(chosen, sources)
    cases, val, heads = ready
    try:
        fit(chosen, cases, out, start=start, val=val, workers=workers, progress=True, heads=heads)
    except Terminated as stopped:
        typer.echo(stopped, err=True)
        raise
    if is_first_rank():
        engine = f"{out / 'last.ckpt'} -o {chosen.name}.fbts"
        typer.echo(f"trained {chosen.steps} steps; next: python -m training export {engine}")


def _recipe(name: str, decay: Path | None, decay_steps: int, run: Path) -> Recipe:
    if decay is None:
        return load_recipe(name or "light")
    if name:
        raise OptionsError(
            "expected either --recipe or --decay, got both; --decay takes the checkpoint's recipe"
        )
    return begin_decay(decay, run, decay_steps)
