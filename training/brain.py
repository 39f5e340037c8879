"""Scores of an engine for brain masks: `python -m training brain --engine FILE --data DIR`.

Two tests without any manual mask. Labelled cases, which have no skull, are set into a made-up head;
its shells are not those of `training.data.heads`. Raw images are compared with the mask of another
program, which is no ground truth. Both take the way of the product, `fastbts.study.strip`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.ndimage import binary_closing, distance_transform_edt, gaussian_filter

from fastbts import MODALITIES, FastBTSError, Geometry, load_engine
from fastbts.engine.interface import Engine
from fastbts.pipeline.masks import filled
from fastbts.scores.tables import Row
from fastbts.study.strip import brain_mask
from fastbts.volume import to_network_axes
from training.data.cases import find_cases, read_images, read_labels

Mask = NDArray[np.bool_]
MARGIN_MM, NECK_MM = 20, 40
SULCI_MM = 3  # sulci up to twice as wide belong to the brain, as for HD-BET
# Shells around the brain, where each ends in mm; and intensities as shares of the brain's median.
SHELLS = (("fluid", 2.5), ("bone", 4.5), ("marrow", 7.0), ("bone", 9.0), ("scalp", 16.0))
SHARES = {"fluid": 0.35, "bone": 0.08, "marrow": 0.7, "scalp": 1.5, "neck": 0.9}
FLUID_T2 = 1.8
MASK_ENDING = "_hdbet"
ALL = "all"
ROUNDS = 5


@dataclass(frozen=True, eq=False)
class MadeUpHead:
    """A case in a made-up head, (X, Y, Z) of RAS+ at 1 mm.

    Attributes:
        images: (M, i, j, k) float32.
        brain: Brain mask (i, j, k).
        tumour: Labelled tumour (i, j, k).
        geometry: The grid.
    """

    images: NDArray[np.float32]
    brain: Mask
    tumour: Mask
    geometry: Geometry


def made_up_head(folder: Path, modalities: tuple[str, ...] = MODALITIES) -> MadeUpHead:
    """Sets the brain of a labelled case, at 1 mm, into fluid, skull, scalp and neck."""
    volume = read_images(folder, modalities)
    view = to_network_axes(volume.data, volume.geometry).astype(np.float32)
    label = to_network_axes(read_labels(folder), volume.geometry)
    pad = ((NECK_MM, MARGIN_MM), (MARGIN_MM, MARGIN_MM), (MARGIN_MM, MARGIN_MM))
    images, tumour = np.pad(np.maximum(view, 0), ((0, 0), *pad)), np.pad(label > 0, pad)
    seen = filled(np.any(images > 0, axis=0))
    brain = filled(binary_closing(seen, iterations=SULCI_MM))
    where = _tissues(brain)
    where["fluid"] |= brain & ~seen
    rng = np.random.default_rng(0)
    for image, modality in zip(images, modalities, strict=True):
        _add_head(image, seen, where, FLUID_T2 if modality == "t2" else SHARES["fluid"], rng)
    i, j, k = brain.shape[::-1]
    return MadeUpHead(
        images.transpose(0, 3, 2, 1), brain.T, (tumour & brain).T, Geometry((i, j, k), np.eye(4))
    )


def _tissues(brain: Mask) -> dict[str, Mask]:
    """Masks of the tissues around a brain (D, H, W)."""
    distance = distance_transform_edt(~brain)
    where, start = {name: np.zeros(brain.shape, bool) for name in SHARES}, 0.0
    for name, end in SHELLS:
        where[name] |= (distance > start) & (distance <= end)
        start = end
    found = np.argwhere(brain)
    bottom, (_, middle_y, middle_x) = found[:, 0].min(), found.mean(axis=0)
    y, x = np.ogrid[: brain.shape[1], : brain.shape[2]]
    inside = ((x - middle_x) / 60) ** 2 + ((y - middle_y) / 75) ** 2 < 1
    where["neck"][: bottom + 12] = inside
    where["neck"] &= distance > 9
    return where


def _add_head(
    image: NDArray[np.float32],
    brain: Mask,
    where: dict[str, Mask],
    fluid: float,
    rng: np.random.Generator,
) -> None:
    """Paints the tissues around the brain into an image, with texture, blur and noise."""
    median = float(np.median(image[brain]))
    texture = 1 + gaussian_filter(rng.standard_normal(image.shape, np.float32), 4) * 3
    for name, mask in where.items():
        share = fluid if name == "fluid" else SHARES[name]
        image[mask & ~brain] = share * median * texture[mask & ~brain]
    blurred = gaussian_filter(image, 0.5)
    noise = 0.02 * median * rng.standard_normal(image.shape, np.float32)
    image[...] = np.maximum(blurred + noise, 0)


def dice(found: Mask, reference: Mask) -> float:
    """Dice of two masks; 1 if both are empty."""
    total = int(found.sum()) + int(reference.sum())
    return 2 * int((found & reference).sum()) / total if total else 1.0


def score_cases(engine: Engine, folders: list[Path]) -> list[Row]:
    """Dice and share of the tumour lost for each image of each case, and for all together."""
    rows = []
    for folder in track(folders, "cases in made-up heads"):
        head = made_up_head(folder)
        one_by_one = {name: [image] for name, image in zip(MODALITIES, head.images, strict=True)}
        for name, images in {**one_by_one, ALL: [*head.images]}.items():
            found = brain_mask(images, head.geometry, engine)
            lost = int((head.tumour & ~found).sum()) / max(1, int(head.tumour.sum()))
            scores = {"dice": dice(found, head.brain), "tumour_lost_percent": 100 * lost}
            rows.append({"case": folder.name, "image": name, **scores})
    return rows


def score_heads(engine: Engine, folder: Path) -> list[Row]:
    """Scores of raw images NAME.nii.gz: volume of the mask, seconds, Dice with NAME_hdbet.nii.gz.

    Seconds are the median of `ROUNDS` calls, after one; with processor seconds of all threads.

    Raises:
        FastBTSError: There is no image.
    """
    rows = []
    for path in sorted(folder.glob("*.nii.gz")):
        stem = path.name.removesuffix(".nii.gz")
        if stem.endswith(MASK_ENDING):
            continue
        image = nib.load(path)
        geometry, voxels = Geometry(image.shape, image.affine), np.asarray(image.dataobj)
        found, times = _timed(voxels, geometry, engine)
        row = {"image": stem, "ml": found.sum() * np.prod(geometry.spacing_mm) / 1000, **times}
        mask = folder / f"{stem}{MASK_ENDING}.nii.gz"
        if mask.is_file():
            row["dice"] = dice(found, np.asarray(nib.load(mask).dataobj) > 0)
        rows.append(row)
    if not rows:
        raise FastBTSError(f"{folder}: no *.nii.gz; expected raw images of heads")
    return rows


def _timed(
    voxels: NDArray[Any], geometry: Geometry, engine: Engine
) -> tuple[Mask, dict[str, float]]:
    """The mask of an image, and the median time of finding it again."""
    found = brain_mask([voxels], geometry, engine)
    walls, processors = [], []
    for _ in range(ROUNDS):
        wall, processor = time.perf_counter(), time.process_time()
        brain_mask([voxels], geometry, engine)
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return found, {"s": median(walls), "processor_s": median(processors)}


def _show(title: str, rows: list[dict[str, Any]]) -> None:
    names = [*dict.fromkeys(name for row in rows for name in row)]
    table = Table(*names, title=title)
    for row in rows:
        values = [row.get(name, "-") for name in names]
        table.add_row(*[f"{v:.4g}" if isinstance(v, float) else str(v) for v in values])
    Console().print(table)


def means(rows: list[Row]) -> list[dict[str, Any]]:
    """Mean and worst scores over the cases, for each image."""
    found = []
    for name in (*MODALITIES, ALL):
        of_image = [row for row in rows if row["image"] == name]
        dices, lost = ([row[k] for row in of_image] for k in ("dice", "tumour_lost_percent"))
        found.append(
            {
                "image": name,
                "n": len(of_image),
                "dice": fmean(dices),
                "lowest dice": min(dices),
                "tumour_lost_percent": fmean(lost),
                "largest loss": max(lost),
            }
        )
    return found


def command(
    engine: Annotated[Path, typer.Option(help="engine file of the recipe brain")],
    data: Annotated[
        Path | None, typer.Option(help="folder of labelled cases at 1 mm, with cases.csv")
    ] = None,
    split: Annotated[str, typer.Option(help="split of cases.csv")] = "val",
    heads: Annotated[
        Path | None, typer.Option(help="folder of raw images NAME.nii.gz, NAME_hdbet.nii.gz")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16")] = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="file to write all scores to")
    ] = None,
) -> None:
    """Score an engine for brain masks."""
    loaded = load_engine(engine, precision=precision)
    record: dict[str, Any] = {"engine": loaded.spec.name, **loaded.description}
    if data is not None:
        record["cases"] = score_cases(loaded, find_cases(data, split))
        record["means"] = means(record["cases"])
        _show("cases in made-up heads", record["means"])
    if heads is not None:
        record["heads"] = score_heads(loaded, heads)
        _show("raw images", record["heads"])
    if json_file:
        json_file.write_text(json.dumps(record, indent=1, default=float) + "\n")
