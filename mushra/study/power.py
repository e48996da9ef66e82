"""Numbers of listeners and items that a test needs, from the primary analysis of simulated tests.

Model of a score, in points of the scale, all terms independent and normal::

    score = mean of the system + listener + item + listener x item
            + listener x system + item x system + residual

Two of K systems have the requested difference, and the others lie halfway between them: the usual hard case
of sample sizes. If the others were further away, they would be found more often, and Holm's correction of the
pair would be smaller. A test finds the pair if `mushra analyze` would give it different letters: all pairs by
the mixed model, corrected after Holm (`mushra.analysis.primary`).

No ratings are drawn. In a full table of this model the systems' means are normal and independent of the three
mean squares of the analysis, which are chi-squared; means and mean squares are drawn. The first four random
terms cancel in differences. Scores are not cut at 0 and 100; components estimated from a real test include
the effect of its limits. The listeners are those left after screening.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import special

from evaluation.report.drawing import COLOURS, MARKERS, NEUTRAL, new_figure
from mushra.analysis.figures import WIDTHS
from mushra.analysis.mixed import SINGULAR
from mushra.analysis.primary import NEW_ITEMS, SAME_ITEMS
from mushra.analysis.significance import ALPHA
from mushra.study.components import TYPICAL_SYSTEMS, Components
from qincodec.core.errors import UserError, count

Method = Literal["primary", "wilcoxon"]
#: The method in words, and the listeners and items for which its result holds.
METHODS: dict[Method, tuple[str, str]] = {
    "primary": ("primary analysis, the mixed model", NEW_ITEMS),
    "wilcoxon": ("Wilcoxon's test of listeners' means", SAME_ITEMS),
}
MAX_SYSTEMS = 30
#: For more listeners `mushra analyze` uses the normal approximation of Wilcoxon's test, as scipy does.
_EXACT_LISTENERS = 50
_VALUES_AT_ONCE = 2_000_000
_TABLE_ROWS = 14


@dataclass(frozen=True)
class Plan:
    """Power by number of listeners and items.

    ``table`` has the columns ``listeners, items, power, standard_error`` (of the simulation).
    """

    table: pd.DataFrame
    components: Components
    difference: float
    systems: int
    method: Method
    target: float
    alpha: float
    num_simulations: int
    seed: int

    @property
    def population(self) -> str:
        """Listeners and items for which the result holds; with one item it does not hold for others."""
        return SAME_ITEMS if self.table["items"].max() == 1 else METHODS[self.method][1]

    def needed(self) -> dict[int, int | None]:
        """Items -> least number of listeners from which on the target is met; None if the table has none."""
        power = self.table.pivot(index="listeners", columns="items", values="power").sort_index()
        sizes = [int(n) for n in power.index]
        result: dict[int, int | None] = {}
        for column, items in enumerate(power.columns):
            missed = np.flatnonzero(power.to_numpy()[:, column] < self.target)
            first = int(missed[-1]) + 1 if len(missed) else 0
            result[int(items)] = sizes[first] if first < len(sizes) else None
        return result

    def to_json(self) -> dict[str, Any]:
        """All values, with null for unknown ones."""
        known = {k: None if math.isnan(v) else v for k, v in asdict(self.components).items()}
        return {
            "difference": self.difference,
            "systems": self.systems,
            "method": self.method,
            "population": self.population,
            "alpha": self.alpha,
            "target_power": self.target,
            "num_simulations": self.num_simulations,
            "seed": self.seed,
            "standard_deviations": known,
            "needed": [{"items": items, "listeners": n} for items, n in self.needed().items()],
            "table": self.table.to_dict("records"),
        }


def plan(
    components: Components,
    difference: float,
    *,
    listeners: Sequence[int],
    items: Sequence[int],
    systems: int = TYPICAL_SYSTEMS,
    method: Method = "primary",
    target: float = 0.8,
    alpha: float = ALPHA,
    num_simulations: int = 2000,
    seed: int = 0,
) -> Plan:
    """Share of simulated tests that find ``difference`` between two of ``systems``.

    All pairs are corrected after Holm. ``primary`` tests the difference over all items of which these are a
    sample; with one item it is Wilcoxon's test, as in `mushra.analysis.primary`. ``wilcoxon`` tests the
    difference on the items of the test, so item x system is part of the difference and not of its error.
    Tests of different sizes share random numbers, so that power over sizes is smooth.

    Args:
        components: listener_condition, item_condition and residual are used.
        difference: difference of the two systems' means, in points.
        listeners: numbers to try, 2 or more.
        items: numbers to try, 1 or more.
        systems: number of systems, 2 or more, without hidden reference and anchors.
        target: wanted power.
        alpha: significance level of all pairs together; `mushra analyze` has 0.05.

    Raises:
        UserError: a value is out of its range.
    """
    listeners, items = sorted(set(listeners)), sorted(set(items))
    _check(components, difference, listeners, items, systems, target, alpha, num_simulations)
    generator = np.random.default_rng(seed)
    found = np.zeros((len(listeners), len(items)))
    at_once = max(1, _VALUES_AT_ONCE // (max(listeners[-1], items[-1]) * systems))
    by_model = np.array([method == "primary" and number > 1 for number in items])
    some, others = np.array(items)[by_model], np.array(items)[~by_model]
    levels = np.zeros(systems)
    levels[:2] = difference / 2, -difference / 2
    for start in range(0, num_simulations, at_once):
        size = min(at_once, num_simulations - start)
        if len(some):
            found[:, by_model] += _by_model(generator, components, levels, size, listeners, some, alpha)
        if len(others):
            found[:, ~by_model] += _by_ranks(generator, components, levels, size, listeners, others, alpha)
    power = found / num_simulations
    # Laplace's rule: if no test or all tests find it, there is still an error.
    smoothed = (found + 1) / (num_simulations + 2)
    table = pd.DataFrame(
        {
            "listeners": np.repeat(listeners, len(items)),
            "items": np.tile(items, len(listeners)),
            "power": power.ravel(),
            "standard_error": np.sqrt(smoothed * (1 - smoothed) / num_simulations).ravel(),
        }
    )
    return Plan(table, components, difference, systems, method, target, alpha, num_simulations, seed)


def least_difference(result: Plan) -> int | None:
    """Least difference in whole points that the largest test finds with the wanted power; None above 100."""
    largest = result.table.iloc[-1]

    def power(points: int) -> float:
        found = plan(
            result.components,
            points,
            listeners=[int(largest["listeners"])],
            items=[int(largest["items"])],
            systems=result.systems,
            method=result.method,
            alpha=result.alpha,
            num_simulations=result.num_simulations,
            seed=result.seed,
        )
        return float(found.table["power"].iloc[0])

    least = 1 + bisect.bisect_left(range(1, 101), result.target, key=power)
    return least if least <= 100 else None


def _check(
    components: Components,
    difference: float,
    listeners: Sequence[int],
    items: Sequence[int],
    systems: int,
    target: float,
    alpha: float,
    num_simulations: int,
) -> None:
    if not (math.isfinite(difference) and 0 < abs(difference) <= 100):
        raise UserError(f"a difference of {difference:g} points: give one above 0, at most 100")
    if not 2 <= systems <= MAX_SYSTEMS:
        raise UserError(
            f"{count(systems, 'system')} to compare: give 2 to {MAX_SYSTEMS} with --systems, without hidden "
            "reference and anchors"
        )
    for name, value in (("power", target), ("alpha", alpha)):
        if not 0 < value < 1:
            raise UserError(f"--{name} {value:g}: give a number between 0 and 1")
    spreads = ("listener_condition", "item_condition", "residual")
    for name in spreads:
        value = getattr(components, name)
        if not (math.isfinite(value) and value >= 0):
            raise UserError(
                f"a standard deviation of {value:g} ({name.replace('_', ' x ')}): give points, 0 or more"
            )
    if not any(getattr(components, name) for name in spreads):
        raise UserError(
            "all three standard deviations are 0, so every test finds any difference; give one above 0"
        )
    if num_simulations < 100:
        raise UserError(f"{num_simulations} simulated tests are too few; give 100 or more")
    for what, numbers, minimum in (("listeners", listeners, 2), ("items", items, 1)):
        if not numbers or numbers[0] < minimum or numbers[-1] > 1000:
            given = f"{numbers[0]} to {numbers[-1]}" if numbers else "nothing"
            raise UserError(f"--{what} {given}: this test takes {minimum} to 1000 {what}")


def _by_model(
    generator: np.random.Generator,
    sd: Components,
    levels: np.ndarray,
    tests: int,
    listeners: Sequence[int],
    items: Sequence[int],
    alpha: float,
) -> np.ndarray:
    """Number of ``tests`` that find the first pair by the mixed model, (listeners, items)."""
    freedom = len(levels) - 1
    noise = generator.standard_normal((tests, len(levels)))
    # Chi-squared variables add: one more listener (item) adds one more term.
    of_listeners = generator.chisquare(freedom, (tests, listeners[-1] - 1)).cumsum(axis=1)
    of_items = generator.chisquare(freedom, (tests, items[-1] - 1)).cumsum(axis=1)
    counts = np.zeros((len(listeners), len(items)))
    for (row, n), (column, i) in itertools.product(enumerate(listeners), enumerate(items)):
        expected = np.array([i * sd.listener_condition**2, n * sd.item_condition**2, 0]) + sd.residual**2
        df = strata_df(n, i, len(levels))
        rest = generator.chisquare(df[2], tests)
        squares = np.stack([of_listeners[:, n - 2], of_items[:, i - 2], rest], axis=1) / df * expected
        spread = math.sqrt(expected @ [1, 1, -1] / (n * i))
        t, t_df = model_statistics(levels + spread * noise, squares, (n, i))

        def p(some: np.ndarray, pairs: slice, t: np.ndarray = t, df: np.ndarray = t_df) -> np.ndarray:
            return np.asarray(2 * special.stdtr(df[some, None], -np.abs(t[some, pairs])))

        counts[row, column] = np.count_nonzero(first_found(p, tests, t.shape[1], alpha))
    return counts


def strata_df(listeners: int, items: int, systems: int) -> np.ndarray:
    """Degrees of freedom of listener x system, item x system and the residual in a full table."""
    n, i = listeners - 1, items - 1
    return np.array([n, i, n * i], dtype=float) * (systems - 1)


def model_statistics(
    means: np.ndarray, squares: np.ndarray, sizes: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Contrasts of all pairs in the mixed model of full tables, as in `mushra.analysis.mixed`.

    A mean square that is not above the residual one is pooled with it, the lower one first.

    Args:
        means: (tests, systems).
        squares: (tests, 3) mean squares of listener x system, item x system and the residual.
        sizes: listeners and items.

    Returns:
        (tests, pairs) t, the pairs in the order of `itertools.combinations`, and (tests,) degrees of freedom.
    """
    df = strata_df(*sizes, means.shape[1])
    listener, item, rest = squares.T
    low, high = np.minimum(listener, item), np.maximum(listener, item)
    low_df, high_df = np.where(listener <= item, *df[:2]), np.where(listener <= item, *df[1::-1])
    one = low <= rest * (1 + SINGULAR)
    both = one & (high <= (rest * df[2] + low * low_df) / (df[2] + low_df) * (1 + SINGULAR))
    pooled = squares @ df / df.sum()
    error = np.select([both, one], [pooled, high], listener + item - rest)
    spread = np.select([both, one], [pooled**2 / df.sum(), high**2 / high_df], (squares**2 / df).sum(axis=1))
    first, second = np.array(list(itertools.combinations(range(means.shape[1]), 2))).T
    differences = means[:, first] - means[:, second]
    return differences / np.sqrt(2 * error / math.prod(sizes))[:, None], error**2 / spread


def first_found(
    p: Callable[[np.ndarray, slice], np.ndarray], tests: int, pairs: int, alpha: float
) -> np.ndarray:
    """(tests,) whether the p of the first pair is below ``alpha`` after Holm's correction.

    Args:
        p: returns p of some tests and pairs, (tests, pairs); called for all pairs only if they matter.
    """
    alone = p(np.arange(tests), slice(1))[:, 0]
    found = alone * pairs < alpha
    unclear = np.flatnonzero(~found & (alone < alpha))
    if pairs > 1 and len(unclear):
        ordered = np.sort(p(unclear, slice(None)), axis=1)
        passed = np.logical_and.accumulate(ordered * np.arange(pairs, 0, -1) < alpha, axis=1)
        found[unclear] = (passed & (ordered == alone[unclear, None])).any(axis=1)
    return found


def _by_ranks(
    generator: np.random.Generator,
    sd: Components,
    levels: np.ndarray,
    tests: int,
    listeners: Sequence[int],
    items: Sequence[int],
    alpha: float,
) -> np.ndarray:
    """Number of ``tests`` that find the first pair by Wilcoxon's test, (listeners, items)."""
    noise = generator.standard_normal((tests, listeners[-1], len(levels)))
    first, second = np.array(list(itertools.combinations(range(len(levels)), 2))).T
    counts = np.zeros((len(listeners), len(items)))
    for column, i in enumerate(items):
        means = levels + math.sqrt(sd.listener_condition**2 + sd.residual**2 / i) * noise
        for row, n in enumerate(listeners):

            def p(some: np.ndarray, pairs: slice, part: np.ndarray = means[:, :n]) -> np.ndarray:
                differences = part[some][:, :, first[pairs]] - part[some][:, :, second[pairs]]
                return wilcoxon_p(differences.swapaxes(1, 2))

            counts[row, column] = np.count_nonzero(first_found(p, tests, len(first), alpha))
    return counts


def wilcoxon_p(values: np.ndarray) -> np.ndarray:
    """Two-sided signed-rank test of (..., n) without ties: (...); exact up to 50, as scipy."""
    n = values.shape[-1]
    order = np.argsort(np.abs(values), axis=-1)
    positive = np.take_along_axis(values, order, axis=-1) > 0
    sums = positive @ np.arange(1, n + 1)
    least = np.minimum(sums, n * (n + 1) // 2 - sums)
    if n > _EXACT_LISTENERS:
        z = (least - n * (n + 1) / 4) / math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return np.asarray(2 * special.ndtr(z))
    # ways[w]: sign patterns with rank sum w, as a share of all: each rank is added or not.
    ways = np.ones(1)
    for rank in range(1, n + 1):
        ways = 0.5 * (np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0)))
    return np.minimum(2 * np.cumsum(ways)[least], 1.0)


# Report


def format_plan(result: Plan, origin: str) -> str:
    """The table as text: listeners down, items across, and the least listeners for the target.

    Args:
        origin: origin of the components.
    """
    sd = result.components
    name = METHODS[result.method][0]
    if result.method == "primary" and result.table["items"].min() == 1:
        name += f" (with 1 item {METHODS['wilcoxon'][0]}, for the same items)"
    pairs = math.comb(result.systems, 2)
    correction = f", {pairs} pairs corrected after Holm" if pairs > 1 else ""
    lines = [
        f"Power to find a difference of {result.difference:g} points between two of {result.systems} systems",
        f"{name[0].upper()}{name[1:]}: for {result.population}; two-sided, alpha {result.alpha:g}"
        f"{correction}",
        f"Standard deviations in points ({origin}): listener x condition {sd.listener_condition:.3g}, "
        f"item x condition {sd.item_condition:.3g}, residual {sd.residual:.3g}",
        "",
    ]
    power = result.table.pivot(index="listeners", columns="items", values="power")
    head = "listeners \\ items"
    label = f"for {100 * result.target:g}% power"
    width = max(len(head), len(label))
    lines.append(f"{head:>{width}}" + "".join(f"{items:>7}" for items in power.columns))
    step = math.ceil(len(power) / _TABLE_ROWS)
    shown = power[power.index % step == 0] if step > 1 else power
    lines += [
        f"{n:>{width}}" + "".join(f"{100 * value:>6.0f}%" for value in row)
        for n, row in zip(shown.index, shown.to_numpy(), strict=True)
    ]
    most = int(power.index.max())
    needed = [f">{most}" if n is None else str(n) for n in result.needed().values()]
    lines.append(f"{label:>{width}}" + "".join(f"{text:>7}" for text in needed))
    error = 100 * float(result.table["standard_error"].max())
    lines += [
        "",
        f"{result.num_simulations} simulated tests, seed {result.seed}: standard error up to {error:.1f}%. "
        "Listeners are those left after screening.",
    ]
    if pairs > 1:
        lines.append(
            "The other systems lie halfway between the two; if they are further away, power is higher."
        )
    if (needed_most := [*result.needed().items()][-1])[1] is None:
        least = least_difference(result)
        lines.append(
            f"{most} listeners and {needed_most[0]} items find {least or 'more than 100'} points with "
            f"{100 * result.target:g}% power."
        )
        if result.method == "primary":
            lines.append(
                "Only more items reduce the effect of item x condition; for a result that holds only for the "
                "items of the test, give --method wilcoxon"
            )
    return "\n".join(lines) + "\n"


def draw_plan(result: Plan) -> Figure:
    """Power over listeners, a curve per number of items, the target as a line."""
    figure = new_figure(WIDTHS["one_column"], 2.6)
    axes = figure.subplots()
    for index, (items, rows) in enumerate(result.table.groupby("items")):
        axes.plot(
            rows["listeners"],
            rows["power"],
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            markevery=max(1, len(rows) // 8),
            markersize=3,
            label=str(items),
        )
    axes.axhline(result.target, color=NEUTRAL, linestyle=":", linewidth=0.8)
    axes.set_ylim(0, 1.02)
    axes.grid(True)
    axes.set_xlabel("listeners after screening")
    axes.set_ylabel(f"power to find {result.difference:g} points")
    figure.legend(title="items", loc="outside right upper", frameon=False, handlelength=1.5)
    return figure
