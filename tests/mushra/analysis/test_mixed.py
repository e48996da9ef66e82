"""Mixed model against lmerTest, pbkrtest, statsmodels, closed forms and simulated truth."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired
from synthetic_ratings import simulate, tidy

from mushra.analysis import mixed
from mushra.analysis.anova import rm_anova
from mushra.analysis.freedom import Estimate, derived_fit
from mushra.analysis.mixed import CLOSED_FORM, RESTRICTED_LIKELIHOOD, mixed_model

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


def test_too_small_tables_have_a_reason() -> None:
    for scores in (simulate(0, listeners=1), np.full((4, 3, 2), 50.0)):
        model = mixed_model(tidy(scores), list("ABC"))
        assert math.isnan(model.p)
        assert model.reason
        assert model.components == {}
    assert "needs 2 listeners, 2 items and 2 conditions" in mixed_model(tidy(simulate(0)), ["A"]).reason


def test_scores_without_an_error_have_a_reason() -> None:
    """Listener, item and condition only add: nothing is left to test against."""
    scores = np.arange(4.0)[:, None, None] + 3 * np.arange(3.0)[:, None] + 5 * np.arange(6.0)
    assert (
        mixed_model(tidy(scores), list("ABC")).reason == "no error to test against: the effects only add up"
    )


# lmerTest and pbkrtest

GOLDEN = Path(__file__).parent / "golden"
DESIGNS = ("balanced", "unbalanced", "boundary", "boundary_unbalanced")


@pytest.mark.parametrize("design", DESIGNS)
def test_the_same_as_lmertest_and_pbkrtest(design: str) -> None:
    """Golden values, made by golden_lmertest.R beside them; boundary: item:condition is estimated at zero."""
    compare(pd.read_csv(GOLDEN / "lmertest.csv"), design)


def compare(table: pd.DataFrame, design: str) -> None:
    golden = table.set_index(["design", "what", "name"])["value"].loc[design]
    model = mixed_model(pd.read_csv(GOLDEN / f"{design}.csv"), list("ABCDE"))
    assert model.at_zero == (("item:condition",) if "boundary" in design else ())
    full = "unbalanced" not in design
    assert model.method == (CLOSED_FORM if full else RESTRICTED_LIKELIHOOD)
    # lmerTest takes second derivatives by differences.
    near = {"rel": 1e-6, "abs": 0.0} if full else {"rel": 3e-4, "abs": 0.0}
    close = {"rel": 2e-5, "abs": 0.0}
    for name, variance in model.components.items():
        assert variance == pytest.approx(golden["variance", name], rel=2e-5, abs=1e-6), name
    satterthwaite = [golden["satterthwaite", name] for name in ("F", "df2", "p")]
    assert [model.statistic, model.df2, model.p] == pytest.approx(satterthwaite, **near)
    other = model.kenward_roger
    assert other is not None
    kenward_roger = [golden["kenward_roger", name] for name in ("F", "df2", "p")]
    assert [other.statistic, other.df2, other.p] == pytest.approx(kenward_roger, **close)
    for name, mean in model.means.items():
        expected = [golden[what, name] for what in ("mean", "mean error", "mean df")]
        assert [mean.value, mean.error, mean.df] == pytest.approx(expected, **near), name
    for (a, b), pair in model.contrasts.items():
        expected = [golden[what, f"{a}-{b}"] for what in ("pair", "pair error", "pair df", "pair p")]
        assert [pair.value, pair.error, pair.df, pair.p] == pytest.approx(expected, **near), (a, b)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed")
def test_golden_values_are_what_r_gives(tmp_path: Path) -> None:
    script = subprocess.run(
        ["Rscript", "golden_lmertest.R", str(tmp_path / "new.csv")],
        cwd=GOLDEN,
        capture_output=True,
        text=True,
    )
    if "there is no package called" in script.stderr:
        pytest.skip(script.stderr.strip())
    assert script.returncode == 0, script.stderr
    for design in DESIGNS:
        compare(pd.read_csv(tmp_path / "new.csv"), design)


# A variance at zero


def test_what_the_test_does_not_take_is_ignored() -> None:
    """Negative estimates of listener, item and listener:item leave F = MS_c / (MS_lc + MS_ic - MS_rest)."""
    scores = simulate(6, sd_item=0, sd_item_condition=0, sd_listener_item=0)
    model = mixed_model(tidy(scores), list("ABC"))
    assert model.components["item"] == model.components["listener:item"] == 0
    assert model.at_zero == ()
    squares = mixed._mean_squares(scores)
    between = 12 * 8 * ((scores.mean(axis=(0, 2)) - scores.mean()) ** 2).sum() / 2
    error = squares["lc"] + squares["ic"] - squares["rest"]
    df2 = error**2 / (squares["lc"] ** 2 / 22 + squares["ic"] ** 2 / 14 + squares["rest"] ** 2 / 154)
    assert (model.statistic, model.df2) == pytest.approx((between / error, df2))


def test_a_variance_at_zero_is_pooled_with_the_residual() -> None:
    """Without item:condition the error is the listeners' alone: F(c - 1, (c - 1)(n - 1)) of the means."""
    frame = pd.read_csv(GOLDEN / "boundary.csv")
    model = mixed_model(frame, list("ABCDE"))
    anova = rm_anova(frame, list("ABCDE")).set_index("effect").loc["condition"]
    assert model.components["item:condition"] == 0
    assert (model.statistic, model.df2, model.p) == pytest.approx((anova.statistic, anova.df2, anova.p))


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_there_is_always_an_answer(missing: float) -> None:
    """Real effects of systems, little else: many estimates are at or below zero, none is refused."""
    zeros = 0
    for seed in range(30 if missing == 0 else 6):
        scores = simulate(
            seed, means=(50, 54, 58), sd_item=2, sd_listener_item=1, sd_listener_condition=1, listeners=8
        )
        scores[np.random.default_rng(seed).random(scores.shape) < missing] = np.nan
        model = mixed_model(tidy(scores), list("ABC"))
        assert model.reason == ""
        assert model.p < 0.3
        zeros += min(model.components.values()) == 0
    assert zeros > 0


def test_derivatives_of_the_likelihood() -> None:
    """At the closed-form maximum the slopes are zero; the degrees of freedom are those of mean squares."""
    frame = tidy(simulate(2, **LARGE))  # type: ignore[arg-type]
    model = mixed_model(frame, list("ABC"))
    fit, kenward_roger, slopes = derived_fit(frame, list("ABC"), np.array(list(model.components.values())))
    assert slopes == pytest.approx(np.zeros(6), abs=1e-9)
    assert fit.test().df2 == pytest.approx(model.df2, rel=1e-9)
    assert (kenward_roger.statistic, kenward_roger.df2) == pytest.approx(
        (model.statistic, model.df2), rel=1e-9
    )
    ours = model.contrasts["A", "C"]
    assert fit.estimate(np.array([1.0, 0, -1])).df == pytest.approx(ours.df, rel=1e-9)
    assert fit.estimate(np.array([0.0, 1, 0])).error == pytest.approx(model.means["B"].error, rel=1e-9)


def test_without_random_effects_it_is_the_f_test_of_groups() -> None:
    """All components at zero, as in a few ratings that differ by chance alone."""
    frame = tidy(np.random.default_rng(1).normal(50, 10, (4, 3, 3))).iloc[:-5]
    groups = [group["score"] for _, group in frame.groupby("condition")]
    classical = stats.f_oneway(*groups)
    df = len(frame) - len(groups)
    residual = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / df
    fit, test, gradient = derived_fit(frame, list("ABC"), np.array([0, 0, 0, 0, 0, residual]))
    assert (test.statistic, test.df1, test.df2) == pytest.approx((classical.statistic, 2, df))
    assert fit.means == pytest.approx([group.mean() for group in groups])
    assert gradient == pytest.approx(np.zeros(6), abs=1e-9)


def test_large_tables_take_average_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact in a full table, near where little is missing."""
    scores = simulate(2, **LARGE)  # type: ignore[arg-type]
    for missing, close in ((0.0, 1e-3), (0.1, 0.03)):
        scores[np.random.default_rng(0).random(scores.shape) < missing] = np.nan
        derived = mixed._restricted_likelihood(tidy(scores), list("ABC"))
        with monkeypatch.context() as patched:
            patched.setattr(mixed, "MAX_DERIVED_EFFECTS", 10)
            average = mixed._restricted_likelihood(tidy(scores), list("ABC"))
        assert average.kenward_roger is None
        assert (average.statistic, average.df2) == pytest.approx((derived.statistic, derived.df2), rel=close)


def test_equivalence_by_two_one_sided_tests() -> None:
    """statsmodels' paired TOST on the listeners' means, for one item's worth of differences."""
    g = np.random.default_rng(3)
    difference = g.normal(1.0, 3.0, size=16)
    theirs = ttost_paired(difference, np.zeros(16), -2.5, 2.5)[0]
    ours = Estimate(float(difference.mean()), float(stats.sem(difference)), 15)
    assert ours.p_equivalence(2.5) == pytest.approx(theirs)
    assert ours.p == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
    assert ours.interval() == pytest.approx(
        stats.t.interval(0.95, 15, difference.mean(), stats.sem(difference))
    )


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
