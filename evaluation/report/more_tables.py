"""Tables beside the main one: the metrics of each embedding with their noise floor, and the codebooks."""

from __future__ import annotations

import math

import pandas as pd

from evaluation.metrics.embedding import FRECHET
from evaluation.records import CodeStatistics, EmbeddingInfo, MetricInfo
from evaluation.report.tables import (
    MISSING,
    Cell,
    Group,
    Table,
    best_rows,
    decimals,
    grouped,
    heading,
    kbps_text,
    metric_cell,
    rate_cell,
    row_label,
)
from evaluation.results import Results


def with_noise_floor(results: Results, summary: pd.DataFrame) -> pd.DataFrame:
    """The summary with the rows of the noise floor below it, whose ``rate_is`` is "noise floor"."""
    if results.noise_floor is None:
        return summary
    floor = results.noise_floor.summary.assign(rate_is="noise floor")
    return pd.concat([summary.astype(object), floor.astype(object)], ignore_index=True)[summary.columns]


def embedding_tables(results: Results, summary: pd.DataFrame) -> list[Table]:
    """One table per embedding: the distances, the value at half the data, clips and frames."""
    return [_embedding_table(results, summary, info) for info in results.embeddings]


def _embedding_table(results: Results, summary: pd.DataFrame, info: EmbeddingInfo) -> Table:
    metrics = [metric for metric in results.metrics if metric.embedding == info.name]
    frechet = f"{FRECHET}_{info.name}"

    def cells(part: Results, row: pd.Series, best: dict[str, bool]) -> list[Cell]:
        line = [Cell(row["codec"]), rate_cell(row)]
        for metric in metrics:
            # Of each cell: these distances span several orders of magnitude.
            width = row[f"{metric.name}_ci_high"] - row[f"{metric.name}_ci_low"]
            places = decimals(pd.Series([row[metric.name]]), pd.Series([width]))
            line.append(metric_cell(part, row, metric, places, best[metric.name]))
            if metric.name == frechet:
                half = row[f"{frechet}_half"]
                line.append(Cell(MISSING if math.isnan(half) else f"{half:.{places}f}"))
        return [*line, Cell(str(row[f"{frechet}_n"])), Cell(str(row[f"{frechet}_frames"]))]

    groups = []
    for title, rows in grouped(results, summary):
        winners = {metric.name: best_rows(rows, metric) for metric in metrics}
        lines = [
            cells(results, row, {name: index in winners[name] for name in winners})
            for index, row in rows.iterrows()
        ]
        groups.append(Group(title, lines))
    if results.noise_floor is not None:
        nobody = {metric.name: False for metric in metrics}
        rows = results.noise_floor.summary
        groups.append(
            Group("noise floor", [cells(results.noise_floor, row, nobody) for _, row in rows.iterrows()])
        )
    headings = ["codec", "kbps"]
    for metric in metrics:
        headings += [heading(metric), "at n/2"] if metric.name == frechet else [heading(metric)]
    return Table([*headings, "n", "frames"], groups)


# Codebooks


def with_codebooks(results: Results) -> list[CodeStatistics]:
    """Entries of ``results.corpus`` that have statistics of codebooks."""
    return [entry for entry in results.corpus if entry.codebooks]


def codebook_table(results: Results, summary: pd.DataFrame) -> Table | None:
    """Perplexities, usage and entropy of every condition with codes; None if there is none."""
    entries = {(entry.codec, entry.kbps): entry for entry in with_codebooks(results)}
    groups = []
    for title, rows in grouped(results, summary):
        lines = []
        for _, row in rows.iterrows():
            kbps = None if math.isnan(row["kbps"]) else row["kbps"]
            if (entry := entries.get((row["codec"], kbps))) is not None:
                lines.append([Cell(row["codec"]), rate_cell(row), *_codebook_cells(entry)])
        if lines:
            groups.append(Group(title, lines))
    if not groups:
        return None
    headings = ["codec", "kbps", "codebooks", "frames", "mean 2^H", "corrected", "2^mean H", "corrected"]
    return Table([*headings, "usage", "entropy kbps"], groups)


def _codebook_cells(entry: CodeStatistics) -> list[Cell]:
    sizes = [book.size for book in entry.codebooks]
    shape = f"{len(sizes)} × {sizes[0]}" if len(set(sizes)) == 1 else f"{len(sizes)}"
    perplexities = [
        getattr(entry, name + corrected)
        for name in ("perplexity", "perplexity_of_mean")
        for corrected in ("", "_miller_madow")
    ]
    return [
        Cell(shape),
        Cell(str(entry.frames)),
        *(Cell(f"{value:.1f}") for value in perplexities),
        Cell(f"{100 * entry.usage:.1f}%"),
        Cell(kbps_text(entry.kbps_entropy)),
    ]


def codebook_frame(results: Results) -> pd.DataFrame:
    """One row per condition and codebook, for ``perplexity.csv``."""
    return pd.DataFrame(
        [
            {"codec": entry.codec, "kbps": entry.kbps, "codebook": number, **book.to_json()}
            for entry in with_codebooks(results)
            for number, book in enumerate(entry.codebooks, 1)
        ]
    )


# Notes


def embedding_notes(results: Results, summary: pd.DataFrame) -> list[str]:
    """What a reader of these tables must know, one line each."""
    lines = [f"Unavailable: {name}: {reason}" for name, reason in results.unavailable.items()]
    lines += results.remarks
    metrics = [metric for metric in results.metrics if metric.embedding]
    everything = with_noise_floor(results, summary)
    for metric in metrics:
        if not metric.per_clip:
            lines += _missing_lines(everything, metric)
    if results.noise_floor is not None:
        lines.append(
            "Noise floor: the references themselves, rounded to 16 bits with TPDF dither, and resampled to "
            "another common rate and back; what is not above it is no difference between codecs"
        )
    if metrics:
        lines.append(
            "FD, KAD: [95% interval by delete-group jackknife over recordings]; FM, cos: means over clips"
        )
    definitions: dict[str, list[MetricInfo]] = {}
    for metric in metrics:
        definitions.setdefault(metric.definition, []).append(metric)
    for definition, members in definitions.items():
        version = members[0].version.partition("/")[0]
        labels = ", ".join(metric.label for metric in members)
        lines.append(f"{labels}, version {version}, lower is better: {definition}")
    for info in results.embeddings:
        weights = f", weights {info.identity['weights']}" if info.identity.get("weights") else ""
        lines.append(f"{info.label}, version {info.identity['version']}{weights}: {info.definition}")
    lines += list(dict.fromkeys(info.attribution for info in results.embeddings if info.attribution))
    if with_codebooks(results):
        lines.append(
            "Perplexity 2^H, H = -sum p log2 p over all frames of all clips, at most the size of a codebook; "
            "mean over codebooks of 2^H, and 2^mean(H); biased low on few frames, beside it with Miller and "
            "Madow's correction; usage: share of entries that occur. Each codebook: perplexity.csv"
        )
    return lines


def _missing_lines(summary: pd.DataFrame, metric: MetricInfo) -> list[str]:
    """Why a distance has no value or no interval; one line per reason."""
    reasons: dict[str, list[str]] = {}
    for _, row in summary.iterrows():
        reason = row[f"{metric.name}_reason"] or row[f"{metric.name}_ci_reason"]
        if reason:
            what = "no value" if row[f"{metric.name}_reason"] else "no interval"
            reasons.setdefault(f"{what}: {reason}", []).append(row_label(row["codec"], row["kbps"]))
    everywhere = len(summary)
    return [
        f"{metric.label}, {reason}" + ("" if len(rows) == everywhere else f" ({', '.join(rows)})")
        for reason, rows in reasons.items()
    ]
