from __future__ import annotations

import numpy as np
import pytest

from training.scores.paired_statistics import bootstrap_interval, compare, wilcoxon_p


def test_wilcoxon_by_hand() -> None:
    assert wilcoxon_p(np.arange(1.0, 7.0)) == pytest.approx(2 / 64), (
        "all six of one sign: 2 of 64 ways"
    )
    # Ranks 1 2 3 4 with the smallest negative: rank sum 1 in 1 way, 0 in 1 way, of 16; both tails.
    assert wilcoxon_p(np.array([-1.0, 2.0, 3.0, 4.0])) == pytest.approx(2 * 2 / 16)
    # Ties: ranks 1.5 1.5 3; sums at most 1.5 in 3 ways (none, either tie) of 8.
    assert wilcoxon_p(np.array([-1.0, 1.0, 2.0])) == pytest.approx(2 * 3 / 8)
    assert wilcoxon_p(np.array([1.0, -1.0])) == 1.0
    assert wilcoxon_p(np.zeros(5)) == 1.0, "no difference at all"


def test_wilcoxon_leaves_out_zeros_and_knows_no_sign_or_scale() -> None:
    values = np.random.default_rng(0).normal(0.5, 1, 9)
    assert (
        wilcoxon_p(np.append(values, 0))
        == wilcoxon_p(values)
        == wilcoxon_p(-values)
        == wilcoxon_p(3 * values)
    )


def test_interval_by_hand_and_by_property() -> None:
    assert bootstrap_interval(np.full((4, 2), 0.5)) == (0.5, 0.5), "nothing varies"
    differences = np.random.default_rng(1).normal(0.1, 1, (40, 1))
    low, high = bootstrap_interval(differences)
    half = 1.96 * differences.std() / np.sqrt(40)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1), (
        "the normal approximation, with one seed"
    )
    wider = bootstrap_interval(np.repeat([[-1.0, 1.0]], 40, axis=0))
    assert wider == (-1.0, 1.0), "cases agree, seeds do not: both seeds may be the same one"


def test_comparison_states_both_n() -> None:
    result = compare(np.full((6, 3), 0.02))
    assert (result["n_cases"], result["n_seeds"]) == (6, 3)
    assert result["difference"] == pytest.approx(0.02)
    assert result["p"] == pytest.approx(2 / 64)
