"""What echo, repetition and inversion time say about an image's weighting.

Limits are those between the usual protocols for brains at 1.5 and 3 T, not physical constants.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastbts.study.series import Facts

LEAST_TE_MS, MOST_TE_MS = 0.5, 1000.0  # others are in a wrong unit, and say nothing
LONG_TE_MS = 60.0  # T2-weighted; FLAIR and T2 have 80-130, with variable flip angles up to 400
SHORT_TE_MS = 35.0  # T1-weighted spin echoes have 8-20
STAR_TE_MS = 12.0  # of a gradient echo: above it, T2* dominates; T1-weighted ones have 2-6
FLUID_TI_MS = 1500.0  # nulls fluid: 1650-2800
FAT_TI_MS = 300.0  # nulls fat: 100-250
SHORT_TR_MS = 1200.0  # T1-weighted spin echoes have 400-1000
PROTON_TR_MS = 1800.0
LONG_TR_MS = 4000.0  # every FLAIR has it, and some of their headers name no inversion

T1, LONG = frozenset({"t1"}), frozenset({"flair", "t2"})


@dataclass(frozen=True)
class Weighting:
    """What a header says.

    Attributes:
        kinds: What the image may be, of "flair", "t1" (with or without contrast agent), "t2"; empty
            if the header does not say enough.
        rejected: Why it is none of them.
    """

    kinds: frozenset[str] = frozenset()
    rejected: str | None = None


def weighting(facts: Facts) -> Weighting:
    """Judges echo, repetition and inversion time, and the kind of echo."""
    if "EP" in facts.sequence or (facts.b_value or 0) > 0:
        return Weighting(rejected="echo-planar: diffusion, perfusion or function")
    if facts.te_ms is None or not LEAST_TE_MS <= facts.te_ms <= MOST_TE_MS:
        return Weighting()
    if facts.te_ms >= LONG_TE_MS:
        return _long_echo(facts)
    gradient = "GR" in facts.sequence and "SE" not in facts.sequence
    if gradient and facts.te_ms >= STAR_TE_MS and not facts.ti_ms:
        return Weighting(rejected=f"a gradient echo with TE {facts.te_ms:g} ms: T2*")
    return _short_echo(facts, gradient)


def _long_echo(facts: Facts) -> Weighting:
    ti, inverts = facts.ti_ms or 0.0, "IR" in facts.sequence
    if ti >= FLUID_TI_MS:
        return Weighting(frozenset({"flair"}))
    if 0 < ti < FAT_TI_MS:
        return Weighting(rejected=f"TI {ti:g} ms suppresses fat (STIR)")
    is_silent = facts.ti_ms is None and (facts.tr_ms or 0.0) >= LONG_TR_MS
    if ti > 0 or inverts or is_silent or not facts.sequence:
        return Weighting(LONG)
    return Weighting(frozenset({"t2"}))


def _short_echo(facts: Facts, gradient: bool) -> Weighting:
    te, tr, ti = facts.te_ms or 0.0, facts.tr_ms or 0.0, facts.ti_ms or 0.0
    if te >= SHORT_TE_MS or ti >= FLUID_TI_MS:
        return Weighting()
    if ti >= FAT_TI_MS or 0 < tr <= SHORT_TR_MS or gradient or "IR" in facts.sequence:
        return Weighting(T1)
    if tr >= PROTON_TR_MS and facts.sequence:
        return Weighting(rejected=f"TE {te:g} and TR {tr:g} ms: proton density")
    return Weighting()
