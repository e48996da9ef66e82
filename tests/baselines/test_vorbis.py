"""Vorbis against FFmpeg's decoder, the file's own header, and a known checksum."""

from __future__ import annotations

import io
import math
import struct

import av
import numpy as np
import pytest
import soundfile
import torch

from baselines import check_codec
from baselines.codec import Encoded, Rate
from baselines.vorbis import Vorbis, _crc, ogg_file
from qincodec.core.errors import UserError


def encode(samples: np.ndarray, quality: float) -> Encoded:
    return Vorbis().encode(torch.from_numpy(samples)[None], Rate(None, {"quality": quality}))[0]


def music(channels: int, num_samples: int) -> np.ndarray:
    time = np.arange(num_samples) / 44100
    random = np.random.default_rng(1)
    tones = [
        np.sin(2 * np.pi * f * time + channel) for channel in range(channels) for f in (220, 554.4, 3322)
    ]
    audio = np.sum(np.reshape(tones, (channels, 3, -1)), axis=1)
    return (0.2 * audio + 0.02 * random.standard_normal(audio.shape)).astype(np.float32)


def test_keeps_the_promises_of_the_interface() -> None:
    assert Vorbis.unavailable() is None
    rows = check_codec(Vorbis())
    assert [row.delay_samples for row in rows] == [0] * 6
    assert all(row.correlation > 0.99 for row in rows)


@pytest.mark.parametrize("channels", [1, 2])
def test_nominal_bitrates_are_those_in_the_header(channels: int) -> None:
    rates = Vorbis().rates(channels)
    assert [rate.settings["quality"] for rate in rates] == [step / 10 for step in range(11)]
    for rate in rates:
        file = ogg_file(encode(music(channels, 1000), float(rate.settings["quality"])))
        at = file.index(b"\x01vorbis") + 7
        _, found_channels, sample_rate, _, nominal, _ = struct.unpack("<IBIiii", file[at : at + 21])
        assert (found_channels, sample_rate) == (channels, 44100)
        assert nominal / 1000 == rate.kbps


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("num_samples", [1, 300, 44100, 3 * 44100 + 1])
def test_another_decoder_hears_the_same(channels: int, num_samples: int) -> None:
    # FFmpeg's Vorbis decoder is its own; its Ogg demuxer checks the pages.
    samples = music(channels, num_samples)
    encoded = encode(samples, 0.4)
    decoded = Vorbis().decode([encoded]).numpy()[0]
    with av.open(io.BytesIO(ogg_file(encoded))) as file:
        other = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)
    np.testing.assert_allclose(other[:, :num_samples], decoded, atol=1e-5)
    assert np.square(samples - decoded).mean() < 0.01


def test_payload_is_the_audio_packets_and_nothing_else() -> None:
    samples = music(2, 5 * 44100)
    encoded = encode(samples, 0.5)
    file = ogg_file(encoded)
    with av.open(io.BytesIO(file)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    assert b"".join(packets) == encoded.payload
    assert 0.98 < len(encoded.payload) / (len(file) - file.index(b"\x05vorbis") - 3600) < 1.02
    # The same as libsndfile's own file, save the serial number and the checksum of each page.
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 44100, 2, "VORBIS", format="OGG", compression_level=0.5) as sound:
        for start in range(0, samples.shape[1], 4096):
            sound.write(samples[:, start : start + 4096].T)
    assert len(buffer.getvalue()) == len(file)


def test_quality_decides_the_bitrate() -> None:
    samples = music(1, 2 * 44100)
    sizes = [len(encode(samples, quality).payload) for quality in (0.0, 0.3, 0.7, 1.0)]
    assert sizes == sorted(set(sizes))


def test_long_clips_do_not_overflow_the_stack() -> None:
    # libsndfile crashes when given a minute of noise in one piece.
    samples = (0.5 * np.random.default_rng(0).standard_normal((2, 60 * 44100))).astype(np.float32)
    encoded = encode(samples, 1.0)
    assert Vorbis().decode([encoded]).shape == (1, 2, 60 * 44100)


def test_sound_above_full_scale_is_not_clipped() -> None:
    samples = (10 ** (2 / 20) * np.sin(2 * np.pi * 441 * np.arange(44100) / 44100)).astype(np.float32)[None]
    decoded = Vorbis().decode([encode(samples, 0.6)]).numpy()[0]
    np.testing.assert_allclose(decoded, samples, atol=0.05)


def test_checksum() -> None:
    # POSIX cksum's polynomial without its final inversion: 0x765E7680 is its published check value.
    assert _crc(b"123456789") == 0x765E7680 ^ 0xFFFFFFFF


def test_damage_and_nonsense_are_refused() -> None:
    encoded = encode(music(1, 9000), 0.5)
    encoded.payload = encoded.payload[:-1]
    with pytest.raises(UserError, match="damaged"):
        Vorbis().decode([encoded])
    for quality in (-0.1, 1.1, math.nan, "high"):
        with pytest.raises(UserError, match="quality"):
            Vorbis().encode(torch.zeros(1, 1, 100), Rate(64, {"quality": quality}))
    with pytest.raises(UserError, match="take a rate"):
        Vorbis().encode(torch.zeros(1, 1, 100), Rate(64))
