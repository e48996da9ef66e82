"""The tables of a run as cells, independent of how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from evaluation.metrics.embedding import FRECHET
from evaluation.records import EmbeddingInfo, MetricInfo, is_untrained
from evaluation.report.cells import (
    BOLD,
    Cell,
    Section,
    Table,
    decimals,
    heading,
    kbps_cell,
    rate_heading,
)
from evaluation.results import Results, last_columns
from evaluation.rows import CodeStatistics
from evaluation.statistics.recordings import asked_rate, asked_rates, condition_rows


def build_table(results: Results, summary: pd.DataFrame, *, medians: bool = False) -> Table:
    """The summary: controls, then asked rates in ascending order, then conditions without a rate.

    Metrics of embeddings are in `embedding_table`. The best value of a metric is marked within each asked
    rate, if two codecs or more have one.

    Args:
        medians: add the median over recordings beside each mean.
    """
    metrics = [metric for metric in results.metrics if not metric.embedding]
    optional = []
    if shows_nominal(summary):
        optional.append(("nominal", "kbps_nominal"))
    if summary["kbps_entropy"].notna().any():
        optional.append(("entropy", "kbps_entropy"))
    speeds = [("enc ×RT", "encode_rt"), ("dec ×RT", "decode_rt")]
    codecs = summary[~summary["control"].astype(bool)]
    places = {
        m.name: decimals(codecs[m.name], codecs[f"{m.name}_ci_high"] - codecs[f"{m.name}_ci_low"])
        for m in metrics
    }

    def cells(row: pd.Series, best: set[str]) -> list[Cell]:
        line = [Cell(row["codec"]), rate_cell(row)]
        for metric in metrics:
            line.append(metric_cell(results, row, metric, places[metric.name], metric.name in best))
            if medians:
                middle, *ends = (row[name] for name in last_columns(metric.name, per_clip=True))
                line.append(Cell(middle, line[-1].form or ".2f", (ends[0], ends[1])))
        line += [_n_cell(results, row), Cell(row["n_failed"], warn=row["n_failed"] > 0)]
        line += [kbps_cell(row[name]) for _, name in optional]
        return line + [Cell(row[name], ".0f" if row[name] >= 10 else ".2g") for _, name in speeds]

    headings = ["codec", "kbps"]
    for metric in metrics:
        headings += [heading(metric), *([f"median {metric.label}"] if medians else [])]
    headings += ["n", "failed"]
    headings += [title for title, _ in [*optional, *speeds]]
    return Table(headings, rate_sections(results, summary, metrics, cells), "Scores")


def shows_nominal(summary: pd.DataFrame) -> bool:
    """Whether a nominal rate differs from the asked one so far that the table has its column."""
    return bool((np.abs(summary["kbps_nominal"] / summary["kbps"] - 1) > 0.005).any())


def _n_cell(results: Results, row: pd.Series) -> Cell:
    """Number of clips with all scores, marked if more clips were coded."""
    coded = len(condition_rows(results, row["codec"], row["kbps"])) - row["n_failed"]
    waiting = bool(row["n"] < coded)
    return Cell(row["n"], marks="⚠" * waiting, warn=waiting)


def rate_sections(
    results: Results,
    summary: pd.DataFrame,
    metrics: Sequence[MetricInfo],
    cells: Callable[[pd.Series, set[str]], list[Cell]],
) -> list[Section]:
    """Sections for the controls, for each asked rate, and for conditions without a rate.

    An unfinished run has no best row, because more clips may change it.

    Args:
        cells: (row, metrics by which it is the best) -> cells of the row; [] leaves it out.
    """
    control = summary["control"].astype(bool)
    groups: list[tuple[str, float | None, pd.DataFrame]] = [("controls", None, summary[control])]
    for kbps in asked_rates(results):
        asked = summary["kbps"].isna() if kbps is None else summary["kbps"] == kbps
        groups.append((rate_heading(kbps), kbps, summary[~control & asked]))
    sections = []
    for title, rate, rows in groups:
        winners = {} if results.unfinished else {metric.name: best_rows(rows, metric) for metric in metrics}
        lines = [cells(row, {m for m in winners if index in winners[m]}) for index, row in rows.iterrows()]
        sections.append(Section(title, list(filter(None, lines)), rate))
    return [section for section in sections if section.rows]


def best_rows(rows: pd.DataFrame, metric: MetricInfo) -> set[object]:
    """Index of the rows with the best value, if two codecs or more have one.

    Controls do not compete. Nor does a codec too far off the asked rate (marked ⚠): it has used more bits
    than the others, or fewer.
    """
    competing = ~rows["control"].astype(bool) & ~rows["rate_off"].astype(bool)
    values = rows.loc[competing, metric.name].dropna()
    if len(values) < 2:
        return set()
    return set(values.index[values == (values.max() if metric.higher_is_better else values.min())])


def rate_cell(row: pd.Series) -> Cell:
    """The measured rate, with a mark if it is far off the asked one, only declared, or interpolated."""
    marks = ("⚠" if row["rate_off"] else "") + {"declared": "†", "interpolated": "~"}.get(row["rate_is"], "")
    return kbps_cell(row["kbps_measured"], marks, warn=row["rate_off"])


def metric_cell(results: Results, row: pd.Series, metric: MetricInfo, places: int, best: bool) -> Cell:
    """A value with its interval; infinity if all values are infinite."""
    mean, low, high = (row[metric.name + end] for end in ("", "_ci_low", "_ci_high"))
    if math.isnan(mean):
        if not metric.per_clip:
            return Cell(None)
        scored = condition_rows(results, row["codec"], row["kbps"])
        values = scored.loc[scored["error"].isna(), metric.name].astype(float)
        all_same = len(values) > 0 and np.isinf(values).all() and values.nunique() == 1
        return Cell(float(values.iloc[0]) if all_same else None)
    if row["control"]:  # often near zero or far above the codecs
        places = max(places, decimals(pd.Series([mean]), pd.Series([high - low])))
    return Cell(mean, f".{places}f", (low, high), best=best)


# For a paper


def compact_table(results: Results, summary: pd.DataFrame) -> Table:
    """Codec, rate and all metrics, with the noise floor as the last group."""
    codecs = summary[~summary["control"].astype(bool)]
    widths = {m.name: codecs[f"{m.name}_ci_high"] - codecs[f"{m.name}_ci_low"] for m in results.metrics}
    places = {m.name: decimals(codecs[m.name], widths[m.name]) for m in results.metrics}

    def cells(row: pd.Series, best: set[str], part: Results = results) -> list[Cell]:
        known = {metric.name for metric in part.metrics}
        line = [Cell(row["codec"]), rate_cell(row)]
        for metric in results.metrics:
            of = (part, row, metric, places[metric.name], metric.name in best)
            line.append(metric_cell(*of) if metric.name in known else Cell(None))
        return line

    sections = rate_sections(results, summary, results.metrics, cells)
    if (floor := results.noise_floor) is not None:
        sections.append(
            Section("noise floor", [cells(row, set(), floor) for _, row in floor.summary.iterrows()])
        )
    return Table(["codec", "kbps", *map(heading, results.metrics)], sections)


def caption(results: Results, summary: pd.DataFrame) -> str:
    """Notes that must accompany a table outside its report."""
    clips = sorted({int(n) for n in summary["n"]}) or [0]
    span = f"{clips[0]}" if len(clips) == 1 else f"{clips[0]} to {clips[-1]}"
    parts = [
        f"{results.dataset.name}: means over {span} clips of {results.dataset.n_recordings} recordings"
        f" ± half the 95% interval. {'UNFINISHED, so provisional' if results.unfinished else BOLD}."
    ]
    marks = {
        "⚠": summary["rate_off"].astype(bool).any(),
        "†": (summary["rate_is"] == "declared").any(),
        "~": (summary["rate_is"] == "interpolated").any(),
    }
    said = {"⚠": "off the asked rate", "†": "declared rate", "~": "interpolated at the asked rate"}
    if shown := [f"{mark} {said[mark]}" for mark in said if marks[mark]]:
        parts.append(f"{', '.join(shown)}.")
    untrained = list(dict.fromkeys(c.codec for c in results.conditions if is_untrained(c.identity)))
    if untrained:
        parts.append(f"RANDOM WEIGHTS, never trained: {', '.join(untrained)}; scores mean nothing.")
    return " ".join([*parts, disclaimer(results)]).strip()


# Embeddings


def with_noise_floor(results: Results, summary: pd.DataFrame) -> pd.DataFrame:
    """The summary, then the rows of the noise floor with "noise floor" as ``rate_is``."""
    if results.noise_floor is None:
        return summary
    floor = results.noise_floor.summary.assign(rate_is="noise floor")
    return pd.concat([summary.astype(object), floor.astype(object)], ignore_index=True)[summary.columns]


def embedding_table(results: Results, summary: pd.DataFrame, info: EmbeddingInfo) -> Table:
    """The distances of an embedding, their values for half the data and extrapolated, clips and frames."""
    metrics = [metric for metric in results.metrics if metric.embedding == info.name]
    frechet = f"{FRECHET}_{info.name}"

    def cells(row: pd.Series, best: set[str], part: Results = results) -> list[Cell]:
        line = [Cell(row["codec"]), rate_cell(row)]
        for metric in metrics:
            # Decimals per cell, because these distances span several orders of magnitude.
            width = row[f"{metric.name}_ci_high"] - row[f"{metric.name}_ci_low"]
            places = decimals(pd.Series([row[metric.name]]), pd.Series([width]))
            line.append(metric_cell(part, row, metric, places, metric.name in best))
            if metric.name == frechet:
                line.append(Cell(row[f"{frechet}_half"], f".{places}f"))
                limits = [row[name] for name in last_columns(frechet, per_clip=False)]
                line.append(Cell(row[f"{frechet}_limit"], f".{places}f", (limits[0], limits[1])))
        return [*line, Cell(row[f"{frechet}_n"]), Cell(row[f"{frechet}_frames"])]

    sections = rate_sections(results, summary, metrics, cells)
    if (floor := results.noise_floor) is not None:
        lines = [cells(row, set(), floor) for _, row in floor.summary.iterrows()]
        sections.append(Section("noise floor", lines))
    headings = ["codec", "kbps"]
    for metric in metrics:
        headings += [heading(metric), *(["at n/2", "extrapolated"] if metric.name == frechet else [])]
    return Table([*headings, "n", "frames"], sections, f"Distances of {info.label} embeddings")


# Codebooks


class CodedPoint(NamedTuple):
    """Statistics of the codes of an operating point, its measured rate (NaN without one), and whether it is a
    row of the summary. If it is, `CodeStatistics.kbps` is the asked rate."""

    codes: CodeStatistics
    kbps: float
    is_row: bool

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that identify it in a file."""
        return {"codec": self.codes.codec, "kbps": self.codes.kbps, "kbps_measured": self.kbps}


def with_codebooks(results: Results) -> list[CodedPoint]:
    """Statistics of all operating points with codebooks, ordered by codec, then by measured rate.

    Operating points that are not rows are included, because an interpolated row has no codes of its own.
    """
    found = []
    for part in filter(None, (results, results.points)):
        if entries := [entry for entry in part.corpus if entry.codebooks]:
            rows = (part.summary[name] for name in ("codec", "kbps", "kbps_measured"))
            rates = {(codec, asked_rate(kbps)): rate for codec, kbps, rate in zip(*rows, strict=True)}
            found += [CodedPoint(e, rates.get((e.codec, e.kbps), math.nan), part is results) for e in entries]
    codecs = list(dict.fromkeys(point.codes.codec for point in found))
    return sorted(found, key=lambda p: (codecs.index(p.codes.codec), math.isnan(p.kbps), p.kbps))


def codebook_table(results: Results, summary: pd.DataFrame) -> Table | None:
    """Perplexities, usage and entropy of every condition with codes; None without any."""
    entries = {(e.codec, e.kbps): e for e in results.corpus if not math.isnan(e.perplexity)}

    def cells(row: pd.Series, _: set[str]) -> list[Cell]:
        entry = entries.get((row["codec"], asked_rate(row["kbps"])))
        return [Cell(row["codec"]), rate_cell(row), *_codebook_cells(entry)] if entry else []

    sections = rate_sections(results, summary, [], cells)
    if not sections:
        return None
    headings = ["codec", "kbps", "codebooks", "frames", "mean 2^H", "corrected", "2^mean H", "corrected"]
    return Table([*headings, "usage", "entropy kbps"], sections, "Codebooks")


def _codebook_cells(entry: CodeStatistics) -> list[Cell]:
    sizes = [book.size for book in entry.codebooks]
    shape = f"{len(sizes)} × {sizes[0]}" if len(set(sizes)) == 1 else f"{len(sizes)}" if sizes else None
    perplexities = [
        getattr(entry, name + corrected)
        for name in ("perplexity", "perplexity_of_mean")
        for corrected in ("", "_miller_madow")
    ]
    return [
        Cell(shape),
        Cell(entry.frames),
        *(Cell(value, ".1f") for value in perplexities),
        Cell(entry.usage, ".1%"),
        kbps_cell(entry.kbps_entropy),
    ]


def token_table(results: Results) -> Table | None:
    """The codes as a language model sees them: rates of frames and tokens, entropies, mutual information;
    None without codes."""
    lines = []
    for entry, kbps, _ in with_codebooks(results):
        if entry.duration_s:
            values = _token_values(entry)
            shown = [Cell(values[name], form) for name, (_, form) in _TOKEN_COLUMNS.items()]
            lines.append([Cell(entry.codec), kbps_cell(kbps), *shown])
    headings = ["codec", "kbps", *(title for title, _ in _TOKEN_COLUMNS.values())]
    return Table(headings, [Section("", lines)], "Tokens") if lines else None


#: Column of ``tokens.csv`` -> heading and form in `token_table`. More columns would not fit into a page of
#: 1280 pixels; usage is in `codebook_table`.
_TOKEN_COLUMNS = {
    "frame_rate": ("frames/s", ".4g"),
    "tokens_per_second": ("tokens/s", ".4g"),
    "bits_per_token": ("bits/token", ".4g"),
    "entropy_bits": ("H/token", ".2f"),
    "joint_entropy_bits": ("joint H/frame", ".2f"),
    "mutual_bits": ("mean I", ".3f"),
    "mutual_bits_shuffled": ("shuffled", ".3f"),
    "joint_frames": ("n frames", ""),
    "joint_distinct": ("distinct", ".1%"),
}


def _token_values(entry: CodeStatistics) -> dict[str, float | None]:
    books, joint = entry.codebooks, entry.joint
    pairs = () if joint is None else joint.pairs
    return {
        "frames": entry.frames,
        "frame_rate": entry.frame_rate,
        "tokens_per_second": entry.tokens_per_second,
        "bits_per_token": entry.bits_per_token,
        "codebooks": len(books),
        "usage": entry.usage,
        "entropy_bits": float(np.mean([book.entropy_bits for book in books])),
        "entropy_bits_miller_madow": float(np.mean([book.entropy_bits_miller_madow for book in books])),
        "joint_frames": None if joint is None else joint.frames,
        "joint_distinct": None if joint is None else joint.used / joint.frames,
        "joint_entropy_bits": None if joint is None else joint.entropy_bits,
        "joint_entropy_bits_miller_madow": None if joint is None else joint.entropy_bits_miller_madow,
        **{
            name: float(np.mean([getattr(pair, name) for pair in pairs])) if pairs else None
            for name in ("mutual_bits", "mutual_bits_shuffled")
        },
    }


def token_frame(results: Results) -> pd.DataFrame:
    """One row per condition with codes, for ``tokens.csv``."""
    return pd.DataFrame(
        [
            point.columns | _token_values(point.codes)
            for point in with_codebooks(results)
            if point.codes.duration_s
        ]
    )


def pair_frame(results: Results) -> pd.DataFrame:
    """One row per condition and pair of codebooks, for ``mutual_information.csv``."""
    return pd.DataFrame(
        [
            point.columns | {"frames": joint.frames, **asdict(pair)}
            for point in with_codebooks(results)
            if (joint := point.codes.joint) is not None
            for pair in joint.pairs
        ]
    )


def codebook_frame(results: Results) -> pd.DataFrame:
    """One row per condition and codebook, for ``perplexity.csv``."""
    return pd.DataFrame(
        [
            point.columns | {"codebook": number, **asdict(book)}
            for point in with_codebooks(results)
            for number, book in enumerate(point.codes.codebooks, 1)
        ]
    )


def all_tables(results: Results, summary: pd.DataFrame, *, medians: bool = False) -> list[Table]:
    """The main table, one per embedding, and those of codebooks and tokens if there are codes."""
    codes = [codebook_table(results, summary), token_table(results)]
    main = build_table(results, summary, medians=medians)
    embeddings = [embedding_table(results, summary, info) for info in results.embeddings]
    return [main, *embeddings, *filter(None, codes)]


def disclaimer(results: Results) -> str:
    """The line that every table of this data set must have; "" without one."""
    return results.dataset.disclaimer or ""
