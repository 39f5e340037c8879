"""The cases of a cohort with the files of their results, and which of them are done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastbts.engine.file import EngineFile
from fastbts.errors import CaseError
from fastbts.labels import ENGINE_SCHEME
from fastbts.read.find import find_stack, images_of
from fastbts.segmentation import Segmentation
from fastbts.spec import EngineSpec
from fastbts.write.kinds import sidecar_of
from fastbts.write.ours import is_unchanged, own_report


@dataclass(frozen=True)
class Job:
    """A case to segment.

    Attributes:
        name: Of the case.
        case: What `Segmenter.predict` takes.
        save: Keyword arguments of `Segmentation.save`, with `sidecar`.
        fields: Added to the report.
    """

    name: str
    case: Any
    save: Mapping[str, Any]
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def report(self) -> Path:
        """The file that appears last."""
        sidecar = self.save.get("sidecar")
        return Path(sidecar) if sidecar else sidecar_of(Path(self.save["path"]))

    def prepared(self, result: Segmentation) -> Segmentation:
        """The result with the fields in its report."""
        return replace(result, report={**result.report, **self.fields}) if self.fields else result

    def is_done(self, engine: EngineFile, orders: Mapping[str, Any]) -> bool:
        """Whether there is a complete result: of this engine and label scheme, with all files.

        The report appears last and lists the others with their sha256, so a result that was
        written in part is none. A case with an image that is newer than the report counts as not
        done; of a folder these are the images that the engine takes. Other options of the
        prediction are not compared.

        Args:
            engine: Segments the case.
            orders: `nnunet_order` and `order` of `Segmenter.predict`.
        """
        report = own_report(self.report)
        if report is None:
            return False
        try:
            listed: dict[str, str] = report["files_sha256"]
            same = report["engine"]["sha256"] == engine.sha256
            same &= report["label_scheme"] == scheme_of(self.save.get("labels"), engine.spec)
        except (KeyError, TypeError):
            return False
        return bool(
            same
            and self._further_files() <= set(listed)
            and all(is_unchanged(self.report.with_name(n), digest) for n, digest in listed.items())
            and not self._changed_since(engine.spec, orders)
        )

    def _further_files(self) -> set[str]:
        """Names of the files besides images and report, for example the preview."""
        others = {key: value for key, value in self.save.items() if key not in ("path", "sidecar")}
        paths = [*others.values(), *(self.save.get("tables") or ())]
        return {value.name for value in paths if isinstance(value, Path)}

    def _changed_since(self, spec: EngineSpec, orders: Mapping[str, Any]) -> bool:
        """Whether an image of the case is newer than the report, or is missing."""
        try:
            images = self._images(spec, orders)
            written = self.report.stat().st_mtime_ns
            return any(Path(image).stat().st_mtime_ns > written for image in images)
        except (CaseError, OSError):
            return True

    def _images(self, spec: EngineSpec, orders: Mapping[str, Any]) -> Iterable[str | Path]:
        if isinstance(self.case, Mapping):
            return [image for image in self.case.values() if isinstance(image, str | Path)]
        if orders.get("order"):
            return [find_stack(self.case)]
        numbered = orders.get("nnunet_order")
        return images_of(self.case, spec.modalities, numbered, spec.optional_modalities).values()


def new_jobs(
    cases: Mapping[str, Any],
    files: Sequence[Mapping[str, Any]],
    save: Mapping[str, Any],
    describe: Callable[[Job], Job] = lambda job: job,
) -> dict[str, Job]:
    """Name -> job.

    Args:
        cases: Name -> what `Segmenter.predict` takes.
        files: For each case the files, `path`, `sidecar` and others.
        save: The same for all cases.
        describe: Adds to a job.
    """
    pairs = zip(cases.items(), files, strict=True)
    return {name: describe(Job(name, case, {**own, **save})) for (name, case), own in pairs}


def scheme_of(labels: str | None, spec: EngineSpec) -> str:
    """The label scheme of written files."""
    return labels or ("brats2021" if spec.is_glioma else ENGINE_SCHEME)
