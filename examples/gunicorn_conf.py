"""Settings of gunicorn for `gunicorn_app.py`, which says how to run it."""

import os
from typing import Any

bind = "127.0.0.1:8000"
workers = 2
threads = 4  # they share the worker's segmenter; one computes, the others wait or send
timeout = 120  # seconds; a case on a slow CPU takes longer than gunicorn's 30
preload_app = False  # fine either way, as no engine is loaded before the fork


def post_fork(server: Any, worker: Any) -> None:
    """Gives each worker an engine with its share of the CPUs."""
    from examples import gunicorn_app

    gunicorn_app.load(n_threads=max(1, len(os.sched_getaffinity(0)) // server.num_workers))
