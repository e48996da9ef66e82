"""How many listeners and items a test needs: power by simulation from variance components.

Model of a score, in points of the scale, all terms independent and normal::

    score = mean of the condition + listener + item + listener x item
            + listener x condition + item x condition + residual

In the paired difference of two conditions the first four random terms cancel, whatever their size; the other
three come in twice, once per condition. Scores are not cut at 0 and 100, as components that were estimated
from a real test hold what that does to them. Listeners are those that screening leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from evaluation.report.drawing import COLOURS, MARKERS, NEUTRAL
from mushra.analysis.anova import balanced_table
from mushra.analysis.figures import WIDTHS, new_figure
from mushra.analysis.ratings import Ratings
from qincodec.core.errors import UserError, count

Test = Literal["t", "wilcoxon", "crossed"]
TESTS: dict[Test, str] = {
    "t": "paired t test of listeners' means over these items",
    "wilcoxon": "Wilcoxon signed-rank test of listeners' means over these items",
    "crossed": "t test for new listeners and new items",
}
_VALUES_AT_ONCE = 2_000_000
_TABLE_ROWS = 14


@dataclass(frozen=True)
class Components:
    """Standard deviations of the random terms of a score, in points.

    Those that cancel in paired differences are kept for the record; NaN where unknown.
    """

    listener_condition: float
    item_condition: float
    residual: float
    listener: float = math.nan
    item: float = math.nan
    listener_item: float = math.nan


#: Of a published test of 22 listeners, 13 items and six spatial audio systems (AES 2023), rounded.
TYPICAL = Components(
    listener_condition=5.0, item_condition=9.0, residual=12.0, listener=8.0, item=7.0, listener_item=6.0
)


@dataclass(frozen=True)
class Estimated:
    """Variance components of an earlier test.

    Attributes:
        components: standard deviations; a negative estimate of a variance counts as 0.
        variances: the estimates as they came out, by name of component.
        shape: number of listeners, items and conditions that went in.
        notes: what was left out, and which estimates were negative.
    """

    components: Components
    variances: dict[str, float]
    shape: tuple[int, int, int]
    notes: tuple[str, ...]


def estimate_components(ratings: Ratings, conditions: Sequence[str] = ()) -> Estimated:
    """Components by equating mean squares with their expectations (ANOVA estimates, balanced table).

    For a listeners, b items and c conditions without replication, with MS of each effect: residual = MS_LIC,
    listener x condition = (MS_LC - MS_LIC) / b, item x condition = (MS_IC - MS_LIC) / a, listener x item =
    (MS_LI - MS_LIC) / c, listener = (MS_L - MS_LC - MS_LI + MS_LIC) / (b c), item likewise.

    Args:
        ratings: listeners or items with missing scores are left out, which is said in ``notes``.
        conditions: to use; by default all but the hidden reference and the anchors, whose scores vary less.

    Raises:
        UserError: a condition is unknown, or fewer than two listeners, items or conditions are left.
    """
    chosen = list(conditions or ratings.systems)
    for name in chosen:
        if name not in ratings.conditions:
            raise UserError(
                f"condition '{name}' is not in the ratings; they hold {', '.join(ratings.conditions)}"
            )
    if len(set(chosen)) < 2:
        raise UserError(
            f"{len(set(chosen))} condition to estimate from, without hidden reference and anchors; it takes "
            "2: name them with --conditions"
        )
    table = balanced_table(ratings.frame, list(dict.fromkeys(chosen)))
    scores = table.scores.transpose(0, 2, 1)  # (listeners, items, conditions)
    sizes = {"listener": len(ratings.listeners), "item": len(ratings.items)}
    if min(sizes.values()) < 2:
        raise UserError(
            f"the ratings are of {' and '.join(count(n, what) for what, n in sizes.items())}; estimates of "
            "spread take 2 of each: give an earlier test with more, or the three --sd-... numbers"
        )
    if min(scores.shape[:2]) < 2:
        raise UserError(
            f"all scores are there of {count(scores.shape[0], 'listener')} and"
            f" {count(scores.shape[1], 'item')}; variance components take 2 of each:"
            " leave out conditions that few have rated with --conditions"
        )
    variances = _anova_estimates(scores)
    notes = [table.left_out] if table.left_out else []
    notes += [
        f"the variance {name.replace('_', ' x ')} came out as {value:.3g}, taken as 0"
        for name, value in variances.items()
        if value < 0
    ]
    components = Components(**{name: math.sqrt(max(value, 0.0)) for name, value in variances.items()})
    return Estimated(components, variances, (scores.shape[0], scores.shape[1], scores.shape[2]), tuple(notes))


def _anova_estimates(scores: np.ndarray) -> dict[str, float]:
    """From (listeners, items, conditions)."""
    a, b, c = scores.shape
    centred = scores - scores.mean()
    of = {
        "L": centred.mean((1, 2), keepdims=True),
        "I": centred.mean((0, 2), keepdims=True),
        "C": centred.mean((0, 1), keepdims=True),
    }
    pairs = {
        "LI": centred.mean(2, keepdims=True) - of["L"] - of["I"],
        "LC": centred.mean(1, keepdims=True) - of["L"] - of["C"],
        "IC": centred.mean(0, keepdims=True) - of["I"] - of["C"],
    }
    rest = centred - sum(of.values()) - sum(pairs.values())
    freedom = {"L": a - 1, "I": b - 1, "C": c - 1}

    def mean_square(name: str, effect: np.ndarray) -> float:
        df = math.prod(freedom[letter] for letter in name)
        return float((effect**2).sum()) * scores.size / effect.size / df

    squares = {name: mean_square(name, effect) for name, effect in {**of, **pairs, "LIC": rest}.items()}
    residual = squares["LIC"]
    return {
        "listener_condition": (squares["LC"] - residual) / b,
        "item_condition": (squares["IC"] - residual) / a,
        "residual": residual,
        "listener": (squares["L"] - squares["LC"] - squares["LI"] + residual) / (b * c),
        "item": (squares["I"] - squares["IC"] - squares["LI"] + residual) / (a * c),
        "listener_item": (squares["LI"] - residual) / c,
    }


@dataclass(frozen=True)
class Plan:
    """Power by number of listeners and items.

    ``table`` has the columns ``listeners, items, power, standard_error`` (of the simulation).
    """

    table: pd.DataFrame
    components: Components
    difference: float
    test: Test
    target: float
    alpha: float
    num_simulations: int
    seed: int

    def needed(self) -> dict[int, int | None]:
        """Items -> the least listeners from which on the target is met, None if it is not in the table."""
        power = self.table.pivot(index="listeners", columns="items", values="power").sort_index()
        sizes = [int(n) for n in power.index]
        result: dict[int, int | None] = {}
        for column, items in enumerate(power.columns):
            missed = np.flatnonzero(power.to_numpy()[:, column] < self.target)
            first = int(missed[-1]) + 1 if len(missed) else 0
            result[int(items)] = sizes[first] if first < len(sizes) else None
        return result

    def to_json(self) -> dict[str, Any]:
        """Everything, with null for what is unknown."""
        known = {k: None if math.isnan(v) else v for k, v in asdict(self.components).items()}
        return {
            "difference": self.difference,
            "test": self.test,
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
    test: Test = "t",
    target: float = 0.8,
    alpha: float = 0.05,
    num_simulations: int = 5000,
    seed: int = 0,
) -> Plan:
    """Share of simulated tests that find ``difference``, two-sided at level ``alpha``.

    With ``t`` and ``wilcoxon`` the difference is that on the items of the test, so that item x condition is
    part of what is measured and not of its error. ``crossed`` asks for the difference over all items of which
    these are a sample: the mean of the listeners x items table of differences, its variance and degrees of
    freedom as in `mushra.analysis.description.crossed_interval`. Smaller tests are parts of the largest,
    simulated test by test, so that power over sizes is smooth.

    Args:
        components: their listener_condition, item_condition and residual count.
        difference: of the two conditions' means, in points.
        listeners: numbers to try, 2 or more.
        items: numbers to try, 1 or more; 2 or more for ``crossed``.
        target: power that is wanted.

    Raises:
        UserError: a value out of its range.
    """
    listeners, items = sorted(set(listeners)), sorted(set(items))
    _check(components, difference, listeners, items, test, target, alpha, num_simulations)
    generator = np.random.default_rng(seed)
    found = np.zeros((len(listeners), len(items)))
    at_once = max(1, _VALUES_AT_ONCE // (listeners[-1] * items[-1]))
    for start in range(0, num_simulations, at_once):
        size = min(at_once, num_simulations - start)
        differences = _simulate(generator, components, difference, (size, listeners[-1], items[-1]), test)
        found += _count(differences, listeners, items, test, alpha)
    power = found / num_simulations
    # Laplace's rule, as 0 or all of the simulated tests still leave an error.
    smoothed = (found + 1) / (num_simulations + 2)
    table = pd.DataFrame(
        {
            "listeners": np.repeat(listeners, len(items)),
            "items": np.tile(items, len(listeners)),
            "power": power.ravel(),
            "standard_error": np.sqrt(smoothed * (1 - smoothed) / num_simulations).ravel(),
        }
    )
    return Plan(table, components, difference, test, target, alpha, num_simulations, seed)


def _check(
    components: Components,
    difference: float,
    listeners: Sequence[int],
    items: Sequence[int],
    test: Test,
    target: float,
    alpha: float,
    num_simulations: int,
) -> None:
    if not (math.isfinite(difference) and 0 < abs(difference) <= 100):
        raise UserError(f"a difference of {difference:g} points: give one above 0, at most 100")
    for name, value in (("power", target), ("alpha", alpha)):
        if not 0 < value < 1:
            raise UserError(f"--{name} {value:g}: give a number between 0 and 1")
    for name in ("listener_condition", "item_condition", "residual"):
        value = getattr(components, name)
        if not (math.isfinite(value) and value >= 0):
            raise UserError(
                f"a standard deviation of {value:g} ({name.replace('_', ' x ')}): give points, 0 or more"
            )
    if num_simulations < 100:
        raise UserError(f"{num_simulations} simulated tests are too few to tell; give 100 or more")
    least = 2 if test == "crossed" else 1
    for what, numbers, minimum in (("listeners", listeners, 2), ("items", items, least)):
        if not numbers or numbers[0] < minimum or numbers[-1] > 1000:
            given = f"{numbers[0]} to {numbers[-1]}" if numbers else "nothing"
            raise UserError(f"--{what} {given}: this test takes {minimum} to 1000 {what}")


def _simulate(
    generator: np.random.Generator,
    components: Components,
    difference: float,
    shape: tuple[int, int, int],
    test: Test,
) -> np.ndarray:
    """Differences of two conditions: (tests, listeners, items)."""
    tests, listeners, items = shape
    values = generator.standard_normal(shape) * (math.sqrt(2) * components.residual)
    scale = math.sqrt(2) * components.listener_condition
    values += scale * generator.standard_normal((tests, listeners, 1))
    if test == "crossed":
        scale = math.sqrt(2) * components.item_condition
        values += scale * generator.standard_normal((tests, 1, items))
    return values + difference


def _count(
    differences: np.ndarray, listeners: Sequence[int], items: Sequence[int], test: Test, alpha: float
) -> np.ndarray:
    """How many of the tests reject, (listeners, items); each size takes the first of the largest."""
    counts = np.zeros((len(listeners), len(items)))
    of_listeners = np.cumsum(differences, axis=2)  # [test, l, i]: sum over items up to i
    if test == "crossed":
        of_items = np.cumsum(differences, axis=1)
        squares = np.cumsum(np.cumsum(differences**2, axis=1), axis=2)
    for column, b in enumerate(items):
        means = of_listeners[:, :, b - 1] / b
        for row, a in enumerate(listeners):
            if test == "t":
                rejected = t_rejects(means[:, :a], alpha)
            elif test == "wilcoxon":
                rejected = wilcoxon_rejects(means[:, :a], alpha)
            else:
                rejected = crossed_rejects(
                    means[:, :a], of_items[:, a - 1, :b] / a, squares[:, a - 1, b - 1], alpha
                )
            counts[row, column] = np.count_nonzero(rejected)
    return counts


def t_rejects(values: np.ndarray, alpha: float) -> np.ndarray:
    """Two-sided one-sample t test of each row of (tests, n)."""
    n = values.shape[1]
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    return np.asarray(np.abs(values.mean(1)) * math.sqrt(n) > critical * values.std(1, ddof=1))


def wilcoxon_rejects(values: np.ndarray, alpha: float) -> np.ndarray:
    """Two-sided exact signed-rank test of each row of (tests, n) without ties: p below ``alpha``."""
    n = values.shape[1]
    # ways[w]: sign patterns with rank sum w, as a share of all: each rank is added or not.
    ways = np.ones(1)
    for rank in range(1, n + 1):
        ways = 0.5 * (np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0)))
    below = np.cumsum(ways)
    critical = int(np.searchsorted(2 * below, alpha))  # the first sum that is not extreme enough
    order = np.argsort(np.abs(values), axis=1)
    positive = np.take_along_axis(values, order, axis=1) > 0
    statistic = positive @ np.arange(1, n + 1)
    return np.asarray(np.minimum(statistic, n * (n + 1) // 2 - statistic) < critical)


def crossed_rejects(
    of_listeners: np.ndarray, of_items: np.ndarray, squares: np.ndarray, alpha: float
) -> np.ndarray:
    """Whether the crossed interval of each table leaves out 0.

    Args:
        of_listeners: (tests, listeners) means over items.
        of_items: (tests, items) means over listeners.
        squares: (tests,) sums of all squared differences.
    """
    a, b = of_listeners.shape[1], of_items.shape[1]
    mean = of_listeners.mean(1)
    ms_listeners = b * of_listeners.var(1, ddof=1)
    ms_items = a * of_items.var(1, ddof=1)
    df = np.array([a - 1, b - 1, (a - 1) * (b - 1)], dtype=float)
    total_squares = squares - a * b * mean**2
    ms_rest = np.maximum(total_squares - df[0] * ms_listeners - df[1] * ms_items, 0.0) / df[2]
    listeners_less, items_less = ms_listeners < ms_rest, ms_items < ms_rest
    # A component below 0 takes its mean squares out of the sum.
    use_listeners, use_items = ~listeners_less, ~items_less
    use_rest = np.where(listeners_less == items_less, 1.0, 0.0)
    sign = np.where(listeners_less & items_less, 1.0, -1.0)
    total = use_listeners * ms_listeners + use_items * ms_items + sign * use_rest * ms_rest
    spread = (
        use_listeners * ms_listeners**2 / df[0]
        + use_items * ms_items**2 / df[1]
        + use_rest * ms_rest**2 / df[2]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = np.where(spread > 0, total**2 / spread, 1.0)
    critical = stats.t.ppf(1 - alpha / 2, np.maximum(freedom, 1e-3))
    return np.asarray(np.abs(mean) > critical * np.sqrt(total / (a * b)))


# Report


def format_plan(result: Plan, origin: str) -> str:
    """The table as text: listeners down, items across, and the least listeners for the target.

    Args:
        origin: where the components come from.
    """
    sd = result.components
    lines = [
        f"Power to see a difference of {result.difference:g} points: {TESTS[result.test]}, "
        f"two-sided, alpha {result.alpha:g}",
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
    if result.test != "crossed":
        lines.append(
            "It holds for the items of the test (item x condition plays no part); for other items like them: "
            "--method crossed"
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
    axes.set_ylabel(f"power to see {result.difference:g} points")
    figure.legend(title="items", loc="outside right upper", frameon=False, handlelength=1.5)
    return figure
