"""The ops at BraTS size, with peers that compute the same: what `bench_ops` and `cuda_ops` time.

Adding an op adds one case here.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import op_peers
from fastbts import ops
from fastbts.labels import ED, ET, NCR
from fastbts.ops import reference
from tests.ops.op import noise
from tests.ops.registry import OPS

VOLUME = (155, 240, 240)
TENSOR = (144, 176, 144)
COARSE = (18, 22, 18)  # an eighth of it, where the bridge is
WINDOW = 128

Arguments = dict[str, Any]
Job = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """What to time, and against what.

    Attributes:
        arguments: Of the op, without the arrays that it allocates itself on the CPU.
        n_bytes: What it must move: inputs once, outputs once.
        given: Names of outputs that are allocated once and not in each run.
        before: What else each run on the CPU does first, with a number of threads, as peers do it.
        target_ms: The median that was aimed at on two threads.
        peers: By name, jobs on the same arguments; each returns what `result` does, or None where
            its result differs on purpose.
        torch: Makes a job of torch from the arguments as tensors, on their device; as `peers`.
        result: What peers give, from the arrays that the op has written.
        mask: Where that is compared.
        atol: Largest difference to a peer.
    """

    arguments: Arguments
    n_bytes: int
    given: tuple[str, ...] = ()
    before: Callable[[int], Any] | None = None
    target_ms: float | None = None
    peers: Mapping[str, Job] = field(default_factory=dict)
    torch: Callable[[Any, Arguments], Job] | None = None
    result: Callable[[list[Any]], Any] = lambda written: written[0]
    mask: Any = True
    atol: float = 1e-4

    def check(self, name: str, written: list[Any], peer: Any) -> None:
        """Fails where a peer gives something else than the op."""
        if peer is not None:
            ours, theirs = (np.where(self.mask, x, 0) for x in (self.result(written), peer))
            np.testing.assert_allclose(ours, theirs, atol=self.atol, err_msg=name)


def optional(name: str) -> Any:
    """A peer's module, or None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        return None


def random(*shape: int) -> NDArray[np.float32]:
    return noise(np.random.default_rng(0), *shape)


def brain(n_modalities: int = 4) -> NDArray[np.int16]:
    """Noise inside an ellipsoid of about a brain's size, (M, D, H, W)."""
    lines = (np.linspace(-1, 1, n, dtype=np.float32) for n in VOLUME)
    axes = np.meshgrid(*lines, indexing="ij", sparse=True)
    inside = sum((axis / s) ** 2 for axis, s in zip(axes, (0.9, 0.72, 0.6), strict=True)) < 1
    noise = np.random.default_rng(0).integers(50, 1500, (n_modalities, *VOLUME), np.int16)
    return noise * inside


def corners() -> NDArray[np.int32]:
    """Origins of eight windows, one in each corner of the tensor."""
    at = [[(n - WINDOW) * (b >> i & 1) for i, n in enumerate(TENSOR)] for b in range(8)]
    return np.array(at, np.int32)


def brain_box() -> Case:
    volume = brain()
    return Case(
        {"volume": volume},
        volume.nbytes,
        peers={"numpy": lambda: np.ravel(op_peers.numpy_box(volume))},
        result=lambda written: written[0][:6],
    )


def normalize() -> Case:
    """Box, crop, clip, z-score, without padding. MONAI's chain leaves out the percentiles."""
    volume = brain()
    found = ops.brain_box(volume)
    peers = {"numpy": lambda: op_peers.numpy_normalize(volume)}
    if transforms := optional("monai.transforms"):
        peers["monai"] = op_peers.monai_normalize(transforms, volume)
    return Case(
        {"volume": volume, "box": found.bounds, "size": found.size},
        volume.nbytes + 4 * len(volume) * int(np.prod(found.size)),
        before=lambda n_threads: ops.brain_box(volume, n_threads),
        target_ms=40,
        peers=peers,
        atol=1e-2,  # NumPy's sums are float32
    )


def window() -> Case:
    tensor, origins = random(4, *TENSOR), corners()
    out = np.empty((8, 4, WINDOW, WINDOW, WINDOW), np.float32)
    return Case(
        {"tensor": tensor, "origins": origins, "size": (WINDOW,) * 3},
        tensor.nbytes + out.nbytes,
        given=("out",),
        peers={"numpy": lambda: op_peers.numpy_window(tensor, origins, out)},
    )


def blend() -> Case:
    """Onto a volume of zeros, and in each further run onto what is there."""
    logits, origins = random(8, 3, WINDOW, WINDOW, WINDOW), corners()
    profile = np.exp(-(np.linspace(-2, 2, WINDOW) ** 2)).astype(np.float32)
    weights, total = (np.tile(profile, (8, 1)),) * 3, np.zeros((3, *TENSOR), np.float32)
    weight, own = profile[:, None, None] * profile[:, None] * profile, total.copy()
    return Case(
        {"logits": logits, "origins": origins, "weights": weights, "total": total},
        logits.nbytes + 2 * total.nbytes,
        target_ms=60,
        peers={"numpy": lambda: op_peers.blend_with(np, logits, origins, weight, own)},
        torch=op_peers.torch_blend,
    )


def label() -> Case:
    size = (138, 171, 141)
    logits, labels, own = random(3, *size) - 1, *(np.zeros(VOLUME, np.uint8) for _ in range(2))
    d, h, w = ((n // 2 - k // 2, n // 2 - k // 2 + k) for n, k in zip(VOLUME, size, strict=True))
    box = d, h, w
    rule = {"offset": (0, 0, 0), "box": box, "thresholds": (0.5,) * 3, "values": (2, 1, 4)}
    return Case(
        {"logits": logits, **rule, "labels": labels},
        logits.nbytes + logits[0].size,
        target_ms=15,
        peers={"numpy": lambda: op_peers.label_with(np, logits, own, box)},
        torch=op_peers.torch_label,
    )


def expected_dice() -> Case:
    """Of a whole brain, every second voxel."""
    logits, size, n = random(3, *TENSOR), TENSOR, int(np.prod(TENSOR)) // 8
    rule = {"temperatures": (2.0,) * 3, "thresholds": (0.5,) * 3, "step": 2}
    return Case(
        {"logits": logits, "offset": (0, 0, 0), "size": size, **rule},
        logits.nbytes // 4,
        peers={"numpy": lambda: op_peers.expected_dice_with(np, logits)},
        torch=lambda torch, given: partial(op_peers.expected_dice_with, torch, given["logits"]),
        result=lambda written: written[0] / np.array([n, n * 2**30, n * 2**30, 2**30]),
    )


def resample() -> Case:
    """From slices of 2 mm to 1 mm."""
    logits, size, peers = random(3, 69, 171, 141), (138, 171, 141), {}
    if ndimage := optional("scipy.ndimage"):
        peers["scipy"] = op_peers.scipy_resample(ndimage, logits)
    return Case(
        {"tensor": logits, "size": size},
        logits.nbytes + 2 * logits.nbytes,
        peers=peers,
        torch=op_peers.torch_resample,
    )


def resample_affine() -> Case:
    """Images of thick slices, turned by 11 degrees, onto a grid of 1 mm."""
    c, s = np.cos(0.2), np.sin(0.2)
    matrix = np.array([[0.5 * c, 0, -0.5 * s, 12], [0, 1, 0, 0.3], [s, 0, c, -18]])
    images, peers = random(2, 78, 240, 240), {}
    inside = ops.resample_affine(np.ones_like(images), matrix, VOLUME) != 0
    if ndimage := optional("scipy.ndimage"):
        peers["scipy"] = op_peers.scipy_affine(ndimage, images, matrix, VOLUME)
    return Case(
        {"tensor": images, "matrix": matrix, "size": VOLUME},
        images.nbytes + 4 * 2 * int(np.prod(VOLUME)),
        peers=peers,
        mask=inside,  # SciPy extends the edges without limit
        atol=1e-3,
    )


def components() -> Case:
    """A large part, and a single voxel in a thousand. None is removed: every run does the same."""
    lines = (np.linspace(-1, 1, n) for n in TENSOR)
    tumour = sum(axis**2 for axis in np.meshgrid(*lines, indexing="ij", sparse=True)) < 0.1
    labels = (tumour | (np.random.default_rng(0).random(TENSOR) < 1e-3)).astype(np.uint8)
    ndimage = optional("scipy.ndimage")
    return Case(
        {"labels": labels, "box": tuple((0, n) for n in TENSOR), "min_voxels": 0},
        labels.nbytes,
        peers={"scipy": op_peers.scipy_components(ndimage, labels)} if ndimage else {},
        result=lambda written: written[1][0],
    )


def stray_core() -> Case:
    """Core in a ring, and single voxels of it in the oedema, which are too small to be changed:
    every run does the same."""
    lines = (np.linspace(-1, 1, n) for n in TENSOR)
    radius = sum(axis**2 for axis in np.meshgrid(*lines, indexing="ij", sparse=True))
    labels = np.select([radius < 0.05, radius < 0.1, radius < 0.3], [NCR, ET, ED]).astype(np.uint8)
    labels[(labels == ED) & (np.random.default_rng(0).random(TENSOR) < 0.01)] = NCR
    box, values = tuple((0, n) for n in TENSOR), (ED, NCR, ET)
    ndimage = optional("scipy.ndimage")
    return Case(
        {"labels": labels, "box": box, "values": values, "min_voxels": 500},
        labels.nbytes,
        peers={"scipy": op_peers.scipy_enclosed(ndimage, labels, NCR)} if ndimage else {},
        result=lambda written: written[1][0],
    )


def mutual_information() -> Case:
    """As the finest level of a registration asks for it: a quadratic is fitted to 28 poses."""
    rng, n = np.random.default_rng(0), 80_000
    points = (rng.random((n, 3), np.float32) * VOLUME).astype(np.float32)
    arguments = {
        "points": points[np.argsort(points[:, 0])],
        "values": rng.integers(0, 256, n).astype(np.uint8),
        "moving": brain(1)[0].astype(np.uint8),
        "maps": np.eye(3, 4) + rng.normal(0, 1e-3, (28, 3, 4)),
    }
    n_bytes = 28 * n * (12 + 1 + 8)  # a point, its value, eight voxels
    peers = {"numpy": partial(reference.mutual_information, **arguments)}
    return Case(arguments, n_bytes, peers=peers)


def semantic_bridge() -> Case:
    """With the light network's channels at stride 8; added to the same x in each run."""
    arguments = OPS["semantic_bridge"].example(
        np.random.default_rng(0), COARSE, n_r=32, n_c=128, n_cases=1
    )
    n_bytes = arguments["reduced"].nbytes + 2 * arguments["x"].nbytes
    return Case(arguments, n_bytes, given=("out",), torch=op_peers.torch_bridge)


def semantic_attention() -> Case:
    """The finer of the light network's two levels that have it."""
    rng, size = np.random.default_rng(0), (36, 44, 36)
    arguments = OPS["semantic_attention"].example(rng, size, n_c=32, n_below=64, n_j=16, n_cases=1)
    features = [arguments[name] for name in ("skip", "encoded", "decoded", "similarity")]
    n_bytes = sum(feature.nbytes for feature in features) + arguments["skip"].nbytes
    return Case(arguments, n_bytes, given=("out",), torch=op_peers.torch_attention)


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        brain_box,
        normalize,
        window,
        blend,
        label,
        expected_dice,
        resample,
        resample_affine,
        components,
        stray_core,
        mutual_information,
        semantic_bridge,
        semantic_attention,
    )
}
"""By the op's name, in the order of the tables."""
