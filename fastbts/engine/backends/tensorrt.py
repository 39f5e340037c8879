"""Runs plans of TensorRT (10.10 or later, 11) and TensorRT-RTX, which share one Python API.

**Nothing here beyond the check for a device has run on a GPU**, and nothing has run with the full
TensorRT. Tests run it over fakes of CUDA and TensorRT, and check every name that it uses against
the real bindings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from fastbts.device.arrays import DeviceArray
from fastbts.device.runtime import Runtime
from fastbts.engine.backends.arguments import Floats
from fastbts.engine.backends.base import BaseEngine, Opened, Options
from fastbts.engine.backends.calibration import calibrated_ranges
from fastbts.engine.backends.tensorrt_log import shared_log
from fastbts.engine.backends.tensorrt_plan import (
    MAX_SIDE,
    TIMINGS,
    Wanted,
    build_plan,
    check_machine,
    checked_record,
    load_plugins,
    make_record,
    rebuild_message,
)
from fastbts.engine.backends.tensorrt_slot import LoadedPlan, Slot, context_settings
from fastbts.engine.file import EngineFile
from fastbts.errors import DeviceError


class TensorRTEngine(BaseEngine[Slot]):
    """Runs a plan on a CUDA device, in the precision that it was built in."""

    backend = "tensorrt"
    portable: ClassVar[bool] = False
    """Whether plans are built without a GPU, for any GPU, and compiled when they run."""
    isolated = True  # each call has its own contexts and memory
    max_side = MAX_SIDE

    def _open(self, options: Options) -> Opened[Slot]:
        record = checked_record(self.file, self.backend)
        if options.precision not in ("auto", record["precision"]):
            raise DeviceError(
                f"precision {options.precision!r}: this plan computes in {record['precision']}; "
                "use precision='auto'"
            )
        self.batch = int(record["max_batch"])
        plan = self._load_plan(self._runtime(), int(options.device.removeprefix("cuda:")), record)
        about = {
            "backend_version": record["version"],
            "precision": record["precision"],
            "plugins": record["plugins"],
        }
        return Opened(partial(Slot, plan), about)

    def _runtime(self) -> Runtime:
        try:
            return Runtime()
        except DeviceError as error:
            raise DeviceError(f"{self.file.path}: built for {self.backend}: {error}") from error

    def _load_plan(self, cuda: Runtime, index: int, record: dict[str, Any]) -> LoadedPlan:
        trt = self.package()
        log = shared_log(trt)
        with cuda.on(index):  # where TensorRT loads an engine, it runs it
            runtime = trt.Runtime(log)
            capability = cuda.compute_capability()
            check_machine(self.file, record, trt.__version__, capability)
            if record["plugins"]:
                load_plugins(runtime, log)
            engine = runtime.deserialize_cuda_engine(bytes(self.file.payloads["engine.plan"]))
            if engine is None:
                here = f"{trt.__version__} on compute capability {capability}"
                raise DeviceError(rebuild_message(self.file, record, here))
            settings = context_settings(trt, engine, compiles=self.portable)
        path, own_graphs = self.file.path, self.portable
        return LoadedPlan(path, cuda, index, runtime, engine, log, settings, own_graphs)

    def _run(self, call: Slot, tensor: Floats, text: Floats | None, logits: Floats) -> None:
        for part in self._batches(len(tensor)):
            call.run(tensor[part], text, logits[part])

    def _enqueue(
        self, call: Slot, tensor: DeviceArray, text: Floats | None, logits: DeviceArray, stream: int
    ) -> None:
        for part in self._batches(len(tensor)):
            call.enqueue(tensor[part], text, logits[part], stream)

    def _batches(self, n: int) -> list[slice]:
        return [slice(begin, begin + self.batch) for begin in range(0, n, self.batch)]

    def _fits(self, call: Slot, stream: int | None) -> bool:
        return call.fits(stream)

    def _free(self, call: Slot) -> None:
        call.close()

    @classmethod
    def build(
        cls, file: EngineFile, precision: str, tensors: Sequence[Floats], max_batch: int = 1
    ) -> dict[str, bytes]:
        """The plan, and the record of what built it; see `BaseEngine.build`."""
        trt = cls.package()
        capability = None if cls.portable else Runtime().compute_capability()
        ranges = calibrated_ranges(file, tensors) if precision == "int8" else {}
        wanted = Wanted(cls.backend, precision, max_batch, ranges, cls.portable)
        plan = build_plan(trt, file, wanted)
        record = make_record(trt, wanted, plan, capability)
        timings = {} if plan.timings is None else {TIMINGS: plan.timings}
        return {"engine.plan": plan.content, "engine.json": record, **timings}

    @classmethod
    def capabilities(cls) -> str:
        """Version; a plan is built without a GPU, and run with one."""
        return f"{cls.package().__version__}: builds plans; running them needs a CUDA device"


class TensorRTRTXEngine(TensorRTEngine):
    """The same for TensorRT-RTX, whose parser ends the process where a network has plugins."""

    backend = "tensorrt-rtx"
    portable = True
