from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.make_tables import filled
from fastbts import FastBTSError, OptionsError
from tests.training.commands import run
from training.ablate import (
    ARMS,
    Job,
    arm_recipe,
    bases,
    choose_cases,
    clip_prompts,
    finished,
    held_out,
    plan,
)
from training.clip.encoder import ClipError
from training.clip.prompts import PromptsError, load_prompts
from training.config import load_recipe
from training.data.cases import TrainingCase
from training.loop.module import TrainingModule
from training.scores.arms import summarise


def run_of(name: str, seed: int, dice: list[float]) -> dict[str, object]:
    scores = [{"case": f"c{i}", "WT": d, "TC": d, "ET": d} for i, d in enumerate(dice)]
    return {
        "name": name,
        "seed": seed,
        "n_cases": 28,
        "n_synthetic": 0,
        "steps": 360,
        "train_s": 60.0,
        "scores": scores,
        "held_out": [],
    }


def test_arms_share_the_backbone_of_their_seed(tmp_path: Path) -> None:
    base = load_recipe("smoke-clip")
    base = replace(
        base,
        model=replace(
            base.model,
            semantic=replace(base.model.semantic, **dict.fromkeys(ARMS["all"].semantic, False)),
        ),
    )
    plain, everything, other = (
        TrainingModule(arm_recipe(name, base, seed, tmp_path)).network
        for name, seed in (("plain", 1), ("all", 1), ("all", 2))
    )
    assert plain.bridge is plain.guidance is plain.fusion is None
    backbone = plain.state_dict()
    assert all(torch.equal(everything.state_dict()[key], value) for key, value in backbone.items())
    assert not torch.equal(other.state_dict()["head.weight"], backbone["head.weight"])
    assert len(everything.state_dict()) > len(backbone)


def test_fewer_cases_are_part_of_more() -> None:
    cases = [
        TrainingCase(str(i), np.zeros((4, 1, 1, 1), np.float16), np.zeros((1, 1, 1), np.uint8))
        for i in range(28)
    ]
    few, more = ({c.name for c in choose_cases(cases, n, seed=0)} for n in (7, 14))
    assert (len(few), len(more)) == (7, 14)
    assert few < more
    assert choose_cases(cases, 0, seed=0) == cases
    assert few != {c.name for c in choose_cases(cases, 7, seed=1)}


def test_clip_vectors_by_hand(tmp_path: Path) -> None:
    rows = torch.zeros(35, 512)
    rows[32:, :3] = torch.eye(3)  # NCR, ED, ET
    rows[32:, 5] = 7  # what they share
    torch.save(rows.half(), tmp_path / "text.pth")
    made = clip_prompts(tmp_path / "text.pth")
    long, short = 2 / 6**0.5, -1 / 6**0.5
    expected = [
        [short, long, short],
        [long, short, short],
        [short, short, long],
    ]  # WT is ED's, TC is NCR's
    np.testing.assert_allclose(made["clip"].embeddings[:, :3], expected, atol=1e-6)
    np.testing.assert_array_equal(made["clip"].embeddings[:, 3:], 0)
    np.testing.assert_array_equal(made["shuffled"].embeddings, made["clip"].embeddings[[1, 2, 0]])
    assert made["shuffled"].encoder.endswith("shuffled")
    torch.save(rows[:3], tmp_path / "few.pth")
    with pytest.raises(PromptsError, match="expected one tensor"):
        clip_prompts(tmp_path / "few.pth")


def test_summary_by_hand() -> None:
    runs = [
        run_of("plain", 0, [0.5, 0.6]),
        run_of("bridge", 0, [0.6, 0.8]),
        run_of("plain", 1, [0.5, 0.5]),
        run_of("all", 1, [0.4, 0.4]),
    ]
    summary = summarise(runs, bases())
    assert summary["arms"]["plain"]["mean"] == pytest.approx(0.525)
    assert summary["arms"]["plain"]["n_seeds"] == 2
    by_name = {c["name"]: c for c in summary["comparisons"]}
    assert set(by_name) == {"bridge", "all"}, "what was not run is not compared"
    assert by_name["bridge"]["difference"] == pytest.approx(0.15), (
        "over seed 0 only, which both have"
    )
    assert (by_name["bridge"]["n_seeds"], by_name["bridge"]["n_cases"]) == (1, 2)
    assert by_name["all"]["difference"] == pytest.approx(-0.1)


def test_summary_of_held_out_cases_by_hand() -> None:
    runs = [
        run_of(name, seed, [dice]) | {"held_out": [{"case": case, "WT": d, "TC": d, "ET": d}]}
        for name, seed, case, dice, d in (
            ("plain", 0, "t0", 0.5, 0.4),
            ("plain", 1, "t1", 0.5, 0.6),
            ("plain", 2, "t0", 0.5, 0.2),
            ("bridge", 0, "t0", 0.5, 0.5),
            ("bridge", 1, "t1", 0.5, 0.9),
            ("bridge", 2, "t0", 0.5, 0.5),
        )
    ]
    summary = summarise(runs, bases())["held_out"]
    assert summary["arms"]["plain"]["mean"] == pytest.approx(0.4)
    (pair,) = summary["comparisons"]
    # t0 by the seeds 0 and 2: 0.1 and 0.3; t1 by seed 1: 0.3.
    assert pair["difference"] == pytest.approx((0.2 + 0.3) / 2)
    assert (pair["n_cases"], pair["n_seeds"]) == (2, 1)


def test_every_group_is_dealt_out_to_the_folds(tmp_path: Path) -> None:
    groups = ["HGG"] * 5 + ["LGG"] * 3
    lines = [f"c{i},train,{group}" for i, group in enumerate(groups)]
    (tmp_path / "cases.csv").write_text("\n".join(["case,split,group", *lines]) + "\n")
    folders = [tmp_path / f"c{i}" for i in range(8)]
    first, second = (held_out(folders, seed, 2) for seed in (0, 1))
    assert sorted([*first, *second]) == folders, "each case once"
    for group in ("HGG", "LGG"):
        counts = [sum(groups[int(f.name[1:])] == group for f in fold) for fold in (first, second)]
        assert abs(counts[0] - counts[1]) <= 1
    assert held_out(folders, 2, 2) == first, "the same for all seeds"
    assert held_out(folders, 0, 1) == []


def test_tables_of_a_summary(tmp_path: Path) -> None:
    runs = [run_of("plain", 0, [0.5] * 6), run_of("bridge", 0, [0.6] * 6)]
    page = "<!-- table:ablation -->\n<!-- end -->\n<!-- table:ablation-held-out -->\n<!-- end -->\n"
    assert filled(page, tmp_path).count("Not measured yet.") == 2
    (tmp_path / "ablation.json").write_text(json.dumps(summarise(runs, bases())))
    text = filled(page, tmp_path)
    dice = " | ".join(["0.600"] * 4)
    row = f"| bridge | 360 | 1 | {dice} | plain | +10.0 [+10.0, +10.0] | 0.031 |"
    assert text.count(row) == 1, "without folds no training case is held out"
    assert "n = 6 validation cases;" in text
    for result in runs:
        result["held_out"] = result["scores"][:5]
    (tmp_path / "ablation.json").write_text(json.dumps(summarise(runs, bases())))
    assert "n = 5 training cases, those that the seeds" in filled(page, tmp_path)


@pytest.mark.slow
def test_runs_resume_and_are_summarised(phantoms: Path, tmp_path: Path) -> None:
    command = ("ablate", "--data", phantoms, "--out", tmp_path, "--recipe", "smoke", "--seeds", 1)
    command += ("--processes", 1, "--arm", "plain", "--arm", "bridge")
    assert run(*command) == 0
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert set(written) == {"plain-0.json", "bridge-0.json"}
    published = tmp_path / "published.json"
    assert run(*command, "--json", published) == 0
    again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert again == written, "finished runs are not repeated"
    assert published.read_text() == (tmp_path / "ablation.json").read_text()
    summary = json.loads(published.read_text())
    assert set(summary["arms"]) == {"plain", "bridge"}
    assert all(
        0 <= score[r] <= 1
        for run in summary["runs"]
        for score in run["scores"]
        for r in ("WT", "TC", "ET")
    )
    assert str(tmp_path) not in published.read_text(), "no paths of this machine"


def test_results_of_other_settings_are_refused(tmp_path: Path) -> None:
    recipe = load_recipe("smoke")
    job = Job("plain", 0, arm_recipe("plain", recipe, 0, tmp_path), tmp_path, tmp_path)
    assert not finished(job)
    job.result.parent.mkdir()
    job.result.write_text(json.dumps(job.settings))
    assert finished(job)
    with pytest.raises(FastBTSError, match=r"plain-0\.json: made with other settings"):
        finished(replace(job, recipe=replace(job.recipe, learning_rate=1.0)))


def test_plan_goes_seed_by_seed_and_leaves_out_arms_without_data(tmp_path: Path) -> None:
    names = [job.name for job in plan(tmp_path, tmp_path, seeds=2)]
    assert names[: len(names) // 2] == names[len(names) // 2 :], (
        "all arms of a seed before the next seed"
    )
    assert not {"synthetic", "all, CLIP text"} & set(names)
    vectors = torch.randn(35, 512, generator=torch.Generator().manual_seed(0))
    torch.save(vectors, tmp_path / "text.pth")
    jobs = plan(tmp_path, tmp_path, seeds=2, clip_vectors=tmp_path / "text.pth", synthetic=tmp_path)
    assert {job.name for job in jobs} == set(ARMS)
    assert len({job.result for job in jobs}) == 2 * len(ARMS)
    (clip,) = {job.recipe.prompts for job in jobs if job.name == "all, CLIP text"}
    assert load_prompts(Path(clip)).labels == ("WT", "TC", "ET")


def test_arms_that_cannot_be_trained_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        OptionsError, match="--arm 'plane': unknown; expected one of: plain; bridge"
    ):
        plan(tmp_path, tmp_path, arms=["plain", "plane"])
    with pytest.raises(OptionsError, match=r"nothing to train: 3 seeds, arms synthetic; .* --syn"):
        plan(tmp_path, tmp_path, arms=["synthetic"])
    with pytest.raises(ClipError, match=r"none\.pth: cannot be read"):
        plan(tmp_path, tmp_path, clip_vectors=tmp_path / "none.pth")


KILLED = """
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from os import getpid
from training.ablate import _start_worker

if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), _start_worker, (1,)) as pool:
        print(pool.submit(getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a killed process's children have no parent")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)  # it is there
        parent.kill()
    end = time.monotonic() + 20
    while is_running(worker):
        assert time.monotonic() < end, "the worker goes on without its parent"
        time.sleep(0.2)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")  # a zombie that nobody waits for has ended, too
    return not (state.is_file() and state.read_text().rpartition(")")[2].split()[0] == "Z")
