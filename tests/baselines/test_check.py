"""`check_codec` passes a sound codec and catches each way of breaking the interface."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from known import LayersCodec

from baselines import CodecProblem, check_codec
from baselines.codec import ClipCodec, Codec, Encoded, Rate, first_codebooks


class Sound(Codec):
    """Rounds to some bits a sample and packs them: as simple as a codec with codes can be."""

    name = "sound"
    version = "1"
    sample_rate = 8000
    channels: tuple[int, ...] = (1, 2)
    bits: ClassVar[tuple[int, ...]] = (4, 6, 8)

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [Rate(8 * channels * bits, {"bits": bits}) for bits in self.bits]

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        levels = 2 ** int(rate.settings["bits"])
        encoded = []
        for clip in audio:
            scaled = (clip * (levels / 2)).floor() + levels // 2
            codes = scaled.clip(0, levels - 1).numpy().astype(np.int64)
            bits = (codes[..., None] >> np.arange(int(rate.settings["bits"]))) & 1
            payload = np.packbits(bits.astype(np.uint8)).tobytes()
            encoded.append(
                Encoded(
                    payload, self.sample_rate, *clip.shape, codes=codes, codebook_sizes=(levels,) * len(codes)
                )
            )
        return encoded

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        clips = []
        for clip in encoded:
            bits = len(clip.payload) * 8 // (clip.channels * clip.num_samples)
            flat = np.unpackbits(np.frombuffer(clip.payload, np.uint8))[
                : clip.channels * clip.num_samples * bits
            ]
            codes = (flat.reshape(clip.channels, -1, bits).astype(np.int64) << np.arange(bits)).sum(-1)
            clips.append((codes + 0.5 - 2 ** (bits - 1)) / 2 ** (bits - 1))
        return torch.from_numpy(np.stack(clips).astype(np.float32))


def test_a_sound_codec_passes_and_is_measured() -> None:
    rows = check_codec(Sound())
    assert [(row.channels, row.rate.kbps) for row in rows] == [
        (1, 32),
        (1, 48),
        (1, 64),
        (2, 64),
        (2, 96),
        (2, 128),
    ]
    for row in rows:
        # One second and one sample, rounded up to a byte.
        assert row.kbps == pytest.approx(row.rate.kbps, rel=1e-3)
        assert row.delay_samples == 0 and row.batch_agreement == 1
        bits = int(row.rate.settings["bits"])
        # Rounding error of a step of 2 / 2^bits, uniform: SNR = 12 var / step^2.
        signal = 0.02 * sum(1 / n**2 for n in range(1, 11))
        expected = 12 * signal / (2 / 2**bits) ** 2
        assert 1 / (1 / row.correlation**2 - 1) == pytest.approx(expected, rel=0.35)


def test_only_the_rates_asked_for() -> None:
    codec = Sound()
    assert [row.rate for row in check_codec(codec, rates=codec.rates()[1:2])] == [codec.rates()[1]] * 2


class NoName(Sound):
    name = ""


class NoSampleRate(Sound):
    sample_rate = 44100.0  # type: ignore[assignment]


class OddChannels(Sound):
    channels = ()


class IdentityNotJson(Sound):
    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "device": torch.device("cpu")}


class RatesUnordered(Sound):
    bits: ClassVar[tuple[int, ...]] = (8, 4)


class NoRates(Sound):
    bits: ClassVar[tuple[int, ...]] = ()


class NearestIsFar(Sound):
    def nearest_rate(self, kbps: float, channels: int = 1) -> Rate:
        return self.rates(channels)[0]


class NotAList(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        return super().encode(audio, rate)[0]  # type: ignore[return-value]


class NotEncoded(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        return [clip.payload for clip in super().encode(audio, rate)]  # type: ignore[misc]


class ChangesInput(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        encoded = super().encode(audio, rate)
        audio *= 0.5
        return encoded


class PayloadOfZeros(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        encoded = super().encode(audio, rate)
        for clip in encoded:
            clip.side_info["hidden"] = list(clip.payload)
            clip.payload = b""
        return encoded

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        for clip in encoded:
            clip.payload = bytes(clip.side_info["hidden"])
        return super().decode(encoded)


class PayloadNotBytes(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        encoded = super().encode(audio, rate)
        for clip in encoded:
            clip.payload = np.frombuffer(clip.payload, np.uint8)  # type: ignore[assignment]
        return encoded


class PaddedLength(Sound):
    """States the padded length: a common way to get a wrong bitrate."""

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        return super().encode(torch.nn.functional.pad(audio, (0, -audio.shape[-1] % 512)), rate)


class FramesShort(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        audio = super().decode(encoded)
        return audio[..., : audio.shape[-1] // 512 * 512]


class NoBatchAxis(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        return super().decode(encoded)[0]


class Double(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        return super().decode(encoded).double()


class Integers(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        return (super().decode(encoded) * 32767).to(torch.int16)


class IntegersAsFloats(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        return super().decode(encoded) * 32767


class Complex(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        return torch.complex(super().decode(encoded), torch.ones(1))


class OfClips(ClipCodec):
    name, version, sample_rate = "of clips", "1", 8000

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [Rate(128.0)]

    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        return Encoded((audio * 32767).astype("<i2").tobytes(), self.sample_rate, *audio.shape)

    def decode_clip(self, encoded: Encoded) -> np.ndarray:
        return np.frombuffer(encoded.payload, "<i2").reshape(encoded.channels, -1)


class EncodesNothing(OfClips):
    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        return None  # type: ignore[return-value]


class NotANumber(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        return super().decode(encoded) / 0 * 0


class CodesOneBased(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        encoded = super().encode(audio, rate)
        for clip in encoded:
            clip.codes = clip.codes + 200  # type: ignore[operator]
        return encoded


class CodesTransposed(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        encoded = super().encode(audio, rate)
        for clip in encoded:
            clip.codes = clip.codes.T  # type: ignore[union-attr]
        return encoded


class TuplesInSideInfo(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        encoded = super().encode(audio, rate)
        for clip in encoded:
            clip.side_info = {"shape": (1, 2)}
        return encoded


class ArrayInSideInfo(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        encoded = super().encode(audio, rate)
        for clip in encoded:
            clip.side_info = {"scale": np.float32(1)}
        return encoded


class RemembersTheAudio(Sound):
    """Decodes from what it kept of the last call instead of the payload."""

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        encoded = super().encode(audio, rate)
        for clip, given in zip(encoded, audio, strict=True):
            clip.original = given  # type: ignore[attr-defined]
        return encoded

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        if all(hasattr(clip, "original") for clip in encoded):
            return torch.stack([clip.original for clip in encoded])  # type: ignore[attr-defined]
        return super().decode(encoded)


class RandomBytes(Sound):
    numbers = itertools.count()

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        encoded = super().encode(audio, rate)
        for clip in encoded:
            clip.side_info["stream"] = next(self.numbers)
        return encoded


class NoisyDecoder(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        audio = super().decode(encoded)
        return audio + 0.01 * torch.rand_like(audio)


class NormalisesTheBatch(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        gain = 0.5 / audio.abs().max().clip(1e-9)
        encoded = super().encode(audio * gain, rate)
        for clip in encoded:
            clip.side_info["gain"] = float(gain)
        return encoded

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        gains = torch.tensor([clip.side_info["gain"] for clip in encoded])
        return super().decode(encoded) / gains[:, None, None]


class DecodesByTheBatch(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        audio = super().decode(encoded)
        return audio - audio.mean(dim=0, keepdim=True) if len(audio) > 1 else audio


class Late(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        audio = super().decode(encoded)
        return torch.cat([torch.zeros(*audio.shape[:2], 5), audio], dim=-1)[..., : audio.shape[-1]]


class Early(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        return torch.nn.functional.pad(super().decode(encoded), (-2, 2))


class Inverted(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        return -super().decode(encoded)


class SwapsChannels(Sound):
    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        return super().decode(encoded).flip(1)


class IgnoresTheRate(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        return super().encode(audio, self.rates()[1])


class RatePerChannel(Sound):
    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return super().rates(1)


class RateInBytes(Sound):
    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [replace(rate, kbps=(rate.kbps or 0) / 8) for rate in super().rates(channels)]


class RatesMixedUp(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        return super().encode(audio, Rate(0, {"bits": 12 - int(rate.settings["bits"])}))


class FailsOnShortClips(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        torch.nn.functional.pad(audio, (8, 8), mode="reflect")
        return super().encode(audio, rate)


class FailsOnSilence(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        if not audio.any():
            raise ZeroDivisionError("level of the clip is 0")
        return super().encode(audio, rate)


class Crashes(Sound):
    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        raise RuntimeError("CUDA error\nmany lines follow")


class Layers(LayersCodec):
    sample_rate = 8000


class LooksAhead(Layers):
    """Rounds to the rate, as is best: the codes of a lower rate are not those of a higher one."""

    def levels(self, audio: np.ndarray, n: int) -> np.ndarray:
        step = 2 ** (8 - n)
        return np.clip(np.round((audio[0] * 128 + 128) / step) * step, 0, 256 - step).astype(np.int64)


class CutsTooMuch(Layers):
    def truncate(self, encoded: Encoded, rate: Rate) -> Encoded:
        return self._of(first_codebooks(encoded, rate)[0][:-1], encoded.num_samples)


class KeepsTheBytes(Layers):
    def truncate(self, encoded: Encoded, rate: Rate) -> Encoded:
        return replace(super().truncate(encoded, rate), payload=encoded.payload)


class KeepsTheSideInfo(Layers):
    def truncate(self, encoded: Encoded, rate: Rate) -> Encoded:
        return replace(super().truncate(encoded, rate), side_info=encoded.side_info)


class NothingToCut(Layers):
    truncate = Codec.truncate


def test_prefixes_are_tried_where_a_codec_says_that_it_has_some() -> None:
    assert [row.rate.kbps for row in check_codec(Layers())] == [40, 48, 64]


@pytest.mark.parametrize(
    ("codec", "advice"),
    [
        (NoName, "give the class a name"),
        (NoSampleRate, "set sample_rate to that of the codec in Hz"),
        (OddChannels, "set channels to the counts"),
        (IdentityNotJson, "identity.. must be a dict of JSON values"),
        (RatesUnordered, "ascending order of kbps"),
        (NoRates, "must offer an operating point"),
        (NearestIsFar, "nearest_rate.kbps. must give the offered rate"),
        (NotAList, "must return a list, one Encoded per clip"),
        (NotEncoded, "must return baselines.codec.Encoded objects"),
        (ChangesInput, "must not change its input"),
        (PayloadOfZeros, "payload must hold the coded bytes"),
        (PayloadNotBytes, "payload must be bytes"),
        (PaddedLength, "before any padding"),
        (FramesShort, "cut exactly that off"),
        (NoBatchAxis, r"shape \(batch, channels, num_samples\)"),
        (Double, "must return float32"),
        (Integers, r"float32 with full scale at 1.0 .*, neither integers .*got torch.int16"),
        (IntegersAsFloats, r"keep the level of the sound: full scale is 1.0 .*\+90 dB"),
        (Complex, "neither integers nor complex numbers .*got torch.complex64"),
        (OfClips, r"'of clips': the decoder returned audio of shape \(1, 8001\), int16; it must be float32"),
        (EncodesNothing, "must return baselines.codec.Encoded objects .*got NoneType"),
        (NotANumber, "must not return NaN"),
        (CodesOneBased, "from 0 to their codebook's size - 1"),
        (CodesTransposed, r"integers of shape \(num_codebooks, frames\)"),
        (TuplesInSideInfo, "JSON values only"),
        (ArrayInSideInfo, "must not raise an error .*JSON serializable"),
        (RemembersTheAudio, "nothing but payload, codes and side_info"),
        (RandomBytes, "encode must be reproducible"),
        (NoisyDecoder, "decode must be reproducible"),
        (NormalisesTheBatch, "the same codes alone and in a batch"),
        (DecodesByTheBatch, "the same audio alone and in a batch"),
        (Late, "in time with the input.* 5 samples too late"),
        (Early, "in time with the input.* 2 samples too early"),
        (Inverted, "polarity"),
        (SwapsChannels, "must not swap channels"),
        (IgnoresTheRate, "a higher kbps must give more bytes"),
        (RatesMixedUp, "a higher kbps must give more bytes"),
        (RatePerChannel, r"total over the channels.*stereo, 32 kbps: 32 kbps stated, 64.* measured"),
        (RateInBytes, r"kbps of a rate must be near .*mono, 4 kbps: 4 kbps stated, 32 measured"),
        (FailsOnShortClips, "encode must not raise an error .*length 1:"),
        (LooksAhead, r"at that rate: is_prefix must be False .*40 of 48 kbps: codes differ from codebook"),
        (
            CutsTooMuch,
            r"must give the same bytes as encode .*codes of shape \(4, 8001\), encode gives \(5,",
        ),
        (
            KeepsTheBytes,
            "truncate must give the same bytes as encode .*payload of 6001 bytes, encode gives 5001",
        ),
        (
            KeepsTheSideInfo,
            r"truncate must give the same bytes as encode .*side_info .*: 6}, encode gives .*: 5}",
        ),
        (NothingToCut, "truncate must not raise an error .*has is_prefix but no truncate"),
        (Crashes, "encode must not raise an error .*RuntimeError: CUDA error"),
    ],
)
def test_each_broken_promise_is_caught(codec: type[Codec], advice: str) -> None:
    with pytest.raises(CodecProblem, match=advice) as caught:
        check_codec(codec())
    # One line a problem, and no flood of consequences.
    assert len(caught.value.problems) <= 4
    assert all("\n" not in problem for problem in caught.value.problems)


def test_a_rate_that_varies_may_be_further_off() -> None:
    assert len(check_codec(RatePerChannel(), max_rate_factor=2.1)) == 6
    for factor in (0.0, 0.99, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be 1 or more"):
            check_codec(RatePerChannel(), max_rate_factor=factor)


def test_silence_is_tried() -> None:
    with pytest.raises(CodecProblem, match=r"must not raise an error .*silence: ZeroDivisionError"):
        check_codec(FailsOnSilence())


def test_problems_are_counted_by_place() -> None:
    with pytest.raises(CodecProblem) as caught:
        check_codec(Late())
    (problem,) = caught.value.problems
    assert "[mono, 32 kbps: 5 samples too late; and 5 more]" in problem
    assert isinstance(caught.value, AssertionError)
    assert check_codec(Late(), max_delay=5)[0].delay_samples == 5


def test_an_output_unlike_its_input_has_no_delay() -> None:
    class Untrained(Sound):
        def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
            shape = (len(encoded), encoded[0].channels, encoded[0].num_samples)
            generator = torch.Generator().manual_seed(0)
            return torch.randn(shape[1:], generator=generator).expand(shape).contiguous()

    assert {row.delay_samples for row in check_codec(Untrained())} == {None}


def test_importing_the_package_does_not_load_torch() -> None:
    code = "import sys, baselines, baselines.registry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
