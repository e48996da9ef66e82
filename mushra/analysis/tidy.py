"""Clean rows step by step to one score per listener, item and condition.

Each step reports what it drops or changes as a `Problem`: values that are not scores, sessions stored twice,
scores that nobody gave, ratings given twice, and missing ratings.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from mushra.analysis.ratings import COLUMNS, Problem, natural_key
from mushra.store.given import nobody_gave
from qincodec.core.errors import UserError, count

#: From this share of repeated ratings of a condition on, its name counts as that of two stimuli.
_DUPLICATE_NAME_SHARE = 0.5


def some(frame: pd.DataFrame) -> pd.DataFrame:
    if frame.empty:
        raise UserError("no usable rating is left; check the file, the column map and --drop-item")
    return frame


#: The scale of a MUSHRA test, and others that ratings may be on.
SCALE = (0.0, 100.0)
_OTHER_SCALES = ((0.0, 1.0), (1.0, 5.0), (-4.0, 0.0))


def numbers(
    frame: pd.DataFrame, problems: list[Problem], scale: tuple[float, float] | None = None
) -> pd.DataFrame:
    """Scores and times as numbers; rows without a valid score are left out, never clipped.

    Args:
        scale: scale of the scores; its ends become 0 and 100.

    Raises:
        UserError: no scale is given, and all scores fit a scale other than that of MUSHRA.
    """
    frame = frame.copy()
    texts = frame["score"]
    score = pd.to_numeric(texts, errors="coerce")
    if scale is None:
        _ask_for_scale(score)
    low, high = scale or SCALE
    no_number = score.isna()
    outside = ~no_number & ~score.between(low, high)
    for mask, kind, what in (
        (no_number, "no number", "without a number"),
        (outside, "outside the scale", f"outside {low:g} to {high:g}"),
    ):
        if mask.any():
            first = frame[mask].iloc[0]
            detail = f"{count(int(mask.sum()), 'score')} {what} (first: '{first['score']}' of listener"
            detail += f" {first['listener']}, item {first['item']}, {first['condition']}); left out"
            problems.append(Problem(kind, detail, int(mask.sum())))
    frame["score"] = score.astype(float)
    # pandas' own conversion may be wrong in the last digit.
    frame.loc[~no_number, "score"] = [float(text) for text in texts[~no_number]]
    taken = int((~no_number & ~outside).sum())
    if (low, high) != SCALE:
        frame["score"] = 100 * (frame["score"] - low) / (high - low)
        problems.append(
            Problem("scale", f"scores from {low:g} to {high:g} were stretched to 0 to 100", taken)
        )
    if "time_ms" in frame:
        time = pd.to_numeric(frame["time_ms"], errors="coerce")
        lost = int((time.isna() & frame["time_ms"].fillna("").astype(str).ne("")).sum())
        if lost:
            problems.append(Problem("no time", f"{lost} times are not numbers and are not used", lost))
        frame["time_ms"] = time
    return some(frame[~no_number & ~outside])


def _ask_for_scale(score: pd.Series[float]) -> None:
    if other := other_scale(score):
        low, high = other
        raise UserError(
            f"all scores lie within {low:g} to {high:g} ({score.min():g} to {score.max():g}): give "
            f"--scale {low:g},{high:g} if that is their scale, or --scale 0,100"
        )


def other_scale(score: pd.Series[float]) -> tuple[float, float] | None:
    """Scale other than that of MUSHRA that fits all scores; None if there is none."""
    if score.nunique() < 2:
        return None
    return next((scale for scale in _OTHER_SCALES if score.dropna().between(*scale).all()), None)


def drop_repeats(frame: pd.DataFrame, problems: list[Problem]) -> pd.DataFrame:
    """Leave out rows and whole sessions that were stored twice."""
    content = [c for c in frame if c != "source"]
    again = frame.duplicated(content, keep="first")
    if again.any():
        sessions = frame.loc[again, "session"].nunique()
        detail = (
            f"{count(int(again.sum()), 'row')} of {count(sessions, 'session')} stored twice; counted once"
        )
        problems.append(Problem("stored twice", detail, int(again.sum())))
        frame = frame[~again]
    if "time_ms" not in frame:
        return frame
    # With the same answers and the same milliseconds on every page it is one session under two ids.
    seen: dict[tuple[Any, ...], str] = {}
    twins = []
    said = ["item", "condition", "reference", "score", "reference_score", "answer", "time_ms"]
    columns = [name for name in said if name in frame]
    for session, rows in frame.groupby("session", sort=False):
        if rows["time_ms"].isna().any() or not (rows["time_ms"] > 0).all():
            continue
        signature = tuple(sorted(map(tuple, rows[columns].astype(str).to_numpy())))
        if signature in seen:
            twins.append(session)
        seen.setdefault(signature, str(session))
    if twins:
        rows_twice = frame["session"].isin(twins)
        detail = f"{count(len(twins), 'session')} equal to another one to the millisecond ("
        detail += ", ".join(map(str, twins[:3]))
        detail += ", ...); counted once" if len(twins) > 3 else "); counted once"
        problems.append(Problem("stored twice", detail, int(rows_twice.sum())))
        frame = frame[~rows_twice]
    return frame


def one_name(frame: pd.DataFrame, problems: list[Problem]) -> pd.DataFrame:
    """Report listeners with the same name in the questionnaire, who may be one person; drop the names."""
    if "person" not in frame:
        return frame
    named = frame[frame["person"].fillna("") != ""]
    for _, rows in named.groupby("person", sort=True):
        listeners = sorted(rows["listener"].unique(), key=natural_key)
        if len(listeners) > 1:
            detail = (
                f"{' and '.join(listeners)} gave the same name in the questionnaire: if this is one person, "
            )
            detail += f"leave a session out with --exclude {listeners[-1]}"
            problems.append(Problem("same name", detail, len(rows)))
    return frame.drop(columns="person")


def drop_not_given(frame: pd.DataFrame, problems: list[Problem]) -> tuple[pd.DataFrame, dict[str, int]]:
    """The frame without scores that nobody gave, and the number of these of each listener."""
    if "moves" not in frame:
        return frame, {}
    moves = pd.to_numeric(frame["moves"], errors="coerce")
    left_out = np.array([nobody_gave(*pair) for pair in zip(frame["score"], moves, strict=True)], dtype=bool)
    whose = Counter(frame.loc[left_out, "listener"])
    if whose:
        listeners = ", ".join(f"{name} {whose[name]}" for name in sorted(whose, key=natural_key))
        detail = (
            f"{count(int(left_out.sum()), 'score')} stored without a move of the slider: nobody gave them, "
        )
        detail += f"left out (listener and number: {listeners})"
        problems.append(Problem("not given", detail, int(left_out.sum())))
    return some(frame[~left_out]), dict(whose)


def average_repeats(frame: pd.DataFrame, problems: list[Problem]) -> pd.DataFrame:
    """One score per listener, item and condition: the mean if there are several.

    Raises:
        UserError: one condition is repeated on most of its pages while others are not: two stimuli have one
            name.
    """
    cell = ["listener", "item", "condition"]
    counts = frame.groupby(cell, sort=False).size()
    if (counts > 1).any():
        # Count within a session: a listener with several sessions rates conditions several times.
        each = frame.groupby(["listener", "session", "item", "condition"], sort=False).size()
        page = each.groupby(level=["listener", "session", "item"]).transform("min")
        twice = (each > page).groupby(level="condition").mean()
        if (twice >= _DUPLICATE_NAME_SHARE).any():
            name = str(twice.idxmax())
            raise UserError(
                f"condition '{name}' is rated more than once on {twice[name]:.0%} of its pages, and others "
                "are not: two stimuli have this name; give each its own"
            )
        many = counts[counts > 1]
        listener, item, condition = many.index[0]
        detail = f"{count(len(many), 'time')} a listener rated one condition of an item more than once,"
        detail += f" differently (first: listener {listener}, item {item}, {condition}); their mean is used"
        problems.append(Problem("rated twice", detail, int(many.sum())))
    rest = [c for c in ("time_ms", "comment", "session", "test", "order") if c in frame]
    # With `fsum` the mean does not depend on the order of the ratings.
    how: dict[str, Any] = {"score": lambda scores: math.fsum(scores) / len(scores)}
    how |= dict.fromkeys(rest, "first")
    if (counts > 1).any():
        frame = frame.groupby(cell, sort=False).agg(how).reset_index()
    return frame[[*COLUMNS, *rest]]


def missing_ratings(frame: pd.DataFrame) -> list[Problem]:
    """Gaps in the table of listeners, items and conditions: one problem per kind."""
    problems = []
    conditions = set(frame["condition"])
    by_item = frame.groupby("item")["condition"].agg(set)
    lacking = {str(item): conditions - there for item, there in by_item.items() if conditions - there}
    if lacking:
        item = min(lacking, key=natural_key)
        detail = (
            f"{len(lacking)} of {len(by_item)} items were not rated under all {len(conditions)} conditions"
        )
        detail += f" (first: {item} lacks {', '.join(sorted(lacking[item], key=natural_key))})"
        problems.append(Problem("missing conditions", detail, sum(map(len, lacking.values()))))
    pages = frame.groupby(["listener", "item"]).size()
    full = by_item.map(len).reindex(pages.index.get_level_values("item")).to_numpy()
    short = pages[pages.to_numpy() < full]
    if len(short):
        gaps = int((full - pages.to_numpy()).sum())
        listener, item = min(short.index.tolist(), key=lambda pair: [natural_key(name) for name in pair])
        detail = (
            f"{count(gaps, 'rating')} missing on {count(len(short), 'page')} (first: listener {listener}, "
        )
        detail += f"item {item})"
        problems.append(Problem("missing ratings", detail, gaps))
    items = frame.groupby("listener")["item"].nunique()
    partial = items[items < len(by_item)]
    if len(partial):
        names = ", ".join(sorted(partial.index, key=natural_key)[:5]) + (", ..." if len(partial) > 5 else "")
        detail = f"{len(partial)} of {len(items)} listeners did not rate all {len(by_item)} items ({names})"
        problems.append(Problem("missing items", detail, int((len(by_item) - partial).sum())))
    return problems


def ranks(names: pd.Series[str]) -> np.ndarray:
    order = {name: rank for rank, name in enumerate(sorted(names.unique(), key=natural_key))}
    return names.map(order).to_numpy()
