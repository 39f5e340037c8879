"""The registry of ops is complete, and its examples and exact results fit together."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from fastbts import ops
from tests.ops.op import Op
from tests.ops.registry import ALL, OPS

SIZE = (5, 6, 11)
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def test_every_op_has_an_entry() -> None:
    functions = {name: getattr(ops, name) for name in ops.__all__}
    takes_threads = {
        name
        for name, function in functions.items()
        if inspect.isfunction(function) and "n_threads" in inspect.signature(function).parameters
    }
    assert takes_threads - {"queue_brain_box"} == set(OPS), "`brain_box` is the same, and waits"


@pytest.mark.parametrize("file", ["ops.json", "ops-tuned.json"])
def test_every_op_has_a_measured_time(file: str) -> None:
    timed = json.loads((RESULTS / file).read_text())["benchmarks"]
    names = {entry["name"].partition("[")[0].removeprefix("test_") for entry in timed}
    assert names == set(OPS)


@pytest.mark.parametrize(
    ("op", "dtype"), [pytest.param(o, d, id=f"{o.name}-{d}") for o in ALL for d in o.dtypes]
)
def test_results_in_given_arrays_are_those_of_the_reference(op: Op, dtype: str) -> None:
    given = op.example(np.random.default_rng(0), SIZE, dtype)
    exact, arguments = op.exact(**given), op.outputs(given) | given
    op.function(**arguments)
    for array, expected in zip(op.written(arguments), exact, strict=True):
        scale = float(np.abs(expected).max(initial=1))
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=2e-6 * scale)
