"""Compares two checkouts on real cases, to the bit: `compare_checkouts.py A B --cases DIR...`.

Each checkout runs in its own process, with its own Python and its default engine. The processes
take turns, so that a change of the machine's load affects both. Prints a table of differences and
median times; exits with 1 if labels, probabilities or volumes differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

# Runs in each checkout, old or new: reads one case folder per line, answers with one line of JSON.
CHILD = """
import hashlib, json, sys, time
import numpy as np
import fastbts

def digest(array):
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()

answers, sys.stdout = sys.stdout, sys.stderr
segmenter = fastbts.Segmenter()
about = {"file": fastbts.__file__, **segmenter.engine.description}
print(json.dumps(about), file=answers, flush=True)
for line in sys.stdin:
    volume = fastbts.read_case(line.rstrip())
    start = time.perf_counter()
    result = segmenter.predict(volume)
    answer = {
        "seconds": time.perf_counter() - start,
        "labels": digest(result.labels),
        "probabilities": digest(result.probabilities),
        "volumes_ml": dict(result.volumes_ml),
    }
    print(json.dumps(answer), file=answers, flush=True)
"""
COMPARED = ("labels", "probabilities", "volumes_ml")


class Checkout:
    """A checkout with a process that segments cases."""

    def __init__(self, folder: Path, python: Path | None) -> None:
        program = python or folder / ".venv-dev/bin/python"
        self.folder = folder.resolve()
        self.process = subprocess.Popen(
            [program.absolute(), "-P", "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()
        if not Path(self.about["file"]).is_relative_to(self.folder):
            sys.exit(f"{program}: imports {self.about['file']}, which is not in {folder}")

    def predict(self, case: Path) -> dict[str, Any]:
        """Digests, volumes and seconds of one case."""
        assert self.process.stdin
        self.process.stdin.write(f"{case.resolve()}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.folder}: the process ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def compare(a: Checkout, b: Checkout, cases: list[Path], n_rounds: int) -> bool:
    """Prints one row per case; returns whether all results are equal."""
    print(f"| case | {' | '.join(COMPARED)} | A, median s | B, median s | B / A |")
    print("|---" * (len(COMPARED) + 4) + "|")
    equal = True
    seconds: tuple[list[float], list[float]] = [], []
    for case in cases:
        rounds = [in_turns(a, b, case, i % 2 == 1) for i in range(n_rounds)]
        same = [all(one[key] == two[key] for one, two in rounds) for key in COMPARED]
        equal = equal and all(same)
        times = [[pair[side]["seconds"] for pair in rounds] for side in (0, 1)]
        for mine, new in zip(seconds, times, strict=True):
            mine += new
        words = ("equal" if yes else "DIFFERENT" for yes in same)
        print(f"| {case.name} | {' | '.join(words)} | {timing(*times)} |", flush=True)
    print(f"| all ({len(seconds[0])} runs each) |{' |' * len(COMPARED)} {timing(*seconds)} |")
    return equal


def in_turns(
    a: Checkout, b: Checkout, case: Path, b_first: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results of A and of B; who runs first changes from round to round."""
    if b_first:
        second, first = b.predict(case), a.predict(case)
        return first, second
    return a.predict(case), b.predict(case)


def timing(a: list[float], b: list[float]) -> str:
    """Medians, and the median of the ratios of each pair."""
    ratio = median(two / one for one, two in zip(a, b, strict=True))
    return f"{median(a):.3f} | {median(b):.3f} | {ratio:.3f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a", type=Path, help="checkout A, for example the older one")
    parser.add_argument("b", type=Path, help="checkout B")
    parser.add_argument("--cases", type=Path, nargs="+", required=True, help="case folders")
    parser.add_argument("--python-a", type=Path, help="default: A/.venv-dev/bin/python")
    parser.add_argument("--python-b", type=Path, help="default: B/.venv-dev/bin/python")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case in each checkout")
    args = parser.parse_args()
    a, b = Checkout(args.a, args.python_a), Checkout(args.b, args.python_b)
    for name, checkout in (("A", a), ("B", b)):
        how = ", ".join(checkout.about[key] for key in ("backend", "device_name", "precision"))
        print(f"{name}: {checkout.folder}: {how}")
    if not compare(a, b, args.cases, args.rounds):
        sys.exit(1)


if __name__ == "__main__":
    main()
