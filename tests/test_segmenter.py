"""From any kind of case to labels, with an engine that computes each voxel on its own.

Kind of input, geometry, threads and batching must not change the result.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastbts import (
    MODALITIES,
    CaseError,
    DeviceError,
    EngineFileError,
    OptionsError,
    Segmenter,
    SegmenterOptions,
    Volume,
    load_engine,
)
from fastbts.engine import load
from tests.conftest import VoxelEngine, write_voxel_engine

Case = tuple[np.ndarray, np.ndarray]


def expected_labels(images: np.ndarray, at: float = 1.0) -> np.ndarray:
    """What VoxelEngine must give, in float64; tumour begins at `at` standard deviations."""
    brain = (images != 0).any(axis=0)
    z = np.zeros(images.shape)
    for image, out in zip(images, z, strict=True):
        values = image[brain].astype(np.float64)
        clipped = np.clip(values, *np.percentile(values, [0.1, 99.9], method="inverted_cdf"))
        out[brain] = (clipped - clipped.mean()) / clipped.std()
    labels = np.zeros(brain.shape, np.uint8)
    # WT from FLAIR, TC from T2, ET from T1ce; each overrides the one before.
    for channel, value in ((0, 2), (3, 1), (2, 4)):
        labels[z[channel] >= at] = value
    return labels


def test_known_answer(voxel_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    result = voxel_segmenter.predict(images, affine=affine)
    np.testing.assert_array_equal(result.labels, expected_labels(images))
    assert result.volumes_ml["WT"] == pytest.approx((result.labels > 0).sum() / 1000)
    assert result.volumes_ml["TC"] == pytest.approx(np.isin(result.labels, (1, 4)).sum() / 1000)
    assert result.volumes_ml["ET"] == pytest.approx((result.labels == 4).sum() / 1000)


def _stored(
    images: np.ndarray, affine: np.ndarray, order: tuple[int, ...], signs: tuple[int, ...]
) -> Case:
    """The same patient, stored with other axes."""
    step = np.zeros((4, 4))
    step[3, 3] = 1
    shape = images.shape[1:]
    for i, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        step[axis, i], step[axis, 3] = sign, step[axis, 3] + (shape[axis] - 1 if sign < 0 else 0)
    flips = tuple(slice(None, None, s) for s in signs)
    return images.transpose(0, *(1 + a for a in order))[(slice(None), *flips)], affine @ step


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("oblique", [False, True])
def test_all_48_orientations_give_the_same_patient(
    voxel_segmenter: Segmenter, small_case: Case, order: tuple[int, ...], oblique: bool
) -> None:
    images, affine = small_case
    if oblique:
        c, s = np.cos(0.2), np.sin(0.2)
        affine = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine
    wanted = expected_labels(images)
    for signs in itertools.product((1, -1), repeat=3):
        stored, stored_affine = _stored(images, affine, order, signs)
        labels = voxel_segmenter.predict(stored, affine=stored_affine).labels
        np.testing.assert_array_equal(labels, _stored(wanted[None], affine, order, signs)[0][0])


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_files_of_any_dtype(
    voxel_segmenter: Segmenter, small_case: Case, tmp_path: Path, dtype: type, suffix: str
) -> None:
    images, affine = small_case
    paths = {}
    for name, image in zip(("flair", "t1", "t1ce", "t2"), images, strict=True):
        paths[name] = tmp_path / f"{name}{suffix}"
        nib.Nifti1Image(image.astype(dtype), affine).to_filename(paths[name])
    result = voxel_segmenter.predict(**paths)
    np.testing.assert_array_equal(result.labels, expected_labels(images))
    saved = nib.load(result.save(tmp_path / f"seg{suffix}")[0])
    np.testing.assert_array_equal(np.asarray(saved.dataobj), result.labels)
    np.testing.assert_array_equal(saved.affine, nib.load(paths["flair"]).affine)


def test_threads_share_one_segmenter(shipped_segmenter: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    cases = [np.roll(images, shift, axis=1) for shift in range(4)]
    alone = [shipped_segmenter.predict(case, affine=affine).logits for case in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(lambda case: shipped_segmenter.predict(case, affine=affine).logits, cases * 2)
        )
    for got, wanted in zip(together, alone * 2, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_progress_runs_from_zero_to_one(voxel_segmenter: Segmenter, small_case: Case) -> None:
    seen: list[tuple[str, float]] = []
    voxel_segmenter.predict(
        small_case[0], affine=small_case[1], progress=lambda stage, done: seen.append((stage, done))
    )
    assert [stage for stage, _ in seen] == ["read", "normalize", "infer", "label", "done"]
    assert [done for _, done in seen] == sorted(done for _, done in seen)
    assert seen[-1][1] == 1.0


@pytest.fixture
def folder(small_case: Case, tmp_path: Path) -> Path:
    images, affine = small_case
    (tmp_path / "case").mkdir()
    for name, image in zip(MODALITIES, images, strict=True):
        nib.Nifti1Image(image, affine).to_filename(tmp_path / f"case/x_{name}.nii.gz")
    return tmp_path / "case"


def test_each_kind_of_case_takes_one_line(
    voxel_segmenter: Segmenter, small_case: Case, folder: Path
) -> None:
    s, (images, affine) = voxel_segmenter, small_case
    flair, t1, t1ce, t2 = images
    paths = {name: folder / f"x_{name}.nii.gz" for name in MODALITIES}
    niftis = {name: nib.load(path) for name, path in paths.items()}
    shuffled = images[[1, 2, 3, 0]]
    results = [
        s.predict(folder),
        s.predict(str(folder)),
        s.predict(**paths),
        s.predict(paths),
        s.predict(**niftis),
        s.predict(niftis),
        s.predict(images, affine=affine),
        s.predict(shuffled, order=("t1", "t1ce", "t2", "flair"), affine=affine),
        s.predict(flair=flair, t1=t1, t1ce=t1ce, t2=t2, affine=affine),
        s.predict({"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2}, affine=affine),
        s.predict(Volume(images, affine)),
        *s.predict_batch([folder, paths, niftis]),
        *s.predict_batch([images, dict(zip(MODALITIES, images, strict=True))], affine=affine),
    ]
    for result in results:
        np.testing.assert_array_equal(result.labels, expected_labels(images))
        assert result.warnings == ()
        assert result.timings_ms["read"] > 0


def test_both_or_no_case_is_refused(voxel_segmenter: Segmenter, folder: Path) -> None:
    with pytest.raises(CaseError, match=r"expected either one case .* or images by name"):
        voxel_segmenter.predict()
    with pytest.raises(CaseError, match=r"expected either one case .* or images by name"):
        voxel_segmenter.predict(folder, flair="f.nii")


def test_each_warning_is_logged_once(
    voxel_segmenter: Segmenter, small_case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="fastbts"):
        result = voxel_segmenter.predict(small_case[0])
        assert [record.getMessage() for record in caplog.records] == list(result.warnings) != []
        list(voxel_segmenter.predict_batch([small_case[0], small_case[0]]))
    assert len(caplog.records) == 3 * len(result.warnings)
    assert {(record.name, record.levelname) for record in caplog.records} == {
        ("fastbts", "WARNING")
    }


def test_nothing_is_printed(
    voxel_segmenter: Segmenter, small_case: Case, capfd: pytest.CaptureFixture[str]
) -> None:
    assert voxel_segmenter.predict(small_case[0]).warnings
    assert capfd.readouterr() == ("", "")


def test_options_are_checked() -> None:
    for wrong, message in [
        ({"mode": "fast"}, "mode 'fast'"),
        ({"overlap": 1.0}, "overlap"),
        ({"n_threads": -1}, "n_threads"),
        ({"n_threads": 1.5}, "n_threads"),
        ({"parallel": 0}, "parallel 0: expected an integer from 1"),
        ({"parallel": True}, "parallel True"),
        ({"min_part_mm3": -1.0}, "min_part_mm3"),
        ({"min_part_mm3": float("nan")}, "min_part_mm3"),
    ]:
        with pytest.raises(OptionsError, match=message):
            SegmenterOptions(**wrong)  # type: ignore[arg-type]


def test_the_block_closes_the_engine(small_case: Case, tmp_path: Path) -> None:
    path = write_voxel_engine(tmp_path / "voxel.fbts")
    with Segmenter(path, warm_up=False) as segmenter:
        segmenter.predict(small_case[0])
    with pytest.raises(DeviceError, match="the engine has been closed; load it again"):
        segmenter.predict(small_case[0])


def test_the_block_leaves_the_engine_of_its_caller(small_case: Case, tmp_path: Path) -> None:
    engine = load_engine(write_voxel_engine(tmp_path / "voxel.fbts"))
    for _ in range(2):
        with Segmenter(engine, warm_up=False) as segmenter:
            segmenter.predict(small_case[0])


def test_wrong_types_of_arguments_are_refused() -> None:
    with pytest.raises(OptionsError, match="engine: expected an engine, the path of its file"):
        Segmenter(42)  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="options: expected SegmenterOptions"):
        Segmenter(options={"mode": "sliding"})  # type: ignore[arg-type]


def test_repr_names_engine_device_and_precision(tmp_path: Path) -> None:
    assert repr(Segmenter(VoxelEngine(), warm_up=False)) == "Segmenter(voxel: test, cpu, fp32)"
    path = write_voxel_engine(tmp_path / "voxel.fbts")
    segmenter = Segmenter(path, backend="openvino", device="cpu", precision="fp32")
    assert repr(segmenter) == "Segmenter(voxel: openvino, cpu, fp32)"


def test_backend_is_chosen_by_name(small_case: Case, tmp_path: Path) -> None:
    path = write_voxel_engine(tmp_path / "voxel.fbts")
    for backend in ("openvino", "onnxruntime"):
        result = Segmenter(path, backend=backend, precision="fp32").predict(small_case[0])
        assert result.report["engine"]["backend"] == backend
        np.testing.assert_array_equal(result.labels, expected_labels(small_case[0]))
    with pytest.raises(OptionsError, match="backend 'torch': expected one of auto, openvino"):
        Segmenter(path, backend="torch")


def test_a_loaded_engine_cannot_be_chosen_again() -> None:
    for choice in ({"backend": "openvino"}, {"precision": "fp32"}, {"trusted_key": "key.pub"}):
        name = next(iter(choice))
        with pytest.raises(
            OptionsError, match=f"{name}: cannot be chosen for an engine that is al"
        ):
            Segmenter(VoxelEngine(), **choice)  # type: ignore[arg-type]


def test_trusted_key_requires_a_signature(tmp_path: Path) -> None:
    from fastbts.engine.signing import generate_keys

    pytest.importorskip("cryptography")
    public = generate_keys(tmp_path / "key")
    with pytest.raises(EngineFileError, match="sign"):
        Segmenter(write_voxel_engine(tmp_path / "voxel.fbts"), trusted_key=public)


@pytest.fixture
def may_load(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Loading an engine waits for this event."""
    from fastbts import segmenter as module

    event, open_engine = threading.Event(), load.open_engine

    def waiting(*args: Any, **kwargs: Any) -> Any:
        assert event.wait(30)
        return open_engine(*args, **kwargs)

    monkeypatch.setattr(module, "open_engine", waiting)
    return event


def test_the_engine_loads_in_the_background(
    may_load: threading.Event, small_case: Case, tmp_path: Path
) -> None:
    path = write_voxel_engine(tmp_path / "voxel.fbts")
    segmenter = Segmenter(path, warm_up=False, background=True)
    assert repr(segmenter) == "Segmenter(voxel: loading)"
    assert segmenter.spec.name == "voxel"

    def go_on(stage: str, _: float) -> None:
        if stage == "load":
            may_load.set()

    result = segmenter.predict(small_case[0], progress=go_on)
    assert result.timings_ms["load"] > 0
    assert segmenter.engine.description["backend"] == "openvino"
    assert "load" not in segmenter.predict(small_case[0]).timings_ms


def test_an_engine_that_fails_to_load_fails_the_batch(
    may_load: threading.Event, small_case: Case, tmp_path: Path
) -> None:
    """It is no fault of the case."""
    path = write_voxel_engine(tmp_path / "voxel.fbts")
    segmenter = Segmenter(path, precision="fp16", warm_up=False, background=True)
    may_load.set()
    calls: list[Callable[[], object]] = [
        lambda: list(segmenter.predict_batch([small_case[0]] * 2)),
        lambda: segmenter.predict(small_case[0]),
        lambda: segmenter.engine,
    ]
    for call in calls:
        with pytest.raises(DeviceError, match="precision 'fp16'"):
            call()
    assert repr(segmenter) == "Segmenter(voxel: failed to load)"
    segmenter.close()
    with pytest.raises(EngineFileError, match=r"none\.fbts"):
        Segmenter(tmp_path / "none.fbts", background=True)


def test_unknown_names_are_refused_before_loading(tmp_path: Path) -> None:
    for name in ("backend", "device", "precision"):
        with pytest.raises(OptionsError, match=f"{name} 'nothing': expected one of auto"):
            Segmenter(tmp_path / "absent.fbts", **{name: "nothing"}, background=True)
