"""fastbts, in one precision or as it is by default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Kit, Machine


class Ours:
    """`fastbts.Segmenter`.

    Args:
        precision: "auto" for the default.
        mode: "auto", "one-pass" or "sliding".
        warm_up: False for a process that segments one case.
    """

    def __init__(self, precision: str = "auto", mode: str = "auto", warm_up: bool = True) -> None:
        self._precision, self._mode, self._warm_up = precision, mode, warm_up
        self.stages_ms: dict[str, float] = {}

    def load(self, kit: Kit, machine: Machine) -> None:
        import fastbts

        self._segmenter = fastbts.Segmenter(
            kit.int8_engine if self._precision == "int8" else kit.engine,
            precision=self._precision,
            device=machine.device,
            options=fastbts.SegmenterOptions(n_threads=machine.n_threads, mode=self._mode),
            warm_up=self._warm_up,
        )
        engine = self._segmenter.engine.description
        self.about = {
            "fastbts": fastbts.__version__,
            engine["backend"]: engine["backend_version"],
            "precision": engine["precision"],
            "around": "fastbts: checks of the images, crop, clip, z-score, one pass, thresholds, "
            "rule for stray core, expected Dice, report",
        }

    def predict(self, images: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
        result = self._segmenter.predict(images, affine=affine)
        self.stages_ms = {k: v for k, v in result.timings_ms.items() if k != "total"}
        return np.asarray(result.labels)

    def predict_files(self, folders: Sequence[Path], out: Path) -> None:
        import fastbts

        results = self._segmenter.predict_batch(folders, stop_on_error=True)
        for folder, result in zip(folders, results, strict=True):
            assert isinstance(result, fastbts.Segmentation)
            result.save(out / f"{folder.name}.nii.gz")
