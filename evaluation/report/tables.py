"""The tables of a run: what stands in their cells, whatever draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from evaluation.metrics.embedding import FRECHET
from evaluation.results import EmbeddingInfo, MetricInfo, Results
from evaluation.statistics.recordings import asked_rates, condition_rows

MISSING = "–"
BOLD = "Bold: the best mean at that rate, of codecs that keep to it"


@dataclass(frozen=True)
class Cell:
    """One cell: its text, an interval that may stand beside or below it; the best value; a warning."""

    text: str
    interval: str = ""
    best: bool = False
    warn: bool = False


@dataclass(frozen=True)
class Group:
    """Rows under one heading ("16 kbps")."""

    heading: str
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Table:
    """Headings and cells as text. The first two columns (codec, measured kbps) identify a row."""

    headings: list[str]
    groups: list[Group]


def kbps_text(kbps: float) -> str:
    """A measured rate with two decimals, one from 100 kbit/s on."""
    return MISSING if math.isnan(kbps) else f"{kbps:.2f}" if kbps < 100 else f"{kbps:.1f}"


def percent(ratio: float) -> str:
    """ "5.4%", "20%"."""
    return f"{100 * ratio:.0f}%" if ratio >= 0.0995 else f"{100 * ratio:.1f}%".replace(".0%", "%")


def row_label(codec: str, kbps: float | None) -> str:
    """ "opus at 16 kbps"; the codec alone where no rate was asked for."""
    return codec if kbps is None or math.isnan(kbps) else f"{codec} at {kbps:g} kbps"


def heading(metric: MetricInfo) -> str:
    """ "SI-SDR (dB) ↑"."""
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.label}{unit} {'↑' if metric.higher_is_better else '↓'}"


def decimals(means: pd.Series, widths: pd.Series) -> int:
    """Decimals of a column: two significant digits of a typical interval, from two to five decimals.

    Without intervals: three significant digits of the largest mean.
    """
    wide = widths[np.isfinite(widths) & (widths > 0)]
    if len(wide):
        return int(np.clip(1 - math.floor(math.log10(wide.median())), 2, 5))
    sizes = means[np.isfinite(means) & (means != 0)].abs()
    return int(np.clip(2 - math.floor(math.log10(sizes.max())), 2, 5)) if len(sizes) else 2


def build_table(results: Results, summary: pd.DataFrame) -> Table:
    """The summary as text: controls, then asked rates in ascending order, then what has no rate.

    Without the metrics of embeddings (`embedding_tables`). The best value of a metric is marked
    within each asked rate, where two codecs or more have one.
    """
    metrics = [metric for metric in results.metrics if not metric.embedding]
    optional = []
    asked, nominal = summary["kbps"], summary["kbps_nominal"]
    if (np.abs(nominal / asked - 1) > 0.005).any():
        optional.append(("nominal", "kbps_nominal"))
    if summary["kbps_entropy"].notna().any():
        optional.append(("entropy", "kbps_entropy"))
    speeds = [("enc ×RT", "encode_rt"), ("dec ×RT", "decode_rt")]
    codecs = summary[~summary["control"].astype(bool)]
    places = {
        m.name: decimals(codecs[m.name], codecs[f"{m.name}_ci_high"] - codecs[f"{m.name}_ci_low"])
        for m in metrics
    }
    groups = []
    for title, rows in grouped(results, summary):
        best = {m.name: best_rows(rows, m) for m in metrics}
        lines = []
        for index, row in rows.iterrows():
            cells = [Cell(row["codec"]), rate_cell(row)]
            cells += [metric_cell(results, row, m, places[m.name], index in best[m.name]) for m in metrics]
            cells += [Cell(str(row["n"])), Cell(str(row["n_failed"]), warn=row["n_failed"] > 0)]
            cells += [Cell(kbps_text(row[name])) for _, name in optional]
            cells += [Cell(_speed_text(row[name])) for _, name in speeds]
            lines.append(cells)
        groups.append(Group(title, lines))
    headings = ["codec", "kbps", *(heading(metric) for metric in metrics), "n", "failed"]
    return Table(headings + [title for title, _ in [*optional, *speeds]], groups)


def grouped(results: Results, summary: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows of the summary under their headings: controls, asked rates, what has no rate."""
    control = summary["control"].astype(bool)
    groups = [("controls", summary[control])]
    for kbps in asked_rates(results):
        if kbps is None:
            groups.append(("no rate asked", summary[~control & summary["kbps"].isna()]))
        else:
            groups.append((f"{kbps:g} kbps", summary[~control & (summary["kbps"] == kbps)]))
    return [(title, rows) for title, rows in groups if len(rows)]


def best_rows(rows: pd.DataFrame, metric: MetricInfo) -> set[object]:
    """Index of the rows with the best value, where two codecs or more have one.

    Controls do not compete, nor does a codec too far off the asked rate, the ones with ⚠: it has spent more
    bits than the others, or fewer.
    """
    competing = ~rows["control"].astype(bool) & ~rows["rate_off"].astype(bool)
    values = rows.loc[competing, metric.name].dropna()
    if len(values) < 2:
        return set()
    return set(values.index[values == (values.max() if metric.higher_is_better else values.min())])


def rate_cell(row: pd.Series) -> Cell:
    """The measured rate, marked where it is far off the asked one or only declared."""
    mark = ("⚠ " if row["rate_off"] else "") + ("† " if row["rate_is"] == "declared" else "")
    return Cell(mark + kbps_text(row["kbps_measured"]), warn=row["rate_off"])


def metric_cell(results: Results, row: pd.Series, metric: MetricInfo, places: int, best: bool) -> Cell:
    """A value with its interval; infinity where all values are infinite."""
    mean, low, high = (row[metric.name + end] for end in ("", "_ci_low", "_ci_high"))
    if math.isnan(mean):
        if not metric.per_clip:
            return Cell(MISSING)
        scored = condition_rows(results, row["codec"], row["kbps"])
        values = scored.loc[scored["error"].isna(), metric.name].astype(float)
        all_same = len(values) > 0 and np.isinf(values).all() and values.nunique() == 1
        return Cell(f"{values.iloc[0]:g}" if all_same else MISSING)
    if row["control"]:  # often near zero or far above the codecs
        places = max(places, decimals(pd.Series([mean]), pd.Series([high - low])))
    interval = "" if math.isnan(low) else f"[{low:.{places}f}, {high:.{places}f}]"
    return Cell(f"{mean:.{places}f}", interval, best)


def _speed_text(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.0f}" if value >= 10 else f"{value:.2g}"


# Embeddings


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


def with_codebooks(results: Results) -> list[dict[str, Any]]:
    """Entries of ``results.corpus`` that have statistics of codebooks."""
    return [entry for entry in results.corpus if entry.get("codebooks")]


def codebook_table(results: Results, summary: pd.DataFrame) -> Table | None:
    """Perplexities, usage and entropy of every condition with codes; None if there is none."""
    entries = {(entry["codec"], entry["kbps"]): entry for entry in with_codebooks(results)}
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


def _codebook_cells(entry: Mapping[str, Any]) -> list[Cell]:
    sizes = [book["size"] for book in entry["codebooks"]]
    shape = f"{len(sizes)} × {sizes[0]}" if len(set(sizes)) == 1 else f"{len(sizes)}"
    perplexities = [
        entry[name + corrected]
        for name in ("perplexity", "perplexity_of_mean")
        for corrected in ("", "_miller_madow")
    ]
    return [
        Cell(shape),
        Cell(str(entry["frames"])),
        *(Cell(f"{value:.1f}") for value in perplexities),
        Cell(f"{100 * entry['usage']:.1f}%"),
        Cell(kbps_text(entry["kbps_entropy"])),
    ]


def codebook_frame(results: Results) -> pd.DataFrame:
    """One row per condition and codebook, for ``perplexity.csv``."""
    return pd.DataFrame(
        [
            {"codec": entry["codec"], "kbps": entry["kbps"], "codebook": number, **book}
            for entry in with_codebooks(results)
            for number, book in enumerate(entry["codebooks"], 1)
        ]
    )


def all_tables(results: Results, summary: pd.DataFrame) -> list[Table]:
    """The main table, one per embedding, and the codebooks' where there are any."""
    codebooks = codebook_table(results, summary)
    main = build_table(results, summary)
    return [main, *embedding_tables(results, summary), *([codebooks] if codebooks else [])]


def disclaimer(results: Results) -> str:
    """The line that every table of this data set must carry; "" if there is none."""
    return str(results.dataset.get("disclaimer") or "")
