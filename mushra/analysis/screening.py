"""Post-screening of listeners after ITU-R BS.1534-3, section 4.1.2, and what else is odd about a listener.

Two rules, each over the items a listener rated: the hidden reference under 90 on more than 15 % of them, or
the mid anchor over 90 on more than 15 % of them, where an item does not count if more than 25 % of all
listeners rate its mid anchor over 90. Under 7 items a single slip exceeds 15 %, so nobody is excluded by
itself then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mushra.analysis.ratings import Ratings
from qincodec.core.errors import UserError, count

THRESHOLD = 90.0
MAX_SHARE = 0.15
#: An item whose mid anchor more than this share of listeners rate over 90 does not count.
EXEMPT_SHARE = 0.25
#: One slip of fewer items is more than `MAX_SHARE`.
MIN_ITEMS = 7
#: A page left after less than this for each of its conditions was hardly listened to.
HASTY_S_PER_CONDITION = 2.0

SCREENING_COLUMNS = [
    "listener",
    "excluded",
    "reason",
    "reference_below_90_share",
    "mid_anchor_above_90_share",
]


@dataclass(frozen=True)
class Screening:
    """Who is excluded and why.

    Attributes:
        listeners: one row per listener, `SCREENING_COLUMNS`; a share is NaN where its rule does not apply.
        exempt_items: items that the rule of the mid anchor does not count.
        notes: what the rules could not do in this test, one line each.
    """

    listeners: pd.DataFrame
    exempt_items: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def excluded(self) -> tuple[str, ...]:
        return tuple(self.listeners.loc[self.listeners["excluded"], "listener"])


def screen(ratings: Ratings, *, keep: Collection[str] = (), exclude: Collection[str] = ()) -> Screening:
    """Apply both rules of BS.1534-3.

    Args:
        ratings: all ratings.
        keep: listeners who stay whatever the rules say; ``all`` keeps everybody not in ``exclude``.
        exclude: listeners who go whatever the rules say.

    Raises:
        UserError: a listener is unknown, or both kept and excluded.
    """
    listeners = ratings.listeners
    keep_all = "all" in keep and "all" not in listeners
    for name in (*exclude, *(name for name in keep if not (keep_all and name == "all"))):
        if name not in listeners:
            raise UserError(
                f"there is no listener '{name}' to keep or exclude; screening.csv lists their names "
                f"(the first is '{listeners[0]}')"
            )
    both = set(keep) & set(exclude)
    if both:
        raise UserError(f"listener '{min(both)}' is both kept and excluded; choose one")
    notes = []
    exempt = exempt_items(ratings)
    below = _shares(ratings, ratings.reference, lambda score: score < THRESHOLD, ())
    above = _shares(ratings, ratings.mid_anchor, lambda score: score > THRESHOLD, exempt)
    if ratings.reference is None:
        notes.append("Without a hidden reference its screening rule cannot be applied.")
    if ratings.mid_anchor is None:
        notes.append("Without a mid anchor (7 kHz) its screening rule cannot be applied.")
    rows = []
    few = 0
    for listener in listeners:
        reasons: list[str] = []
        slips: list[str] = []
        for share, what in (
            (below.get(listener), "hidden reference under 90"),
            (above.get(listener), "mid anchor over 90"),
        ):
            if share is None or share.count / share.items <= MAX_SHARE:
                continue
            text = f"{what} on {share.count} of {share.items} items ({share.count / share.items:.1%})"
            (reasons if share.items >= MIN_ITEMS else slips).append(text)
        few += bool(slips)
        excluded, reason = bool(reasons), "; ".join(reasons)
        if slips and not reasons:
            reason = (
                "; ".join(slips) + f": not excluded by itself, under {MIN_ITEMS} items one slip is too much"
            )
        if excluded and (keep_all or listener in keep):
            excluded, reason = False, f"kept as asked; {reason}"
        if listener in exclude:
            excluded, reason = True, "; ".join(["excluded as asked", *reasons])
        rows.append((listener, excluded, reason, _value(below, listener), _value(above, listener)))
    if few:
        notes.append(
            f"{few} {'listener exceeds' if few == 1 else 'listeners exceed'} 15 % over fewer than "
            f"{MIN_ITEMS} items, where one slip is enough to do so: not excluded by itself."
        )
    return Screening(pd.DataFrame(rows, columns=SCREENING_COLUMNS), exempt, tuple(notes))


def exempt_items(ratings: Ratings) -> tuple[str, ...]:
    """Items whose mid anchor more than 25 % of the listeners rate over 90."""
    frame = ratings.frame[ratings.frame["condition"] == ratings.mid_anchor]
    share = (frame["score"] > THRESHOLD).groupby(frame["item"]).mean()
    too_good = set(share[share > EXEMPT_SHARE].index)
    return tuple(item for item in ratings.items if item in too_good)


@dataclass(frozen=True)
class _Share:
    count: int
    items: int


def _shares(
    ratings: Ratings,
    condition: str | None,
    fails: Callable[[pd.Series[float]], pd.Series[bool]],
    exempt: Collection[str],
) -> dict[str, _Share]:
    frame = ratings.frame
    frame = frame[(frame["condition"] == condition) & ~frame["item"].isin(exempt)]
    groups = fails(frame["score"]).groupby(frame["listener"]).agg(["sum", "size"])
    return {
        str(name): _Share(int(count), int(items))
        for name, count, items in groups.itertuples(index=True, name=None)
    }


def _value(shares: dict[str, _Share], listener: str) -> float:
    share = shares.get(listener)
    return math.nan if share is None else share.count / share.items


# Information that excludes nobody

LISTENER_COLUMNS = ["listener", "n_items", "n_ratings", "mean", "reference_mean", "one_slider_share"]
LISTENER_COLUMNS += ["never_100_share", "reference_beaten_share", "median_page_s", "hasty_share"]
LISTENER_COLUMNS += ["n_not_given", "flags"]


def listener_figures(ratings: Ratings) -> pd.DataFrame:
    """What stands out about each listener, for information: nobody is excluded for it.

    Columns `LISTENER_COLUMNS`. ``one_slider_share``: pages on which at most one score differs from the
    others, as if only one slider had been moved; ``never_100_share``: pages without a 100, though listeners
    are told to give one; ``reference_beaten_share``: pages where a system got more than the hidden
    reference; ``hasty_share``: pages left in less than `HASTY_S_PER_CONDITION` per condition. Shares are of
    the listener's pages. ``n_not_given``: scores left out because nobody gave them (`Ratings.not_given`).
    ``flags`` names what holds for more than half of the pages, and scores not given. NaN where the data do
    not say (no hidden reference, no times).
    """
    frame = ratings.frame
    frame = frame.assign(
        top=frame["score"].where(frame["condition"].isin(ratings.systems)),
        reference=frame["score"].where(frame["condition"] == ratings.reference),
        time_s=frame["time_ms"] / 1000 if "time_ms" in frame else math.nan,
    )
    page = frame.groupby(["listener", "item"])
    size = page.size()
    pages = pd.DataFrame({"size": size, "max": page["score"].max(), "reference": page["reference"].max()})
    pages["top"], pages["time_s"] = page["top"].max(), page["time_s"].max()
    pages["alike"] = frame.groupby(["listener", "item", "score"]).size().groupby(["listener", "item"]).max()
    shares = pd.DataFrame(
        {
            # On a page of two every slider is the only other one.
            "one_slider_share": ((pages["alike"] >= size - 1) & (size > 2)).astype(float),
            "never_100_share": (pages["max"] < 100).astype(float),
            "reference_beaten_share": (pages["top"] > pages["reference"])
            .astype(float)
            .where(pages["reference"].notna()),
            "hasty_share": (pages["time_s"] < HASTY_S_PER_CONDITION * size)
            .astype(float)
            .where(pages["time_s"].notna()),
        }
    )
    by_listener = shares.groupby(level="listener").mean()
    by_listener["median_page_s"] = pages["time_s"].groupby(level="listener").median()
    by_listener["n_items"] = size.groupby(level="listener").size()
    scores = frame.groupby("listener")
    by_listener["n_ratings"] = scores.size()
    by_listener["mean"] = scores["score"].mean()
    by_listener["reference_mean"] = scores["reference"].mean()
    names = {
        "one_slider_share": "one slider only",
        "never_100_share": "never 100",
        "reference_beaten_share": "reference beaten",
        "hasty_share": "too fast",
    }
    flagged = np.array(by_listener[list(names)].to_numpy() > 0.5)
    by_listener["n_not_given"] = [ratings.not_given.get(str(name), 0) for name in by_listener.index]
    by_listener["flags"] = [
        "; ".join(
            [name for name, on in zip(names.values(), row, strict=True) if on]
            + [f"{count(n, 'score')} not given"] * bool(n)
        )
        for row, n in zip(flagged, by_listener["n_not_given"], strict=True)
    ]
    table = by_listener.reindex(list(ratings.listeners)).rename_axis("listener").reset_index()
    return table[LISTENER_COLUMNS]
