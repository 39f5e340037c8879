"""The precision that "auto" stands for on the CPU, and why; needs no runtime.

int8 where the CPU computes quickly in it and the file's measured parity allows it, else bf16, else
fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastbts.engine.file import EngineFile
from fastbts.errors import EngineFileError

MAX_GROUP_LOSS, MAX_CASE_LOSS = 0.002, 0.01
"""Largest loss of Dice, mean over regions, with which "auto" takes int8: in the mean of a group of
cases, and in one case."""
INSTRUCTIONS = {"avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX-INT8"}
"""Flags in Linux's list of CPU features -> instructions that make int8 faster than bf16 and exact
in its sums. Without them OpenVINO's int8 is slow, and its sums may overflow."""
BACKEND = "openvino"
CPU_FEATURES = Path("/proc/cpuinfo")


class Precision(NamedTuple):
    """A precision and why it was taken, as half a sentence."""

    name: str
    reason: str


class Parity(NamedTuple):
    """Whether int8 is as good as float32 by its measured parity, and the figures in words."""

    is_good: bool
    figures: str


def choose(file: EngineFile, wanted: str, has_bf16: bool) -> Precision:
    """The precision to run a file in with OpenVINO.

    Args:
        file: The engine file.
        wanted: A precision, such as the one that the file was built for, or "auto".
        has_bf16: Whether the CPU computes in bf16.
    Raises:
        EngineFileError: The parity in the manifest cannot be read.
    """
    if wanted != "auto":
        is_built = (BACKEND, wanted) == _built(file)
        return Precision(wanted, "the file was built for it" if is_built else "it was asked for")
    parity = int8_parity(file)
    if parity is None:
        return _float(has_bf16, "the file holds no int8 network with parity by group")
    found = int8_instructions()
    if not found:
        return _float(has_bf16, f"int8 needs {any_of(INSTRUCTIONS)}, which it is not known to have")
    if not parity.is_good:
        return _float(has_bf16, f"int8 is not as good as float32: {parity.figures}")
    return Precision("int8", f"this CPU has {' and '.join(found)}, and {parity.figures}")


def int8_parity(file: EngineFile) -> Parity | None:
    """What the manifest says about the file's int8 network; None where it was not measured by group
    of cases.

    Raises:
        EngineFileError: The parity in the manifest cannot be read.
    """
    parity = file.manifest.get("build", {}).get("parity", {})
    groups = parity.get("groups") if isinstance(parity, dict) else None
    if _built(file) != (BACKEND, "int8") or not groups:
        return None
    try:
        return _judged(groups)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise EngineFileError(
            f"{file.path}: build.parity.groups in its manifest: expected n_cases, dice_change and "
            f"worst_case of each group, got {groups!r:.200}; build it again"
        ) from error


def int8_instructions() -> list[str]:
    """Instructions of this CPU that make int8 fast; [] also where its features are not known."""
    try:
        flags = set(CPU_FEATURES.read_text().split())
    except (OSError, UnicodeDecodeError):
        return []
    return [name for flag, name in INSTRUCTIONS.items() if flag in flags]


def any_of(names: Mapping[str, str]) -> str:
    """The names, as "a, b or c"."""
    *first, last = names.values()
    return f"{', '.join(first)} or {last}"


def _built(file: EngineFile) -> tuple[Any, Any]:
    """Backend and precision that the file was built for."""
    build = file.manifest.get("build", {})
    return build.get("backend"), build.get("precision")


def _judged(groups: Mapping[str, Mapping[str, Any]]) -> Parity:
    changes = {name: float(group["dice_change"]) for name, group in groups.items()}
    worst = [float(group["worst_case"]) for group in groups.values()]
    n_cases = sum(int(group["n_cases"]) for group in groups.values())
    is_good = all(w >= -MAX_CASE_LOSS for w in worst) and all(
        change >= -MAX_GROUP_LOSS for change in changes.values()
    )
    listed = ", ".join(f"{change:+.4f} ({name})" for name, change in changes.items())
    return Parity(
        is_good,
        f"on {n_cases} cases int8 changes mean Dice by {listed}, and that of the worst case by "
        f"{min(worst):+.4f}; allowed are -{MAX_GROUP_LOSS} and -{MAX_CASE_LOSS}",
    )


def _float(has_bf16: bool, why_not_int8: str) -> Precision:
    able = "computes" if has_bf16 else "does not compute"
    return Precision("bf16" if has_bf16 else "fp32", f"this CPU {able} in bf16, and {why_not_int8}")
