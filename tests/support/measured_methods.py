"""How often the analysis of BS.1116, AB, ABX, ACR and DCR errs: simulated tests in which the truth is known.

python tests/support/measured_methods.py 1000     # prints the tables of docs/explanation/statistics.md
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

from evaluation.statistics.bootstrap import expanded_tail
from mushra.analysis.methods.bs1116 import analyze_bs1116
from mushra.analysis.methods.detection import abx_independent, analyze_detection
from mushra.analysis.methods.judgements import COLUMNS
from mushra.analysis.methods.opinion import analyze_opinions
from mushra.analysis.methods.preference import analyze_preferences, bradley_terry, oriented

LISTENERS = (8, 15, 30)
Events = Iterator[tuple[str, Any]]


def rates(events: Iterator[Events]) -> dict[str, float]:
    """Share of each event over all tests."""
    happened: Counter[str] = Counter()
    of: Counter[str] = Counter()
    for test in events:
        for name, true in test:
            happened[name] += bool(true)
            of[name] += 1
    return {name: happened[name] / of[name] for name in of}


def table(rows: Sequence[tuple[object, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS))


def measure(method: str, listeners: int, num_tests: int, **how: object) -> dict[str, float]:
    """Rates of one kind of test."""
    simulate: dict[str, Callable[..., Events]] = {
        "ab": _preferences,
        "abx": _abx,
        "acr": _opinions,
        "bs1116": _difference_grades,
    }
    return rates(
        simulate[method](np.random.default_rng([seed, listeners]), listeners, **how)
        for seed in range(num_tests)
    )


# AB: listeners differ in what they like

LIKED = (0.0, 0.3, 0.6, 1.2)
SD_LIKED = 0.6


@cache
def _true_pairs(means: tuple[float, ...], sd: float) -> dict[tuple[int, int], float]:
    """Probability that a listener who is drawn anew prefers a to b."""
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    pairs = itertools.combinations(range(len(means)), 2)
    return {(a, b): float(weights @ expit(means[a] - means[b] + 2**0.5 * sd * points)) for a, b in pairs}


def _preferences(
    g: np.random.Generator,
    listeners: int,
    *,
    means: tuple[float, ...] = LIKED,
    sd: float = SD_LIKED,
    items: int = 6,
    resamples: int = 0,
) -> Events:
    liked = np.array(means) + sd * g.standard_normal((listeners, len(means)))
    rows = []
    for who, own in enumerate(liked):
        for a, b in itertools.combinations(range(len(means)), 2):
            for item in range(items):
                tie = g.random() < 0.1
                answer = "" if tie else str(a if g.random() < expit(own[a] - own[b]) else b)
                rows.append(("ab", f"L{who}", f"i{item}", str(a), str(b), np.nan, np.nan, answer))
    found = analyze_preferences(table(rows))
    # A tenth of the answers is half a win of each.
    true = {pair: 0.05 + 0.9 * p for pair, p in _true_pairs(means, sd).items()}
    strengths = _true_strengths(means, sd)
    if not found.reason:
        for row, value in zip(found.strengths.to_dict("records"), strengths, strict=True):
            yield "interval of a strength", row["ci_low"] <= value <= row["ci_high"]
        for row in found.pairs.to_dict("records"):
            model = expit(strengths[int(row["a"])] - strengths[int(row["b"])])
            yield "interval after the model", row["model_low"] <= model <= row["model_high"]
        if resamples:
            yield from _bootstrapped(g, table(rows), strengths, resamples)
    for row in found.pairs.to_dict("records"):
        value = true[int(row["a"]), int(row["b"])]
        yield "interval of a share", row["ci_low"] <= value <= row["ci_high"]
    if len(set(means)) == 1:
        yield "letters", (found.pairs["model_p_holm"] < 0.05).any()
        yield "sign test", (found.pairs["sign_p_holm"] < 0.05).any()
        yield "fit, independent", found.fit.p < 0.05
        yield "fit, clustered", found.fit.p_clustered < 0.05


@cache
def _true_strengths(means: tuple[float, ...], sd: float) -> np.ndarray:
    """Strengths that fit these probabilities best, a tenth of the answers ties."""
    rows = [
        (listener, str(a), str(b), 0.05 + 0.9 * p)
        for listener in ("x", "y")
        for (a, b), p in _true_pairs(means, sd).items()
    ]
    frame = pd.DataFrame(rows, columns=["listener", "a", "b", "win"])
    return bradley_terry(frame, [str(number) for number in range(len(means))])[0]


def _bootstrapped(
    g: np.random.Generator, frame: pd.DataFrame, strengths: np.ndarray, resamples: int
) -> Events:
    """What expanded percentiles of a bootstrap over listeners would cover instead."""
    whose = [rows for _, rows in oriented(frame).groupby("listener")]
    systems = [str(number) for number in range(len(strengths))]
    draws = []
    for _ in range(resamples):
        drawn = g.integers(len(whose), size=len(whose))
        again = [whose[place].assign(listener=str(number)) for number, place in enumerate(drawn)]
        draws.append(bradley_terry(pd.concat(again, ignore_index=True), systems)[0])
    tail = expanded_tail(len(whose))
    low, high = np.quantile(np.array(draws), [tail, 1 - tail], axis=0)
    for number, value in enumerate(strengths):
        yield "bootstrap of a strength", low[number] <= value <= high[number]


# ABX: listeners differ in what they hear


def _abx(g: np.random.Generator, listeners: int, *, d: float = 1.0, trials: int = 16) -> Events:
    # Half of what a listener hears is the same for all; log-normal with a mean of d.
    own = d * np.exp(0.6 * g.standard_normal(listeners) - 0.18) if d else np.zeros(listeners)
    rows = [
        ("abx", f"L{who}", "i", "A", "B", float(g.random() < p), np.nan, "")
        for who, p in enumerate(map(abx_independent, own))
        for _ in range(trials)
    ]
    found = analyze_detection("abx", table(rows))
    pair = found.pairs.iloc[0]
    yield "interval of the share", pair["ci_low"] <= _true_share(d) <= pair["ci_high"]
    successes, n = round(pair["share"] * pair["n"]), int(pair["n"])
    plain = stats.binomtest(successes, n).proportion_ci(method="wilson")
    yield "Wilson, all independent", plain.low <= _true_share(d) <= plain.high
    if not d:
        yield "binomial test, pooled", pair["p"] < 0.05
        yield "any listener passes", pair["listeners_pass"] > 0


@cache
def _true_share(d: float) -> float:
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    own = d * np.exp(0.6 * points - 0.18)
    return float(weights @ [abx_independent(one) for one in own] / weights.sum())


# ACR: listeners and items are drawn

SPREAD = {"listener": 0.5, "item": 0.3, "listener:condition": 0.25, "item:condition": 0.3, "rest": 0.6}


def _latent(g: np.random.Generator, listeners: int, items: int, means: tuple[float, ...]) -> np.ndarray:
    """(listeners, conditions, items)."""
    c = len(means)
    scores = np.array(means)[None, :, None] + SPREAD["listener"] * g.standard_normal((listeners, 1, 1))
    scores = scores + SPREAD["item"] * g.standard_normal((1, 1, items))
    scores = scores + SPREAD["listener:condition"] * g.standard_normal((listeners, c, 1))
    scores = scores + SPREAD["item:condition"] * g.standard_normal((1, c, items))
    return np.asarray(scores + SPREAD["rest"] * g.standard_normal((listeners, c, items)))


def _true_score(mean: float) -> float:
    """Mean of a normal variable that is rounded to 1 to 5."""
    sd = sum(value**2 for value in SPREAD.values()) ** 0.5
    edges = stats.norm.cdf((np.array([1.5, 2.5, 3.5, 4.5]) - mean) / sd)
    return float(5 - edges.sum())


def _opinions(
    g: np.random.Generator,
    listeners: int,
    *,
    items: int = 12,
    means: tuple[float, ...] = (3.0, 3.0, 3.0, 3.0),
    share: float = 1.0,
) -> Events:
    scores = np.clip(np.rint(_latent(g, listeners, items, means)), 1, 5)
    there = np.broadcast_to((g.random((listeners, 1, items)) < share), scores.shape)
    rows = [
        ("acr", f"L{who}", f"i{item}", "ABCD"[c], "", scores[who, c, item], np.nan, "")
        for who, c, item in zip(*np.nonzero(there), strict=True)
    ]
    found = analyze_opinions("acr", table(rows), [], seed=0, num_resamples=100).screened
    for row in found.means.to_dict("records"):
        true = _true_score(means["ABCD".index(row["condition"])])
        for kind in ("both", "t", "item", "plain"):
            yield f"{kind} interval", row[f"{kind}_low"] <= true <= row[f"{kind}_high"]
    for row in found.primary.contrasts.to_dict("records"):
        true_a, true_b = (_true_score(means["ABCD".index(row[name])]) for name in "ab")
        difference = true_a - true_b
        yield "interval of a difference", row["ci_low"] <= difference <= row["ci_high"]
    if len(set(means)) == 1:
        yield "letters", (found.primary.contrasts["p_holm"] < 0.05).any()


# BS.1116: listeners who hear, and some who guess


def _difference_grades(
    g: np.random.Generator,
    listeners: int,
    *,
    impairment: float = 0.6,
    guessers: float = 0.0,
    items: int = 8,
) -> Events:
    """Three equal systems. Who does not hear the difference takes either signal for the reference."""
    guesses = np.arange(listeners) < round(guessers * listeners)
    own = impairment * np.exp(0.4 * g.standard_normal(listeners) - 0.08)
    grade = own[:, None, None] + 0.3 * g.standard_normal((listeners, 3, items))
    grade = np.where(guesses[:, None, None], np.abs(0.7 * g.standard_normal(grade.shape)), grade)
    wrong = np.where(guesses[:, None, None], g.random(grade.shape) < 0.5, grade < 0)
    size = np.clip(np.round(np.abs(grade), 1), 0, 4)
    rows = [
        (
            "bs1116",
            f"L{who}",
            f"i{item}",
            "ABC"[c],
            "reference",
            *_graded(float(size[who, c, item]), bool(wrong[who, c, item])),
            "",
        )
        for who, c, item in np.ndindex(*size.shape)
    ]
    found = analyze_bs1116(table(rows), [], seed=0, num_resamples=100)
    # Of who hears: the mean of -grade, whichever signal got it.
    true = -impairment
    for name, grades in (("screened", found.screened), ("everybody", found.everybody)):
        for row in grades.means.to_dict("records"):
            yield f"interval, {name}", row["t_low"] <= true <= row["t_high"]
    for row in found.listeners.to_dict("records"):
        number = int(row["listener"][1:])
        yield "guesser stays" if guesses[number] else "expert stays", row["verdict"] == "expert"
    yield "letters", (found.screened.primary.contrasts["p_holm"] < 0.05).any()


def _graded(size: float, wrong: bool) -> tuple[float, float]:
    """Grades of the condition and of the hidden reference."""
    return (5.0, 5.0 - size) if wrong else (5.0 - size, 5.0)


#: (title, method, settings): the rows of `docs/explanation/statistics.md`.
DESIGNS: list[tuple[str, str, dict[str, object]]] = [
    ("BS.1116, all hear the impairment", "bs1116", {}),
    ("BS.1116, a quarter guesses", "bs1116", {"guessers": 0.25}),
    ("AB, four systems", "ab", {}),
    ("AB, four equal systems", "ab", {"means": (0.0, 0.0, 0.0, 0.0)}),
    ("AB, four equal systems, one item", "ab", {"means": (0.0, 0.0, 0.0, 0.0), "items": 1}),
    ("ABX, nobody hears", "abx", {"d": 0.0}),
    ("ABX, d' 1", "abx", {"d": 1.0}),
    ("ABX, d' 3", "abx", {"d": 3.0}),
    ("ACR, four equal systems", "acr", {}),
    ("ACR, near the top", "acr", {"means": (4.5, 4.5, 4.0, 3.0)}),
    ("ACR, half of the items each", "acr", {"share": 0.5}),
]


def main(num_tests: int) -> None:
    for method, designs in itertools.groupby(DESIGNS, key=lambda design: design[1]):
        found = [
            (title, listeners, measure(method, listeners, num_tests, **how))
            for title, _, how in designs
            for listeners in LISTENERS
        ]
        names = list(dict.fromkeys(name for *_, rate in found for name in rate))
        print(
            "\n| test | listeners | " + " | ".join(names) + " |\n|---" * 1 + "|---" * (len(names) + 1) + "|"
        )
        for title, listeners, rate in found:
            cells = [f"{100 * rate[name]:.1f}" if name in rate else "" for name in names]
            print(f"| {title} | {listeners} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
