"""ABX and "which is the reference?": tests whether listeners hear a difference.

Under the null hypothesis that nobody hears a difference each answer of each listener is right with
probability one half, so the binomial tests of all answers and of each listener are exact. Listeners who hear
a difference do not hear it equally well, so the interval of the proportion is over listeners
(`mushra.analysis.methods.shares`).

d' is the distance of the two stimuli in standard deviations of a listener's sensation of one of them
(Macmillan and Creelman, *Detection Theory*, 2nd edition, 2005, for answers without bias):

- ABX, independent observations (chapter 9): p = F(d/sqrt 2) F(d/2) + F(-d/sqrt 2) F(-d/2)
- ABX, differencing (chapter 9): p = F(d/sqrt 2) F(d/sqrt 6) + F(-d/sqrt 2) F(-d/sqrt 6)
- two-alternative forced choice (chapter 7): p = F(d/sqrt 2)

The first is the best an ideal listener can do; the second holds for listeners who compare X with A and B. The
page that asks which of two is the reference also plays the reference. For a listener who knows its sound the
choice is one of two alternatives; for one who compares both with it, the d' is that of ABX by differencing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from evaluation.statistics.recordings import holm
from mushra.analysis import wording
from mushra.analysis.methods.judgements import names
from mushra.analysis.methods.shares import POWER, clustered_share, detectable
from mushra.analysis.methods.tables import (
    Column,
    Marks,
    Section,
    Shown,
    fixed,
    share,
    share_span,
    span,
    text,
    whole,
)
from mushra.analysis.significance import ALPHA
from qincodec.core.errors import count

#: A larger d' cannot be distinguished from an infinite one.
_MOST = 20.0
_COUNTS = ["n", "right", "neither", "share", "p", "p_holm"]
PAIR_COLUMNS = [
    "condition",
    "reference",
    "n_listeners",
    *_COUNTS,
    "ci_low",
    "ci_high",
    "d",
    "d_low",
    "d_high",
]
PAIR_COLUMNS += [
    "d_differencing",
    "d_differencing_low",
    "d_differencing_high",
    "listeners_pass",
    "detectable",
]
LISTENER_COLUMNS = [
    "listener",
    "condition",
    "reference",
    *_COUNTS,
    "d",
    "d_differencing",
    "passes",
    "detectable",
]


@dataclass(frozen=True, eq=False)
class Detections:
    """Results of ABX pages, or of pages that ask which is the reference.

    Attributes:
        method: "abx" or "paired_comparison".
        pairs: one row per pair, all listeners: `PAIR_COLUMNS`. ``p`` is of the exact one-sided binomial test,
            ``p_holm`` over the pairs; ``d`` by independent observations (ABX) or two alternatives.
        listeners: one row per listener and pair: `LISTENER_COLUMNS`; ``p_holm`` over the pair's listeners.
    """

    method: str
    pairs: pd.DataFrame
    listeners: pd.DataFrame


def analyze_detection(method: str, frame: pd.DataFrame) -> Detections:
    """Counts, tests and d' of each pair and of each listener.

    Args:
        method: "abx" or "paired_comparison".
        frame: its rows (`mushra.analysis.methods.judgements`).
    """
    if method == "abx":
        hit = frame["score"].to_numpy(dtype=float)
        # A pair is the same in both orders.
        both = names([*frame["condition"], *frame["reference"]])
        order = {name: place for place, name in enumerate(both)} | {"reference": len(both)}
        swap = frame["condition"].map(order) > frame["reference"].map(order)
    else:
        right, wrong = frame["answer"] == frame["reference"], frame["answer"] == frame["condition"]
        hit = np.select([right, wrong], [1.0, 0.0], 0.5)
        swap = pd.Series(False, frame.index)
    table = pd.DataFrame(
        {
            "listener": frame["listener"],
            "condition": frame["condition"].mask(swap, frame["reference"]),
            "reference": frame["reference"].mask(swap, frame["condition"]),
            "hit": hit,
        }
    )
    pairs, listeners = [], []
    keys = sorted(set(zip(table["condition"], table["reference"], strict=True)))
    ordered = [(a, b) for a in names(table["condition"]) for b in names(table["reference"]) if (a, b) in keys]
    for condition, reference in ordered:
        rows = table[(table["condition"] == condition) & (table["reference"] == reference)]
        pair: dict[str, Any] = {"condition": condition, "reference": reference}
        hits = {str(name): own["hit"].to_numpy() for name, own in rows.groupby("listener")}
        own: list[dict[str, Any]] = [
            {"listener": name, **pair, **_counts(method, hits[name])} for name in names(hits)
        ]
        for row, p in zip(own, holm([float(row["p"]) for row in own]), strict=True):
            row |= {"p_holm": p, "passes": p < ALPHA}
        listeners += own
        found = clustered_share([row["n"] * row["share"] for row in own], [row["n"] for row in own])
        pairs.append(
            {
                **pair,
                "n_listeners": len(own),
                **_counts(method, rows["hit"].to_numpy()),
                "ci_low": found.low,
                "ci_high": found.high,
                **_d_prime(method, found.low, "_low"),
                **_d_prime(method, found.high, "_high"),
                "listeners_pass": sum(row["passes"] for row in own),
            }
        )
    table_of_pairs = pd.DataFrame(pairs, columns=PAIR_COLUMNS)
    table_of_pairs["p_holm"] = holm(table_of_pairs["p"].astype(float).tolist())
    return Detections(method, table_of_pairs, pd.DataFrame(listeners, columns=LISTENER_COLUMNS))


def _counts(method: str, hits: np.ndarray) -> dict[str, Any]:
    n, right = len(hits), float(hits.sum())
    p = float(stats.binomtest(math.floor(right), n, alternative="greater").pvalue)
    # d' of a listener who was always right would be infinite: half an error is assumed (Macmillan and Kaplan
    # 1985).
    value = right / n
    return {
        "n": n,
        "right": int((hits == 1).sum()),
        "neither": int((hits == 0.5).sum()),
        "share": value,
        "p": p,
        **_d_prime(method, min(value, 1 - 0.5 / n)),
        "detectable": detectable(n, ALPHA),
    }


def _d_prime(method: str, p: float, end: str = "") -> dict[str, float]:
    models = (abx_independent, abx_differencing) if method == "abx" else (two_alternatives, abx_differencing)
    return {f"d{end}": d_prime(p, models[0]), f"d_differencing{end}": d_prime(p, models[1])}


def abx_independent(d: float) -> float:
    """Proportion of right ABX answers of a listener with three independent observations, without bias."""
    return _both(d / math.sqrt(2), d / 2)


def abx_differencing(d: float) -> float:
    """Proportion of right ABX answers of a listener who chooses the signal nearer to X, without bias."""
    return _both(d / math.sqrt(2), d / math.sqrt(6))


def two_alternatives(d: float) -> float:
    """Proportion of right answers in two-alternative forced choice, without bias."""
    return float(stats.norm.cdf(d / math.sqrt(2)))


def _both(x: float, y: float) -> float:
    return float(stats.norm.cdf(x) * stats.norm.cdf(y) + stats.norm.cdf(-x) * stats.norm.cdf(-y))


def d_prime(p: float, model: Callable[[float], float]) -> float:
    """d' of a proportion of right answers: 0 at one half and below, infinite at 1.

    Args:
        model: `abx_independent`, `abx_differencing` or `two_alternatives`.
    """
    if math.isnan(p):
        return math.nan
    if p <= 0.5:
        return 0.0
    if p >= model(_MOST):
        return math.inf
    return float(optimize.brentq(lambda d: model(d) - p, 0.0, _MOST, xtol=1e-10))


# Report

_NAMES = {
    "abx": (
        "ABX: is a difference heard?",
        "independent",
        "said which of two signals X was",
    ),
    "paired_comparison": (
        "Paired comparison: which is the reference?",
        "2AFC",
        "said which of two signals was the reference, which they could also play",
    ),
}

_MODELS = {
    "abx": "independent observations of A, B and X",
    "paired_comparison": "two-alternative forced choice (2AFC) of a listener who knows the reference",
}


def section(result: Detections) -> Section:
    title, model, task = _NAMES[result.method]
    pairs, listeners = result.pairs, result.listeners
    neither = int(pairs["neither"].sum())
    n = listeners["listener"].nunique()
    found = int((pairs["p_holm"] < ALPHA).sum())
    paragraph = (
        f"{count(n, 'listener')} {task}, {count(int(pairs['n'].sum()), 'answer')} in all. An exact one-sided "
        "binomial test against one half of all answers of a pair, and of each listener's, shows whether a "
        "difference is heard; p is corrected after Holm. A difference is heard in "
        f"{found} of {count(len(pairs), 'pair')}. The 95 % interval of the share is over listeners (Korn and "
        "Graubard 1998); it holds for other listeners and the same items. d' is given for two models "
        "(Macmillan and Creelman 2005): "
        f"{_MODELS[result.method]}, and differencing. "
    )
    if neither:
        paragraph += (
            f"{count(neither, 'answer')} named neither and {'counts' if neither == 1 else 'count'} as half "
            "right; the tests round down. "
        )
    paragraph += (
        "If no difference was found, a small one may have been missed: see the smallest share that a test of "
        f"so many answers finds with {100 * POWER:g} % power, and the upper end of the interval."
    )

    def counted(of: str) -> list[Column]:
        return [
            ("answers", text("n")),
            ("right", text("right")),
            *([("neither", text("neither"))] if neither else []),
            ("share", share("share")),
            *([("95 % interval", share_span("ci_low", "ci_high"))] if of == "pairs" else []),
            ("p", lambda row: wording.p_value(row["p"])),
            ("Holm", lambda row: wording.p_value(row["p_holm"])),
            (f"d', {model}", fixed("d")),
            *([("95 % interval", span("d_low", "d_high"))] if of == "pairs" else []),
            ("d', differencing", fixed("d_differencing")),
        ]

    pair: list[Column] = [("condition", text("condition")), ("against", text("reference"))]
    tables = (
        Shown(
            "pairs",
            "All listeners: right answers, and the exact one-sided binomial test.",
            pairs,
            [
                *pair,
                ("listeners", text("n_listeners")),
                *counted("pairs"),
                ("listeners who pass", whole("listeners_pass")),
                ("detectable share", share("detectable")),
            ],
            num_names=2,
        ),
        Shown(
            "listeners",
            "Each listener; passes: the binomial test at 5 % after Holm over the listeners of a pair.",
            listeners,
            [
                ("listener", text("listener")),
                *pair,
                *counted("listeners"),
                ("passes", lambda row: "yes" if row["passes"] else ""),
                ("detectable share", share("detectable")),
            ],
            num_names=3,
            marked="passes",
        ),
    )
    points = tuple(
        (_label(row), 100 * row["share"], 100 * row["ci_low"], 100 * row["ci_high"])
        for row in pairs.to_dict("records")
    )
    figure = Marks(points, "right (%)", (0, 100), 50.0)
    notes = []
    few = listeners.groupby("listener")["n"].max()
    if (few < 5).any():
        notes.append(
            "A listener with fewer than 5 answers to a pair cannot pass at 5 %: all right has a probability "
            f"of {0.5 ** int(few.min()):.3g} by guessing."
        )
    return Section(result.method, title, (paragraph,), tuple(notes), tables, figure)


def _label(row: dict[Hashable, Any]) -> str:
    return (
        str(row["condition"])
        if row["reference"] == "reference"
        else f"{row['condition']} / {row['reference']}"
    )
