"""Intervals, paired tests and rate checks, computed from `evaluation.results.Results`.

The unit of every interval and test is the source recording: excerpts and takes of one recording are not
independent. So whole recordings are resampled, and tests compare one number per recording.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from baselines.lazy import Lazy
from evaluation.records import Condition, MetricInfo
from evaluation.results import NOT_SCORED, SUMMARY_COLUMNS, Results, last_columns, metric_columns
from evaluation.statistics.bd_rate import bd_rate as bd_rate
from evaluation.statistics.bootstrap import Estimate
from evaluation.statistics.bootstrap import Sample as Sample
from evaluation.statistics.bootstrap import bootstrap_means as bootstrap_means
from evaluation.statistics.distances import corpus_columns, find_score, last_corpus_columns, paired_difference
from evaluation.statistics.few import median, recording_means
from evaluation.statistics.matching import TOLERANCE, match_columns

if TYPE_CHECKING:
    from scipy import stats
else:  # lazy: its import would delay the start of a run
    stats = Lazy("scipy.stats")

#: Columns with wall times, the only ones that differ between two runs of the same evaluation.
TIMING_COLUMNS = ("encode_s", "decode_s", "encode_rt", "decode_rt")
#: Largest spread (max / min - 1) of measured rates at one asked rate for a fair comparison.
MAX_RATE_SPREAD = 0.05
#: Largest deviation (ratio - 1) of a measured rate without a mark, if nominal rates are matched.
MAX_RATE_DEVIATION = 0.15
#: With fewer pairs a two-sided Wilcoxon test cannot reach p < 0.05 (5 pairs: 2 / 2^5 = 0.0625).
MIN_PAIRS = 6
SIGNIFICANCE = 0.05

# Equal decimals that were rounded twice may differ slightly (16 * 1.15 and 18.4).
_RATIO_TOLERANCE = 1e-9


# Rows of a condition


def condition_places(clips: pd.DataFrame, codec: str, kbps: float | None) -> slice | np.ndarray:
    """Places of the rows of a condition; a slice, which copies nothing, if they are adjacent."""
    asked = clips["kbps"].isna() if kbps is None or math.isnan(kbps) else clips["kbps"] == kbps
    places = np.flatnonzero((clips["codec"] == codec).to_numpy(dtype=bool) & asked.to_numpy(dtype=bool))
    together = len(places) > 0 and places[-1] - places[0] + 1 == len(places)
    return slice(places[0], places[-1] + 1) if together else places


def condition_rows(results: Results, codec: str, kbps: float | None) -> pd.DataFrame:
    """All rows of one condition; ``kbps`` None or NaN for conditions without an asked rate."""
    return results.clips.iloc[condition_places(results.clips, codec, kbps)]


def name_numbers(names: pd.Series) -> np.ndarray:
    """Whole numbers in the order of the names, which are faster to sort and compare."""
    codes, different = pd.factorize(names)
    order = np.argsort(np.asarray(different, dtype=object), kind="stable")
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(len(order))
    return numbers[codes]


def row_numbers(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> list[np.ndarray]:
    """Whole numbers for the rows of tables, equal if all of these columns are equal."""
    numbers = np.zeros(sum(map(len, tables)), np.int64)
    for name in columns:
        codes = pd.factorize(pd.concat([table[name] for table in tables]))[0]
        numbers = np.unique(numbers * (len(codes) + 1) + codes, return_inverse=True)[1]
    return np.split(numbers, np.cumsum([len(table) for table in tables])[:-1])


def common_places(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in ``a`` and in ``b`` of the numbers that both have, in the order of ``a``.

    Raises:
        ValueError: one of them has a number twice.
    """
    if any(len(np.unique(numbers)) < len(numbers) for numbers in (a, b)):
        raise ValueError("a condition has a clip twice")
    _, here, there = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    order = np.argsort(here)
    return here[order], there[order]


class _Samples:
    """Samples of conditions and of pairs of conditions, without copies of `Results.clips`."""

    def __init__(self, results: Results) -> None:
        self.clips = results.clips
        self.recordings = name_numbers(results.clips["recording"])
        self.good = results.clips["error"].isna().to_numpy()

    def of(self, condition: Condition, metric: MetricInfo) -> Sample:
        """Sample of the clips that did not fail."""
        places = condition_places(self.clips, condition.codec, condition.kbps)
        values = self.clips[metric.name].iloc[places].to_numpy(dtype=float)
        known = np.isfinite(values) & self.good[places]
        return Sample(self.recordings[places][known], values[known])

    def difference(self, a: Condition, b: Condition, metric: MetricInfo) -> Sample:
        """Sample of a - b, of the clips with a finite value for both."""
        places = [condition_places(self.clips, condition.codec, condition.kbps) for condition in (a, b)]
        values = [self.clips[metric.name].iloc[place].to_numpy(dtype=float) for place in places]
        recordings = [self.recordings[place] for place in places]
        clips = [self.clips["clip"].iloc[place] for place in places]
        if not (np.array_equal(recordings[0], recordings[1]) and (clips[0].array == clips[1].array).all()):
            common = common_places(*(self._rows[place] for place in places))
            values = [column[where] for column, where in zip(values, common, strict=True)]
            recordings = [column[where] for column, where in zip(recordings, common, strict=True)]
        known = np.isfinite(values[0]) & np.isfinite(values[1])
        return Sample(recordings[0][known], values[0][known] - values[1][known])

    @cached_property
    def _rows(self) -> np.ndarray:
        """Numbers of the clips, computed only if two conditions have different clips, which is rare."""
        return row_numbers([self.clips], ["clip", "recording"])[0]


def _pairs(results: Results) -> list[tuple[MetricInfo, Condition, Condition]]:
    """(metric, a, b) of all comparisons of `paired_tests`, in its order."""
    conditions = {(c.codec, asked_rate(c.kbps)): c for c in results.conditions if not c.control}
    return [
        (metric, a, b)
        for metric, kbps in itertools.product(results.metrics, asked_rates(results))
        for a, b in itertools.combinations([c for (_, rate), c in conditions.items() if rate == kbps], 2)
    ]


def metric_sample(rows: pd.DataFrame, metric: str) -> Sample:
    """The finite values of ``metric`` in ``rows``."""
    values = rows[metric].to_numpy(dtype=float)
    finite = np.isfinite(values)
    return Sample(rows["recording"].to_numpy(dtype=str)[finite], values[finite])


# Summary


def summarize(results: Results, *, seed: int, num_resamples: int = 10_000) -> pd.DataFrame:
    """One row per condition, in the order of ``results.conditions``.

    Columns: ``codec, kbps, kbps_nominal, kbps_measured, rate_is, rate_deviation, rate_off, kbps_entropy,
    control, n, n_failed, n_recordings, delay_samples, delay_applied, gain_db, encode_rt, decode_rt`` and
    for each metric M ``M, M_ci_low, M_ci_high, M_n, M_inf, M_reason, M_ci_reason``; for distances between
    distributions also ``M_frames, M_half, M_half_frames, M_limit`` (`evaluation.rows.CorpusScore`). After
    all of these, `evaluation.results.last_columns`: the median over recordings with its interval
    (`evaluation.statistics.few.median`), or the interval of ``M_limit``. If measured rates are matched, the
    last columns are `evaluation.results.MATCH_COLUMNS`.

    Everything is over the clips that did not fail. ``n`` counts the clips with all scores; in an unfinished
    run more clips may have a score of one metric. ``kbps_measured`` is total bits over total duration (the
    declared rate if ``rate_is`` is "declared"); ``rate_deviation`` is measured / asked - 1; ``encode_rt`` and
    ``decode_rt`` are seconds of audio per second of work. ``M`` is the mean of the ``M_n`` finite values.
    ``M_inf`` counts infinite values, which the mean leaves out; the rest of ``n`` is not a number.
    ``M_reason`` says why there is no mean, ``M_ci_reason`` why there is no interval.
    """
    corpus = {(entry.codec, asked_rate(entry.kbps)): entry.kbps_entropy for entry in results.corpus}
    found = _Samples(results)
    own = list(itertools.product(results.conditions, results.clip_metrics))
    samples = [found.of(condition, metric) for condition, metric in own]
    # Pairs use the same draws, so they are estimated here, too; `paired_tests` finds them in the estimates.
    both = [found.difference(a, b, metric) for metric, a, b in _pairs(results) if metric.per_clip]
    estimates = bootstrap_means(
        samples + both, seed=seed, num_resamples=num_resamples, known=results.estimates
    )
    of_metrics = zip(samples, estimates[: len(samples)], strict=True)
    table: list[dict[str, Any]] = []
    for condition in results.conditions:
        rows = condition_rows(results, condition.codec, condition.kbps)
        row = _condition_columns(condition, rows, rate_tolerance(results))
        row["n"] -= num_waiting(rows, results.clip_metrics)
        entropy = corpus.get((condition.codec, asked_rate(condition.kbps)))
        row["kbps_entropy"] = math.nan if entropy is None else float(entropy)
        for metric in results.clip_metrics:
            sample, estimate = next(of_metrics)
            row.update(_metric_columns(metric.name, estimate, rows))
            row.update(_median_columns(metric.name, sample))
        for metric in results.metrics:
            if not metric.per_clip:
                score = find_score(results, metric.name, condition.codec, condition.kbps)
                row.update(corpus_columns(score) | last_corpus_columns(score))
        table.append(row)
    columns = [name for m in results.metrics for name in metric_columns(m.name, per_clip=m.per_clip)]
    columns += [name for m in results.metrics for name in last_columns(m.name, per_clip=m.per_clip)]
    summary = pd.DataFrame(table, columns=[*SUMMARY_COLUMNS, *columns])
    return summary.join(match_columns(results)) if results.settings.match == "measured" else summary


def asked_rate(kbps: float | None) -> float | None:
    """Asked rate of a row: None if the data frame has NaN."""
    return None if kbps is None or math.isnan(kbps) else float(kbps)


def _scored(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """These columns of the rows that did not fail."""
    failed = rows["error"].notna().to_numpy()
    return rows.loc[~failed, list(columns)] if failed.any() else rows[list(columns)]


def num_waiting(rows: pd.DataFrame, metrics: Sequence[MetricInfo]) -> int:
    """Number of coded clips with a score that is not yet computed."""
    waiting = np.zeros(len(rows), bool)
    for metric in metrics:
        unknown = np.flatnonzero(rows[metric.name].isna())
        waiting[unknown] |= (rows[f"{metric.name}_reason"].iloc[unknown] == NOT_SCORED).to_numpy(bool)
    return int(waiting.sum())


def _kbps_measured(condition: Condition, rows: pd.DataFrame) -> float:
    if condition.rate_is == "declared":
        known = condition.kbps if condition.nominal is None else condition.nominal
        return math.nan if known is None else known
    if condition.rate_is in ("measured", "interpolated"):
        return _ratio(_scored(rows, ["bytes", "duration_s"])) * 8 / 1000
    return math.nan


def _condition_columns(condition: Condition, rows: pd.DataFrame, most: float) -> dict[str, Any]:
    if not rows["clip"].is_monotonic_increasing:
        rows = rows.sort_values("clip")  # floating-point sums depend on the order of their terms
    asked = math.nan if condition.kbps is None else condition.kbps
    measured = _kbps_measured(condition, rows)
    deviation = measured / asked - 1
    estimated = _scored(rows, ["delay_samples", "delay_applied", "gain_db"]).astype(float)
    return {
        "codec": condition.codec,
        "kbps": asked,
        "kbps_nominal": math.nan if condition.nominal is None else condition.nominal,
        "kbps_measured": measured,
        "rate_is": condition.rate_is,
        "rate_deviation": deviation,
        "rate_off": bool(abs(deviation) > most + _RATIO_TOLERANCE),
        "control": condition.control,
        "n": len(estimated),
        "n_failed": len(rows) - len(estimated),
        "n_recordings": _scored(rows, ["recording"])["recording"].nunique(),
        **{str(name): float(estimated[name].median()) for name in estimated},
        "encode_rt": _ratio(_scored(rows, ["duration_s", "encode_s"])),
        "decode_rt": _ratio(_scored(rows, ["duration_s", "decode_s"])),
    }


def _ratio(rows: pd.DataFrame) -> float:
    """Ratio of the sums of two columns, over the rows that have both; NaN without such rows."""
    numerator, denominator = rows.columns
    both = rows.astype(float).dropna()
    total = float(both[denominator].sum())
    return float(both[numerator].sum()) / total if total > 0 else math.nan


def _metric_columns(name: str, estimate: Estimate, rows: pd.DataFrame) -> dict[str, Any]:
    scored = _scored(rows, [name, f"{name}_reason"])
    num_infinite = int(np.isinf(scored[name].to_numpy(dtype=float)).sum())
    reason = ci_reason = ""
    if estimate.n == 0:
        reason = _why_no_mean(scored[f"{name}_reason"], len(rows), len(scored), num_infinite)
        ci_reason = "there is no mean"
    elif estimate.n_recordings == 1:
        ci_reason = "one recording only: an interval needs two or more"
    found = (estimate.mean, estimate.low, estimate.high, estimate.n, num_infinite, reason, ci_reason)
    return dict(zip(metric_columns(name, per_clip=True), found, strict=True))


def _median_columns(name: str, sample: Sample) -> dict[str, float]:
    found = median(recording_means(sample.recordings, sample.values))
    values = (found.value, found.low, found.high)
    return dict(zip(last_columns(name, per_clip=True), values, strict=True))


def _why_no_mean(reasons: pd.Series, num_rows: int, num_scored: int, num_infinite: int) -> str:
    if num_rows == 0:
        return "no clip was evaluated"
    if num_scored == 0:
        return f"all {num_rows} clips failed"
    if num_infinite == num_scored:
        return f"all {num_infinite} values are infinite"
    counts = Counter(str(reason) for reason in reasons.dropna())
    parts = [f"{reason} ({count} clips)" for reason, count in sorted(counts.items())]
    if num_infinite:
        parts.append(f"{num_infinite} values are infinite")
    return "; ".join(parts) or "no value was computed"


# Rates


def asked_rates(results: Results) -> list[float | None]:
    """Asked rates of conditions that are not controls, ascending; None (no rate) last."""
    rates = {asked_rate(condition.kbps) for condition in results.conditions if not condition.control}
    return sorted(rates, key=lambda rate: math.inf if rate is None else rate)


def rate_tolerance(results: Results) -> float:
    return TOLERANCE if results.settings.match == "measured" else MAX_RATE_DEVIATION


def rate_spread(summary: pd.DataFrame) -> pd.DataFrame:
    """Spread of the codecs' measured rates: a row per asked rate, without controls.

    Args:
        summary: from `summarize`; its ``kbps_measured`` has declared rates if nothing else is known.

    Returns:
        Columns ``kbps, n_codecs, kbps_min, kbps_max, spread, flagged``: spread is max / min - 1, flagged
        above `MAX_RATE_SPREAD`. Deviations from the asked rate are in the summary.
    """
    rows = []
    rated = summary[~summary["control"].astype(bool) & summary["kbps"].notna()]
    for kbps, group in rated.groupby("kbps", sort=True):
        measured = group["kbps_measured"].dropna()
        low, high = (measured.min(), measured.max()) if len(measured) else (math.nan, math.nan)
        spread = high / low - 1 if low > 0 else math.nan
        flagged = bool(spread > MAX_RATE_SPREAD + _RATIO_TOLERANCE)
        rows.append((kbps, len(measured), low, high, spread, flagged))
    return pd.DataFrame(rows, columns=["kbps", "n_codecs", "kbps_min", "kbps_max", "spread", "flagged"])


# Paired tests

#: Columns that identify a comparison.
PAIR_COLUMNS = ["metric", "kbps", "codec_a", "codec_b", "kbps_measured_a", "kbps_measured_b"]
_TEST_COLUMNS = [*PAIR_COLUMNS, "n_recordings", "n_clips", "difference", "ci_low", "ci_high"]
_TEST_COLUMNS += ["p", "p_holm", "rank_biserial", "winner", "reason"]


def paired_tests(results: Results, *, seed: int, num_resamples: int = 10_000) -> pd.DataFrame:
    """Tests of every pair of codecs at every asked rate, per metric, without controls.

    Only clips with a finite value for both codecs count. ``difference`` is the mean of a - b over these
    clips with its interval over recordings. ``p`` is the two-sided Wilcoxon signed-rank test of the
    per-recording means, NaN below `MIN_PAIRS` recordings; ``p_holm`` is corrected (Holm) over all pairs
    and rates of the metric. ``rank_biserial`` is the matched-pairs rank-biserial correlation
    (W+ - W-) / (W+ + W-), positive if a has the higher values. Distances between distributions have no values
    to rank: their test is a t-test by paired jackknife, on the clips that all codecs at the rate have.
    ``winner`` is the better codec, "n.s." if p_holm is not below 0.05 or mean and ranks disagree, "" without
    a test.
    """
    measured = {
        (c.codec, c.kbps): _kbps_measured(c, condition_rows(results, c.codec, c.kbps))
        for c in results.conditions
        if not c.control
    }
    found = _Samples(results)
    table: list[dict[str, Any]] = []
    sampled: list[dict[str, Any]] = []
    samples: list[Sample] = []
    for metric, a, b in _pairs(results):
        asked = math.nan if a.kbps is None else a.kbps
        rates = measured[a.codec, a.kbps], measured[b.codec, b.kbps]
        pair = (metric.name, asked, a.codec, b.codec, *rates)
        row: dict[str, Any] = dict(zip(PAIR_COLUMNS, pair, strict=True))
        table.append(row)
        if not metric.per_clip:
            scores = [find_score(results, metric.name, c.codec, a.kbps, common=True) for c in (a, b)]
            row.update(paired_difference(*scores), rank_biserial=math.nan)
            continue
        samples.append(found.difference(a, b, metric))
        row.update(_wilcoxon(samples[-1]))
        sampled.append(row)
    estimates = bootstrap_means(samples, seed=seed, num_resamples=num_resamples, known=results.estimates)
    for row, estimate in zip(sampled, estimates, strict=True):
        row.update(n_recordings=estimate.n_recordings, n_clips=estimate.n, difference=estimate.mean)
        row.update(ci_low=estimate.low, ci_high=estimate.high)
    for metric in results.metrics:
        family = [row for row in table if row["metric"] == metric.name]
        for row, p_holm in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = p_holm
            row["winner"], row["reason"] = _winner(row, metric)
    return pd.DataFrame(table, columns=_TEST_COLUMNS)


def _wilcoxon(sample: Sample) -> dict[str, Any]:
    difference = recording_means(sample.recordings, sample.values)
    if len(difference) < MIN_PAIRS:
        reason = f"{len(difference)} recordings in both, a test needs {MIN_PAIRS}"
        return {"p": math.nan, "rank_biserial": math.nan, "reason": reason}
    if not difference.any():
        return {"p": 1.0, "rank_biserial": 0.0, "reason": "all differences are zero"}
    nonzero = difference[difference != 0]
    ranks = stats.rankdata(np.abs(nonzero))
    effect = float((ranks * np.sign(nonzero)).sum() / ranks.sum())
    reason = ""
    if (n := len(nonzero)) < MIN_PAIRS:
        verb = "differs" if n == 1 else "differ"
        reason = f"{n} of {len(difference)} recordings {verb}: p cannot be below {2.0 ** (1 - n):.3g}"
    return {"p": float(stats.wilcoxon(nonzero).pvalue), "rank_biserial": effect, "reason": reason}


def _winner(row: dict[str, Any], metric: MetricInfo) -> tuple[str, str]:
    if math.isnan(row["p_holm"]):
        return "", row["reason"]
    if row["p_holm"] >= SIGNIFICANCE:
        return "n.s.", row["reason"]
    if row["difference"] * row["rank_biserial"] <= 0:
        return "n.s.", "mean and ranks point in opposite directions"
    return row["codec_a"] if (row["difference"] > 0) == metric.higher_is_better else row["codec_b"], ""


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979); NaN stays NaN and does not count as a test."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), math.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]
