"""Summary columns and paired differences of distances between distributions: one number per condition.

Their intervals come from the jackknife over recordings (`evaluation.statistics.distributions.jackknife`). A
bootstrap would repeat recordings, which shrinks the effective sample, and a Frechet distance grows as that
falls.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from evaluation.results import CorpusScore, Results
from evaluation.statistics.distributions import jackknife


def find_score(
    results: Results, metric: str, codec: str, kbps: float | None, *, common: bool = False
) -> CorpusScore:
    """The score of a condition; one without a value if there is none yet."""
    for score in results.scores:
        if (score.metric, score.codec, score.kbps, score.common) == (metric, codec, kbps, common):
            return score
    return CorpusScore(metric, codec, kbps, math.nan, reason="not computed yet", ci_reason="not computed yet")


def corpus_columns(score: CorpusScore) -> dict[str, Any]:
    """Entries of a row of the summary, as `evaluation.statistics.recordings.summarize` names them."""
    name = score.metric
    return {
        name: score.value,
        f"{name}_ci_low": score.low,
        f"{name}_ci_high": score.high,
        f"{name}_n": score.n_clips,
        f"{name}_inf": 0,
        f"{name}_reason": score.reason,
        f"{name}_ci_reason": score.ci_reason,
        f"{name}_frames": score.n_frames,
        f"{name}_half": score.half,
        f"{name}_half_frames": score.half_frames,
        f"{name}_limit": score.limit,
    }


def paired_difference(a: CorpusScore, b: CorpusScore) -> dict[str, Any]:
    """a - b with its interval and two-sided p by a paired jackknife: the same groups are left out of both.

    Returns:
        ``n_recordings, n_clips, difference, ci_low, ci_high, p, reason``; NaN with the reason where the two
        were not computed from the same clips.
    """
    row: dict[str, Any] = dict.fromkeys(("difference", "ci_low", "ci_high", "p"), math.nan)
    row |= {"n_recordings": 0, "n_clips": 0, "reason": ""}
    for score in (a, b):
        if math.isnan(score.value):
            return {**row, "reason": f"{score.codec}: {score.reason}"}
    if a.members != b.members:
        return {
            **row,
            "reason": "not the same clips: a distance between distributions depends on their number",
        }
    row |= {"n_recordings": a.n_recordings, "n_clips": a.n_clips, "difference": a.value - b.value}
    if not a.left_out or len(a.left_out) != len(b.left_out) or a.sizes != b.sizes:
        return {**row, "reason": a.ci_reason or b.ci_reason}
    interval = jackknife(row["difference"], np.subtract(a.left_out, b.left_out).tolist(), a.sizes)
    row |= {"ci_low": interval.low, "ci_high": interval.high}
    if interval.error > 0:
        row["p"] = float(2 * stats.t.sf(abs(row["difference"]) / interval.error, interval.groups - 1))
    else:
        row |= {"p": 1.0, "reason": "all differences are zero"}
    return row
