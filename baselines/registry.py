"""Codecs by name."""

from __future__ import annotations

from qincodec.plugins import Registry

CODECS = Registry(
    "codec",
    "qincodec.codecs",
    {
        "qincodec": "baselines.qincodec:Qincodec",
        "qincodec-continuous": "baselines.qincodec:Continuous",
        "dac": "baselines.dac:Dac",
        "dac-24khz": "baselines.dac:Dac24",
        "dac-16khz": "baselines.dac:Dac16",
        "encodec": "baselines.encodec:Encodec",
        "mimi": "baselines.mimi:Mimi",
        "opus": "baselines.ffmpeg:Opus",
        "mp3": "baselines.ffmpeg:Mp3",
        "aac": "baselines.ffmpeg:Aac",
        "vorbis": "baselines.vorbis:Vorbis",
        "reference": "baselines.controls:Reference",
        "pcm16": "baselines.controls:Pcm16",
    },
)


def unavailable(name: str, weights: str | None = None) -> str | None:
    """Why codec ``name`` cannot run here and what mends it, in one line; None if it can."""
    reason: str | None = CODECS.load(name).unavailable(weights)
    return reason


def missing_weights(name: str, weights: str | None = None) -> list[str]:
    """Files of `baselines.weights` that codec ``name`` needs and the cache lacks."""
    codec = CODECS.load(name)
    names: list[str] = codec.missing(weights) if hasattr(codec, "missing") else []
    return names
