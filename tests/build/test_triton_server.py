"""The exported repository in a real Triton server: answers as of `predict`, bad input refused.

`make triton-env` installs the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.triton.__main__ import SEGMENTER_ONLY, Request, ask_all, expected_requests, summary
from benchmarks.triton.client import PROTOCOLS, Client
from benchmarks.triton.server import NoServerError, Server, environment, serving
from fastbts.build.triton import export_triton
from fastbts.engine.load import default_engine_path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        environment()
    except NoServerError as error:
        pytest.skip(str(error))
    repository = tmp_path_factory.mktemp("triton")
    export_triton(default_engine_path(), repository)
    with serving(repository, *SEGMENTER_ONLY) as server:
        yield server


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """Two cases and two bad requests, with what `predict` says about them."""
    requests = list(expected_requests((80, 80, 64)))
    assert [request.message.partition(":")[0] for request in requests] == [
        *("", ""), *("CaseError", "GeometryError")
    ]  # fmt: skip
    assert all(request.labels.any() for request in requests[:2] if request.labels is not None)
    return requests


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answers_are_those_of_predict(
    server: Server, requests: list[Request], protocol: str
) -> None:
    if protocol == "http":
        pytest.importorskip("gevent", reason="pip install tritonclient[http]")
    from tritonclient.utils import InferenceServerException

    with Client(protocol, getattr(server, protocol)) as client:
        for request in requests[:2]:
            labels, volumes = client.segment(request.images, request.affine)
            np.testing.assert_array_equal(labels, request.labels)
            assert volumes[0] == pytest.approx(np.count_nonzero(labels) / 1000), "1 mm3 a voxel"
        for request in requests[2:]:
            with pytest.raises(InferenceServerException) as refused:
                client.segment(request.images, request.affine)
            assert refused.value.message() == request.message
            assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")


def test_each_of_many_requests_gets_its_own_answer(server: Server, requests: list[Request]) -> None:
    pytest.importorskip("gevent", reason="pip install tritonclient[http]")
    counts = summary(ask_all(server, requests, n_requests=15, n_clients=4))
    assert (counts["requests"], counts["bad"], counts["refused"], counts["wrong"]) == (15, 3, 3, 0)


def test_start_script_forbids_telemetry(server: Server) -> None:
    variables = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
    assert b"ORT_DISABLE_TELEMETRY=1" in variables
