"""A case that lacks an image: only on request, with an engine trained for it, with a warning."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from fastbts import (
    MODALITIES,
    CaseError,
    OptionsError,
    Segmenter,
    SegmenterOptions,
    Volume,
    read_case,
)
from fastbts.cli import app
from tests.conftest import VoxelEngine, write_voxel_engine
from tests.test_segmenter import expected_labels

Case = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def tolerant() -> Segmenter:
    return allowing(MODALITIES)


def allowing(optional: tuple[str, ...]) -> Segmenter:
    return Segmenter(
        VoxelEngine(optional_modalities=optional),
        options=SegmenterOptions(allow_missing=True),
        warm_up=False,
    )


def named(images: np.ndarray, without: str) -> dict[str, np.ndarray]:
    return {m: image for m, image in zip(MODALITIES, images, strict=True) if m != without}


def write_case(folder: Path, images: np.ndarray, affine: np.ndarray, without: str) -> Path:
    folder.mkdir()
    for modality, image in named(images, without).items():
        nib.Nifti1Image(image, affine).to_filename(folder / f"x_{modality}.nii.gz")
    return folder


def test_a_modality_that_the_network_does_not_look_at_changes_nothing(
    tolerant: Segmenter, small_case: Case
) -> None:
    images, affine = small_case
    result = tolerant.predict(**named(images, "t1"), affine=affine)
    np.testing.assert_array_equal(result.labels, expected_labels(images))


def test_without_flair_nothing_is_oedema(tolerant: Segmenter, small_case: Case) -> None:
    """A zero is the brain's mean, one standard deviation below what VoxelEngine calls tumour."""
    images, affine = small_case
    wanted = expected_labels(images)
    labels = tolerant.predict(**named(images, "flair"), affine=affine).labels
    np.testing.assert_array_equal(labels, np.where(wanted == 2, 0, wanted))


def test_all_kinds_of_input_agree_and_the_report_has_it(
    tolerant: Segmenter, small_case: Case, tmp_path: Path
) -> None:
    images, affine = small_case
    kept = named(images, "t2")
    folder = write_case(tmp_path / "case", images, affine, "t2")
    volume = read_case(folder, optional=tolerant.spec.optional_modalities)
    results = [
        tolerant.predict(volume),
        tolerant.predict(folder),
        tolerant.predict(kept, affine=affine),
        tolerant.predict(**kept, affine=affine),
        tolerant.predict(**{m: nib.Nifti1Image(image, affine) for m, image in kept.items()}),
        tolerant.predict(**{m: folder / f"x_{m}.nii.gz" for m in reversed(kept)}),
        *tolerant.predict_batch([folder]),
    ]
    for result in results:
        np.testing.assert_array_equal(result.labels, results[0].labels)
        assert result.report["input"]["modalities"] == ["flair", "t1", "t1ce"]
        assert result.report["input"]["missing"] == ["t2"]
        assert list(result.report["preprocessing"]["clip_low_high_mean_std"]) == [
            "flair",
            "t1",
            "t1ce",
        ]
        assert result.report["warnings"] == [
            "t2: missing; the engine was trained for that, but the result is less certain"
        ]
    assert list(results[0].report["input"]["sha256"]) == ["flair", "t1", "t1ce"]


def test_a_complete_case_has_no_warning(tolerant: Segmenter, small_case: Case) -> None:
    report = tolerant.predict(small_case[0], affine=small_case[1]).report
    assert report["input"]["missing"] == report["warnings"] == []


def test_refused_where_the_engine_needs_it(small_case: Case, tmp_path: Path) -> None:
    images, affine = small_case
    strict = allowing(("t1",))
    assert strict.predict(**named(images, "t1"), affine=affine).report["input"]["missing"] == ["t1"]
    kept = named(images, "flair")
    volume = Volume(np.stack(list(kept.values())), affine, tuple(kept))
    with pytest.raises(
        CaseError,
        match="no image for flair; got t1, t1ce, t2; the engine needs flair, t1ce, t2; give the",
    ):
        strict.predict(volume)
    with pytest.raises(CaseError, match="no image for flair"):
        strict.predict(**kept, affine=affine)
    folder = write_case(tmp_path / "case", images, affine, "flair")
    with pytest.raises(CaseError, match="no file for flair"):
        list(strict.predict_batch([folder], stop_on_error=True))
    with pytest.raises(CaseError, match="no file for flair"):
        read_case(folder, optional=("t1",))


def test_refused_unless_allowed_for_every_kind_of_input(small_case: Case, tmp_path: Path) -> None:
    images, affine = small_case
    unasked = Segmenter(VoxelEngine(optional_modalities=MODALITIES), warm_up=False)
    assert unasked.spec.optional_modalities == ()
    kept, folder = named(images, "t1"), write_case(tmp_path / "case", images, affine, "t1")
    volume = Volume(np.stack(list(kept.values())), affine, tuple(kept))
    refused = r"no image for t1; .* needs flair, t1, t1ce, t2; .*Options\(allow_missing=True\)"
    with pytest.raises(CaseError, match=refused):
        unasked.predict(volume)
    with pytest.raises(CaseError, match=refused):
        unasked.predict(**kept, affine=affine)
    with pytest.raises(CaseError, match=refused):
        list(unasked.predict_batch([volume], stop_on_error=True))
    with pytest.raises(
        CaseError, match=r"no file for t1; .*SegmenterOptions\(allow_missing=True\)"
    ):
        list(unasked.predict_batch([folder], stop_on_error=True))
    with pytest.raises(OptionsError, match="allow_missing 'no': expected True or False"):
        SegmenterOptions(allow_missing="no")  # type: ignore[arg-type]


def test_one_modality_must_be_given(tolerant: Segmenter, small_case: Case) -> None:
    images, affine = small_case
    assert tolerant.predict(t1ce=images[2], affine=affine).report["input"]["missing"] == [
        "flair",
        "t1",
        "t2",
    ]
    with pytest.raises(CaseError, match="the engine needs at least one of flair, t1, t1ce, t2"):
        tolerant.predict(Volume(images[:1], affine, ("swi",)))


def test_command_line(small_case: Case, tmp_path: Path) -> None:
    folder = write_case(tmp_path / "case", *small_case, "t1")
    engines = {
        optional: write_voxel_engine(tmp_path / f"{optional}.fbts", optional_modalities=[optional])
        for optional in ("t1", "t2")
    }
    by_name = [
        x for m in ("flair", "t1ce", "t2") for x in (f"--{m}", str(folder / f"x_{m}.nii.gz"))
    ]
    for case in ([str(folder)], by_name):
        done = CliRunner().invoke(
            app,
            [
                "predict",
                *case,
                "--allow-missing",
                "-o",
                str(tmp_path / "out"),
                "--engine",
                str(engines["t1"]),
            ],
        )
        assert done.exit_code == 0, done.output
        assert "warning: t1: missing" in done.output
        np.testing.assert_array_equal(
            np.asarray(nib.load(tmp_path / "out/seg.nii.gz").dataobj),
            expected_labels(small_case[0]),
        )
        refused = CliRunner().invoke(
            app,
            [
                "predict",
                *case,
                "--allow-missing",
                "-o",
                str(tmp_path / "none"),
                "--engine",
                str(engines["t2"]),
            ],
        )
        assert refused.exit_code == 1
        assert refused.output.count("error:") == 1
        assert "t1" in refused.output
        assert not list(tmp_path.glob("none/*"))
        unasked = CliRunner().invoke(
            app, ["predict", *case, "-o", str(tmp_path / "none"), "--engine", str(engines["t1"])]
        )
        assert unasked.exit_code == 1, "only on request: the file may just be misnamed"
        assert "--allow-missing" in unasked.output
        assert not list(tmp_path.glob("none/*"))
    assert "may be missing t1" in CliRunner().invoke(app, ["info", str(engines["t1"])]).output
