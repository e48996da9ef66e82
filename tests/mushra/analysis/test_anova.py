"""Analysis of variance against statsmodels, pingouin and closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.anova import AnovaRM
from synthetic_ratings import simulate, tidy

from evaluation.statistics.recordings import holm
from mushra.analysis.anova import EFFECTS, balanced_table, contrasts, epsilons, rm_anova
from mushra.analysis.load import load
from mushra.analysis.significance import friedman_test, paired_pages, wilcoxon_test

Shared = Callable[[str], Path]


def test_f_against_statsmodels(shared: Shared) -> None:
    ratings = load([shared("mushra/AES2023_webmushra_results.csv")])
    frame = ratings.frame[ratings.frame["condition"].isin(ratings.systems)]
    expected = AnovaRM(frame, "score", "listener", within=["condition", "item"]).fit().anova_table
    ours = rm_anova(ratings.frame, ratings.systems).set_index("effect")
    columns = ["statistic", "df1", "df2", "p"]
    assert ours[columns].to_numpy().astype(float) == pytest.approx(expected.to_numpy(), rel=1e-9)
    assert ours["n"].tolist() == [22, 22, 22]


def test_epsilons_of_known_covariances() -> None:
    """Sphericity: 1. One contrast that carries everything: the lower bound 1 / d. Two of three: 2 / 3."""
    assert epsilons(np.eye(4), 100)[0] == 1
    assert epsilons(np.diag([1.0, 0, 0, 0]), 10)[0] == 0.25
    assert epsilons(np.diag([1.0, 1, 0]), 10)[0] == pytest.approx(2 / 3)
    # Huynh and Feldt: (n d e - 2) / (d (n - 1 - d e)) = (10 * 2 - 2) / (3 * (9 - 2)) = 18 / 21.
    assert epsilons(np.diag([1.0, 1, 0]), 10)[1] == pytest.approx(18 / 21)
    assert epsilons(np.eye(4), 100)[1] == 1
    # Two conditions cannot violate sphericity.
    assert epsilons(np.array([[7.0]]), 5) == (1, 1)


def test_greenhouse_geisser_from_the_covariance_of_the_conditions() -> None:
    """Box's formula on the double-centred covariance matrix, an independent route to the same number."""
    scores = simulate(4, means=(40, 50, 60, 45), listeners=9)
    covariance = np.cov(scores.mean(axis=2), rowvar=False)
    k = len(covariance)
    centred = covariance - covariance.mean(axis=0) - covariance.mean(axis=1)[:, None] + covariance.mean()
    expected = np.trace(centred) ** 2 / ((k - 1) * (centred**2).sum())
    row = rm_anova(tidy(scores), list("ABCD")).iloc[0]
    assert row["epsilon_gg"] == pytest.approx(expected)
    n, d = 9, 3
    assert row["epsilon_hf"] == pytest.approx(min(1, (n * d * expected - 2) / (d * (n - 1 - d * expected))))
    assert row["p_gg"] == pytest.approx(stats.f.sf(row["statistic"], expected * 3, expected * 24))


def test_contrasts_are_orthonormal_and_centred() -> None:
    for levels in (2, 3, 7):
        matrix = contrasts(levels)
        assert matrix @ matrix.T == pytest.approx(np.eye(levels - 1))
        assert matrix.sum(axis=1) == pytest.approx(0)


def test_effect_sizes_by_hand() -> None:
    """One item, two conditions: F is the paired t squared and partial eta squared t^2 / (t^2 + n - 1)."""
    scores = simulate(8, means=(50, 58), items=1)
    table = rm_anova(tidy(scores), ["A", "B"]).set_index("effect")
    t = stats.ttest_rel(scores[:, 0, 0], scores[:, 1, 0]).statistic
    row = table.loc["condition"]
    assert row["statistic"] == pytest.approx(t**2)
    assert row["partial_eta_squared"] == pytest.approx(t**2 / (t**2 + 11))
    between = ((scores.mean(axis=(1, 2)) - scores.mean()) ** 2).sum() * 2
    difference = scores[:, 1, 0] - scores[:, 0, 0]
    squares, error = 12 * difference.mean() ** 2 / 2, ((difference - difference.mean()) ** 2).sum() / 2
    assert row["generalized_eta_squared"] == pytest.approx(squares / (squares + between + error))
    assert table.loc["item", "reason"] == "there is only one item"
    assert math.isnan(table.loc["item", "p"])


def test_missing_scores_take_out_items_then_listeners() -> None:
    scores = simulate(1, listeners=5, items=4)
    scores[:, 2, 3] = np.nan
    scores[0, 1, 0] = np.nan
    table = balanced_table(tidy(scores), list("ABC"))
    assert table.scores == pytest.approx(scores[1:, :, :3])
    assert table.left_out == "left out for missing scores: 1 of 4 items and 1 of 5 listeners"
    whole = rm_anova(tidy(scores[1:, :, :3]), list("ABC"))
    rest = rm_anova(tidy(scores), list("ABC"))
    assert rest["reason"].tolist() == [table.left_out] * 3
    pd.testing.assert_frame_equal(rest.drop(columns="reason"), whole.drop(columns="reason"))


def test_without_figures_there_is_a_reason() -> None:
    for scores in (simulate(0, listeners=1), np.full((4, 3, 2), 50.0)):
        table = rm_anova(tidy(scores), list("ABC"))
        assert table["p"].isna().all()
        assert (table["reason"] != "").all()
    assert "needs 2 listeners" in rm_anova(tidy(simulate(0)), ["A"])["reason"][0]


GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("design", ["balanced", "boundary"])
def test_the_same_as_pingouin(design: str) -> None:
    """Golden values, made by golden_pingouin.py beside them."""
    frame = pd.read_csv(GOLDEN / f"{design}.csv")
    golden = pd.read_csv(GOLDEN / "pingouin.csv").set_index(["design", "what", "name"])["value"].loc[design]
    ours = rm_anova(frame, list("ABCDE")).set_index("effect")
    columns = {"F": "statistic", "p_unc": "p", "ng2": "generalized_eta_squared"}
    for effect in EFFECTS:
        for theirs, column in columns.items():
            assert ours.loc[effect, column] == pytest.approx(golden[effect, theirs], rel=1e-6), (
                effect,
                theirs,
            )
    # Of the interaction pingouin's epsilon is approximate, as it says.
    for effect in ("condition", "item"):
        assert ours.loc[effect, "epsilon_gg"] == pytest.approx(golden[effect, "eps"], rel=1e-6)
        assert ours.loc[effect, "p_gg"] == pytest.approx(golden[effect, "p_GG_corr"], rel=1e-6)
    friedman = friedman_test(frame, list("ABCDE"))
    expected = [golden["friedman", name] for name in ("Q", "p_unc", "W")]
    assert [friedman.statistic, friedman.p, friedman.effect] == pytest.approx(expected, rel=1e-6)
    pairs = list(itertools.combinations("ABCDE", 2))
    p = [wilcoxon_test(paired_pages(frame, a, b)).p for a, b in pairs]
    for (a, b), single, adjusted in zip(pairs, p, holm(p), strict=True):
        assert single == pytest.approx(golden[f"{a}-{b}", "p_unc"], rel=1e-6), (a, b)
        assert adjusted == pytest.approx(golden[f"{a}-{b}", "p_corr"], rel=1e-6), (a, b)
