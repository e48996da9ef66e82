"""Gold items (`mushra.config.crowd`) in ratings: leave them out of results, count wrong answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from mushra.analysis.formats import Rows
from mushra.analysis.ratings import Problem
from mushra.analysis.sources import Source
from mushra.config.crowd import expected
from mushra.config.load import own_section
from mushra.config.locate import config_beside
from qincodec.core.errors import count


def without_gold(part: Rows, source: Source, problems: list[Problem]) -> Rows:
    """Rows of a file that does not mark gold items, without those that the YAML beside it names.

    The names must be those of the YAML: call this before a key replaces them.
    """
    config = config_beside(Path(source.test or source.path))
    section = own_section(config) if config is not None else None
    gold = expected(section.gold) if section is not None else {}
    frame = part.frame
    of_gold = frame["item"].isin({item for item, _ in gold})
    if not of_gold.any():
        return part
    who = frame["session"] if "session" in frame else frame["listener"]
    scores = pd.to_numeric(frame["score"], errors="coerce")
    wrong = pd.Series(0, frame.index)
    for index in frame.index[of_gold]:
        known = gold.get((str(frame.at[index, "item"]), str(frame.at[index, "condition"])))
        score = None if pd.isna(scores[index]) else float(scores[index])
        answer = str(frame.at[index, "answer"]) if "answer" in frame else None
        wrong[index] = int(known is not None and not known.is_met(score, answer))
    failures = wrong.groupby(who).transform("sum").astype(str)
    detail = f"{count(int(of_gold.sum()), 'rating')} of gold items left out"
    problems.append(Problem("gold", detail, int(of_gold.sum())))
    return replace(part, frame=frame.assign(gold_failures=failures)[~of_gold])


def count_gold(frame: pd.DataFrame) -> dict[str, int]:
    """Listener -> number of gold items with a wrong answer in all sessions; without those who have none."""
    if "gold_failures" not in frame:
        return {}
    sessions = frame.drop_duplicates(["listener", "session"])
    wrong = pd.to_numeric(sessions["gold_failures"], errors="coerce").fillna(0).astype(int)
    totals = wrong.groupby(sessions["listener"]).sum()
    return {str(name): int(total) for name, total in totals.items() if total}
