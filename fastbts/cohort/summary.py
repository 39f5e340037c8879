"""`summary.csv`: one line per case of a cohort.

The truth is on disk: a case is done if its report is there. The table is made from the reports, so
a killed process loses nothing. Only failures are in the table alone; they are kept until there is a
newer report. Each writing replaces the table in one step, under a lock, so the parts of a cohort
share it.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastbts.cohort.outcome import DONE, FAILED, Outcome
from fastbts.engine.file import EngineFile
from fastbts.errors import OutputError
from fastbts.files import atomic_write, locked_file

NAME = "summary.csv"
LOCK = ".fastbts-summary.lock"
FIRST, LAST = ("case", "state"), ("warnings", "seconds", "finished", "error")
EVERY_S = 30.0
"""Time between two writings, as each looks at all reports."""

Row = Mapping[str, Any]


class Summary:
    """The table of a cohort.

    Args:
        folder: Where `summary.csv` is.
        reports: Case -> its report, of the whole cohort, not of one part.
        engine: Its results count, and it has the names of the regions.
        overwrite: Replaces a table that is not ours.
    Raises:
        OutputError: There is a `summary.csv` that is not ours.
    """

    def __init__(
        self,
        folder: Path,
        reports: Mapping[str, Path],
        engine: EngineFile,
        *,
        overwrite: bool = False,
    ) -> None:
        self.path = folder / NAME
        self._reports, self._overwrite, self._sha256 = dict(reports), overwrite, engine.sha256
        values = [
            f"{region}_{what}" for what in ("ml", "confidence") for region in engine.spec.regions
        ]
        self._columns = [*FIRST, *values, *LAST]
        self._own: dict[str, Outcome] = {}
        self._read: dict[str, tuple[int, Outcome | None]] = {}
        self._written = -EVERY_S
        self._earlier()

    def add(self, outcome: Outcome) -> None:
        """Notes what became of a case; writes the table now and then."""
        self._own[outcome.case] = outcome
        if outcome.state == FAILED or time.monotonic() - self._written >= EVERY_S:
            self.write()

    def write(self) -> None:
        """Writes the table.

        Raises:
            OutputError: It cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked_file(self.path.with_name(LOCK)):
            earlier = self._earlier()
            rows = {name: self._row(name, earlier.get(name)) for name in self._reports}
            rows = {**{name: row for name, row in earlier.items() if name not in rows}, **rows}
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, self._columns, extrasaction="ignore", restval="")
            writer.writeheader()
            writer.writerows(rows[name] for name in sorted(rows))
            with atomic_write(self.path) as file:
                file.write(text.getvalue().encode(errors="backslashreplace"))
        self._written = time.monotonic()

    def _row(self, name: str, earlier: Row | None) -> Row:
        """Of one case; a failure of another process holds until there is a newer report."""
        own = self._own.get(name)
        found = self._found(name)
        if own is not None and own.state == FAILED:
            return row_of(own)
        failed = earlier is not None and earlier.get("state") == FAILED
        if earlier and failed and (found is None or found.finished < earlier.get("finished", "")):
            return earlier
        return row_of(found or own or Outcome(name))

    def _found(self, name: str) -> Outcome | None:
        """By the report; it is read once, and again when there is another."""
        path = self._reports[name]
        try:
            written = path.stat().st_mtime_ns
        except OSError:
            return None
        if name not in self._read or self._read[name][0] != written:
            self._read[name] = written, Outcome.of_report(name, path, self._sha256)
        return self._read[name][1]

    def _earlier(self) -> dict[str, Row]:
        """Rows that are in the file, by case."""
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                names = tuple(reader.fieldnames or ())
                if (names[:2], names[-4:]) == (FIRST, LAST):
                    return {row["case"]: row for row in reader}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, csv.Error) as error:
            raise OutputError(f"{self.path}: cannot be read: {error}; remove it") from error
        if self._overwrite:
            return {}
        raise OutputError(
            f"{self.path}: exists, and fastbts did not write it; expected a table of fastbts; "
            "choose another output, or replace the file with --overwrite (in Python: "
            "overwrite=True)"
        )


def row_of(outcome: Outcome) -> Row:
    """One line of the table; volumes in ml with three decimals."""
    done = outcome.state == DONE
    return {
        "case": outcome.case,
        "state": outcome.state,
        **{f"{region}_ml": f"{ml:.3f}" for region, ml in outcome.volumes_ml.items()},
        **{f"{region}_confidence": f"{x:.3f}" for region, x in outcome.confidence.items()},
        "warnings": "; ".join(outcome.warnings),
        "seconds": outcome.seconds if done else "",
        "finished": outcome.finished,
        "error": outcome.error,
    }


def read_summary(path: Path) -> list[dict[str, str]]:
    """Rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@contextmanager
def written_at_the_end(summary: Summary | None) -> Iterator[None]:
    """Writes the table after the block, also after an error in it; None for no table."""
    if summary is not None:
        summary.write()
    try:
        yield
    finally:
        if summary is not None:
            summary.write()
