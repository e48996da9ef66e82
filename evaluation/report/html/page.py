"""The report without its clips, as a pure function of `Results`; and functions that all pages share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pandas as pd

from evaluation.report.categories import categories
from evaluation.report.cells import MISSING, Cell, Section, Table, decimals, heading, kbps_text, rate_heading
from evaluation.report.drawing import templates
from evaluation.report.findings import FIRST, HOW, listed, sentences, silence
from evaluation.report.html import figures
from evaluation.report.notes import attributions, notes
from evaluation.report.tables import all_tables, build_table, with_noise_floor
from evaluation.results import Results
from qincodec.core.errors import count

#: Most failures in the list.
MAX_FAILURES = 200
#: Kinds of notes that are at the top in full, and kinds that are in the last section.
STAMPS = ("disclaimer", "unfinished", "weights")
_ENVIRONMENT = ("left out", "unavailable")
_ELSEWHERE = (*STAMPS, *_ENVIRONMENT)
#: Kind of a note -> its word in the line that folds the warnings.
_ABOUT = {"rate": "rates", "delay": "delays", "failed": "failures", "embedding": "embeddings"}


def fill_in(template: str, **values: Any) -> str:
    """A page from a template, with all values escaped."""
    return templates(__package__, "templates").get_template(template).render(**values)


def static(name: str) -> bytes:
    """Content of a file that pages need."""
    return (resources.files(__package__) / "static" / name).read_bytes()


@dataclass(frozen=True)
class Difference(Cell):
    """Row minus column by a test.

    Attributes:
        verdict: "better", "worse", "same", "untested" or "self", for the row.
        detail: text that shows when the pointer is on the cell.
    """

    verdict: str = "self"
    detail: str = ""

    @property
    def interval_text(self) -> str:
        return self._interval(self.form)


def page_content(results: Results, commands: Iterable[str]) -> dict[str, Any]:
    """Name -> value for the template.

    Args:
        results: results of the run.
        commands: command lines of the run.
    """
    summary = results.summary
    everything = with_noise_floor(results, summary)
    shown = [note for note in notes(results, summary) if note.kind not in ("definition", "attribution")]
    warnings = [note for note in shown if note.severity == "warning" and note.kind not in _ELSEWHERE]
    said = sentences(results)
    main, *others = all_tables(results, summary, medians=True)
    plain = [metric for metric in results.metrics if not metric.embedding]
    embedded = [metric for metric in results.metrics if metric.embedding]
    return {
        "name": results.dataset.name,
        "codecs": list(dict.fromkeys(c.codec for c in results.conditions)),
        "scope": _scope(results),
        "facts": _facts(results),
        "stamps": [note.text for note in shown if note.kind in STAMPS],
        "findings": said[:FIRST],
        "more_findings": said[FIRST:],
        "how_found": HOW,
        "silence": silence(results),
        "warnings": [note.text for note in warnings],
        "warned_of": listed(list(dict.fromkeys(_ABOUT.get(note.kind, note.kind) for note in warnings))),
        "notes": [n.text for n in shown if n.severity != "warning" and n.kind not in _ELSEWHERE],
        "missing_here": [note.text for note in shown if note.kind in _ENVIRONMENT],
        "main": main,
        "embedding_tables": others[: len(results.embeddings)],
        "codebook_tables": others[len(results.embeddings) :],
        "legend": figures.legend(results),
        "curves": figures.rate_distortion(results, everything, plain),
        "embedding_curves": figures.rate_distortion(results, everything, embedded),
        "categories": [
            {
                "text": part.text,
                "table": build_table(part.results, part.results.summary, medians=True),
                "curves": figures.rate_distortion(part.results, part.results.summary, part.results.metrics),
            }
            for part in categories(results)
        ],
        "has_floor": results.noise_floor is not None,
        "speed": figures.speed(results, summary),
        "perplexity": figures.perplexity(results),
        "distributions": figures.distributions(results),
        "matrices": _matrices(results),
        "bd_rates": _bd_table(results),
        "failures": _failures(results),
        "num_failures": int(results.clips["error"].notna().sum()),
        "metrics": results.metrics,
        "embeddings": results.embeddings,
        "attributions": attributions(results),
        "conditions": _conditions(results),
        "settings": flat(results.settings.to_json()),
        "environment": flat(results.environment),
        "commands": list(commands),
        "excluded": _list("name, reason", [[*map(Cell, entry)] for entry in results.dataset.excluded]),
    }


def _scope(results: Results) -> str:
    data, settings = results.dataset, results.settings
    channels = {1: "mono", 2: "stereo"}[settings.channels]
    return (
        f"{count(data.n_clips, 'clip')} of {count(data.n_recordings, 'recording')},"
        f" {settings.sample_rate / 1000:g} kHz {channels}"
    )


def _facts(results: Results) -> list[tuple[str, str]]:
    data, settings = results.dataset, results.settings
    failed = int(results.clips["error"].notna().sum())
    channels = {1: "mono", 2: "stereo"}[settings.channels]
    facts = [
        ("data", f"{data.name}: {count(data.n_clips, 'clip')} of {count(data.n_recordings, 'recording')}"),
        ("excluded", str(data.n_excluded)),
        ("conditions", f"{len(results.conditions)}: codecs at asked rates, and controls"),
        ("results", f"{len(results.clips)} of clips, {failed} failed, {results.n_pending} missing"),
        ("evaluated at", f"{settings.sample_rate} Hz, {channels}"),
        ("seed", str(settings.seed)),
        ("hash of the data", data.hash),
    ]
    if data.n_lossy:
        facts.insert(2, ("lossy references", f"{data.n_lossy} ({', '.join(data.lossy_formats)})"))
    return facts


# Paired tests


def _matrices(results: Results) -> list[tuple[str, list[Table]]]:
    parts = []
    for metric in results.metrics:
        own = results.tests[results.tests["metric"] == metric.name]
        matrices = [
            _matrix(None if key == -1 else float(key), rows)
            for key, rows in own.groupby(own["kbps"].fillna(-1), sort=True)
        ]
        if matrices:
            parts.append((heading(metric), matrices))
    return parts


def _matrix(kbps: float | None, tests: pd.DataFrame) -> Table:
    """All pairs of codecs by one metric at one asked rate."""
    codecs = list(dict.fromkeys([*tests["codec_a"], *tests["codec_b"]]))
    places = decimals(tests["difference"], tests["ci_high"] - tests["ci_low"])
    cells: dict[tuple[str, str], Difference] = {}
    for _, row in tests.iterrows():
        a, b = row["codec_a"], row["codec_b"]
        for first, second, sign in ((a, b, 1), (b, a, -1)):
            cells[first, second] = _difference(row, first, sign, places)
    clips, recordings = (
        (f"{numbers.min()} to " if numbers.min() < numbers.max() else "") + count(int(numbers.max()), what)
        for numbers, what in ((tests["n_clips"], "clip"), (tests["n_recordings"], "recording"))
    )
    rows = [[Cell(a), *(cells.get((a, b), Difference("")) for b in codecs)] for a in codecs]
    title = f"{rate_heading(kbps)}, n = {clips} of {recordings}"
    return Table(["", *codecs], [Section("", rows)], title, num_keys=1)


def _difference(row: pd.Series, first: str, sign: int, places: int) -> Difference:
    if row["winner"] in ("", "n.s."):
        verdict = "untested" if row["winner"] == "" else "same"
    else:
        verdict = "better" if row["winner"] == first else "worse"
    low, high = sorted((sign * row["ci_low"], sign * row["ci_high"]))
    rates = [kbps_text(row[f"kbps_measured_{side}"]) for side in "ab"][::sign]
    details = [
        f"n = {count(int(row['n_clips']), 'clip')} of {count(int(row['n_recordings']), 'recording')}",
        f"measured {rates[0]} against {rates[1]} kbps",
    ]
    if not math.isnan(row["p_holm"]):
        details.append(f"p = {row['p_holm']:.3g} (Holm)")
    if not math.isnan(row["rank_biserial"]):
        details.append(f"rank-biserial r = {sign * row['rank_biserial']:+.2f}")
    if row["reason"]:
        details.append(row["reason"])
    value, detail = sign * row["difference"], "; ".join(details)
    return Difference(value, f"+.{places}f", (low, high), verdict=verdict, detail=detail)


def _bd_table(results: Results) -> Table:
    labels = {metric.name: metric.label for metric in results.metrics}
    rows = [
        [
            Cell(labels[row["metric"]]),
            Cell(row["codec"]),
            Cell(row["anchor"]),
            Cell(row["bd_rate"], "+.1f"),
            Cell(100 * row["overlap"], ".0f"),
            Cell(f"{row['n_points']} and {row['n_points_anchor']}"),
            Cell(row["reason"]),
        ]
        for _, row in results.bd_rate.iterrows()
    ]
    return _list("metric, codec, anchor, BD-rate %, overlap %, points, why not", rows)


# Lists


def _list(headings: str, rows: list[list[Cell]]) -> Table:
    return Table(headings.split(", "), [Section("", rows)])


def _failures(results: Results) -> Table:
    failed = results.clips[results.clips["error"].notna()]
    rows = [
        [Cell(row["codec"]), Cell(row["kbps"], "g"), Cell(row["clip"]), Cell(row["error"])]
        for _, row in failed.head(MAX_FAILURES).iterrows()
    ]
    return _list("codec, asked kbps, clip, reason", rows)


def _conditions(results: Results) -> Table:
    def text(entries: Mapping[str, Any]) -> Cell:
        shown = (f"{name} {value}" for name, value in entries.items() if value not in ("", None))
        return Cell(", ".join(shown))

    rows = []
    points = [] if results.points is None else results.points.conditions
    for c in [*results.conditions, *points]:
        rates = Cell(c.kbps, "g"), Cell(c.nominal, ".4g"), Cell(c.rate_is)
        rows.append([Cell(c.codec), *rates, text(c.settings), text(c.identity)])
    return _list("codec, asked kbps, nominal kbps, the rate is, settings, identity", rows)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """ "packages torch" -> its version, for nested descriptions."""
    out: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            out += flat(value, f"{prefix}{name} ")
        else:
            out.append((prefix + name, MISSING if value is None else str(value)))
    return out
