"""A web service: cases wait in a queue, a thread segments them, clients ask how far they are.

    pip install '.[examples]'
    uvicorn examples.fastapi_service:app    # http://127.0.0.1:8000; one process, one engine
    curl -F flair=@f.nii -F t1=@t1.nii -F t1ce=@t1c.nii -F t2=@t2.nii localhost:8000/cases
    curl localhost:8000/cases/ID    # {"state": "running", "stage": "infer", "fraction": ...}
    curl -O localhost:8000/cases/ID/seg.nii.gz
    curl localhost:8000/health    # {"waiting": 0, "backend": "openvino", ...}

For others to use it, put a proxy with TLS, logins and a limit of sizes in front of it.
"""

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, UploadFile
from fastapi.responses import FileResponse

from fastbts import Segmenter

MAX_WAITING = 16
cases: dict[str, dict[str, Any]] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The engine is loaded once, when the service starts; results last until it ends."""
    with tempfile.TemporaryDirectory() as folder, Segmenter() as segmenter:
        app.state.folder, app.state.segmenter = Path(folder), segmenter
        app.state.pool = ThreadPoolExecutor(max_workers=1)  # its queue is the service's
        yield
        app.state.pool.shutdown(cancel_futures=True)


app = FastAPI(lifespan=lifespan)


def segment(case: dict[str, Any], folder: Path) -> None:
    """Segments the images of a folder; `case` is what clients see meanwhile."""
    images = {path.stem: path for path in folder.iterdir()}
    case["state"] = "running"
    try:
        result = app.state.segmenter.predict(
            images, progress=lambda stage, done: case.update(stage=stage, fraction=done)
        )
        result.save(folder / "seg.nii.gz")
        case.update(state="done", volumes_ml=result.volumes_ml, warnings=result.warnings)
    except Exception as error:  # of this case; the service goes on
        case.update(state="failed", message=str(error).replace(f"{folder}/", ""))


def n_waiting() -> int:
    """Cases in the queue."""
    return sum(case["state"] == "waiting" for case in list(cases.values()))


@app.post("/cases", status_code=202)
def add(flair: UploadFile, t1: UploadFile, t1ce: UploadFile, t2: UploadFile) -> dict[str, Any]:
    """Puts a case into the queue."""
    if n_waiting() >= MAX_WAITING:
        raise HTTPException(503, "the queue is full; try again later", {"Retry-After": "10"})
    case = {"id": uuid.uuid4().hex, "state": "waiting"}
    folder = app.state.folder / case["id"]
    folder.mkdir()
    for modality, image in {"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2}.items():
        with (folder / f"{modality}.nii").open("wb") as file:  # gzip is recognised by its content
            shutil.copyfileobj(image.file, file)
    cases[case["id"]] = case
    app.state.pool.submit(segment, case, folder)
    return case


@app.get("/cases/{name}")
def state(name: str) -> dict[str, Any]:
    """How far a case is; with its volumes when it is done."""
    if name not in cases:
        raise HTTPException(404, "no such case")
    return dict(cases[name])  # a copy: the thread goes on changing it


@app.get("/cases/{name}/seg.nii.gz")
def labels(name: str) -> FileResponse:
    """The labels of a case."""
    if state(name)["state"] != "done":
        raise HTTPException(409, "the case is not done")
    return FileResponse(app.state.folder / name / "seg.nii.gz")


@app.get("/health")
def health() -> dict[str, Any]:
    """Answers while cases are computed, too."""
    return {"waiting": n_waiting(), **app.state.segmenter.engine.description}
