"""Audio files of every format the project reads, made by libsndfile and FFmpeg."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

NUM_SAMPLES = 30011  # no multiple of any frame length


def signal(channels: int = 2, num_samples: int = NUM_SAMPLES, seed: int = 0) -> np.ndarray:
    """Noise that changes all the time, so that no two places of it can be mistaken for each other."""
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((channels, num_samples))).astype(np.float32)


def encode(path: Path, codec: str, samples: np.ndarray, rate: int, bit_rate: int = 128_000) -> Path:
    """Write with PyAV; ``samples`` in a type that the codec takes after conversion by FFmpeg."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout=layout, bit_rate=bit_rate)
        planar = {"float32": "fltp", "float64": "dblp", "int16": "s16p", "int32": "s32p", "uint8": "u8p"}
        frame = av.AudioFrame.from_ndarray(samples, format=planar[samples.dtype.name], layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(
            stream.format.name, layout, rate, stream.codec_context.frame_size or 1024
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))
    return path


def write_sndfile(path: Path, subtype: str, rate: int) -> Path:
    soundfile.write(path, signal().T, rate, subtype=subtype)
    return path


# name, how it is made, codec if lossy, whether it keeps the number of samples
FORMATS: dict[str, tuple[Callable[[Path], Path], str | None, bool]] = {
    **{
        f"{suffix} {subtype}": (
            lambda path, suffix=suffix, subtype=subtype: write_sndfile(
                path.with_suffix(f".{suffix}"), subtype, 48000 if subtype == "OPUS" else 44100
            ),
            lossy,
            suffix != "mp3" and "ADPCM" not in subtype,
        )
        for suffix, subtype, lossy in [
            ("wav", "PCM_U8", None),
            ("wav", "PCM_16", None),
            ("wav", "PCM_24", None),
            ("wav", "PCM_32", None),
            ("wav", "FLOAT", None),
            ("wav", "DOUBLE", None),
            ("wav", "ULAW", "mu-law"),
            ("wav", "IMA_ADPCM", "IMA ADPCM"),
            ("wav", "MS_ADPCM", "Microsoft ADPCM"),
            ("aiff", "PCM_24", None),
            ("aiff", "FLOAT", None),
            ("au", "PCM_16", None),
            ("w64", "FLOAT", None),
            ("rf64", "PCM_16", None),
            ("caf", "ALAC_16", None),
            ("flac", "PCM_16", None),
            ("flac", "PCM_24", None),
            ("ogg", "VORBIS", "Vorbis"),
            ("ogg", "OPUS", "Opus"),
        ]
    },
    **{
        f"{suffix} {codec}": (
            lambda path, suffix=suffix, codec=codec, rate=rate: encode(
                path.with_suffix(f".{suffix}"), codec, signal(), rate
            ),
            lossy,
            keeps,
        )
        for suffix, codec, rate, lossy, keeps in [
            ("m4a", "aac", 44100, "AAC", True),
            ("mp4", "aac", 48000, "AAC", True),
            ("aac", "aac", 44100, "AAC", False),
            ("mp3", "libmp3lame", 44100, "MP3", True),
            ("mp3", "libmp3lame", 16000, "MP3", True),
            ("opus", "libopus", 48000, "Opus", True),
            ("webm", "libopus", 48000, "Opus", True),
            ("mp4", "libopus", 48000, "Opus", True),
            ("m4a", "alac", 44100, None, True),
            ("mka", "flac", 44100, None, True),
            ("mka", "pcm_f32le", 44100, None, True),
            ("mov", "pcm_s24be", 44100, None, True),
            ("wv", "wavpack", 44100, None, True),
            ("ac3", "ac3", 48000, "AC-3", False),
            ("mp2", "mp2", 44100, "MP2", False),
        ]
    },
}
