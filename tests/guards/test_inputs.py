"""Inputs that once gave wrong or no results, by command line and in Python.

Their generators are in `shared/inputs` beside the checkout, like the real cases, which half of them
change. Each item says what must happen.
"""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastbts import FastBTSError, Segmentation, Segmenter
from fastbts.metrics import region_dice
from tests.conftest import ROOT

pytestmark = [pytest.mark.data, pytest.mark.guard, pytest.mark.slow]
GENERATORS = ROOT.parent / "shared/inputs"
CASE = "Brats18_CBICA_AMH_1"


@dataclass(frozen=True)
class Item:
    """A situation and what must happen.

    Attributes:
        folder: Generator and folder that it writes.
        options: Of `fastbts predict`.
        warning: Part of a warning; None for no warning at all, "" for any.
        error: Part of the error; None for success.
        like: The case whose labels it must have nearly: "real", "phantom", or None.
    """

    folder: str
    options: tuple[str, ...] = ()
    warning: str | None = None
    error: str | None = None
    like: str | None = "phantom"


BACKGROUND, ORDER, ALIGNMENT = "01-ringing-background", "02-channel-order", "03-not-registered"
NAMES = "13-names-of-other-tools"
ITEMS = [
    Item(f"{BACKGROUND}/flair-only-rings", warning="background", like="real"),
    Item(f"{BACKGROUND}/zscored-brain-ok", like="real"),
    *(
        Item(f"{ORDER}/{name}", warning="look like", like=None)
        for name in (
            *("nnunet-order", "monai-bundle-order"),
            *("t1-t1ce-swapped-ok", "flair-t2-swapped-ok"),
        )
    ),
    Item(f"{ALIGNMENT}/flair-shifted-15mm", warning="flair", like=None),
    Item(f"{ALIGNMENT}/flair-slab-half-missing", warning="flair", like=None),
    Item("08-quaternion-rounding/qform-only"),
    Item("08-quaternion-rounding/sform-too"),
    Item("08-quaternion-rounding/sform-good-qform-garbage", warning="qform"),
    Item("10-pixdim-not-positive/negative-y"),
    Item("10-pixdim-not-positive/zero"),
    *(
        Item(f"11-affine-differs-a-little/flair-{mm}mm")
        for mm in ("0.0005", "0.002", "0.005", "0.02")
    ),
    *(
        Item(f"{NAMES}/{name}")
        for name in (
            *("captk", "hd-glio", "lumiere", "brats-toolkit", "pre-post", "t2-flair", "t1gad"),
            *("dots", "bids-acq", "bids-full-ok", "ucsf-ok"),
        )
    ),
    Item("14-four-images-in-one-file/msd", ("--channels", "flair,t1,t1ce,t2")),
    Item("14-four-images-in-one-file/msd", error="--channels"),
    Item("15-sheared-a-little/shear-0.0005"),
    Item("15-sheared-a-little/shear-0.005", warning="not perpendicular"),
    Item("16-nan-outside/one-edge-slice", warning="NaN", like="real"),
    Item("16-nan-outside/all-background", warning="NaN", like="real"),
    Item("20-annex/symlinks", error="git annex get"),
    Item("20-annex/pointers", error="git annex get"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    """All that the generators write."""
    if not GENERATORS.is_dir():
        pytest.skip("no shared/inputs beside the checkout")
    folder = tmp_path_factory.mktemp("inputs")
    for script in sorted(GENERATORS.glob("[012]*.py")):
        case = [str(data_folder / CASE)] if "BASE = " in script.read_text() else []
        subprocess.run([sys.executable, script, folder / script.stem, *case], check=True)
    return folder


@pytest.fixture(scope="module")
def segmenter() -> Iterator[Segmenter]:
    with Segmenter() as segmenter:
        yield segmenter


@pytest.fixture(scope="module")
def good(inputs: Path, data_folder: Path, segmenter: Segmenter) -> dict[str, Segmentation]:
    """The results without the fault."""
    phantom = inputs / "06-output-is-a-file-name/case"
    return {
        "real": segmenter.predict(data_folder / CASE),
        "phantom": segmenter.predict(phantom),
    }


def command(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "fastbts", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item.folder}{item.options or ''}")
def test_item(
    item: Item, inputs: Path, good: dict[str, Segmentation], segmenter: Segmenter, tmp_path: Path
) -> None:
    ran = command("predict", inputs / item.folder, "-o", tmp_path / "out", *item.options)
    order = item.options[1].split(",") if item.options else None
    if item.error:
        assert ran.returncode == 1
        assert item.error in ran.stderr
        assert "Traceback" not in ran.stderr
        with pytest.raises(FastBTSError):
            segmenter.predict(inputs / item.folder, order=order)
        return
    assert ran.returncode == 0, ran.stderr
    result = segmenter.predict(inputs / item.folder, order=order)
    image = nib.load(tmp_path / "out/seg.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), result.labels)
    assert_itk_can_open(image)
    warnings = json.loads((tmp_path / "out/report.json").read_text())["warnings"]
    assert warnings == list(result.warnings)
    if item.warning is None:
        assert warnings == list(good[item.like].warnings if item.like else [])
    else:
        assert any(item.warning in warning for warning in warnings), warnings
    if item.like:
        assert min(region_dice(result.labels, good[item.like].labels).values()) > 0.98


def assert_itk_can_open(image: nib.Nifti1Image) -> None:
    """ITK takes the axes from the qform or the sform, and refuses axes that are not orthonormal."""
    assert image.header["qform_code"] > 0
    axes = image.get_qform()[:3, :3] / np.linalg.norm(image.get_qform()[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-5)


@pytest.mark.parametrize("whole", [False, True], ids=["sessions", "dataset"])
def test_sessions_of_a_bids_dataset(inputs: Path, tmp_path: Path, whole: bool) -> None:
    root = inputs / "12-bids-anat/ds"
    given = [root] if whole else sorted(root.glob("sub-*/ses-*/anat"))
    ran = command("predict", *given, "-o", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    names = {path.parent.name for path in (tmp_path / "out").glob("*/seg.nii.gz")}
    assert names == {f"sub-0{sub}_ses-0{ses}" for sub in (1, 2) for ses in (1, 2)}


@pytest.mark.parametrize("busy", [["idle"], []], ids=["idle", "busy"])
def test_forked_workers_do_not_hang(inputs: Path, busy: list[str]) -> None:
    service = inputs / "04-fork-with-threads/service.py"
    ran = subprocess.run([sys.executable, service, *busy], text=True, capture_output=True)
    assert ran.returncode == 0, ran.stdout
    assert "spawn" in ran.stderr


def test_labels_of_a_person_are_not_overwritten(inputs: Path) -> None:
    own = inputs / "05-output-over-truth/own"
    before = (own / "seg.nii.gz").read_bytes()
    ran = command("predict", own, "-o", own)
    assert ran.returncode == 1
    assert "--overwrite" in ran.stderr
    assert (own / "seg.nii.gz").read_bytes() == before


def test_output_may_be_a_file(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x/case_seg.nii.gz"
    ran = command("predict", inputs / "06-output-is-a-file-name/case", "-o", out)
    assert ran.returncode == 0, ran.stderr
    assert {p.name for p in out.parent.iterdir()} == {"case_seg.nii.gz", "case_seg.json"}


@pytest.mark.parametrize(("redirection", "code"), [("2>&-", 0), (">&-", 0), (">/dev/full", 1)])
def test_streams_may_be_closed(inputs: Path, tmp_path: Path, redirection: str, code: int) -> None:
    words = [sys.executable, "-m", "fastbts", "predict", inputs / "07-no-stderr/case", "-o", "out"]
    line = f"{shlex.join(map(str, words))} {redirection}"
    ran = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr
    assert (tmp_path / "out/seg.nii.gz").is_file()
    assert (tmp_path / "out/report.json").is_file()


@pytest.mark.parametrize("limit_mb", [800, 1000, 1200, 1300])
def test_too_little_memory_is_one_line(inputs: Path, tmp_path: Path, limit_mb: int) -> None:
    case = inputs / "17-too-little-memory/case"
    words = [sys.executable, "-m", "fastbts", "predict", case, "-o", tmp_path / "out"]
    line = f"ulimit -v {limit_mb * 1000}; {shlex.join(map(str, words))}"
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    if ran.returncode:  # it may be enough on another machine
        assert ran.returncode == 1
        assert len([row for row in ran.stderr.splitlines() if row.strip()]) == 1, ran.stderr


def test_images_without_an_affine(inputs: Path) -> None:
    script = inputs / "18-nibabel-image-without-affine/run.py"
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    header, bare = ran.stdout.splitlines()
    assert "WT" in header
    assert bare.startswith("bare GeometryError True")


def test_no_wrong_mask_after_a_lack_of_memory() -> None:
    script = GENERATORS / "30-memory-then-wrong.py"
    if not script.is_file():
        pytest.skip("no shared/inputs beside the checkout")
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True)
    # Its exit code also asks for a call that lacked memory; since the warm-up takes what a large
    # case needs, there may be none. tests/engine/backends/test_failed_calls.py has such calls.
    counts = ast.literal_eval(ran.stdout)
    assert counts.pop("wrong afterwards") == 0
    assert counts.get("ran", 0) + counts.get("typed", 0) == sum(counts.values()) == 20
