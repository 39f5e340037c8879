"""Training cases: prepared once by the preprocessing of `fastbts`, then cut into crops."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fastbts import EngineSpec, FastBTSError, Volume
from fastbts.build.cases import case_table
from fastbts.pipeline.normalize import normalize
from fastbts.read.inputs import as_volume
from fastbts.read.reference import find_reference, read_reference_of
from fastbts.volume import to_network_axes
from training.config import Recipe
from training.data.augment import Augment, Crop, carve_mix, crop_start, cut, inside

GLIOMA = EngineSpec()
SYNTHETIC = "synthetic"
"""Group of the cases that `training.data.synthetic` makes."""


@dataclass(frozen=True)
class TrainingCase:
    """A prepared case in network axes.

    Attributes:
        name: Folder name of the case.
        image: (M, D, H, W) float16, normalised, brain box only.
        label: (D, H, W) uint8, BraTS <= 2021 values, or as stored for other regions.
        group: Name of a group of similar cases, from cases.csv; `SYNTHETIC` for a synthetic case.
        teacher: CLIP's embeddings of the three views, (3, T), of `data.teacher.teacher_for`.
    """

    name: str
    image: NDArray[np.float16]
    label: NDArray[np.uint8]
    group: str = ""
    teacher: NDArray[np.float32] | None = None


Sample = tuple[Tensor, Tensor, Tensor | None]
"""Image (M, D, H, W), label (D, H, W), teacher (3, T) or None; a batch has a leading axis B."""


class CropDataset(Dataset[Sample]):
    """Crop number i of a run: a pure function of (seed, i), so a resumed run continues exactly.

    Synthetic cases replace the real one of some crops and do not change the other crops.

    Args:
        cases: Real and synthetic cases.
        recipe: Has seed, stages, augmentation and the share of synthetic cases.
        ranks: Number of processes that train together.
    Raises:
        FastBTSError: The recipe uses synthetic cases and there are none, or there are no real ones.
    """

    def __init__(self, cases: Sequence[TrainingCase], recipe: Recipe, ranks: int = 1) -> None:
        self._synthetic = [case for case in cases if case.group == SYNTHETIC]
        cases = [case for case in cases if case.group != SYNTHETIC]
        if not cases or (recipe.synthetic > 0 and not self._synthetic):
            raise FastBTSError(
                f"synthetic: {recipe.synthetic} of the crops are from synthetic cases; got "
                f"{len(cases)} real and {len(self._synthetic)} synthetic cases; make them with "
                "python -m training synthetic, or set it to 0"
            )
        self.cases, self.recipe = cases, recipe
        self._augment = Augment(recipe.augment)
        self._turns = np.repeat(
            np.arange(len(cases)), [recipe.turns.get(case.group, 1) for case in cases]
        )
        self._ends = np.cumsum([stage.length * stage.batch * ranks for stage in recipe.stages])

    def _synthetic_case(self, index: int) -> TrainingCase | None:
        """The synthetic case of a crop, or None for a real one."""
        rng = np.random.default_rng((self.recipe.seed, 3, index))
        if rng.random() >= self.recipe.synthetic:
            return None
        return self._synthetic[rng.integers(len(self._synthetic))]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        epoch, position = divmod(index, len(self._turns))
        order = np.random.default_rng((self.recipe.seed, 1, epoch)).permutation(self._turns)
        rng = np.random.default_rng((self.recipe.seed, 2, index))
        case = self._synthetic_case(index) or self.cases[order[position]]
        stage = self.recipe.stages[np.searchsorted(self._ends, index, side="right")]
        crop = self._crop(case, stage.crop, rng)
        image, label = self._augment(*crop, seed=int(rng.integers(2**31)))
        return image, label, None if case.teacher is None else torch.from_numpy(case.teacher)

    def _crop(self, case: TrainingCase, size: tuple[int, ...], rng: np.random.Generator) -> Crop:
        """A crop of the case, sometimes with another case's tumour in it."""
        config = self.recipe.augment
        start = crop_start(case.label, size, config, rng)
        crop = cut(case.image, case.label, start, size)
        if not config.carve_mix or rng.random() >= config.carve_mix:
            return crop
        donor = self.cases[rng.integers(len(self.cases))]
        # The same place relative to the brain box.
        centre = (start + np.array(size) / 2) * donor.label.shape / case.label.shape
        start = inside(np.round(centre - np.array(size) / 2), donor.label.shape, size)
        return carve_mix(crop, cut(donor.image, donor.label, start, size), rng)


class Batches:
    """A batch sampler: the crop numbers of each step from `first_step` on.

    Its length is that of the complete run, as Lightning counts on from the checkpoint's step.

    Args:
        recipe: Has the stages.
        first_step: The step to begin at.
        rank: This process; of each step's batches it gets this one.
        ranks: Number of processes, and of batches per step.
    """

    def __init__(self, recipe: Recipe, first_step: int = 0, rank: int = 0, ranks: int = 1) -> None:
        self._recipe, self._first_step, self._rank, self._ranks = recipe, first_step, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        step = crop = 0  # at the begin of a stage
        for stage in self._recipe.stages:
            for i in range(max(0, self._first_step - step), stage.length):
                begin = crop + (i * self._ranks + self._rank) * stage.batch
                yield list(range(begin, begin + stage.batch))
            step, crop = step + stage.length, crop + stage.length * stage.batch * self._ranks

    def __len__(self) -> int:
        return self._recipe.steps


def to_batch(samples: list[Sample]) -> Sample:
    """Stacks crops: (B, M, D, H, W), (B, D, H, W), and teachers (B, 3, T) or None."""
    images, labels, teachers = zip(*samples, strict=True)
    return (
        torch.stack(images),
        torch.stack(labels),
        None if teachers[0] is None else torch.stack(teachers),
    )


def engine_spec(recipe: Recipe) -> EngineSpec:
    """The preprocessing and shapes that the recipe's network expects at inference."""
    (d, h, w), (low, high) = recipe.window or recipe.stages[-1].crop, recipe.percentiles
    return EngineSpec(
        name=f"fastbts-{recipe.name}",
        modalities=recipe.modalities,
        regions=tuple(recipe.regions),
        stride=recipe.model.stride,
        spacing_mm=recipe.spacing_mm,
        window=(d, h, w),
        percentiles=(low, high),
        thresholds=(recipe.threshold,) * len(recipe.regions),
        labels=tuple(recipe.regions.values()),
    )


def find_cases(data: Path, split: str) -> list[Path]:
    """Case folders of a split ("train", "val") by `cases.csv`; without that file all are "train".

    Raises:
        FastBTSError: There is no case of that split.
    """
    if (data / "cases.csv").is_file():
        folders = [data / row["case"] for row in case_table(data) if row["split"] == split]
    else:
        folders = sorted(p for p in data.iterdir() if p.is_dir()) if split == "train" else []
    if not folders:
        raise FastBTSError(
            f"{data}: no cases of split {split!r}; expected case folders and a cases.csv with "
            "columns case, split and optionally group"
        )
    return folders


def group_of(folder: Path) -> str:
    """Group of a case by the `cases.csv` beside it, its grade without that column, or ""."""
    if not (folder.parent / "cases.csv").is_file():
        return ""
    rows = (row for row in case_table(folder.parent) if row["case"] == folder.name)
    return next((row.get("group", row.get("grade", "")) for row in rows), "")


def read_images(folder: Path, modalities: Sequence[str]) -> Volume:
    """The images of a case, as `Segmenter.predict` reads them.

    Raises:
        FastBTSError: An image is missing, there are several of a name, or one cannot be used.
    """
    return as_volume(folder, EngineSpec(modalities=tuple(modalities)))


def read_labels(folder: Path, spec: EngineSpec = GLIOMA) -> NDArray[np.uint8]:
    """The reference labels (i, j, k) of a case.

    Args:
        folder: Of the case.
        spec: For WT, TC and ET, values are those of BraTS <= 2021 (3 of 2023 becomes 4); for other
            regions as stored.
    Raises:
        FastBTSError: There is no such file, or it cannot be used.
    """
    path = find_reference(folder)
    if path is None:
        raise FastBTSError(f"{folder}: expected one file *seg.nii.gz, got none")
    return read_reference_of(spec, path)


def prepare_case(folder: Path, spec: EngineSpec, cache: Path) -> TrainingCase:
    """Preprocesses a case with `fastbts`; cached in a folder, by case and settings.

    At a spacing that is a multiple of the case's, as for a finder, the normalised images are
    averaged over blocks of voxels.
    """
    settings = {
        k: v for k, v in asdict(spec).items() if k in ("modalities", "percentiles", "spacing_mm")
    }
    if not spec.is_glioma:
        settings["labels"] = "as stored"
    key = hashlib.sha256(json.dumps([str(folder.resolve()), settings]).encode()).hexdigest()[:12]
    path = cache / f"{folder.name}-{key}.npz"
    if not path.is_file():
        image, label = _network_arrays(folder, spec)
        cache.mkdir(parents=True, exist_ok=True)
        # A name of this process, as ranks prepare the same cases.
        temporary = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(temporary, image=image, label=label)
        temporary.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return TrainingCase(folder.name, stored["image"], stored["label"], group_of(folder))


def _network_arrays(
    folder: Path, spec: EngineSpec
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    volume = read_images(folder, spec.modalities)
    factor = max(1, round(spec.spacing_mm / max(volume.geometry.spacing_mm)))
    prepared = normalize(volume, replace(spec, spacing_mm=spec.spacing_mm / factor))
    placement = prepared.placement
    if placement.resampled:
        raise FastBTSError(
            f"{folder}: spacing {volume.geometry.spacing_mm} mm; expected {spec.spacing_mm} mm for "
            "training; resample the case first"
        )
    label = to_network_axes(read_labels(folder, spec), volume.geometry)[placement.in_volume]
    image = _blocks(prepared.tensor[(slice(None), *placement.in_tensor)], factor).mean(axis=-1)
    return image.astype(np.float16), np.ascontiguousarray(_blocks(label, factor).max(axis=-1))


def _blocks(array: NDArray[Any], factor: int) -> NDArray[Any]:
    """Blocks of so many voxels along the last three axes, filled up with zeros; last axis: voxels
    of a block. A finder sees normalised images at half of the resolution, as their means; a label
    that is anywhere in a block counts, so that small parts remain."""
    *rest, d, h, w = array.shape
    more = [(0, 0)] * len(rest) + [(0, -n % factor) for n in (d, h, w)]
    *_, d, h, w = (padded := np.pad(array, more)).shape
    split = padded.reshape(*rest, d // factor, factor, h // factor, factor, w // factor, factor)
    together = np.moveaxis(split, (-5, -3), (-3, -2))
    return together.reshape(*together.shape[:-3], factor**3)
