"""Sources of each condition's audio: loaded codecs at their rates, folders of decoded files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from baselines.codec import Codec, Rate, highest
from baselines.registry import CODECS, of_plugin
from baselines.rendered import Rendered
from evaluation.engine.fetching import find_lacks, refuse
from evaluation.engine.request import CodecSpec, ParsedRequest
from evaluation.records import Condition, DecodedFile, Settings
from qincodec.core.errors import UserError, check_whole, said, shown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PreparedCondition:
    """A condition and the source of its audio: a codec at a rate, a folder of decoded files, or a change of
    the reference (`evaluation.engine.noise_floor`)."""

    condition: Condition
    codec: Codec | None = None
    rate: Rate | None = None
    rendered: Rendered | None = None
    change: Callable[[torch.Tensor, int], torch.Tensor] | None = None
    #: Files of a rendered condition, by clip id.
    files: Mapping[str, DecodedFile] = field(default_factory=dict)


def prepare_conditions(
    request: ParsedRequest,
    failed: str | None = None,
    on_loaded: Callable[[int], None] = lambda done: None,
) -> tuple[list[PreparedCondition], dict[str, str]]:
    """Load every codec and choose its operating points, nearest to the asked rates, before any work starts.

    Args:
        failed: why a download failed; then the message does not suggest it again.
        on_loaded: called with the number of loaded codecs.

    Returns:
        The conditions, and the label and reason of each codec that was left out.

    Raises:
        UserError: a folder does not exist, or a codec does not code this number of channels.
        Unavailable: a codec cannot run here; one line names every such codec.
    """
    lacks = find_lacks(request.codecs)
    if lacks and not request.typed.skip_unavailable:
        raise refuse(request, lacks, failed)
    prepared: list[PreparedCondition] = []
    for done, spec in enumerate(request.codecs):
        on_loaded(done)
        if spec.label not in lacks:
            codec = load_codec(spec, request.typed.device)
            choose = partial(_codec_conditions, spec, codec, request)
            prepared += of_plugin("codec", spec.codec, "rates() or identity()", choose)
    on_loaded(len(request.codecs))
    for folder in request.rendered:
        label, kbps, identity = folder.label, folder.kbps, {"name": "rendered", "label": folder.label}
        rate_is: Literal["none", "declared"] = "none" if kbps is None else "declared"
        condition = Condition(label, kbps, kbps, identity=identity, rate_is=rate_is)
        prepared.append(PreparedCondition(condition, rendered=Rendered(label, folder.folder, kbps)))
    if not prepared:
        raise refuse(request, lacks, failed)
    return prepared, {label: lack.said(failed) for label, lack in lacks.items()}


def load_codec(spec: CodecSpec, device: str) -> Codec:
    """A codec, ready to code on ``device``."""
    if spec.given is not None:
        return spec.given
    load = partial(CODECS.load(spec.codec), device=device, weights=spec.weights)
    codec: Codec = of_plugin("codec", spec.codec, "loading it", load)
    return codec


def identify(spec: CodecSpec, codec: Codec, settings: Settings) -> dict[str, Any]:
    """A codec's identity; a codec that takes any sample rate gets the evaluation's."""
    identity = checked_identity(spec.codec, codec, spec.digest)
    if codec.sample_rate == 0:
        codec.sample_rate = settings.sample_rate
    return identity


def checked_rates(name: str, codec: Codec, channels: int) -> Sequence[Rate]:
    """The operating points of a codec. Raises UserError if it has none, or if a bitrate is impossible."""
    rates = codec.rates(channels)
    if not isinstance(rates, Sequence) or not all(isinstance(rate, Rate) for rate in rates):
        raise UserError(f"codec '{name}': rates() returned {shown(rates)}; it must return a list of Rate")
    if not rates:
        raise UserError(f"codec '{name}' has no rates for {channels} channel(s); leave it out")
    for rate in rates:
        _check_rate(f"codec '{name}': rates()", rate)
    return rates


def _check_rate(where: str, rate: Rate) -> None:
    _as_read(f"{where}: settings", dict(rate.settings))
    if rate.kbps is not None and not 1e-6 <= rate.kbps <= 1e6:
        raise UserError(
            f"{where} returned Rate(kbps={rate.kbps:g}); kbps must be from 1e-6 to 1e6, or None where a rate "
            "has no meaning"
        )


def checked_rate_at(name: str, codec: Codec, kbps: float, channels: int) -> Rate | None:
    """`Codec.rate_at`. Raises UserError if it returns something else, or an impossible bitrate."""
    rate: Any = codec.rate_at(kbps, channels)
    where = f"codec '{name}': rate_at({kbps:g})"
    if rate is None:
        return None
    if not isinstance(rate, Rate):
        raise UserError(f"{where} returned {shown(rate)}; it must return a Rate or None")
    _check_rate(where, rate)
    return rate


def checked_identity(name: str, codec: Codec, digest: str = "") -> dict[str, Any]:
    """A codec's identity as run.json stores it, so that a run that continues recognizes the codec. Raises
    UserError for values, also of attributes, that a run folder cannot hold.

    Args:
        digest: of the code of a codec that is not installed: edited code is another codec.
    """
    check_whole(f"codec '{name}': sample_rate", codec.sample_rate, 0, 1_000_000)
    least = min(codec.sample_rate, 1)  # 0 means any rate, which an output cannot have
    check_whole(f"codec '{name}': output_sample_rate", codec.output_sample_rate, least, 1_000_000)
    channels: Any = codec.channels
    if not isinstance(channels, tuple | list) or not {*channels} & {1, 2}:
        raise UserError(f"codec '{name}': channels is {shown(channels)}; it must be (1,), (2,) or (1, 2)")
    identity = _as_read(f"codec '{name}': identity()", codec.identity())
    return identity | {"code": digest} if digest else identity


def _codec_conditions(spec: CodecSpec, codec: Codec, request: ParsedRequest) -> list[PreparedCondition]:
    settings = request.typed.settings
    identity = identify(spec, codec, settings)
    channels = settings.channels
    if channels not in codec.channels:
        raise UserError(
            f"codec '{spec.label}' codes {' or '.join(map(str, codec.channels))} channel(s), the evaluation "
            f"has {channels}; evaluate with --channels {codec.channels[0]} or leave it out"
        )
    rates = checked_rates(spec.codec, codec, channels)
    for rate in rates:  # called again when a rate is measured or coded; an error shows here
        of_plugin("codec", spec.codec, "is_prefix()", partial(highest, codec, rate, rates))
    points: list[tuple[float | None, Rate]] = [(None, rate) for rate in rates]
    if not codec.control:
        points = [(asked, codec.nearest_rate(asked, channels)) for asked in request.kbps]
    return [
        PreparedCondition(
            Condition(
                spec.label,
                asked,
                rate.kbps,
                _as_read(f"codec '{spec.codec}': settings of rates()", dict(rate.settings)),
                identity,
                rate_is="none" if codec.control and rate.kbps is None else "measured",
                control=bool(codec.control),
            ),
            codec,
            rate,
        )
        for asked, rate in points
    ]


def at_point(prepared: PreparedCondition, rate: Rate) -> PreparedCondition:
    """The condition at another operating point of its codec, named by its nominal rate."""
    settings = _as_read(f"codec '{prepared.condition.codec}': settings of rates()", dict(rate.settings))
    condition = replace(prepared.condition, kbps=rate.kbps, nominal=rate.kbps, settings=settings)
    return replace(prepared, condition=condition, rate=rate)


def _as_read(what: str, value: Any) -> dict[str, Any]:
    """A dict as run.json stores it. Raises UserError if it cannot be stored."""
    try:
        found = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{what}: {said(error)}; it must be a dict of finite JSON values") from error
    if not isinstance(found, dict):
        raise UserError(f"{what} is {shown(value)}; it must be a dict of finite JSON values")
    return found
