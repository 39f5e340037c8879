"""Training cases: prepared once by the inference package's own preprocessing, then cut into augmented crops."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fastbts import EngineSpec, FastBTSError, read_case
from fastbts.preprocess import preprocess
from fastbts.volume import to_network_axes
from training.augment import Augment, random_crop
from training.config import Recipe


@dataclass(frozen=True)
class TrainingCase:
    """A prepared case in network axes.

    Attributes:
        name: Folder name of the case.
        image: (M, D, H, W) float16, normalised, brain box only.
        label: (D, H, W) uint8, BraTS <= 2021 values.
        grade: "HGG" or "LGG", where cases.csv tells.
        teacher: CLIP's embeddings of the whole case's three views, (3, T), where `clip_teacher.teacher_for` gave them.
    """

    name: str
    image: NDArray[np.float16]
    label: NDArray[np.uint8]
    grade: str = ""
    teacher: NDArray[np.float32] | None = None


Sample = tuple[Tensor, Tensor, Tensor | None]
"""Image (M, D, H, W), label (D, H, W), the case's teacher (3, T) if there is one; the same with a leading B in a batch."""


class CropDataset(Dataset[Sample]):
    """Crop number i of a run: a pure function of (seed, i), so a resumed run continues exactly."""

    def __init__(self, cases: Sequence[TrainingCase], recipe: Recipe) -> None:
        self.cases, self.recipe = cases, recipe
        self._augment = Augment(recipe.augment)
        self._turns = np.repeat(np.arange(len(cases)), [recipe.lgg_repeat if case.grade == "LGG" else 1 for case in cases])
        self._sizes = [stage.crop for stage in recipe.stages for _ in range(stage.steps * stage.batch)]

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> Sample:
        epoch, position = divmod(index, len(self._turns))
        order = np.random.default_rng((self.recipe.seed, 1, epoch)).permutation(self._turns)
        rng = np.random.default_rng((self.recipe.seed, 2, index))
        case = self.cases[order[position]]
        crop = random_crop(case.image, case.label, self._sizes[index], self.recipe.augment, rng)
        image, label = self._augment(*crop, seed=int(rng.integers(2**31)))
        return image, label, None if case.teacher is None else torch.from_numpy(case.teacher)


def batches(recipe: Recipe, first_step: int) -> list[list[int]]:
    """Crop numbers of each step from `first_step` on (a batch sampler)."""
    sizes = [stage.batch for stage in recipe.stages for _ in range(stage.steps)]
    ends = np.cumsum(sizes)
    return [list(range(end - n, end)) for n, end in zip(sizes, ends.tolist(), strict=True)][first_step:]


def to_batch(samples: list[Sample]) -> Sample:
    """Stacks crops: (B, M, D, H, W), (B, D, H, W), and teachers (B, 3, T) or None."""
    images, labels, teachers = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(labels), None if teachers[0] is None else torch.stack(teachers)


def find_cases(data: Path, split: str) -> list[Path]:
    """Case folders of a split ("train", "val"), as `cases.csv` in `data` lists them; without that file every folder trains.

    Raises:
        FastBTSError: There is no case of that split.
    """
    if (data / "cases.csv").is_file():
        folders = [data / row["case"] for row in case_table(data) if row["split"] == split]
    else:
        folders = sorted(p for p in data.iterdir() if p.is_dir()) if split == "train" else []
    if not folders:
        raise FastBTSError(
            f"{data}: no cases of split {split!r}; expected case folders and a cases.csv with columns case, split"
        )
    return folders


def case_table(data: Path) -> list[dict[str, str]]:
    """Rows of `cases.csv`."""
    with (data / "cases.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def grade_of(folder: Path) -> str:
    """Grade of a case as `cases.csv` beside it tells, or ""."""
    if not (folder.parent / "cases.csv").is_file():
        return ""
    return next((row.get("grade", "") for row in case_table(folder.parent) if row["case"] == folder.name), "")


def read_labels(folder: Path) -> NDArray[np.uint8]:
    """The reference labels (i, j, k) of a case, BraTS <= 2021 values (3 of BraTS 2023 is read as 4)."""
    found = [p for p in folder.iterdir() if p.name.lower().endswith(("seg.nii.gz", "seg.nii"))]
    if len(found) != 1:
        raise FastBTSError(f"{folder}: expected one file *seg.nii.gz, got {[p.name for p in found]}")
    # Not the product's reader: it refuses an image without contrast, which the labels of a case without tumour are.
    labels = np.asarray(nib.load(found[0]).dataobj).round().astype(np.uint8)
    return np.where(labels == 3, np.uint8(4), labels)


def prepare_case(folder: Path, spec: EngineSpec, cache: Path) -> TrainingCase:
    """Runs a case through the inference package's preprocessing; kept in `cache`, keyed by the settings that matter."""
    settings = {k: v for k, v in asdict(spec).items() if k in ("modalities", "percentiles", "spacing_mm")}
    key = hashlib.sha256(json.dumps([str(folder.resolve()), settings]).encode()).hexdigest()[:12]
    path = cache / f"{folder.name}-{key}.npz"
    if not path.is_file():
        image, label = _network_arrays(folder, spec)
        cache.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, image=image, label=label)
        temporary.replace(path)
    with np.load(path, allow_pickle=False) as stored:
        return TrainingCase(folder.name, stored["image"], stored["label"], grade_of(folder))


def _network_arrays(folder: Path, spec: EngineSpec) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    volume = read_case(folder)
    prepared = preprocess(volume, spec)
    placement = prepared.placement
    if placement.resampled:
        raise FastBTSError(f"{folder}: spacing {volume.geometry.spacing_mm} mm; training cases must be at {spec.spacing_mm} mm")
    label = to_network_axes(read_labels(folder), volume.geometry)[placement.in_volume]
    return prepared.tensor[(slice(None), *placement.in_tensor)].astype(np.float16), np.ascontiguousarray(label)
