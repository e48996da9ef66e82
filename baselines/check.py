"""`check_codec`: does a codec keep the promises of `baselines.codec.Codec`?

For authors of adapters. Run it on yours before you believe a score::

    from baselines import check_codec

    for row in check_codec(MyCodec()):
        print(row)
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from baselines.codec import Codec, Encoded, Rate
from baselines.trials import CallFailed, Trials, stored_and_read
from qincodec.audio import resample
from qincodec.core.errors import shown

# Below it, a peak of the cross-correlation does not show a delay (as with an untrained network).
_MIN_CORRELATION = 0.5
# Sums of floats depend on the batch size; anything louder than -80 dBFS does not come from that.
_TOLERANCE = 1e-4
_MIN_AGREEMENT = 0.99
# Codecs do not change the level so much; samples that are not scaled to 1.0 do.
_MAX_GAIN = 10


class CodecProblem(AssertionError):
    """A codec breaks promises of the interface; ``problems`` lists each with advice.

    Examples:
        >>> print(CodecProblem("mine", ["it is late by 7 samples"]))
        codec 'mine' breaks 1 promise(s):
          1. it is late by 7 samples
    """

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        lines = "".join(f"\n  {number}. {text}" for number, text in enumerate(self.problems, 1))
        super().__init__(f"codec '{name}' breaks {len(self.problems)} promise(s):{lines}")


@dataclass(frozen=True)
class CodecMeasurement:
    """Measurements of `check_codec` at one operating point, on one second of synthetic sound.

    Attributes:
        channels: of the audio.
        rate: the operating point.
        kbps: measured from the payload. In one second, the priming and the last, partly filled frame count
            more than in a longer clip.
        delay_samples: lag of the decoded sound; None if it resembles the input too little.
        correlation: normalised cross-correlation with the input at that delay, 0 to 1.
        batch_agreement: share of equal codes between the clip encoded alone and in a batch; 1 for codecs
            without codes.

    Examples:
        >>> measured = CodecMeasurement(1, Rate(64), 64.3, 0, correlation=0.99, batch_agreement=1)
        >>> measured.kbps, measured.rate.label
        (64.3, '64')
    """

    channels: int
    rate: Rate
    kbps: float
    delay_samples: int | None
    correlation: float
    batch_agreement: float


def check_codec(
    codec: Codec,
    *,
    rates: Sequence[Rate] | None = None,
    lengths: Sequence[int] = (1, 2, 333, 4801),
    max_delay: int = 1,
    max_rate_factor: float = 1.5,
    seed: int = 0,
) -> list[CodecMeasurement]:
    """Try a codec on synthetic sound and report every promise of the interface that it breaks.

    Checked, for each announced channel count: shapes, types, exact lengths, finite values; that decoding
    needs only the serialized `Encoded`; that encoding and decoding are reproducible, the same alone and in a
    batch, and do not change their input; codes within their codebooks; time, polarity and channel of the
    sound; the stated bitrate; more bytes for more kbps; rates declared as prefixes of others
    (`Codec.is_prefix`); very short clips and silence.

    Args:
        codec: an instance, ready to run. One with ``sample_rate`` 0 is checked at 44,100 Hz.
        rates: operating points to try, in ascending order, for all channel counts; the lowest, a middle
            and the highest one by default. The stated bitrate is compared only for those that the codec
            offers for that number of channels.
        lengths: of further clips, in samples, tried at the lowest and the highest rate.
        max_delay: greatest accepted delay or advance of the sound, samples.
        max_rate_factor: greatest accepted factor between the stated kbps and that of the payload, either
            way; 1 or more. Bitrates of codecs vary with the sound, and frames at the edges count much in one
            second.
        seed: of the synthetic sound.

    Returns:
        One measurement per channel count and rate.

    Raises:
        CodecProblem: the codec breaks promises; it lists all.
        ValueError: ``max_rate_factor`` is less than 1 or not a number.

    Examples:
        >>> from baselines.registry import CODECS
        >>> codec = CODECS.load("pcm16")()
        >>> codec.sample_rate = 8000  # it takes any
        >>> [(measured.channels, round(measured.kbps)) for measured in check_codec(codec)]
        [(1, 128), (2, 256)]
    """
    if not max_rate_factor >= 1:
        raise ValueError(f"max_rate_factor must be 1 or more, got {max_rate_factor}")
    check = _Check(codec, max_delay, max_rate_factor, seed)
    any_rate = getattr(codec, "sample_rate", None) == 0
    if any_rate:
        codec.sample_rate = 44100
    try:
        check.run(rates, lengths)
    finally:
        if any_rate:
            codec.sample_rate = 0
    if check.problems:
        raise CodecProblem(str(getattr(codec, "name", type(codec).__name__)), check.texts())
    return check.measurements


class _Check(Trials):
    def __init__(self, codec: Codec, max_delay: int, max_rate_factor: float, seed: int) -> None:
        super().__init__(codec, seed)
        self.max_delay = max_delay
        self.max_rate_factor = max_rate_factor
        self.measurements: list[CodecMeasurement] = []

    # ---- what is announced -----------------------------------------------------------------------------

    def run(self, rates: Sequence[Rate] | None, lengths: Sequence[int]) -> None:
        try:
            self.announcements()
        except CallFailed:
            return
        for channels in self.codec.channels:
            self.place = _channels(channels)
            try:
                offered = self.offered_rates(channels)
            except CallFailed:
                continue
            points = list(rates or (offered[i] for i in sorted({0, len(offered) // 2, len(offered) - 1})))
            # A given rate may be of another number of channels, with another total.
            payload_bytes = [self.point(channels, rate, own=rate in offered) for rate in points]
            self.more_for_more(channels, points, payload_bytes)
            self.prefixes(channels, points)
            for index in sorted({0, len(points) - 1}):
                self.short_and_silent(channels, points[index], lengths)

    def announcements(self) -> None:
        codec = self.codec
        for field in ("name", "version"):
            value = getattr(codec, field, None)
            if not (isinstance(value, str) and value):
                self.problem(
                    f"{field} is {value!r}",
                    f"give the class a {field}, a string that is not empty: scores are stored by it",
                )
        sample_rate = getattr(codec, "sample_rate", None)
        channels = getattr(codec, "channels", None)
        if not isinstance(sample_rate, int) or sample_rate < 0:
            self.fail(
                f"sample_rate is {sample_rate!r}",
                "set sample_rate to that of the codec in Hz, an int (0: any): the evaluation resamples to it",
            )
        if not (isinstance(channels, tuple) and channels and all(c in (1, 2) for c in channels)):
            self.fail(
                f"channels is {channels!r}",
                "set channels to the counts the codec codes: (1,), (2,) or (1, 2)",
            )
        identity = self.attempt("identity()", codec.identity)
        advice = (
            "identity() must be a dict of JSON values that holds name and version: it is the key of scores"
        )
        try:
            same = json.loads(json.dumps(identity, allow_nan=False)) == identity
        except (TypeError, ValueError) as error:
            self.problem(str(error), advice)
        else:
            if not (same and isinstance(identity, dict) and {"name", "version"} <= set(identity)):
                self.problem(f"it is {identity!r}", advice)

    def offered_rates(self, channels: int) -> list[Rate]:
        codec = self.codec
        rates = self.attempt("rates(channels)", lambda: list(codec.rates(channels)))
        if not all(isinstance(rate, Rate) for rate in rates):
            self.fail(shown(rates), "rates(channels) must return a list, each a baselines.codec.Rate")
        if not rates:
            self.fail(
                "none", "rates(channels) must offer an operating point for every announced channel count"
            )
        nominal = [rate.kbps for rate in rates if rate.kbps is not None]
        if any(not (math.isfinite(kbps) and kbps > 0) for kbps in nominal):
            self.fail(f"{nominal}", "rates must have a positive kbps, or None where a rate has no meaning")
        if nominal != sorted(set(nominal)):
            self.problem(f"{nominal}", "rates(channels) must be in ascending order of kbps, each once")
        for rate in rates:
            if not all(isinstance(value, int | float | str) for value in rate.settings.values()):
                self.problem(
                    f"{dict(rate.settings)!r}",
                    "settings of a rate must be numbers or strings: they enter score keys",
                )
        for kbps in nominal:
            nearest = self.attempt("nearest_rate(kbps)", partial(codec.nearest_rate, kbps, channels))
            if nearest.kbps is None or not math.isclose(nearest.kbps, kbps, rel_tol=1e-6):
                self.problem(
                    f"asked {kbps}, got {nearest.kbps}",
                    "nearest_rate(kbps) must give the offered rate whose own kbps is asked",
                )
        for low, high in itertools.pairwise(nominal):
            kbps = float(f"{math.sqrt(low * high):.4g}")
            found = self.attempt("rate_at(kbps)", partial(codec.rate_at, kbps, channels))
            if found is not None and found.kbps != kbps:
                advice = "rate_at(kbps) must give a rate of exactly that kbps, or None for all"
                self.problem(f"asked {kbps}, got {found.kbps}", advice)
        return rates

    # ---- one operating point ---------------------------------------------------------------------------

    def point(self, channels: int, rate: Rate, own: bool) -> int | None:
        """Checks on one second of sound; bytes of its payload, None if encoding failed."""
        self.place = f"{_channels(channels)}, {rate.label} kbps"
        # Odd lengths, as of real clips; the second clip is quiet, so that dependence within the batch shows.
        batch = torch.stack([self.sound(channels, self.codec.sample_rate + 1) for _ in range(2)])
        batch[1] *= 0.05
        try:
            encoded = self.encode(batch, rate)
            decoded = self.decode(encoded)
        except CallFailed:
            return None
        if own:
            self.as_stated(rate, encoded[0].kbps)
        try:
            self.reproducible(batch, rate, encoded, decoded)
            agreement = self.alone(batch, rate, encoded, decoded)
            codec = self.codec
            heard = resample(decoded[0].numpy(), codec.output_sample_rate, codec.sample_rate)
            delay, correlation = self.in_time(batch[0].numpy(), heard[:, : batch.shape[-1]])
        except CallFailed:
            pass
        else:
            kbps = encoded[0].kbps
            self.measurements.append(CodecMeasurement(channels, rate, kbps, delay, correlation, agreement))
        return len(encoded[0].payload)

    def as_stated(self, rate: Rate, measured: float) -> None:
        factor = self.max_rate_factor
        if rate.kbps is not None and not rate.kbps / factor <= measured <= rate.kbps * factor:
            self.problem(
                f"{rate.kbps:.4g} kbps stated, {measured:.4g} measured",
                "kbps of a rate must be near that of the payload: is it kbit/s, the total over the channels,"
                " and does the payload hold what is transmitted, and nothing else?",
            )

    def reproducible(
        self, batch: torch.Tensor, rate: Rate, encoded: Sequence[Encoded], decoded: torch.Tensor
    ) -> None:
        again = self.encode(batch, rate)
        if [clip.to_bytes() for clip in again] != [clip.to_bytes() for clip in encoded]:
            self.problem(
                "encoding twice gave different bytes",
                "encode must be reproducible: seed what is random, put networks in eval mode, keep clocks and"
                " random stream ids out of payload and side_info",
            )
        if not torch.equal(self.decode(encoded), decoded):
            self.problem(
                "decoding twice gave different audio",
                "decode must be reproducible, and keep no state from one call to the next",
            )
        direct = self.attempt("decode", lambda: self.codec.decode(encoded)).detach().cpu().float()
        if not torch.equal(direct, decoded):
            self.problem(
                "audio differs before and after to_bytes/from_bytes",
                "decode must use nothing but payload, codes and side_info of Encoded as they are stored",
            )

    def alone(
        self, batch: torch.Tensor, rate: Rate, encoded: Sequence[Encoded], decoded: torch.Tensor
    ) -> float:
        """Share of equal codes between clips encoded alone and in the batch."""
        agreement = 1.0
        for index, clip in enumerate(encoded):
            (single,) = self.encode(batch[index : index + 1].clone(), rate)
            ours, theirs = _rows(clip), _rows(single)
            if not ours or [len(row) for row in ours] != [len(row) for row in theirs]:
                same = float(single.payload == clip.payload)
            else:
                equal = np.concatenate(ours) == np.concatenate(theirs)
                same = float(np.mean(equal)) if len(equal) else 1.0
            agreement = min(agreement, same)
            error = float((self.decode([clip])[0] - decoded[index]).abs().max())
            if error > _TOLERANCE:
                self.problem(
                    f"samples differ by up to {error:.2g}",
                    "decode must give a clip the same audio alone and in a batch",
                )
        if agreement < _MIN_AGREEMENT:
            self.problem(
                f"{agreement:.1%} agree" if agreement else "nothing agrees",
                "encode must give a clip the same codes alone and in a batch: no normalisation, padding or"
                " rate control over several clips",
            )
        return agreement

    def in_time(self, given: np.ndarray, decoded: np.ndarray) -> tuple[int | None, float]:
        """Delay in samples and correlation at this delay, for the worse channel."""
        found = [_best_lag(x, y) for x, y in zip(given, decoded, strict=True)]
        if len(found) == 2:
            across = [_best_lag(given[1 - side], decoded[side]) for side in (0, 1)]
            if all(abs(wrong[1]) > abs(right[1]) + 0.2 for wrong, right in zip(across, found, strict=True)):
                self.problem(
                    "each resembles the other's input more than its own",
                    "decode must not swap channels: the first one is the left one on both sides",
                )
        lag, correlation = min(found, key=lambda pair: abs(pair[1]))
        if abs(correlation) < _MIN_CORRELATION:
            return None, abs(correlation)
        if correlation < 0:
            self.problem(f"correlation {correlation:.2f}", "decode must keep the polarity of the sound")
        level = float(np.linalg.norm(decoded) / np.linalg.norm(given))
        if not 1 / _MAX_GAIN < level < _MAX_GAIN:
            self.problem(
                f"{20 * math.log10(level):+.0f} dB",
                "decode must keep the level of the sound: full scale is 1.0 (nominal range [-1, 1])",
            )
        if abs(lag) > self.max_delay:
            self.problem(
                f"{abs(lag)} samples too {'late' if lag > 0 else 'early'}",
                "decode must return sound that is in time with the input: remove the encoder's and the"
                " decoder's delay (a shift of one sample costs up to 2 dB of SI-SDR)",
            )
        return lag, abs(correlation)

    # ---- across operating points -----------------------------------------------------------------------

    def more_for_more(
        self, channels: int, rates: Sequence[Rate], payload_bytes: Sequence[int | None]
    ) -> None:
        self.place = _channels(channels)
        known = [
            (rate.kbps, size)
            for rate, size in zip(rates, payload_bytes, strict=True)
            if rate.kbps is not None and size is not None
        ]
        for (low, low_bytes), (high, high_bytes) in itertools.pairwise(known):
            if high_bytes < low_bytes or (high_bytes == low_bytes and high > 1.25 * low):
                self.problem(
                    f"{low_bytes} bytes at {low:g} kbps, {high_bytes} at {high:g}",
                    "a higher kbps must give more bytes: is the rate used, and are the rates in order?",
                )

    def prefixes(self, channels: int, points: Sequence[Rate]) -> None:
        """If a rate is declared as a prefix of another, `truncate` must give the result of `encode`."""
        batch = torch.stack([self.sound(channels, self.codec.sample_rate + 1) for _ in range(2)])
        encoded: dict[str, list[Encoded]] = {}
        for rate, of in itertools.permutations(points, 2):
            self.place = f"{_channels(channels)}, {rate.label} of {of.label} kbps"
            try:
                if not self.attempt("is_prefix(rate, of)", partial(self.codec.is_prefix, rate, of)):
                    continue
                for one in (rate, of):
                    if one.label not in encoded:
                        encoded[one.label] = self.encode(batch, one)
                for whole, direct in zip(encoded[of.label], encoded[rate.label], strict=True):
                    # Restored from its bytes, as in a run that continues.
                    cut = self.attempt("truncate", partial(self._cut, whole, rate))
                    self.one_encoded(cut, batch, rate)
                    if (difference := _difference(cut, direct)) is not None:
                        self.fail(
                            difference,
                            "truncate must give the same bytes as encode at that rate: is_prefix must be "
                            "False where a lower rate has other codes",
                        )
            except CallFailed:
                continue

    def _cut(self, whole: Encoded, rate: Rate) -> Encoded:
        return self.codec.truncate(stored_and_read(whole), rate)

    def short_and_silent(self, channels: int, rate: Rate, lengths: Sequence[int]) -> None:
        clips = {f"length {length}": self.sound(channels, length) for length in lengths}
        clips["silence"] = torch.zeros(channels, self.codec.sample_rate // 2)
        for label, clip in clips.items():
            self.place = f"{_channels(channels)}, {rate.label} kbps, {label}"
            try:
                self.decode(self.encode(clip[None], rate))
            except CallFailed:
                continue


def _channels(channels: int) -> str:
    return {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")


def _rows(clip: Encoded) -> list[np.ndarray]:
    """One row per codebook."""
    return [] if clip.codes is None else [np.asarray(row) for row in clip.codes]


def _difference(cut: Encoded, direct: Encoded) -> str | None:
    """Difference between a clip cut out of a higher rate and one encoded at its own."""
    if cut.to_bytes() == direct.to_bytes():
        return None
    a, b = _rows(cut), _rows(direct)
    if [len(row) for row in a] != [len(row) for row in b]:
        shapes = (f"({len(rows)}, {max(map(len, rows), default=0)})" for rows in (a, b))
        return "codes of shape {}, encode gives {}".format(*shapes)
    for number, (ours, theirs) in enumerate(zip(a, b, strict=True), 1):
        if share := float(np.mean(ours != theirs)) if len(ours) else 0.0:
            return f"codes differ from codebook {number} of {len(a)} on: {share:.1%} of its own"
    for name in ("codebook_sizes", "side_info", "payload"):
        of_cut, of_direct = getattr(cut, name), getattr(direct, name)
        if of_cut != of_direct:
            if name != "payload":
                return f"{name} {of_cut}, encode gives {of_direct}"[:200]
            if len(of_cut) != len(of_direct):
                return f"payload of {len(of_cut)} bytes, encode gives {len(of_direct)}"
            at = next(n for n, pair in enumerate(zip(of_cut, of_direct, strict=True)) if pair[0] != pair[1])
            return f"payloads of {len(of_cut)} bytes differ from byte {at} on"
    return "the order of side_info differs"


def _best_lag(x: np.ndarray, y: np.ndarray) -> tuple[int, float]:
    """Lag of ``y`` behind ``x`` in samples at the strongest normalised cross-correlation, and its value."""
    size = 1 << (2 * len(x) - 1).bit_length()
    spectrum: Any = np.fft.rfft(y.astype(np.float64), size) * np.conj(np.fft.rfft(x.astype(np.float64), size))
    correlation = np.fft.irfft(spectrum, size)
    best = int(np.abs(correlation).argmax())
    energy = math.sqrt(float(np.vdot(x, x).real) * float(np.vdot(y, y).real))
    strength = float(correlation[best]) / energy if energy > 0 else 0.0
    return (best if best < size // 2 else best - size), strength
