"""The files of one result are a set: they replace an earlier result of ours, and nothing else."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fastbts import OutputError, Segmentation, Segmenter
from fastbts.files import atomic_write, write_json, write_set
from fastbts.write.ours import is_ours, listed_files, own_report
from tests.conftest import VoxelEngine
from tests.write.result_files import contents, is_one_run

Save = Callable[..., list[Path]]
CHOICES: list[dict[str, Any]] = [{}, {"labels": "regions"}, {"preview": "preview.png"}]


def case(seed: int) -> Segmentation:
    images = np.zeros((4, 20, 24, 16), np.int16)
    images[:, 2:18, 3:21, 2:14] = np.random.default_rng(seed).integers(50, 900, (4, 16, 18, 12))
    return Segmenter(VoxelEngine(), warm_up=False).predict(images, affine=np.eye(4))


def save(result: Segmentation, folder: Path, **choice: Any) -> list[Path]:
    """As `fastbts predict` does, with the names of a result folder."""
    if "preview" in choice:
        choice["preview"] = folder / choice["preview"]
    return result.save(folder / "seg.nii.gz", sidecar=folder / "report.json", **choice)


@pytest.fixture(scope="module")
def results() -> tuple[Segmentation, Segmentation]:
    return case(1), case(2)


@pytest.fixture(params=["nameless", "named"])
def _temporary_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


def a_persons_image(path: Path) -> None:
    nib.Nifti1Image(np.full((20, 24, 16), 7, np.uint8), np.eye(4)).to_filename(path)


def a_persons_picture(path: Path) -> None:
    Image.new("RGB", (4, 4)).save(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("seg.nii.gz", a_persons_image),
        ("seg.nii.gz", lambda path: path.write_bytes(b"")),
        ("seg.nii.gz", lambda path: path.symlink_to("nowhere")),
        ("report.json", lambda path: path.write_text('{"patient": "notes"}')),
        ("report.json", lambda path: path.write_text("[" * 9999)),
        ("preview.png", a_persons_picture),
    ],
)
def test_files_of_others_are_not_replaced(
    results: tuple[Segmentation, Segmentation],
    tmp_path: Path,
    name: str,
    write: Callable[[Path], None],
) -> None:
    write(tmp_path / name)
    message = rf"{name}: exists, and fastbts did not write it .*; expected .*--overwrite"
    with pytest.raises(OutputError, match=message):
        save(results[0], tmp_path, preview="preview.png")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    save(results[0], tmp_path, preview="preview.png", overwrite=True)
    assert all(map(is_ours, tmp_path.iterdir()))


def test_a_corrected_mask_is_not_ours(
    results: tuple[Segmentation, Segmentation], tmp_path: Path
) -> None:
    """nibabel keeps our comment when a person changes voxels and saves the image."""
    image, *_ = save(results[0], tmp_path)
    assert is_ours(image)
    given = nib.load(image)
    labels = np.asarray(given.dataobj).copy()
    labels[5, 5, 5] = 4 - labels[5, 5, 5]
    nib.Nifti1Image(labels, given.affine, given.header).to_filename(image)
    with pytest.raises(OutputError, match=r"seg\.nii\.gz: exists, .*or it was changed since"):
        save(results[1], tmp_path)


@pytest.mark.parametrize("new", CHOICES)
@pytest.mark.parametrize("old", CHOICES)
def test_an_earlier_result_is_replaced_as_a_whole(
    results: tuple[Segmentation, Segmentation],
    tmp_path: Path,
    old: dict[str, Any],
    new: dict[str, Any],
) -> None:
    save(results[0], tmp_path, **old)
    a_persons_image(tmp_path / "seg.nii")
    written = save(results[1], tmp_path, **new)
    expected = sorted([*(path.name for path in written), "seg.nii"])
    assert sorted(contents(tmp_path)) == expected


def test_another_suffix_or_sidecar_is_an_earlier_result(
    results: tuple[Segmentation, Segmentation], tmp_path: Path
) -> None:
    results[0].save(tmp_path / "seg.nii")
    results[1].save(tmp_path / "seg.nii.gz")
    assert sorted(contents(tmp_path)) == ["seg.json", "seg.nii.gz"]
    save(results[0], tmp_path)
    assert sorted(contents(tmp_path)) == ["report.json", "seg.nii.gz"]


def test_other_results_in_the_folder_stay(
    results: tuple[Segmentation, Segmentation], tmp_path: Path
) -> None:
    """Also of the same case, if they have a report of their own."""
    results[0].save(tmp_path / "seg.nii.gz", labels="regions", sidecar=tmp_path / "masks.json")
    results[0].save(tmp_path / "seg_2.nii.gz", preview=tmp_path / "seg_2.png")
    before = contents(tmp_path)
    save(results[1], tmp_path)
    assert contents(tmp_path).items() >= before.items()


def test_a_report_names_no_files_elsewhere(
    results: tuple[Segmentation, Segmentation], tmp_path: Path
) -> None:
    other, *_ = results[0].save(tmp_path / "other.nii.gz")
    folder = tmp_path / "out"
    save(results[0], folder)
    report = json.loads((folder / "report.json").read_text())
    report["files_sha256"]["../other.nii.gz"] = ""
    (folder / "report.json").write_text(json.dumps(report))
    with pytest.raises(OutputError, match=r"report\.json: exists, and fastbts did not write it"):
        save(results[1], folder)
    save(results[1], folder, overwrite=True)
    assert other.exists()


@pytest.mark.parametrize("listed", [["seg.nii.gz"], {"": "0"}, {"..": "0"}, {"../x": "0"}, {}])
def test_a_report_without_files_of_its_folder_is_not_ours(listed: Any, tmp_path: Path) -> None:
    report = {"software": {"fastbts": "0"}, "files_sha256": {"seg.nii.gz": "0"}}
    write_json(tmp_path / "report.json", report)
    assert own_report(tmp_path / "report.json") == report
    write_json(tmp_path / "report.json", report | {"files_sha256": listed})
    assert own_report(tmp_path / "report.json") is None
    assert listed_files(tmp_path / "report.json") == {}


def test_equal_labels_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save(case(1), tmp_path / name, preview="preview.png")
    one, two = (contents(tmp_path / name) for name in "ab")
    assert one["seg.nii.gz"] == two["seg.nii.gz"]
    assert one["preview.png"] == two["preview.png"]


def save_until(step: int, result: Segmentation, folder: Path, choice: dict[str, Any]) -> bool:
    """Saves in a forked process, which is killed before the n-th system call; True if it was."""
    child = os.fork()
    if child == 0:
        count = itertools.count()

        def killing(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*args: Any, **kwargs: Any) -> Any:
                if next(count) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return counted

        for name in ("replace", "unlink", "link", "fsync", "open"):
            setattr(os, name, killing(getattr(os, name)))
        save(result, folder, **choice)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("_temporary_files")
@pytest.mark.parametrize(
    "choice", [*CHOICES[:2], pytest.param(CHOICES[2], marks=pytest.mark.slow)], ids=str
)
def test_kill_at_each_system_call(
    results: tuple[Segmentation, Segmentation], tmp_path: Path, choice: dict[str, Any]
) -> None:
    save(results[0], tmp_path / "old", preview="preview.png")
    save(results[1], tmp_path / "new", **choice)
    old, new = (contents(tmp_path / name) for name in ("old", "new"))
    for step in itertools.count():
        folder = Path(shutil.copytree(tmp_path / "old", tmp_path / str(step)))
        killed = save_until(step, results[1], folder, choice)
        assert is_one_run(folder, old, new), (step, sorted(contents(folder)))
        save(results[0], folder)
        assert sorted(contents(folder)) == ["report.json", "seg.nii.gz"], step
        if not killed:
            break
    assert step > 8


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE, and temporaries without names")
def test_full_disk_leaves_the_earlier_result(
    results: tuple[Segmentation, Segmentation], tmp_path: Path
) -> None:
    """write(2) fails at any of the files: the process may write files of at most n bytes."""
    save(results[0], tmp_path, preview="preview.png")
    before = contents(tmp_path)
    sizes = sorted(len(content) for content in before.values())
    for limit in (0, sizes[0] - 1, sizes[1] - 1, sizes[2] - 2000):
        child = os.fork()
        if child == 0:
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                save(results[1], tmp_path, preview="preview.png")
            except OutputError as error:
                os._exit(3 if "cannot write: File too large" in str(error) else 4)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3, limit
        assert contents(tmp_path) == before


@pytest.mark.slow
def test_two_at_once_do_not_mix(results: tuple[Segmentation, Segmentation], tmp_path: Path) -> None:
    """Threads lock each other out as processes do: each opens the folder itself."""
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            for _ in range(6):
                save(results[n % 2], tmp_path, **CHOICES[n % 3])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    report = json.loads((tmp_path / "report.json").read_text())
    assert sorted(contents(tmp_path)) == sorted([*report["files_sha256"], "report.json"])
    for name, digest in report["files_sha256"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


def test_temporaries_of_the_living_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a killed process go; those of one that still writes have a lock."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    script = (
        "import os, sys; del os.O_TMPFILE\n"
        "from fastbts.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file: print('writing', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "slow")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as child:
        assert child.stdout
        assert child.stdout.readline() == b"writing\n"
        (waiting,) = tmp_path.glob(".fastbts-*.tmp")
        with atomic_write(tmp_path / "file"):
            pass
        assert waiting.exists()
        child.kill()
    with atomic_write(tmp_path / "file"):
        assert not waiting.exists()


def test_an_empty_set_writes_nothing(tmp_path: Path) -> None:
    with write_set():
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["path", "sidecar", "preview"])
def test_a_nul_in_a_name_is_refused(
    results: tuple[Segmentation, Segmentation], tmp_path: Path, what: str
) -> None:
    names = {"path": tmp_path / "seg.nii.gz", what: tmp_path / "a\0b.nii.gz"}
    with pytest.raises(OutputError, match="has a NUL in its name"):
        results[0].save(**names)
    assert contents(tmp_path) == {}


def test_images_of_other_names_with_one_sidecar_stay(
    results: tuple[Segmentation, Segmentation], tmp_path: Path
) -> None:
    for result, name in zip(results, ("a.nii.gz", "b.nii.gz"), strict=True):
        result.save(tmp_path / name, sidecar=tmp_path / "report.json")
    assert set(contents(tmp_path)) == {"a.nii.gz", "b.nii.gz", "report.json"}
