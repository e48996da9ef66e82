"""All methods of a test in one call: `analyze`. It does not read or write files."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mushra.analysis.methods import bs1116, detection, opinion, preference
from mushra.analysis.methods.judgements import METHODS, Judgements
from mushra.analysis.methods.tables import Section
from mushra.analysis.ratings import Problem
from mushra.analysis.screening import find_listener
from qincodec.core.errors import UserError

Result = bs1116.DifferenceGrades | preference.Preferences | detection.Detections | opinion.Opinions


@dataclass(frozen=True, eq=False)
class MethodsAnalysis:
    """Results of `analyze`.

    Attributes:
        judgements: the answers before screening.
        results: method -> its result, in the order of `METHODS`.
        problems: problems found while loading and while analysing.
        seed: of the bootstrap.
    """

    judgements: Judgements
    results: dict[str, Result]
    problems: tuple[Problem, ...]
    seed: int

    @property
    def sections(self) -> tuple[Section, ...]:
        """Sections of a report, one for each method."""
        return tuple(_section(result) for result in self.results.values())


def analyze(
    judgements: Judgements,
    *,
    seed: int = 0,
    keep: Collection[str] = (),
    exclude: Collection[str] = (),
    margin: float | None = None,
    gold: opinion.Gold | None = None,
) -> MethodsAnalysis:
    """Analyse each method in the data.

    Args:
        judgements: from `mushra.analysis.methods.load.load`.
        seed: of the bootstrap.
        keep: listeners whom screening must not exclude; ``all`` for everybody.
        exclude: listeners to exclude from all methods.
        margin: points of the scale within which two systems count as equivalent (BS.1116, ACR, DCR).
        gold: gold and trapping questions of ACR and DCR, see `mushra.analysis.methods.opinion`.

    Raises:
        UserError: a listener or gold question is unknown, or nobody is left.
    """
    who = judgements.listeners
    keep = {name if name == "all" and "all" not in who else find_listener(name, who) for name in keep}
    exclude = {find_listener(name, who) for name in exclude}
    if both := keep & exclude:
        raise UserError(f"listener '{min(both)}' is both kept and excluded; choose one")
    if gold:
        asked = _pairs(judgements.of("acr")) | _pairs(judgements.of("dcr"))
        for item, condition in sorted(set(gold) - asked):
            raise UserError(
                f"gold question '{condition}' of item '{item}' is not in the answers; check --gold, whose "
                "names are those of results"
            )
    problems = list(judgements.problems)
    results: dict[str, Result] = {}
    for method in judgements.methods:
        frame = judgements.of(method)
        if method in ("ab", "abx", "paired_comparison"):
            frame = frame[~frame["listener"].isin(exclude)]
            if frame.empty:
                raise UserError(f"all listeners of {METHODS[method]} are excluded; keep some")
        if method == "bs1116":
            results[method] = bs1116.analyze_bs1116(
                frame, problems, seed=seed, margin=margin, keep=keep, exclude=exclude
            )
        elif method == "ab":
            results[method] = preference.analyze_preferences(frame)
        elif method in ("abx", "paired_comparison"):
            results[method] = detection.analyze_detection(method, frame)
        else:
            results[method] = opinion.analyze_opinions(
                method,
                frame,
                problems,
                seed=seed,
                margin=margin,
                gold={pair: expected for pair, expected in (gold or {}).items() if pair in _pairs(frame)},
                gold_failures=judgements.gold_failures,
                headphones=judgements.headphones,
                keep=keep,
                exclude=exclude,
            )
    return MethodsAnalysis(judgements, results, tuple(problems), seed)


def _pairs(frame: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(frame["item"], frame["condition"], strict=True))


def _section(result: Result) -> Section:
    if isinstance(result, bs1116.DifferenceGrades):
        return bs1116.section(result)
    if isinstance(result, preference.Preferences):
        return preference.section(result)
    return detection.section(result) if isinstance(result, detection.Detections) else opinion.section(result)


def read_gold(path: Path) -> dict[tuple[str, str], set[str]]:
    """Gold and trapping questions of a CSV with the columns ``item, condition, expected``.

    Several right answers are in several rows, or in one row with ``|`` between them.

    Raises:
        UserError: the file cannot be read, or has other columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}; give a CSV in UTF-8") from error
    wanted = ("item", "condition", "expected")
    if not rows or any(not row.get(name) for row in rows for name in wanted):
        raise UserError(f"{path} is not a list of gold questions: each row needs {', '.join(wanted)}")
    gold: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        gold.setdefault((row["item"], row["condition"]), set()).update(row["expected"].split("|"))
    return gold
