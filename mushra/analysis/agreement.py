"""Agreement between the listeners of a test."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd


def listener_agreement(frame: pd.DataFrame) -> pd.DataFrame:
    """Agreement of each listener with all others.

    Args:
        frame: tidy ratings; each (listener, item, condition) once.

    Returns:
        A row per listener, sorted by name: ``listener, correlation, n_cells, reason``. Pearson's correlation
        is between the listener's scores and the means of all others, over the (item, condition) cells that
        the listener and at least one other rated; NaN with a ``reason``.
    """
    scores = frame.pivot_table(index="listener", columns=["item", "condition"], values="score", sort=True)
    values = scores.to_numpy(dtype=float)
    given = ~np.isnan(values)
    filled = np.where(given, values, 0.0)
    others = given.sum(axis=0) - given
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (filled.sum(axis=0) - filled) / others
    rows = []
    for index, listener in enumerate(scores.index):
        both = given[index] & (others[index] > 0)
        own, rest = values[index, both], means[index, both]
        correlation, reason = math.nan, ""
        if len(scores) == 1:
            reason = "one listener"
        elif len(own) < 3:
            reason = "fewer than 3 scores in common with others"
        elif np.ptp(own) == 0:
            reason = "all scores equal"
        elif np.ptp(rest) < 1e-9:
            reason = "the others' means are all equal"
        else:
            correlation = float(np.corrcoef(own, rest)[0, 1])
        rows.append((str(listener), correlation, len(own), reason))
    return pd.DataFrame(rows, columns=["listener", "correlation", "n_cells", "reason"])
