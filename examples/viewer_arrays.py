"""Segments arrays as a viewer holds them: (Z, Y, X) in C order, with ITK's geometry.

    pip install '.' SimpleITK
    python examples/viewer_arrays.py FLAIR T1 T1CE T2 seg.nii.gz

ITK, SimpleITK, 3D Slicer, MITK and VTK give spacing, origin and direction in LPS (x to the left, y
to the back); fastbts takes one affine, voxel index to RAS+ position in mm. Prints

    WT 61.2 ml, TC 22.9 ml, ET 15.3 ml
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fastbts import MODALITIES, Segmentation, Segmenter

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def ras_affine(
    spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]
) -> NDArray[np.float64]:
    """ITK's geometry, (3,), (3,) and row by row (9,), as an affine (4, 4) for (X, Y, Z) indices."""
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(direction, (3, 3)) * spacing  # each column times its spacing
    lps[:3, 3] = origin
    return LPS_TO_RAS @ lps


def segment(
    segmenter: Segmenter, arrays: Mapping[str, NDArray[Any]], affine: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], Segmentation]:
    """Labels (Z, Y, X) of images (Z, Y, X) by modality; `.T` is a view: nothing is copied."""
    result = segmenter.predict({name: array.T for name, array in arrays.items()}, affine=affine)
    return np.ascontiguousarray(result.labels.T), result


def main(paths: Sequence[str], out: str) -> None:
    """Reads by SimpleITK, as a viewer does, and writes the labels likewise."""
    images = {name: sitk.ReadImage(path) for name, path in zip(MODALITIES, paths, strict=True)}
    flair = images["flair"]
    affine = ras_affine(flair.GetSpacing(), flair.GetOrigin(), flair.GetDirection())
    arrays = {name: sitk.GetArrayFromImage(image) for name, image in images.items()}
    with Segmenter() as segmenter:
        labels, result = segment(segmenter, arrays, affine)
    written = sitk.GetImageFromArray(labels)
    written.CopyInformation(flair)
    sitk.WriteImage(written, out)
    print(", ".join(f"{region} {ml:.1f} ml" for region, ml in result.volumes_ml.items()))


if __name__ == "__main__":
    main(sys.argv[1:5], sys.argv[5])
