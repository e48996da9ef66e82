"""Analysis of variance and mixed model against statsmodels, closed forms and simulated truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import AnovaRM
from synthetic_ratings import simulate, tidy

from mushra.analysis import mixed
from mushra.analysis.anova import balanced_table, contrasts, epsilons, rm_anova
from mushra.analysis.load import load
from mushra.analysis.mixed import CLOSED_FORM, RESTRICTED_LIKELIHOOD, mixed_model

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
        model = mixed_model(tidy(scores), list("ABC"))
        assert math.isnan(model.p)
        assert model.reason
        assert model.components == {}
    assert "needs 2 listeners" in rm_anova(tidy(simulate(0)), ["A"])["reason"][0]
    assert "needs 2 listeners, 2 items and 2 conditions" in mixed_model(tidy(simulate(0)), ["A"]).reason


# Mixed model

LARGE = {"sd_item": 7.0, "sd_item_condition": 5.0, "listeners": 14, "items": 9}


def test_closed_form_is_the_restricted_maximum_likelihood() -> None:
    """Two routes to the same maximum on a full table."""
    frame = tidy(simulate(2, **LARGE))  # type: ignore[arg-type]
    closed = mixed_model(frame, list("ABC"))
    assert closed.method == CLOSED_FORM
    maximised = mixed._restricted_likelihood(frame, list("ABC"))
    assert maximised.method == RESTRICTED_LIKELIHOOD
    for name, variance in closed.components.items():
        assert maximised.components[name] == pytest.approx(variance, rel=1e-3), name
    assert (maximised.statistic, maximised.df2) == pytest.approx((closed.statistic, closed.df2), rel=1e-3)


def test_restricted_likelihood_against_statsmodels() -> None:
    """MixedLM with the same five variance components on ratings of which a tenth is missing."""
    scores = simulate(2, **LARGE)  # type: ignore[arg-type]
    scores[np.random.default_rng(0).random(scores.shape) < 0.1] = np.nan
    frame = tidy(scores)
    ours = mixed_model(frame, list("ABC"))
    table = frame.rename(columns={"listener": "l", "item": "i", "condition": "c"})
    table = table.assign(g=1, li=table.l + table.i, lc=table.l + table.c, ic=table.i + table.c)
    names = {"i": "item", "ic": "item:condition", "l": "listener"}
    names |= {"lc": "listener:condition", "li": "listener:item"}
    theirs = smf.mixedlm(
        "score ~ c", table, groups="g", re_formula="0", vc_formula={name: f"0 + {name}" for name in names}
    ).fit(method=["lbfgs"])
    assert theirs.converged
    for name, variance in zip(theirs.model.exog_vc.names, theirs.vcomp, strict=True):
        assert ours.components[names[name]] == pytest.approx(variance, rel=0.02), name
    assert ours.components["residual"] == pytest.approx(theirs.scale, rel=0.005)
    difference = theirs.fe_params.to_numpy()[1:]
    covariance = theirs.cov_params().to_numpy()[1:3, 1:3]
    wald = difference @ np.linalg.solve(covariance, difference) / 2
    assert ours.statistic == pytest.approx(wald, rel=0.005)


def test_components_are_recovered() -> None:
    """A large test gives back what it was made of."""
    frame = tidy(simulate(3, listeners=300, items=40, sd_item=7, sd_item_condition=5))
    model = mixed_model(frame, list("ABC"))
    expected = {"listener": 36, "item": 49, "listener:item": 16, "listener:condition": 25}
    expected |= {"item:condition": 25, "residual": 64}
    for name, variance in expected.items():
        assert model.components[name] == pytest.approx(variance, rel=0.45 if "item" in name else 0.25), name


def test_singular_models_give_no_figures() -> None:
    """No item effects at all: some variance is estimated at or below zero."""
    reasons = []
    for missing in (False, True):
        scores = simulate(6, sd_item=0, sd_item_condition=0, sd_listener_item=0)
        if missing:
            scores[0, 0, 0] = np.nan
        model = mixed_model(tidy(scores), list("ABC"))
        assert model.components == {}
        assert math.isnan(model.p)
        reasons.append(model.reason)
    assert all(reason.startswith("singular: no variance is left for ") for reason in reasons), reasons


def test_too_many_item_effects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = simulate(6, sd_item=5)
    scores[0, 0, 0] = np.nan
    for limit in ("MAX_ITEM_EFFECTS", "MAX_RATINGS"):
        with monkeypatch.context() as patched:
            patched.setattr(mixed, limit, 10)
            reason = mixed_model(tidy(scores), list("ABC")).reason
        assert "some ratings are missing, and 287 ratings with 32 item effects exceed" in reason


def test_a_failed_search_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = simulate(2, **LARGE)  # type: ignore[arg-type]
    scores[0, 0, 0] = np.nan
    failed = mixed.optimize.OptimizeResult(success=False, x=np.ones(5), fun=0.0, message="STOP")
    monkeypatch.setattr(mixed.optimize, "minimize", lambda *_, **__: failed)
    model = mixed_model(tidy(scores), list("ABC"))
    assert model.reason == "not converged: STOP"
    assert model.components == {}
