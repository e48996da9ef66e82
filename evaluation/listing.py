"""``evaluate list``: what can be evaluated here, and what mends the rest."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from baselines.registry import CODECS, unavailable
from evaluation.embeddings import EMBEDDINGS
from evaluation.embeddings.base import Embedding
from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric
from qincodec.errors import UserError

#: The forms DATA takes, for people.
DATASETS = {
    "demo": "twelve made-up 5 s clips that come with the project; the default",
    "FOLDER, GLOB, FILE": "any audio libsndfile or FFmpeg reads; searched with its subfolders",
    "LIST.jsonl": "one JSON object a line: path, and optionally id, recording, category, start_s, duration_s",
    "audiocaps:FOLDER": "AudioCaps' test list with your copy of its audio (--audiocaps-list CSV)",
}


def codec_rows() -> Iterator[tuple[str, str, str]]:
    """(name, operating points, status) of every known codec."""
    for name in CODECS.names():
        try:
            reason = unavailable(name)
            yield (name, "", f"not here: {reason}") if reason else (name, _rates(name), "ready")
        except UserError as error:
            yield name, "", f"broken: {error}"


def _rates(name: str) -> str:
    codec = CODECS.load(name)()
    if codec.sample_rate == 0:
        codec.sample_rate = 44100
    rates = [rate.label for rate in codec.rates()]
    shown = ", ".join(rates) if len(rates) <= 8 else f"{', '.join(rates[:6])}, ... {rates[-1]}"
    hertz = "" if codec.control else f" at {codec.sample_rate / 1000:g} kHz"
    return f"{shown} kbps{hertz}" if rates != ["none"] else "no rate"


def embedding_rows() -> Iterator[tuple[str, str, str]]:
    """(name, status, definition) of every known embedding; nothing is downloaded for it."""
    for name in EMBEDDINGS.names():
        try:
            kind: type[Embedding] = EMBEDDINGS.load(name)
            reason = kind.unavailable()
            yield name, f"not here: {reason}" if reason else "ready", kind.definition
        except UserError as error:
            yield name, f"broken: {error}", ""


def print_listing() -> None:
    """Print codecs, metrics and data sets to stdout."""
    # Reasons are what the listing is for: where nobody sees columns, nothing may be cut off.
    console = Console() if Console().is_terminal else Console(width=160)
    codecs = Table("codec", "mono operating points", "status", title="Codecs", title_justify="left", box=None)
    for row in codec_rows():
        codecs.add_row(*row)
    metrics = Table("metric", "unit", "better", "definition", title="Metrics", title_justify="left", box=None)
    for name in METRICS.names():
        try:
            metric: Metric = METRICS.load(name)()
        except UserError as error:
            metrics.add_row(name, "", "", f"not here: {error}")
            continue
        direction = "higher" if metric.higher_is_better else "lower"
        metrics.add_row(name, metric.unit or "-", direction, metric.definition)
    embeddings = Table(
        "embedding", "status", "definition", title="Embeddings (metrics FD, KAD, FM, cosine)", box=None
    )
    embeddings.title_justify = "left"
    for row in embedding_rows():
        embeddings.add_row(*row)
    data = Table("DATA", "what it is", title="Data sets", title_justify="left", box=None)
    for name, text in DATASETS.items():
        data.add_row(name, text)
    for table in (codecs, metrics, embeddings, data):
        table.title_style = "bold"
        console.print(table)
        console.print()
