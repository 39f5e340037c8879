"""dcm2niix as a second reader: it decodes what pydicom's installed packages cannot.

Only the voxels are taken from it. The grid stays that of our reader, as dcm2niix converts a series
with missing slices as if it had none.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from fastbts.errors import FastBTSError, InputError
from fastbts.read.nifti import read_header, read_voxels
from fastbts.volume import Geometry

NAME = "dcm2niix"
MAX_SECONDS = 600


def program() -> str | None:
    """Where dcm2niix is: on the PATH, or beside this Python, where its wheel puts it."""
    return shutil.which(NAME) or shutil.which(NAME, path=str(Path(sys.executable).parent))


def decoded(label: str, files: Sequence[Path], geometry: Geometry) -> NDArray[Any]:
    """The voxels of a series on its grid, (i, j, k).

    Args:
        label: Names the series in errors.
        files: All files of one image.
        geometry: Its grid by our reader.
    Raises:
        InputError: dcm2niix is gone, or gives no image on this grid.
    """
    with tempfile.TemporaryDirectory(prefix="fastbts-") as folder:
        try:
            return _on_grid(_converted(files, Path(folder)), geometry)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise InputError(
                f"series {label}: dcm2niix cannot read it: {_reason(error)}; decompress the files "
                "(dcmdjpeg of DCMTK), or send the series again"
            ) from error


def _converted(files: Sequence[Path], folder: Path) -> Path:
    """The only image that dcm2niix makes. Names of files, which may name the patient, are hidden.

    Raises:
        ValueError: It makes none, or several.
    """
    source, out = folder / "in", folder / "out"
    source.mkdir()
    out.mkdir()
    for n, path in enumerate(files):
        (source / f"{n:06d}.dcm").symlink_to(path.resolve())
    options = ("-b", "n", "-z", "n", "-x", "i", "-f", "image")
    command = [program() or NAME, *options, "-o", str(out), str(source)]
    subprocess.run(command, capture_output=True, timeout=MAX_SECONDS, check=True)
    images = sorted(out.glob("*.nii"))
    if len(images) != 1:
        raise ValueError(f"it made {len(images)} images of it, expected 1")
    return images[0]


def _on_grid(path: Path, geometry: Geometry) -> NDArray[Any]:
    """The voxels, with their axes in the order and direction of a grid.

    Raises:
        ValueError: The image cannot be read, or is on another grid.
    """
    try:
        header = read_header(path)
        voxels = np.empty(header.geometry.shape[::-1], header.dtype).T
        read_voxels(header, voxels)
    except FastBTSError as error:
        raise ValueError(str(error).removeprefix(f"{path}: ")) from None
    axes = nib.orientations.io_orientation(np.linalg.inv(geometry.affine) @ header.geometry.affine)
    turned = nib.orientations.apply_orientation(voxels, axes)
    affine = header.geometry.affine @ nib.orientations.inv_ornt_aff(axes, voxels.shape)
    difference = geometry.difference(Geometry(turned.shape, affine))
    if difference is not None:
        raise ValueError(f"its image is on another grid: {difference}")
    return np.asfortranarray(turned)


def _reason(error: Exception) -> str:
    """Without paths, which may name the patient."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took more than {MAX_SECONDS} s"
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit code {error.returncode}"
    return (error.strerror or "no access") if isinstance(error, OSError) else str(error)
