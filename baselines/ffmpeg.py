"""Opus, MP3 and AAC, by FFmpeg's libraries (through PyAV).

What is counted
---------------
The payload is the packets one after the other, without a container; their sizes, the codec's header and the
encoder's delay are side information, as in a file. The last frame is padded with zeros, and every packet
needed to restore all samples counts. Encoder and decoder delay is removed to the sample.

Input and output are floats: the adapter neither rounds to 16 bits nor clips. Opus in its music mode and MP3
keep samples above full scale. Opus' speech mode (SILK, which libopus chooses at low bitrates) uses 16-bit
integers and clips at full scale; the AAC encoder attenuates such frames.

If a bitrate needs a sample rate below 44.1 kHz, the adapter resamples to it and back.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import av
import av.error
import numpy as np

from baselines.codec import ClipCodec, Encoded, Rate, check_kbps, damaged
from qincodec.audio import resample
from qincodec.core.errors import UserError, shown

if TYPE_CHECKING:
    import torch

_LAYOUTS = {1: "mono", 2: "stereo"}
# LAME aborts the whole process near 1e5 times full scale. No audio for playback comes close.
_HIGHEST_PEAK = 1000.0
# Frames per call of PyAV, whose overhead for a call is a tenth of coding one frame.
_FRAMES = 256
# Reproducible bytes: without it the AAC encoder writes FFmpeg's version into the first packet.
_ENCODER_FLAGS = {"flags": "+bitexact"}
# The delay is removed here, by one rule for all; otherwise the Opus decoder would remove its own.
_DECODER_FLAGS = {"flags2": "+skip_manual"}


class _FFmpegCodec(ClipCodec):
    """Codes one clip with one encoder of FFmpeg.

    The settings of a `Rate` are those of the encoder: ``sample_rate`` (Hz) and ``bit_rate`` (bit/s). Take
    rates from `rates` or `nearest_rate`.
    """

    version = f"libavcodec-{'.'.join(map(str, av.library_versions['libavcodec']))}/pyav-{av.__version__}"
    sample_rate = 44100
    channels = (1, 2)

    _encoder: ClassVar[str]
    _decoder: ClassVar[str]
    _sample_format: ClassVar[str] = "fltp"
    _encoder_options: Mapping[str, str] = {}
    _decoder_options: ClassVar[dict[str, str]] = {}

    @classmethod
    def unavailable(cls, weights: str | None = None) -> str | None:
        missing = [name for name in (cls._encoder, cls._decoder) if name not in av.codecs_available]
        if not missing:
            return None
        return (
            f"codec '{cls.name}' needs FFmpeg with {' and '.join(missing)}, which this PyAV was built"
            " without: install the wheel from PyPI (pip install --force-reinstall --only-binary av av)"
        )

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "encoder": self._encoder, "options": dict(self._encoder_options)}

    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        channels, num_samples = audio.shape
        try:
            coded_rate, bit_rate = int(rate.settings["sample_rate"]), int(rate.settings["bit_rate"])
        except (KeyError, ValueError) as error:
            raise UserError(
                f"codec '{self.name}': rate {rate.label} lacks settings of the encoder; take it"
                " from nearest_rate(kbps, channels)"
            ) from error
        peak = float(np.abs(audio).max())
        if peak > _HIGHEST_PEAK:
            raise UserError(
                f"codec '{self.name}' cannot encode a clip that peaks at {peak:g} times full scale"
                f" (at most {_HIGHEST_PEAK:g}); floats in the range of integers? divide them by 32768"
            )
        if coded_rate != self.sample_rate:
            # Rounding the length twice may lose samples at the end, so these are zeros.
            spare = math.ceil(self.sample_rate / coded_rate) + 1
            audio = resample(np.pad(audio, ((0, 0), (0, spare))), self.sample_rate, coded_rate)
        try:
            packets, padding, extradata = self._run_encoder(audio, coded_rate, bit_rate)
        except (av.error.FFmpegError, ValueError) as error:
            raise UserError(
                f"codec '{self.name}' cannot encode {channels} channels at {coded_rate} Hz with {bit_rate}"
                f" bit/s: {error}"
            ) from error
        return Encoded(
            payload=b"".join(packets),
            sample_rate=self.sample_rate,
            channels=channels,
            num_samples=num_samples,
            side_info={
                "packet_bytes": [len(packet) for packet in packets],
                "coded_sample_rate": coded_rate,
                "coded_samples": audio.shape[1],
                "padding": padding,
                "extradata": extradata.hex(),
            },
        )

    def _run_encoder(
        self, audio: np.ndarray, sample_rate: int, bit_rate: int
    ) -> tuple[list[bytes], int, bytes]:
        """Packets, encoder and decoder delay in samples, and the codec's header."""
        channels, num_samples = audio.shape
        layout = _LAYOUTS[channels]
        context: Any = av.CodecContext.create(self._encoder, "w")
        context.sample_rate = sample_rate
        context.layout = layout
        context.format = self._sample_format
        context.bit_rate = bit_rate
        context.time_base = Fraction(1, sample_rate)
        context.options = {**_ENCODER_FLAGS, **self._encoder_options}
        context.open()
        size = context.frame_size
        # Delay and look-ahead of all three codecs are below four frames.
        total = (math.ceil(num_samples / size) + 4) * size
        packets: list[Any] = []
        for start in range(0, total, _FRAMES * size):
            block = np.ascontiguousarray(audio[:, start : start + _FRAMES * size])
            missing = min(_FRAMES * size, total - start) - block.shape[1]
            if missing:
                block = np.pad(block, ((0, 0), (0, missing)))
            if self._sample_format == "flt":
                block = np.ascontiguousarray(block.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format=self._sample_format, layout=layout)
            frame.sample_rate = sample_rate
            frame.time_base = context.time_base
            frame.pts = start
            packets += context.encode(frame)
        packets += context.encode(None)
        padding = -packets[0].pts
        needed = math.ceil((padding + num_samples) / size)
        return [bytes(packet) for packet in packets[:needed]], padding, bytes(context.extradata or b"")

    def decode_clip(self, encoded: Encoded) -> np.ndarray:
        sample_rate = encoded.side_number("coded_sample_rate", 4_000, 768_000)
        num_samples = encoded.side_number("coded_samples", 1, 2**40)
        padding = encoded.side_number("padding", 0, 2**31)
        context: Any = av.CodecContext.create(self._decoder, "r")
        try:
            context.sample_rate = sample_rate
            context.layout = _LAYOUTS[encoded.channels]
            context.extradata = bytes.fromhex(encoded.side_info["extradata"]) or None
            context.options = {**_DECODER_FLAGS, **self._decoder_options}
            ends = list(itertools.accumulate(encoded.side_info["packet_bytes"], initial=0))
            if ends[-1] != len(encoded.payload):
                raise ValueError(f"{len(encoded.payload)} bytes instead of {ends[-1]}")
            packets = [av.Packet(encoded.payload[start:end]) for start, end in itertools.pairwise(ends)]
            decoded = av.AudioFifo()
            for packet in (*packets, None):
                for frame in context.decode(packet):
                    if frame.layout.nb_channels != encoded.channels:  # the FIFO would read past its planes
                        raise ValueError(f"a frame decodes to {frame.layout.nb_channels} channels")
                    decoded.write(frame)
            if (whole := decoded.read()) is None:
                raise ValueError("no frame decodes")
            audio = whole.to_ndarray()
            if whole.format.is_packed:
                audio = audio.reshape(-1, encoded.channels).T
            audio = audio[:, padding:][:, :num_samples]
            if audio.dtype != np.float32 or audio.shape != (encoded.channels, num_samples):
                raise ValueError(f"decodes to {audio.dtype} of shape {audio.shape}")
        # KeyError and TypeError: incomplete or wrong side information.
        except (av.error.FFmpegError, ValueError, KeyError, TypeError) as error:
            raise damaged(self.name, error) from error
        return resample(audio, sample_rate, self.sample_rate)[:, : encoded.num_samples]


class _TableCodec(_FFmpegCodec):
    """A fixed set of bitrates, each at a sample rate of its own."""

    # channels -> kbps -> sample rate of the encoder, Hz
    _sample_rates: ClassVar[dict[int, dict[int, int]]]
    # channels -> kbps -> bit/s for the encoder, if it is not the bitrate itself
    _bit_rates: ClassVar[dict[int, dict[int, int]]] = {1: {}, 2: {}}

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        asked = self._bit_rates[channels]
        return [
            Rate(kbps, {"sample_rate": sample_rate, "bit_rate": asked.get(kbps, 1000 * kbps)})
            for kbps, sample_rate in self._sample_rates[channels].items()
        ]


class Opus(_FFmpegCodec):
    """Opus by libopus at 48 kHz: its music mode (application "audio"), 20 ms frames.

    The complexity is 10, the highest, or a given one, as in ``opus:complexity=5``: the encoder's effort,
    which does not affect the decoder.

    Variable bitrate, libopus' default: it aims at the asked bitrate on average over all kinds of sound, and
    single clips take from half to twice as much. Bitrates from 6 kbit/s to 256 (mono) or 510 (stereo) can be
    asked for, the limits of FFmpeg and of the format; beyond them `nearest_rate` gives the limit.

    The delay is removed as the format prescribes, to the sample in its music mode. libopus' speech mode
    deviates from it: 3 samples late below 10 kbit/s (narrow band), 2 early above (wide band and hybrid).
    libopus switches modes within a clip, so the evaluation's alignment has to handle this.
    """

    name = "opus"
    sample_rate = 48000
    of_encoding = ("options",)
    _encoder = "libopus"
    _decoder = "libopus"
    _sample_format = "flt"
    _encoder_options: Mapping[str, str] = {
        "application": "audio",
        "vbr": "on",
        "frame_duration": "20",
        "compression_level": "10",
    }
    # The decoder gives 16 bits by default.
    _decoder_options: ClassVar[dict[str, str]] = {"request_sample_fmt": "flt"}
    _highest: ClassVar[dict[int, int]] = {1: 256, 2: 510}

    def __init__(self, *, device: str | torch.device = "cpu", weights: str | None = None) -> None:
        super().__init__(device=device)
        if weights is not None:
            levels = {f"complexity={level}": str(level) for level in range(11)}
            if weights not in levels:
                raise UserError(
                    "codec 'opus' has no weights, only a complexity: opus:complexity=0 to opus:complexity=10;"
                    f" got {shown(weights)}"
                )
            self._encoder_options = {**self._encoder_options, "compression_level": levels[weights]}

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        steps = (6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 510)
        return [self._rate(kbps) for kbps in steps if kbps <= self._highest[channels]]

    def nearest_rate(self, kbps: float, channels: int = 1) -> Rate:
        check_kbps(kbps)
        return self._rate(min(max(kbps, 6), self._highest[channels]))

    def rate_at(self, kbps: float, channels: int = 1) -> Rate:
        return self.nearest_rate(kbps, channels)

    def _rate(self, kbps: float) -> Rate:
        return Rate(kbps, {"sample_rate": self.sample_rate, "bit_rate": round(1000 * kbps)})


class Mp3(_TableCodec):
    """MP3 by LAME: constant bitrate with bit reservoir, joint stereo, LAME's default quality and lowpass.

    Low bitrates exist only at the sample rates of MPEG-2 and 2.5. The sample rate of each is the one that
    LAME 3.100 chooses for 44.1 kHz input (`lame_init_params` with the bitrate set and the output rate left at
    0). A clip takes its bitrate plus at most three frames: delay, and padding of the last one.

    LAME attenuates the sound, to leave its decoders room above full scale: by 0.95 (-0.45 dB) up to 160
    kbit/s, 0.97 at 192, 0.98 at 224. This is part of the codec and is not undone.
    """

    name = "mp3"
    _encoder = "libmp3lame"
    _decoder = "mp3float"  # "mp3" works on 16 bits
    _sample_rates: ClassVar = {
        1: {
            **{8: 8000, 16: 16000, 24: 16000, 32: 22050, 40: 24000, 48: 32000, 56: 32000},
            **dict.fromkeys((64, 80, 96, 112, 128, 160, 192, 224, 256, 320), 44100),
        },
        2: {
            **{8: 8000, 16: 8000, 24: 8000, 32: 16000, 40: 16000, 48: 22050, 56: 24000, 64: 24000},
            **{80: 32000, 96: 32000},
            **dict.fromkeys((112, 128, 160, 192, 224, 256, 320), 44100),
        },
    }


class Aac(_TableCodec):
    """AAC-LC by FFmpeg's own encoder (two-loop coder), which is not the best AAC encoder.

    It aims at the asked bitrate, and at 44.1 kHz misses low ones by far: asked for 8 kbit/s, it gives 13.8
    (mono). So low bitrates are coded at lower sample rates, as MP3 encoders do. The table was found with
    FFmpeg 8.1 on 17 five-second clips without digital silence (music, speech, instruments, noises): at each
    bitrate, of the sample rates whose mean bitrate was within 5 % of it, no clip above it by more than 25 %,
    the one with the lowest multi-scale mel distance. Asked / measured mean / highest clip, in kbit/s:

    mono: 8/8.1/10.5, 12/12.1/12.4, 16/16.7/16.8, 20/20.7/21.0, 24/24.8/27.3, 32/32.9/35.8, 40/41.2/48.9,
    48/48.8/51.0, 56/56.8/58.2, 64/64.9/66.8, 80/81.1/83.8, 96/97.9/105.5, 112/113.6/120.2, 128/130.5/153.6,
    160/158.4/183.5.

    stereo: 12/12.5/13.8, 16/16.3/17.1, 20/20.2/20.9, 24/24.2/24.7, 32/32.4/32.8, 40/40.5/41.0,
    48/48.6/51.6, 56/56.6/60.3, 64/65.2/75.8, 80/81.1/90.5, 96/96.8/101.3, 112/113.4/124.6, 128/130.5/157.0,
    160/163.4/196.8, 192/195.5/223.8, 224/226.9/252.6, 256/256.4/306.4.

    The encoder attenuates frames that peak above 0.95 of full scale to this level, so that decoders do not
    clip. This is part of the codec and is not undone.

    Not offered, because the encoder cannot reach them: 8 kbit/s in stereo (it gives 9.4 and more), 192 kbit/s
    in mono and 320 in stereo (it stops at about 160 and 300). At 8 and 12 kbit/s, mono, it is asked for less,
    to give the nominal rate; at 8, single clips take 30 % more. Silence takes less than the bitrate.
    """

    name = "aac"
    _encoder = "aac"
    _decoder = "aac"
    _sample_rates: ClassVar = {
        1: {
            **{8: 8000, 12: 8000, 16: 12000, 20: 12000, 24: 24000, 32: 32000},
            **dict.fromkeys((40, 48, 56, 64, 80, 96, 112, 128, 160), 44100),
        },
        2: {
            **{12: 8000, 16: 8000, 20: 8000, 24: 8000, 32: 12000, 40: 12000, 48: 24000, 56: 32000},
            **dict.fromkeys((64, 80, 96, 112, 128, 160, 192, 224, 256), 44100),
        },
    }
    _bit_rates: ClassVar = {1: {8: 7000, 12: 11400}, 2: {}}

    def rate_at(self, kbps: float, channels: int = 1) -> Rate:
        """A rate at the sample rate of the table's nearest bitrate, from half of the lowest on."""
        table = self.rates(channels)
        nominal = [rate.kbps or 0.0 for rate in table]
        kbps = min(max(kbps, nominal[0] / 2), nominal[-1])
        asked = np.interp(kbps, [0.0, *nominal], [0, *(int(rate.settings["bit_rate"]) for rate in table)])
        near = self.nearest_rate(kbps, channels)
        return Rate(kbps, {**near.settings, "bit_rate": round(float(asked))})
