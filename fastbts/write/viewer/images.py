"""Images and labels for the page: 8 bits, cut to the brain, as packed NIfTI in base64."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastbts.device.arrays import on_host
from fastbts.formats.nifti_header import NiftiHeader
from fastbts.labels import SCHEMES, label_names
from fastbts.volume import network_affine, to_network_axes
from fastbts.write.nifti import SCANNER_CODE
from fastbts.write.preview import GREY_WINDOW
from fastbts.write.words import colours_of

if TYPE_CHECKING:
    from fastbts.segmentation import Segmentation

MARGIN_MM = 4.0
MAX_VOXELS = 4_800_000
"""Of an image in the page, which then has at most 12 MB. A brain at 1 mm has 3 to 4.3 million."""
WHITE = 255


@dataclass(frozen=True, eq=False)
class Cut:
    """The part of a volume that the page shows, in network axes (Z, Y, X).

    Attributes:
        box: Index of the volume: the brain with a margin, and every how many voxels.
        affine: (x, y, z) of the part -> RAS+ position in mm.
    """

    box: tuple[slice, slice, slice]
    affine: NDArray[np.float64]

    @staticmethod
    def of(segmentation: Segmentation) -> Cut:
        """The brain and the labels of a result."""
        geometry = segmentation.volume.geometry
        labels = to_network_axes(on_host(segmentation.labels), geometry)
        affine = network_affine(geometry)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        brain = segmentation.placement.brain_box
        ends = [_with_labels(labels, axis, *side) for axis, side in enumerate(brain)]
        box = [
            (max(first - int(MARGIN_MM / mm), 0), min(last + int(MARGIN_MM / mm), n))
            for (first, last), mm, n in zip(ends, spacing, labels.shape, strict=True)
        ]
        steps = _steps([last - first for first, last in box], spacing)
        z, y, x = (slice(*side, step) for side, step in zip(box, steps, strict=True))
        start = affine[:3, 3] + affine[:3, :3] @ [z.start, y.start, x.start]
        columns = affine[:3, :3] * steps
        shown = np.eye(4)
        shown[:3, :3], shown[:3, 3] = columns[:, ::-1], start
        return Cut((z, y, x), shown)

    def packed(self, array: NDArray[np.uint8]) -> str:
        """A part of the volume (Z, Y, X) as `.nii.gz` in base64."""
        n_z, n_y, n_x = array.shape
        header = NiftiHeader.new(1, (n_x, n_y, n_z))
        header.set_sform(self.affine, SCANNER_CODE)
        header["pixdim"][1:4] = np.linalg.norm(self.affine[:3, :3], axis=0)
        header["cal_max"], header["vox_offset"] = WHITE, header.sizeof_hdr + 4
        content = header.to_bytes() + bytes(4) + array.tobytes()
        return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")


def content(segmentation: Segmentation, name: str) -> dict[str, Any]:
    """What the page's script shows of a result; JSON-ready.

    Args:
        segmentation: Result of `Segmenter.predict` or `Study.segment`.
        name: Of the case.
    """
    volume, cut = segmentation.volume, Cut.of(segmentation)
    whole = to_network_axes(on_host(segmentation.labels), volume.geometry)
    labels = np.ascontiguousarray(whole[cut.box])
    images = {
        modality: grey(to_network_axes(on_host(volume.data[n]), volume.geometry)[cut.box])
        for n, modality in enumerate(volume.modalities)
    }
    values = SCHEMES["brats2021"] if segmentation.is_glioma else label_names(segmentation.regions)
    regions = {
        region: [label for label, value in values.items() if value in inside]
        for region, inside in segmentation.regions.items()
    }
    return {
        "name": name,
        "images": {modality: cut.packed(image) for modality, image in images.items()},
        "mask": cut.packed(labels),
        "labels": [
            {"name": label, "value": values[label], "colour": colour}
            for label, colour in colours_of(values).items()
        ],
        "regions": regions,
        "centre": centre_of(labels),
        "sides": [
            {"first": side.start, "step": side.step, "size": size, "n": n}
            for side, size, n in zip(
                cut.box[::-1], labels.shape[::-1], whole.shape[::-1], strict=True
            )
        ],
    }


def grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Intensities as 1 to 255 between two percentiles of the voxels that are not 0; the rest 0."""
    values = np.nan_to_num(image.astype(np.float32), posinf=0.0, neginf=0.0)
    sample = values[::2, ::2, ::2]
    sample = sample[sample != 0]
    low, high = np.percentile(sample, GREY_WINDOW) if sample.size else (0.0, 1.0)
    scaled = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
    return np.where(values == 0, 0, 1 + np.rint(scaled * (WHITE - 1))).astype(np.uint8)


def centre_of(labels: NDArray[np.uint8]) -> list[int]:
    """(x, y, z) of the slices with most tumour in labels (Z, Y, X), or the middle."""
    tumour = labels != 0
    areas = [np.count_nonzero(tumour, axis=tuple({0, 1, 2} - {axis})) for axis in (2, 1, 0)]
    return [int(np.argmax(area)) if area.any() else len(area) // 2 for area in areas]


def _with_labels(labels: NDArray[np.uint8], axis: int, first: int, last: int) -> tuple[int, int]:
    """A side of the brain's box, wider if there are labels outside."""
    filled = np.flatnonzero(labels.any(axis=tuple({0, 1, 2} - {axis})))
    if not filled.size:
        return first, last
    return min(first, int(filled[0])), max(last, int(filled[-1]) + 1)


def _steps(shape: list[int], spacing: NDArray[np.float64]) -> list[int]:
    """Every how many voxels are shown along each axis: fewer along the finest, until they fit."""
    steps = np.ones(3, int)
    while np.prod(np.ceil(np.array(shape) / steps)) > MAX_VOXELS:
        steps[np.argmin(spacing * steps)] += 1
    return [int(step) for step in steps]
