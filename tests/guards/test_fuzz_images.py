"""Damaged image files give a result or a typed error: no crash, no hang, no other exception."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbts import FastBTSError, Segmenter
from tests.budget import examples, only

pytestmark = pytest.mark.guard
MODALITIES = ("flair", "t1", "t1ce", "t2")
# Values at which arithmetic on sizes, offsets and intensities goes wrong.
ODD_BYTES = [bytes([b]) * n for b in (0x00, 0x7F, 0x80, 0xFF) for n in (1, 2, 4, 8)]
ODD_BYTES += [np.float32(v).tobytes() for v in (np.nan, np.inf, -np.inf, 1e38, 1e-45)]

Edit = Callable[[bytes], bytes]


def _overwrite(at: float, content: bytes) -> Edit:
    def edit(file: bytes) -> bytes:
        start = int(at * len(file))
        return file[:start] + content + file[start + len(content) :]

    return edit


def _insert(at: float, content: bytes) -> Edit:
    return lambda file: file[: int(at * len(file))] + content + file[int(at * len(file)) :]


def _cut(at: float, n: float) -> Edit:
    return lambda file: file[: int(at * len(file))] + file[int((at + n) * len(file)) :]


places = st.one_of(st.floats(0, 0.02), st.floats(0, 1))  # the header is at the beginning
contents = st.one_of(st.sampled_from(ODD_BYTES), st.binary(min_size=1, max_size=8))
edits = st.one_of(
    st.builds(_overwrite, places, contents),
    st.builds(_insert, places, contents),
    st.builds(_cut, places, st.floats(0, 1)),
)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small images, and one for each way in which NIfTI stores voxels."""
    folder, rng = tmp_path_factory.mktemp("fuzz"), np.random.default_rng(0)
    for modality in MODALITIES:
        voxels = np.zeros((24, 26, 28), np.int16)
        voxels[3:-3, 3:-3, 3:-3] = rng.integers(50, 900, (18, 20, 22))
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"{modality}.nii")
    return folder


@pytest.mark.parametrize("packed", ["before", "after", "not"])
@examples(60, 4_000)
@given(
    modality=st.sampled_from(MODALITIES),
    changes=st.lists(edits, min_size=1, max_size=4),
    version=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    dtype=st.sampled_from(["u1", "i2", "f4", "f8", ">i2", ">f4"]),
)
def test_damaged_images(
    case: Path,
    voxel_segmenter: Segmenter,
    packed: str,
    modality: str,
    changes: list[Edit],
    version: type,
    dtype: str,
) -> None:
    """`packed`: the damage is in the gzip stream, or in what it holds, or there is no gzip."""
    original = nib.load(case / f"{modality}.nii")
    voxels = np.asarray(original.dataobj).astype(dtype)
    content = version(voxels, original.affine, dtype=voxels.dtype).to_bytes()
    content = gzip.compress(content, 1) if packed == "before" else content
    for change in changes:
        content = change(content)
    content = gzip.compress(content, 1) if packed == "after" else content
    damaged = case / ("damaged.nii" if packed == "not" else "damaged.nii.gz")
    damaged.write_bytes(content)
    images = {m: case / f"{m}.nii" for m in MODALITIES} | {modality: damaged}
    with only(FastBTSError):
        result = voxel_segmenter.predict(**images)
        assert result.labels.shape == result.volume.geometry.shape
        assert all(np.isfinite(ml) for ml in result.volumes_ml.values())
