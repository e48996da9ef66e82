"""The report as files: CSV, JSON, Markdown, LaTeX. They are written whole, with the same bytes every time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evaluation.records import Condition
from evaluation.report.categories import category_frame
from evaluation.report.findings import sentences
from evaluation.report.markup import latex, markdown
from evaluation.report.notes import notes
from evaluation.report.plots import write_plots
from evaluation.report.sharing import shareable_results
from evaluation.report.tables import (
    all_tables,
    caption,
    codebook_frame,
    compact_table,
    disclaimer,
    pair_frame,
    token_frame,
    with_noise_floor,
)
from evaluation.results import CLIP_COLUMNS, Results
from evaluation.statistics.recordings import TIMING_COLUMNS, rate_spread
from qincodec.core.files import result_file, write_atomic

SCHEMA_VERSION = 1

_ROWS_AT_ONCE = 2**17

# Column -> why its number is missing, if the summary has no reason.
_MISSING = {
    "kbps": "no rate was asked for",
    "kbps_nominal": "the condition has no nominal rate",
    "kbps_below": "the row is not interpolated",
    "kbps_above": "the row is not interpolated",
    "kbps_measured": "there is no bitstream and no declared rate",
    "kbps_measured_a": "there is no bitstream and no declared rate",
    "kbps_measured_b": "there is no bitstream and no declared rate",
    "kbps_min": "no codec has a rate",
    "kbps_max": "no codec has a rate",
    "spread": "no codec has a rate",
    "rate_deviation": "there is no asked or no measured rate",
    "kbps_entropy": "there are no codes to count",
    "delay_samples": "no delay could be estimated",
    "delay_applied": "no clip was scored",
    "gain_db": "no gain could be estimated",
    "encode_rt": "nothing was encoded",
    "decode_rt": "nothing was decoded",
    "difference": "no clip has a finite value for both",
    "ci_low": "an interval needs two recordings or more",
    "ci_high": "an interval needs two recordings or more",
}


def write_all(results: Results, folder: Path) -> list[Path]:
    """Write every table and plot into ``folder``; return their paths.

    Always: ``clips.csv`` and ``clips.parquet`` (a row per condition and clip), ``summary.csv``,
    ``summary.json``, ``table.md``, ``table.tex`` (booktabs), ``tests.csv``, and the plots. If there are rows:
    ``points.csv`` (operating points that are not rows of ``summary.csv``; ``lower_of`` and ``upper_of`` are
    the asked rates whose rows lie above and below), ``bd_rate.csv``, ``perplexity.csv`` (a row per condition
    and codebook), ``tokens.csv`` (per condition), ``mutual_information.csv`` (per pair of codebooks), and
    ``summary_by_category.csv`` (per category and condition).

    In CSV an infinite value is ``inf``, a value that is not a number is empty, and the disclaimer of the data
    set is a column; in JSON such values are null with the reason as ``<name>_reason``. `TIMING_COLUMNS` hold
    wall times; all else is reproducible. No file has a path of this machine (`evaluation.report.sharing`).

    Raises:
        UserError: a file cannot be written.
    """
    results = shareable_results(results)
    summary, tests, rates = results.summary, results.tests, results.bd_rate
    tables = all_tables(results, summary)
    lines = [*sentences(results), *(note.text for note in notes(results, summary))]
    contents = csv_tables(results) | {
        "summary.json": _summary_json(results, summary, tests, rates, lines),
        "table.md": markdown(tables, lines),
        "table.tex": latex_of(results),
    }
    clips = clip_frame(results)
    with result_file(folder / "clips.csv") as path:
        _write_csv(clips, path)
    with result_file(folder / "clips.parquet") as path:
        _write_parquet(clips, path)
    for name, content in contents.items():
        write_atomic(folder / name, content)
    for name in _OPTIONAL.keys() - contents.keys():
        (folder / name).unlink(missing_ok=True)  # an earlier state of the run may have left it
    names = ["clips.csv", "clips.parquet", *contents]
    return [folder / name for name in names] + write_plots(results, summary, folder)


def csv_tables(results: Results) -> dict[str, str]:
    """Name -> content of all CSV files with rows, without ``clips.csv``."""
    optional = {name: frame(results) for name, frame in _OPTIONAL.items()}
    return {
        "summary.csv": _csv(results, with_noise_floor(results, results.summary)),
        "tests.csv": _csv(results, results.tests),
        **{name: _csv(results, frame) for name, frame in optional.items() if len(frame)},
    }


def clip_frame(results: Results) -> pd.DataFrame:
    """``clips.csv``."""
    scores = [name for metric in results.clip_metrics for name in (metric.name, f"{metric.name}_reason")]
    return _with_disclaimer(results, results.clips[[*CLIP_COLUMNS, *scores]])


def latex_of(results: Results) -> str:
    """``table.tex``."""
    summary = results.summary
    lines = [*sentences(results), *(note.text for note in notes(results, summary))]
    return latex(compact_table(results, summary), caption(results, summary), lines)


def _points(results: Results) -> pd.DataFrame:
    """Operating points that are not rows, and the asked rates whose rows are interpolated between them."""
    if results.points is None:
        return pd.DataFrame()
    between = list(results.between.items())

    def asked(condition: Condition, side: str) -> str:
        return " ".join(f"{kbps:g}" for (_, kbps), of in between if getattr(of, side) == condition)

    conditions = results.points.conditions
    return results.points.summary.assign(
        lower_of=[asked(condition, "low") for condition in conditions],
        upper_of=[asked(condition, "high") for condition in conditions],
    )


#: CSV files that are written only if they have rows.
_OPTIONAL: dict[str, Callable[[Results], pd.DataFrame]] = {
    "points.csv": _points,
    "bd_rate.csv": lambda results: results.bd_rate,
    "perplexity.csv": codebook_frame,
    "tokens.csv": token_frame,
    "mutual_information.csv": pair_frame,
    "summary_by_category.csv": category_frame,
}


def _with_disclaimer(results: Results, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(disclaimer=disclaimer(results)) if disclaimer(results) else frame


def _csv(results: Results, frame: pd.DataFrame) -> str:
    return str(_with_disclaimer(results, frame).to_csv(index=False, lineterminator="\n"))


# With a row per condition and clip, the text is too long for memory


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        frame.to_csv(file, index=False, lineterminator="\n")


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write in blocks, which needs no copy of the whole frame; values that are not numbers are null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in frame}
    schema = pa.schema(
        [
            (name, pa.from_numpy_dtype(frame[name].dtype) if numeric[name] else pa.string())
            for name in frame.columns
        ]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, max(1, len(frame)), _ROWS_AT_ONCE):
            block = frame.iloc[start : start + _ROWS_AT_ONCE]
            writer.write_table(pa.Table.from_pandas(block, schema, preserve_index=False))


# JSON


def _summary_json(
    results: Results, summary: pd.DataFrame, tests: pd.DataFrame, rates: pd.DataFrame, lines: list[str]
) -> str:
    entropy_reasons = {(entry.codec, entry.kbps): entry.kbps_entropy_reason for entry in results.corpus}
    conditions = _condition_records(results, summary, entropy_reasons)
    floor = results.noise_floor
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "disclaimer": disclaimer(results) or None,
        "dataset": results.dataset.to_json(),
        "settings": results.settings.to_json(),
        "metrics": [metric.to_json() for metric in results.metrics],
        "n_pending": results.n_pending,
        "timing_columns": list(TIMING_COLUMNS),
        "conditions": conditions,
        "noise_floor": [] if floor is None else _condition_records(floor, floor.summary, {}),
        "embeddings": [asdict(info) for info in results.embeddings],
        "unavailable": results.unavailable,
        "skipped": results.skipped,
        "corpus": [entry.to_json() for entry in results.corpus],
        "tests": _records(tests),
        "findings": [_record(asdict(finding), {"": ""}) for finding in results.findings],
        "bd_rate": _records(rates),
        "rate_spread": _records(rate_spread(summary)),
        "notes": lines,
        "environment": results.environment,
    }
    if results.settings.match == "measured":
        points = results.points
        content["asked"] = [asdict(asked) for asked in results.asked]
        content["points"] = [] if points is None else _condition_records(points, points.summary, {})
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _condition_records(
    results: Results, summary: pd.DataFrame, entropy_reasons: Mapping[tuple[str, float | None], str]
) -> list[dict[str, Any]]:
    conditions = []
    for condition, row in zip(results.conditions, summary.to_dict("records"), strict=True):
        reasons = {"kbps_entropy": entropy_reasons.get((condition.codec, condition.kbps), "")}
        for metric in results.metrics:
            reasons[metric.name] = row.pop(f"{metric.name}_reason")
            ci_reason = row.pop(f"{metric.name}_ci_reason")
            for end in ("ci_low", "ci_high"):
                reasons[f"{metric.name}_{end}"] = ci_reason
            for end in ("half", "half_frames", "limit", "limit_ci_low", "limit_ci_high"):
                reasons[f"{metric.name}_{end}"] = ci_reason or "unbiased: it does not depend on the number"
            if row.get(f"{metric.name}_limit") == row.get(f"{metric.name}_limit"):
                for end in ("limit_ci_low", "limit_ci_high"):
                    reasons[f"{metric.name}_{end}"] = "too few frames, interpolated, or of an earlier version"
            for end in ("median_ci_low", "median_ci_high"):
                reasons[f"{metric.name}_{end}"] = ci_reason or "an interval of a median needs six recordings"
            reasons[f"{metric.name}_median"] = reasons[metric.name]
        row |= {"settings": condition.settings, "identity": condition.identity}
        if (between := results.between.get((condition.codec, condition.kbps))) is not None:
            row["between"] = asdict(between)
        conditions.append(_record(row, reasons))
    return conditions


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [_record(row, {}) for row in frame.to_dict("records")]


def _record(row: Mapping[Any, Any], reasons: Mapping[str, str]) -> dict[str, Any]:
    """The row with null for values that are not finite, and the reason as ``<name>_reason``."""
    record: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            reason = reasons.get(name) or _MISSING.get(name) or row.get("reason") or f"not finite: {value}"
            record |= {name: None, f"{name}_reason": reason}
        else:
            record[name] = value
    return record


def _plain(value: Any) -> Any:
    """JSON values of numpy scalars, paths and tuples; null for numbers that are not finite."""
    if isinstance(value, Mapping):
        plain: dict[str, Any] = {}
        for name, entry in value.items():
            plain[str(name)] = _plain(entry)
            if isinstance(entry, (float, np.floating)) and plain[str(name)] is None:
                plain.setdefault(f"{name}_reason", f"not finite: {entry}")
        return plain
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Iterable):
        return [_plain(entry) for entry in value]
    return str(value)
