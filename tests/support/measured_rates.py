"""How often the analysis errs: simulated listening tests in which the truth is known.

Five systems; in all but the mixed levels they are equal. Items fixed: the same effects of items in every
test, of one sum for all systems. Items drawn: new ones in every test. Items alike: without effects. Clipped:
levels at an end of the scale. Unequal spread: listeners and items agree on some systems more than on others.

    python tests/support/measured_rates.py 300     # prints the tables of docs/explanation/statistics.md
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from synthetic_ratings import simulate, tidy

from evaluation.statistics.recordings import Sample, bootstrap_means, holm
from mushra.analysis.anova import rm_anova
from mushra.analysis.description import crossed_interval, t_interval
from mushra.analysis.freedom import Estimate
from mushra.analysis.mixed import mixed_model
from mushra.analysis.primary import primary_analysis
from mushra.analysis.ratings import with_roles
from mushra.analysis.significance import (
    friedman_test,
    hochberg,
    permutation_test,
    wilcoxon_test,
)

SYSTEMS = list("ABCDE")
ITEMS = 8
MARGIN = 5.0
#: Standard deviations: listener, listener:item, listener:condition, residual, item:condition.
SPREAD = {"sd_listener": 6.0, "sd_listener_item": 4.0, "sd_listener_condition": 5.0, "sd_rest": 8.0}
SD_ITEMS = 5.0
#: (systems, 1) of 5 on average.
UNEQUAL = np.array([[2.0], [3], [4], [6], [8.0]])


@dataclass(frozen=True)
class Design:
    """One kind of test.

    Attributes:
        means: of the latent scores; empty for equal ones.
        half: a listener rates half of the items only.
        alike: without any effect of items.
        unequal: listener:condition and item:condition vary with the system.
    """

    listeners: int
    drawn: bool
    clipped: bool
    means: tuple[float, ...] = ()
    half: bool = False
    alike: bool = False
    unequal: bool = False

    @property
    def levels(self) -> tuple[float, ...]:
        return self.means or ((92.0,) if self.clipped else (60.0,)) * len(SYSTEMS)

    @property
    def words(self) -> str:
        items = "items drawn" if self.drawn else "items alike" if self.alike else "items fixed"
        parts = [items, "clipped" if self.clipped else "unclipped"]
        parts += ["levels " + ", ".join(f"{m:g}" for m in self.means)] * bool(self.means)
        parts += ["half of the items each"] * self.half + ["unequal spread"] * self.unequal
        return "; ".join(parts)

    def scores(self, seed: int) -> np.ndarray:
        spread: dict[str, Any] = dict(SPREAD)
        if self.drawn:
            spread["sd_item_condition"] = SD_ITEMS
        elif not self.alike:
            spread["item_effects"] = _fixed_effects()
        if self.unequal:
            spread |= {"sd_item_condition": UNEQUAL, "sd_listener_condition": UNEQUAL}
        scores = simulate(seed, means=self.levels, listeners=self.listeners, items=ITEMS, **spread)
        if self.half:
            there = (np.arange(self.listeners)[:, None] + np.arange(ITEMS)) % 4 < 2
            scores[~np.broadcast_to(there[:, None, :], scores.shape)] = np.nan
        return np.clip(scores, 0, 100) if self.clipped else scores

    def truth(self) -> np.ndarray:
        """(systems, items) expected scores of the fixed items; (systems, 1) over all that could be drawn."""
        variance = sum(sd**2 for sd in SPREAD.values()) + SD_ITEMS**2 * self.drawn
        effects = np.zeros((len(SYSTEMS), 1)) if self.drawn or self.alike else _fixed_effects()
        latent = np.array(self.levels)[:, None] + effects
        if not self.clipped:
            return np.asarray(np.broadcast_to(latent, (len(SYSTEMS), 1 if self.drawn else ITEMS)))
        sd = variance**0.5
        # The mean of a normal variable that is clipped to 0 to 100.
        low, high = -latent / sd, (100 - latent) / sd
        inside = latent * (stats.norm.cdf(high) - stats.norm.cdf(low))
        inside += sd * (stats.norm.pdf(low) - stats.norm.pdf(high))
        expected = inside + 100 * stats.norm.sf(high)
        return np.asarray(np.broadcast_to(expected, (len(SYSTEMS), 1 if self.drawn else ITEMS)))


def _fixed_effects() -> np.ndarray:
    """(systems, items): the same effects on other items for each system: equal ones stay equal if clipped."""
    values = SD_ITEMS * stats.norm.ppf((np.arange(ITEMS) + 0.5) / ITEMS)
    g = np.random.default_rng(0)
    return np.stack([g.permutation(values) for _ in SYSTEMS])


DESIGNS = [
    Design(listeners, drawn, clipped)
    for drawn, clipped, listeners in itertools.product((False, True), (False, True), (8, 15, 30))
]
MIXED_LEVELS = [Design(n, True, True, (104.0, 104.0, 92.0, 60.0, 60.0)) for n in (8, 30)]
ALIKE = [Design(n, False, clipped, alike=True) for clipped, n in ((False, 8), (False, 30), (True, 15))]
UNEQUAL_SPREAD = [Design(n, True, False, unequal=True) for n in (8, 30)]
INCOMPLETE = [Design(n, True, clipped, half=True) for clipped, n in ((False, 8), (False, 30), (True, 15))]
INCOMPLETE += [replace(design, half=True) for design in MIXED_LEVELS]


class _Rates:
    """Shares of events by name."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.of: Counter[str] = Counter()

    def count(self, name: str, *events: bool) -> None:
        self.counts[name] += sum(events)
        self.of[name] += len(events)

    def held(self, name: str, interval: tuple[float, float], value: float) -> None:
        self.count(name, interval[0] <= value <= interval[1])

    def shares(self) -> dict[str, float]:
        return {name: self.counts[name] / self.of[name] for name in self.of}


def measure(design: Design, num_tests: int) -> dict[str, float]:
    """Shares of ``num_tests`` simulated tests; of intervals, shares of those that hold the truth."""
    rates = _Rates()
    truth = design.truth()
    for seed in range(num_tests):
        scores = design.scores(seed)
        _primary(rates, design, scores, truth.mean(axis=1))
        if not design.half:
            _beside(rates, design, scores, truth, seed)
    return rates.shares()


def _primary(rates: _Rates, design: Design, scores: np.ndarray, truth: np.ndarray) -> None:
    frame = tidy(scores)
    ratings = with_roles(frame.assign(score=lambda table: np.clip(table["score"], 0, 100)))
    # The scale's bounds are checked where ratings enter, not in the analysis.
    ratings = replace(ratings, frame=frame)
    mixed = mixed_model(frame, SYSTEMS)
    primary = primary_analysis(ratings, mixed, MARGIN)
    place = {name: number for number, name in enumerate(SYSTEMS)}
    false = []
    for row in primary.contrasts.to_dict("records"):
        a, b = place[row["a"]], place[row["b"]]
        difference = truth[a] - truth[b]
        rates.held("interval of a difference", (row["ci_low"], row["ci_high"]), difference)
        if design.levels[a] == design.levels[b]:
            false.append(row["p_holm"] < 0.05)
        error = (row["ci_high"] - row["estimate"]) / stats.t.ppf(0.975, row["df"])
        shifted = Estimate(row["estimate"] - difference + MARGIN, error, row["df"])
        rates.count("equivalence at the margin", shifted.p_equivalence(MARGIN) < 0.05)
    rates.count("letters", any(false))
    for row in primary.means.to_dict("records"):
        rates.held("interval of a mean", (row["ci_low"], row["ci_high"]), truth[place[row["condition"]]])
    if len(set(design.levels)) == 1:
        rates.count("mixed model", mixed.p < 0.05)
        if mixed.kenward_roger is not None:
            rates.count("Kenward-Roger", mixed.kenward_roger.p < 0.05)


def _beside(rates: _Rates, design: Design, scores: np.ndarray, truth: np.ndarray, seed: int) -> None:
    means, expected = scores.mean(axis=2), truth.mean(axis=1)
    listeners = np.array([f"L{number:02d}" for number in range(design.listeners)])
    resampled = bootstrap_means([Sample(listeners, m) for m in means.T], seed=seed, num_resamples=1000)
    for number, bootstrap in enumerate(resampled):
        student, crossed = t_interval(means[:, number]), crossed_interval(scores[:, number])
        for name, found in (("Student's", student), ("bootstrap", bootstrap), ("crossed", crossed)):
            rates.held(f"{name} interval", (found.low, found.high), expected[number])
        for item in range(0 if design.drawn else ITEMS):
            student = t_interval(scores[:, number, item])
            rates.held("Student's interval of an item", (student.low, student.high), truth[number, item])
    pages = pd.DataFrame(
        {"listener": np.repeat(listeners, ITEMS), "item": np.tile(range(ITEMS), len(listeners))}
    )
    tests, equal = [], []
    for a, b in itertools.combinations(range(len(SYSTEMS)), 2):
        pair = pages.assign(a=scores[:, a].ravel(), b=scores[:, b].ravel())
        tests.append(wilcoxon_test(pair))
        equal.append(design.levels[a] == design.levels[b])
        interval = (tests[-1].ci_low, tests[-1].ci_high)
        rates.held("Student's interval of a difference", interval, expected[a] - expected[b])
        if equal[-1] and sum(equal) == 1:
            exchanged = permutation_test(pair, seed=seed, num_permutations=1000)
            rates.count("permutation, one pair", exchanged.p < 0.05)
    for name, correct in (("Wilcoxon", holm), ("Wilcoxon, Hochberg", hochberg)):
        adjusted = correct([test.p for test in tests])
        rates.count(name, any(p < 0.05 for p, same in zip(adjusted, equal, strict=True) if same))
    if not all(equal):
        return
    frame = tidy(scores)
    rates.count("Friedman", friedman_test(frame, SYSTEMS).p < 0.05)
    anova = rm_anova(frame, SYSTEMS).set_index("effect")
    for name, p in (("ANOVA", "p"), ("Greenhouse-Geisser", "p_gg"), ("Huynh-Feldt", "p_hf")):
        rates.count(name, anova.loc["condition", p] < 0.05)
    if design.alike:
        rates.count("Huynh-Feldt, item", anova.loc["item", "p_hf"] < 0.05)
        rates.count("Huynh-Feldt, system:item", anova.loc["condition:item", "p_hf"] < 0.05)


#: Columns of the two tables: false positives, and coverages.
PRIMARY = (
    ["letters", "mixed model", "Kenward-Roger", "equivalence at the margin"],
    ["interval of a difference", "interval of a mean"],
)
_RANKS = ["Wilcoxon", "Wilcoxon, Hochberg", "permutation, one pair", "Friedman"]
_ANOVA = ["ANOVA", "Greenhouse-Geisser", "Huynh-Feldt", "Huynh-Feldt, item", "Huynh-Feldt, system:item"]
_STUDENT = [f"Student's interval{of}" for of in ("", " of a difference", " of an item")]
BESIDE = ([*_RANKS, *_ANOVA], ["crossed interval", "bootstrap interval", *_STUDENT])
FALSE, COVERAGE = PRIMARY[0] + BESIDE[0], PRIMARY[1] + BESIDE[1]
ALL_DESIGNS = [*DESIGNS, *ALIKE, *MIXED_LEVELS, *UNEQUAL_SPREAD, *INCOMPLETE]


def main(num_tests: int) -> None:
    found = []
    for design in ALL_DESIGNS:
        found.append(measure(design, num_tests))
        print(design.words, design.listeners, found[-1], file=sys.stderr, flush=True)
    for false, coverage in (PRIMARY, BESIDE):
        columns = false + coverage
        print("| test | listeners | " + " | ".join(columns) + " |")
        print("|---|---|" + "---|" * len(columns))
        for design, rates in zip(ALL_DESIGNS, found, strict=True):
            if any(name in rates for name in columns):
                cells = [f"{100 * rates[name]:.1f}" if name in rates else "" for name in columns]
                print(f"| {design.words} | {design.listeners} | " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    main(int(sys.argv[1]))
