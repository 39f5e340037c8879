"""What one series of a study can be: by physics before words, with a score and the reasons."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastbts.study import words
from fastbts.study.physics import weighting
from fastbts.study.series import Series

MIN_SLICES = 12
MIN_EXTENT_MM = 90.0  # a slab through a part of the head is no image of a brain
MAX_SLICE_MM = 8.0
PHYSICS, WORDS, AGENT = 6, 3, 1  # points of the score, at most 10
_DERIVED = ("MPR", "REFORMAT", "PROJECTION", "MIP", "MINIP", "SUBTRACT", "ADC", "TRACEW")
_PHASE = ("P", "PHASE", "PHASE MAP")
_FAT = ("FAT", "FAT_FRACTION", "FF")  # of a Dixon sequence
PLANES = {"tra": "transverse", "sag": "sagittal", "cor": "coronal"}


@dataclass(frozen=True)
class Verdict:
    """What was found out about a series.

    Attributes:
        series: The series.
        kind: "flair", "t1", "t1ce" or "t2"; None if it is none of them.
        score: 0 to 10: 6 by physics, 3 by words, 1 by contrast agent in the header.
        why: The reasons, in one clause each.
        agent: Of a T1: whether contrast agent was given; None where nobody says.
        warnings: Contradictions between header and words.
    """

    series: Series
    kind: str | None
    score: int
    why: tuple[str, ...]
    agent: bool | None = None
    warnings: tuple[str, ...] = ()

    def enhanced(self, agent: bool, why: str) -> Verdict:
        """The same T1, with or without contrast agent."""
        return replace(self, kind="t1ce" if agent else "t1", agent=agent, why=(*self.why, why))


def judge(series: Series) -> Verdict:
    """Judges a series by itself; a T1 whose agent is unknown is "t1" for now."""
    facts = series.facts
    problem = _unusable(series)
    physics = weighting(facts)
    known = bool(physics.kinds)
    said, purpose = words.weighting(facts.texts), words.other_purpose(facts.texts)
    if purpose and not (len(physics.kinds) == 1 and purpose in words.FOR_PHYSICS):
        problem = problem or purpose
    problem = problem or physics.rejected
    if problem:
        return Verdict(series, None, 0, (problem,))
    kind = _kind(physics.kinds, said, "IR" in facts.sequence)
    if kind is None:
        why = "neither its times nor its words say what it shows"
        return Verdict(series, None, 0, (why,))
    verdict = Verdict(series, kind, PHYSICS * known + WORDS * (said == kind), _reasons(series))
    if said not in (None, kind):
        contradiction = f"{series.label}: called {said}, but its times are those of {kind}"
        verdict = replace(verdict, warnings=(contradiction,))
    return _with_agent(verdict) if kind == "t1" else verdict


def _kind(kinds: frozenset[str], said: str | None, inverts: bool) -> str | None:
    """By physics; words decide only between what physics allows."""
    if not kinds or said in kinds:
        return said
    if len(kinds) > 1:
        return "flair" if inverts else "t2"
    return next(iter(kinds))


def _unusable(series: Series) -> str | None:
    facts, n, mm = series.facts, series.n_slices, series.slice_mm
    if facts.modality != "MR":
        return f"{facts.modality}, not a magnetic resonance image"
    if n < MIN_SLICES:
        return f"{n} slices, at least {MIN_SLICES} are needed"
    if mm > MAX_SLICE_MM:
        return f"{mm:.3g} mm between slices, at most {MAX_SLICE_MM:g} mm are used"
    extent = min(series.extent_mm)
    if extent < MIN_EXTENT_MM:
        return f"covers {extent:.0f} mm, expected a brain of at least {MIN_EXTENT_MM:g} mm"
    calculated = [w for w in facts.image_type[2:] if w.startswith(_DERIVED) or w == "FA"]
    if calculated:
        return f"calculated from others ({calculated[0]})"
    if facts.image_type[2:3] and facts.image_type[2] in _PHASE:
        return "a phase image"
    if any(word in _FAT for word in facts.image_type[2:]):
        return "an image of fat"
    if "SECONDARY" in facts.image_type[1:2]:
        return "calculated from others (SECONDARY)"
    if words.other_purpose((facts.body_part,)) == "of the spine or neck":
        return "of the spine or neck"
    return None


def _reasons(series: Series) -> tuple[str, ...]:
    facts = series.facts
    times = (("TE", facts.te_ms), ("TR", facts.tr_ms), ("TI", facts.ti_ms))
    given = [f"{name} {ms:g}" for name, ms in times if ms is not None]
    size = f"{PLANES[series.orientation]}, {series.size}"
    return (f"{', '.join(given)} ms" if given else "by its words", size)


def _with_agent(verdict: Verdict) -> Verdict:
    """Adds what the header and the words say about contrast agent, if they agree."""
    facts = verdict.series.facts
    said = words.contrast(facts.texts)
    if facts.contrast_agent and said is False:
        return replace(verdict, why=(*verdict.why, "agent in the header, but not by its words"))
    if facts.contrast_agent:
        more = replace(verdict, score=verdict.score + AGENT)
        return more.enhanced(True, "contrast agent in the header")
    if said is not None:
        return verdict.enhanced(said, f"{'with' if said else 'without'} contrast agent by words")
    return verdict
