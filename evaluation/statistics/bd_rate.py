"""BD-rate: difference in rate between two codecs of the same quality."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd

from evaluation.records import MetricInfo
from evaluation.results import Results
from qincodec.core.errors import UserError

#: Points per curve that BD-rate was defined for (ITU-T VCEG-M33).
MIN_BD_POINTS = 4
#: Smallest overlap of the curves' metric ranges; with less, BD-rate says nothing about the rest.
MIN_BD_OVERLAP = 0.5

_BD_COLUMNS = ["metric", "anchor", "codec", "bd_rate", "overlap", "n_points_anchor", "n_points", "method"]
_BD_COLUMNS += ["reason"]


def bd_rate(results: Results, summary: pd.DataFrame, *, anchor: str | None = None) -> pd.DataFrame:
    """Bjontegaard delta rate of every codec against ``anchor``, per metric, over measured rates.

    It is the average difference in rate at equal metric, in percent; negative: the codec needs less than the
    anchor. The interpolation of log rate over the metric is Akima's, the most accurate according to Herglotz
    et al. (2022, "Beyond Bjontegaard: Limits of Video Compression Performance Comparisons"). A curve
    needs `MIN_BD_POINTS` points and must be strictly monotone; the curves must share `MIN_BD_OVERLAP` of
    the range of metric values that they cover together. Otherwise ``bd_rate`` is NaN with a ``reason``.
    Points with declared rates, or whose mean leaves out infinite values, are not used. Interpolated rows are
    replaced by the points around them.

    Args:
        summary: from `summarize`.
        anchor: codec to compare with; default: the first with enough points.

    Returns:
        Columns ``metric, anchor, codec, bd_rate, overlap, n_points_anchor, n_points, method, reason``;
        no row if there are fewer than two codecs or none has enough points.

    Raises:
        UserError: ``anchor`` is not one of the codecs.
    """
    if results.points is not None:
        summary = pd.concat([summary, results.points.summary], ignore_index=True)
    codecs = list(dict.fromkeys(c.codec for c in results.conditions if not c.control))
    if anchor is not None and anchor not in codecs:
        raise UserError(f"BD-rate anchor '{anchor}' is not in this run; choose one of {', '.join(codecs)}")
    rows = []
    for metric in results.metrics:
        curves = {codec: _curve(summary, codec, metric) for codec in codecs}
        enough = [codec for codec in codecs if len(curves[codec][0]) >= MIN_BD_POINTS]
        reference = anchor or next(iter(enough), None)
        if reference is None:
            continue
        for codec in codecs:
            if codec != reference:
                value, overlap, reason = _bd_rate(reference, curves[reference], codec, curves[codec])
                points = (len(curves[reference][0]), len(curves[codec][0]))
                rows.append((metric.name, reference, codec, value, overlap, *points, "akima", reason))
    return pd.DataFrame(rows, columns=_BD_COLUMNS)


def _curve(summary: pd.DataFrame, codec: str, metric: MetricInfo) -> tuple[np.ndarray, np.ndarray]:
    """(rates, quality) in ascending order of rate; quality is the metric, negated if lower is better."""
    rows = summary[(summary["codec"] == codec) & ~summary["control"].astype(bool)]
    rows = rows[(rows["rate_is"] == "measured") & (rows[f"{metric.name}_inf"] == 0)]
    points = rows[["kbps_measured", metric.name]].astype(float).dropna()
    # Two asked rates can have the same operating point.
    points = points[points["kbps_measured"] > 0].drop_duplicates().sort_values("kbps_measured")
    quality = points[metric.name].to_numpy() * (1 if metric.higher_is_better else -1)
    return points["kbps_measured"].to_numpy(), quality


def _bd_rate(
    anchor: str,
    anchor_curve: tuple[np.ndarray, np.ndarray],
    codec: str,
    codec_curve: tuple[np.ndarray, np.ndarray],
) -> tuple[float, float, str]:
    """(BD-rate in percent, overlap, reason)."""
    for name, (rates, quality) in ((anchor, anchor_curve), (codec, codec_curve)):
        if len(rates) < MIN_BD_POINTS:
            return math.nan, math.nan, f"{name} has {len(rates)} usable rates, {MIN_BD_POINTS} are needed"
        if (np.diff(rates) <= 0).any() or (np.diff(quality) <= 0).any():
            return math.nan, math.nan, f"{name} does not get better with every step in rate"
    lows, highs = zip(*((q.min(), q.max()) for _, q in (anchor_curve, codec_curve)), strict=True)
    overlap = float(max(min(highs) - max(lows), 0) / (max(highs) - min(lows)))
    if overlap < MIN_BD_OVERLAP:
        reason = f"the curves share {overlap:.0%} of their range, {MIN_BD_OVERLAP:.0%} needed"
        return math.nan, overlap, reason
    import bjontegaard  # here, because it imports pyplot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns below 75 % overlap; the column ``overlap`` shows that
        value = bjontegaard.bd_rate(
            *anchor_curve, *codec_curve, method="akima", require_matching_points=False, min_overlap=0
        )
    return float(value), overlap, ""
