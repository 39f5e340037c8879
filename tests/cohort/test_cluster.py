"""Cohorts on a Ray cluster; the test with Ray needs an environment that has it."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import DeviceError, OptionsError, SegmenterOptions, cohort
from fastbts.cohort.cluster import StuckError, Worker, _connect, _shares, _with_the_lost
from fastbts.cohort.jobs import Job
from fastbts.cohort.outcome import Outcome
from tests.cli.commands import run
from tests.cohort.cases import break_case, write_cases
from tests.conftest import write_voxel_engine


def nodes(*cpus: int) -> list[dict[str, object]]:
    dead = {"Alive": False, "Resources": {"CPU": 64}}
    return [dead, *({"Alive": True, "Resources": {"CPU": n}} for n in cpus)]


@pytest.mark.parametrize(
    ("cpus", "parallel", "n_threads", "expected"),
    [
        ((4, 8), 1, 0, (2, 4)),
        ((2,), 2, 0, (2, 1)),
        ((8, 8), 4, 0, (4, 4)),
        ((8, 8), 3, 0, (3, 4)),
        ((8,), 2, 3, (2, 3)),
        ((0, 16), 1, 0, (1, 16)),
        ((0,), 2, 3, (2, 3)),
    ],
)
def test_workers_and_their_cpus(
    cpus: tuple[int, ...], parallel: int, n_threads: int, expected: tuple[int, int]
) -> None:
    options = SegmenterOptions(parallel=parallel, n_threads=n_threads)
    assert _shares(nodes(*cpus), options) == expected


@pytest.mark.parametrize(
    ("cpus", "parallel", "n_threads"), [((2,), 1, 64), ((1,), 4, 0), ((4, 4), 3, 3)]
)
def test_more_than_the_cluster_has_is_refused(
    cpus: tuple[int, ...], parallel: int, n_threads: int
) -> None:
    options = SegmenterOptions(parallel=parallel, n_threads=n_threads)
    with pytest.raises(OptionsError, match=r"workers of \d+ CPUs: more than the cluster has"):
        _shares(nodes(*cpus), options)


def test_a_worker_reports_the_true_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = write_cases(tmp_path / "cases", 1)
    engine = write_voxel_engine(tmp_path / "voxel.fbts")
    job = Job("a", case, {"path": tmp_path / "a.nii.gz", "sidecar": None})
    worker = Worker([job], {"engine": engine}, {})
    done = Outcome.from_json(worker({"job": 0})["outcome"])
    assert done.state == "done", "also where the report has its usual name"
    assert (tmp_path / "a.json").exists()

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of a library")

    monkeypatch.setattr("fastbts.segmentation.write_labels", fail)
    failed = Outcome.from_json(worker({"job": 0})["outcome"])
    assert (failed.state, failed.error) == ("failed", "ZeroDivisionError: of a library")
    without = Worker([job], {"engine": tmp_path / "missing.fbts"}, {})
    failed = Outcome.from_json(without({"job": 0})["outcome"])
    assert "missing.fbts" in failed.error


def test_a_cluster_that_is_stuck_is_not_waited_for() -> None:
    """As Ray is where a worker died at the wrong moment."""
    over = threading.Event()

    def rows() -> Iterator[dict[str, str]]:
        over.wait(60)
        yield from ()

    jobs = [Job(name, None, {}) for name in "ab"]
    try:
        with pytest.raises(
            StuckError, match=r"finished .* for 0.01 s; not done: a, b; .*skip-done"
        ):
            list(_with_the_lost(jobs, rows(), 0.01))
    finally:
        over.set()


def test_an_error_of_ray_is_passed_on() -> None:
    def rows() -> Iterator[dict[str, str]]:
        raise RuntimeError("of Ray")
        yield

    with pytest.raises(RuntimeError, match="of Ray"):
        list(_with_the_lost([Job("a", None, {})], rows(), 60))


def test_a_case_whose_worker_died_has_failed() -> None:
    jobs = [Job(name, None, {}) for name in "ab"]
    done = Outcome("b", "done", {"WT": 1.5}, {"WT": 0.5}, ("one",), 2.0, "2026-01-01T00:00:00Z")
    assert Outcome.from_json(done.to_json()) == done
    outcomes = list(_with_the_lost(jobs, [{"outcome": done.to_json()}], 60))
    assert outcomes[0] == done
    assert outcomes[1].state == "failed"
    assert "a: its worker died 3 times" in outcomes[1].error


def test_without_ray_it_says_what_to_install(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray"):
        pytest.skip("Ray is installed")
    cases, engine = write_cases(tmp_path, 1), write_voxel_engine(tmp_path / "voxel.fbts")
    with pytest.raises(DeviceError, match=r"ray is not installed.*'fastbts\[ray\]'"):
        cohort.predict(cases, tmp_path / "out", engine=engine, address="local")


def test_no_cluster_at_the_address() -> None:
    class NoRay:
        def init(self, address: str, **_: object) -> None:
            raise ConnectionError(f"nothing at {address}")

    with pytest.raises(OptionsError, match=r"--ray auto: no Ray cluster: nothing at auto; start"):
        _connect(NoRay(), "auto")
    with pytest.raises(OptionsError, match=r"--ray ray://h:1: Ray Data does not work over"):
        _connect(NoRay(), "ray://h:1")


@pytest.mark.slow
def test_one_image_on_a_cluster(tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="needs fastbts[ray]")
    (case,) = write_cases(tmp_path / "cases", 1)
    engine = write_voxel_engine(tmp_path / "v.fbts")
    given = ("predict", case, "-o", tmp_path / "x.nii.gz", "--engine", engine, "--ray", "local")
    code, output = run(*given, "--threads", 1000)
    assert code == 2
    assert "more than the cluster has" in " ".join(output.split())
    code, output = run(*given, "--threads", 1)
    assert code == 0, output
    assert (tmp_path / "x.json").exists()


@pytest.mark.slow
def test_two_workers_give_what_the_plain_loop_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.data", reason="needs fastbts[ray]")
    cases = write_cases(tmp_path / "cases", 5)
    write_voxel_engine(tmp_path / "v.fbts")
    break_case(cases[2])
    options = SegmenterOptions(parallel=2, n_threads=1)
    monkeypatch.chdir(tmp_path)  # relative names are those of this process
    given = [case.relative_to(tmp_path) for case in cases]
    how = {"engine": Path("v.fbts"), "options": options}
    first = cohort.predict(given, "ray", **how, part="1/2", address="local")
    rest = cohort.predict(given, "ray", **how, skip_done=True, address="local")
    plain = cohort.predict(given, "plain", **how)
    assert sorted(x.case for x in first) == ["case00", "case02", "case04"]
    assert sorted(x.case for x in rest) == ["case01", "case02", "case03"], "none was done twice"
    on_ray = {x.case: x for x in (*first, *rest)}
    for expected in plain:
        got = on_ray[expected.case]
        if expected.state == "failed":
            assert got.state == "failed"
            assert "case02: no file for t1" in got.error
            continue
        same = {"seconds": None, "finished": ""}
        assert replace(got, **same) == replace(expected, **same)
        one, two = (
            np.asarray(nib.load(tmp_path / way / expected.case / "seg.nii.gz").dataobj)
            for way in ("ray", "plain")
        )
        np.testing.assert_array_equal(one, two)
