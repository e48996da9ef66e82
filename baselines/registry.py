"""Codecs by name."""

from __future__ import annotations

from qincodec.plugins import Registry

CODECS = Registry(
    "codec",
    "qincodec.codecs",
    {
        "opus": "baselines.ffmpeg:Opus",
        "mp3": "baselines.ffmpeg:Mp3",
        "aac": "baselines.ffmpeg:Aac",
        "vorbis": "baselines.vorbis:Vorbis",
        "reference": "baselines.controls:Reference",
        "pcm16": "baselines.controls:Pcm16",
    },
)
