"""``evaluate list``: what runs on this machine, and what the rest needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from importlib.util import find_spec

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from baselines import weights, weights_files
from baselines.codec import Rate
from baselines.registry import CODECS, missing_weights, of_plugin, unavailable, why_not, works_alone
from evaluation.embeddings import EMBEDDINGS
from evaluation.embeddings.base import Embedding
from evaluation.engine.conditions import checked_identity, checked_rate_at, checked_rates
from evaluation.metrics import METRICS, load_metrics
from evaluation.metrics.base import Metric, Score, describe_metric
from evaluation.metrics.embedding import check_attributes
from evaluation.results import CLIP_COLUMNS, SUMMARY_COLUMNS, last_columns, metric_columns
from qincodec.core.errors import UserError
from qincodec.quantizers import QUANTIZERS

#: Form of DATA -> what it is.
DATASETS = {
    "demo": "twelve made-up 5 s clips that come with the project; the default",
    "FOLDER, GLOB, FILE": "any audio libsndfile or FFmpeg reads; searched with its subfolders",
    "LIST.jsonl": "one JSON object a line: path, and optionally id, recording, category, start_s, duration_s",
    "s3://, gs://, hf://, https://": "an address of one of these; drawn files are copied to the cache",
    "SHARD.tar, FOLDER, GLOB of tars": "WebDataset: KEY.flac, and KEY.json with category and recording",
    "hf:NAME[@CONFIG][:SPLIT]": "a data set of the library datasets, of the hub or of a folder",
    "vctk:FOLDER": "VCTK: recordings are its speakers, first microphone only",
    "musdb:FOLDER": "MUSDB18 or MUSDB18-HQ: recordings are its songs, categories mixture, vocals, drums ...",
    "daps:FOLDER": "DAPS: recordings are its speakers, categories its devices and rooms",
    "fsd50k:FOLDER": "FSD50K: categories are the most general labels of its ground truth",
    "audiocaps:FOLDER": "AudioCaps' test list with your copy of its audio (--audiocaps-list CSV)",
}


#: Operating points of the codecs whose networks take seconds to load; a test loads them and compares.
_POINTS = {
    "qincodec": "0.8269, 1.667, 2.507, 3.349, 4.19, 5.027, ... 23.4 kbps at 44.1 kHz",
    "qincodec-fast": "0.8269, 1.667, 2.507, 3.349, 4.19, 5.027, ... 23.4 kbps at 44.1 kHz",
    "qincodec-best": "0.8269, 1.667, 2.507, 3.349, 4.19, 5.027, ... 23.4 kbps at 44.1 kHz",
    "qincodec-continuous": "no rate",
    "dac": "0.8613, 1.723, 2.584, 3.445, 4.307, 5.168, ... 15.5 kbps at 44.1 kHz",
    "dac-24khz": "0.75, 1.5, 2.25, 3, 3.75, 4.5, ... 24 kbps at 24 kHz",
    "dac-16khz": "0.5, 1, 1.5, 2, 2.5, 3, ... 6 kbps at 16 kHz",
    "encodec": "1.547, 3.063, 4.578, 6.093, 7.608, 9.123, ... 24.27 kbps at 48 kHz",
    "encodec-24khz": "0.75, 1.5, 2.25, 3, 3.75, 4.5, ... 24 kbps at 24 kHz",
    "mimi": "0.1375, 0.275, 0.4125, 0.55, 0.6875, 0.825, ... 4.4 kbps at 24 kHz",
    "wavtokenizer": "0.48 kbps at 24 kHz",
    "wavtokenizer-75": "0.9 kbps at 24 kHz",
    "xcodec2": "0.8 kbps at 16 kHz",
    "xcodec": "0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4 kbps at 16 kHz",
    "neucodec": "0.8 kbps at 16 kHz, 24 out",
    "higgs-audio-v2": "0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2 kbps at 24 kHz",
    "snac": "2.584 kbps at 44.1 kHz",
    "snac-32khz": "1.875 kbps at 32 kHz",
    "snac-24khz": "0.9844 kbps at 24 kHz",
}


def codec_rows() -> Iterator[tuple[str, str, str]]:
    """(name, operating points, status) of every known codec."""
    for name in CODECS.names():
        try:
            if files := missing_weights(name):
                # The other remedies are the same for all codecs: `print_listing` says them once, below.
                alone = f"{alone} works alone; " if (alone := works_alone(name)) else ""
                fetch = f"evaluate weights fetch {' '.join(files)}{weights.where_allowed()}"
                yield name, _POINTS.get(name, ""), f"not here: no weights; {alone}{fetch}"
            elif reason := unavailable(name):
                yield name, "", f"not here: {reason}"
            else:
                shown = _POINTS.get(name) or of_plugin("codec", name, "rates()", partial(points, name))
                yield name, shown, "ready"
        except UserError as error:
            yield name, "", f"broken: {error}"
    for name, why in CODECS.ignored():
        yield name, "", why


def points(name: str, weights: str | None = None) -> str:
    """The operating points of a codec for mono, as text."""
    codec = CODECS.load(name)(weights=weights)
    of_plugin("codec", name, "identity()", partial(checked_identity, name, codec))
    if codec.sample_rate == 0:
        codec.sample_rate = 44100
    rates = [rate.label for rate in checked_rates(name, codec, 1)]
    shown = ", ".join(rates) if len(rates) <= 8 else f"{', '.join(rates[:6])}, ... {rates[-1]}"
    hertz = "" if codec.control else f" at {codec.sample_rate / 1000:g} kHz"
    if codec.output_sample_rate != codec.sample_rate:
        hertz += f", {codec.output_sample_rate / 1000:g} out"

    def at(kbps: float) -> Rate | None:
        return of_plugin("codec", name, "rate_at()", lambda: checked_rate_at(name, codec, kbps, 1))

    if (lowest := at(1e-3)) and (highest := at(1e6)):
        hertz += f"; to match measured rates any from {lowest.label} to {highest.label}"
    return f"{shown} kbps{hertz}" if rates != ["none"] else "no rate"


def metric_rows() -> Iterator[tuple[str, str, str, str, str, str]]:
    """(name, unit, better, status, clips it takes, definition) of every known metric; plug-ins are tried."""
    columns = {*CLIP_COLUMNS, *SUMMARY_COLUMNS}
    for name in METRICS.names():
        try:
            metrics, reasons = load_metrics([name])
            if reasons:
                yield name, "", "", f"not here: {reasons[name]}", "", ""
                continue
            info = describe_metric(metrics[0])
            own = {*metric_columns(info.name), *last_columns(info.name, per_clip=info.per_clip)}
            if own & columns:
                raise UserError(f"metric '{name}' is named '{info.name}', the column of another; rename it")
            if not METRICS.is_own(name):
                _try(metrics[0])
            columns |= own
            better = "higher" if info.higher_is_better else "lower"
            yield name, info.unit or "-", better, "ready", info.takes or "as they are", info.definition
        except UserError as error:
            yield name, "", "", f"broken: {error}", "", ""
    for name, why in METRICS.ignored():
        yield name, "", "", why, "", ""


def _try(metric: Metric) -> None:
    """Score half a second of noise, two items at once. Raises UserError as a run would say it."""
    import torch

    from evaluation.engine.scoring import Form, checked_scores

    form = Form.of(metric)
    noise = 0.1 * torch.randn(2, 2, form.channels or 1, 22050, generator=torch.Generator().manual_seed(0))

    def score() -> list[Score]:
        rate = form.sample_rate or 44100
        reference, decoded = (form.make(part, 44100) for part in noise)
        found = metric.score(metric.prepare(reference, rate), decoded, rate)
        return checked_scores(metric.name, found, 2)

    of_plugin("metric", metric.name, "score() of noise", score)


def embedding_rows() -> Iterator[tuple[str, str, str]]:
    """(name, status, definition) of every known embedding; downloads nothing."""
    for name in EMBEDDINGS.names():
        try:
            kind: type[Embedding] = EMBEDDINGS.load(name)
            reason = why_not("embedding", name, kind)
            definition = of_plugin("embedding", name, "definition", partial(getattr, kind, "definition"))
            check_attributes(kind.__name__, kind)
            yield name, f"not here: {reason}" if reason else "ready", definition
        except UserError as error:
            yield name, f"broken: {error}", ""
    for name, why in EMBEDDINGS.ignored():
        yield name, why, ""


def quantizer_rows() -> Iterator[tuple[str, str]]:
    """(name, status) of every known quantizer; the project's own are not imported."""
    for name in QUANTIZERS.names():
        try:
            if not QUANTIZERS.is_own(name):
                QUANTIZERS.load(name)
            here = not name.startswith("faiss") or find_spec("faiss") is not None
            yield name, "ready" if here else "not here: pip install 'qincodec[faiss]'"
        except UserError as error:
            yield name, f"broken: {error}"
    yield from QUANTIZERS.ignored()


def print_listing() -> None:
    """Print codecs, metrics and data sets to stdout."""
    # The reasons must be complete: outside a terminal no column may be cut off.
    console = Console() if Console().is_terminal else Console(width=160)
    parts: list[tuple[str, str, Iterable[tuple[str, ...]]]] = [
        ("Codecs", "codec|mono operating points|status", codec_rows()),
        ("Metrics", "metric|unit|better|status|takes|definition", metric_rows()),
        ("Embeddings (metrics FD, KAD, FM, cosine)", "embedding|status|definition", embedding_rows()),
        ("Quantizers", "quantizer|status", quantizer_rows()),
        ("Data sets", "DATA|what it is", DATASETS.items()),
    ]
    tables: list[Table | Text] = []
    advice = f"Weights are read from '{weights_files.folder()}'. `evaluate weights` lists their sources;"
    advice += " --weights NAME=PATH reads another file."
    for title, columns, rows in parts:
        table = Table(*columns.split("|"), title=title, title_justify="left", title_style="bold", box=None)
        for row in rows:
            table.add_row(*map(escape, row))
        tables.append(table)
        if title == "Codecs":
            tables.append(Text(advice))
    for part in tables:  # all at once: the slowest codec would hold up the lines below it
        console.print(part)
        console.print()
