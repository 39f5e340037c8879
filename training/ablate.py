"""Ablation: what mechanisms, more cases, more steps and synthetic cases bring.

Trains every arm from scratch with every seed: `python -m training ablate --data DIR --out RUN`.
One seed means the same initial backbone and the same crops in all arms, so arms are compared case
by case and seed by seed. A finished run has a file in RUN/runs and is not repeated. Seeds run one
after the other, so an interrupted ablation has complete seeds.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track

from fastbts import EngineSpec, FastBTSError, OptionsError, Segmenter, SegmenterOptions, read_case
from fastbts.metrics import region_dice
from training.clip.prompts import Prompts, save_prompts, shuffled, vector_prompts
from training.config import Recipe, load_recipe
from training.data.cases import TrainingCase, engine_spec, find_cases, prepare_case, read_labels
from training.data.synthetic import load_synthetic
from training.model import UNet3d
from training.network_engine import NetworkEngine
from training.scores.paired_statistics import compare
from training.train import fit

ALL = ("fusion", "bridge", "guidance", "attention", "head")


@dataclass(frozen=True)
class Arm:
    """How one arm differs from the recipe."""

    semantic: tuple[str, ...] = ()
    """Mechanisms that are on; none is the plain U-Net, without their modules."""
    text: str = ""
    """Text vectors instead of orthonormal ones: "clip" or "shuffled"."""
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
    "all": Arm(ALL),
    "all, shuffled CLIP text": Arm(ALL, text="shuffled", bases=("plain", "all")),
    "all, CLIP text": Arm(ALL, text="clip", bases=("plain", "all", "all, shuffled CLIP text")),
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
        values = {"arm": dataclasses.asdict(self.arm), "recipe": recipe}
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


def choose_cases(cases: Sequence[TrainingCase], n: int, seed: int) -> list[TrainingCase]:
    """n cases drawn by the seed, in the order given; all for n = 0."""
    order = np.random.default_rng((seed, 5)).permutation(len(cases))
    return [cases[i] for i in sorted(order[: n or len(cases)])]


@lru_cache(maxsize=1)
def _cases(data: Path, cache: Path, spec: EngineSpec) -> list[TrainingCase]:
    return [prepare_case(folder, spec, cache) for folder in find_cases(data, "train")]


def run_job(job: Job) -> None:
    """Trains, segments the validation cases in one pass, and writes the result atomically."""
    began = time.monotonic()
    cases = choose_cases(
        _cases(job.data, job.out / "cache", EngineSpec()), job.arm.n_cases, job.seed
    )
    made = load_synthetic(job.synthetic) if job.arm.synthetic and job.synthetic else []
    with tempfile.TemporaryDirectory(dir=job.out) as run:
        network = fit(job.recipe, [*cases, *made], Path(run)).eval()
    result = {
        "name": job.name,
        "seed": job.seed,
        "n_cases": len(cases),
        "n_synthetic": len(made),
        "steps": job.recipe.steps,
        "train_s": round(time.monotonic() - began, 1),
        "scores": _scores(network, job),
        **job.settings,
    }
    temporary = job.result.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(job.result)


def _scores(network: UNet3d, job: Job) -> list[dict[str, Any]]:
    """Name and Dice of each validation case."""
    engine = NetworkEngine(network, engine_spec(job.recipe))
    options = SegmenterOptions(mode="one-pass", n_threads=1)
    segmenter = Segmenter(engine, options=options, warm_up=False)
    scores = []
    with torch.autocast("cpu", torch.bfloat16):
        for folder in find_cases(job.data, "val"):
            labels = segmenter.predict(read_case(folder)).labels
            scores.append({"case": folder.name, **region_dice(labels, read_labels(folder))})
    return scores


def _start_worker() -> None:
    torch.set_num_threads(1)
    # The start method is inherited; the platform's default does not send the data loader's
    # process every case.
    multiprocessing.set_start_method(None, force=True)


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


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means per arm, and each arm against its bases over the seeds that both have.

    Args:
        runs: Contents of result files.
    Returns:
        "arms": name -> n and mean Dice per region; "comparisons": see
        `training.scores.paired_statistics.compare`.
    """
    arms, comparisons = {}, []
    for name in ARMS:
        of_arm = [run for run in runs if run["name"] == name]
        if of_arm:
            arms[name] = _means(of_arm)
        for base in ARMS[name].bases:
            differences = _differences(runs, name, base)
            if differences.size:
                comparisons.append({"name": name, "base": base, **compare(differences)})
    return {"arms": arms, "comparisons": comparisons}


def _means(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Row of one arm: its settings, and means over seeds and cases."""
    scores = [score for run in runs for score in run["scores"]]
    means = {region: float(np.mean([s[region] for s in scores])) for region in ("WT", "TC", "ET")}
    counts = {key: runs[0][key] for key in ("n_cases", "n_synthetic", "steps")}
    return {**counts, "n_seeds": len(runs), **means, "mean": sum(means.values()) / 3}


def _differences(runs: Sequence[dict[str, Any]], name: str, base: str) -> NDArray[np.float64]:
    """Difference of the Dice, mean of the regions, (n_cases, n_seeds)."""
    dice = {
        (run["name"], run["seed"], s["case"]): (s["WT"] + s["TC"] + s["ET"]) / 3
        for run in runs
        for s in run["scores"]
    }
    seeds_of = {arm: {seed for n, seed, _ in dice if n == arm} for arm in (name, base)}
    seeds = sorted(seeds_of[name] & seeds_of[base])
    cases = sorted({case for _, _, case in dice})
    return np.array(
        [[dice[name, seed, case] - dice[base, seed, case] for seed in seeds] for case in cases]
    )


def plan(
    data: Path,
    out: Path,
    *,
    recipe: str = "ablation",
    seeds: int = 3,
    arms: Sequence[str] = (),
    clip_vectors: Path | None = None,
    synthetic: Path | None = None,
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
        if (clip_vectors or not ARMS[name].text) and (synthetic or not ARMS[name].synthetic)
    ]
    if not names or seeds < 1:
        raise OptionsError(
            f"nothing to train: {seeds} seeds, arms {'; '.join(arms)}; arms with CLIP text need "
            "--clip-vectors, synthetic ones --synthetic"
        )
    (out / "runs").mkdir(parents=True, exist_ok=True)
    for kind, prompts in (clip_prompts(clip_vectors) if clip_vectors else {}).items():
        save_prompts(out / f"prompts-{kind}.npz", prompts)
    return [
        Job(name, seed, arm_recipe(name, base, seed, out), data, out, synthetic)
        for seed in range(seeds)
        for name in names
    ]


def train_all(jobs: list[Job], processes: int) -> None:
    """Runs the jobs in so many processes."""
    if not jobs:
        return
    # Prepared once, before all workers need them.
    _cases(jobs[0].data, jobs[0].out / "cache", EngineSpec())
    # Not fork: a forked process that has used torch's threads can hang.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _start_worker) as pool:
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
    processes: Annotated[int, typer.Option(help="parallel runs, each with one thread")] = 2,
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
    )
    if not summarise_only:
        train_all([job for job in jobs if not finished(job)], processes)
    runs = [json.loads(job.result.read_text()) for job in jobs if finished(job)]
    about = {"torch": torch.__version__, "threads": 1, "recipe": jobs[0].settings["recipe"]}
    content = json.dumps({**about, **summarise(runs), "runs": runs}, indent=1) + "\n"
    (json_file or out / "ablation.json").write_text(content)
