"""BS.1116, AB, ABX, ACR and DCR against closed forms, scipy, statsmodels and simulated decisions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize, special, stats

from mushra.analysis.methods import opinion
from mushra.analysis.methods.bs1116 import analyze_bs1116
from mushra.analysis.methods.detection import (
    abx_differencing,
    abx_independent,
    analyze_detection,
    d_prime,
    two_alternatives,
)
from mushra.analysis.methods.grades import both_interval
from mushra.analysis.methods.judgements import COLUMNS
from mushra.analysis.methods.opinion import analyze_opinions
from mushra.analysis.methods.preference import analyze_preferences, section
from mushra.analysis.methods.shares import clustered_share, detectable
from mushra.analysis.methods.transitivity import kendall_zeta
from mushra.analysis.mixed import full_table_model

NAN = math.nan


def table(*rows: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def preferences(wins: dict[tuple[str, str], tuple[int, int, int]], listeners: int = 4) -> pd.DataFrame:
    """Answers to each pair, dealt out to listeners in turn: for the first, for the second, ties."""
    rows = []
    for (a, b), counts in wins.items():
        answers = [a] * counts[0] + [b] * counts[1] + [""] * counts[2]
        for number, answer in enumerate(answers):
            # Every other one with the pair the other way round.
            first, second = (a, b) if number % 2 else (b, a)
            who = f"L{number % listeners}"
            rows.append(("ab", who, f"i{number}", first, second, NAN, NAN, answer))
    return table(*rows)


# AB

WINS = {("A", "B"): (14, 6, 2), ("A", "C"): (17, 3, 0), ("B", "C"): (12, 9, 1)}


def test_strengths_have_the_greatest_likelihood() -> None:
    found = analyze_preferences(preferences(WINS))

    def loss(free: np.ndarray) -> float:
        strength = dict(zip("ABC", [*free, -free.sum()], strict=True))
        total = 0.0
        for (a, b), (for_a, for_b, ties) in WINS.items():
            p = 1 / (1 + math.exp(strength[b] - strength[a]))
            total -= (for_a + ties / 2) * math.log(p) + (for_b + ties / 2) * math.log(1 - p)
        return total

    best = optimize.minimize(loss, np.zeros(2), tol=1e-12).x
    assert found.strengths["strength"].to_numpy() == pytest.approx([*best, -best.sum()], abs=1e-5)
    assert found.strengths["wins"].tolist() == [14 + 1 + 17, 6 + 1 + 12.5, 3 + 9.5]
    assert found.tie_share == pytest.approx(3 / 64)


def words(frame: pd.DataFrame) -> str:
    return section(analyze_preferences(frame)).paragraphs[0]


def korn_graubard(share: float, variance: float, listeners: int) -> str:
    """The interval of a share whose variance between listeners leaves fewer answers than there are."""
    few = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, listeners - 1)) ** 2
    n = share * (1 - share) / variance * few
    x = share * n
    low, high = stats.beta.ppf(0.025, x, n - x + 1), stats.beta.ppf(0.975, x + 1, n - x)
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def plain_interval(wins: int, n: int) -> str:
    found = stats.binomtest(wins, n).proportion_ci()
    return f"{100 * found.low:.1f} to {100 * found.high:.1f} %"


def test_the_report_begins_with_what_was_preferred() -> None:
    # Four of six listeners prefer B three times of four, two of them always.
    share = 20 / 24
    residuals = np.array([3.0] * 4 + [4.0] * 2) - 4 * share
    spread = 6 / 5 * (residuals**2).sum()
    error = math.sqrt(spread) / (24 * share * (1 - share))
    t = math.log(share / (1 - share)) / error
    low, high = 100 * special.expit(error * (t + np.array([-1, 1]) * stats.t.ppf(0.975, 5)))
    p = 2 * stats.t.sf(t, 5)
    # Korn and Graubard's number of answers is more than there are, so the interval is the binomial one.
    assert share * (1 - share) / (spread / 24**2) * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 5)) ** 2 > 24
    assert words(preferences({("A", "B"): (4, 20, 0)}, listeners=6)) == (
        f"B was preferred to A: B has 83.3 % of the answers (95 % interval {plain_interval(20, 24)});"
        f" the model gives 83.3 % ({low:.1f} to {high:.1f} %; p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})."
    )
    # Every listener is undecided, so the model has no interval.
    assert words(preferences({("A", "B"): (12, 12, 0)}, listeners=6)) == (
        f"No preference between A and B was found: A has 50.0 % of the answers (95 % interval"
        f" {plain_interval(12, 24)}); the sign test gives p = 1.000 (0 listeners for A, 0 for B)."
    )


def test_answers_are_counted_and_the_model_is_named() -> None:
    said = words(preferences({("A", "B"): (14, 6, 0), ("A", "C"): (13, 7, 0), ("B", "C"): (12, 8, 0)}, 10))

    def sums(free: np.ndarray) -> list[float]:
        """A has 27 wins of 40 answers, B 18: the model expects as many."""
        a, b = free
        both = 20 * special.expit(a - b)
        return [both + 20 * special.expit(a) - 27, 20 - both + 20 * special.expit(b) - 18]

    a, b = optimize.fsolve(sums, [0.0, 0.0])
    for pair, wins, model in (("AB", 14, a - b), ("AC", 13, a), ("BC", 12, b)):
        assert (
            f"{pair[0]} has {5 * wins}.0 % of the answers (95 % interval {plain_interval(wins, 20)}" in said
        )
        assert f"; the model gives {100 * special.expit(model):.1f} % (" in said


def test_pairs_of_a_circular_panel_are_judged_by_themselves() -> None:
    """A beats B, B beats C, C beats A: equal strengths. One of ten listeners is undecided about each pair."""
    found = analyze_preferences(
        preferences({("A", "B"): (19, 1, 0), ("A", "C"): (1, 19, 0), ("B", "C"): (19, 1, 0)}, listeners=10)
    )
    assert found.pairs["model_share"].to_numpy() == pytest.approx([0.5] * 3)
    said = section(found).paragraphs[0]
    interval = korn_graubard(0.95, 10 / 9 * (9 * 0.1**2 + 0.9**2) / 20**2, 10)
    p = 3 * stats.binomtest(9, 9).pvalue
    for first, second in ("AB", "CA", "BC"):
        assert (
            f"{first} was preferred to {second}: {first} has 95.0 % of the answers (95 % interval"
            f" {interval}); the sign test gives p = {p:.3f} (9 listeners for {first}, 0 for {second})."
            in said
        )
    assert "No preference" not in said and "The model does not fit (p = " in said
    assert set(found.strengths["letters"]) == {""}


def test_a_test_and_an_interval_that_disagree_are_said_to() -> None:
    """Eight listeners prefer A once each and are undecided four times."""
    p = stats.binomtest(8, 8).pvalue
    assert words(preferences({("A", "B"): (8, 0, 32)}, listeners=8)) == (
        "The results for A and B disagree: A has 60.0 % of the answers (95 % interval"
        f" {plain_interval(24, 40)}, which includes 50 %); the sign test gives p = {p:.3f} (8 listeners for"
        " A, 0 for B) and finds a preference for A."
    )


def test_what_only_the_model_finds_is_said_to_be_the_models() -> None:
    said = words(preferences(WINS))
    assert (
        "B was preferred to C by the model: B has 56.8 % of the answers (95 % interval" in said
    )  # 12.5 / 22
    assert "which includes 50 %); the model gives" in said


def test_a_sign_test_has_a_say_against_the_model() -> None:
    """All prefer A to B a little; each has a strong mind of C, and their minds differ."""
    rows = [
        ("ab", f"L{who}", f"i{item}", *pair, NAN, NAN, answer)
        for who in range(12)
        for item in range(5)
        for pair, answer in (
            (("A", "B"), "" if item else "A"),
            (("A", "C"), "AC"[who % 2]),
            (("B", "C"), "BC"[who // 2 % 2]),
        )
    ]
    found = analyze_preferences(table(*rows))
    assert found.fit.p_clustered > 0.05 and found.pairs["model_p_holm"].min() > 0.05
    p = 3 * stats.binomtest(12, 12).pvalue
    said = section(found).paragraphs[0]
    assert said.startswith("The results for A and B disagree: A has 60.0 % of the answers")
    assert "and finds no preference; the sign test gives" in said
    assert f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'} (12 listeners for A, 0 for B) and finds" in said


def test_intervals_of_differences_are_those_of_a_logit_model_with_another_reference() -> None:
    """Without ties statsmodels' Logit takes the same answers; our factor for few clusters is put in here."""
    frame = preferences({pair: (a, b, 0) for pair, (a, b, _) in WINS.items()})
    found = analyze_preferences(frame).pairs.set_index(["a", "b"])
    first = {name: (frame["condition"] == name) * 1.0 - (frame["reference"] == name) for name in "BC"}
    chosen = (frame["answer"] == frame["condition"]).astype(float)
    groups = pd.factorize(frame["listener"])[0]
    model = sm.Logit(chosen, pd.DataFrame(first)).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    error = model.bse["B"] * math.sqrt(4 / 3)
    reach = stats.t.ppf(0.975, 3) * error
    ends = 1 / (1 + np.exp([model.params["B"] + reach, model.params["B"] - reach]))
    row = found.loc[("A", "B")]
    assert [row["model_low"], row["model_high"]] == pytest.approx(ends, rel=1e-6)
    assert row["model_p"] == pytest.approx(2 * stats.t.sf(abs(model.params["B"] / error), 3), rel=1e-6)


def test_fit_is_the_deviance_of_the_pairs_and_nothing_where_pairs_have_no_more_to_say() -> None:
    counts = {("A", "B"): (10, 5, 0), ("B", "C"): (10, 5, 0), ("A", "C"): (5, 10, 0)}
    fit = analyze_preferences(preferences(counts)).fit
    # A beats B, B beats C, C beats A alike: all strengths are equal, every pair is expected at one half.
    expected = 3 * 2 * (10 * math.log(10 / 7.5) + 5 * math.log(5 / 7.5))
    assert (fit.deviance, fit.df) == (pytest.approx(expected), 1)
    assert fit.p == pytest.approx(stats.chi2.sf(expected, 1))
    two = analyze_preferences(preferences({("A", "B"): (10, 5, 0)}))
    assert two.fit.df == 0 and math.isnan(two.fit.p)
    assert two.strengths["strength"].iloc[0] == pytest.approx(math.log(2) / 2)


def test_a_system_that_always_wins_has_no_strength_and_pairs_stay() -> None:
    found = analyze_preferences(
        preferences({("A", "B"): (9, 0, 0), ("A", "C"): (8, 0, 0), ("B", "C"): (4, 4, 0)})
    )
    assert "A won or lost every comparison" in found.reason
    assert found.strengths["strength"].isna().all()
    assert found.pairs["share"].tolist() == [1.0, 1.0, 0.5]


def test_circular_triads() -> None:
    listener = preferences({("A", "B"): (1, 0, 0), ("B", "C"): (1, 0, 0), ("A", "C"): (0, 1, 0)}, listeners=1)
    other = preferences({("A", "B"): (1, 0, 0), ("B", "C"): (1, 0, 0), ("A", "C"): (1, 0, 0)}, listeners=1)
    both = pd.concat([listener, other.assign(listener="M")], ignore_index=True)
    rows = analyze_preferences(both).listeners.set_index("listener")
    assert rows["circular"].to_dict() == {"": 0, "L0": 1, "M": 0}
    assert rows.loc["L0", "zeta"] == 0 and rows.loc["M", "zeta"] == 1
    assert "no majority" in rows.loc["", "remark"]


@pytest.mark.parametrize("systems", [3, 4, 5, 6])
def test_zeta_is_nought_for_the_most_circular_of_all_tournaments(systems: int) -> None:
    pairs = list(itertools.combinations(range(systems), 2))
    most = 0
    for outcome in itertools.product((0, 1), repeat=len(pairs)):
        if systems == 6 and outcome[:4] != (1, 0, 1, 0):
            continue
        wins = np.zeros(systems)
        for (a, b), won in zip(pairs, outcome, strict=True):
            wins[a if won else b] += 1
        most = max(most, round(math.comb(systems, 3) - float((wins * (wins - 1) / 2).sum())))
    assert kendall_zeta(most, systems) == 0
    assert kendall_zeta(0, systems) == 1


# Shares


def test_one_listener_has_the_interval_of_clopper_and_pearson() -> None:
    found = clustered_share([13], [20])
    plain = stats.binomtest(13, 20).proportion_ci()
    assert (found.low, found.high) == (pytest.approx(plain.low), pytest.approx(plain.high))


def test_listeners_who_always_say_the_same_count_as_one_answer_each() -> None:
    found = clustered_share([10, 0, 10, 0, 10, 0], [10] * 6)
    # Variance between listeners of means 0 and 1: 0.3 / 6 of the mean, five effective answers, less for t.
    factor = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 5)) ** 2
    assert found.effective_n == pytest.approx(5 * factor)
    assert found.low < 0.05 < 0.95 < found.high


@pytest.mark.parametrize("n", [5, 10, 16, 40, 300])
def test_what_can_be_detected_is_detected_four_times_in_five(n: int) -> None:
    critical = next(k for k in range(n + 1) if stats.binomtest(k, n, alternative="greater").pvalue <= 0.05)
    assert stats.binom.sf(critical - 1, n, detectable(n, 0.05)) == pytest.approx(0.8)
    assert math.isnan(detectable(4, 0.05))


# ABX


def test_models_of_abx_against_simulated_listeners() -> None:
    """Their rules of decision, carried out: the likelihood of both orders, and the nearer of the two."""
    g = np.random.default_rng(3)
    n, d = 400_000, 1.7
    # X is B's kind of sound in one half, which of A and B has it is fair.
    first_is_target = g.random(n) < 0.5
    x_is_target = g.random(n) < 0.5
    a = g.standard_normal(n) + d * first_is_target
    b = g.standard_normal(n) + d * ~first_is_target
    x = g.standard_normal(n) + d * x_is_target
    right_is_a = first_is_target == x_is_target
    near = np.abs(x - a) < np.abs(x - b)
    assert (near == right_is_a).mean() == pytest.approx(abx_differencing(d), abs=0.003)

    def likelihood(*means: float) -> np.ndarray:
        return np.exp(-sum((value - mean) ** 2 for value, mean in zip((a, b, x), means, strict=True)) / 2)

    says_a = likelihood(d, 0, d) + likelihood(0, d, 0) > likelihood(d, 0, 0) + likelihood(0, d, d)
    assert (says_a == right_is_a).mean() == pytest.approx(abx_independent(d), abs=0.003)
    assert (a > b)[first_is_target].mean() == pytest.approx(two_alternatives(d), abs=0.005)


def test_published_values_of_d_prime() -> None:
    """Of d' 1: two alternatives 76.0 %, duo-trio, whose rule is that of differencing, 58.2 % (Ennis 1993)."""
    assert two_alternatives(1.0) == pytest.approx(0.760, abs=0.0005)
    assert abx_differencing(1.0) == pytest.approx(0.582, abs=0.0005)
    for model in (two_alternatives, abx_differencing, abx_independent):
        assert d_prime(model(2.3), model) == pytest.approx(2.3)
        assert d_prime(0.5, model) == 0 == d_prime(0.3, model)
        assert d_prime(1.0, model) == math.inf


def test_abx_counts_and_tests() -> None:
    rows = [
        (
            "abx",
            f"L{who}",
            f"i{trial}",
            *(("A", "B") if trial % 2 else ("B", "A")),
            float(trial < right),
            NAN,
            "",
        )
        for who, right in enumerate((10, 9, 5))
        for trial in range(10)
    ]
    found = analyze_detection("abx", table(*rows))
    pair = found.pairs.iloc[0]
    assert (pair["condition"], pair["reference"], pair["n"], pair["right"]) == ("A", "B", 30, 24)
    assert pair["p"] == pytest.approx(stats.binomtest(24, 30, alternative="greater").pvalue)
    exact = [stats.binom.sf(right - 1, 10, 0.5) for right in (10, 9, 5)]
    assert found.listeners["p"].tolist() == pytest.approx(exact)
    # Holm: three times the least, twice the next.
    assert found.listeners["p_holm"].tolist()[:2] == pytest.approx([3 * exact[0], 2 * exact[1]])
    assert pair["listeners_pass"] == 2
    # Who made no error is taken to have made half a one.
    assert found.listeners["d"].iloc[0] == pytest.approx(d_prime(0.95, abx_independent))


def test_neither_is_half_right_and_the_test_rounds_down() -> None:
    answers = ["reference"] * 7 + ["A"] * 2 + ["undecided"] * 3
    rows = [("paired_comparison", "L", f"i{n}", "A", "reference", NAN, NAN, a) for n, a in enumerate(answers)]
    pair = analyze_detection("paired_comparison", table(*rows)).pairs.iloc[0]
    assert (pair["share"], pair["neither"]) == (8.5 / 12, 3)
    assert pair["p"] == pytest.approx(stats.binomtest(8, 12, alternative="greater").pvalue)
    assert pair["d"] == pytest.approx(math.sqrt(2) * stats.norm.ppf(8.5 / 12))


# Grades


def test_interval_for_other_listeners_and_items_of_a_full_table() -> None:
    """In a full table the two-way variance is one of mean squares: (MS of listeners + of items - all) / n."""
    g = np.random.default_rng(1)
    scores = 3 + g.standard_normal((9, 1)) + 1.5 * g.standard_normal((1, 7)) + 0.3 * g.standard_normal((9, 7))
    frame = pd.DataFrame(
        [(f"L{r}", f"i{c}", v) for (r, c), v in np.ndenumerate(scores)], columns=["listener", "item", "score"]
    )
    rows, columns = scores.mean(axis=1).var(ddof=1) / 9, scores.mean(axis=0).var(ddof=1) / 7
    half = stats.t.ppf(0.975, 6) * math.sqrt(rows + columns - scores.var(ddof=1) / scores.size)
    found = both_interval(frame)
    assert (found.low, found.high) == (
        pytest.approx(scores.mean() - half),
        pytest.approx(scores.mean() + half),
    )
    assert "needs 2 listeners" in both_interval(frame[frame["listener"] == "L0"]).reason


def opinions(method: str = "acr", seed: int = 2) -> pd.DataFrame:
    g = np.random.default_rng(seed)
    return table(
        *(
            (
                method,
                f"L{who}",
                f"i{item}",
                name,
                "",
                float(np.clip(round(level + g.standard_normal()), 1, 5)),
                NAN,
                "",
            )
            for who, item, (name, level) in itertools.product(
                range(8), range(6), (("A", 3.2), ("B", 2.8), ("C", 2.5))
            )
        )
    )


def test_opinion_scores_are_means_with_the_mixed_model_between_them() -> None:
    frame = opinions()
    found = analyze_opinions("acr", frame, [], seed=0)
    means = found.screened.means.set_index("condition")
    by_name = frame.groupby("condition")["score"]
    assert means["grand_mean"].to_dict() == pytest.approx(by_name.mean().to_dict())
    plain = stats.t.interval(0.95, 47, by_name.mean()["A"], by_name.sem()["A"])
    assert (means.loc["A", "plain_low"], means.loc["A", "plain_high"]) == pytest.approx(plain)
    wide = frame.pivot(index=["listener", "item"], columns="condition", values="score")
    model = full_table_model(wide.to_numpy().reshape(8, 6, 3).transpose(0, 2, 1), ["A", "B", "C"])
    first = found.screened.primary.contrasts.iloc[0]
    assert first["estimate"] == pytest.approx(model.contrasts["A", "B"].value)
    assert first["p"] == pytest.approx(model.contrasts["A", "B"].p)


def test_gold_questions_and_the_headphone_test_exclude_and_are_not_opinion_scores() -> None:
    frame = opinions()
    traps = table(*(("acr", f"L{who}", "trap", "trap", "", 5.0 if who else 2.0, NAN, "") for who in range(8)))
    frame = pd.concat([frame, traps], ignore_index=True)
    frame.loc[(frame["listener"] == "L3") & (frame["item"] != "trap"), "score"] = 3.0
    found = analyze_opinions(
        "acr", frame, [], seed=0, gold={("trap", "trap"): {"5", "4"}}, headphones={"L1": False, "L2": True}
    )
    assert found.excluded == ("L0", "L1")
    assert "trap" not in found.everybody.ratings.items
    rows = found.listeners.set_index("listener")
    assert (rows.loc["L0", "gold_failed"], rows.loc["L2", "gold_failed"]) == (1, 0)
    assert (rows.loc["L1", "reason"], rows.loc["L2", "headphones"]) == ("headphone test", "passed")
    assert rows.loc["L3", "straight"] and "all scores are 3" in rows.loc["L3", "flags"]
    assert rows.loc["L3", "verdict"] == "stays"
    assert len(found.screened.ratings.listeners) == 6
    kept = analyze_opinions("acr", frame, [], seed=0, gold={("trap", "trap"): {"5"}}, keep={"L0"})
    assert kept.excluded == ()


def test_an_interval_without_width_is_said_to_be_no_proof() -> None:
    def rows(method: str, other: float) -> list[tuple[object, ...]]:
        return [
            (method, who, item, name, "reference", 4.1 if name == "A" else grade, other, "")
            for who, grade in (("L1", 3.1), ("L2", 2.7))
            for item in ("i1", "i2", "i3")
            for name in ("A", "B")
        ]

    for found in (
        analyze_opinions("acr", table(*rows("acr", math.nan)), [], seed=0),
        analyze_bs1116(table(*rows("bs1116", 4.1)), [], seed=0),
    ):
        (note,) = [note for note in found.notes if "width" in note]
        assert note.startswith("All listeners gave the same mean to A: ")


def test_intervals_beyond_the_scale_of_grades_are_named() -> None:
    """Two listeners whose grades lie far apart; a difference grade can be as far above 0 as below."""
    rows = [
        ("acr", who, item, name, "reference", grade, 4.0, "")
        for who, grade in (("L1", 1.5), ("L2", 4.5))
        for item in ("i1", "i2", "i3")
        for name in ("A", "B")
    ]
    acr = analyze_opinions("acr", table(*rows), [], seed=0)
    bs1116 = analyze_bs1116(table(*(("bs1116", *row[1:]) for row in rows)), [], seed=0, keep={"L2"})
    for notes, scale in ((acr.notes, "1 to 5"), (bs1116.notes, "-4 to 4")):
        found = f"intervals of means reach beyond {scale}, where no value can be"
        assert any(found in note for note in notes)
    shown = opinion.section(acr)
    assert shown.figure.cut and "No mean can be beyond 1 to 5" in shown.tables[0].caption
    calm = opinion.section(analyze_opinions("acr", opinions(), [], seed=0))
    assert not calm.figure.cut and "beyond" not in calm.tables[0].caption


def test_experts_are_those_whose_difference_grades_are_below_nought() -> None:
    grades = {"hears": [-1.0, -0.5, -1.2, -0.8, 0.1], "guesses": [-1.0, 1.1, 0.9, -0.7, 0.2]}
    rows = [
        ("bs1116", who, f"i{n}", name, "reference", 5.0 + min(grade, 0), 5.0 - max(grade, 0), "")
        for who, own in grades.items()
        for n, grade in enumerate(own)
        for name in ("A", "B")
    ]
    found = analyze_bs1116(table(*rows), [], seed=0)
    expected = stats.ttest_1samp(grades["hears"] * 2, 0, alternative="less")
    row = found.listeners.set_index("listener").loc["hears"]
    assert (row["statistic"], row["p"]) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    assert row["negative_share"] == 0.8
    assert found.excluded == ("guesses",)
    assert found.screened.means["mean"].tolist() == pytest.approx([np.mean(grades["hears"])] * 2)
    both = np.mean([np.mean(own) for own in grades.values()])
    assert found.everybody.means["mean"].tolist() == pytest.approx([both] * 2)
    nobody = analyze_bs1116(table(*(row for row in rows if row[1] == "guesses")), [], seed=0)
    assert nobody.excluded == () and "nobody is excluded" in nobody.notes[0]
