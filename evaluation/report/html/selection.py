"""Choice of the clips to hear in a report: the best, the median and the worst of every metric."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from evaluation.records import MetricInfo
from evaluation.results import Results

HOW = (
    "For each metric the clips are ordered by their rank among all clips, averaged over all codecs and rates"
    " under test. Clips that lack a value anywhere are not ordered; infinite values count as the highest or"
    " lowest."
)
#: A clip that was chosen by one metric also lists ranks by other metrics, down to the second worst and best.
_MAX_DEPTH = 2


def clip_order(results: Results, metric: MetricInfo) -> list[str]:
    """Clip ids from the worst to the best by one metric, as `HOW` says; ties by id."""
    tested = [c.codec for c in results.conditions if not c.control]
    rows = results.clips[results.clips["codec"].isin(tested) & results.clips["error"].isna()]
    if rows.empty:
        return []
    values = rows.assign(score=rows[metric.name].astype(float)).dropna(subset=["score"])
    keys = [values["codec"], values["kbps"].fillna(-1.0)]
    ranks = values["score"].groupby(keys).rank(pct=True, ascending=metric.higher_is_better)
    by_clip = pd.DataFrame({"clip": values["clip"], "rank": ranks}).groupby("clip")["rank"]
    # Conditions without any value do not count: a codec that failed everywhere must not empty the order.
    complete = by_clip.size() == values.groupby(keys).ngroups
    means = by_clip.mean()[complete].round(12)  # equal means must tie in spite of their rounding
    return sorted(means.index, key=lambda clip: (means[clip], clip))


def choose_clips(results: Results) -> list[tuple[str, list[str]]]:
    """All clips in the order of their interest, with the reasons: ("id", ["worst SI-SDR"]).

    First the worst of every metric, then the best of each, then the medians; then the second worst, and so
    on. Clips that no metric orders come last, by id, without a reason.
    """
    orders = {metric.label: clip_order(results, metric) for metric in results.clip_metrics}
    chosen: dict[str, list[str]] = {}
    for clip, depth, reason in _candidates(orders):
        if depth < _MAX_DEPTH or clip not in chosen:
            chosen.setdefault(clip, []).append(reason)
    for clip in sorted(results.clips["clip"].unique()):
        chosen.setdefault(clip, [])
    return list(chosen.items())


def _candidates(orders: dict[str, list[str]]) -> Iterator[tuple[str, int, str]]:
    longest = max((len(order) for order in orders.values()), default=0)
    for depth in range((longest + 1) // 2):
        nth = "" if depth == 0 else f"{_ordinal(depth + 1)} "
        for label, order in orders.items():
            if depth < len(order):
                yield order[depth], depth, f"{nth}worst {label}"
        for label, order in orders.items():
            if depth < len(order):
                yield order[-1 - depth], depth, f"{nth}best {label}"
        for label, order in orders.items():
            if depth == 0 and order:
                yield order[len(order) // 2], depth, f"median {label}"


def num_extremes(chosen: list[tuple[str, list[str]]]) -> int:
    """Number of clips of `choose_clips` that are the worst, the best or the median of a metric."""
    return sum(any(not reason[0].isdigit() for reason in reasons) for _, reasons in chosen)


def _ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
