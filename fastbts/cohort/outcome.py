"""What became of a case of a cohort."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fastbts.write.ours import UNREADABLE, own_report

DONE, FAILED, WAITING = "done", "failed", "waiting"
"""States of a case."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        case: Its name.
        state: "done", "failed" or "waiting".
        volumes_ml: Volume of each region in ml; empty unless done.
        confidence: Dice to be expected of each region, 0 to 1; empty unless done.
        warnings: What is unusual about the case.
        seconds: Wall time of prediction and writing, beside other cases.
        finished: When, UTC, ISO 8601 in whole seconds.
        error: Why it failed.
    """

    case: str
    state: str = WAITING
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    confidence: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float | None = None
    finished: str = ""
    error: str = ""

    @classmethod
    def failed(cls, case: str, error: BaseException) -> Outcome:
        """Of a case that failed just now."""
        message = " ".join(str(error).split()) or type(error).__name__
        return cls(case, FAILED, finished=utc(), error=message)

    @classmethod
    def of_report(cls, case: str, path: Path, engine_sha256: str | None = None) -> Outcome | None:
        """Of a case with a report; None if there is none of ours, or of another engine."""
        report = own_report(path)
        try:
            if report is None or engine_sha256 not in (None, report["engine"]["sha256"]):
                return None
            timings = report["timings_ms"]
            return cls(
                case,
                DONE,
                {region: float(ml) for region, ml in report["volumes_ml"].items()},
                {region: float(dice) for region, dice in report["confidence"].items()},
                tuple(map(str, report["warnings"])),
                round((timings["total"] + timings["write"]) / 1000, 3),
                utc(path.stat().st_mtime),
            )
        except UNREADABLE:
            return None

    def to_json(self) -> str:
        """As text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """What `to_json` gave."""
        values = json.loads(text)
        return cls(**{**values, "warnings": tuple(values["warnings"])})


def utc(seconds: float | None = None) -> str:
    """A time (now, or seconds since 1970) as text: UTC, cut to whole seconds."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"
