"""Proportions of trials that are clustered by listeners, and the binomial test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mushra.analysis.description import CONFIDENCE

#: Power of the test for which a detectable proportion is given.
POWER = 0.8


@dataclass(frozen=True)
class Share:
    """A proportion with its 95 % interval over listeners.

    ``effective_n`` is the number of independent trials that would give the same certainty.
    """

    value: float
    low: float
    high: float
    n: float
    n_listeners: int
    effective_n: float


def clustered_share(hits: Sequence[float] | np.ndarray, trials: Sequence[float] | np.ndarray) -> Share:
    """Share of ``hits`` in ``trials``, given for each listener; hits may be halves.

    The interval is that of Clopper and Pearson with the effective number of trials of Korn and Graubard
    (1998): p (1 - p) over the variance between listeners, reduced for few listeners and at most the number of
    trials. With one listener it holds only for more trials of that listener.
    """
    h, n = np.asarray(hits, dtype=float), np.asarray(trials, dtype=float)
    total, m = float(n.sum()), len(n)
    if total == 0:
        return Share(math.nan, math.nan, math.nan, 0.0, m, 0.0)
    p = float(h.sum()) / total
    effective = total
    if m > 1:
        variance = m / (m - 1) * float(((h - p * n) ** 2).sum()) / total**2
        tail = (1 + CONFIDENCE) / 2
        # Between listeners the variance is known with m - 1 degrees of freedom only.
        few = (stats.norm.ppf(tail) / stats.t.ppf(tail, m - 1)) ** 2
        effective = min(total, p * (1 - p) / variance * few) if variance > 0 else total
    x, tail = p * effective, (1 - CONFIDENCE) / 2
    low = float(stats.beta.ppf(tail, x, effective - x + 1)) if x > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, x + 1, effective - x)) if x < effective else 1.0
    return Share(p, low, high, total, m, effective)


def detectable(n: int, alpha: float) -> float:
    """Smallest proportion that a one-sided binomial test of ``n`` trials against one half finds.

    With `POWER`, at level ``alpha``; NaN if no result of so few trials is significant.
    """
    critical = int(stats.binom.isf(alpha, n, 0.5)) + 1  # P(X >= critical) <= alpha
    if n == 0 or critical > n:
        return math.nan
    return float(stats.beta.ppf(POWER, critical, n - critical + 1))
