"""Ratings with known effects: the additive random-effects model that the tests of the analysis assume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def simulate(
    seed: int,
    *,
    means: Sequence[float] = (50, 50, 50),
    listeners: int = 12,
    items: int = 8,
    sd_listener: float = 6,
    sd_item: float = 0,
    sd_listener_item: float = 4,
    sd_listener_condition: float = 5,
    sd_item_condition: float = 0,
    sd_rest: float = 8,
    item_effects: np.ndarray | None = None,
) -> np.ndarray:
    """Scores (listeners, conditions, items): the means plus normal effects with the given deviations.

    ``item_effects`` (conditions, items) are the same in every simulated test: items fixed.
    """
    g = np.random.default_rng(seed)
    c = len(means)
    scores = np.asarray(means, dtype=float)[None, :, None] + np.zeros((listeners, c, items))
    scores += sd_listener * g.standard_normal((listeners, 1, 1))
    scores += sd_item * g.standard_normal((1, 1, items))
    scores += sd_listener_item * g.standard_normal((listeners, 1, items))
    scores += sd_listener_condition * g.standard_normal((listeners, c, 1))
    scores += sd_item_condition * g.standard_normal((1, c, items))
    scores += sd_rest * g.standard_normal(scores.shape)
    return scores if item_effects is None else scores + item_effects


def tidy(scores: np.ndarray, names: Sequence[str] | None = None) -> pd.DataFrame:
    """The tidy table of scores (listeners, conditions, items); NaN is a missing rating."""
    n, c, i = scores.shape
    names = names or [chr(ord("A") + k) for k in range(c)]
    table = pd.DataFrame(
        {
            "listener": np.repeat([f"L{k:02d}" for k in range(n)], c * i),
            "item": np.tile([f"i{k:02d}" for k in range(i)], n * c),
            "condition": np.tile(np.repeat(list(names), i), n),
            "score": scores.ravel(),
        }
    )
    return table.dropna().reset_index(drop=True)


def thin(**sizes: int) -> pd.DataFrame:
    """A test of a reference that nearly everybody finds, and two systems."""
    scores = simulate(5, means=(50, 50, 60), **sizes)  # type: ignore[arg-type]
    scores[:, 0] = 100 - np.abs(scores[:, 0] - 50) / 10
    return tidy(np.clip(scores, 0, 100), ["reference", "A", "B"])
