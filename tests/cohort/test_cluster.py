"""Cohorts on a Ray cluster; the test with Ray needs an environment that has it."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import DeviceError, OptionsError, SegmenterOptions, cohort
from fastbts.cohort.cluster import _connect, _shares, _with_the_lost
from fastbts.cohort.jobs import Job
from fastbts.cohort.outcome import Outcome
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
        ((1,), 4, 0, (4, 1)),
    ],
)
def test_workers_and_their_cpus(
    cpus: tuple[int, ...], parallel: int, n_threads: int, expected: tuple[int, int]
) -> None:
    options = SegmenterOptions(parallel=parallel, n_threads=n_threads)
    assert _shares(nodes(*cpus), options) == expected


def test_a_case_whose_worker_died_has_failed() -> None:
    jobs = [Job(name, None, {}) for name in "ab"]
    done = Outcome("b", "done", {"WT": 1.5}, {"WT": 0.5}, ("one",), 2.0, "2026-01-01T00:00:00Z")
    assert Outcome.from_json(done.to_json()) == done
    outcomes = list(_with_the_lost(jobs, [{"outcome": done.to_json()}]))
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
