"""Post-screening of listeners after ITU-R BS.1534-3, section 4.1.2, and signs of doubtful ratings.

Two rules exclude a listener. The hidden reference is under 90 on more than 15 % of the items that he or she
rated, or the mid anchor is over 90 on more than 15 % of them. Items whose mid anchor more than 25 % of all
listeners rate over 90 do not count for the second rule. With fewer than 7 items a single slip exceeds 15 %,
so the rules exclude nobody then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mushra.analysis.ratings import Ratings, natural_key
from mushra.standard import EXEMPT_SHARE, MAX_SHARE, MIN_SCREENED_ITEMS, THRESHOLD
from qincodec.core.errors import UserError, count

#: A listener who spends less than this on each condition of a page has hardly listened.
HASTY_S_PER_CONDITION = 2.0

SCREENING_COLUMNS = [
    "listener",
    "excluded",
    "reason",
    "reference_below_90_share",
    "mid_anchor_above_90_share",
]


#: Why a listener is kept: no rule is broken (stays), one is broken over fewer than 7 items (slipped), or the
#: experimenter keeps him or her (kept). Why one is excluded: a rule is broken (rule), the experimenter wants
#: it (asked), or the ratings are in doubt (flagged).
Verdict = Literal["stays", "slipped", "kept", "rule", "asked", "flagged"]


@dataclass(frozen=True)
class Screening:
    """Excluded listeners and the reasons.

    Attributes:
        listeners: one row per listener, `SCREENING_COLUMNS`; a share is NaN if its rule does not apply.
        exempt_items: items that do not count for the rule of the mid anchor.
        notes: limits of the rules in this test, one line each.
        verdicts: verdict on each listener.
        out_of_reach: listeners whom no rule can exclude, because they rated fewer than 7 items.
        doubtful: reasons for doubt about listeners (`doubtful`), excluded or not.
    """

    listeners: pd.DataFrame
    exempt_items: tuple[str, ...]
    notes: tuple[str, ...]
    verdicts: Mapping[str, Verdict]
    out_of_reach: tuple[str, ...]
    doubtful: Mapping[str, str]

    @property
    def excluded(self) -> tuple[str, ...]:
        return tuple(self.listeners.loc[self.listeners["excluded"], "listener"])

    def with_verdict(self, verdict: Verdict) -> int:
        """Number of listeners with that verdict."""
        return sum(found == verdict for found in self.verdicts.values())

    @property
    def kept_in_doubt(self) -> dict[str, str]:
        """The part of `doubtful` that is not excluded."""
        return {name: what for name, what in self.doubtful.items() if name not in self.excluded}


def screen(
    ratings: Ratings,
    *,
    keep: Collection[str] = (),
    exclude: Collection[str] = (),
    drop_flagged: bool = False,
    figures: pd.DataFrame | None = None,
) -> Screening:
    """Apply both rules of BS.1534-3.

    Args:
        ratings: all ratings.
        keep: listeners to keep whatever the rules say (`find_listener`); ``all`` keeps everybody not in
            ``exclude``.
        exclude: listeners to exclude whatever the rules say.
        drop_flagged: exclude listeners whose ratings are in doubt, except those that ``keep`` names.
        figures: `listener_figures` of the ratings, if they are known.

    Raises:
        UserError: a listener is unknown, or both kept and excluded.
    """
    listeners = ratings.listeners
    keep_all = "all" in keep and "all" not in listeners
    keep = {find_listener(name, listeners) for name in keep if not (keep_all and name == "all")}
    exclude = {find_listener(name, listeners) for name in exclude}
    both = keep & exclude
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
    suspects = doubtful(listener_figures(ratings) if figures is None else figures)
    rows = []
    out_of_reach: list[str] = []
    verdicts: dict[str, Verdict] = {}
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
            (reasons if share.items >= MIN_SCREENED_ITEMS else slips).append(text)
        items = [share.items for share in (below.get(listener), above.get(listener)) if share is not None]
        if items and max(items) < MIN_SCREENED_ITEMS:
            out_of_reach.append(listener)
        reason = "; ".join(reasons)
        verdict: Verdict = "rule" if reasons else "stays"
        if slips and not reasons:
            verdict, reason = "slipped", "; ".join(slips)
            reason += f": not excluded, because under {MIN_SCREENED_ITEMS} items one slip is too much"
        if reasons and (keep_all or listener in keep):
            verdict, reason = "kept", f"kept as asked; {reason}"
        if drop_flagged and listener in suspects and verdict != "rule" and listener not in keep:
            verdict, reason = "flagged", "; ".join([f"flagged: {suspects[listener]}", *reasons])
        if listener in exclude:
            verdict, reason = "asked", "; ".join(["excluded as asked", *reasons])
        verdicts[listener] = verdict
        excluded = verdict in ("rule", "asked", "flagged")
        rows.append((listener, excluded, reason, _value(below, listener), _value(above, listener)))
    if few := sum(verdict == "slipped" for verdict in verdicts.values()):
        notes.append(
            f"{few} {'listener breaks' if few == 1 else 'listeners break'} a screening rule on more than "
            f"15 % of fewer than {MIN_SCREENED_ITEMS} items, for which one slip is enough: not excluded."
        )
    table = pd.DataFrame(rows, columns=SCREENING_COLUMNS)
    return Screening(table, exempt, tuple(notes), verdicts, tuple(out_of_reach), suspects)


def find_listener(name: str, listeners: Collection[str]) -> str:
    """The listener with that name; the beginning of an id is enough, or its short form in figures.

    Raises:
        UserError: there is none, or several names begin with it.
    """
    if name in listeners:
        return name
    head, _, tail = name.partition("…")
    found = [
        listener
        for listener in listeners
        if len(head) >= 4 and listener.startswith(head) and listener.endswith(tail)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"'{name}' begins the names of {len(found)} listeners ({', '.join(found[:3])}); give a longer one"
        )
    raise UserError(
        f"there is no listener '{name}'; screening.csv lists their names "
        f"(the first is '{min(listeners, key=natural_key)}')"
    )


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
LISTENER_COLUMNS += ["n_not_given", "n_gold_failed", "flags"]


def listener_figures(ratings: Ratings) -> pd.DataFrame:
    """Figures about each listener, for information: they exclude nobody.

    Columns `LISTENER_COLUMNS`. ``one_slider_share``: pages on which at most one score differs from the
    others, as if only one slider had been moved; ``never_100_share``: pages without a 100, though listeners
    are asked to give one; ``reference_beaten_share``: pages where a system got more than the hidden
    reference; ``hasty_share``: pages left in less than `HASTY_S_PER_CONDITION` per condition. Shares are of
    the listener's pages. ``n_not_given``: scores left out because nobody gave them (`Ratings.not_given`).
    ``n_gold_failed``: gold items with a wrong answer. ``flags`` names the shares above one half, and scores
    that were not given. NaN if the data do not have it (no hidden reference, no times).
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
            # With two sliders at most one ever differs from the other.
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
    flagged = np.array(by_listener[list(names)].to_numpy() > _FLAG_SHARE)
    by_listener["n_not_given"] = [ratings.not_given.get(str(name), 0) for name in by_listener.index]
    by_listener["n_gold_failed"] = [ratings.gold_failures.get(str(name), 0) for name in by_listener.index]
    by_listener["flags"] = [
        "; ".join(
            [name for name, on in zip(names.values(), row, strict=True) if on]
            + [f"{count(n, 'score')} not given"] * bool(n)
            + [f"{count(wrong, 'gold item')} wrong"] * bool(wrong)
        )
        for row, n, wrong in zip(
            flagged, by_listener["n_not_given"], by_listener["n_gold_failed"], strict=True
        )
    ]
    table = by_listener.reindex(list(ratings.listeners)).rename_axis("listener").reset_index()
    return table[LISTENER_COLUMNS]


#: A share of a listener's pages above this makes a flag.
_FLAG_SHARE = 0.5


def doubtful(figures: pd.DataFrame) -> dict[str, str]:
    """Listeners whose ratings are in doubt, and the reasons.

    On more than half of the pages only one slider was moved, the page was left too fast, or a system got more
    than the hidden reference; or a gold item was answered wrongly. Pages without a 100 are not a reason.

    Args:
        figures: from `listener_figures`.
    """
    found = {}
    for row in figures.to_dict("records"):
        parts = [
            f"{what} on {row[share]:.0%} of the pages"
            for share, what in (
                ("one_slider_share", "one slider moved"),
                ("reference_beaten_share", "a system over the hidden reference"),
                ("hasty_share", "too fast"),
            )
            if row[share] > _FLAG_SHARE
        ]
        if row["hasty_share"] > _FLAG_SHARE:
            parts[-1] += f", {row['median_page_s']:.1f} s a page"
        if row["n_gold_failed"]:
            parts.append(f"{count(int(row['n_gold_failed']), 'gold item')} wrong")
        if parts:
            found[str(row["listener"])] = ", ".join(parts)
    return found
