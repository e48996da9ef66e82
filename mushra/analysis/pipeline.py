"""The whole analysis of a test in one call: `analyze`. It does not read or write files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from evaluation.statistics.recordings import MIN_PAIRS, holm
from mushra.analysis.anova import rm_anova
from mushra.analysis.description import (
    beyond_scale,
    bounds,
    describe_conditions,
    describe_intervals,
    describe_items,
    difference_grades,
)
from mushra.analysis.freedom import FTest
from mushra.analysis.mixed import CLOSED_FORM, MixedModel, mixed_model
from mushra.analysis.primary import Primary, crowded, primary_analysis
from mushra.analysis.ratings import Ratings
from mushra.analysis.screening import Screening, listener_figures, screen
from mushra.analysis.significance import (
    ALPHA,
    Comparison,
    cohens_dz,
    friedman_test,
    hochberg,
    least_listeners,
    paired_pages,
    permutation_test,
    wilcoxon_test,
)
from mushra.standard import MIN_ITEMS
from qincodec.core.console import Progress
from qincodec.core.errors import UserError, count

NUM_PERMUTATIONS = 10_000
NUM_RESAMPLES = 10_000

TEST_COLUMNS = ["test", "family", "a", "b", "n_listeners", "statistic", "df1", "df2", "epsilon", "p"]
TEST_COLUMNS += ["p_holm", "p_hochberg", "estimate", "ci_low", "ci_high", "effect_name", "effect", "reason"]

_TEST_KEY = ["test", "family", "a", "b"]
_SENSITIVE = ["n_listeners", "estimate", "statistic", "df1", "df2", "p"]
SENSITIVITY_COLUMNS = [*_TEST_KEY, *_SENSITIVE, *(f"{name}_all" for name in _SENSITIVE)]
SENSITIVITY_COLUMNS += [f"{name}_unflagged" for name in _SENSITIVE]

#: Families of tests that are corrected together: pairs of systems, and systems against the hidden reference.
SYSTEMS, REFERENCE = "systems", "reference"
WILCOXON, PERMUTATION = "wilcoxon", "permutation_median"
#: Orders of the systems.
BY_MEAN, BY_NAME = "mean", "name"
#: Limit of listeners that a note names; tables have all.
_MOST_NAMED = 5


@dataclass(frozen=True)
class Analysis:
    """All results of `analyze`; NaN in a table has a reason beside it or in ``notes``.

    Attributes:
        loaded, ratings: the ratings before and after screening.
        screening: excluded listeners and reasons; listeners: figures about each listener, for information.
        conditions, conditions_all: `describe_conditions` after and before screening.
        intervals, items, differences: see `mushra.analysis.description`.
        tests: one row per test, `TEST_COLUMNS`.
        mixed: the mixed model of the systems.
        primary: the comparison of the systems that the rule of `mushra.analysis.primary` chose.
        sensitivity: tests after screening, before it, and after it without kept listeners whose ratings are
            in doubt, `SENSITIVITY_COLUMNS`.
        unflagged: the primary analysis without these listeners; None if there are none, or only such.
        order: conditions in the order of tables and figures: hidden reference, systems, anchors.
        notes: limits of these results, one sentence each.
        seed: seed of bootstrap and permutations; num_permutations, num_resamples: their numbers.
    """

    loaded: Ratings
    ratings: Ratings
    screening: Screening
    listeners: pd.DataFrame
    conditions: pd.DataFrame
    conditions_all: pd.DataFrame
    intervals: pd.DataFrame
    items: pd.DataFrame
    differences: pd.DataFrame
    tests: pd.DataFrame
    mixed: MixedModel
    primary: Primary
    sensitivity: pd.DataFrame
    unflagged: Primary | None
    order: tuple[str, ...]
    notes: tuple[str, ...]
    seed: int
    num_permutations: int
    num_resamples: int

    def in_order(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows of a table of conditions in ``order``."""
        rank = {name: place for place, name in enumerate(self.order)}
        return table.sort_values("condition", key=lambda names: names.map(rank), kind="stable")

    @property
    def letters(self) -> dict[str, str]:
        """Letters of the systems, see `Primary`."""
        return self.primary.letters


def analyze(
    ratings: Ratings,
    *,
    seed: int = 0,
    keep: Collection[str] = (),
    exclude: Collection[str] = (),
    drop_flagged: bool = False,
    baseline: str | None = None,
    margin: float | None = None,
    order: Sequence[str] = (BY_MEAN,),
    num_permutations: int = NUM_PERMUTATIONS,
    num_resamples: int = NUM_RESAMPLES,
    progress: Progress = lambda what, done, total: None,
) -> Analysis:
    """Screen the listeners, describe the ratings and test the differences.

    Args:
        ratings: from `mushra.load` or `mushra.analysis.ratings.with_roles`.
        seed: seed of permutations and bootstrap.
        keep: listeners that screening must not exclude; ``all`` for everybody.
        exclude: listeners to exclude in any case.
        drop_flagged: exclude listeners whose ratings are in doubt (`mushra.analysis.screening.doubtful`).
        baseline: condition to which differences are given, beside those to the hidden reference.
        margin: points within which two systems count as equivalent; None: equivalence is not tested.
        order: systems to show first; the others follow by mean, highest first, or with `BY_NAME` by name.
        num_permutations: permutations of each permutation test.
        num_resamples: resamples of the bootstrap.
        progress: called with (what, done, total).

    Raises:
        UserError: a listener or condition is unknown, or nobody is left after screening.
    """
    if baseline is not None and baseline not in ratings.conditions:
        raise UserError(
            f"baseline '{baseline}' is not a condition; choose one of {', '.join(ratings.conditions)}"
        )
    _check_order(order, ratings)
    figures = listener_figures(ratings)
    screening = screen(ratings, keep=keep, exclude=exclude, drop_flagged=drop_flagged, figures=figures)
    if len(screening.excluded) == len(ratings.listeners):
        raise UserError(
            f"all {len(ratings.listeners)} listeners are excluded (the first because: "
            f"{screening.listeners['reason'].iloc[0]}); keep some with --keep, or everybody with --keep all"
        )
    screened = ratings.without(screening.excluded)
    bases = [name for name in (screened.reference, baseline) if name in screened.conditions]
    pairs = _pairs(screened)
    total = 5 + len(pairs)
    progress("analysis", 0, total)
    conditions = describe_conditions(screened)
    conditions_all = describe_conditions(ratings)
    progress("analysis", 1, total)
    intervals = describe_intervals(screened, seed=seed, num_resamples=num_resamples)
    progress("analysis", 2, total)
    items = describe_items(screened)
    progress("analysis", 3, total)
    differences = difference_grades(screened, list(dict.fromkeys(bases)))
    progress("analysis", 4, total)
    mixed = mixed_model(screened.frame, screened.systems)
    primary = primary_analysis(screened, mixed, margin)
    rows = [*_overall_rows(screened, mixed)]
    progress("analysis", 5, total)
    for number, pair in enumerate(pairs):
        rows += _pair_rows(screened, pair, [seed, number], num_permutations)
        progress("analysis", 6 + number, total)
    tests = _corrected(pd.DataFrame(rows, columns=TEST_COLUMNS))
    after = _sensitivity(tests, primary)
    before, _ = _beside(ratings, margin) if screening.excluded else (after, None)
    in_doubt = screening.kept_in_doubt
    others = screened.without(in_doubt)
    without, unflagged = _beside(others, margin) if in_doubt and others.listeners else (after, None)
    sensitivity = after.merge(before, on=_TEST_KEY, how="left", suffixes=("", "_all"))
    sensitivity = sensitivity.merge(without, on=_TEST_KEY, how="left", suffixes=("", "_unflagged"))
    means = bounds(conditions, "ci"), bounds(primary.means, "ci"), bounds(intervals, "crossed")
    compared = [bounds(table, "ci") for table in (primary.contrasts, differences[differences["item"] == ""])]
    return Analysis(
        loaded=ratings,
        ratings=screened,
        screening=screening,
        listeners=figures,
        conditions=conditions,
        conditions_all=conditions_all,
        intervals=intervals,
        items=items,
        differences=differences,
        tests=tests,
        mixed=mixed,
        primary=primary,
        sensitivity=sensitivity,
        unflagged=unflagged,
        order=_order(conditions, screened, order),
        notes=(
            *_notes(screened, screening, mixed),
            *beyond_scale(np.concatenate(means), np.concatenate(compared), ratings.ends),
            *_doubt(screened, screening, primary, unflagged),
        ),
        seed=seed,
        num_permutations=num_permutations,
        num_resamples=num_resamples,
    )


def _check_order(order: Sequence[str], ratings: Ratings) -> None:
    for name in order:
        if name not in (*ratings.systems, BY_MEAN, BY_NAME):
            raise UserError(
                f"--order names '{name}', which is not a system; give {BY_MEAN}, {BY_NAME} or some of "
                f"{', '.join(ratings.systems)}"
            )


def _order(conditions: pd.DataFrame, ratings: Ratings, order: Sequence[str]) -> tuple[str, ...]:
    means = dict(zip(conditions["condition"], conditions["mean"], strict=True))
    systems = list(ratings.systems)
    if BY_NAME not in order:
        systems.sort(key=lambda name: -means[name])
    first = [name for name in dict.fromkeys(order) if name in systems]
    systems = [*first, *(name for name in systems if name not in first)]
    places = iter(systems)
    return tuple(next(places) if name in systems else name for name in ratings.conditions)


# Tests


def _pairs(ratings: Ratings) -> list[tuple[str, str, str]]:
    """(family, a, b): all pairs of systems, then each system against the hidden reference."""
    pairs = [(SYSTEMS, a, b) for a, b in itertools.combinations(ratings.systems, 2)]
    if ratings.reference in ratings.conditions:
        pairs += [(REFERENCE, system, str(ratings.reference)) for system in ratings.systems]
    return pairs


def _pair_rows(
    ratings: Ratings, pair: tuple[str, str, str], seed: list[int], num_permutations: int
) -> list[dict[str, object]]:
    """Both tests of a pair. Each pair has its own seed: with equal permutations all tests would have the
    same error."""
    family, a, b = pair
    pages = paired_pages(ratings.frame, a, b)
    permutation = permutation_test(pages, seed=seed, num_permutations=num_permutations)
    return [
        _row(PERMUTATION, family, permutation, a, b, "cohens_dz", cohens_dz(pages)),
        _row(WILCOXON, family, wilcoxon_test(pages), a, b, "rank_biserial"),
    ]


def _row(
    test: str, family: str, result: Comparison, a: str, b: str, effect_name: str, effect: float | None = None
) -> dict[str, object]:
    return {
        "test": test,
        "family": family,
        "a": a,
        "b": b,
        "n_listeners": result.n,
        "statistic": result.statistic,
        "df1": result.df,
        "p": result.p,
        "estimate": result.estimate,
        "ci_low": result.ci_low,
        "ci_high": result.ci_high,
        "effect_name": effect_name,
        "effect": result.effect if effect is None else effect,
        "reason": result.reason,
    }


def _overall_rows(ratings: Ratings, mixed: MixedModel) -> Iterator[dict[str, object]]:
    """Tests of all systems at once."""
    yield _row("friedman", SYSTEMS, friedman_test(ratings.frame, ratings.systems), "", "", "kendalls_w")
    for row in rm_anova(ratings.frame, ratings.systems).to_dict("records"):
        for name, p, epsilon in (
            ("rm_anova", "p", 1.0),
            ("rm_anova_greenhouse_geisser", "p_gg", row["epsilon_gg"]),
            ("rm_anova_huynh_feldt", "p_hf", row["epsilon_hf"]),
        ):
            yield {
                "test": name,
                "family": row["effect"],
                "a": "",
                "b": "",
                "n_listeners": row["n"],
                "statistic": row["statistic"],
                "df1": row["df1"] * epsilon,
                "df2": row["df2"] * epsilon,
                "epsilon": epsilon if not math.isnan(row["statistic"]) else math.nan,
                "p": row[p],
                "effect_name": "partial_eta_squared",
                "effect": row["partial_eta_squared"],
                "reason": row["reason"],
            }
    tests = {"mixed_model": FTest(mixed.statistic, mixed.df1, mixed.df2)}
    if mixed.kenward_roger is not None and mixed.method != CLOSED_FORM:
        tests["mixed_model_kenward_roger"] = mixed.kenward_roger
    for name, test in tests.items():
        yield {
            "test": name,
            "family": "condition",
            "a": "",
            "b": "",
            "n_listeners": mixed.n,
            "statistic": test.statistic,
            "df1": test.df1,
            "df2": test.df2,
            "p": test.p,
            "effect_name": "",
            "reason": mixed.reason,
        }


def _corrected(tests: pd.DataFrame) -> pd.DataFrame:
    """Holm's and Hochberg's corrections within each test and family of pairs."""
    pairs = tests["test"].isin([WILCOXON, PERMUTATION])
    for _, family in tests[pairs].groupby(["test", "family"], sort=False):
        p = family["p"].astype(float).tolist()
        tests.loc[family.index, "p_holm"] = holm(p)
        tests.loc[family.index, "p_hochberg"] = hochberg(p)
    order = {name: place for place, name in enumerate(dict.fromkeys(tests["test"]))}
    places = tests["test"].map(order) * 2 + (tests["family"] == REFERENCE)
    return tests.iloc[places.argsort(kind="stable")].reset_index(drop=True)


# Sensitivity


def _sensitivity(tests: pd.DataFrame, primary: Primary) -> pd.DataFrame:
    """Columns `_SENSITIVE` of the tests of all systems, and of the primary analysis of each pair (Holm)."""
    overall = tests[tests["a"] == ""].assign(n_listeners=lambda rows: rows["n_listeners"].astype(float))
    pairs = primary.contrasts.assign(test="primary", family=SYSTEMS, df2=primary.contrasts["df"])
    pairs["p"] = pairs["p_holm"]
    frames = [rows.reindex(columns=[*_TEST_KEY, *_SENSITIVE]) for rows in (overall, pairs)]
    return pd.concat([rows.astype(dict.fromkeys(_SENSITIVE, float)) for rows in frames], ignore_index=True)


def _beside(ratings: Ratings, margin: float | None) -> tuple[pd.DataFrame, Primary]:
    """`_sensitivity` and the primary analysis for other listeners."""
    mixed = mixed_model(ratings.frame, ratings.systems)
    primary = primary_analysis(ratings, mixed, margin)
    tests = pd.DataFrame([*_overall_rows(ratings, mixed)], columns=TEST_COLUMNS)
    return _sensitivity(tests, primary), primary


# Limits


def _doubt(
    ratings: Ratings, screening: Screening, primary: Primary, unflagged: Primary | None
) -> Iterator[str]:
    if not (stay := screening.kept_in_doubt):
        return
    who = "; ".join(f"{name}: {what}" for name, what in list(stay.items())[:_MOST_NAMED])
    who += "; ..." if len(stay) > _MOST_NAMED else ""
    yield (
        f"{count(len(stay), 'listener')} {'is' if len(stay) == 1 else 'are'} kept despite flags ({who}). "
        f"{without_doubt(ratings, screening, primary, unflagged)} --drop-flagged leaves "
        f"{'this listener' if len(stay) == 1 else 'them'} out."
    )


def without_doubt(ratings: Ratings, screening: Screening, primary: Primary, unflagged: Primary | None) -> str:
    """Sentence that compares the results without and with kept listeners whose ratings are in doubt."""
    them = "this listener" if len(screening.kept_in_doubt) == 1 else "them"
    if unflagged is None:
        return f"Without {them} nobody would be left."
    both = [f"{int((found.contrasts['p_holm'] < ALPHA).sum())}" for found in (unflagged, primary)]
    moved = (ratings.without(screening.kept_in_doubt).matrix().mean() - ratings.matrix().mean()).abs().max()
    pairs = count(len(primary.contrasts), "pair")
    text = f"means move by up to {moved:.1f} points"
    if len(primary.contrasts) and len(unflagged.contrasts):
        instead = f"instead of {both[1]}" if both[0] != both[1] else f"as with {them}"
        text = f"a difference is found between {both[0]} of {pairs} of systems, {instead}, and {text}"
    return f"Without {them} {text}."


def _notes(ratings: Ratings, screening: Screening, mixed: MixedModel) -> tuple[str, ...]:
    notes = list(screening.notes)
    n, items, systems = len(ratings.listeners), len(ratings.items), len(ratings.systems)
    scores = ratings.frame["score"]
    if n == 1:
        notes.append("There is one listener: no interval and no test is possible.")
    elif n < MIN_PAIRS:
        notes.append(
            f"With {count(n, 'listener')} Wilcoxon's test cannot find a difference at {ALPHA:g}; it needs"
            f" {MIN_PAIRS}."
        )
    elif n < (needed := least_listeners(pairs := math.comb(systems, 2))):
        notes.append(
            f"With {n} listeners Wilcoxon's test cannot find a difference among {pairs} pairs of systems "
            f"after Holm's correction; it needs {needed}."
        )
    if not ratings.anchors:
        notes.append(
            "No condition is known to be an anchor: the use of the scale cannot be compared with other tests."
        )
    if systems == 0:
        notes.append("There is no condition besides hidden reference and anchors: nothing to compare.")
    elif systems == 1:
        notes.append("There is one system: no comparison between systems is possible.")
    if items == 1:
        notes.append("There is one item: results hold only for it, and item effects cannot be estimated.")
    elif items < MIN_ITEMS:
        notes.append(f"There are {items} items; BS.1534-3 requires at least {MIN_ITEMS}.")
    if scores.nunique() == 1 and len(scores) > 1:
        notes.append(f"All {len(scores)} scores are {scores.iloc[0]:g}: no test is possible.")
    pages = ratings.frame.groupby(["listener", "item"])["condition"].nunique()
    if len(pages) < n * items or (pages < len(ratings.conditions)).any():
        notes.append(
            "Some ratings are missing: means use the items that a listener rated, and comparisons use pages "
            "on which both conditions were rated."
        )
    if (ends := crowded(ratings)) and mixed.method != CLOSED_FORM and not mixed.reason:
        notes.append(
            f"Many scores of {' and '.join(ends)} are at an end of the scale: they vary less than the mixed "
            "model assumes for all systems."
        )
    if zero := mixed.at_zero:
        notes.append(
            f"Mixed model of all systems: the variance{'s' * (len(zero) > 1)} of {' and '.join(zero)} "
            f"{'were' if len(zero) > 1 else 'was'} estimated at zero or below and set to zero; the rest was "
            "fitted again."
        )
    return tuple(notes)
