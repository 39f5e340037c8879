"""One prediction on an emulated CUDA device and on the CPU: the same labels.

This is emulation: it shows what is computed, copied and waited for, not how fast a GPU is.
"""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastbts import MODALITIES, Segmenter, SegmenterOptions, Volume
from fastbts.device.arrays import DeviceArray, borrow
from fastbts.device.cuda import CudaWorkspace
from fastbts.device.host import HOST
from fastbts.phantom import make_case
from fastbts.write.viewer.page import DATA
from tests.conftest import VoxelEngine
from tests.device.cases import AFFINES, LAYOUTS, assert_same, images, on_device, on_the_host
from tests.fakes import EmulatedCuda, cupy
from tests.fakes.voxel_engine import DeviceVoxelEngine
from tests.pipeline.test_label import ringed_case, speckled_case


def segmenter(cuda: EmulatedCuda, spec: Any = None, batch: int = 1, **options: Any) -> Segmenter:
    engine = DeviceVoxelEngine(cuda, batch=batch, **(spec or {}))
    made = Segmenter(engine, options=SegmenterOptions(**options), warm_up=False)
    cuda.used_by = made  # kept, as its end waits for the device, which would hide a missing wait
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
def test_labels_are_those_of_the_cpu(emulated: EmulatedCuda, layout: str, dtype: str) -> None:
    array = LAYOUTS[layout](images(dtype))
    np.testing.assert_array_equal(on_device(array).get(), array)
    expected = on_the_host(array, affine=AFFINES["LPS"])
    result = segmenter(emulated).predict(on_device(array), affine=AFFINES["LPS"])
    assert isinstance(result.labels, DeviceArray)
    assert expected.labels.any()
    assert_same(result, expected)


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("where", ["device", "host"])
def test_any_orientation(emulated: EmulatedCuda, affine: str, where: str) -> None:
    array = images()
    expected = on_the_host(array, affine=AFFINES[affine])
    given = on_device(array) if where == "device" else array
    result = segmenter(emulated).predict(given, affine=AFFINES[affine])
    assert isinstance(result.labels, DeviceArray if where == "device" else np.ndarray)
    assert_same(result, expected)


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float64"])
def test_other_types(emulated: EmulatedCuda, dtype: str) -> None:
    array = images(dtype)
    expected = on_the_host(array, affine=AFFINES["RAS"])
    assert_same(segmenter(emulated).predict(on_device(array), affine=AFFINES["RAS"]), expected)


def test_images_by_modality_and_in_another_order(emulated: EmulatedCuda) -> None:
    array, affine = images(), AFFINES["RAS"]
    expected = on_the_host(array, affine=affine)
    by_name = {m: on_device(array[i]) for i, m in enumerate(MODALITIES)}
    assert_same(segmenter(emulated).predict(by_name, affine=affine), expected)
    assert_same(segmenter(emulated).predict(**by_name, affine=affine), expected)
    turned = on_device(np.ascontiguousarray(array[::-1]))
    order = MODALITIES[::-1]
    assert_same(segmenter(emulated).predict(turned, order=order, affine=affine), expected)


def test_a_volume_on_the_device(emulated: EmulatedCuda) -> None:
    volume = Volume(images(), AFFINES["LPS"])
    expected = on_the_host(volume)
    for data in (on_device(volume.data), borrow(on_device(volume.data))):
        there = Volume(data, volume.affine)
        assert repr(there) == repr(volume)
        assert_same(segmenter(emulated).predict(there), expected)


@pytest.mark.parametrize("missing", [("flair",), ("t1",), ("t1", "t1ce"), ("t2",)])
def test_missing_modalities(emulated: EmulatedCuda, missing: tuple[str, ...]) -> None:
    spec = {"optional_modalities": MODALITIES}
    array, affine = images(), AFFINES["RAS"]
    kept = {m: array[i] for i, m in enumerate(MODALITIES) if m not in missing}
    expected = on_the_host(kept, affine=affine, options={"allow_missing": True}, spec=spec)
    there = {m: on_device(image) for m, image in kept.items()}
    result = segmenter(emulated, spec, allow_missing=True).predict(there, affine=affine)
    assert_same(result, expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_sliding_windows(emulated: EmulatedCuda, batch: int) -> None:
    array, options = images(), {"mode": "sliding"}
    spec = {"window": (16, 16, 16)}
    expected = on_the_host(array, affine=AFFINES["LPS"], options=options, spec=spec)
    sliding = segmenter(emulated, spec, batch, mode="sliding")
    result = sliding.predict(on_device(array), affine=AFFINES["LPS"])
    assert_same(result, expected)
    n = expected.report["windows"]["count"]
    assert n > 3
    assert sum(shape[0] for shape in sliding.engine.shapes) == n
    assert max(shape[0] for shape in sliding.engine.shapes) == batch


@pytest.mark.parametrize("mode", ["one-pass", "sliding"])
def test_two_passes(emulated: EmulatedCuda, mode: str) -> None:
    array, options = images(), {"mode": mode, "passes": 2}
    expected = on_the_host(array, affine=AFFINES["LPS"], options=options)
    result = segmenter(emulated, **options).predict(on_device(array), affine=AFFINES["LPS"])
    assert_same(result, expected)


@pytest.mark.parametrize("where", ["device", "host"])
def test_rules_for_small_parts_and_small_et(emulated: EmulatedCuda, where: str) -> None:
    array, spec = speckled_case(), {"min_et_mm3": 27.5, "min_part_mm3": 2.0}
    expected = on_the_host(array, affine=AFFINES["LPS"], spec=spec)
    rules = expected.report["postprocessing"]
    assert rules["small_et"]["applied"]
    assert rules["small_parts"]["n_parts_before"] > rules["small_parts"]["n_parts_after"] > 0
    given = on_device(array) if where == "device" else array
    assert_same(segmenter(emulated, spec).predict(given, affine=AFFINES["LPS"]), expected)


@pytest.mark.parametrize("where", ["device", "host"])
def test_the_rule_for_stray_core(emulated: EmulatedCuda, where: str) -> None:
    array, spec = ringed_case(), {"stray_core_mm3": 8.0, "min_part_mm3": 2.0}
    expected = on_the_host(array, affine=AFFINES["LPS"], spec=spec)
    assert expected.report["postprocessing"]["stray_core"]["changed_mm3"] == 125
    given = on_device(array) if where == "device" else array
    assert_same(segmenter(emulated, spec).predict(given, affine=AFFINES["LPS"]), expected)


@pytest.mark.parametrize("kind", ["noise", "level", "NaN"])
def test_a_background_that_is_not_zero(emulated: EmulatedCuda, kind: str) -> None:
    array = images(np.float32)
    outside = ~(array != 0).any(axis=0)
    rng = np.random.default_rng(3)
    array[:, outside] = {
        "noise": rng.normal(0, 0.2, (4, int(outside.sum()))),
        "level": -7.0,
        "NaN": np.nan,
    }[kind]
    expected = on_the_host(array, affine=AFFINES["LPS"])
    assert any("background" in warning for warning in expected.warnings)
    assert_same(segmenter(emulated).predict(on_device(array), affine=AFFINES["LPS"]), expected)
    assert_same(segmenter(emulated).predict(array, affine=AFFINES["LPS"]), expected)


def test_a_case_that_only_seems_clean_is_computed_again(emulated: EmulatedCuda) -> None:
    array = images()
    array[:, -1, -1, -1] = 200  # far from the brain, which the counts of voxels do not show
    expected = on_the_host(array, affine=AFFINES["LPS"])
    assert any("not part of the brain" in warning for warning in expected.warnings)
    again = segmenter(emulated)
    assert_same(again.predict(on_device(array), affine=AFFINES["LPS"]), expected)
    assert len(again.engine.shapes) == 2
    assert_same(again.predict(array, affine=AFFINES["LPS"]), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_samples_are_those_of_the_cpu(emulated: EmulatedCuda, layout: str) -> None:
    array, steps = LAYOUTS[layout](images()), (4, 3, 2)
    workspace = CudaWorkspace(1)
    there = workspace.put(borrow(on_device(array, 1)), "images")
    (got,) = workspace.get(workspace.sampled(there, steps, "sample"))
    np.testing.assert_array_equal(got, HOST.sampled(array, steps, "sample"))


def test_an_image_is_read_after_the_work_that_makes_it(emulated: EmulatedCuda) -> None:
    array, affine = images(), AFFINES["RAS"]
    expected = on_the_host(array, affine=affine)
    stream = cupy.cuda.Stream(non_blocking=True)
    there = cupy.empty(array.shape, array.dtype)
    source = array.copy()
    there.set(source, stream=stream)  # queued there, not done

    says = {**there.__cuda_array_interface__, "stream": stream.ptr}
    made = SimpleNamespace(__cuda_array_interface__=says)
    assert_same(segmenter(emulated).predict(made, affine=affine), expected)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("affine", AFFINES)
def test_heads_in_any_layout_and_orientation(
    emulated: EmulatedCuda, layout: str, affine: str
) -> None:
    volume = make_case(0, (64, 64, 48)).volume
    array, spec = LAYOUTS[layout](volume.data), {"min_part_mm3": 20.0}
    expected = on_the_host(array, affine=AFFINES[affine], spec=spec)
    result = segmenter(emulated, spec).predict(on_device(array), affine=AFFINES[affine])
    assert_same(result, expected)


@pytest.mark.parametrize("where", ["host", "device", "device, by modality"])
def test_a_pickled_result_is_in_host_memory(emulated: EmulatedCuda, where: str) -> None:
    array, affine = images(), AFFINES["LPS"]
    there: Any = array if where == "host" else on_device(array)
    if where == "device, by modality":
        there = {m: on_device(array[i]) for i, m in enumerate(MODALITIES)}
    result = segmenter(emulated).predict(there, affine=affine)
    again = pickle.loads(pickle.dumps(result))
    assert_same(again, result)
    assert type(again.labels) is type(again.output) is np.ndarray
    np.testing.assert_array_equal(again.volume.data, array)


@pytest.mark.parametrize("device", ["cuda", "mps", 0, None, SimpleNamespace(type="cuda", index=0)])
def test_an_engine_that_names_its_device_otherwise_gets_numpy_arrays(device: Any) -> None:
    engine = VoxelEngine()
    engine.device = device
    result = Segmenter(engine).predict(images(), affine=AFFINES["RAS"])
    assert_same(result, on_the_host(images(), affine=AFFINES["RAS"]))


def test_files_and_previews_are_those_of_the_cpu(emulated: EmulatedCuda, tmp_path: Any) -> None:
    array, affine = images(shape=(30, 30, 24)), AFFINES["LPS"]
    results = {
        "cpu": on_the_host(array, affine=affine),
        "cuda": segmenter(emulated).predict(on_device(array), affine=affine),
    }
    for name, result in results.items():
        (tmp_path / name).mkdir()
        shown = {"preview": tmp_path / name / "seg.png", "html": tmp_path / name / "seg.html"}
        result.save(tmp_path / name / "seg.nii.gz", **shown)
    page, other = (
        (tmp_path / name / "seg.html").read_text().partition(DATA)[2].partition("</script>")[0]
        for name in results
    )
    assert page == other, "the same images and labels"
    image, other = ((tmp_path / name / "seg.nii.gz").read_bytes() for name in results)
    assert image == other
    assert (tmp_path / "cuda/seg.png").stat().st_size > 1000
