"""Codecs by name, and safe calls of plug-ins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from qincodec.core.errors import Unavailable, UserError, one_line, said, shown
from qincodec.core.plugins import FAULTS, Registry

T = TypeVar("T")

CODECS = Registry(
    "codec",
    "qincodec.codecs",
    "baselines.codec:Codec",
    {
        "qincodec": "baselines.qincodec:Qincodec",
        "qincodec-fast": "baselines.qincodec:Fast",
        "qincodec-best": "baselines.qincodec:Best",
        "qincodec-continuous": "baselines.qincodec:Continuous",
        "dac": "baselines.dac:Dac",
        "dac-24khz": "baselines.dac:Dac24",
        "dac-16khz": "baselines.dac:Dac16",
        "encodec": "baselines.encodec:Encodec",
        "encodec-24khz": "baselines.encodec:Encodec24",
        "mimi": "baselines.mimi:Mimi",
        "wavtokenizer": "baselines.wavtokenizer:WavTokenizer",
        "wavtokenizer-75": "baselines.wavtokenizer:WavTokenizer75",
        "xcodec2": "baselines.xcodec2:Xcodec2",
        "xcodec": "baselines.xcodec:Xcodec",
        "neucodec": "baselines.xcodec2:NeuCodec",
        "higgs-audio-v2": "baselines.higgs:HiggsAudioV2",
        "snac": "baselines.snac:Snac",
        "snac-32khz": "baselines.snac:Snac32",
        "snac-24khz": "baselines.snac:Snac24",
        "opus": "baselines.ffmpeg:Opus",
        "mp3": "baselines.ffmpeg:Mp3",
        "aac": "baselines.ffmpeg:Aac",
        "vorbis": "baselines.vorbis:Vorbis",
        "reference": "baselines.controls:Reference",
        "pcm16": "baselines.controls:Pcm16",
    },
)


def unavailable(name: str, weights: str | None = None) -> str | None:
    """Why codec ``name`` cannot run here and what to do about it, in one line; None if it can."""
    codec = CODECS.load(name)
    return why_not("codec", name, codec, weights)


def why_not(kind: str, name: str, part: Any, *arguments: object) -> str | None:
    """Result of ``unavailable()`` of a part; UserError unless it is a reason or None."""
    try:
        reason = of_plugin(kind, name, "unavailable()", lambda: part.unavailable(*arguments))
    except Unavailable as error:
        return str(error)
    if reason is None or (isinstance(reason, str) and reason.strip()):
        return one_line(reason) if reason else None
    raise UserError(
        f"{kind} '{name}': unavailable() returned {shown(reason)}; it must return a reason or None"
    )


def of_plugin(kind: str, name: str, what: str, call: Callable[[], T]) -> T:
    """Result of ``call``; an error of a plug-in becomes a UserError of one line with its name.

    Args:
        kind: "codec".
        what: name of the call, "rates()".
    """
    try:
        return call()
    except UserError as error:
        if (text := one_line(str(error))) == str(error):
            raise
        raise (Unavailable if isinstance(error, Unavailable) else UserError)(text) from error
    except KeyboardInterrupt:
        raise
    except FAULTS as error:
        raise UserError(
            f"{kind} '{name}': {what} raises {said(error)}; correct it or leave it out"
        ) from error


def missing_weights(name: str, weights: str | None = None) -> list[str]:
    """Names in `baselines.weights` of files that codec ``name`` needs and the cache lacks."""
    codec = CODECS.load(name)
    if not hasattr(codec, "missing"):
        return []
    return of_plugin("codec", name, "missing()", lambda: list(codec.missing(weights)))


def works_alone(name: str, weights: str | None = None) -> str | None:
    """The part of codec ``name`` that can run without its missing files, as typed after ``--codecs``."""
    codec = CODECS.load(name)
    if not hasattr(codec, "works_alone"):
        return None
    try:
        return of_plugin("codec", name, "works_alone()", lambda: codec.works_alone(weights))
    except UserError:
        return None
