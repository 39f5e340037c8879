"""The choice of series: physics before words, the finest, and what the user says."""

from __future__ import annotations

import re
from itertools import permutations

import pytest

from fastbts.errors import CaseError
from fastbts.study.choose import Choice, choose
from fastbts.study.read_dicom import Found, Refused
from fastbts.study.series import Series, short_hash
from fastbts.volume import MODALITIES
from tests.study.made import FOUR, found, series


def chosen(choice: Choice) -> dict[str, str]:
    return {modality: image.name for modality, image in choice.series.items()}


def why(choice: Choice, name: str) -> str:
    return next(row["why"] for row in choice.report() if row["series"].startswith(f"{name} ("))


def never(before: Series, after: Series) -> float:
    raise AssertionError("the images need not be compared")


NAMES = {modality: image.name for modality, image in FOUR.items()}


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5])
def test_four_of_four_in_any_order(order: tuple[int, ...]) -> None:
    four = list(FOUR.values())
    choice = choose(Found(tuple(four[i] for i in order)), compare=never)
    assert chosen(choice) == NAMES
    assert tuple(choice.series) == MODALITIES
    assert choice.warnings == ()


def test_physics_wins_over_wrong_names() -> None:
    wrong = (
        series("t1 tse", 93, 9000, 2500, sequence=("SE", "IR")),
        series("t2 nativ", 9, 600, sequence=("SE",)),
        series("flair km", 9, 600, sequence=("SE",), contrast_agent="Gd"),
        series("t1 mprage gd", 99, 5500, sequence=("SE",)),
    )
    choice = choose(Found(wrong), compare=never)
    assert chosen(choice) == {
        "flair": "t1 tse", "t1": "t2 nativ", "t1ce": "flair km", "t2": "t1 mprage gd",
    }  # fmt: skip
    assert [w.split(" (")[0] for w in choice.warnings] == [image.name for image in wrong]
    assert "called t1, but its times are those of flair" in choice.warnings[0]


def test_words_decide_where_headers_are_silent() -> None:
    names = ("AX FLAIR", "AX T1 PRE", "AX T1 POST", "AX T2")
    choice = choose(Found(tuple(map(series, names))), compare=never)
    assert chosen(choice) == dict(zip(MODALITIES, names, strict=True))
    assert {row["score"] for row in choice.report()} == {3}


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (series("localizer", 5, 20), "a localizer"),
        (series("b1000", 85, 4000, sequence=("EP",)), "diffusion|echo-planar"),
        (series("swi", 20, 28, sequence=("GR",)), r"susceptibility|T2\*"),
        (series("t1 mpr", 3, 1900, 900, image_type=("DERIVED", "SECONDARY", "MPR")), "MPR"),
        (series("t1 a", 3, 1900, 900, image_type=("DERIVED", "SECONDARY")), "SECONDARY"),
        (series("t1 p", 3, 1900, 900, image_type=("ORIGINAL", "PRIMARY", "P")), "a phase image"),
        (series("t1 b", 9, 600, shape=(200, 200, 5)), "5 slices, at least 12"),
        (series("t1 c", 9, 600, spacing=(1, 1, 9)), "9 mm between slices, at most 8"),
        (series("t1 d", 9, 600, spacing=(1, 1, 0.7)), "covers 21 mm"),
        (series("t1 e", 9, 600, body_part="CSPINE"), "spine"),
        (series("f", modality="CT"), "CT, not a magnetic resonance image"),
        (series("t1 mask"), "calculated from others"),
        (series("AX BRAIN"), "neither its times nor its words"),
        (series("pd", 15, 3000, sequence=("SE",)), "proton density"),
    ],
)
def test_rejected_with_a_reason(image: Series, reason: str) -> None:
    choice = choose(found(image), compare=never)
    assert chosen(choice) == NAMES
    assert re.search(reason, why(choice, image.name))


def test_the_finest_of_several_is_taken_and_said() -> None:
    fine = series("t1 space km", 20, 700, spacing=(1, 1, 1), shape=(200, 200, 160),
                  sequence=("SE",), contrast_agent="GADOVIST")  # fmt: skip
    choice = choose(found(fine), compare=never)
    assert chosen(choice)["t1ce"] == "t1 space km"
    (warning,) = choice.warnings
    assert warning.startswith("t1ce: 2 candidates; took the finest, t1 space km (")
    assert "not t1 km (" in warning


def test_an_original_is_taken_before_a_derived_one() -> None:
    fine = series("t2 fine", 99, 5500, spacing=(1, 1, 3), shape=(200, 200, 50), sequence=("SE",),
                  image_type=("DERIVED", "PRIMARY", "M"))  # fmt: skip
    assert chosen(choose(found(fine)))["t2"] == "t2 tse"
    assert chosen(choose(found(fine, without="t2")))["t2"] == "t2 fine"


def test_the_report_lists_every_series() -> None:
    broken = Refused("t1 half", "1.2.9", "slices are missing")
    choice = choose(found(series("scout"), refused=(broken,)))
    rows = choice.report()
    assert [row["used_as"] for row in rows] == [*MODALITIES, None, None]
    assert [row["score"] for row in rows] == [9, 9, 10, 9, 0, 0]
    assert rows[-1]["why"] == "slices are missing"
    assert "TE 99, TR 5500 ms" in rows[3]["why"]


@pytest.mark.parametrize(
    "text", ["1.2.other", short_hash("1.2.other"), "other", "OTHER", "oth"], ids=range(5)
)
def test_the_user_overrides(text: str) -> None:
    other = series("other", 99, 5500, shape=(200, 200, 5))
    assert chosen(choose(found(other), {"t1": text}))["t1"] == "other"


def test_overrides_leave_the_others_as_they_are() -> None:
    choice = choose(found(), {"t2": "dark fluid", "flair": "t2 tse"}, compare=never)
    assert chosen(choice) == {**NAMES, "t2": "dark fluid", "flair": "t2 tse"}
    assert choice.warnings == ()


def test_wrong_overrides() -> None:
    with pytest.raises(CaseError, match=r"t1: no series match 'x'; expected one of dark fluid \("):
        choose(found(), {"t1": "x"})
    half = Refused("t1 half", "1.2.9", "slices are missing")
    with pytest.raises(CaseError, match=r"t1: t1 half \(\w+\) cannot be used: slices are missing"):
        choose(found(refused=(half,)), {"t1": "half"})
    with pytest.raises(CaseError, match=r"t2: 3 series match 't'; expected one of"):
        choose(found(without="flair"), {"t2": "t"})
    with pytest.raises(CaseError, match=r"named as t1 and t2; name one series"):
        choose(found(), {"t1": "t2 tse", "t2": "t2 tse"})
    with pytest.raises(CaseError, match=r"adc: expected one of flair"):
        choose(found(), {"adc": "t2 tse"})


def test_no_flair_is_one_sentence() -> None:
    with pytest.raises(CaseError) as raised:
        choose(found(series("scout"), without="flair"))
    text = str(raised.value)
    assert text.startswith("study: no series for flair; got t1 (")
    assert "; t2 tse (" in text
    assert "scout (" in text
    assert "; name the series (--flair SERIES), add it to the study, or allow it to be" in text
    assert "(--allow-missing, optional=)" in text
    assert "\n" not in text


def test_what_may_be_missing() -> None:
    choice = choose(found(without="flair"), optional=("flair",))
    assert list(choice.series) == ["t1", "t1ce", "t2"]
    with pytest.raises(CaseError, match="no series for flair, t1, t1ce, t2; got no series"):
        choose(Found(()), optional=MODALITIES)


def test_frames_of_reference_that_differ_are_said() -> None:
    pair = [series(n, 9, 600, frame_of_reference_uid=n) for n in ("t1 pre", "t1 post")]
    rest = [FOUR["flair"], FOUR["t2"]]
    choice = choose(Found((*pair, *rest)))
    assert "2 frames of reference" in choice.warnings[-1]


def two_t1(**facts: object) -> tuple[Series, Series, Series, Series]:
    first = series("T1 one", 9, 600, sequence=("SE",), acquired=("1", 1.0), **facts)
    second = series("T1 two", 9, 600, sequence=("SE",), acquired=("2", 2.0))
    return first, second, FOUR["flair"], FOUR["t2"]


@pytest.mark.parametrize("right", ["T1 one", "T1 two"])
def test_images_decide_where_nobody_says(right: str) -> None:
    def compare(before: Series, after: Series) -> float:
        return 9.0 if after.name == right else -9.0

    choice = choose(Found(two_t1()), compare=compare)
    assert chosen(choice)["t1ce"] == right
    assert "by comparing the images" in why(choice, right)
    assert choice.warnings == ()


def test_the_order_decides_where_the_images_do_not() -> None:
    choice = choose(Found(two_t1()), compare=lambda before, after: 0.5)
    assert chosen(choice)["t1ce"] == "T1 two"
    assert "because it is the last T1; check it" in choice.warnings[0]


def test_nothing_tells_them_apart() -> None:
    pair = [series(name, 9, 600) for name in ("T1 one", "T1 two")]
    with pytest.raises(CaseError, match=r"tell which of T1 one .* is the T1 after contrast agent"):
        choose(Found((*pair, FOUR["flair"], FOUR["t2"])), compare=lambda before, after: 0.0)


def test_header_and_words_that_contradict_each_other_leave_it_to_the_images() -> None:
    pre = series("T1 pre", 9, 600, sequence=("SE",), contrast_agent="GADOVIST")
    images = found(pre, without="t1")
    choice = choose(images, compare=lambda before, after: -5.0)
    assert chosen(choice)["t1"] == "T1 pre"
    assert chosen(choice)["t1ce"] == "t1 km"


def test_a_silent_t1_beside_one_with_agent_is_without() -> None:
    choice = choose(found(), compare=never)
    assert "no word of contrast agent" in why(choice, "t1")


def test_the_only_t1_is_said() -> None:
    single = (series("T1", 9, 600), FOUR["flair"], FOUR["t2"])
    choice = choose(Found(single), optional=("t1ce",))
    assert chosen(choice)["t1"] == "T1"
    assert "nothing says whether contrast agent was given; used as t1" in choice.warnings[0]
    named = choose(Found(single), {"t1ce": "T1"}, optional=("t1",))
    assert chosen(named)["t1ce"] == "T1"


def test_an_agent_in_every_header_says_nothing() -> None:
    pair = [
        series(name, 9, 600, sequence=("SE",), contrast_agent="GADOVIST")
        for name in ("T1 one", "T1 two")
    ]
    images = Found((*pair, FOUR["flair"], FOUR["t2"]))
    choice = choose(images, compare=lambda before, after: 5.0 if after.name == "T1 one" else -5.0)
    assert chosen(choice)["t1ce"] == "T1 one"
    assert chosen(choice)["t1"] == "T1 two"


@pytest.mark.parametrize("names", [("flair", "t1", "t1ce", "t2"), ("t2f", "t1n", "t1c", "t2w")])
def test_names_of_brats_and_a_mask_beside(names: tuple[str, ...]) -> None:
    images = [series(f"case-01-{name}") for name in (*names, "seg")]
    choice = choose(Found(tuple(images)), compare=never)
    assert [s.name.split("-")[-1] for s in choice.series.values()] == list(names)


def test_a_flair_whose_header_names_no_inversion() -> None:
    flair = series("AX T2 FLAIR", 120, 9000, sequence=("SE",))
    choice = choose(found(flair, without="flair"), compare=never)
    assert chosen(choice) == {**NAMES, "flair": "AX T2 FLAIR"}
    assert choice.warnings == ()


def test_long_echoes_without_ti_are_told_apart_by_words_then_by_inversion() -> None:
    inverting = {"sequence": ("IR",)}
    flair = series("AX BRAIN", 120, 9000, **inverting)
    assert chosen(choose(found(flair, without="flair")))["flair"] == "AX BRAIN"
    stir = series("AX STIR", 80, 5000, **inverting)
    assert "STIR" in why(choose(found(stir)), "AX STIR")
