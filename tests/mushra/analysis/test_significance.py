"""Tests between conditions against scipy, statsmodels, full enumeration and properties."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from synthetic_ratings import simulate, tidy

from mushra.analysis import significance
from mushra.analysis.load import load
from mushra.analysis.significance import (
    cohens_dz,
    common_means,
    compact_letters,
    friedman_test,
    hochberg,
    paired_pages,
    permutation_test,
    wilcoxon_test,
)

Shared = Callable[[str], Path]


def pages(seed: int = 0, difference: float = 0.0, listeners: int = 7, round_to: int = 0) -> pd.DataFrame:
    scores = simulate(seed, means=(50, 50 + difference), listeners=listeners, items=5)
    return paired_pages(tidy(np.round(scores, round_to)), "A", "B")


def enumerated(table: pd.DataFrame) -> float:
    """p of the permutation test from the definition: every exchange of whole listeners, one by one."""
    names = sorted(table["listener"].unique())
    observed = abs(np.median(table["a"]) - np.median(table["b"]))
    hits = 0
    for chosen in itertools.product([False, True], repeat=len(names)):
        swapped = table["listener"].map(dict(zip(names, chosen, strict=True)))
        a = np.median(np.where(swapped, table["b"], table["a"]))
        b = np.median(np.where(swapped, table["a"], table["b"]))
        hits += abs(a - b) >= observed - 1e-9
    return hits / 2 ** len(names)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("difference", [0, 6])
@pytest.mark.parametrize("round_to", [0, 6])
def test_permutation_test_is_exact_for_few_listeners(
    seed: int, difference: float, round_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole scores are counted, others sorted: both are the enumeration."""
    table = pages(seed, difference, round_to=round_to)
    assert permutation_test(table, seed=1).p == enumerated(table)
    monkeypatch.setattr(significance, "_MAX_LEVELS", 0)
    assert permutation_test(table, seed=1).p == enumerated(table)


def test_permutation_test_sampled_agrees_with_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pages(3, 4, listeners=12)
    exact = permutation_test(table, seed=0).p
    monkeypatch.setattr(significance, "MAX_EXACT_LISTENERS", 0)
    sampled = permutation_test(table, seed=5)
    assert abs(sampled.p - exact) < 4 * math.sqrt(exact * (1 - exact) / 10_000)
    assert sampled == permutation_test(table, seed=5)
    assert sampled.p != permutation_test(table, seed=6).p
    assert sampled.p * 10_001 == pytest.approx(round(sampled.p * 10_001))
    assert permutation_test(table.sample(frac=1, random_state=2), seed=5) == sampled


def test_permutation_test_exchanges_listeners_not_ratings() -> None:
    """Four listeners with a hundred ratings each cannot give p under 2 / 2^4, however clear it is."""
    a, b = np.array([60.0, 70, 80, 90]), np.array([10.0, 11, 12, 13])
    scores = np.repeat(np.stack([a, b], axis=1)[:, :, None], 100, axis=2)
    result = permutation_test(paired_pages(tidy(scores), "A", "B"), seed=0)
    assert result.estimate == 75 - 11.5
    assert result.p == 2 / 2**4
    assert result.reason == "4 listeners: p cannot be below 0.125"


def test_missing_pages_are_left_out_of_a_pair() -> None:
    scores = simulate(1, means=(50, 60), listeners=4, items=3)
    scores[0, 0, 0] = np.nan
    scores[1, 1, :] = np.nan
    table = paired_pages(tidy(scores), "A", "B")
    assert len(table) == 8
    assert set(table["listener"]) == {"L00", "L02", "L03"}


@pytest.mark.parametrize("seed", range(5))
def test_wilcoxon_against_scipy(seed: int) -> None:
    table = pages(seed, 5, listeners=14)
    difference = (table["a"] - table["b"]).groupby(table["listener"]).mean()
    result = wilcoxon_test(table)
    assert result.p == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert (result.ci_low, result.ci_high) == pytest.approx(
        stats.t.interval(0.95, 13, difference.mean(), stats.sem(difference))
    )
    assert cohens_dz(table) == pytest.approx(difference.mean() / difference.std())


def test_wilcoxon_exact_by_hand() -> None:
    """Differences 1 to 6, all positive: p = 2 / 2^6, rank-biserial 1; with -1 it is 4 / 2^6 and 19/21."""
    scores = np.stack([np.arange(1.0, 7.0)[:, None] + 50, np.full((6, 1), 50.0)], axis=1)
    result = wilcoxon_test(paired_pages(tidy(scores), "A", "B"))
    assert (result.p, result.effect) == (pytest.approx(2 / 64), 1)
    scores[0, 0] = 49
    result = wilcoxon_test(paired_pages(tidy(scores), "A", "B"))
    assert (result.p, result.effect) == (pytest.approx(4 / 64), pytest.approx(19 / 21))


def test_equal_scores_and_single_listeners() -> None:
    same = paired_pages(tidy(np.full((8, 2, 3), 50.0)), "A", "B")
    result = wilcoxon_test(same)
    assert (result.p, result.effect, result.reason) == (1, 0, "all differences are zero")
    assert permutation_test(same, seed=0).p == 1
    assert math.isnan(cohens_dz(same))
    # Zero differences do not count in the ranks: the remark names those that do, of all.
    scores = np.full((3, 2, 1), 50.0)
    scores[0, 0] = 60
    few = wilcoxon_test(paired_pages(tidy(scores), "A", "B"))
    expected = "1 of 3 listeners has a difference other than zero: p cannot be below 1"
    assert (few.n, few.p, few.reason) == (3, 1, expected)
    one = paired_pages(tidy(simulate(0, listeners=1)), "A", "B")
    for result in (wilcoxon_test(one), permutation_test(one, seed=0)):
        assert math.isnan(result.p)
        assert result.reason == "1 listener rated both, a test needs 2"


@pytest.mark.parametrize("round_to", [2, -1])
def test_friedman_against_scipy(round_to: int) -> None:
    """Without and with ties."""
    frame = tidy(np.round(simulate(2, means=(50, 52, 55, 49), items=1), round_to))
    result = friedman_test(frame, list("ABCD"))
    means = common_means(frame, list("ABCD"))
    expected = stats.friedmanchisquare(*means.to_numpy().T)
    assert (result.statistic, result.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert result.effect == pytest.approx(expected.statistic / (12 * 3))
    assert result.df == 3


def test_friedman_by_hand() -> None:
    """Three listeners in full agreement over three conditions: chi-square = n (k - 1) = 6, W = 1."""
    frame = tidy(np.array([[1.0, 2, 3], [11, 12, 13], [21, 22, 23]])[:, :, None])
    result = friedman_test(frame, list("ABC"))
    assert (result.statistic, result.effect, result.n) == (pytest.approx(6), pytest.approx(1), 3)
    equal = friedman_test(tidy(np.full((3, 3, 1), 5.0)), list("ABC"))
    assert (equal.p, equal.reason) == (1, "all scores of each listener are equal")
    assert "needs 2 listeners" in friedman_test(tidy(np.ones((1, 3, 1))), list("ABC")).reason
    assert "needs 2 listeners" in friedman_test(tidy(np.ones((3, 3, 1))), ["A"]).reason


def test_real_test_against_scipy(shared: Shared) -> None:
    ratings = load([shared("mushra/AES2023_webmushra_results.csv")])
    means = ratings.matrix(ratings.systems)
    expected = stats.friedmanchisquare(*means.to_numpy().T)
    assert friedman_test(ratings.frame, ratings.systems).statistic == pytest.approx(expected.statistic)
    pair = wilcoxon_test(paired_pages(ratings.frame, "FOA", "Param1"))
    # 13 items: differences of sums are whole numbers, so that equal ones are equal.
    difference = (13 * (means["FOA"] - means["Param1"])).round()
    assert pair.p == pytest.approx(stats.wilcoxon(difference).pvalue)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_hochberg_against_statsmodels(p: list[float]) -> None:
    assert hochberg(p) == pytest.approx(list(multipletests(p, method="simes-hochberg")[1]))


def test_hochberg_leaves_out_what_was_not_tested() -> None:
    adjusted = hochberg([0.01, math.nan, 0.04])
    assert math.isnan(adjusted[1])
    assert [adjusted[0], adjusted[2]] == pytest.approx([0.02, 0.04])
    assert hochberg([]) == []


# Letters


@given(st.integers(1, 9), st.data())
@settings(max_examples=100, deadline=None)
def test_letters_say_exactly_which_pairs_differ(size: int, data: st.DataObject) -> None:
    names = [f"c{k}" for k in range(size)]
    pairs = list(itertools.combinations(names, 2))
    different = {pair for pair in pairs if data.draw(st.booleans())}
    letters = compact_letters(names, lambda a, b: (a, b) in different or (b, a) in different)
    for a, b in pairs:
        assert bool(set(letters[a]) & set(letters[b])) == ((a, b) not in different)
    used = sorted(set("".join(letters.values())))
    # No letter can go: each column joins a pair that no other joins, or a condition alone.
    for letter in used:
        rest = {name: set(text) - {letter} for name, text in letters.items()}
        assert any(not set(rest[a]) & set(rest[b]) for a, b in pairs if (a, b) not in different) or any(
            not text for text in rest.values()
        )


def test_letters_of_a_textbook_case() -> None:
    """A > C, the rest not different: A is a, B is in both groups, C is b."""
    assert compact_letters(["A", "B", "C"], lambda a, b: {a, b} == {"A", "C"}) == {
        "A": "a",
        "B": "ab",
        "C": "b",
    }
    assert compact_letters(["A", "B"], lambda a, b: False) == {"A": "a", "B": "a"}
    many = compact_letters([f"c{k:02d}" for k in range(28)], lambda a, b: True)
    assert len(set(many.values())) == 28
    assert many["c27"] == "b'"


# False positives


def false_positives(num_tests: int, *, listeners: int = 12) -> dict[str, float]:
    """How often each test finds a difference at 5 % between conditions that have none.

    Listeners differ in level, in taste (listener by condition) and per item; items differ; the conditions
    do not. Items are fixed for the tests over listeners.
    """
    from mushra.analysis.anova import rm_anova
    from mushra.analysis.mixed import mixed_model

    level = 10 * np.random.default_rng(5).standard_normal((1, 6)) * np.ones((3, 1))
    hits: dict[str, int] = {}
    fitted = 0
    for seed in range(num_tests):
        frame = tidy(simulate(seed, listeners=listeners, items=6, item_effects=level))
        table = paired_pages(frame, "A", "B")
        anova = rm_anova(frame, list("ABC")).set_index("effect")
        found = {
            "permutation": permutation_test(table, seed=seed, num_permutations=500).p,
            "wilcoxon": wilcoxon_test(table).p,
            "friedman": friedman_test(frame, list("ABC")).p,
            "condition": anova.loc["condition", "p_hf"],
            "condition:item": anova.loc["condition:item", "p_hf"],
        }
        mixed = mixed_model(tidy(simulate(seed, items=6, sd_item=10, sd_item_condition=4)), list("ABC"))
        fitted += not math.isnan(mixed.p)
        for name, p in found.items():
            hits[name] = hits.get(name, 0) + (p < 0.05)
        hits["mixed"] = hits.get("mixed", 0) + (mixed.p < 0.05)
    rates = {name: count / num_tests for name, count in hits.items()}
    return rates | {"mixed": hits["mixed"] / fitted}


def test_false_positives_short() -> None:
    """At most 5 % with three standard errors of 60 tests (8.4 %)."""
    rates = false_positives(60)
    assert all(rate <= 0.135 for rate in rates.values()), rates


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_false_positives() -> None:
    """2,000 tests: standard error 0.5 %. Exact tests on few listeners stay below 5 %."""
    rates = false_positives(2000)
    print(f"false positives at 5 % over 2,000 tests: {rates}")
    for name, rate in rates.items():
        assert 0.025 <= rate <= 0.065, name
