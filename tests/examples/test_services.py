"""The example services answer over HTTP, and the notebook runs (extra `examples`)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from fastbts import MODALITIES, Segmenter

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
PATIENCE_S = 300.0


@pytest.fixture
def client() -> Iterator[Any]:
    """A client of the FastAPI service, without a network between them."""
    for name in ("fastapi", "multipart", "httpx"):
        pytest.importorskip(name, reason="pip install '.[examples]'")
    from fastapi.testclient import TestClient

    from examples.fastapi_service import app, cases

    cases.clear()
    with TestClient(app) as client:
        yield client


def sent(client: Any, folder: Path, names: tuple[str, ...] = MODALITIES) -> Any:
    pairs = zip(MODALITIES, names, strict=True)
    files = {m: next(folder.glob(f"*_{n}.nii.gz")).read_bytes() for m, n in pairs}
    return client.post("/cases", files=files)


def ended(client: Any, case: dict[str, str]) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE_S
    while (state := client.get(f"/cases/{case['id']}").json())["state"] not in ("done", "failed"):
        assert time.monotonic() < end, state
        time.sleep(0.02)
    return state


def test_fastapi_segments_a_case(
    client: Any, dataset: Path, tmp_path: Path, shipped_segmenter: Segmenter
) -> None:
    answer = sent(client, dataset / "case_a")
    assert answer.status_code == 202
    assert client.get("/health").json()["backend"] == "openvino"
    state = ended(client, answer.json())
    expected = shipped_segmenter.predict(dataset / "case_a")
    assert (state["state"], state["volumes_ml"]) == ("done", expected.volumes_ml)
    assert (state["stage"], state["fraction"]) == ("done", 1.0)
    labels = client.get(f"/cases/{state['id']}/seg.nii.gz").content
    (tmp_path / "here.nii.gz").write_bytes(labels)
    expected.save(tmp_path / "seg.nii.gz")
    assert labels == (tmp_path / "seg.nii.gz").read_bytes()


def test_fastapi_says_what_is_wrong_with_a_case(client: Any, dataset: Path) -> None:
    same = sent(client, dataset / "case_a", ("flair", "flair", "t1ce", "t2")).json()
    state = ended(client, same)
    assert state["state"] == "failed"
    assert "hold the same voxels" in state["message"]
    assert str(ROOT.anchor + "tmp") not in state["message"], "no path of the server"
    assert client.get(f"/cases/{same['id']}/seg.nii.gz").status_code == 409
    assert client.get("/cases/none").status_code == 404


def test_fastapi_queue_is_bounded(
    client: Any, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples import fastapi_service

    go, running = Event(), Event()

    def held(*_: Any) -> None:
        running.set()
        go.wait(PATIENCE_S)

    monkeypatch.setattr(fastapi_service, "MAX_WAITING", 1)
    monkeypatch.setattr(fastapi_service, "segment", held)
    assert sent(client, dataset / "case_a").status_code == 202
    assert client.get("/health").json()["waiting"] == 1, "also while cases wait"
    full = sent(client, dataset / "case_a")
    go.set()
    assert (full.status_code, full.headers["retry-after"]) == (503, "10")
    assert running.wait(60)


def test_gunicorn_loads_an_engine_after_the_fork(
    dataset: Path, shipped_segmenter: Segmenter, tmp_path: Path
) -> None:
    pytest.importorskip("gunicorn", reason="pip install '.[examples]'")
    variables = {**os.environ, "FASTBTS_CASES": str(dataset)}
    command = [sys.executable, "-m", "gunicorn", "--config", "examples/gunicorn_conf.py"]
    command += ["--bind", "127.0.0.1:0", "--preload", "examples.gunicorn_app:app"]
    log = tmp_path / "gunicorn.log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, cwd=ROOT, env=variables, stderr=stderr) as server,
    ):
        try:
            address = listening(server, log)
            with urllib.request.urlopen(f"{address}/case_a", timeout=300) as answer:
                volumes = json.load(answer)
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{address}/../case_a", timeout=300)
            with pytest.raises(urllib.error.HTTPError, match="422") as refused:
                urllib.request.urlopen(f"{address}/case_c", timeout=300)
            error = json.load(refused.value)["error"]
            assert error.startswith("case_c: no file for t2"), "no path of the server"
        finally:
            stop(server)
    expected = shipped_segmenter.predict(dataset / "case_a").volumes_ml
    assert volumes == pytest.approx(dict(expected), abs=0.1), "half of the threads"


def listening(server: subprocess.Popen[bytes], log: Path) -> str:
    """The address that gunicorn chose; its log says it."""
    end = time.monotonic() + PATIENCE_S
    while not (found := re.search(r"Listening at: (\S+)\s", log.read_text())):
        assert server.poll() is None, f"gunicorn ended: {log.read_text()}"
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return found[1]


def stop(server: subprocess.Popen[bytes]) -> None:
    """Ends a server; one that does not end by itself is killed."""
    server.terminate()
    try:
        server.wait(60)
    except subprocess.TimeoutExpired:
        server.kill()


def test_notebook_runs(tmp_path: Path) -> None:
    for name in ("nbclient", "ipykernel"):
        pytest.importorskip(name, reason="pip install '.[examples]'")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "examples/first_look.ipynb", as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert re.search(r"WT: [1-9][\d.]* ml", "".join(o.get("text", "") for o in outputs))
    assert any("image/png" in output.get("data", {}) for output in outputs), "the picture"
