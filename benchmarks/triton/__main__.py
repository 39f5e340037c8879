"""Requests of several clients at once to Triton, some of them bad; each answer is checked.

    make triton-env
    python -m benchmarks.triton [--requests 200] [--clients 8] [--shape 80 80 64] [--json FILE]

One instance of the shipped engine on the CPU; the clients are threads of this process, half of them
over HTTP, half over gRPC. Every fifth request is one that fastbts refuses. `wrong` counts good
requests whose labels are not those of `Segmenter.predict`, and bad ones that were not refused with
its message. The seconds are those of the good requests: from the client's arrays to its labels, so
with the wait for the requests before. The images are synthetic, of 1 mm. For its times the machine
must do nothing else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.triton.client import PROTOCOLS, Client
from benchmarks.triton.server import Server, serving
from fastbts import FastBTSError, Segmenter, __version__
from fastbts.build.triton import export_triton
from fastbts.engine.load import default_engine_path
from fastbts.phantom import make_case

SEGMENTER_ONLY = ("--model-control-mode=explicit", "--load-model=fastbts")
"""The server of PyPI has no ONNX Runtime backend, so no model of the network alone."""
EVERY = 5  # one bad request in so many


@dataclass(frozen=True)
class Request:
    """What is sent, and what `Segmenter.predict` says: labels, or the message of its error."""

    images: NDArray[np.float32]
    affine: NDArray[np.float64]
    labels: NDArray[np.uint8] | None = None
    message: str = ""

    def is_right(self, answer: NDArray[np.uint8] | str) -> bool:
        """Whether an answer, labels or a message, is what is expected."""
        if self.labels is None or isinstance(answer, str):
            return self.labels is None and isinstance(answer, str) and self.message in answer
        return np.array_equal(answer, self.labels)


@dataclass(frozen=True)
class Answered:
    """How one request went."""

    protocol: str
    good: bool
    right: bool
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parsed(arguments)
    with tempfile.TemporaryDirectory() as made:
        repository = Path(made) / "repository"
        export_triton(default_engine_path(), repository)
        with serving(repository, *SEGMENTER_ONLY) as server:
            requests = list(expected_requests(tuple(given.shape)))
            start = time.perf_counter()
            answered = ask_all(server, requests, given.requests, given.clients)
            seconds = time.perf_counter() - start
    results = {
        "fastbts": __version__,
        "shape": given.shape,
        "clients": given.clients,
        "requests_per_s": round(len(answered) / seconds, 2),
        **summary(answered),
        "machine": machine(),
    }
    text = json.dumps(results, indent=1)
    if given.json:
        given.json.write_text(text + "\n")
    print(text)


def expected_requests(shape: tuple[int, int, int]) -> Iterator[Request]:
    """Two cases, and two bad requests: an image twice, and an affine that is none."""
    with Segmenter() as segmenter:
        for seed in (0, 1):
            images = make_case(seed, shape=shape).volume.data.astype(np.float32)
            yield Request(images, np.eye(4), segmenter.predict(images, affine=np.eye(4)).labels)
        for bad, affine in ((images[[0, 0, 2, 3]], np.eye(4)), (images, np.ones((4, 4)))):
            try:
                segmenter.predict(bad, affine=affine)
            except FastBTSError as error:
                yield Request(bad, affine, message=f"{type(error).__name__}: {error}")


def ask_all(
    server: Server, requests: Sequence[Request], n_requests: int, n_clients: int
) -> list[Answered]:
    """Sends so many requests, shared among so many clients at once."""

    def ask_some(client: int) -> list[Answered]:
        protocol = PROTOCOLS[client % 2]
        with Client(protocol, getattr(server, protocol)) as connection:
            mine = range(client, n_requests, n_clients)
            return [_ask(connection, protocol, _chosen(requests, number)) for number in mine]

    with ThreadPoolExecutor(n_clients) as pool:
        return [answer for some in pool.map(ask_some, range(n_clients)) for answer in some]


def _chosen(requests: Sequence[Request], number: int) -> Request:
    good = [request for request in requests if request.labels is not None]
    bad = [request for request in requests if request.labels is None]
    among = bad if number % EVERY == EVERY - 1 else good
    return among[number // EVERY % len(among)]


def _ask(connection: Client, protocol: str, request: Request) -> Answered:
    from tritonclient.utils import InferenceServerException

    start = time.perf_counter()
    try:
        answer: NDArray[np.uint8] | str = connection.segment(request.images, request.affine)[0]
    except InferenceServerException as error:
        answer = str(error)
    seconds = time.perf_counter() - start
    return Answered(protocol, request.labels is not None, request.is_right(answer), seconds)


def summary(answered: Sequence[Answered]) -> dict[str, Any]:
    """Counts, and the median and 95th percentile of the good requests' seconds by protocol."""
    good = [answer for answer in answered if answer.good]
    counts: dict[str, Any] = {
        "requests": len(answered),
        "bad": len(answered) - len(good),
        "refused": sum(answer.right for answer in answered if not answer.good),
        "wrong": sum(not answer.right for answer in answered),
    }
    for protocol in PROTOCOLS:
        seconds = [answer.seconds for answer in good if answer.protocol == protocol]
        p50, p95 = np.percentile(seconds, [50, 95])
        counts[protocol] = {"n": len(seconds), "p50_s": round(p50, 3), "p95_s": round(p95, 3)}
    return counts


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--shape", type=int, nargs=3, default=(80, 80, 64))
    parser.add_argument("--json", type=Path, help="file for the results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
