"""Opus, MP3 and AAC against FFmpeg's own files, LAME's own choices, closed forms and real audio."""

from __future__ import annotations

import ctypes
import io
import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch

from baselines import check_codec
from baselines.codec import Encoded, Rate
from baselines.ffmpeg import Aac, Mp3, Opus, _FFmpegCodec
from qincodec import audio
from qincodec.core.errors import UserError

CODECS = [Opus, Mp3, Aac]
# libopus' speech mode is not in time to the sample; its docstring says by how much.
MAX_DELAY = {Opus: 3, Mp3: 1, Aac: 1}


def noise(shape: tuple[int, ...], sample_rate: int, seed: int = 0) -> np.ndarray:
    """Noise under 1 kHz: within the band of every codec at every bitrate."""
    random = np.random.default_rng(seed).standard_normal(shape)
    spectrum = np.fft.rfft(random)
    spectrum[..., np.fft.rfftfreq(shape[-1], 1 / sample_rate) > 1000] = 0
    result = np.fft.irfft(spectrum, shape[-1])
    return (0.2 * result / np.sqrt(np.mean(result**2))).astype(np.float32)


def code(codec: _FFmpegCodec, samples: np.ndarray, rate: Rate) -> tuple[Encoded, np.ndarray]:
    (encoded,) = codec.encode(torch.from_numpy(samples)[None], rate)
    return encoded, codec.decode([encoded]).numpy()[0]


def snr_db(reference: np.ndarray, decoded: np.ndarray) -> float:
    error = float(np.square(reference - decoded, dtype=np.float64).sum())
    return 10 * math.log10(float(np.square(reference, dtype=np.float64).sum()) / error) if error else math.inf


def lag(reference: np.ndarray, decoded: np.ndarray) -> int:
    spectrum = np.fft.rfft(decoded, 2 * len(decoded)) * np.conj(np.fft.rfft(reference, 2 * len(decoded)))
    best = int(np.fft.irfft(spectrum).argmax())
    return best if best < len(decoded) else best - 2 * len(decoded)


@pytest.mark.parametrize("cls", CODECS)
def test_keeps_the_promises_of_the_interface(cls: type[_FFmpegCodec]) -> None:
    assert cls.unavailable() is None
    rows = check_codec(cls(), max_delay=MAX_DELAY[cls], lengths=(1, 2, 1151, 1153))
    assert {row.channels for row in rows} == {1, 2}
    assert all(row.correlation > 0.9 for row in rows if row.rate.kbps and row.rate.kbps >= 48)


@pytest.mark.long
@pytest.mark.parametrize("cls", CODECS)
def test_keeps_the_promises_at_every_rate(cls: type[_FFmpegCodec]) -> None:
    codec = cls()
    for channels in codec.channels:
        codec.channels = (channels,)
        check_codec(codec, rates=codec.rates(channels), max_delay=MAX_DELAY[cls])


@pytest.mark.parametrize(
    ("cls", "kbps", "container", "options", "overhead"),
    [
        (Opus, 64, "ogg", {"application": "audio"}, 0.02),
        (Opus, 12, "ogg", {"application": "audio"}, 0.08),
        (Mp3, 128, "mp3", {}, 0.02),
        (Aac, 64, "mp4", {"flags": "+bitexact"}, 0.04),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("extra", [0, 1, 959])
def test_agrees_with_a_file_that_ffmpeg_wrote(
    cls: type[_FFmpegCodec],
    kbps: int,
    container: str,
    options: dict[str, str],
    overhead: float,
    channels: int,
    extra: int,
    tmp_path: Path,
) -> None:
    # FFmpeg frames the audio, muxes, demuxes and removes the delay by what the container says.
    codec = cls()
    samples = noise((channels, 2 * codec.sample_rate + extra), codec.sample_rate)
    rate = codec.nearest_rate(kbps, channels)
    assert rate.settings["sample_rate"] == codec.sample_rate
    encoded, decoded = code(codec, samples, rate)

    path = tmp_path / f"file.{container}"
    layout = "mono" if channels == 1 else "stereo"
    with av.open(str(path), "w", format=container) as file:
        stream: Any = file.add_stream(codec._encoder, rate=codec.sample_rate, options=options)
        stream.layout = layout
        stream.format = codec._sample_format
        stream.bit_rate = rate.settings["bit_rate"]
        size = 1152 if cls is Mp3 else 1024 if cls is Aac else 960
        for start in range(0, samples.shape[1], size):
            block = samples[:, start : start + size]
            block = block.T.reshape(1, -1) if codec._sample_format == "flt" else block
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(block), format=codec._sample_format, layout=layout
            )
            frame.sample_rate = codec.sample_rate
            frame.time_base = Fraction(1, codec.sample_rate)
            frame.pts = start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))

    expected, sample_rate = audio.read(path)
    assert sample_rate == codec.sample_rate
    length = min(expected.shape[1], decoded.shape[1]) - 1200  # FFmpeg's last frame lacks our zeros behind it
    assert lag(expected[0, :length], decoded[0, :length]) == 0
    assert snr_db(expected[:, :length], decoded[:, :length]) > 50
    size = path.stat().st_size
    assert len(encoded.payload) <= size * 1.001
    assert len(encoded.payload) > size * (1 - overhead) - 1500  # headers of the container


@pytest.mark.parametrize("kbps", [8, 32, 128])
def test_mp3_payload_is_a_file_for_another_decoder(kbps: int) -> None:
    # libsndfile decodes with mpg123.
    codec = Mp3()
    samples = noise((1, 44100), 44100)
    encoded, decoded = code(codec, samples, codec.nearest_rate(kbps))
    coded_rate = encoded.side_info["coded_sample_rate"]
    with soundfile.SoundFile(io.BytesIO(encoded.payload)) as file:
        assert file.samplerate == coded_rate
        other = file.read(dtype="float32", always_2d=True).T
    # What it leaves of the delay: all, its own part of it, the encoder's, nothing.
    agreement = []
    for left in (1105, 529, 576, 0):
        aligned = audio.resample(other[:, left:], coded_rate, 44100)
        length = min(44100, aligned.shape[1]) - 3000
        agreement.append(snr_db(aligned[:, :length], decoded[:, :length]))
    assert max(agreement) > 60


def test_opus_payload_is_a_file_for_libsndfile() -> None:
    # libsndfile removes the pre-skip that the Opus header states.
    codec = Opus()
    samples = noise((2, 48000 + 77), 48000)
    encoded, decoded = code(codec, samples, codec.nearest_rate(96, 2))
    tags = b"OpusTags" + (4).to_bytes(4, "little") + b"test" + bytes(4)
    packets = [bytes.fromhex(encoded.side_info["extradata"]), tags]
    start = 0
    for size in encoded.side_info["packet_bytes"]:
        packets.append(encoded.payload[start : start + size])
        start += size
    file = b"".join(_ogg_page(packet, index, len(packets)) for index, packet in enumerate(packets))
    other, sample_rate = soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True)
    assert sample_rate == 48000
    assert snr_db(other.T[:, : 48000 + 77], decoded) > 80


def _ogg_page(packet: bytes, index: int, count: int) -> bytes:
    position = max(0, 960 * (index - 1))
    flags = 2 if index == 0 else 4 if index == count - 1 else 0
    segments = [255] * (len(packet) // 255) + [len(packet) % 255]
    head = (
        b"OggS\0" + bytes([flags]) + position.to_bytes(8, "little") + bytes(4) + index.to_bytes(4, "little")
    )
    page = head + bytes(4) + bytes([len(segments), *segments]) + packet
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return page[:22] + crc.to_bytes(4, "little") + page[26:]


@pytest.mark.parametrize("cls", CODECS)
def test_an_impulse_stays_where_it_is(cls: type[_FFmpegCodec]) -> None:
    codec = cls()
    rate = codec.nearest_rate(160)
    for at in (0, 5, 1000, 4799, 4800):
        samples = np.zeros((1, 4801), np.float32)
        samples[0, at] = 0.8
        decoded = code(codec, samples, rate)[1]
        assert int(np.abs(decoded[0]).argmax()) == at
        assert decoded[0, at] > 0.3


@pytest.mark.parametrize("kbps", [8, 16, 24, 64])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 44100 // 8, 5513, 11025])
def test_no_length_loses_its_end_to_resampling(length: int, kbps: int) -> None:
    for codec in (Mp3(), Aac()):
        samples = noise((1, length), 44100)
        assert code(codec, samples, codec.nearest_rate(kbps))[1].shape == (1, length)


def test_mp3_sample_rates_are_those_lame_chooses() -> None:
    libraries = list((Path(av.__file__).parents[1] / "av.libs").glob("libmp3lame*"))
    if not libraries:
        pytest.skip("PyAV's own libmp3lame is not in a folder of the wheel here")
    lame = ctypes.CDLL(str(libraries[0]))
    lame.lame_init.restype = ctypes.c_void_p
    for channels in (1, 2):
        for rate in Mp3().rates(channels):
            assert rate.kbps is not None
            flags = ctypes.c_void_p(lame.lame_init())
            lame.lame_set_in_samplerate(flags, 44100)
            lame.lame_set_num_channels(flags, channels)
            lame.lame_set_mode(flags, 3 if channels == 1 else 1)
            lame.lame_set_brate(flags, int(rate.kbps))
            assert lame.lame_init_params(flags) == 0
            assert lame.lame_get_brate(flags) == rate.kbps
            assert lame.lame_get_out_samplerate(flags) == rate.settings["sample_rate"], (channels, rate)
            lame.lame_close(flags)


def test_mp3_is_of_constant_bitrate() -> None:
    # Frames of 144 * bitrate / sample rate bytes, rounded either way (72 for MPEG-2), from the first one on.
    codec = Mp3()
    for rate in codec.rates():
        encoded = code(codec, noise((1, 30000), 44100), rate)[0]
        assert rate.kbps is not None
        coded_rate = int(rate.settings["sample_rate"])
        exact = (144 if coded_rate >= 32000 else 72) * 1000 * rate.kbps / coded_rate
        assert all(abs(size - exact) < 1 for size in encoded.side_info["packet_bytes"])
        frame = 1152 if coded_rate >= 32000 else 576
        assert len(encoded.payload) * 8 / rate.kbps / 1000 < 30000 / 44100 + 3.1 * frame / coded_rate


def test_opus_takes_any_bitrate_within_its_limits() -> None:
    codec = Opus()
    assert codec.nearest_rate(13.7).kbps == 13.7
    assert codec.nearest_rate(13.7).settings["bit_rate"] == 13700
    assert [codec.nearest_rate(kbps).kbps for kbps in (1, 6, 256, 300)] == [6, 6, 256, 256]
    assert [codec.nearest_rate(kbps, 2).kbps for kbps in (1, 510, 600)] == [6, 510, 510]
    sizes = [
        len(code(codec, noise((1, 48000), 48000), codec.nearest_rate(k))[0].payload) for k in (30, 31, 33)
    ]
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("kbps", [0, -1, math.nan, math.inf])
def test_nonsense_bitrates_are_refused(kbps: float) -> None:
    for cls in CODECS:
        with pytest.raises(UserError, match="positive number"):
            cls().nearest_rate(kbps)


@pytest.mark.parametrize("cls", [Opus, Mp3])
def test_sound_above_full_scale_is_not_clipped(cls: type[_FFmpegCodec]) -> None:
    codec = cls()
    time = np.arange(codec.sample_rate) / codec.sample_rate
    samples = (10 ** (2 / 20) * np.sin(2 * np.pi * 441 * time)).astype(np.float32)[None]
    decoded = code(codec, samples, codec.nearest_rate(128))[1][0, 4800:-4800]
    spectrum = np.abs(np.fft.rfft(decoded * np.hanning(len(decoded))))
    third = round(3 * 441 * len(decoded) / codec.sample_rate)
    # Clipped, its third harmonic would lie at -21 dB.
    assert spectrum[third - 4 : third + 5].max() < 1e-4 * spectrum.max()
    assert np.abs(decoded).max() > 1.15


def test_lame_turns_down_as_documented() -> None:
    codec = Mp3()
    samples = noise((1, 44100), 44100)
    for kbps, gain in ((64, 0.95), (160, 0.95), (192, 0.97), (224, 0.98), (320, 1.0)):
        decoded = code(codec, samples, codec.nearest_rate(kbps))[1]
        assert float((decoded * samples).sum() / (samples * samples).sum()) == pytest.approx(gain, abs=0.002)


@pytest.mark.parametrize("cls", CODECS)
def test_damaged_clips_are_refused_in_one_line(cls: type[_FFmpegCodec]) -> None:
    codec = cls()
    encoded = code(codec, noise((1, 9600), codec.sample_rate), codec.nearest_rate(64))[0]
    assert json.loads(json.dumps(encoded.side_info)) == encoded.side_info
    short = Encoded.from_bytes(encoded.to_bytes())
    short.payload = short.payload[:-5]
    fewer = Encoded.from_bytes(encoded.to_bytes())
    last = fewer.side_info["packet_bytes"].pop()
    fewer.payload = fewer.payload[:-last]
    for damaged in (short, fewer):
        with pytest.raises(UserError, match=f"encoded {codec.name} clip is damaged") as caught:
            codec.decode([damaged])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cls", CODECS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_payload_of_other_channels_is_refused_or_decoded_to_the_stated_ones(
    cls: type[_FFmpegCodec], channels: int
) -> None:
    codec = cls()
    encoded = code(codec, noise((channels, 9600), codec.sample_rate), codec.nearest_rate(64, channels))[0]
    encoded.channels = said = 3 - channels
    try:
        assert codec.decode([encoded]).shape == (1, said, 9600)
    except UserError as error:
        assert f"encoded {codec.name} clip is damaged" in str(error)


@pytest.mark.parametrize("cls", CODECS)
def test_frames_handed_over_at_once_are_coded_as_one_by_one(
    cls: type[_FFmpegCodec], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = cls()
    samples = noise((2, 7 * codec.sample_rate), codec.sample_rate)  # more frames than one call takes
    rate = codec.nearest_rate(112, 2)
    at_once = codec.encode_clip(samples, rate).to_bytes()
    monkeypatch.setattr("baselines.ffmpeg._FRAMES", 1)
    assert codec.encode_clip(samples, rate).to_bytes() == at_once


def test_what_cannot_be_encoded_is_refused() -> None:
    codec, rate = Mp3(), Mp3().rates()[0]
    for wrong, reason in [
        (torch.zeros(1, 3, 100), "1 or 2 channels"),
        (torch.zeros(1, 100), "shape"),
        (torch.zeros(1, 1, 100, dtype=torch.float64), "float64"),
        (torch.zeros(1, 1, 0), "without samples"),
        (torch.full((1, 1, 100), math.nan), "NaN"),
        (torch.full((1, 1, 100), 32768.0), "32768 times full scale"),  # LAME would abort the process
    ]:
        with pytest.raises(UserError, match=reason):
            codec.encode(wrong, rate)
    with pytest.raises(UserError, match="take it from nearest_rate"):
        codec.encode(torch.zeros(1, 1, 100), Rate(16))
    with pytest.raises(UserError, match="one by one"):
        codec.decode([codec.encode(torch.zeros(1, 1, n), rate)[0] for n in (100, 101)])
    with pytest.raises(UserError, match="none"):
        codec.decode([])


@pytest.mark.parametrize(("kbps", "allowed"), [(8, 1.4), (16, 1.08), (32, 1.15), (64, 1.08)])
def test_aac_gives_about_the_bitrate_asked(kbps: int, allowed: float, shared: Callable[[str], Path]) -> None:
    codec = Aac()
    for name in (
        "music/Hungarian_Dance_number_5_-_Allegro_in_F_sharp_minor__string_orchestra_.hq.ogg",
        "speech/127389__acclivity__thetimehascome.flac",
        "sonicpi/guit_em9.flac",
    ):
        samples, sample_rate = audio.read(shared(f"audio/valid/{name}"), 0, 5)
        samples = audio.resample(audio.mix(samples, 1), sample_rate, 44100)
        measured = code(codec, samples, codec.nearest_rate(kbps))[0].kbps
        assert 0.9 < measured / kbps < allowed, name


@pytest.mark.parametrize("cls", CODECS)
def test_real_speech_is_in_time(cls: type[_FFmpegCodec], shared: Callable[[str], Path]) -> None:
    codec = cls()
    path = shared("audio/valid/speech/127389__acclivity__thetimehascome.flac")
    samples, sample_rate = audio.read(path, 0.5, 3.0)
    samples = audio.resample(audio.mix(samples, 1), sample_rate, codec.sample_rate)
    for kbps in (16, 64, 128):
        decoded = code(codec, samples, codec.nearest_rate(kbps))[1]
        assert abs(lag(samples[0], decoded[0])) <= (2 if cls is Opus and kbps == 16 else 0)
        assert snr_db(samples, decoded) > (0 if kbps == 16 else 8)


def test_opus_has_other_complexities() -> None:
    """The encoder's alone: what decodes one decodes all."""
    samples, rate = noise((1, 24_000), 48_000), Opus().nearest_rate(32)
    full, _ = code(Opus(), samples, rate)
    given, _ = code(Opus(weights="complexity=10"), samples, rate)
    low = Opus(weights="complexity=0")
    least, decoded = code(low, samples, rate)
    assert given.payload == full.payload != least.payload
    assert Opus(weights="complexity=10").identity() == Opus().identity()
    differing = {key for key, value in low.identity().items() if value != Opus().identity()[key]}
    assert differing == {"options"} == {*Opus.of_encoding}
    assert np.array_equal(Opus().decode([least]).numpy()[0], decoded)
    with pytest.raises(UserError, match="opus:complexity=10; got 'fast'"):
        Opus(weights="fast")
