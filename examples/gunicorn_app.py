"""A WSGI application for gunicorn: the volumes of a case by its name.

    pip install '.[examples]'
    FASTBTS_CASES=DATASET gunicorn --config examples/gunicorn_conf.py examples.gunicorn_app:app
    curl localhost:8000/sub-01    # {"WT": 61.2, "TC": 22.9, "ET": 15.3}

Each worker process loads an engine of its own after the fork (see `gunicorn_conf.py`), as engines
do not survive a fork; the threads of a worker share it.
"""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from fastbts import FastBTSError, Segmenter, SegmenterOptions, find_cases

segmenter: Segmenter | None = None


def load(n_threads: int) -> None:
    """Loads the engine of this process."""
    global segmenter
    segmenter = Segmenter(options=SegmenterOptions(n_threads=n_threads))


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers GET /NAME. Only names of cases in FASTBTS_CASES are known, so no path gets out."""
    status, answer = answer_to(environ["PATH_INFO"].strip("/"))
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def answer_to(name: str) -> tuple[str, dict[str, Any]]:
    """HTTP status and volumes in ml, or what is wrong."""
    assert segmenter is not None, "post_fork loads it"
    cases = find_cases(os.environ["FASTBTS_CASES"])
    if name not in cases:
        return "404 Not Found", {"error": f"no case {name}; expected one of {', '.join(cases)}"}
    try:
        return "200 OK", dict(segmenter.predict(cases[name]).volumes_ml)
    except FastBTSError as error:
        message = str(error).replace(str(cases[name]), name)
        return "422 Unprocessable Content", {"error": message}
