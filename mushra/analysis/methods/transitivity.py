"""Whether the preferences of AB pages are transitive: circular triads of each listener and of the panel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mushra.analysis.methods.judgements import names

LISTENER_COLUMNS = ["listener", "n", "ties", "pairs", "triads", "circular", "zeta", "remark"]


def transitivity(table: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Circular triads of each listener's majorities, and of the panel's (listener "")."""
    rows = [_triads("", table, systems)]
    rows += [_triads(str(name), own, systems) for name, own in table.groupby("listener")]
    order = {name: place for place, name in enumerate(names(table["listener"]), start=1)} | {"": 0}
    rows.sort(key=lambda row: order[str(row["listener"])])
    return pd.DataFrame(rows, columns=LISTENER_COLUMNS)


def _triads(listener: str, table: pd.DataFrame, systems: Sequence[str]) -> dict[str, object]:
    place = {name: number for number, name in enumerate(systems)}
    beats = np.zeros((len(systems), len(systems)), dtype=bool)
    means = table.groupby(["a", "b"], sort=False)["win"].mean()
    for a, b, win in means.reset_index().itertuples(index=False, name=None):
        beats[place[a], place[b]] = win > 0.5
        beats[place[b], place[a]] = win < 0.5
    decided = beats | beats.T
    triads = circular = 0
    for i, j, k in itertools.combinations(range(len(systems)), 3):
        if decided[i, j] and decided[j, k] and decided[i, k]:
            triads += 1
            circular += int(beats[i, j] == beats[j, k] == beats[k, i])
    complete = bool(decided.sum() == len(systems) * (len(systems) - 1))
    zeta, remark = math.nan, ""
    if len(systems) < 3:
        remark = "no triad without 3 systems"
    elif not complete:
        remark = "some pairs have no majority, so there is no zeta"
    else:
        zeta = kendall_zeta(circular, len(systems))
    return {
        "listener": listener,
        "n": len(table),
        "ties": int((table["win"] == 0.5).sum()),
        "pairs": int(decided.sum()) // 2,
        "triads": triads,
        "circular": circular,
        "zeta": zeta,
        "remark": remark,
    }


def kendall_zeta(circular: int, systems: int) -> float:
    """Kendall and Babington Smith's (1940) coefficient of consistence: 1 without circular triads, 0 with the
    largest possible number."""
    most = systems * (systems**2 - (1 if systems % 2 else 4)) / 24
    return 1 - circular / most
