"""The parsed request: every check that needs no codec, no data and no network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from baselines import weights
from baselines.codec import Codec
from baselines.registry import CODECS
from evaluation.embeddings import EMBEDDINGS
from evaluation.engine.plug_ins import digest_of
from evaluation.metrics import METRICS
from evaluation.records import Settings
from qincodec.core.errors import UserError, unknown
from qincodec.core.files import safe_name
from qincodec.core.plugins import add_file, in_a_file

#: Names of metrics and embeddings; an embedding selects its four metrics.
DEFAULT_METRICS = "si_sdr,ms_mel,logmel,openl3"


@dataclass(frozen=True)
class Request:
    """The request as typed; see `evaluate` for the meaning of each value."""

    data: str | None = None
    codecs: Sequence[str | Codec] = ("qincodec,opus,mp3",)
    kbps: float | Sequence[float] | str = "8,16"
    conditions: Sequence[str] = ()
    metrics: Sequence[str] | str = DEFAULT_METRICS
    weights: Sequence[str] | Mapping[str, str] = ()
    speech: bool = False
    skip_unavailable: bool = False
    device: str = "cpu"
    batch_size: int = 8
    workers: int | None = None
    save_audio: bool = False
    cluster: str | None = None
    settings: Settings = field(default_factory=Settings)
    dataset_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CodecSpec:
    """``[NAME=]CODEC[:WEIGHTS]`` as typed after ``--codecs``, or a codec that was given as an object.

    Attributes:
        label: of its rows.
        codec: name in `baselines.registry.CODECS`; an object's own name.
        digest: hash of the code of a codec that is not installed, else "".
    """

    label: str
    codec: str
    weights: str | None = None
    given: Codec | None = None
    digest: str = ""


@dataclass(frozen=True)
class RenderedSpec:
    """``NAME[@KBPS]=DIR`` as typed after ``--condition``."""

    label: str
    kbps: float | None
    folder: Path


@dataclass(frozen=True)
class ParsedRequest:
    """A parsed request with the typed one.

    Attributes:
        metrics: names of metrics with a value per clip.
        embeddings: names of embeddings.
    """

    typed: Request
    codecs: list[CodecSpec]
    rendered: list[RenderedSpec]
    kbps: list[float]
    metrics: list[str]
    embeddings: list[str]


def parse_request(request: Request) -> ParsedRequest:
    """Parse a request. From here on, its weights files replace those of the cache.

    Raises:
        UserError: a part of it cannot be parsed or cannot work.
    """
    _check_numbers(request)
    if request.cluster is not None:
        check_cluster(request.cluster)
    given = request.weights if isinstance(request.weights, Mapping) else parse_weights(request.weights)
    codecs = _give_weights(parse_codecs(request.codecs), given)
    rendered = parse_conditions(request.conditions)
    kbps = parse_kbps(request.kbps)
    metrics, embeddings = choose_metrics(request.metrics)
    for spec in codecs:
        if spec.given is None and spec.codec not in CODECS:
            CODECS.load(spec.codec)  # its error suggests similar names
    _refuse_same_rows(codecs, rendered)
    if not codecs and not rendered:
        raise UserError("nothing to evaluate: give --codecs (see `evaluate list`) or --condition NAME=DIR")
    return ParsedRequest(request, codecs, rendered, kbps, metrics, embeddings)


def parse_kbps(given: str | float | Sequence[float]) -> list[float]:
    """``"8,16"`` -> [8.0, 16.0]: positive, in the order given, duplicates dropped."""
    parts: Sequence[Any] = (
        given.split(",") if isinstance(given, str) else given if isinstance(given, Iterable) else [given]
    )
    rates: list[float] = []
    for part in parts:
        try:
            rate = float(part)
        except (TypeError, ValueError):
            rate = 0.0
        if not 0 < rate < 1e5:
            raise UserError(
                f"--kbps takes numbers of kbit/s above 0 and below 100000, for example 8,16; got '{part}'"
            )
        if rate not in rates:
            rates.append(rate)
    if not rates:
        raise UserError("--kbps is empty; give rates in kbit/s, for example 8,16")
    return rates


def parse_codecs(text: str | Sequence[str | Codec]) -> list[CodecSpec]:
    """Codecs of a comma-separated list, as ``"opus,mine=qincodec:PATH,./my_codec.py:MuLaw"``, or of several
    such lists, or objects."""
    specs = []
    for entry in [text] if isinstance(text, str) else text:
        if isinstance(entry, Codec):
            _check_label(entry.name, "codecs", type(entry).__name__)
            specs.append(CodecSpec(entry.name, entry.name, None, entry, digest_of(entry)))
            continue
        specs += [_parse_codec(item.strip()) for item in entry.split(",") if item.strip()]
    return specs


def _parse_codec(item: str) -> CodecSpec:
    if match := re.fullmatch(r"(?:([^=:]*)=)?(.+?\.py:[A-Za-z_]\w*)(?::(.+))?", item):
        label, file, path = match.groups()
        codec = add_file(file, CODECS)
        label = codec if label is None else label
    else:
        head, _, path = item.partition(":")
        label, separator, codec = head.partition("=")
        codec = codec if separator else label
    if item.endswith(".py") or ("/" in item and ":" not in item and "=" not in item):
        raise UserError(
            f"--codecs: '{item}' does not name a class of a file; give FILE.py:CLASS, with neither comma nor "
            "= in the path (or give any path to --plug-in, and the class's name to --codecs)"
        )
    _check_label(label, "--codecs", item)
    return CodecSpec(label, codec, path or None, digest=CODECS.digest(codec))


def parse_conditions(texts: Sequence[str]) -> list[RenderedSpec]:
    """Folders of decoded files after ``--condition NAME[@KBPS]=DIR``."""
    specs = []
    for text in texts:
        match = re.fullmatch(r"([^=@]+)(?:@([^=]*))?=(.+)", text)
        if match is None:
            raise UserError(f"--condition takes NAME=DIR or NAME@KBPS=DIR; got '{text}'")
        label, rate, folder = match.groups()
        _check_label(label, "--condition", text)
        kbps = parse_kbps(rate)[0] if rate is not None else None
        specs.append(RenderedSpec(label, kbps, Path(folder).expanduser()))
    return specs


def parse_weights(texts: Sequence[str]) -> dict[str, str]:
    """``CODEC=PATH`` pairs of ``--weights``."""
    weights = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not path:
            raise UserError(f"--weights takes CODEC=PATH, for example qincodec=model/; got '{text}'")
        weights[name] = path
    return weights


def check_cluster(address: str) -> None:
    """Refuse an invalid value of ``--cluster``."""
    host_and_port = r"(\[[\da-fA-F:]+\]|[\w.-]+):\d{1,5}"
    if address not in ("auto", "local") and not re.fullmatch(host_and_port, address):
        raise UserError(
            f"--cluster is '{address}'; give local (this machine), auto (the Ray cluster of this host) or"
            " HOST:PORT as `ray start --head` prints it, without a scheme"
        )


def choose_metrics(text: str | Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of metrics, and of embeddings (each selects its metrics), of a comma-separated list.

    Only known names, in the order given.
    """
    names = text.split(",") if isinstance(text, str) else list(text)
    given = [name.strip() for name in names if name.strip()]
    chosen = list(
        dict.fromkeys(add_file(name, METRICS, EMBEDDINGS) if in_a_file(name) else name for name in given)
    )
    known = [*METRICS.names(), *EMBEDDINGS.names()]
    for name in chosen:
        if name not in METRICS and name not in EMBEDDINGS:
            kind, _, embedding = name.partition("_")
            if kind in ("fd", "kad", "fm", "cos") and embedding in EMBEDDINGS:
                raise UserError(
                    f"unknown metric '{name}': an embedding's metrics come together; ask for '{embedding}'"
                )
            raise unknown("metric", name, known)
    if not chosen:
        raise UserError(f"--metrics is empty; choose from {', '.join(known)}")
    return [n for n in chosen if n in METRICS], [n for n in chosen if n not in METRICS]


def _check_numbers(request: Request) -> None:
    settings = request.settings
    checks: list[tuple[str, bool, object, str]] = [
        ("--sample-rate", 8000 <= settings.sample_rate <= 384000, settings.sample_rate, "8000 to 384000 Hz"),
        ("--channels", 1 <= settings.channels <= 2, settings.channels, "1 or 2"),
        ("--chunk", 0.1 <= settings.chunk_s <= 3600, settings.chunk_s, "0.1 to 3600 seconds"),
        ("--chunks", settings.chunks in ("first", "all"), settings.chunks, "first or all"),
        ("--limit", settings.limit is None or settings.limit >= 1, settings.limit, "1 or more"),
        ("--seed", settings.seed >= 0, settings.seed, "0 or more"),
        ("--batch-size", request.batch_size >= 1, request.batch_size, "1 or more"),
        ("--workers", request.workers is None or request.workers >= 1, request.workers, "1 or more"),
    ]
    for option, good, value, allowed in checks:
        if not good:
            raise UserError(f"{option} is {value}; allowed: {allowed}")


def _give_weights(specs: Sequence[CodecSpec], given: Mapping[str, str]) -> list[CodecSpec]:
    """Files of ``--weights``: pretrained files replace those of the cache, others belong to one codec.

    Raises:
        UserError: the codec of the weights is not in the request.
    """
    asked = {spec.codec for spec in specs}
    own = dict(given)
    for name in [name for name in own if name in weights.FILES]:
        user = weights.FILES[name].used_by
        if user in CODECS and user not in asked:
            raise UserError(
                f"--weights {name}=... is for codec '{user}', which is not among --codecs; add it"
            )
        weights.use(name, Path(own[name]))
        if name not in asked:
            del own[name]
    unused = set(own) - asked
    if unused:
        raise UserError(
            f"--weights names '{sorted(unused)[0]}', which is not among --codecs "
            f"{','.join(spec.codec for spec in specs) or '(none)'}; leave it out or add the codec"
        )
    return [replace(spec, weights=spec.weights or own.get(spec.codec)) for spec in specs]


def _refuse_same_rows(codecs: Sequence[CodecSpec], rendered: Sequence[RenderedSpec]) -> None:
    labels = [spec.label for spec in codecs]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"two codecs have the row name '{label}'; rename one: --codecs other={label}:...")
    rows = [(label, None) for label in labels] + [(spec.label, spec.kbps) for spec in rendered]
    for row in rows:
        if rows.count(row) > 1 or (row[1] is not None and (row[0], None) in rows and row[0] in labels):
            raise UserError(f"two conditions have the row name '{row[0]}'; rename one")
    folders: dict[str, str] = {}
    for label, _ in rows:
        other = folders.setdefault(safe_name(label).casefold(), label)
        if other != label:
            raise UserError(
                f"'{other}' and '{label}' would share one folder of clips, where space equals _ and case "
                "does not count; rename one"
            )


def _check_label(label: str, option: str, given: str) -> None:
    if not re.fullmatch(r"\w[\w.+ -]*", label):
        raise UserError(
            f"{option}: '{label}' in '{given}' cannot name a row; use letters, digits, spaces and . + - _"
        )
