"""`predict_batch`: order, bad cases, what runs while a result is used, and equal results."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbts import (
    CaseError,
    FailedCase,
    OptionsError,
    OutputError,
    Segmentation,
    Segmenter,
    SegmenterOptions,
    Volume,
)
from tests.conftest import VoxelEngine
from tests.test_segmenter import expected_labels

Case = tuple[np.ndarray, np.ndarray]


def test_a_batch_keeps_the_order(voxel_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    volumes = [Volume(np.roll(images, shift, axis=2), affine) for shift in (0, 1, 2)]
    for volume, result in zip(volumes, voxel_segmenter.predict_batch(volumes), strict=True):
        assert isinstance(result, Segmentation)
        np.testing.assert_array_equal(result.labels, expected_labels(volume.data))


def test_a_batch_continues_after_a_bad_case(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path
) -> None:
    """Whether the case cannot be read, or cannot be computed."""
    good, empty = Volume(*small_case), Volume(np.zeros_like(small_case[0]), small_case[1])
    cases = [tmp_path / "nothing", good, empty, good, [[1], [2, 3]], good]
    results = list(voxel_segmenter.predict_batch(cases))
    assert [type(result) for result in results] == [FailedCase, Segmentation] * 3
    failed = [result for result in results if isinstance(result, FailedCase)]
    assert [result.case for result in failed] == cases[::2]
    assert isinstance(failed[0].error, CaseError)
    assert repr(failed[0]).startswith(f"FailedCase({tmp_path / 'nothing'}: CaseError: ")
    assert "FailedCase(a Volume: InputError: flair: all voxels are zero" in repr(failed[1])


def test_a_batch_stops_on_request(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path
) -> None:
    cases = [Volume(*small_case), tmp_path / "nothing", Volume(*small_case)]
    results = voxel_segmenter.predict_batch(cases, stop_on_error=True)
    assert isinstance(next(results), Segmentation)
    with pytest.raises(CaseError, match="nothing"):
        next(results)
    assert list(results) == []


def test_a_batch_reads_the_next_case_during_inference(small_case: Case) -> None:
    """The first inference waits until the second case has been asked for its voxels."""
    asked, engine = threading.Event(), VoxelEngine()

    class Lazy:
        def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
            asked.set()
            return small_case[0]

    infer = engine.infer

    def waiting(*args: Any, **kwargs: Any) -> np.ndarray:
        assert asked.wait(30)
        return infer(*args, **kwargs)

    engine.infer = waiting  # type: ignore[method-assign]
    results = Segmenter(engine, warm_up=False).predict_batch([small_case[0], Lazy()])
    assert all(isinstance(result, Segmentation) for result in results)
    assert engine.n_calls == 2


def test_a_batch_goes_on_while_its_caller_uses_a_result(
    voxel_segmenter: Segmenter, small_case: Case
) -> None:
    """Two cases ahead, and no more."""
    engine, done = voxel_segmenter.engine, threading.Semaphore(0)
    infer = engine.infer

    def counted(*args: Any, **kwargs: Any) -> np.ndarray:
        logits = infer(*args, **kwargs)
        done.release()
        return logits

    engine.infer = counted  # type: ignore[method-assign]
    results = voxel_segmenter.predict_batch([small_case[0]] * 6)
    next(results)
    for _ in range(3):
        assert done.acquire(timeout=30)
    assert not done.acquire(timeout=0.1)
    results.close()
    assert isinstance(voxel_segmenter.predict(small_case[0]), Segmentation)


@pytest.mark.parametrize("n", [1, 3])
def test_as_many_cases_are_computed_at_once_as_the_options_say(small_case: Case, n: int) -> None:
    """Calls of the network wait for each other, else for ever; and no more of them run."""
    engine, together, running = VoxelEngine(), threading.Barrier(n), threading.Semaphore(n)
    infer = engine.infer

    def waiting(*args: Any, **kwargs: Any) -> np.ndarray:
        assert running.acquire(blocking=False)
        together.wait(30)
        logits = infer(*args, **kwargs)
        time.sleep(0.05)
        running.release()
        return logits

    engine.infer = waiting  # type: ignore[method-assign]
    segmenter = Segmenter(engine, options=SegmenterOptions(parallel=n), warm_up=False)
    results = list(segmenter.predict_batch([small_case[0]] * 6))
    assert [type(result) for result in results] == [Segmentation] * 6


def test_a_batch_is_equal_to_single_predictions(small_case: Case) -> None:
    """The shipped engine, with two cases at once."""
    images, affine = small_case
    cases = [np.roll(images, shift, axis=1) for shift in range(4)]
    with Segmenter(options=SegmenterOptions(parallel=2)) as segmenter:
        alone = [segmenter.predict(case, affine=affine) for case in cases]
        batch = [*segmenter.predict_batch(cases, affine=affine)]
    for got, wanted in zip(batch, alone, strict=True):
        assert isinstance(got, Segmentation)
        np.testing.assert_array_equal(got.logits, wanted.logits)
        np.testing.assert_array_equal(got.labels, wanted.labels)


def test_a_batch_whose_caller_cannot_save_goes_on(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path
) -> None:
    (tmp_path / "1.nii.gz").mkdir()
    failed = []
    for n, result in enumerate(voxel_segmenter.predict_batch([Volume(*small_case)] * 3)):
        assert isinstance(result, Segmentation)
        try:
            result.save(tmp_path / f"{n}.nii.gz")
        except OutputError:
            failed.append(n)
    assert failed == [1]
    assert (tmp_path / "2.nii.gz").is_file()


@pytest.mark.parametrize("single", ["folder", np.zeros((4, 8, 8, 8)), {"flair": "f.nii"}])
def test_a_single_case_is_no_batch(voxel_segmenter: Segmenter, single: Any) -> None:
    with pytest.raises(CaseError, match=r"give \[case\], or call predict"):
        voxel_segmenter.predict_batch(single)


def test_a_bad_option_is_refused_before_the_batch(voxel_segmenter: Segmenter) -> None:
    with pytest.raises(OptionsError, match=r"grid \['foo'\]: expected names out of"):
        voxel_segmenter.predict_batch(["folder"], grid="foo")
