"""Variance components of the ratings of a test, from its mean squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mushra.analysis.anova import balanced_table
from mushra.analysis.primary import CEILING, crowded, uneven
from mushra.analysis.ratings import Ratings
from mushra.check import is_control
from mushra.config.key import NO_KEY, read_key
from mushra.config.load import load_config
from mushra.config.locate import YAML_SUFFIXES, config_beside, key_beside
from mushra.config.pages import MushraPage
from qincodec.core.errors import UserError, count

#: With fewer listeners or items an estimate of their spread is very uncertain.
FEW = 5


@dataclass(frozen=True)
class Components:
    """Standard deviations of the random terms of a score, in points.

    The last three cancel in paired differences and are only for information; NaN if unknown.
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
TYPICAL_SYSTEMS = 6


@dataclass(frozen=True)
class Estimated:
    """Variance components of an earlier test.

    Attributes:
        components: standard deviations; a negative estimate of a variance counts as 0.
        variances: component -> estimate of the variance, which may be negative.
        shape: number of listeners, items and conditions used.
        notes: what was left out, and which estimates were negative.
    """

    components: Components
    variances: dict[str, float]
    shape: tuple[int, int, int]
    notes: tuple[str, ...]


def estimate_components(ratings: Ratings, conditions: Sequence[str] = ()) -> Estimated:
    """Components from mean squares and their expectations (ANOVA estimates, balanced table).

    For a listeners, b items and c conditions without replication, with MS of each effect: residual = MS_LIC,
    listener x condition = (MS_LC - MS_LIC) / b, item x condition = (MS_IC - MS_LIC) / a, listener x item =
    (MS_LI - MS_LIC) / c, listener = (MS_L - MS_LC - MS_LI + MS_LIC) / (b c), item likewise.

    Args:
        ratings: listeners or items with missing scores are left out; ``notes`` say so.
        conditions: conditions to use. Default: all but hidden reference and anchors, whose scores vary less.

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
            f"{len(set(chosen))} condition to estimate from, without hidden reference and anchors; 2 are "
            "needed: name them with --conditions"
        )
    table = balanced_table(ratings.frame, list(dict.fromkeys(chosen)))
    scores = table.scores.transpose(0, 2, 1)  # (listeners, items, conditions)
    sizes = {"listener": len(ratings.listeners), "item": len(ratings.items)}
    if min(sizes.values()) < 2:
        raise UserError(
            f"the ratings are of {' and '.join(count(n, what) for what, n in sizes.items())}; estimates of "
            "spread need 2 of each: give an earlier test with more, or the three --sd-... numbers"
        )
    if min(scores.shape[:2]) < 2:
        raise UserError(
            f"{count(scores.shape[0], 'listener')} and {count(scores.shape[1], 'item')} have all scores;"
            " variance components need 2 of each: leave out conditions that few listeners rated, by naming"
            " the others with --conditions"
        )
    variances = _anova_estimates(scores)
    notes = [table.left_out] if table.left_out else []
    if min(scores.shape[:2]) < FEW:
        notes.append(
            f"{count(scores.shape[0], 'listener')} and {count(scores.shape[1], 'item')} are too few to say "
            "how much listeners and items differ: the plan may be far off"
        )
    if ends := [name for name in crowded(ratings) if name in chosen]:
        notes.append(
            f"{100 * CEILING:g} % or more of the scores of {', '.join(ends)} are at an end of the scale and "
            "vary less: the plan holds for systems that vary like the average of these"
        )
    elif found := uneven(table.scores, list(dict.fromkeys(chosen))):
        notes.append(
            f"scores of {found[1]} vary more than those of {found[0]}: the plan holds for systems that vary "
            "like the average of these"
        )
    notes += [
        f"the variance {name.replace('_', ' x ')} was estimated as {value:.3g} and set to 0"
        for name, value in variances.items()
        if value < 0
    ]
    components = Components(**{name: math.sqrt(max(value, 0.0)) for name, value in variances.items()})
    return Estimated(components, variances, (scores.shape[0], scores.shape[1], scores.shape[2]), tuple(notes))


def _anova_estimates(scores: np.ndarray) -> dict[str, float]:
    """Variances from scores (listeners, items, conditions)."""
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


def count_systems(planned: Path) -> int:
    """Number of systems in a test (its folder or YAML) or a run of ``evaluate``.

    Raises:
        UserError: it is neither, or has no pages to rate.
    """
    if (planned / "run.json").is_file():
        from evaluation.run.store import RunStore

        with RunStore(planned, write=False) as store:
            run = store.read_run()
        others = [c for c in run.conditions if not c.control and c not in run.points]
        return len(run.asked) + len(others)
    yaml = (
        planned if planned.suffix in YAML_SUFFIXES else config_beside(planned) if planned.is_dir() else None
    )
    if yaml is None:
        raise UserError(f"{planned} is neither a test nor a run of `evaluate`; give the folder of one")
    config, where = load_config(yaml), key_beside(yaml)
    key = read_key(where) if where else NO_KEY
    systems = {
        key.condition(page.id, name)
        for page in config.flat()
        if isinstance(page, MushraPage) and not config.is_training(page)
        for name in page.stimuli
    }
    return sum(not is_control(name) for name in systems)
