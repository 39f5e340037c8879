"""What each mechanism, more cases, more steps and synthetic cases bring: many small trainings, paired.

`python -m training.ablate --data DIR --out RUN` trains every arm from scratch with every seed. One seed means the same initial
backbone and the same crops in all arms, so arms are compared case by case and seed by seed. A run that is finished has a file in
RUN/runs and is not repeated; seeds are finished one after the other, so a stop leaves complete ones.
"""

from __future__ import annotations

import argparse
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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from fastbts import EngineSpec, FastBTSError, Segmenter, SegmenterOptions, read_case
from fastbts.metrics import region_dice
from training.clip.prompts import Prompts, save_prompts, shuffled, vector_prompts
from training.config import Recipe, load_recipe
from training.data.cases import TrainingCase, engine_spec, find_cases, prepare_case, read_labels
from training.data.synthetic import load_synthetic
from training.network_engine import NetworkEngine
from training.scores.paired import compare
from training.train import fit

RESULT = Path(__file__).resolve().parents[1] / "benchmarks/results/ablation.json"
ALL = ("fusion", "bridge", "guidance", "attention", "head")


@dataclass(frozen=True)
class Arm:
    """What is different in one arm."""

    semantic: tuple[str, ...] = ()
    """Mechanisms that are on; none is the plain U-Net, without their modules (true bypass)."""
    text: str = ""
    """Text vectors in place of orthonormal ones: "clip" or "shuffled"."""
    n_cases: int = 0
    """Training cases, drawn by the seed, fewer being a part of more; 0 for all."""
    effort: float = 1.0
    """Part of the recipe's steps, in a schedule of its own."""
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
    """One training: everything that a worker process needs to know."""

    name: str
    seed: int
    recipe: Recipe
    data: Path
    out: Path
    synthetic: Path | None = None

    @property
    def arm(self) -> Arm:
        """What is different."""
        return ARMS[self.name]

    @property
    def result(self) -> Path:
        """The file of the finished run."""
        return (
            self.out
            / "runs"
            / f"{self.name.replace(', ', '-').replace('/', 'of').replace(' ', '-')}-{self.seed}.json"
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What the result depends on, in plain values."""
        recipe = {
            k: v for k, v in dataclasses.asdict(self.recipe).items() if k != "prompts"
        }  # a path of this machine
        plain: dict[str, Any] = json.loads(
            json.dumps({"arm": dataclasses.asdict(self.arm), "recipe": recipe})
        )
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
    """CLIP text vectors of ED, NCR and ET (rows 33, 32, 34) for WT, TC and ET: as they are, and shuffled.

    They are much alike (cosine 0.97), so their mean is taken off before they are made 1 long.

    Raises:
        PromptsError: The file holds no such vectors.
    """
    prompts = vector_prompts(path, (33, 32, 34), centre=True)
    return {"clip": prompts, "shuffled": shuffled(prompts)}


def choose_cases(cases: Sequence[TrainingCase], n: int, seed: int) -> list[TrainingCase]:
    """The first n of a seed's order, in the order given; all for n = 0."""
    order = np.random.default_rng((seed, 5)).permutation(len(cases))
    return [cases[i] for i in sorted(order[: n or len(cases)])]


@lru_cache(maxsize=1)
def _cases(data: Path, cache: Path, spec: EngineSpec) -> list[TrainingCase]:
    return [prepare_case(folder, spec, cache) for folder in find_cases(data, "train")]


def run_job(job: Job) -> None:
    """Trains, segments the validation cases in one pass, and writes the result whole or not at all."""
    spec, began = engine_spec(job.recipe), time.monotonic()
    cases = choose_cases(
        _cases(job.data, job.out / "cache", EngineSpec()), job.arm.n_cases, job.seed
    )
    made = load_synthetic(job.synthetic) if job.arm.synthetic and job.synthetic else []
    with tempfile.TemporaryDirectory(dir=job.out) as run:
        network = fit(job.recipe, [*cases, *made], Path(run)).eval()
    trained_s = time.monotonic() - began
    segmenter = Segmenter(
        NetworkEngine(network, spec),
        options=SegmenterOptions(mode="one-pass", n_threads=1),
        warm_up=False,
    )
    with torch.autocast("cpu", torch.bfloat16):
        scores = [
            {
                "case": folder.name,
                **region_dice(segmenter.predict(read_case(folder)).labels, read_labels(folder)),
            }
            for folder in find_cases(job.data, "val")
        ]
    about = {
        "name": job.name,
        "seed": job.seed,
        "n_cases": len(cases),
        "n_synthetic": len(made),
        "steps": job.recipe.steps,
    }
    temporary = job.result.with_suffix(".tmp")
    temporary.write_text(
        json.dumps(
            {**about, "train_s": round(trained_s, 1), "scores": scores, **job.settings}, indent=1
        )
        + "\n"
    )
    temporary.replace(job.result)


def _start_worker() -> None:
    torch.set_num_threads(1)
    # A spawned process would spawn its data loader too, and send it every case; the platform's default is cheaper.
    multiprocessing.set_start_method(None, force=True)


def finished(job: Job) -> bool:
    """Whether the job's result is there.

    Raises:
        FastBTSError: It was made with other settings.
    """
    if not job.result.is_file():
        return False
    stored = json.loads(job.result.read_text())
    if {key: stored[key] for key in job.settings} != job.settings:
        raise FastBTSError(
            f"{job.result}: made with other settings than this run's; give another --out, or delete it"
        )
    return True


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means per arm, and every arm against its bases, over the seeds that both have.

    Args:
        runs: Contents of result files.
    Returns:
        "arms": name -> n and mean Dice per region; "comparisons": see `training.scores.paired.compare`.
    """
    arms, comparisons = {}, []
    for name in ARMS:
        mine = [run for run in runs if run["name"] == name]
        if mine:
            means = {
                r: float(np.mean([s[r] for run in mine for s in run["scores"]]))
                for r in ("WT", "TC", "ET")
            }
            counts = {key: mine[0][key] for key in ("n_cases", "n_synthetic", "steps")}
            arms[name] = {**counts, "n_seeds": len(mine), **means, "mean": sum(means.values()) / 3}
        for base in ARMS[name].bases:
            differences = _differences(runs, name, base)
            if differences.size:
                comparisons.append({"name": name, "base": base, **compare(differences)})
    return {"arms": arms, "comparisons": comparisons}


def _differences(runs: Sequence[dict[str, Any]], name: str, base: str) -> NDArray[np.float64]:
    """Difference of the Dice, mean of the regions, (n_cases, n_seeds)."""
    dice = {
        (r["name"], r["seed"], s["case"]): (s["WT"] + s["TC"] + s["ET"]) / 3
        for r in runs
        for s in r["scores"]
    }
    seeds = sorted(
        {seed for n, seed, _ in dice if n == name} & {seed for n, seed, _ in dice if n == base}
    )
    cases = sorted({case for _, _, case in dice})
    return np.array(
        [[dice[name, seed, case] - dice[base, seed, case] for seed in seeds] for case in cases]
    )


def plan(args: argparse.Namespace) -> list[Job]:
    """All jobs, seed by seed; without the arms whose data were not given."""
    base, text = (
        load_recipe(args.recipe),
        args.clip_vectors is not None and args.clip_vectors.is_file(),
    )
    names = [
        n
        for n in args.arms or ARMS
        if (text or not ARMS[n].text) and (args.synthetic or not ARMS[n].synthetic)
    ]
    (args.out / "runs").mkdir(parents=True, exist_ok=True)
    for kind, prompts in (clip_prompts(args.clip_vectors) if text else {}).items():
        save_prompts(args.out / f"prompts-{kind}.npz", prompts)
    return [
        Job(name, seed, arm_recipe(name, base, seed, args.out), args.data, args.out, args.synthetic)
        for seed in range(args.seeds)
        for name in names
    ]


def train_all(jobs: list[Job], processes: int) -> None:
    """Runs the jobs, so many at a time."""
    if jobs:
        _cases(
            jobs[0].data, jobs[0].out / "cache", EngineSpec()
        )  # prepared once, before the workers all want to
    spawn = multiprocessing.get_context(
        "spawn"
    )  # forking a process that has used torch's threads can hang
    with ProcessPoolExecutor(processes, spawn, _start_worker) as pool:
        for _ in track(pool.map(run_job, jobs), "training", total=len(jobs)):
            pass


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of labelled cases, with cases.csv"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of the runs; finished ones in it are not repeated",
    )
    parser.add_argument(
        "--recipe", default="ablation", help="name or YAML file of what all arms share"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, metavar="ARM", help=f"default: all of {'; '.join(ARMS)}"
    )
    parser.add_argument(
        "--processes", type=int, default=2, help="runs at a time, each with one thread"
    )
    parser.add_argument(
        "--clip-vectors",
        type=Path,
        help="tensor file of CLIP text vectors; without it no CLIP arms",
    )
    parser.add_argument(
        "--synthetic",
        type=Path,
        help="folder made by training.data.synthetic; without it no synthetic arm",
    )
    parser.add_argument(
        "--summarise",
        action="store_true",
        help="train nothing; only summarise the runs that are finished",
    )
    parser.add_argument("--json", type=Path, default=RESULT, help="where the summary goes")
    args = parser.parse_args()
    jobs = plan(args)
    if not args.summarise:
        train_all([job for job in jobs if not finished(job)], args.processes)
    runs = [json.loads(job.result.read_text()) for job in jobs if finished(job)]
    about = {"torch": torch.__version__, "threads": 1, "recipe": jobs[0].settings["recipe"]}
    args.json.write_text(json.dumps({**about, **summarise(runs), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
