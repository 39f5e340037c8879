"""What a contender is, and what it is given."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Spec:
    """The fields of the engine's `EngineSpec` that a user has to know; see there.

    Contenders do not import fastbts: its import would be part of their time.
    """

    stride: int
    window: tuple[int, int, int]
    percentiles: tuple[float, float]
    thresholds: tuple[float, ...]
    temperatures: tuple[float, ...]
    min_part_mm3: float
    min_et_mm3: float

    @property
    def least_logits(self) -> NDArray[np.float32]:
        """From these logits on a voxel belongs to WT, TC and ET; (3, 1, 1, 1)."""
        p, temperatures = np.array([self.thresholds, self.temperatures], np.float32)
        least: NDArray[np.float32] = temperatures * np.log(p / (1 - p))
        return least[:, None, None, None]


@dataclass(frozen=True)
class Kit:
    """A network in the forms that contenders load, in one folder; `benchmarks.peers.kit` makes it.

    Attributes:
        folder: Holds network.onnx (operators of standard ONNX), weights.pt and kit.json.
        engine: The engine file that all was made from.
        int8_engine: An engine file of the same weights with an int8 network.
    """

    folder: Path
    engine: Path
    int8_engine: Path

    @property
    def onnx(self) -> Path:
        return self.folder / "network.onnx"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.pt"

    @property
    def about(self) -> dict[str, Any]:
        return json.loads((self.folder / "kit.json").read_text())

    @property
    def spec(self) -> Spec:
        return Spec(**{name: _frozen(value) for name, value in self.about["spec"].items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Machine:
    """Where to run.

    Attributes:
        n_threads: CPU threads.
        device: "cpu" or "cuda".
    """

    n_threads: int
    device: str = "cpu"


class Contender(Protocol):
    """One way from images to labels.

    Attributes:
        about: Versions of its libraries, precision, and what it does around the network.
        stages_ms: Times of the last prediction's stages, if it knows them.
    """

    about: dict[str, Any]
    stages_ms: dict[str, float]

    def load(self, kit: Kit, machine: Machine) -> None:
        """Loads the network."""

    def predict(self, images: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Segments a case.

        Args:
            images: FLAIR, T1, T1ce and T2, (4, X, Y, Z), as stored, 0 outside the brain.
            affine: Voxel index -> RAS+ position in mm, (4, 4); the spacing is 1 mm.
        Returns:
            Labels (X, Y, Z): 1 necrotic core, 2 oedema, 4 enhancing tumour.
        """


class BatchContender(Contender, Protocol):
    """A contender with a way of its own through files."""

    def predict_files(self, folders: Sequence[Path], out: Path) -> None:
        """Writes the labels of each case folder to OUT/NAME.nii.gz."""


class Stages:
    """Times of the stages of a prediction, in ms."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.ms[name] = self.ms.get(name, 0.0) + 1000 * (time.perf_counter() - began)
