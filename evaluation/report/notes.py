"""Notes on the tables of a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from evaluation.records import MetricInfo, is_speech, is_untrained
from evaluation.report.cells import kbps_text, percent, row_label
from evaluation.report.tables import disclaimer, shows_nominal, with_codebooks, with_noise_floor
from evaluation.results import QUIET_DBFS, Results
from evaluation.run.columns import encoded_folder
from evaluation.run.encoded import MOST_FILES
from evaluation.statistics.few import (
    FEW_RECORDINGS,
    MEASURED,
    MEDIAN_RECORDINGS,
    needed,
    recording_means,
)
from evaluation.statistics.recordings import (
    MAX_RATE_SPREAD,
    condition_rows,
    metric_sample,
    rate_spread,
    rate_tolerance,
)
from qincodec.core.errors import count

#: Failure reasons shown under a table; the rest are in clips.csv.
MAX_REASONS = 5
#: Empty references that a note names.
MAX_QUIET = 10
#: Seconds. A codec has one delay; it is doubtful if fewer than half of the clips agree with it within this.
DELAY_AGREEMENT_S = 0.001


@dataclass(frozen=True)
class Note:
    """One line under the tables.

    Attributes:
        kind: subject of the note. A report that has a place for "definition" and "attribution" shows them
            there; "reading" explains a column; "left out" and "unavailable" are about the environment.
        text: the line.
        severity: "warning" if scores do not mean what they seem to mean.
    """

    kind: Literal[
        "data",
        "disclaimer",
        "unfinished",
        "left out",
        "weights",
        "references",
        "rate",
        "delay",
        "values",
        "intervals",
        "failed",
        "unavailable",
        "embedding",
        "reading",
        "definition",
        "attribution",
        "settings",
        "codec",
    ]
    text: str
    severity: Literal["information", "warning"] = "information"


def notes(results: Results, summary: pd.DataFrame) -> list[Note]:
    """The notes of all tables, in the order of a report: environment, definitions and attributions last."""
    found = [_data(results, summary)]
    if disclaimer(results):
        found.append(Note("disclaimer", disclaimer(results), "warning"))
    if results.n_pending:
        text = f"Unfinished: {results.n_pending} results of clips are missing; the same command continues"
        found.append(Note("unfinished", text, "warning"))
    if results.n_unscored:
        text = (
            f"Unfinished, ⚠ at n: {results.n_unscored} scores of coded clips are not yet computed at the "
            "delay over all clips; n counts the clips with all scores; `evaluate` on all data continues"
        )
        found.append(Note("unfinished", text, "warning"))
    found += _random_weights(results)
    found += _shared_folders(results)
    found += [Note("data", f"Data: {note}") for note in results.dataset.notes]
    found += _references(results)
    found += _rates(results, summary)
    found.append(_columns(summary))
    found += _delays(results, summary)
    found += _speech(results)
    for metric in results.clip_metrics:
        found += _values(results, summary, metric)
    found += _intervals(results, summary)
    found += _failures(results)
    found += _embeddings(results, summary)
    found += _environment(results)
    found += _definitions(results)
    return [*found, *(Note("attribution", text) for text in attributions(results))]


def _shared_folders(results: Results) -> Iterator[Note]:
    """Warnings for runs of earlier versions, which let two names overwrite each other's encoded clips."""
    if results.dataset.n_clips > MOST_FILES:
        return  # the clips are in tar files, where none overwrites another
    codecs: dict[str, dict[str, None]] = {}
    for condition in (c for part in (results, results.points) if part for c in part.conditions):
        if condition.rate_is == "measured":
            codecs.setdefault(encoded_folder(condition.point), {})[condition.codec] = None
    shared = dict.fromkeys(tuple(names) for names in codecs.values() if len(names) > 1)
    for names in shared:
        text = (
            f"{' and '.join(repr(name) for name in names)} share one folder of encoded clips, a fault of an "
            "earlier version; their scores may be wrong: evaluate again with names that differ by more than "
            "space and _"
        )
        yield Note("data", text, "warning")


def _environment(results: Results) -> Iterator[Note]:
    """Codecs and metrics that cannot run here."""
    for label, why in results.skipped.items():
        yield Note("left out", f"Left out, cannot run here: {label}: {why}")
    for name, reason in results.unavailable.items():
        yield Note("unavailable", f"Unavailable: {name}: {reason}", "warning")


def _data(results: Results, summary: pd.DataFrame) -> Note:
    data = results.dataset
    line = f"Data: {data.name}, {count(data.n_clips, 'clip')} of {count(data.n_recordings, 'recording')}"
    if data.n_excluded:
        line += f", {data.n_excluded} excluded"
    recordings = summary.loc[summary["n_recordings"] > 0, "n_recordings"]
    if len(recordings) == 0:
        return Note("data", f"{line}; nothing could be scored")
    if recordings.max() < 2:
        return Note("data", f"{line}; no intervals: one recording only")
    low, high = recordings.min(), recordings.max()
    span = str(high) if low == high else f"{low} to {high}"
    line += f"; mean [95% interval over {span} recordings]"
    if summary.loc[~summary["control"].astype(bool), "n"].nunique() > 1:
        line += "; n differs: tests.csv compares codecs on their common clips"
    return Note("data", line)


def _random_weights(results: Results) -> Iterator[Note]:
    untrained = list(dict.fromkeys(c.codec for c in results.conditions if is_untrained(c.identity)))
    if untrained:
        text = f"RANDOM WEIGHTS, never trained: {', '.join(untrained)}; scores mean nothing"
        yield Note("weights", text, "warning")


def _references(results: Results) -> Iterator[Note]:
    data = results.dataset
    if data.n_lossy:
        formats = f" ({', '.join(data.lossy_formats)})" if data.lossy_formats else ""
        text = (
            f"Lossy references: {data.n_lossy} of {data.n_clips} clips come from a lossy format{formats};"
            " scores say how close a codec is to that format's output"
        )
        yield Note("references", text, "warning")
    if results.quiet:
        quiet = sorted(results.quiet.items())
        named = [f"{clip} {level:.0f}" for clip, level in quiet[:MAX_QUIET]]
        rest = f" and {len(quiet) - MAX_QUIET} more" if len(quiet) > MAX_QUIET else ""
        text = (
            f"Empty references: {len(quiet)} of {data.n_clips} clips are below {QUIET_DBFS:.0f} dBFS RMS "
            f"without DC, mixed as scored: {', '.join(named)}{rest}; they count, but show nothing of a codec"
        )
        yield Note("references", text, "warning")


def _rates(results: Results, summary: pd.DataFrame) -> Iterator[Note]:
    spread = rate_spread(summary)
    unequal = spread[spread["flagged"].astype(bool)]
    if len(unequal):
        parts = [
            f"{row['kbps']:g} kbps {kbps_text(row['kbps_min'])} to {kbps_text(row['kbps_max'])} "
            f"({percent(row['spread'])})"
            for _, row in unequal.iterrows()
        ]
        text = (
            f"Unequal rates: the spread is over {percent(MAX_RATE_SPREAD)}, so scores are not at one rate: "
            f"{', '.join(parts)}"
        )
        yield Note("rate", text, "warning")
    off = summary[summary["rate_off"].astype(bool)]
    if len(off):
        parts = [
            f"{label} {'+' if deviation > 0 else '-'}{percent(abs(deviation))}"
            for label, deviation in zip(_labels(off), off["rate_deviation"], strict=True)
        ]
        # A shard may lack a point because its operating points are chosen for all of the data.
        known = results.asked and results.dataset.shard is None
        why = ", which no operating point meets" if known else ""
        text = f"⚠ more than {percent(rate_tolerance(results))} off the asked rate{why}: {', '.join(parts)}"
        yield Note("rate", text, "warning")
    if results.between:
        parts = [
            f"{row_label(*row)} ({' and '.join(map(kbps_text, between.kbps))})"
            for row, between in results.between.items()
        ]
        text = (
            "~ interpolated at the asked rate, linearly in rate, between the operating points around it:"
            f" {', '.join(parts)}; the values of these points are rows here or in points.csv"
        )
        yield Note("rate", text)
    if (summary["rate_is"] == "declared").any():
        yield Note("rate", "† declared rate: decoded elsewhere, without a bitstream to measure")
    if summary["kbps_entropy"].notna().any():
        text = "entropy: kbps that an ideal memoryless entropy coder would need for the codes"
        yield Note("reading", text)


def _columns(summary: pd.DataFrame) -> Note:
    """The columns that every table of codecs has, and `nominal` where it is shown."""
    nominal = "nominal: kbps of the codec's setting; " if shows_nominal(summary) else ""
    text = (
        "kbps: measured, payload bits over duration; n: clips with all scores; failed: clips with an error; "
        f"{nominal}enc ×RT, dec ×RT: seconds of audio per second of encoding and of decoding"
    )
    return Note("reading", text)


def _labels(rows: pd.DataFrame) -> list[str]:
    return [row_label(codec, kbps) for codec, kbps in zip(rows["codec"], rows["kbps"], strict=True)]


def _delays(results: Results, summary: pd.DataFrame) -> Iterator[Note]:
    applied = summary[summary["delay_applied"].fillna(0) != 0]
    labels = _labels(applied)
    parts = [f"{name} {delay:+.0f}" for name, delay in zip(labels, applied["delay_applied"], strict=True)]
    for asked, between in results.between.items():
        low, high = between.delays
        if low != high and not math.isnan(low + high):
            parts.append(f"{row_label(*asked)} {low:+.0f} and {high:+.0f}")
    if not parts:
        return
    yield Note("delay", f"Delay removed before scoring, in samples: {', '.join(parts)}")
    near = round(DELAY_AGREEMENT_S * results.settings.sample_rate)
    doubts = []
    for label, (_, row) in zip(labels, applied.iterrows(), strict=True):
        delays = condition_rows(results, row["codec"], row["kbps"])["delay_samples"].dropna().astype(float)
        agreeing = int((abs(delays - row["delay_applied"]) <= near).sum())
        if 2 * agreeing < len(delays):
            found = f"(estimates from {delays.min():+.0f} to {delays.max():+.0f})"
            doubts.append(f"{label} {agreeing} of {len(delays)} clips {found}")
    if doubts:
        text = (
            f"⚠ That delay is doubtful: clips do not agree within {near} samples: {', '.join(doubts)};"
            " --no-align scores without removing it"
        )
        yield Note("delay", text, "warning")


def _speech(results: Results) -> Iterator[Note]:
    """The number of clips that metrics for speech leave out."""
    labels = [metric.label for metric in results.clip_metrics if metric.speech_only]
    clips = results.clips.drop_duplicates("clip")
    left_out = int((~clips["category"].map(is_speech).astype(bool)).sum()) if labels else 0
    if left_out:
        text = (
            f"{', '.join(labels)}: for speech only, so only clips of category speech have a score; {left_out}"
            f" of {len(clips)} clips have another category or none; --speech scores all clips"
        )
        yield Note("values", text, "warning" if left_out == len(clips) else "information")


def _values(results: Results, summary: pd.DataFrame, metric: MetricInfo) -> Iterator[Note]:
    """Infinite values and values that are not a number."""

    def note(what: str, rows: pd.DataFrame, column: str) -> Note:
        of = zip(_labels(rows), rows[column], rows["n"], strict=True)
        parts = [f"{label} {number} of {n}" for label, number, n in of]
        return Note("values", f"{metric.label} {what}: {', '.join(parts)}")

    infinite = summary[summary[f"{metric.name}_inf"] > 0]
    if len(infinite):
        yield note("infinite, left out of the mean", infinite, f"{metric.name}_inf")
    scored = results.clips[results.clips["error"].isna()]
    unknown = scored[scored[metric.name].isna()]
    left_out = unknown.iloc[:0]  # `_speech` reports them
    if metric.speech_only:
        wanted = unknown["category"].map(metric.wants).astype(bool)
        left_out, unknown = unknown[~wanted], unknown[wanted]
    reasons = Counter(str(reason) for reason in unknown[f"{metric.name}_reason"])
    for part in _top(reasons, "clips.csv"):
        yield Note("values", f"{metric.label} not a number: {part}")
    rows = zip(summary["codec"], summary["kbps"], strict=True)
    asked = summary["n"] - [len(_of(left_out, *row)) if len(left_out) else 0 for row in rows]
    fewer = summary[summary[f"{metric.name}_n"] + summary[f"{metric.name}_inf"] < asked]
    if len(fewer):
        yield note("is the mean of fewer clips than n", fewer, f"{metric.name}_n")


def _of(clips: pd.DataFrame, codec: str, kbps: float) -> pd.DataFrame:
    """The rows of a condition."""
    same = clips["kbps"].isna() if math.isnan(kbps) else clips["kbps"] == kbps
    return clips[(clips["codec"] == codec) & same]


def _intervals(results: Results, summary: pd.DataFrame) -> Iterator[Note]:
    """Intervals of means that cover less than 95 % (`evaluation.statistics.few`)."""
    codecs = summary[~summary["control"].astype(bool)]
    skewed: dict[str, list[str]] = {}
    fewest = math.inf
    single: dict[str, None] = {}
    for label, (_, row) in zip(_labels(codecs), codecs.iterrows(), strict=True):
        rows = condition_rows(results, row["codec"], row["kbps"])
        for metric in results.clip_metrics:
            sample = metric_sample(rows[rows["error"].isna()], metric.name)
            means = recording_means(sample.recordings, sample.values)
            if 2 <= len(means) < FEW_RECORDINGS:
                fewest = min(fewest, len(means))
            elif len(means) == 1:
                single[metric.label] = None
            elif len(means) > 1 and (needs := needed(means)) > len(means):
                skewed.setdefault(metric.label, []).append(f"{label} ({needs})")
    if single and summary["n_recordings"].max() > 1:  # else the first note says it for all metrics
        yield Note("intervals", f"No interval: {', '.join(single)}, where only one recording has a score")
    where = "; summary.csv and the HTML report have medians with intervals that cover 95%"
    if fewest < math.inf:
        size, *rates = next(entry for entry in reversed(MEASURED) if entry[0] <= fewest)
        nearest = f" (the nearest number below the {fewest} here)" if size < fewest else ""
        normal, long_tail, outliers = (f"{100 * rate:.0f}%" for rate in rates)
        text = (
            f"Few recordings: in simulations with {size}{nearest}, the 95% interval of a mean held the true "
            f"mean in {normal} of cases with normal values, in {long_tail} with a long tail, in {outliers} "
            f"with rare outliers{where if fewest >= MEDIAN_RECORDINGS else ''}"
        )
        yield Note("intervals", text, "warning")
    for name, labels in skewed.items():
        shown = labels[:MAX_REASONS] + (["..."] if len(labels) > MAX_REASONS else [])
        text = (
            f"Skewed: {name} of {', '.join(shown)}: the 95% interval of the mean covers less than 95%; in "
            f"brackets: the recordings that Cochran's rule asks for{where}"
        )
        yield Note("intervals", text, "warning")


def _failures(results: Results) -> Iterator[Note]:
    failed = results.clips[results.clips["error"].notna()]
    reasons = Counter(
        f"{codec}: {error}" for codec, error in zip(failed["codec"], failed["error"], strict=True)
    )
    for part in _top(reasons, "clips.csv, column error"):
        yield Note("failed", f"Failed: {part}", "warning")


def _top(reasons: Counter[str], where: str) -> list[str]:
    """The most frequent reasons, and the place of the others."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"{reason} ({count}×)" for reason, count in ordered[:MAX_REASONS]]
    if len(ordered) > MAX_REASONS:
        lines.append(f"{len(ordered) - MAX_REASONS} more reasons: see {where}")
    return lines


def _definition(metrics: list[MetricInfo], version: str) -> Note:
    """The note for metrics that share one definition."""
    better = "higher" if metrics[0].higher_is_better else "lower"
    labels = ", ".join(metric.label for metric in metrics)
    takes = f" ({metrics[0].takes})" if metrics[0].takes else ""
    text = f"{labels}, version {version}{takes}, {better} is better: {metrics[0].definition}"
    return Note("definition", text)


def _definitions(results: Results) -> Iterator[Note]:
    metrics = [metric for metric in results.metrics if metric.embedding]
    yield from (_definition([m], m.version) for m in results.metrics if not m.embedding)
    definitions: dict[str, list[MetricInfo]] = {}
    for metric in metrics:
        definitions.setdefault(metric.definition, []).append(metric)
    for members in definitions.values():
        yield _definition(members, members[0].version.partition("/")[0])
    for info in results.embeddings:
        weights = f", weights {info.identity['weights']}" if info.identity.get("weights") else ""
        text = f"{info.label}, version {info.identity['version']}{weights}: {info.definition}"
        yield Note("definition", text)


def _embeddings(results: Results, summary: pd.DataFrame) -> Iterator[Note]:
    yield from (Note("embedding", remark) for remark in results.remarks)
    metrics = [metric for metric in results.metrics if metric.embedding]
    everything = with_noise_floor(results, summary)
    for metric in metrics:
        if not metric.per_clip:
            yield from _missing(everything, metric)
    if results.noise_floor is not None:
        text = (
            "Noise floor: the references themselves, rounded to 16 bits with TPDF dither, and resampled to "
            "another common rate and back; a difference below it does not distinguish codecs"
        )
        yield Note("embedding", text)
    if metrics:
        text = (
            "FD, KAD: [95% interval by delete-group jackknife over recordings]; FD holds for this number of "
            "frames: fewer give a higher FD; extrapolated: to infinitely many frames, linear in 1 / frames, "
            "with its own interval; FM, cos: means over clips"
        )
        yield Note("reading", text)
    if points := with_codebooks(results):
        text = (
            "Perplexity 2^H, H = -sum p log2 p over all frames of all clips, at most the size of a codebook; "
            "mean over codebooks of 2^H, and 2^mean(H); biased low on few frames; corrected: with Miller and "
            "Madow's correction; usage: share of entries that occur. Each codebook: perplexity.csv"
        )
        yield Note("reading", text)
        text = (
            "Tokens: codes of all codebooks per second of audio; H: entropy per token, mean over codebooks;"
            " joint H: entropy of all codes of a frame, at most log2 of n"
            " frames, a lower bound where most frames are distinct; I: mutual information in bits, mean over"
            " pairs of codebooks, biased high; shuffled: I of the same codes in shuffled frames, which share"
            " nothing, so the excess of I over it is shared. With corrections: tokens.csv"
        )
        if any(point.codes.joint is not None and point.codes.joint.pairs for point in points):
            text += "; each pair: mutual_information.csv"
        yield Note("reading", text)


def attributions(results: Results) -> list[str]:
    """Attributions that the makers of the embeddings ask for."""
    return list(dict.fromkeys(info.attribution for info in results.embeddings if info.attribution))


def _missing(summary: pd.DataFrame, metric: MetricInfo) -> Iterator[Note]:
    """Why a distance has no value or no interval; one note per reason."""
    reasons: dict[str, list[str]] = {}
    for label, (_, row) in zip(_labels(summary), summary.iterrows(), strict=True):
        reason = row[f"{metric.name}_reason"] or row[f"{metric.name}_ci_reason"]
        if reason:
            what = "no value" if row[f"{metric.name}_reason"] else "no interval"
            reasons.setdefault(f"{what}: {reason}", []).append(label)
    for reason, rows in reasons.items():
        of = "" if len(rows) == len(summary) else f" ({', '.join(rows)})"
        yield Note("values", f"{metric.label}, {reason}{of}")
