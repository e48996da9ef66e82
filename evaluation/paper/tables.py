"""Tables and figures of the paper as data, made from the results of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from evaluation.paper import printed as content
from evaluation.paper.latents import DEFINITION, LatentError
from evaluation.paper.models import RANDOM, Model
from evaluation.paper.printed import Column, WantedRow
from evaluation.records import Condition, DatasetInfo, is_untrained
from evaluation.report.notes import notes
from evaluation.results import Results

OPENL3 = "openl3"
#: Title of the reasons for everything that could not run.
NOT_RUN_HERE = "Not run here"


@dataclass(frozen=True)
class Entry:
    """A number and the paper's value.

    Attributes:
        value: None with a ``reason``.
        low, high: 95 % interval; None with a ``ci_reason``.
        paper: None if the paper, or our copy of it, has no value.
        half: for a distance between distributions, its value at half the recordings.
        ran: False if it cannot be computed here for any codec.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    half: float | None = None
    reason: str = ""
    ci_reason: str = ""
    ran: bool = True

    @property
    def difference(self) -> float | None:
        """Here minus the paper."""
        return None if self.value is None or self.paper is None else self.value - self.paper


@dataclass(frozen=True)
class Row:
    """A row of a table with its numbers, or with the reason why it did not run."""

    wanted: WantedRow
    kbps: float
    reason: str = ""
    model: str = ""
    kbps_measured: float | None = None
    n: int = 0
    n_failed: int = 0
    n_recordings: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables; ``missing``: (missing columns, reason)."""

    name: str
    title: str
    columns: list[Column]
    rows: list[Row]
    missing: list[tuple[str, str]]
    notes: list[str]


@dataclass(frozen=True)
class Point:
    """A point of a figure.

    Attributes:
        x: a measured rate in kbit/s, the number of a codebook, or the name of a condition.
        low, high: 95 % interval.
        n: number of its clips, frames or listeners.
        asked: asked rate, kbit/s.
    """

    x: float | str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    asked: float | None = None


@dataclass(frozen=True)
class Series:
    """A curve in a panel of a figure."""

    panel: str
    label: str
    points: list[Point]


@dataclass(frozen=True)
class PaperFigure:
    """One of the paper's figures; ``missing``: (missing part, reason)."""

    name: str
    title: str
    series: list[Series]
    missing: list[tuple[str, str]]
    notes: list[str]


@dataclass(frozen=True)
class Reproduction:
    """All tables and figures.

    Attributes:
        data_note: description of the data.
        comparable: whether the data are the paper's, so that differences to its values have a meaning.
    """

    data: DatasetInfo
    data_note: str
    comparable: bool
    models: list[Model]
    tables: list[PaperTable]
    figures: list[PaperFigure]
    notes: list[str]
    environment: dict[str, Any]
    n_failed: int

    @property
    def summary(self) -> str:
        """A sentence on how many rows and figures were computed."""
        rows = [row for table in self.tables for row in table.rows]
        ran = sum(not row.reason for row in rows)
        drawn = sum(bool(figure.series) for figure in self.figures)
        return (
            f"{ran} of {len(rows)} rows of the tables ran and {drawn} of {len(self.figures)} figures could be"
            f" drawn; '{NOT_RUN_HERE}' lists the others"
        )


@dataclass
class TableMaker:
    """Makes the tables and figures.

    Attributes:
        results: results of the run, which may have further conditions; None if nothing could run.
        labels: key of a row -> its codec in the run.
        models: role -> its models, the one for the tables first.
        drawn: latent dimension -> its model in Fig. 4.
        reasons: key of a row -> why it did not run.
        rates_off: (key, kbps) -> why a codec has no such rate.
        latent_errors: role -> its error, for rows of Table III that ran.
        no_embeddings: embedding -> why it could not be computed.
    """

    results: Results | None
    labels: Mapping[str, str]
    models: Mapping[str, list[Model]]
    drawn: Mapping[int, Model]
    reasons: Mapping[str, str]
    rates_off: Mapping[tuple[str, float], str]
    latent_errors: Mapping[str, LatentError]
    no_embeddings: Mapping[str, str]

    def __post_init__(self) -> None:
        results = self.results
        wanted = [
            (label, kbps)
            for key, label in self.labels.items()
            for kbps in content.TABLE_RATES.values()
            if content.is_wanted(key, kbps)
        ]
        points = [(model.label, kbps) for model in self.drawn.values() for kbps in content.CURVE_RATES]
        #: Results for the tables, and for the curves of Fig. 4.
        self._tabled = None if results is None else _only(results, wanted)
        self._points = None if results is None else _only(results, points)
        has_openl3 = results is not None and OPENL3 not in self.no_embeddings
        self._columns = [*content.COLUMNS, *(() if has_openl3 or results is None else content.SUBSTITUTES)]
        self._corpus = {(e.codec, e.kbps): e for e in (results.corpus if results else [])}

    @property
    def n_failed(self) -> int:
        """Number of failed results of clips in all tables and figures."""
        parts = [part.clips for part in (self._tabled, self._points) if part is not None]
        failed = [rows[rows["error"].notna()] for rows in parts]
        return len(
            {key for rows in failed for key in zip(rows["codec"], rows["kbps"], rows["clip"], strict=True)}
        )

    def table(self, name: str, kbps: float) -> PaperTable:
        """Table I or II."""
        rows = [self._row(wanted, kbps, self._columns) for wanted in content.COMPARISON]
        title = f"QINCODEC and competing codecs at {kbps:g} kbps"
        notes = self._table_notes(rows) + self._pair_notes()
        return PaperTable(name, title, list(self._columns), rows, self._missing_columns(), notes)

    def _pair_notes(self) -> list[str]:
        """Notes on pairs of models that are not one model before and after fine-tuning."""
        notes = []
        for kind in (content.IRVQ, content.QINCO2):
            pair = [self.models[key][0] for key in (kind, kind + content.FINETUNED) if key in self.models]
            if len({model.coder for model in pair}) > 1:
                notes.append(
                    f"{kind} and {kind}{content.FINETUNED} differ in encoder or quantizer, which fine-tuning"
                    " does not change: they are not one model before and after it"
                )
        return notes

    def ablation(self) -> PaperTable:
        """Table III."""
        kbps = content.ABLATION_RATE
        columns = [Column(content.LATENT_ERROR, "latent MSE ↓"), *self._columns]
        rows = [self._row(wanted, kbps, columns, compared=False) for wanted in content.ABLATION]
        used = {self.models[row.wanted.key][0].encoder for row in rows if not row.reason}
        notes = ["Our copy of the paper does not have the numbers of Table III, so they are dashes"]
        if len(used) > 1:
            notes.append("The quantizers belong to different encoders: their latent MSE cannot be compared")
        title = f"Offline quantizers at {kbps:g} kbps, after step 2 (no fine-tuning)"
        notes += self._table_notes(rows)
        return PaperTable("III", title, columns, rows, self._missing_columns(), notes)

    def _missing_columns(self) -> list[tuple[str, str]]:
        return [("FD-OL3, FM-OL3", self.no_embeddings[OPENL3])] if OPENL3 in self.no_embeddings else []

    def _row(self, wanted: WantedRow, kbps: float, columns: Sequence[Column], compared: bool = True) -> Row:
        """A row; ``compared``: with the paper's values, if it has any."""
        key = wanted.key
        values = {c.key: content.printed(kbps, key, c.key) if compared else None for c in columns}
        reason = self.reasons.get(key) or self.rates_off.get((key, kbps), "")
        summary = None if reason else self._summary(self.labels[key], kbps)
        if not reason and summary is None:
            reason = "nothing was evaluated"
        if summary is None:
            entries = {name: Entry(None, paper=value, reason=reason) for name, value in values.items()}
            return Row(wanted, kbps, reason, entries=entries)
        return Row(
            wanted,
            kbps,
            "" if summary["n_recordings"] else f"all {summary['n_failed']} clips failed",
            self._model_text(key, kbps),
            _number(summary["kbps_measured"]),
            int(summary["n"]),
            int(summary["n_failed"]),
            int(summary["n_recordings"]),
            {c.key: replace(self._entry(summary, key, c.key), paper=values[c.key]) for c in columns},
        )

    def _summary(self, label: str, kbps: float) -> pd.Series | None:
        if self._tabled is None:
            return None
        table = self._tabled.summary
        rows = table[(table["codec"] == label) & (table["kbps"] == kbps)]
        return rows.iloc[0] if len(rows) else None

    def _entry(self, summary: pd.Series, key: str, column: str) -> Entry:
        if column == content.LATENT_ERROR:
            error = self.latent_errors[key]
            return Entry(
                _number(error.value),
                _number(error.low),
                _number(error.high),
                reason=error.reason,
                ci_reason=error.ci_reason,
            )
        if column == content.PERPLEXITY:
            entry = self._corpus.get((summary["codec"], summary["kbps"]))
            if entry is None or not entry.codebooks:
                reason = "" if entry is None else entry.kbps_entropy_reason
                return Entry(None, reason=reason or "the codec has no codes")
            return Entry(entry.perplexity, ci_reason="one number of all frames")
        if column not in summary:
            embedding = column.partition("_")[2]
            return Entry(None, reason=self.no_embeddings.get(embedding, "not computed"), ran=False)
        return Entry(
            _number(summary[column]),
            _number(summary[f"{column}_ci_low"]),
            _number(summary[f"{column}_ci_high"]),
            half=_number(summary.get(f"{column}_half", math.nan)),
            reason=summary[f"{column}_reason"],
            ci_reason=summary[f"{column}_ci_reason"],
        )

    def _condition(self, label: str, kbps: float) -> Condition | None:
        conditions = self.results.conditions if self.results else []
        return next((c for c in conditions if (c.codec, c.kbps) == (label, kbps)), None)

    def _model_text(self, key: str, kbps: float) -> str:
        condition = self._condition(self.labels[key], kbps)
        assert condition is not None
        identity = condition.identity
        settings = ", ".join(f"{name} {value}" for name, value in condition.settings.items())
        if key in self.models:
            search = ", ".join(
                f"{name} {value}" for name, value in identity.get("quantizer", {}).items() if name != "kind"
            )
            text = f"{self.models[key][0].description}; {settings}"
            return f"{text}; search: {search}" if search else text
        text = f"{key} version {identity['version']}, weights {identity['weights']}; {settings}"
        return f"RANDOM WEIGHTS, never trained: {text}" if is_untrained(identity) else text

    def _table_notes(self, rows: Sequence[Row]) -> list[str]:
        notes = []
        if self._columns[-1] in content.SUBSTITUTES:
            notes.append("FD-logmel and FM-logmel are not in the paper: they have other features and scales")
        frames = {}
        for row in rows:
            entry = None if row.reason else self._corpus.get((self.labels[row.wanted.key], row.kbps))
            if entry is not None and entry.codebooks:
                frames[row.wanted.label] = (
                    f"{row.wanted.label} {entry.frames} frames, {entry.perplexity_miller_madow:.0f}"
                )
        if frames:
            notes.append(
                "perplexity: mean of 2^H over the codebooks, biased low on few frames; with Miller and"
                f" Madow's correction: {'; '.join(frames.values())}"
            )
        floor = self._tabled.noise_floor if self._tabled is not None else None
        if floor is not None and "fd_openl3" in floor.summary:
            parts = [
                f"{row['codec']} {row['fd_openl3']:.3g} and {row['fm_openl3']:.3g}"
                for _, row in floor.summary.iterrows()
            ]
            notes.append(f"Noise floor, FD-OL3 and FM-OL3 of the references themselves: {'; '.join(parts)}")
        scores = self._tabled.scores if self._tabled is not None else []
        counts = {
            (s.n_clips, s.n_frames, "–" if math.isnan(s.half_frames) else f"{s.half_frames:.0f}")
            for s in scores
            if s.metric == "fd_openl3" and not s.common and s.n_clips
        }
        if counts:
            parts = [f"{n} clips, {frames} frames (half: {half})" for n, frames, half in sorted(counts)]
            notes.append(f"FD-OL3 is for {'; '.join(parts)} and falls as they grow: compare at equal n only")
        return notes

    def _mark(self, key: str, kbps: float) -> str:
        """Ending of the name of a row's codec in a picture."""
        if key in self.models:
            return self.models[key][0].mark
        condition = self._condition(self.labels[key], kbps)
        return RANDOM if condition is not None and is_untrained(condition.identity) else ""

    def codebooks(self) -> PaperFigure:
        """Fig. 3."""
        series = []
        missing: dict[tuple[str, str], list[str]] = {}
        for kbps in content.TABLE_RATES.values():
            for name, keys in content.CODEBOOKS:
                usable = [key for key in keys if key in self.labels and (key, kbps) not in self.rates_off]
                entry = self._corpus.get((self.labels[usable[0]], kbps)) if usable else None
                if entry is None or not entry.codebooks:
                    reason = self.reasons.get(keys[0]) or self.rates_off.get((keys[0], kbps)) or "no codes"
                    missing.setdefault((name, reason), []).append(f"{kbps:g}")
                    continue
                points = [
                    Point(number, book.perplexity, n=book.frames)
                    for number, book in enumerate(entry.codebooks, 1)
                ]
                series.append(Series(f"{kbps:g} kbps", name + self._mark(usable[0], kbps), points))
        absent = [
            (f"{name} at {' and '.join(rates)} kbps", reason) for (name, reason), rates in missing.items()
        ]
        title = "Perplexity of each codebook"
        return PaperFigure("fig3", title, series, absent, ["Perplexity 2^H; n: number of frames"])

    def curves(self, off: Mapping[tuple[str, float], str], nothing: str) -> PaperFigure:
        """Fig. 4.

        Args:
            off: (codec in the run, kbps) -> why it has no such rate.
            nothing: why no curve is drawn, if none is.
        """
        series = []
        drawn = self.drawn
        reason = "no model with it" if drawn else nothing
        if drawn and all(model.ours for model in drawn.values()):
            dims = " and ".join(map(str, drawn))
            reason = f"our shipped models have D = {dims} alone; give others with --training or --model"
        missing = [(f"D = {dim}", reason) for dim in content.LATENT_DIMS if dim not in drawn]
        labels = {model.label: f"D = {dim}, {model.role}{model.mark}" for dim, model in drawn.items()}
        missing += [(f"{labels[label]} at {kbps:g} kbps", reason) for (label, kbps), reason in off.items()]
        if self._points is not None:
            plain = [metric for metric in self._points.metrics if not metric.embedding]
            results = replace(self._points, metrics=plain, scores=[])
            for column in (content.COLUMNS[1], content.COLUMNS[0]):
                for label, text in labels.items():
                    rows = results.summary[results.summary["codec"] == label].sort_values("kbps_measured")
                    points = [
                        Point(
                            row["kbps_measured"],
                            row[column.key],
                            _number(row[f"{column.key}_ci_low"]),
                            _number(row[f"{column.key}_ci_high"]),
                            int(row[f"{column.key}_n"]),
                            row["kbps"],
                        )
                        for _, row in rows.iterrows()
                        if math.isfinite(row[column.key])
                    ]
                    if points:
                        series.append(Series(column.heading, text, points))
        title = "QINCODEC at various bitrates and latent dimensions"
        notes = ["Over measured kbps, with 95% intervals; n: clips", *(m.description for m in drawn.values())]
        return PaperFigure("fig4", title, series, missing, notes)

    def notes(self) -> list[str]:
        """Notes on all tables, one line each."""
        found = [] if self._tabled is None else notes(self._tabled, self._tabled.summary)
        lines = [note.text for note in found]
        if ours := [model.weights for entries in self.models.values() for model in entries if model.ours]:
            lines.append(
                f"Shipped models are our own: {', '.join(ours)}. Compare them with"
                " each other; the paper's values are those of other, larger models"
            )
        if self.latent_errors:
            lines.append(DEFINITION)
        if self._tabled is not None and any(m.name == "fm_openl3" for m in self._tabled.metrics):
            lines.append("The paper has no formula for its FM-OL3: the one above is ours")
        return lines


def _only(results: Results, wanted: Sequence[tuple[str, float]]) -> Results:
    """The part of a run with these (codec, kbps)."""
    keys = set(wanted)
    clips = results.clips
    chosen = [pair in keys for pair in zip(clips["codec"], clips["kbps"], strict=True)]
    return replace(
        results,
        clips=clips[chosen],
        conditions=[c for c in results.conditions if (c.codec, c.kbps) in keys],
        corpus=[entry for entry in results.corpus if (entry.codec, entry.kbps) in keys],
        scores=[score for score in results.scores if (score.codec, score.kbps) in keys],
    )


def _number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
