"""From logits to labels on the input's grid: thresholds, then the rules for parts of the tumour."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastbts import ops
from fastbts.device.host import HOST
from fastbts.device.interface import Array, Workspace
from fastbts.errors import DeviceError
from fastbts.labels import ED, ET, NCR, label_table
from fastbts.ops import PackedLogits, Parts, RegionCounts, StrayCore
from fastbts.placement import Placement, box_size
from fastbts.spec import EngineSpec
from fastbts.volume import Geometry, to_network_axes


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labels on the input's grid.

    Attributes:
        labels: (i, j, k) uint8, values of `fastbts.labels`, or those of the engine's other regions.
        volumes_ml: Volume per region, in millilitres.
        rules: What each rule did. small_parts: threshold_mm3 and, if that is not 0, n_parts_before,
            n_parts_after, removed_mm3. stray_core: threshold_mm3 and, if that is not 0,
            enclosed_mm3 and stray_mm3 of inner voxels, changed_mm3. small_et: threshold_mm3,
            applied, et_mm3_before, et_mm3_after. The last two are empty for other regions.
    """

    labels: Array
    volumes_ml: dict[str, float]
    rules: dict[str, dict[str, float | bool]]


def label(
    logits: NDArray[np.float32],
    placement: Placement,
    geometry: Geometry,
    spec: EngineSpec,
    n_threads: int = 0,
) -> Labelled:
    """Turns logits (K, D, H, W) on the tensor's grid into labels on the input's grid.

    Connected parts of the whole tumour smaller than `spec.min_part_mm3` become background; then
    stray necrotic core from `spec.stray_core_mm3` on becomes oedema (`fastbts.ops.stray_core`);
    then enhancing tumour of less than `spec.min_et_mm3` in total becomes necrotic core.

    Raises:
        DeviceError: Logits inside the brain box are NaN or infinite.
    """
    labelling = labelling_of(spec)(logits, placement, geometry, spec, n_threads=n_threads)
    return labelling.concluded(*labelling.numbers)


def labelling_of(spec: EngineSpec) -> type[Labelling] | type[RegionLabelling]:
    """What labels the regions of an engine."""
    return Labelling if spec.is_glioma else RegionLabelling


class Labelling:
    """WT, TC and ET of a case, as `label` makes them, in a workspace that may not be done yet.

    Attributes:
        labels: (i, j, k) uint8; complete after `concluded`.
        numbers: What `concluded` needs, in host memory.
    """

    def __init__(
        self,
        logits: Array | PackedLogits,
        placement: Placement,
        geometry: Geometry,
        spec: EngineSpec,
        workspace: Workspace = HOST,
        n_threads: int = 0,
    ) -> None:
        self._placement, self._spec, self._workspace = placement, spec, workspace
        self._n_threads, self._voxel_ml = n_threads, geometry.voxel_ml
        # In the memory order of the NIfTI file written later. Zeroed pages cost nothing until
        # touched.
        self.labels: Array = workspace.zeros(geometry.shape[::-1], np.uint8).T
        self._view = to_network_axes(self.labels, geometry)
        self._logits, self._offset = placement.restore(logits, workspace, n_threads)
        self.numbers = self._mark(ET)

    def concluded(self, counts: NDArray[np.int64], *of_rules: NDArray[np.int64]) -> Labelled:
        """Applies the rules for which the numbers are needed; then the labels are complete.

        Args:
            counts: The first of `numbers`, (4,).
            of_rules: The others: (258,) of small parts, (3,) of stray core, where the rule is on.
        Raises:
            DeviceError: Logits inside the brain box are NaN or infinite.
        """
        found, spec = RegionCounts.of(counts.tolist()), self._spec
        _check_finite(found.n_nonfinite)
        voxel_mm3 = self._voxel_ml * 1000
        rest = iter(of_rules)
        parts = next(rest) if spec.min_part_mm3 else None
        core = StrayCore.of(next(rest).tolist()) if spec.stray_core_mm3 else None
        left, small_parts = _without_parts(found, parts, spec.min_part_mm3, voxel_mm3)
        n_voxels = dict(zip(spec.regions, left[:3], strict=True))
        et_mm3 = n_voxels["ET"] * voxel_mm3
        small = 0 < et_mm3 < spec.min_et_mm3
        if small:  # without enhancing tumour no core is stray
            self._mark(NCR)
            self._workspace.wait()
            n_voxels["ET"], core = 0, core and core._replace(n_changed=0)
        n_voxels["TC"] -= core.n_changed if core else 0
        small_et = {
            "threshold_mm3": spec.min_et_mm3,
            "applied": small,
            "et_mm3_before": round(et_mm3, 3),
            "et_mm3_after": 0.0 if small else round(et_mm3, 3),
        }
        stray_core = _stray_core(core, spec.stray_core_mm3, voxel_mm3)
        volumes_ml = {region: n * self._voxel_ml for region, n in n_voxels.items()}
        rules = {"small_parts": small_parts, "stray_core": stray_core, "small_et": small_et}
        return Labelled(self.labels, volumes_ml, rules)

    def _mark(self, et: int) -> list[Array]:
        """Writes the labels, with this one for enhancing tumour; returns `numbers`."""
        box, least = self._placement.box, uncalibrated(self._spec)
        counts, stream = self._workspace.kept("counts", (4,), np.int64), self._workspace.stream
        ops.label(
            self._logits,
            self._offset,
            box,
            (least[0], least[1], least[2]),
            (ED, NCR, et),
            self._view,
            self._n_threads,
            counts=counts,
            stream=stream,
        )
        return [counts, *self._remove_parts(), *self._change_stray_core(et)]

    def _remove_parts(self) -> list[Array]:
        """Applies the threshold for small parts, if there is one; returns the counts of parts."""
        if not self._spec.min_part_mm3:
            return []
        box, parts = self._placement.box, self._workspace.kept("parts", (258,), np.int64)
        ops.components(
            self._view,
            box,
            _min_voxels(self._spec.min_part_mm3, self._voxel_ml * 1000),
            self._n_threads,
            counts=parts,
            scratch=self._workspace.scratch("components", (2, math.prod(box_size(box))), np.int32),
            stream=self._workspace.stream,
        )
        return [parts]

    def _change_stray_core(self, et: int) -> list[Array]:
        """Makes stray core oedema, if the rule is on; returns its counts."""
        if not self._spec.stray_core_mm3 or et != ET:
            return []
        box, counts = self._placement.box, self._workspace.kept("stray core", (3,), np.int64)
        ops.stray_core(
            self._view,
            box,
            (ED, NCR, ET),
            _min_voxels(self._spec.stray_core_mm3, self._voxel_ml * 1000),
            self._n_threads,
            counts=counts,
            scratch=self._workspace.scratch("stray core", (4, math.prod(box_size(box))), np.int32),
            stream=self._workspace.stream,
        )
        return [counts]


class RegionLabelling:
    """Any regions of a case, as `label` makes them, computed on the host by `label_table`.

    Attributes:
        labels: (i, j, k) uint8, where the logits are.
        numbers: Empty: the host has them.
    """

    def __init__(
        self,
        logits: Array | PackedLogits,
        placement: Placement,
        geometry: Geometry,
        spec: EngineSpec,
        workspace: Workspace = HOST,
        n_threads: int = 0,
    ) -> None:
        self.numbers: list[Array] = []
        self._spec, self._voxel_ml, box = spec, geometry.voxel_ml, placement.box
        voxels = logits.voxels(n_threads) if isinstance(logits, PackedLogits) else logits
        restored, offset = placement.restore(voxels, workspace, n_threads)
        cut = tuple(slice(o, o + n) for o, n in zip(offset, box_size(box), strict=True))
        inside = workspace.get(restored)[0][(slice(None), *cut)]
        self._n_nonfinite = int(np.count_nonzero(~np.isfinite(inside).all(axis=0)))
        labels: NDArray[np.uint8] = np.zeros(geometry.shape[::-1], np.uint8).T
        view = to_network_axes(labels, geometry)
        view[placement.in_volume] = label_table(spec.labels)[_sets(inside, spec)]
        self._parts = self._remove_parts(view, placement, n_threads)
        self._n_of_label = np.bincount(view[placement.in_volume].ravel(), minlength=256)
        self.labels = workspace.own(workspace.put(labels.T, "labels")).T

    def concluded(self) -> Labelled:
        """The labels with their volumes.

        Raises:
            DeviceError: Logits inside the brain box are NaN or infinite.
        """
        _check_finite(self._n_nonfinite)
        volumes_ml = {
            region: int(self._n_of_label[list(labels)].sum()) * self._voxel_ml
            for region, labels in self._spec.region_labels.items()
        }
        rules: dict[str, dict[str, float | bool]] = {"stray_core": {}, "small_et": {}}
        return Labelled(self.labels, volumes_ml, {"small_parts": self._parts, **rules})

    def _remove_parts(
        self, view: NDArray[np.uint8], placement: Placement, n_threads: int
    ) -> dict[str, float | bool]:
        """Applies the threshold for small parts, if there is one; returns its record."""
        threshold, voxel_mm3 = self._spec.min_part_mm3, self._voxel_ml * 1000
        if not threshold:
            return {"threshold_mm3": 0.0}
        parts = ops.components(view, placement.box, _min_voxels(threshold, voxel_mm3), n_threads)
        assert isinstance(parts, Parts), "on the host"
        return {
            "threshold_mm3": threshold,
            "n_parts_before": parts.n_before,
            "n_parts_after": parts.n_after,
            "removed_mm3": round(sum(parts.n_removed.values()) * voxel_mm3, 3),
        }


def _sets(logits: NDArray[np.float32], spec: EngineSpec) -> NDArray[np.uint8]:
    """Regions that each voxel (D, H, W) belongs to, as an index of `label_table`."""
    sets = np.zeros(logits.shape[1:], np.uint8)
    for k, (region, least) in enumerate(zip(logits, least_logits(spec), strict=True)):
        sets |= (region >= least).astype(np.uint8) << k
    return sets


def _min_voxels(min_part_mm3: float, voxel_mm3: float) -> int:
    # Rounded first, so that 10 mm3 are 10 voxels also if a float32 affine makes them 0.9999999 mm3.
    return math.ceil(round(min_part_mm3 / voxel_mm3, 6))


def _without_parts(
    counts: RegionCounts,
    parts: NDArray[np.int64] | None,
    min_part_mm3: float,
    voxel_mm3: float,
) -> tuple[RegionCounts, dict[str, float | bool]]:
    """The counts per region that small parts leave, and a record of their removal."""
    if parts is None:
        return counts, {"threshold_mm3": 0.0}
    n_before, n_after, *removed = parts.tolist()
    n_et = removed[ET]
    n_tc = n_et + removed[NCR]
    n_wt = n_tc + removed[ED]
    left = RegionCounts(counts.n_wt - n_wt, counts.n_tc - n_tc, counts.n_et - n_et, 0)
    record = {"threshold_mm3": min_part_mm3, "n_parts_before": n_before, "n_parts_after": n_after}
    return left, {**record, "removed_mm3": round(n_wt * voxel_mm3, 3)}


def _stray_core(
    core: StrayCore | None, threshold_mm3: float, voxel_mm3: float
) -> dict[str, float | bool]:
    """A record of the rule for stray core."""
    if core is None:
        return {"threshold_mm3": 0.0}
    volumes = {name[2:] + "_mm3": round(n * voxel_mm3, 3) for name, n in core._asdict().items()}
    return {"threshold_mm3": threshold_mm3, **volumes}


def _check_finite(n_nonfinite: int) -> None:
    if n_nonfinite:
        raise DeviceError(
            f"the network gave NaN or infinite values in {n_nonfinite} voxels of the brain box; "
            "expected finite logits; use precision='fp32' or another engine file"
        )


def uncalibrated(spec: EngineSpec) -> tuple[float, ...]:
    """The thresholds for sigmoid(logit), which the op compares, instead of sigmoid(logit / T)."""
    return tuple(_sigmoid(least) for least in least_logits(spec))


def least_logits(spec: EngineSpec) -> tuple[float, ...]:
    """The logits from which a voxel belongs to each region."""
    settings = zip(spec.temperatures, spec.thresholds, strict=True)
    return tuple(temperature * math.log(t / (1 - t)) for temperature, t in settings)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(min(-logit, 700)))  # exp(710) overflows
