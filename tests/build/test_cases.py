"""The table of labelled cases: splits, groups, and a balanced choice."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastbts import CaseError
from fastbts.build.cases import ListedCase, balanced, joined_groups, listed_cases


def cases(groups: str) -> list[ListedCase]:
    """Cases 0, 1, ... of groups "a", "b", ..."""
    return [ListedCase(Path(str(n)), group) for n, group in enumerate(groups)]


def test_cases_of_a_split_with_their_groups(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case,split,grade,group\nx,val,,SSA\ny,train,HGG,\n")
    assert listed_cases(tmp_path, "val") == [ListedCase(tmp_path / "x", "SSA")]
    assert listed_cases(tmp_path, "train") == [ListedCase(tmp_path / "y", "HGG")], "the grade"
    with pytest.raises(CaseError, match=r"cases\.csv: no cases of split 'test'; expected columns"):
        listed_cases(tmp_path, "test")


def test_a_table_that_cannot_be_read_is_a_case_error(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"cases\.csv: cannot be read: .*; expected a table with"):
        listed_cases(tmp_path, "val")
    (tmp_path / "cases.csv").write_bytes(b"case,split\n\xff,val\n")
    with pytest.raises(CaseError, match="cannot be read"):
        listed_cases(tmp_path, "val")


def test_a_balanced_choice_takes_all_groups_in_turn() -> None:
    chosen = balanced(cases("aaaabbc"), 5)
    assert [case.group for case in chosen] == ["a", "b", "c", "a", "b"]
    assert [str(case.folder) for case in chosen] == ["0", "4", "6", "1", "5"]
    assert len(balanced(cases("aaaabbc"), 99)) == 7


def test_small_groups_join_the_largest() -> None:
    joined = joined_groups(cases("baaaacccdd"))
    assert [case.group for case in joined] == [*["a + b + d"] * 5, *"ccc", *["a + b + d"] * 2]
    assert {case.group for case in joined_groups(cases("ab"))} == {"a + b"}
    assert {case.group for case in joined_groups(cases("aaabbb"))} == {"a", "b"}
