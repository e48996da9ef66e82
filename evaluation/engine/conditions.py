"""From what the user typed to what will run: codecs, rates, folders of decoded files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.codec import Codec, Rate
from baselines.registry import CODECS, of_plugin
from baselines.rendered import Rendered
from evaluation.results import Condition
from qincodec.core.errors import UserError, check_whole, shown, unknown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CodecSpec:
    """``[NAME=]CODEC[:WEIGHTS]`` as typed after ``--codecs``."""

    label: str
    codec: str
    weights: str | None = None


@dataclass(frozen=True)
class RenderedSpec:
    """``NAME[@KBPS]=DIR`` as typed after ``--condition``."""

    label: str
    kbps: float | None
    folder: Path


@dataclass(frozen=True)
class Planned:
    """One condition and what makes its audio: a codec at a rate, a folder of decoded files, or a change of
    the reference (`evaluation.engine.noise_floor`)."""

    condition: Condition
    codec: Codec | None = None
    rate: Rate | None = None
    rendered: Rendered | None = None
    change: Callable[[torch.Tensor, int], torch.Tensor] | None = None
    #: Of a rendered condition: clip id -> fingerprint of its file, or why there is none.
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def rate_label(self) -> str:
        return Rate(self.condition.nominal).label


def parse_kbps(text: str | Sequence[float]) -> list[float]:
    """``"8,16"`` -> [8.0, 16.0]: positive, in the order given, duplicates dropped."""
    parts = text.split(",") if isinstance(text, str) else list(text)
    rates = []
    for part in parts:
        try:
            rate = float(part)
        except ValueError:
            rate = 0.0
        if not 0 < rate < 1e5:
            raise UserError(f"--kbps takes positive numbers of kbit/s, for example 8,16; got '{part}'")
        if rate not in rates:
            rates.append(rate)
    if not rates:
        raise UserError("--kbps is empty; give rates in kbit/s, for example 8,16")
    return rates


def parse_codecs(text: str | Sequence[str], weights: Mapping[str, str]) -> list[CodecSpec]:
    """Codec specifications of a comma-separated list (or several such lists).

    Args:
        text: ``"opus,mine=qincodec:PATH"``.
        weights: codec name -> path, from ``--weights CODEC=PATH``; used where the list names none.
    """
    specs = []
    lists = [text] if isinstance(text, str) else text
    for item in (part.strip() for entry in lists for part in entry.split(",")):
        if not item:
            continue
        head, _, path = item.partition(":")
        label, separator, codec = head.partition("=")
        if not separator:
            codec = label
        _check_label(label, "--codecs", item)
        specs.append(CodecSpec(label, codec, path or weights.get(codec)))
    unused = set(weights) - {spec.codec for spec in specs}
    if unused:
        raise UserError(
            f"--weights names '{sorted(unused)[0]}', which is not among --codecs "
            f"{','.join(spec.codec for spec in specs) or '(none)'}; leave it out or add the codec"
        )
    return specs


def parse_conditions(texts: Sequence[str]) -> list[RenderedSpec]:
    """Specifications of ``--condition NAME[@KBPS]=DIR``."""
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


def _check_label(label: str, option: str, given: str) -> None:
    if not re.fullmatch(r"\w[\w.+ -]*", label):
        raise UserError(
            f"{option}: '{label}' in '{given}' cannot name a row; use letters, digits, spaces and . + - _"
        )


def plan_conditions(
    codecs: Sequence[CodecSpec],
    rendered: Sequence[RenderedSpec],
    kbps: Sequence[float],
    *,
    sample_rate: int,
    channels: int,
    device: str,
    skip_unavailable: bool = False,
    failed: str | None = None,
) -> tuple[list[Planned], dict[str, str]]:
    """Load every codec and choose its operating points, before any work starts.

    Args:
        kbps: asked rates; each codec gives its nearest operating point.
        sample_rate: of the evaluation, Hz; for controls, which code at any.
        channels: of the evaluation.
        skip_unavailable: leave out codecs that cannot run here instead of refusing.
        failed: why a download that was tried has failed; it is not advised again then.

    Returns:
        The conditions, and for each codec that was left out its label and why.

    Raises:
        UserError: unknown codec, two rows of one name, a folder that is not there, a channel count a
            codec does not code.
        Unavailable: a codec cannot run here; every such codec is named in the one line.
    """
    from evaluation.engine.fetching import find_lacks, refuse

    _refuse_same_rows(codecs, rendered)
    lacks = find_lacks(codecs)
    if lacks and not skip_unavailable:
        raise refuse(codecs, rendered, lacks, failed)
    planned: list[Planned] = []
    for spec in codecs:
        if spec.label not in lacks:
            load = partial(CODECS.load(spec.codec), device=device, weights=spec.weights)
            codec = of_plugin("codec", spec.codec, "loading it", load)
            plan = partial(_codec_conditions, spec, codec, kbps, sample_rate, channels)
            planned += of_plugin("codec", spec.codec, "rates() or identity()", plan)
    for folder in rendered:
        source = Rendered(folder.label, folder.folder, folder.kbps)
        condition = Condition(
            folder.label,
            folder.kbps,
            folder.kbps,
            identity={"name": "rendered", "label": folder.label},
            rate_is="none" if folder.kbps is None else "declared",
        )
        planned.append(Planned(condition, rendered=source))
    if not planned:
        if lacks:
            raise refuse(codecs, rendered, lacks, failed)
        raise UserError("nothing to evaluate: give --codecs (see `evaluate list`) or --condition NAME=DIR")
    return planned, {label: lack.said(failed) for label, lack in lacks.items()}


def known_codecs(specs: Sequence[CodecSpec]) -> None:
    """Raises UserError, with the names that are close, for a codec that nobody knows."""
    for spec in specs:
        if spec.codec not in CODECS:
            CODECS.load(spec.codec)


def checked_rates(name: str, codec: Codec, channels: int) -> Sequence[Rate]:
    """The operating points of a codec. Raises UserError if there are none or one has no possible bitrate."""
    rates = codec.rates(channels)
    if not isinstance(rates, Sequence) or not all(isinstance(rate, Rate) for rate in rates):
        raise UserError(f"codec '{name}': rates() returned {shown(rates)}; needed is a list, each a Rate")
    if not rates:
        raise UserError(f"codec '{name}' has no rates for {channels} channel(s); leave it out")
    for rate in rates:
        if rate.kbps is not None and not 1e-6 <= rate.kbps <= 1e6:
            raise UserError(
                f"codec '{name}': rates() returned Rate(kbps={rate.kbps:g}); needed are 1e-6 to 1e6 kbit/s, "
                "or None where a rate has no meaning"
            )
    return rates


def _codec_conditions(
    spec: CodecSpec, codec: Codec, kbps: Sequence[float], sample_rate: int, channels: int
) -> list[Planned]:
    check_whole(f"codec '{spec.codec}': sample_rate", codec.sample_rate, 0, 1_000_000)
    if codec.sample_rate == 0:
        codec.sample_rate = sample_rate
    if channels not in codec.channels:
        raise UserError(
            f"codec '{spec.label}' codes {' or '.join(map(str, codec.channels))} channel(s), the evaluation "
            f"has {channels}; evaluate with --channels {codec.channels[0]} or leave it out"
        )
    # As run.json gives them back, or the same codec would be another when the run goes on.
    identity = _as_read(codec.identity())
    rates = checked_rates(spec.codec, codec, channels)
    json.dumps([dict(rate.settings) for rate in rates], allow_nan=False)
    if codec.control:
        return [
            Planned(
                Condition(
                    spec.label,
                    None,
                    rate.kbps,
                    _as_read(dict(rate.settings)),
                    identity,
                    rate_is="none" if rate.kbps is None else "measured",
                    control=True,
                ),
                codec,
                rate,
            )
            for rate in rates
        ]
    points = [(asked, codec.nearest_rate(asked, channels)) for asked in kbps]
    return [
        Planned(Condition(spec.label, asked, rate.kbps, _as_read(dict(rate.settings)), identity), codec, rate)
        for asked, rate in points
    ]


def _as_read(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def _refuse_same_rows(codecs: Sequence[CodecSpec], rendered: Sequence[RenderedSpec]) -> None:
    labels = [spec.label for spec in codecs]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(
                f"two codecs would stand in rows named '{label}'; name one: --codecs other={label}:..."
            )
    rows = [(label, None) for label in labels] + [(spec.label, spec.kbps) for spec in rendered]
    for row in rows:
        if rows.count(row) > 1 or (row[1] is not None and (row[0], None) in rows and row[0] in labels):
            raise UserError(f"two conditions would stand in rows named '{row[0]}'; give one another name")


def choose_metrics(text: str | Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of metrics, and of embeddings (each stands for its metrics), of a comma-separated list.

    Known ones only, in the order given.
    """
    from evaluation.embeddings import EMBEDDINGS
    from evaluation.metrics import METRICS

    names = text.split(",") if isinstance(text, str) else list(text)
    chosen = list(dict.fromkeys(name.strip() for name in names if name.strip()))
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
        raise UserError(f"--metrics is empty; known are {', '.join(known)}")
    return [n for n in chosen if n in METRICS], [n for n in chosen if n not in METRICS]
