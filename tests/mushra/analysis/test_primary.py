"""The rule of the primary analysis, its differences, letters and equivalence."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from synthetic_ratings import simulate, tidy

from mushra.analysis import wording
from mushra.analysis.description import crossed_interval
from mushra.analysis.mixed import mixed_model
from mushra.analysis.pipeline import analyze
from mushra.analysis.primary import (
    LISTENERS,
    MIXED,
    NEW_ITEMS,
    NOTHING,
    OWN_VARIANCES,
    SAME_ITEMS,
    Primary,
    primary_analysis,
    uneven,
)
from mushra.analysis.ratings import with_roles

GOLDEN = Path(__file__).parent / "golden"


def primary(frame: pd.DataFrame, margin: float | None = None) -> Primary:
    ratings = with_roles(frame)
    return primary_analysis(ratings, mixed_model(ratings.frame, ratings.systems), margin)


def ceiling(scores: np.ndarray) -> np.ndarray:
    return np.clip(scores + 50, 0, 100)


SCORES = simulate(1, means=(50, 55, 52), sd_item=4, sd_item_condition=5)
RULE = {
    "full": (tidy(SCORES), MIXED, NEW_ITEMS, "each of 12 listeners rated each of 8 items"),
    "incomplete": (tidy(SCORES).iloc[:-3], MIXED, NEW_ITEMS, "some of the 12 x 8 x 3 ratings are missing"),
    "ceiling": (tidy(ceiling(SCORES)), OWN_VARIANCES, NEW_ITEMS, "of the scores of 3 systems are at an end"),
    "unequal spread": (
        tidy(simulate(1, means=(50, 55, 52), sd_listener_condition=np.array([[1.0], [1], [12]]))),
        OWN_VARIANCES,
        NEW_ITEMS,
        "scores of C vary more than those of",
    ),
    "one item": (tidy(SCORES[:, :, :1]), LISTENERS, SAME_ITEMS, "with one item"),
    "no error": (
        tidy(np.arange(8.0)[:, None, None] + np.arange(2.0)[:, None] + np.zeros(4)),
        LISTENERS,
        SAME_ITEMS,
        "no error to test against",
    ),
    "one listener": (tidy(SCORES[:1]), NOTHING, "", "there are 3 and 1"),
    "one system": (tidy(SCORES[:, :1]), NOTHING, "", "there are 1 and 12"),
}


@pytest.mark.parametrize("design", RULE)
def test_the_rule(design: str) -> None:
    frame, method, population, why = RULE[design]
    found = primary(frame)
    assert (found.method, found.population) == (method, population)
    assert why in found.why
    assert len(found.contrasts) == (3 if method and design != "no error" else 1 if method else 0)
    assert (found.contrasts["p"].notna() | (found.contrasts["reason"] != "")).all()


@pytest.mark.parametrize("design", ["balanced", "unbalanced", "boundary", "boundary_unbalanced"])
def test_pairs_are_those_of_lmertest_after_holm(design: str) -> None:
    golden = pd.read_csv(GOLDEN / "lmertest.csv").set_index(["design", "what"]).loc[design]
    found = primary(pd.read_csv(GOLDEN / f"{design}.csv"))
    p = golden.loc["pair p"]["value"].to_numpy()
    assert (found.contrasts["a"] + "-" + found.contrasts["b"]).tolist() == golden.loc["pair p"][
        "name"
    ].tolist()
    assert found.contrasts["p_holm"].to_numpy() == pytest.approx(multipletests(p, method="holm")[1], rel=1e-3)
    error, df = golden.loc["pair error"]["value"].to_numpy(), golden.loc["pair df"]["value"].to_numpy()
    half = (found.contrasts["ci_high"] - found.contrasts["ci_low"]).to_numpy() / 2
    assert half == pytest.approx(stats.t.ppf(0.975, df) * error, rel=1e-4)
    for row in found.contrasts.itertuples():
        shared = set(found.letters[str(row.a)]) & set(found.letters[str(row.b)])
        assert bool(shared) == (float(str(row.p_holm)) >= 0.05)


def test_own_variances_are_those_of_the_differences() -> None:
    """The crossed interval of the score differences: another route to the same model of two systems."""
    scores = ceiling(SCORES)
    found = primary(tidy(scores)).contrasts.iloc[0]
    expected = crossed_interval(scores[:, 0] - scores[:, 1])
    assert [found["estimate"], found["ci_low"], found["ci_high"]] == pytest.approx(
        [expected.mean, expected.low, expected.high]
    )


@pytest.mark.parametrize("spread", [1.0, 1.5, 3.0])
def test_spread_is_unequal_where_the_tests_of_pitman_and_morgan_say_so(spread: float) -> None:
    """Their t, from the ratio of the variances and the correlation (Snedecor and Cochran, section 10.8)."""
    scores = simulate(
        4, means=(50,) * 4, listeners=20, sd_listener_condition=5 * spread ** np.arange(4)[:, None]
    )
    expected = {}
    for means in (scores.mean(axis=2), scores.mean(axis=0).T):
        apart = means - means.mean(axis=1, keepdims=True)
        covariance, n = np.cov(apart.T), len(means)
        for a, b in itertools.combinations(range(4), 2):
            ratio = covariance[a, a] / covariance[b, b]
            r = np.corrcoef(apart[:, a], apart[:, b])[0, 1]
            t = (ratio - 1) * math.sqrt((n - 2) / (4 * ratio * (1 - r**2)))
            expected[a, b, n] = 2 * stats.t.sf(abs(t), n - 2)
    least = min(expected, key=lambda key: expected[key])
    found = uneven(scores, "ABCD")
    assert (found is not None) == multipletests(list(expected.values()), method="holm")[0].any()
    assert (found is not None) == (spread > 1)
    assert found is None or found == ("ABCD"[least[0]], "ABCD"[least[1]])


def test_the_test_of_spread_accepts_systems_that_always_agree() -> None:
    assert uneven(np.full((6, 4, 5), 60.0), "ABCD") is None
    assert uneven(SCORES[:, :2], "AB") is None
    assert uneven(SCORES[:2, :, :2], "ABC") is None


def test_systems_that_are_always_equal_share_a_letter() -> None:
    """Two at the top of the scale throughout: no difference, no error, no refusal."""
    scores = np.concatenate([np.full((12, 2, 8), 100.0), np.clip(SCORES[:, :1], 0, 100)], axis=1)
    found = primary(tidy(scores))
    assert found.method == OWN_VARIANCES
    assert found.letters == {"A": "a", "B": "a", "C": "b"}
    assert found.contrasts["p"][0] == 1


def test_equivalence_needs_a_margin() -> None:
    scores = simulate(3, means=(50, 50), listeners=30, items=12, sd_listener_condition=1, sd_rest=3)
    frame = tidy(scores)
    assert math.isnan(primary(frame).contrasts["p_equivalence"][0])
    wide, narrow = (primary(frame, margin).contrasts.iloc[0] for margin in (5.0, 0.1))
    # TOST at 0.05 says equivalent exactly where the 90 % interval lies within the margin.
    error = (wide["ci_high"] - wide["estimate"]) / stats.t.ppf(0.975, wide["df"])
    half = stats.t.ppf(0.95, wide["df"]) * error
    assert abs(wide["estimate"]) + half < 5
    assert wide["p_equivalence_holm"] < 0.05
    assert abs(narrow["estimate"]) + half > 0.1
    assert narrow["p_equivalence_holm"] > 0.05


def test_a_note_reports_a_variance_at_zero() -> None:
    """In the table of the boundary the variance of item:condition is estimated at zero."""
    analysis = analyze(
        with_roles(pd.read_csv(GOLDEN / "boundary.csv")), num_permutations=100, num_resamples=100
    )
    said = "Mixed model of all systems: the variance of item:condition was estimated at zero or below"
    said += " and set to zero"
    assert any(note.startswith(said) for note in analysis.notes)
    full = analyze(with_roles(pd.read_csv(GOLDEN / "balanced.csv")), num_permutations=100, num_resamples=100)
    assert not any("Mixed model" in note for note in full.notes)
    tests = set(full.tests["test"])
    assert "mixed_model" in tests and "mixed_model_kenward_roger" not in tests


def test_kenward_roger_is_also_given_if_ratings_are_missing() -> None:
    golden = pd.read_csv(GOLDEN / "lmertest.csv").set_index(["design", "what", "name"])["value"].sort_index()
    ratings = with_roles(pd.read_csv(GOLDEN / "unbalanced.csv"))
    analysis = analyze(ratings, num_permutations=100, num_resamples=100)
    row = analysis.tests.set_index("test").loc["mixed_model_kenward_roger"]
    expected = golden.loc["unbalanced", "kenward_roger"]
    assert [row["statistic"], row["df2"], row["p"]] == pytest.approx(
        expected[["F", "df2", "p"]].tolist(), rel=1e-4
    )
    text = " ".join(wording.methods(analysis))
    assert f"After Kenward and Roger F(4, {expected['df2']:.1f}) = {expected['F']:.2f}, p < 0.001." in text
    assert text.count("no test") <= 1
