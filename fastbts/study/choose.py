"""Chooses the FLAIR, T1, T1ce and T2 among the series of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastbts.errors import CaseError
from fastbts.study.enhancement import MARGIN, aligned_enhancement
from fastbts.study.judge import PHYSICS, Verdict, judge
from fastbts.study.read_dicom import Found, Refused
from fastbts.study.series import Series, short_hash
from fastbts.study.words import contrast
from fastbts.volume import MODALITIES

Compare = Callable[[Series, Series], float]
"""Log-odds that contrast agent was given between two T1; see `aligned_enhancement`."""
MAX_LISTED = 12  # series in an error message


@dataclass(frozen=True)
class Choice:
    """Which series is which modality.

    Attributes:
        series: Modality -> series, in the order of `MODALITIES`.
        verdicts: On every series.
        refused: Series that are no images.
        warnings: What the user must know: contradictions, guesses, several candidates.
    """

    series: Mapping[str, Series]
    verdicts: tuple[Verdict, ...]
    refused: tuple[Refused, ...]
    warnings: tuple[str, ...]

    def report(self) -> list[dict[str, Any]]:
        """Every series with what it is used as, its score and why; JSON-ready."""
        used = {series.uid: modality for modality, series in self.series.items()}
        judged = [
            {
                "series": verdict.series.label,
                "used_as": used.get(verdict.series.uid),
                "looks_like": verdict.kind,
                "score": verdict.score,
                "why": "; ".join(verdict.why),
            }
            for verdict in self.verdicts
        ]
        refused = [
            {"series": r.label, "used_as": None, "looks_like": None, "score": 0, "why": r.why}
            for r in self.refused
        ]
        return judged + refused


def choose(
    found: Found,
    overrides: Mapping[str, str] | None = None,
    *,
    optional: Sequence[str] = (),
    compare: Compare = aligned_enhancement,
) -> Choice:
    """Chooses one series per modality.

    Echo, repetition and inversion time and the contrast agent come before words, as descriptions
    are often wrong. T1 and T1ce are told apart by the images where neither says it. Of several
    candidates the finest is taken.

    Args:
        found: The series of one study.
        overrides: Modality -> SeriesInstanceUID, the four digits of a message, or description of
            the series to use, or a part of it that only one has.
        optional: Modalities that may be missing.
        compare: Compares two T1.
    Raises:
        CaseError: A modality has no series; an override names none, or several; nothing tells T1
            and T1ce apart.
    """
    given = {m: named(found, m, text) for m, text in (overrides or {}).items()}
    _check_overrides(given)
    verdicts = [judge(series) for series in found.series]
    free = [v for v in verdicts if v.series not in given.values()]
    wanted = [m for m in MODALITIES if m not in given]
    decided, guesses = decide_agents(free, wanted, compare)
    chosen, alike = dict(given), []
    for modality in wanted:
        candidates = sorted((v for v in decided if v.kind == modality), key=_rank)
        if candidates:
            chosen[modality] = candidates[0].series
            alike += _several(modality, candidates)
    final = {v.series.uid: v for v in decided}
    verdicts = [final.get(v.series.uid, v) for v in verdicts]
    _check_complete(chosen, optional, verdicts, found)
    series = {m: chosen[m] for m in MODALITIES if m in chosen}
    used = [v for v in verdicts if v.series in series.values()]
    contradictions = [w for v in used if v.series not in given.values() for w in v.warnings]
    warnings = (*contradictions, *guesses, *alike, *_places(series), *_damaged(found))
    return Choice(series, tuple(verdicts), found.refused, warnings)


def _rank(verdict: Verdict) -> tuple[bool, bool, float, float, int]:
    """Sorts candidates: judged by physics, original, finest, best described."""
    series = verdict.series
    coarsest = round(max(series.geometry.spacing_mm), 1)
    by_physics = verdict.score >= PHYSICS
    derived = series.facts.is_derived
    return not by_physics, derived, coarsest, series.geometry.voxel_ml, -verdict.score


def _several(modality: str, candidates: Sequence[Verdict]) -> list[str]:
    if len(candidates) == 1:
        return []
    labels = ", ".join(f"{v.series.label} of {v.series.size}" for v in candidates[1:])
    return [
        f"{modality}: {len(candidates)} candidates; took the finest, "
        f"{candidates[0].series.label} of {candidates[0].series.size}, not {labels}"
    ]


def _places(series: Mapping[str, Series]) -> list[str]:
    """A warning where the patient was taken out of the scanner between the series."""
    frames = {s.facts.frame_of_reference_uid for s in series.values()} - {""}
    if len(frames) < 2:
        return []
    return [f"the chosen series have {len(frames)} frames of reference: they start far apart"]


def _damaged(found: Found) -> list[str]:
    n = found.n_damaged
    return [f"DICOM files that are damaged: {n}; send the study again"] if n else []


def decide_agents(
    verdicts: Sequence[Verdict], wanted: Sequence[str], compare: Compare
) -> tuple[list[Verdict], list[str]]:
    """Decides for each T1 whether contrast agent was given; returns warnings about guesses."""
    verdicts = _doubted(verdicts, wanted)
    unknown = [v for v in verdicts if v.kind == "t1" and v.agent is None]
    others = [v for v in verdicts if v not in unknown]
    if not unknown:
        return list(verdicts), []
    if len({"t1", "t1ce"} & set(wanted)) < 2:  # the user named the other one
        agent = "t1ce" in wanted
        return [*others, *(v.enhanced(agent, "as the user named the other") for v in unknown)], []
    if any(v.agent for v in others) and not any(v.series.facts.contrast_agent for v in unknown):
        why = "no word of contrast agent, unlike others of the study"
        return [*others, *(v.enhanced(False, why) for v in unknown)], []
    known = [v for v in others if v.agent is not None]
    decided, guesses = _compared(unknown, known, compare)
    return [*others, *decided], guesses


def _doubted(verdicts: Sequence[Verdict], wanted: Sequence[str]) -> list[Verdict]:
    """Where the header of every T1 names the agent, that says nothing: only words count."""
    enhanced = [v for v in verdicts if v.kind == "t1ce"]
    if "t1" not in wanted or len(enhanced) < 2 or any(v.kind == "t1" for v in verdicts):
        return list(verdicts)
    why = "contrast agent in the header of every T1"
    return [
        replace(v, kind="t1", agent=None, why=(*v.why[:-1], why))
        if v in enhanced and contrast(v.series.facts.texts) is None
        else v
        for v in verdicts
    ]


def _compared(
    unknown: Sequence[Verdict], known: Sequence[Verdict], compare: Compare
) -> tuple[list[Verdict], list[str]]:
    """Compares the T1 whose agent is unknown with the finest one: a known one if there is any."""
    pool = sorted(known or unknown, key=_rank)
    anchor, rest = pool[0], [v for v in unknown if v is not pool[0]]
    if not rest:  # a single T1
        guess = f"{anchor.series.label}: nothing says whether contrast agent was given; used as t1"
        return [anchor.enhanced(False, "the only T1")], [guess]
    odds = {v.series.uid: compare(anchor.series, v.series) for v in rest}
    later = [v for v in rest if odds[v.series.uid] > MARGIN]
    earlier = [v for v in rest if odds[v.series.uid] < -MARGIN]
    if anchor.agent is None and not later and not earlier:
        return _in_order(unknown)
    anchor_has = anchor.agent if anchor.agent is not None else bool(earlier)
    why = "by comparing the images"
    decided = [v.enhanced(v in later or (anchor_has and v not in earlier), why) for v in rest]
    return [*([] if known else [anchor.enhanced(anchor_has, why)]), *decided], []


def _in_order(unknown: Sequence[Verdict]) -> tuple[list[Verdict], list[str]]:
    """The last T1 is the one after contrast agent."""
    times = {v.series.facts.acquired for v in unknown}
    ordered = sorted(unknown, key=lambda v: v.series.facts.acquired)
    labels = ", ".join(v.series.label for v in ordered)
    if len(times) < 2:
        raise CaseError(
            f"study: neither headers nor images tell which of {labels} is the T1 after contrast "
            "agent; name it (t1ce=SERIES, --t1ce SERIES)"
        )
    last = ordered[-1]
    why = "by the order of acquisition"
    decided = [v.enhanced(v is last, why) for v in ordered]
    guess = f"{last.series.label}: taken as t1ce because it is the last T1; check it"
    return decided, [guess]


def named(found: Found, modality: str, text: str) -> Series:
    """The series that a user names; see `choose`."""
    if modality not in MODALITIES:
        raise CaseError(f"{modality}: expected one of {', '.join(MODALITIES)}")
    matches = _matches(found.series, text)
    if len(matches) == 1:
        return matches[0]
    refused = _matches(found.refused, text)
    if refused and not matches:
        raise CaseError(f"{modality}: {refused[0].label} cannot be used: {refused[0].why}")
    listed = ", ".join(s.label for s in (matches or found.series)[:MAX_LISTED])
    raise CaseError(
        f"{modality}: {len(matches) or 'no'} series match {text!r}; expected one of {listed}"
    )


Named = TypeVar("Named", Series, Refused)


def _matches(series: Sequence[Named], text: str) -> list[Named]:
    """Those with this UID or label; else those of this name; else those with it in their name."""
    rules: tuple[Callable[[Named], bool], ...] = (
        lambda s: text in (s.uid, short_hash(s.uid), s.label),
        lambda s: text.casefold() == s.name.casefold(),
        lambda s: text.casefold() in s.name.casefold(),
    )
    return next((found for rule in rules if (found := [s for s in series if rule(s)])), [])


def _check_overrides(given: Mapping[str, Series]) -> None:
    for modality, series in given.items():
        same = [m for m, other in given.items() if other is series]
        if len(same) > 1:
            raise CaseError(
                f"{series.label}: named as {' and '.join(same)}; name one series for {modality}"
            )


def _check_complete(
    chosen: Mapping[str, Series],
    optional: Sequence[str],
    verdicts: Sequence[Verdict],
    found: Found,
) -> None:
    missing = [m for m in MODALITIES if m not in chosen and m not in optional]
    if not missing and chosen:
        return
    reasons = [
        f"{v.series.label} is {v.kind}" if v.kind else f"{v.series.label}: {v.why[0]}"
        for v in verdicts
    ]
    reasons += [f"{r.label}: {r.why}" for r in found.refused]
    reasons += _damaged(found)
    more = f", and {len(reasons) - MAX_LISTED} more" if len(reasons) > MAX_LISTED else ""
    raise CaseError(
        f"study: no series for {', '.join(missing or MODALITIES)}; got "
        f"{'; '.join(reasons[:MAX_LISTED]) or 'no series'}{more}; name the series "
        f"(--{(missing or MODALITIES)[0]} SERIES), add it to the study, or allow it to be missing "
        "(--allow-missing, optional=) with an engine that was trained for it"
    )
