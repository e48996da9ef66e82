"""Answers of listeners on pages other than MUSHRA, as one tidy table.

One row per answer: columns ``method``, ``listener``, ``item``, ``condition``, ``reference``, ``score``,
``reference_score`` (float, NaN without) and ``answer`` (text, "" without).

=================  ==================================================================================
method             content of a row
=================  ==================================================================================
bs1116             ``score`` of the condition and ``reference_score`` of the hidden reference, 1 to 5
acr                ``score`` 1 to 5
dcr                ``score`` 1 to 5 against the reference
ab                 ``answer``: the condition or its ``reference`` (here the second system), "" for none
abx                ``score`` 1 for right, 0 for wrong
paired_comparison  ``answer``: the ``reference`` is right, the condition wrong, anything else neither
=================  ==================================================================================

A listener may have several rows of one item and condition: presentations of ABX, repeats of AB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from mushra.analysis.ratings import Problem, natural_key

COLUMNS = ("method", "listener", "item", "condition", "reference", "score", "reference_score", "answer")
#: Methods in the order of a report -> their names.
METHODS = {
    "bs1116": "BS.1116",
    "ab": "AB preference",
    "abx": "ABX",
    "paired_comparison": "Paired comparison with the reference",
    "acr": "Absolute category rating (ACR)",
    "dcr": "Degradation category rating (DCR)",
}
#: Types of pages whose method has another name -> the method.
TYPES = {"likert_single_stimulus": "acr", "likert_multi_stimulus": "acr"}


@dataclass(frozen=True, eq=False)
class Judgements:
    """The answers of one listening test.

    Attributes:
        frame: the tidy table, see the module.
        problems: problems found while loading.
        sources: files that were read, and URLs of data bases.
        headphones: listener -> whether the headphone test was passed; only listeners who took it.
        gold_failures: listener -> number of gold items with a wrong answer, if there are any; None if the
            test has no gold items. The items themselves are not in the table.
    """

    frame: pd.DataFrame
    problems: tuple[Problem, ...] = ()
    sources: tuple[str | Path, ...] = ()
    headphones: Mapping[str, bool] = field(default_factory=dict)
    gold_failures: Mapping[str, int] | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that have rows, in the order of `METHODS`."""
        there = set(self.frame["method"])
        return tuple(name for name in METHODS if name in there)

    @property
    def listeners(self) -> tuple[str, ...]:
        return names(self.frame["listener"])

    def of(self, method: str) -> pd.DataFrame:
        """The rows of a method."""
        return self.frame[self.frame["method"] == method].reset_index(drop=True)

    def without(self, listeners: Iterable[str]) -> Judgements:
        """The answers of all other listeners."""
        frame = self.frame[~self.frame["listener"].isin(set(listeners))].reset_index(drop=True)
        return replace(self, frame=frame)


def names(column: Iterable[str]) -> tuple[str, ...]:
    """Distinct names in natural order."""
    return tuple(sorted(set(column), key=natural_key))
