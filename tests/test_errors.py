"""A lack of memory is one type of error, whoever reports it and wherever it happens."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from fastbts import DeviceError, FailedCase, InputError, Segmenter
from fastbts.errors import is_out_of_memory, memory_errors

Case = tuple[np.ndarray, np.ndarray]


def caused(error: Exception, cause: Exception | None) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ImportError("a.so: failed to map segment from shared object"), True),
        (ImportError("a.so: failed to map segment from shared object: not permitted"), False),
        (MemoryError(), True),
        (np._core._exceptions._ArrayMemoryError((4, 4), np.dtype("f4")), True),
        (OSError(errno.ENOMEM, "no"), True),
        (RuntimeError("Exception from plugin.cpp:54: can't alloc"), True),
        (RuntimeError("cpu_memory.cpp:257: Failed to allocate 29196288 bytes of memory"), True),
        (RuntimeError("plugin.cpp:54: Resource temporarily unavailable"), True),
        (DeviceError("cudaMalloc: cudaErrorMemoryAllocation"), True),
        (caused(DeviceError("the runtime failed"), MemoryError()), True),
        (caused(DeviceError("the runtime failed"), RuntimeError("a bug")), False),
        (OSError(errno.ENOSPC, "disk full"), False),
        (RuntimeError("shape mismatch"), False),
    ],
)
def test_a_lack_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_errors_of_other_kinds_pass_through() -> None:
    for error in (InputError("out of memory.nii.gz: damaged"), KeyError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), memory_errors("x"):
            raise error


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            "segmenter.as_volume",
            "^the case cannot be read: out of memory: 136 MiB; free memory, or use a l",
        ),
        ("pipeline.prediction.normalize", "^a case of 30 x 41 x 23 voxels: out of memory: 136 MiB"),
        ("pipeline.label.Labelling", "^a case of 30 x 41 x 23 voxels: out of memory: 136 MiB"),
    ],
)
def test_every_stage_reports_it(
    voxel_segmenter: Segmenter,
    small_case: Case,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    message: str,
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise MemoryError("136 MiB")

    monkeypatch.setattr(f"fastbts.{stage}", fail)
    with pytest.raises(DeviceError, match=message):
        voxel_segmenter.predict(small_case[0])
    (result,) = voxel_segmenter.predict_batch([small_case[0]])
    assert isinstance(result, FailedCase)
    assert isinstance(result.error, DeviceError)
