"""Codecs by name."""

from __future__ import annotations

from qincodec.plugins import Registry

CODECS = Registry(
    "codec",
    "qincodec.codecs",
    {
        "qincodec": "baselines.qincodec:Qincodec",
        "qincodec-continuous": "baselines.qincodec:Continuous",
        "dac": "baselines.registry:NotYet",
        "encodec": "baselines.registry:NotYet",
        "opus": "baselines.ffmpeg:Opus",
        "mp3": "baselines.ffmpeg:Mp3",
        "aac": "baselines.ffmpeg:Aac",
        "vorbis": "baselines.vorbis:Vorbis",
        "reference": "baselines.controls:Reference",
        "pcm16": "baselines.controls:Pcm16",
    },
)


class NotYet:
    """Stands for a codec whose adapter this version does not have, so that the name gets a clear answer."""

    @classmethod
    def unavailable(cls, weights: str | None = None) -> str:
        return (
            "its adapter is not part of this version; decode your files with its authors' code and compare "
            "them with --condition NAME@KBPS=DIR"
        )


def unavailable(name: str, weights: str | None = None) -> str | None:
    """Why codec ``name`` cannot run here and what mends it, in one line; None if it can."""
    reason: str | None = CODECS.load(name).unavailable(weights)
    return reason
