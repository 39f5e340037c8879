"""From a device array to labels on a CUDA device, with the shipped network in torch, or our own.

    python -m benchmarks.gpu_predict OUT.jsonl [--weights WEIGHTS.pt] [--networks fp16-graph ...]

Adds a line to OUT for each network that it tried: milliseconds of a whole prediction, from images
on the device to labels there and from images of the host to labels there, and of its stages (in
other predictions, which wait after each); and in how many voxels the labels differ from those that
the CPU gives in float32. Goes on after a failure, and fails at the end.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.torch_engine import TorchEngine, network
from fastbts import Segmenter, load_engine
from fastbts.engine.interface import Engine
from fastbts.phantom import make_case

NETWORKS = ("fp32-eager", "fp16-graph", "fp16-native", "fp16-eager", "fp32-graph", "bf16-graph")
"""Precision and form of each; `TorchEngine` has also "compiled", "native" is the backend."""


class Gpu:
    """The first CUDA device, through torch."""

    name = "cuda:0"
    engine: Callable[..., TorchEngine] = TorchEngine

    def put(self, array: np.ndarray[Any, Any]) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.name)

    def wait(self) -> None:
        torch.cuda.synchronize()

    def loaded(self, model: torch.nn.Module, precision: str, form: str) -> Engine:
        """A network as an engine; the native one has the shipped weights."""
        if form == "native":
            return load_engine(backend="native", device=self.name, precision=precision)
        return self.engine(copy.deepcopy(model), self.name, precision, form)

    def describe(self) -> dict[str, Any]:
        major, minor = torch.cuda.get_device_capability()
        about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
        return {**about, "capability": f"{major}.{minor}", "emulated": False}


class Bench:
    """One case, predicted by each network."""

    def __init__(self, gpu: Gpu, model: torch.nn.Module, shape: Sequence[int], rounds: int) -> None:
        self.gpu, self.rounds = gpu, rounds
        self._model = model
        case = make_case(0, shape).volume
        self._host, self.affine = np.ascontiguousarray(case.data), case.affine
        self._there = gpu.put(self._host)
        reference = gpu.engine(copy.deepcopy(model), "cpu")
        self._labels = self._segmenter(reference).predict(self._host, affine=self.affine).labels

    def _segmenter(self, engine: Engine) -> Segmenter:
        return Segmenter(engine, warm_up=False)

    def measured(self, precision: str, form: str) -> dict[str, Any]:
        """What one network gives and takes."""
        segmenter = self._segmenter(self.gpu.loaded(self._model, precision, form))

        def predict(images: Any = self._there, **options: Any) -> Any:
            return segmenter.predict(images, affine=self.affine, **options)

        labels = predict().labels.get()
        return {
            **(self._times(predict) if self.rounds else {}),
            "voxels": int(labels.size),
            "labelled_voxels": int((self._labels > 0).sum()),
            "different_voxels": int((labels != self._labels).sum()),
        }

    def _times(self, predict: Callable[..., Any]) -> dict[str, Any]:
        from_device, from_host = (self._totals_ms(predict, x) for x in (self._there, self._host))
        return {
            "total_ms": round(statistics.median(from_device), 3),
            "fastest_ms": round(min(from_device), 3),
            "from_host_ms": round(statistics.median(from_host), 3),
            "stages_ms": self._stages(predict),
        }

    def _totals_ms(self, predict: Callable[..., Any], images: Any) -> list[float]:
        times = []
        for _ in range(self.rounds):
            self.gpu.wait()
            began = time.perf_counter()
            predict(images)
            self.gpu.wait()
            times.append(1e3 * (time.perf_counter() - began))
        return times

    def _stages(self, predict: Callable[..., Any]) -> dict[str, float]:
        """Times of the stages, each with a wait at its end."""
        runs: list[dict[str, float]] = []
        for _ in range(self.rounds):
            marks: list[tuple[str, float]] = []

            def mark(stage: str, _: float, marks: list[tuple[str, float]] = marks) -> None:
                self.gpu.wait()
                marks.append((stage, time.perf_counter()))

            predict(progress=mark)
            ms: dict[str, float] = {}
            for (stage, begin), (_, end) in pairwise(marks):
                ms[stage] = ms.get(stage, 0.0) + 1e3 * (end - begin)
            runs.append(ms)
        return {s: round(statistics.median(run[s] for run in runs), 3) for s in runs[0]}


def main(arguments: Sequence[str], gpu: Gpu | None = None) -> int:
    """Runs all networks; returns how many failed, or gave wrong labels in float32."""
    given, gpu = parsed(arguments), gpu or Gpu()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # its fastest algorithms
    bench = Bench(gpu, network(given.weights), given.shape, given.rounds)
    n_failed = 0
    for precision, form in (way.split("-") for way in given.networks):
        line = {"step": "predict", "precision": precision, "form": form, **gpu.describe()}
        try:
            line |= bench.measured(precision, form)
            line["passed"] = line["different_voxels"] <= given.tolerated or precision != "fp32"
        except Exception as error:
            traceback.print_exc()
            line |= {"passed": False, "error": f"{type(error).__name__}: {error}"[:500]}
        n_failed += not line["passed"]
        with given.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    return n_failed


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--shape", type=int, nargs=3, default=(240, 240, 155))
    parser.add_argument("--rounds", type=int, default=20, help="0: labels only, no times")
    # Float32 sums in another order: a logit may change its side of the threshold.
    parser.add_argument("--tolerated", type=int, default=20, help="different voxels in float32")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
