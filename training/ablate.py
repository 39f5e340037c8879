"""Ablation: what mechanisms, text, more cases, more steps and synthetic cases bring.

Trains every arm with every seed, from scratch or from a common start: `python -m training ablate
--data DIR --out RUN`. One seed means the same initial backbone and the same crops in all arms, so
arms are compared case by case and seed by seed. With two folds a seed trains on one half of the
training cases and is scored on the other half, too. A finished run has a file in RUN/runs and is
not repeated. Seeds run one after the other, so an interrupted ablation has complete seeds.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.progress import track

from fastbts import EngineSpec, FastBTSError, OptionsError, Segmenter, SegmenterOptions, read_case
from fastbts.metrics import region_dice
from training.clip.encoder import file_sha256
from training.clip.prompts import (
    Prompts,
    save_prompts,
    shuffled,
    vector_prompts,
    zeroed_prompts,
)
from training.config import Recipe, load_recipe
from training.data.cases import (
    TrainingCase,
    engine_spec,
    find_cases,
    group_of,
    prepare_case,
    read_labels,
)
from training.data.synthetic import load_synthetic
from training.model import UNet3d
from training.network_engine import NetworkEngine
from training.scores.arms import summarise
from training.train import fit

ALL = ("fusion", "bridge", "guidance", "attention", "head")
CLIP_TEXTS = ("clip", "shuffled")


@dataclass(frozen=True)
class Arm:
    """How one arm differs from the recipe."""

    semantic: tuple[str, ...] = ()
    """Mechanisms that are on; none is the plain U-Net, without their modules."""
    text: str = ""
    """Text vectors instead of orthonormal ones: "clip", "shuffled" or "zeroed"."""
    n_cases: int = 0
    """Training cases, drawn by the seed; a smaller set is part of a larger one. 0 for all."""
    effort: float = 1.0
    """Share of the recipe's steps, with a schedule of that length."""
    synthetic: float = 0.0
    """Share of crops from synthetic cases."""
    bases: tuple[str, ...] = ("plain",)
    """Arms it is compared with."""


ARMS = {
    "plain": Arm(bases=()),
    "bridge": Arm(("bridge",)),
    "guidance": Arm(("guidance",)),
    "attention": Arm(("attention",)),
    # A step of "all" takes 1.30 times as long at 80x96x80, 1.05 times at 144x176x144.
    "plain, equal time": Arm(effort=1.25, bases=()),
    "all": Arm(ALL, bases=("plain", "plain, equal time")),
    "all, zeroed text": Arm(ALL, text="zeroed", bases=("plain, equal time", "all")),
    "all, shuffled CLIP text": Arm(ALL, text="shuffled", bases=("plain", "all")),
    "all, CLIP text": Arm(
        ALL,
        text="clip",
        bases=("plain", "plain, equal time", "all", "all, zeroed text", "all, shuffled CLIP text"),
    ),
    "synthetic": Arm(synthetic=0.3),
    "plain, 7 cases": Arm(n_cases=7),
    "plain, 14 cases": Arm(n_cases=14),
    "plain, 1/4 steps": Arm(effort=0.25),
    "plain, 1/2 steps": Arm(effort=0.5),
}


@dataclass(frozen=True)
class Job:
    """One training, as a worker process needs it."""

    name: str
    seed: int
    recipe: Recipe
    data: Path
    out: Path
    synthetic: Path | None = None
    start: Path | None = None
    n_folds: int = 1

    @property
    def arm(self) -> Arm:
        """How it differs from the recipe."""
        return ARMS[self.name]

    @property
    def result(self) -> Path:
        """The file of the finished run."""
        name = self.name.replace(", ", "-").replace("/", "of").replace(" ", "-")
        return self.out / "runs" / f"{name}-{self.seed}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """What the result depends on, in plain values."""
        recipe = dataclasses.asdict(self.recipe)
        del recipe["prompts"]  # a path of this machine
        values = {
            "arm": dataclasses.asdict(self.arm),
            "recipe": recipe,
            "start": file_sha256(self.start) if self.start else "",
            "n_folds": self.n_folds,
        }
        plain: dict[str, Any] = json.loads(json.dumps(values))  # tuples become lists
        return plain


def arm_recipe(name: str, base: Recipe, seed: int, out: Path) -> Recipe:
    """The recipe of one arm and seed."""
    arm = ARMS[name]
    on = replace(base.model.semantic, **dict.fromkeys(arm.semantic, True))
    stages = tuple(
        replace(stage, steps=max(1, round(stage.steps * arm.effort))) for stage in base.stages
    )
    prompts = str(out / f"prompts-{arm.text}.npz") if arm.text else ""
    model = replace(base.model, semantic=on)
    return replace(
        base, seed=seed, model=model, stages=stages, synthetic=arm.synthetic, prompts=prompts
    )


def clip_prompts(path: Path) -> dict[str, Prompts]:
    """CLIP text vectors of ED, NCR and ET (rows 33, 32, 34) for WT, TC and ET; and shuffled ones.

    They are much alike (cosine 0.97), so their mean is subtracted.

    Raises:
        PromptsError: The file has no such vectors.
    """
    prompts = vector_prompts(path, (33, 32, 34), centre=True)
    return {"clip": prompts, "shuffled": shuffled(prompts)}


def held_out(folders: Sequence[Path], seed: int, n_folds: int) -> list[Path]:
    """Training cases that a seed does not train on, but is scored on; none with one fold.

    Every group is dealt out to the folds in turn, the same for all seeds; seed s leaves out fold
    s mod `n_folds`.
    """
    if n_folds == 1:
        return []
    dealt = sorted(folders, key=lambda folder: (group_of(folder), folder.name))
    return dealt[seed % n_folds :: n_folds]


def choose_cases(cases: Sequence[TrainingCase], n: int, seed: int) -> list[TrainingCase]:
    """n cases drawn by the seed, in the order given; all for n = 0."""
    order = np.random.default_rng((seed, 5)).permutation(len(cases))
    return [cases[i] for i in sorted(order[: n or len(cases)])]


@lru_cache(maxsize=1)
def _cases(data: Path, cache: Path, spec: EngineSpec) -> list[TrainingCase]:
    return [prepare_case(folder, spec, cache) for folder in find_cases(data, "train")]


def run_job(job: Job) -> None:
    """Trains, segments cases it did not learn in one pass, and writes the result atomically."""
    began = time.monotonic()
    others = held_out(find_cases(job.data, "train"), job.seed, job.n_folds)
    names = {folder.name for folder in others}
    cases = [c for c in _cases(job.data, job.out / "cache", EngineSpec()) if c.name not in names]
    cases = choose_cases(cases, job.arm.n_cases, job.seed)
    made = load_synthetic(job.synthetic) if job.arm.synthetic and job.synthetic else []
    with tempfile.TemporaryDirectory(dir=job.out) as run:
        network = fit(job.recipe, [*cases, *made], Path(run), start=job.start).eval()
    result = {
        "name": job.name,
        "seed": job.seed,
        "n_cases": len(cases),
        "n_synthetic": len(made),
        "steps": job.recipe.steps,
        "train_s": round(time.monotonic() - began, 1),
        "scores": _scores(network, job, find_cases(job.data, "val")),
        "held_out": _scores(network, job, others),
        **job.settings,
    }
    temporary = job.result.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(job.result)


def _scores(network: UNet3d, job: Job, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Name and Dice of each case."""
    engine = NetworkEngine(network, engine_spec(job.recipe))
    options = SegmenterOptions(mode="one-pass", n_threads=torch.get_num_threads())
    segmenter = Segmenter(engine, options=options, warm_up=False)
    scores = []
    with torch.autocast("cpu", torch.bfloat16):
        for folder in folders:
            labels = segmenter.predict(read_case(folder)).labels
            scores.append({"case": folder.name, **region_dice(labels, read_labels(folder))})
    return scores


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    # The start method is inherited; the platform's default does not send the data loader's
    # process every case.
    multiprocessing.set_start_method(None, force=True)
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process after its parent: one that is killed cannot stop its workers."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def finished(job: Job) -> bool:
    """Whether the job's result exists.

    Raises:
        FastBTSError: It was made with other settings.
    """
    if not job.result.is_file():
        return False
    stored = json.loads(job.result.read_text())
    if {key: stored[key] for key in job.settings} != job.settings:
        raise FastBTSError(
            f"{job.result}: made with other settings than this run's; "
            "give another --out, or delete it"
        )
    return True


def bases() -> dict[str, tuple[str, ...]]:
    """Arms, and those that each is compared with."""
    return {name: arm.bases for name, arm in ARMS.items()}


def plan(
    data: Path,
    out: Path,
    *,
    recipe: str = "ablation",
    seeds: int = 3,
    arms: Sequence[str] = (),
    clip_vectors: Path | None = None,
    synthetic: Path | None = None,
    start: Path | None = None,
    n_folds: int = 1,
) -> list[Job]:
    """All jobs, seed by seed; without the arms that need vectors or cases that are not given.

    Raises:
        OptionsError: An arm is unknown, or none can be trained.
        RecipeError: The recipe cannot be used.
        PromptsError: The file of CLIP vectors cannot be used.
    """
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise OptionsError(f"--arm {unknown[0]!r}: unknown; expected one of: {'; '.join(ARMS)}")
    base = load_recipe(recipe)
    names = [
        name
        for name in arms or ARMS
        if (clip_vectors or ARMS[name].text not in CLIP_TEXTS)
        and (synthetic or not ARMS[name].synthetic)
    ]
    if not names or seeds < 1:
        raise OptionsError(
            f"nothing to train: {seeds} seeds, arms {'; '.join(arms)}; arms with CLIP text need "
            "--clip-vectors, synthetic ones --synthetic"
        )
    (out / "runs").mkdir(parents=True, exist_ok=True)
    made = {"zeroed": zeroed_prompts(base.model.semantic.text_width)}
    for kind, prompts in (made | (clip_prompts(clip_vectors) if clip_vectors else {})).items():
        save_prompts(out / f"prompts-{kind}.npz", prompts)
    return [
        Job(name, seed, arm_recipe(name, base, seed, out), data, out, synthetic, start, n_folds)
        for seed in range(seeds)
        for name in names
    ]


def train_all(jobs: list[Job], processes: int, threads: int) -> None:
    """Runs the jobs in so many processes with so many threads each."""
    if not jobs:
        return
    # Prepared once, before all workers need them.
    _cases(jobs[0].data, jobs[0].out / "cache", EngineSpec())
    # Not fork: a forked process that has used torch's threads can hang.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _start_worker, (threads,)) as pool:
        for _ in track(pool.map(run_job, jobs), "training", total=len(jobs)):
            pass


def command(
    data: Annotated[Path, typer.Option(help="folder of labelled cases, with cases.csv")],
    out: Annotated[Path, typer.Option(help="folder of the runs; finished ones are not repeated")],
    recipe: Annotated[str, typer.Option(help="name or YAML file")] = "ablation",
    seeds: Annotated[int, typer.Option(help="number of seeds")] = 3,
    arm: Annotated[
        list[str] | None,
        typer.Option(help=f"repeatable; default: all of {'; '.join(ARMS)}", show_default=False),
    ] = None,
    processes: Annotated[int, typer.Option(help="parallel runs")] = 2,
    threads: Annotated[int, typer.Option(help="threads of each run")] = 1,
    start: Annotated[
        Path | None, typer.Option(help="checkpoint or engine file with the first weights")
    ] = None,
    folds: Annotated[
        int,
        typer.Option(min=1, help="parts of the training cases; a seed is scored on one of them"),
    ] = 1,
    clip_vectors: Annotated[
        Path | None, typer.Option(help="torch file of CLIP text vectors; else no CLIP arms")
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="folder of `training synthetic`; else no synthetic arm")
    ] = None,
    summarise_only: Annotated[
        bool, typer.Option("--summarise", help="train nothing; only summarise the finished runs")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="summary; default: OUT/ablation.json")
    ] = None,
) -> None:
    """Compare mechanisms, cases and steps by many small trainings."""
    jobs = plan(
        data,
        out,
        recipe=recipe,
        seeds=seeds,
        arms=arm or (),
        clip_vectors=clip_vectors,
        synthetic=synthetic,
        start=start,
        n_folds=folds,
    )
    if not summarise_only:
        train_all([job for job in jobs if not finished(job)], processes, threads)
    runs = [json.loads(job.result.read_text()) for job in jobs if finished(job)]
    about = {"torch": torch.__version__, "threads": threads, "recipe": jobs[0].settings["recipe"]}
    content = json.dumps({**about, **summarise(runs, bases()), "runs": runs}, indent=1) + "\n"
    (json_file or out / "ablation.json").write_text(content)
