"""The contenders of `make bench-peers`: each gives the same labels of a small head, in its process.

Those whose libraries are not installed here are skipped.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from benchmarks import bench_peers
from benchmarks.bench_peers import in_sizes, rounds_of, shares, started
from benchmarks.peers import measure, numpy_steps
from benchmarks.peers.cases import Case, case_of, cube, synthetic_case
from benchmarks.peers.contender import Kit, Machine, Spec
from benchmarks.peers.fit import exponent
from benchmarks.peers.kit import make_kit
from benchmarks.peers.measure import (
    Field,
    accuracy,
    exact_labels,
    first_calls,
    new_process,
    running,
)
from benchmarks.peers.merge import merged
from benchmarks.peers.process import ContenderError, Process
from benchmarks.peers.registry import CONTENDERS
from fastbts import CaseError
from fastbts.labels import ED, ET, NCR
from fastbts.phantom import make_case, write_case
from fastbts.pipeline.normalize import normalize
from fastbts.spec import EngineSpec
from fastbts.volume import Volume

SPEC = Spec(
    stride=16,
    window=(48, 64, 48),
    percentiles=(0.1, 99.9),
    thresholds=(0.5, 0.5, 0.5),
    temperatures=(1.0, 1.0, 1.0),
    min_part_mm3=0.0,
    min_et_mm3=0.0,
)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MACHINE = Machine(n_threads=2)
NEEDS = {"onnx_runtime": "onnxruntime", "torch_script": "torch", "monai_windows": "monai"}
NEEDS |= {"nnunet": "nnunetv2"}
EVERYWHERE = ("ours", "ours-fp32", "ours-sliding", "openvino-fp32")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return make_kit(tmp_path_factory.mktemp("kits"))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A head of 96 x 96 x 80 voxels of 1 mm."""
    work = tmp_path_factory.mktemp("cases")
    made = make_case(0, shape=(96, 96, 80))
    data = np.ascontiguousarray(made.volume.data[:, ::-1, ::-1])
    small = type(made)(Volume(data, LPS), made.labels[::-1, ::-1].copy(), "small")
    write_case(small, work / "small")
    return case_of(work / "small", work)


@pytest.fixture(scope="module")
def in_windows(kit: Kit, case: Case) -> np.ndarray:
    """The labels of fastbts in windows."""
    path = case.images.parent / "in-windows.npy"
    with Process("ours-sliding", kit, MACHINE) as process:
        process.predict(case.images, case.affine, path)
    return np.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in CONTENDERS if not n.startswith("compile")])
def test_contender_gives_the_labels_of_fastbts(
    name: str, kit: Kit, case: Case, in_windows: np.ndarray, tmp_path: Path
) -> None:
    module = CONTENDERS[name].module
    if module in NEEDS and not find_spec(NEEDS[module]):
        pytest.skip(f"{NEEDS[module]} is not installed; `make bench-peers` installs it")
    windows = name == "ours-sliding" or module in ("monai_windows", "nnunet")
    exact = exact_labels(case, kit, MACHINE.n_threads, case.images.parent)
    with running((name,), kit, MACHINE) as runners:
        first_calls(runners, case, in_windows if windows else exact, tmp_path)
        row = runners.summary()[name]
    if "skipped" in row and name not in EVERYWHERE:
        pytest.skip(row["skipped"])
    labels, images = np.load(tmp_path / f"{name}.npy"), np.load(case.images).T
    assert images[..., 0][labels > 0].astype(bool).mean() > 0.9, "in the brain"
    if name != "monai-one-window":  # padded to more than the others
        # MONAI and nnU-Net do not clip.
        assert row["agreement"] > (0.6 if windows else 0.95)
    assert set(row["dice"]) == {"WT", "TC", "ET"}
    assert row["peak_mb"] > 50
    assert row["about"]["around"]


@pytest.mark.slow
def test_a_contender_writes_a_label_file(kit: Kit, case: Case, tmp_path: Path) -> None:
    import nibabel as nib

    folders = [case.folder] if case.folder else []
    for name in ("ours", "openvino-fp32"):
        answer = new_process(name, kit, MACHINE, lambda p: p.predict_files(folders, tmp_path))
        assert answer["seconds"] > answer["load_s"] > 0
    written = [nib.load(path) for path in tmp_path.glob("*/small.nii.gz")]
    labels = [np.asarray(image.dataobj) for image in written]
    assert len(labels) == 2
    assert np.mean(labels[0] != labels[1]) < 0.02
    assert np.array_equal(written[0].affine, written[1].affine)


class Rounds:
    """What pytest-benchmark does, without its report."""

    def pedantic(self, target: Any, setup: Any, rounds: int, warmup_rounds: int = 0) -> None:
        for _ in range(warmup_rounds + rounds):
            setup()
            target()


@pytest.mark.slow
def test_new_processes_take_turns(kit: Kit, case: Case) -> None:
    def run(process: Process) -> dict[str, Any]:
        return process.predict(case.images, case.affine)

    rows = started(Rounds(), "openvino-fp32", kit, MACHINE, run, rounds=2).summary()
    assert {name: len(row["seconds"]) for name, row in rows.items()} == {
        "ours": 2,
        "openvino-fp32": 2,
    }
    assert all(row["median_s"] > row["load_s"] for row in rows.values())


@pytest.mark.slow
def test_what_fails_is_left_out_with_its_reason(kit: Kit, case: Case, tmp_path: Path) -> None:
    with pytest.raises(ContenderError, match=r"openvino-fp32: NotImplementedError: .* no CUDA"):
        Process("openvino-fp32", kit, Machine(2, "cuda"))
    with running(("ours-fp32", "onnxruntime"), kit, MACHINE) as runners:
        if "onnxruntime" in runners.processes:
            runners.processes["onnxruntime"].close()
        runners.turn("ours-fp32", lambda p: p.predict(case.images, case.affine))
        runners.skip("onnxruntime", ContenderError("onnxruntime: it is broken"))
        rows = runners.summary()
    assert rows["onnxruntime"]["skipped"] == "it is broken"
    assert len(rows["ours-fp32"]["seconds"]) == 1


def test_numpy_steps_prepare_as_fastbts_does(case: Case) -> None:
    images = np.load(case.images).transpose(0, 3, 2, 1)
    prepared = numpy_steps.prepared(numpy_steps.zyx(images, case.affine), SPEC)
    ours = normalize(Volume(images, case.affine), EngineSpec(stride=16)).tensor
    assert prepared.tensor.shape == (1, *ours.shape)
    assert np.abs(prepared.tensor[0] - ours).max() < 0.05, "other percentiles"


def test_labels_come_back_to_where_the_image_was(case: Case) -> None:
    images = np.load(case.images).transpose(0, 3, 2, 1)
    view = numpy_steps.zyx(images, case.affine)
    prepared = numpy_steps.prepared(view, SPEC)
    logits = np.where(prepared.tensor[0, :3] > 1, 1, -1).astype(np.float32)
    labels = numpy_steps.labels_of(logits, prepared, images.shape[1:], case.affine, SPEC)
    assert labels.any()
    t1ce = labels == ET
    assert images[2][t1ce].min() > images[2][images[2] > 0].mean()
    assert not labels[images[0] == 0].any()


def test_regions_become_labels_by_the_rules_of_the_engine() -> None:
    regions = np.zeros((3, 1, 1, 8), bool)
    regions[0, ..., :5], regions[1, ..., :3], regions[2, ..., :1] = True, True, True
    regions[0, ..., 7] = True
    assert labels_with(regions) == [ET, NCR, NCR, ED, ED, 0, 0, ED]
    assert labels_with(regions, min_part_mm3=2.0) == [ET, NCR, NCR, ED, ED, 0, 0, 0]
    assert labels_with(regions, min_et_mm3=2.0) == [NCR, NCR, NCR, ED, ED, 0, 0, ED]


def labels_with(regions: np.ndarray, **rules: float) -> list[int]:
    return numpy_steps.region_labels(regions, replace(SPEC, **rules)).ravel().tolist()


def test_thresholds_are_those_of_calibrated_probabilities() -> None:
    spec = replace(SPEC, thresholds=(0.5, 0.4, 0.6), temperatures=(2.0, 1.5, 0.5))
    p = 1 / (1 + np.exp(-spec.least_logits.ravel() / spec.temperatures))
    assert p == pytest.approx([0.5, 0.4, 0.6])


def test_agreement_counts_labelled_voxels() -> None:
    ours, other = np.zeros((2, 4, 4, 4), np.uint8)
    ours[0, 0] = ED
    other[0, 0, :3] = ED
    found = accuracy(other, ours, ours)
    assert found["different_voxels"] == 1
    assert found["agreement"] == 0.75
    assert found["dice"]["WT"] == pytest.approx(6 / 7, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("n", [64, 96, 128])
def test_cubes_are_brain_but_for_a_frame(n: int, kit: Kit, tmp_path: Path) -> None:
    made = cube(synthetic_case(tmp_path), n, tmp_path)
    images = np.load(made.images)
    assert images.shape == (4, n, n, n)
    assert images[:, 1:-1, 1:-1, 1:-1].min() > 0
    tensor = normalize(Volume(images, made.affine), EngineSpec()).tensor
    assert tensor.shape == (4, n, n, n), "as large as the cube"
    with Process("ours", kit, MACHINE) as process:
        assert process.predict(made.images, made.affine)["seconds"] > 0


@pytest.mark.slow
def test_the_benchmark_of_threads_runs(
    kit: Kit, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Benchmark(Rounds):
        extra_info: ClassVar[dict[str, Any]] = {}

    monkeypatch.setattr(bench_peers, "THREADED", ("ours",))
    bench_peers.test_threads(Benchmark(), 1, case, kit, MACHINE, tmp_path)
    row = Benchmark.extra_info["contenders"]["ours"]
    assert (len(row["seconds"]), row["agreement"] > 0.9) == (5, True)


def test_a_case_without_reference_is_refused(case: Case, tmp_path: Path) -> None:
    assert case.folder
    for path in case.folder.glob("*.nii.gz"):
        if not path.name.endswith("seg.nii.gz"):
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(CaseError, match=r"no reference segmentation; add one file \*seg.nii.gz"):
        case_of(tmp_path, tmp_path)


def test_exponent_is_that_of_voxels() -> None:
    sizes = [96, 128, 256]
    assert exponent(sizes, [2e-6 * n**3 for n in sizes]) == pytest.approx(1)
    assert exponent(sizes, [n**6 for n in sizes]) == pytest.approx(2)


def test_rounds_of_each_size_become_a_median_without_the_first() -> None:
    n_first, n_second = rounds_of(64, "ours"), rounds_of(256, "ours")
    seconds = [9.0] + [1.0] * (n_first - 1) + [9.0] + [2.0] * (n_second - 1)
    row = in_sizes("ours", {"title": "a", "seconds": seconds, "dice": {}}, (64, 256))
    assert row == {"title": "a", "seconds_of_size": {"64": 1.0, "256": 2.0}}


def test_shares_are_of_the_peak_and_of_the_time() -> None:
    row = {"stages_ms": {"infer": 500.0}, "median_s": 0.625}
    assert shares(row, work_gflop=200.0, peak=800.0) == {
        "gflop_s": 400.0,
        "share_of_peak": 0.5,
        "share_outside": 0.2,
    }


def test_no_contender_always_starts_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later ones get other memory, which is faster."""
    starts: list[str] = []

    class Started:
        loaded: ClassVar[dict[str, Any]] = {"load_s": 0.0, "about": {}}

        def __init__(self, name: str, kit: Kit, machine: Machine) -> None:
            starts.append(name)

        def __enter__(self) -> Started:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(measure, "Process", Started)
    names, nothing = ("ours", "openvino-fp32", "torch"), Kit(Path(), Path(), Path())
    for _ in range(40):
        with running(names, nothing, MACHINE) as runners:
            assert tuple(runners.rows) == names
            assert set(runners.processes) == set(names)
    assert set(starts[::3]) == set(names)


def test_rounds_become_medians() -> None:
    rows = Field(("ours",)).rows
    for seconds in (3.0, 1.0, 2.0):
        stages = {"network": 1000 * seconds}
        times = {"seconds": seconds, "processor_s": 2 * seconds}
        rows["ours"].add({**times, "stages_ms": stages, "peak_mb": 100})
    row = rows["ours"].summary()
    assert (row["median_s"], row["stages_ms"], row["peak_mb"]) == (2.0, {"network": 2000}, 100)
    assert (row["p95_s"], row["processor_s"]) == (2.9, 4.0)


def part(device: str, **runs: float) -> dict[str, Any]:
    info = {"device_name": device}
    return {
        "machine_info": info,
        "benchmarks": [{"name": name, "s": s} for name, s in runs.items()],
    }


def test_later_parts_replace_earlier_ones() -> None:
    joined = merged([part("a", x=1, y=2), part("a", y=3, z=4)])
    assert {run["name"]: run["s"] for run in joined["benchmarks"]} == {"x": 1, "y": 3, "z": 4}
    with pytest.raises(ValueError, match="results of one processor expected, got"):
        merged([part("a"), part("b")])
