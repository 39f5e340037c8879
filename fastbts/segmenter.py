"""The main job. `Segmenter.predict` follows the data: read, normalize, infer, label, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.device.host_cpus import n_cpus, n_limited_cpus
from fastbts.device.interface import Workspace
from fastbts.device.lend import Workspaces, pipeline_device, workspaces
from fastbts.engine.file import EngineFile
from fastbts.engine.finder import needed_finder, open_finder
from fastbts.engine.fork import check_fork, enter_process, is_forked
from fastbts.engine.interface import Engine, device_of
from fastbts.engine.load import check_choice, chosen_device, open_engine, read_engine
from fastbts.errors import FastBTSError, OptionsError, memory_errors
from fastbts.options import SegmenterOptions
from fastbts.pipeline.batch import in_order
from fastbts.pipeline.infer import warm_up as warm_up_network
from fastbts.pipeline.prediction import Prediction
from fastbts.progress import Clock, Progress
from fastbts.read.inputs import as_volume, check_cases, check_names, one_case
from fastbts.read.quality import inspected
from fastbts.read.sample import Coarse
from fastbts.segmentation import FailedCase, Segmentation
from fastbts.spec import EngineSpec
from fastbts.volume import Volume

logger = logging.getLogger("fastbts")
logger.addHandler(logging.NullHandler())  # a library prints nothing unless it is asked to


class Segmenter:
    """Segments brain tumours, or what else its engine finds, one case per call.

    It loads its engine once, and then serves any number of threads.

    Args:
        engine: A path to a `.fbts` file, a loaded engine, or None for the shipped engine.
        backend: See `load_engine`.
        device: See `load_engine`.
        precision: See `load_engine`.
        trusted_key: See `load_engine`.
        options: How to run.
        warm_up: Runs the network once on a window of zeros, so that the first case is nearly as
            fast as the others, and on Linux moves the memory that this took to huge pages, unless
            the system has them switched off. It takes longer than it gains if only one case
            follows.
        background: Returns as soon as the engine file has been read and checked, and compiles the
            network in a thread. The first prediction reads its case meanwhile and then waits; it
            raises what the backend raises.

    Attributes:
        spec: The engine's inputs and outputs, as changed by the options:
            `optional_modalities` are those that a case may lack here.
        options: How it runs.

    Raises:
        EngineFileError, DeviceError: See `load_engine`.
        OptionsError: See `load_engine`; or `engine` is loaded, and backend, device, precision or
            trusted_key were given as well; or focus is on, and its file has no finder.
    """

    def __init__(
        self,
        engine: Engine | str | Path | None = None,
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        trusted_key: str | Path | None = None,
        options: SegmenterOptions | None = None,
        warm_up: bool = True,
        background: bool = False,
    ) -> None:
        self.options = SegmenterOptions() if options is None else options
        if not isinstance(self.options, SegmenterOptions):
            raise OptionsError(f"options: expected SegmenterOptions(...), got {options!r}")
        choice = {"backend": backend, "device": device, "precision": precision}
        source = _source(engine, trusted_key, choice)
        self.spec = _overridden(source.spec, self.options)
        self._owned = isinstance(source, EngineFile)
        finder = needed_finder(source) if self.options.focus else None
        self._finder: Engine | None = None
        self._lender = workspaces("cpu") if _is_on_cpu(source, **choice) else None

        def load() -> Engine:
            engine, share = source, (self.options.n_threads, self.options.parallel)
            if isinstance(engine, EngineFile):
                engine = open_engine(engine, **choice, n_threads=share[0], parallel=share[1])
            if finder is not None:
                self._finder = open_finder(finder, engine, *share)
            if self._lender is None:
                self._lender = workspaces(pipeline_device(device_of(engine)))
            for network in (engine, self._finder):
                if warm_up and network is not None:
                    warm_up_network(network, self._lender)
            return engine

        if self._owned:
            enter_process()
        with memory_errors(f"{self.spec.name}: cannot be loaded"):
            self._engine = _future(load, background)

    @property
    def engine(self) -> Engine:
        """The loaded engine; waits for it if it is compiled in the background."""
        self._check_process()
        return self._engine.result()

    def predict(
        self,
        case: Any = None,
        *,
        flair: Any = None,
        t1: Any = None,
        t1ce: Any = None,
        t2: Any = None,
        affine: NDArray[np.float64] | None = None,
        order: Sequence[str] | None = None,
        nnunet_order: Sequence[str] | None = None,
        grid: str | None = None,
        progress: Progress | None = None,
    ) -> Segmentation:
        """Segments one case.

        Arrays may be on the engine's CUDA device, of any library that has DLPack or
        `__cuda_array_interface__`, with any strides; images by modality must be dense there, in the
        same order of memory. `predict` waits for the work that is queued on them, on the current
        stream of their library, and works on a stream of its own, one per call at a time. It
        returns when the labels are complete. They are then a `DeviceArray`, which CuPy and PyTorch
        take without a copy.

        Args:
            case: A case folder, a Volume, an array (M, X, Y, Z), a 4-D file or nibabel image
                (X, Y, Z, M), or a mapping from modality to path, nibabel image or array (X, Y, Z).
                Or leave it out and name the images:
            flair: Path, nibabel image or array (X, Y, Z).
            t1: Likewise.
            t1ce: Likewise (contrast-enhanced T1).
            t2: Likewise.
            affine: For arrays: voxel index -> RAS+ position in mm, (4, 4). Without it the axes are
                taken as RAS+ with 1 mm voxels, and the result has a warning.
            order: For an array: modalities of its first axis; default: `spec.modalities`. For a
                4-D file, a folder that holds one, or a 4-D nibabel image: what its images are.
            nnunet_order: For a case folder in nnU-Net's names: modalities of `_0000`, `_0001`, ...
            grid: For files on different grids: modality whose grid all are resampled to.
            progress: Called with the stage and the fraction done.

        Returns:
            Labels and volumes on the input's grid, with timings and report. Labels are where the
            input was.

        Raises:
            InputError, GeometryError, CaseError: The input cannot be used.
            DeviceError: The device failed, there is too little memory, or this process was forked
                from one that had loaded an engine.
        """
        self._check_process()
        clock = Clock(progress)
        with clock("read", 0.0), memory_errors("the case cannot be read"):
            volume = as_volume(
                one_case(case, {"flair": flair, "t1": t1, "t1ce": t1ce, "t2": t2}),
                self.spec,
                affine=affine,
                order=order,
                nnunet_order=nnunet_order,
                grid=grid,
                device=lambda: self._workspaces().device,
            )
        return self._segment(case, volume, clock)

    def predict_batch(
        self,
        cases: Iterable[Any],
        *,
        stop_on_error: bool = False,
        affine: NDArray[np.float64] | None = None,
        order: Sequence[str] | None = None,
        nnunet_order: Sequence[str] | None = None,
        grid: str | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Segmentation | FailedCase]:
        """Segments cases: reads and computes the next ones while the caller uses a result.

        So a loop that saves each result reads, computes and writes at the same time. With
        `SegmenterOptions(parallel=2)` two cases are computed at once, each on half of the threads:
        faster where there is memory for it. When the caller closes the iterator, or an error ends
        it, the work that runs is cancelled.

        Args:
            cases: Each as in `predict`, for example `fastbts.find_cases(dataset).values()`.
            stop_on_error: Raises the error of a bad case, which ends the batch, instead of
                yielding it as a `FailedCase`.
            affine: As in `predict`, for all cases.
            order: Likewise.
            nnunet_order: Likewise.
            grid: Likewise.
            progress: Likewise; runs from 0 to 1 for each case, in order, and is called in the
                thread of the caller.

        Yields:
            One result per case, in order. Besides the result that the caller holds, at most
            `parallel` + 1 cases are in memory, and one more is taken from `cases`. `timings_ms`
            are wall times beside other cases; the total includes the wait for a turn.

        Raises:
            CaseError: `cases` is a single case.
            FastBTSError: The engine cannot be loaded; or a bad case, with `stop_on_error`.
        """
        self._check_process()
        check_cases(cases)
        check_names(self.spec, order=order, nnunet_order=nnunet_order, grid=grid)
        read = partial(
            as_volume,
            spec=self.spec,
            affine=affine,
            order=order,
            nnunet_order=nnunet_order,
            grid=grid,
            device=lambda: self._workspaces().device,
        )
        return self._batch(read, cases, stop_on_error, progress)

    def _batch(
        self,
        read: Callable[[Any], Volume],
        cases: Iterable[Any],
        stop_on_error: bool,
        progress: Progress | None,
    ) -> Iterator[Segmentation | FailedCase]:
        parallel = self.options.parallel
        turns = Semaphore(parallel)  # one more case is read meanwhile

        def work(case: Any, report: Progress) -> Segmentation | FailedCase:
            clock = Clock(report)
            try:
                with clock("read", 0.0), memory_errors("the case cannot be read"):
                    volume = read(case)
                with turns:
                    return self._segment(case, volume, clock)
            except FastBTSError as error:
                return FailedCase(case, error)

        with (
            memory_errors("the batch"),
            closing(in_order(work, cases, parallel + 1, progress)) as results,
        ):
            for result in results:
                error = result.error if isinstance(result, FailedCase) else None
                if error and (stop_on_error or self._failed_with(error)):
                    raise error
                yield result
                self._check_process()  # else it would wait for threads that a fork left behind

    def close(self) -> None:
        """Frees the engine, unless it was loaded by the caller, and memory kept on its device."""
        if self._owned and not is_forked() and self._engine.exception() is None:
            for engine in (self.engine, self._finder):
                if engine is not None:
                    engine.close()
        if self._lender is not None:  # known once the engine is loaded
            self._lender.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if not self._engine.done() or self._engine.exception():
            state = "failed to load" if self._engine.done() else "loading"
            return f"Segmenter({self.spec.name}: {state})"
        about = self._engine.result().description
        how = ", ".join(str(about[key]) for key in ("backend", "device", "precision"))
        return f"Segmenter({self.spec.name}: {how})"

    def _segment(self, case: Any, volume: Volume, clock: Clock) -> Segmentation:
        for warning in volume.warnings:
            logger.warning("%s", warning)
        is_inspected = isinstance(volume.data, np.ndarray) or isinstance(case, Volume)
        with (
            memory_errors(f"a case of {' x '.join(map(str, volume.geometry.shape))} voxels"),
            self._workspaces(clock).lend() as workspace,
        ):
            predicted = Prediction(
                volume,
                self.spec,
                self._options_of_a_case(),
                clock,
                workspace,
                lambda: self._loaded(clock),
                None if is_inspected else partial(_inspect, volume),
                lambda: self._finder,
            ).run()
        return Segmentation(*predicted, self.spec.temperatures, regions=self.spec.region_labels)

    def _options_of_a_case(self) -> SegmenterOptions:
        """The options with the share of the threads that one of the parallel cases has."""
        parallel = self.options.parallel
        n_threads = self.options.n_threads or (n_cpus() if parallel > 1 else n_limited_cpus())
        return replace(self.options, n_threads=-(-n_threads // parallel))

    def _workspaces(self, clock: Clock | None = None) -> Workspaces:
        """Those of the engine's device; waits for the engine if it may run on another one."""
        if self._lender is None:
            _ = self.engine if clock is None else self._loaded(clock)
        assert self._lender is not None, "it is known when the engine is loaded"
        return self._lender

    def _check_process(self) -> None:
        """Raises DeviceError in a forked process, where the future of the engine may never end."""
        if self._owned or (self._lender is not None and self._lender.device != "cpu"):
            check_fork()

    def _failed_with(self, error: FastBTSError) -> bool:
        """Whether the error is that of loading the engine; does not wait for it."""
        return self._engine.done() and self._engine.exception() is error

    def _loaded(self, clock: Clock) -> Engine:
        if not self._engine.done():
            with clock("load", 0.1):
                return self.engine
        return self.engine


def _source(
    engine: Engine | str | Path | None, trusted_key: str | Path | None, choice: Mapping[str, str]
) -> Engine | EngineFile:
    """A loaded engine as it is, or the engine file of a path."""
    if engine is None or isinstance(engine, str | Path):
        check_choice(**choice)
        return read_engine(engine, trusted_key)
    given = [name for name, value in choice.items() if value != "auto"]
    given += ["trusted_key"] if trusted_key is not None else []
    if not hasattr(engine, "infer"):
        raise OptionsError(
            f"engine: expected an engine, the path of its file or None, got {engine!r}"
        )
    if given:
        raise OptionsError(
            f"{', '.join(given)}: cannot be chosen for an engine that is already loaded; "
            "give the path of its file, or leave this out"
        )
    return engine


def _is_on_cpu(source: Engine | EngineFile, backend: str, device: str, precision: str) -> bool:
    """Whether it is certain, before a file's engine is loaded, that it runs on the CPU."""
    if isinstance(source, EngineFile):
        return chosen_device(source, backend, device) == "cpu"
    return device_of(source) == "cpu"


def _inspect(volume: Volume, workspace: Workspace) -> Callable[[], Volume]:
    """Quality control of a case on a device, after the next wait."""
    coarse = Coarse.of(volume, workspace)
    return lambda: inspected(volume, coarse)


def _overridden(spec: EngineSpec, options: SegmenterOptions) -> EngineSpec:
    part = spec.min_part_mm3 if options.min_part_mm3 is None else options.min_part_mm3
    optional = spec.optional_modalities if options.allow_missing else ()
    return replace(spec, min_part_mm3=part, optional_modalities=optional)


def _future(load: Callable[[], Engine], background: bool) -> Future[Engine]:
    """The engine, loaded now or in a thread."""
    if background:
        pool = ThreadPoolExecutor(1, "fastbts-load")
        future = pool.submit(load)
        pool.shutdown(wait=False)
        return future
    future = Future()
    future.set_result(load())
    return future
