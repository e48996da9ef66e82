"""How often the analysis errs: simulated listening tests in which the truth is known.

Five systems; in all but the mixed levels they are equal. Items fixed: the same effects of items in every
test, of one sum for all systems. Items drawn: new ones in every test. Clipped: levels at an end of the scale.

    python tests/support/measured_rates.py 300     # prints the table of docs/statistics.md
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from synthetic_ratings import simulate, tidy

from evaluation.statistics.recordings import holm
from mushra.analysis.anova import rm_anova
from mushra.analysis.description import crossed_interval, t_interval
from mushra.analysis.freedom import Estimate
from mushra.analysis.mixed import mixed_model
from mushra.analysis.primary import primary_analysis
from mushra.analysis.ratings import with_roles
from mushra.analysis.significance import friedman_test, paired_pages, wilcoxon_test

SYSTEMS = list("ABCDE")
ITEMS = 8
MARGIN = 5.0
#: Standard deviations: listener, listener:item, listener:condition, residual, item:condition.
SPREAD = {"sd_listener": 6.0, "sd_listener_item": 4.0, "sd_listener_condition": 5.0, "sd_rest": 8.0}
SD_ITEMS = 5.0


@dataclass(frozen=True)
class Design:
    """One kind of test: ``means`` of the latent scores; ``half``: a listener rates half of the items only."""

    listeners: int
    drawn: bool
    clipped: bool
    means: tuple[float, ...] = ()
    half: bool = False

    @property
    def levels(self) -> tuple[float, ...]:
        return self.means or ((92.0,) if self.clipped else (60.0,)) * len(SYSTEMS)

    @property
    def words(self) -> str:
        parts = ["items drawn" if self.drawn else "items fixed", "clipped" if self.clipped else "unclipped"]
        parts += ["levels " + ", ".join(f"{m:g}" for m in self.means)] * bool(self.means)
        parts += ["half of the items each"] * self.half
        return "; ".join(parts)

    def scores(self, seed: int) -> np.ndarray:
        drawn = {"sd_item_condition": SD_ITEMS} if self.drawn else {"item_effects": _fixed_effects()}
        scores = simulate(seed, means=self.levels, listeners=self.listeners, items=ITEMS, **SPREAD, **drawn)  # type: ignore[arg-type]
        if self.half:
            there = (np.arange(self.listeners)[:, None] + np.arange(ITEMS)) % 4 < 2
            scores[~np.broadcast_to(there[:, None, :], scores.shape)] = np.nan
        return np.clip(scores, 0, 100) if self.clipped else scores

    def truth(self) -> np.ndarray:
        """(systems,) expected scores, over the fixed items or over all that could be drawn."""
        variance = sum(sd**2 for sd in SPREAD.values()) + SD_ITEMS**2 * self.drawn
        effects = np.zeros((len(SYSTEMS), 1)) if self.drawn else _fixed_effects()
        latent = np.array(self.levels)[:, None] + effects
        if not self.clipped:
            return np.asarray(latent.mean(axis=1))
        sd = variance**0.5
        # The mean of a normal variable that is clipped to 0 to 100.
        low, high = -latent / sd, (100 - latent) / sd
        inside = latent * (stats.norm.cdf(high) - stats.norm.cdf(low))
        inside += sd * (stats.norm.pdf(low) - stats.norm.pdf(high))
        return np.asarray((inside + 100 * stats.norm.sf(high)).mean(axis=1))


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
INCOMPLETE = [Design(n, True, clipped, half=True) for clipped, n in ((False, 8), (False, 30), (True, 15))]


def measure(design: Design, num_tests: int) -> dict[str, float]:
    """Shares of ``num_tests`` simulated tests; of intervals, shares of those that hold the truth."""
    counts: Counter[str] = Counter()
    of: Counter[str] = Counter()

    def count(name: str, *events: bool) -> None:
        counts[name] += sum(events)
        of[name] += len(events)

    truth = design.truth()
    place = {name: number for number, name in enumerate(SYSTEMS)}
    all_equal = len(set(design.levels)) == 1
    for seed in range(num_tests):
        scores = design.scores(seed)
        ratings = with_roles(tidy(scores).assign(score=lambda table: np.clip(table["score"], 0, 100)))
        if not design.clipped:  # the scale's bounds are checked where ratings enter, not in the analysis
            ratings = replace(ratings, frame=tidy(scores))
        mixed = mixed_model(ratings.frame, SYSTEMS)
        primary = primary_analysis(ratings, mixed, MARGIN)
        false = []
        for row in primary.contrasts.to_dict("records"):
            difference = truth[place[row["a"]]] - truth[place[row["b"]]]
            count("interval of a difference", row["ci_low"] <= difference <= row["ci_high"])
            if design.levels[place[row["a"]]] == design.levels[place[row["b"]]]:
                false.append(row["p_holm"] < 0.05)
            error = (row["ci_high"] - row["estimate"]) / stats.t.ppf(0.975, row["df"])
            shifted = Estimate(row["estimate"] - difference + MARGIN, error, row["df"])
            count("equivalence at the margin", shifted.p_equivalence(MARGIN) < 0.05)
        count("letters", any(false))
        for row in primary.means.to_dict("records"):
            count("interval of a mean", row["ci_low"] <= truth[place[row["condition"]]] <= row["ci_high"])
        if not design.half:
            for number in range(len(SYSTEMS)):
                student, crossed = (
                    t_interval(scores[:, number].mean(axis=1)),
                    crossed_interval(scores[:, number]),
                )
                count("Student's interval", student.low <= truth[number] <= student.high)
                count("crossed interval", crossed.low <= truth[number] <= crossed.high)
            wilcoxon = [
                wilcoxon_test(paired_pages(ratings.frame, a, b)).p
                for a, b in itertools.combinations(SYSTEMS, 2)
            ]
            equal = [
                design.levels[place[a]] == design.levels[place[b]]
                for a, b in itertools.combinations(SYSTEMS, 2)
            ]
            count("Wilcoxon", any(p < 0.05 for p, same in zip(holm(wilcoxon), equal, strict=True) if same))
        if all_equal:
            count("mixed model", mixed.p < 0.05)
            if mixed.kenward_roger is not None:
                count("Kenward-Roger", mixed.kenward_roger.p < 0.05)
            if not design.half:
                count("Friedman", friedman_test(ratings.frame, SYSTEMS).p < 0.05)
                anova = rm_anova(ratings.frame, SYSTEMS).iloc[0]
                count("Greenhouse-Geisser", anova["p_gg"] < 0.05)
                count("Huynh-Feldt", anova["p_hf"] < 0.05)
    return {name: counts[name] / of[name] for name in of}


FALSE = ["letters", "mixed model", "Kenward-Roger", "equivalence at the margin", "Wilcoxon", "Friedman"]
FALSE += ["Greenhouse-Geisser", "Huynh-Feldt"]
COVERAGE = ["interval of a difference", "interval of a mean", "crossed interval", "Student's interval"]


def main(num_tests: int) -> None:
    lines = ["| test | listeners | " + " | ".join(FALSE + COVERAGE) + " |"]
    lines.append("|---|---|" + "---|" * len(FALSE + COVERAGE))
    for design in [*DESIGNS, *MIXED_LEVELS, *INCOMPLETE]:
        rates = measure(design, num_tests)
        cells = [f"{100 * rates[name]:.1f}" if name in rates else "" for name in FALSE + COVERAGE]
        lines.append(f"| {design.words} | {design.listeners} | " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr, flush=True)
    print("\n".join(lines))


if __name__ == "__main__":
    main(int(sys.argv[1]))
