"""Claims that the paired tests of a run support, per asked rate and metric."""

from __future__ import annotations

import math

import pandas as pd

from evaluation.records import MetricInfo, is_untrained
from evaluation.results import Finding, Results
from evaluation.statistics.few import FEW_RECORDINGS
from evaluation.statistics.recordings import MAX_RATE_SPREAD, SIGNIFICANCE, asked_rates


def findings(results: Results, summary: pd.DataFrame, tests: pd.DataFrame) -> list[Finding]:
    """Claims about the best codec, by metric, then by asked rate.

    Nothing is tested here: a claim uses the tests of `paired_tests` between the codec with the best mean and
    every other one. Holm's correction covers all pairs and rates of a metric, so it also covers pairs that
    are chosen by their means. There is no claim

    * about an unfinished run, because more clips may change it;
    * about codecs that miss the asked rate or were never trained, or about a rate at which the others are
      more than `MAX_RATE_SPREAD` apart;
    * from fewer than `FEW_RECORDINGS` recordings: an interval of a mean covers less than 95 %, and a test
      without a difference means nothing;
    * if a pair has no test, or a test contradicts the means, which failed clips can cause;
    * if a test of ranks finds a difference and the means do not, which skewed values can cause.

    Args:
        summary: from `summarize`.
        tests: from `paired_tests`.
    """
    if results.unfinished:
        return []
    untrained = {c.codec for c in results.conditions if is_untrained(c.identity)}
    fair = ~summary["control"].astype(bool) & ~summary["rate_off"].astype(bool)
    fair &= ~summary["codec"].isin(untrained) & summary["kbps_measured"].notna()
    found = []
    for metric in results.metrics:
        for kbps in asked_rates(results):
            rows = summary[fair & (summary["kbps"] == kbps)].dropna(subset=[metric.name])
            rates = rows["kbps_measured"]
            if len(rows) < 2 or rates.max() / rates.min() - 1 > MAX_RATE_SPREAD:
                continue
            here = tests[(tests["metric"] == metric.name) & (tests["kbps"] == kbps)]
            found.append(_finding(metric, rows, here))
    return [finding for finding in found if finding is not None]


def _finding(metric: MetricInfo, rows: pd.DataFrame, tests: pd.DataFrame) -> Finding | None:
    """The finding on the codecs of ``rows``, which are all at one rate."""
    sign = 1 if metric.higher_is_better else -1
    order = (sign * rows[metric.name].astype(float)).sort_values(ascending=False, kind="stable")
    best, *others = rows.loc[order.index, "codec"]
    ties, worse = [], []
    numbers = []
    for other in others:
        pair = tests[tests["codec_a"].isin([best, other]) & tests["codec_b"].isin([best, other])]
        if len(pair) != 1:
            return None
        row = pair.iloc[0]
        numbers.append(row["n_recordings"])
        if row["winner"] == "n.s.":
            if row["p_holm"] < SIGNIFICANCE:
                return None
            ties.append(other)
        elif row["winner"] == best:
            turn = sign if row["codec_a"] == best else -sign
            low, high = sorted((turn * row["ci_low"], turn * row["ci_high"]))
            if not low > 0:
                return None
            worse.append((float(turn * row["difference"]), float(low), float(high), other))
        else:
            return None
    if min(numbers) < FEW_RECORDINGS:
        return None
    lead = min(worse, default=(math.nan, math.nan, math.nan, ""))
    return Finding(
        metric=metric.name,
        kbps=float(rows["kbps"].iloc[0]),
        best=best,
        ties=tuple(ties),
        worse=tuple(name for *_, name in worse),
        nearest=lead[3],
        lead=lead[0],
        ci_low=lead[1],
        ci_high=lead[2],
        n_recordings=int(min(numbers)),
    )
