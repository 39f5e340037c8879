"""Small training cases: phantoms of few voxels, declared to have 1 mm as training needs it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from fastbts import MODALITIES, EngineSpec
from fastbts.phantom import make_case, write_case
from tests.simt.build import locked
from tests.test_segmenter import expected_labels
from tests.training.clips import register_tiny_clip
from training.config import load_recipe
from training.data.cases import TrainingCase, engine_spec, prepare_case
from training.export import halve_weights, to_onnx
from training.model import UNet3d


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of three cases with cases.csv: case1 and case2 train, case3 validates."""
    folder = tmp_path_factory.mktemp("phantoms")
    for seed in (1, 2, 3):
        case = make_case(seed, shape=(64, 64, 48))
        volume = replace(case.volume, affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
        write_case(replace(case, volume=volume), folder / f"case{seed}")
    (folder / "cases.csv").write_text("case,split\ncase1,train\ncase2,train\ncase3,val\n")
    return folder


Exported = Callable[[UNet3d, EngineSpec], bytes]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """ONNX of a network as in an engine file; the processes of pytest-xdist share their exports.

    An export takes up to half a minute, and several files test the same networks.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def export(network: UNet3d, spec: EngineSpec) -> bytes:
        weights = [weight.numpy().tobytes() for weight in network.state_dict().values()]
        digest = hashlib.sha256(
            b"".join([repr((network, network.config, spec)).encode(), *weights])
        )
        path = folder / f"{digest.hexdigest()}.onnx"
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                path.write_bytes(halve_weights(to_onnx(network, spec)).SerializeToString())
        return path.read_bytes()

    return export


@pytest.fixture(scope="session")
def cases(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TrainingCase]:
    """The two training cases, prepared."""
    spec, cache = engine_spec(load_recipe("smoke")), tmp_path_factory.mktemp("cache")
    return [prepare_case(phantoms / name, spec, cache) for name in ("case1", "case2")]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Bits depend on the number of torch's threads, and small crops need no more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a small architecture registered with open_clip; see `tests/training/clips.py`."""
    return register_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def voxel_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases of noise, labelled as VoxelEngine does at thresholds of 0.7."""
    root = tmp_path_factory.mktemp("voxel")
    for seed in range(3):
        images = np.zeros((4, 24, 26, 20), np.int16)
        images[:, 3:22, 2:23, 1:19] = np.random.default_rng(seed).integers(50, 900, (4, 19, 21, 18))
        folder = root / f"case{seed}"
        folder.mkdir()
        labels = expected_labels(images, at=1 + np.log(0.7 / 0.3) / 4)
        for name, voxels in zip((*MODALITIES, "seg"), (*images, labels), strict=True):
            nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])).to_filename(
                folder / f"x_{name}.nii.gz"
            )
    (root / "cases.csv").write_text(
        "case,split,group\ncase0,val,HGG\ncase1,val,LGG\ncase2,val,HGG\n"
    )
    return root
