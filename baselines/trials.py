"""Single calls of a third-party codec, with checks of each result and a list of problems."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn, TypeVar

import numpy as np
import torch

from baselines.codec import Codec, Encoded, Rate
from qincodec.core.errors import said
from qincodec.core.plugins import FAULTS

T = TypeVar("T")


class CallFailed(Exception):
    """A step that later ones need has failed; the problem is already on the list."""


class Trials:
    """Calls a codec and collects its problems.

    Attributes:
        problems: advice -> place and finding.
        place: the present trial, in words.
    """

    def __init__(self, codec: Codec, seed: int) -> None:
        self.codec = codec
        self.random = np.random.default_rng(seed)
        self.problems: dict[str, list[str]] = {}
        self.place = ""

    def texts(self) -> list[str]:
        """One line per problem: the advice, then its first place."""
        return [
            f"{advice} [{places[0]}{f'; and {len(places) - 1} more' if len(places) > 1 else ''}]"
            for advice, places in self.problems.items()
        ]

    def problem(self, seen: str, advice: str) -> None:
        self.problems.setdefault(advice, []).append(f"{self.place}: {seen}" if self.place else seen)

    def fail(self, seen: str, advice: str) -> NoReturn:
        """Note a problem after which the check cannot continue."""
        self.problem(seen, advice)
        raise CallFailed

    def attempt(self, what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except KeyboardInterrupt:
            raise
        except FAULTS as error:  # any error of an adapter is a finding
            self.problem(said(error), f"{what} must not raise an error")
            raise CallFailed from error

    def sound(self, channels: int, num_samples: int) -> torch.Tensor:
        """(channels, samples): a gliding harmonic tone over faint noise, another in each channel.

        Tonal, so that codecs keep its waveform at low bitrates; gliding, so that other delays do not fit.
        """
        time = np.arange(num_samples) / self.codec.sample_rate
        rows = []
        for _ in range(channels):
            start, octaves = self.random.uniform(120, 180), self.random.uniform(0.7, 1.2)
            cycles = start * (np.exp2(octaves * time) - 1) / (octaves * math.log(2))
            tone = np.zeros(num_samples)
            for harmonic in range(1, 11):
                phase = self.random.uniform(0, 2 * math.pi)
                tone += np.sin(2 * math.pi * harmonic * cycles + phase) / harmonic
            rows.append(0.2 * tone + 0.002 * self.random.standard_normal(num_samples))
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        given = audio.clone()
        encoded = self.attempt("encode", lambda: self.codec.encode(audio, rate))
        if not torch.equal(audio, given):
            self.problem(
                "the input changed", "encode must not change its input: copy before working in place"
            )
            audio.copy_(given)
        if not isinstance(encoded, list) or len(encoded) != audio.shape[0]:
            got = f"{len(encoded)} items" if isinstance(encoded, list) else type(encoded).__name__
            self.fail(
                f"got {got} for a batch of {audio.shape[0]}",
                "encode must return a list, one Encoded per clip",
            )
        for clip in encoded:
            self.one_encoded(clip, audio, rate)
        return encoded

    def one_encoded(self, clip: Encoded, audio: torch.Tensor, rate: Rate) -> None:
        if not isinstance(clip, Encoded):
            self.fail(f"got {type(clip).__name__}", "encode must return baselines.codec.Encoded objects")
        got = (clip.sample_rate, clip.channels, clip.num_samples)
        codec, channels = self.codec, audio.shape[1]
        expected = (codec.output_sample_rate, channels, codec.output_length(audio.shape[2]))
        if got != expected:
            self.fail(
                f"{got}, expected {expected}",
                "Encoded must state sample_rate, channels and num_samples of the audio that was given, before"
                " any padding (at output_sample_rate where that is another): decode returns the same, and "
                "the bitrate is counted over it",
            )
        if not isinstance(clip.payload, bytes):
            self.fail(
                f"it is {type(clip.payload).__name__}", "payload must be bytes, as a file would hold them"
            )
        if not clip.payload and rate.kbps is not None:
            self.problem(
                "no bytes", "payload must hold the coded bytes: the bitrate is measured from it, not computed"
            )
        self.codes(clip)

    def codes(self, clip: Encoded) -> None:
        if clip.codes is None:
            if clip.codebook_sizes:
                self.problem(f"{clip.codebook_sizes}", "codebook_sizes without codes: give both or neither")
            return
        sizes = clip.codebook_sizes
        rows = [np.asarray(row) for row in clip.codes]
        if len(sizes) != len(rows) or any(row.ndim != 1 or row.dtype.kind not in "iu" for row in rows):
            kinds = " and ".join(sorted({f"{row.dtype} of shape {row.shape}" for row in rows})[:3])
            self.problem(
                f"{len(rows)} rows ({kinds}), {len(sizes)} codebook sizes",
                "codes must be integers of shape (num_codebooks, frames), or a tuple of rows where codebooks"
                " have different numbers of frames, with one codebook size per row",
            )
        elif any(
            len(row) and not 0 <= row.min() <= row.max() < size for row, size in zip(rows, sizes, strict=True)
        ):
            found = np.concatenate(rows)
            self.problem(
                f"codes from {found.min()} to {found.max()}, codebook sizes {tuple(sizes)}",
                "codes must lie from 0 to their codebook's size - 1: perplexity and entropy count them",
            )

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        """Decode from stored bytes, as in a run folder, and check the shape of the result."""
        restored = [
            self.attempt(
                "Encoded.to_bytes() and back (JSON values in side_info, integer codes)",
                partial(stored_and_read, clip),
            )
            for clip in encoded
        ]
        for clip, back in zip(encoded, restored, strict=True):
            if back.side_info != clip.side_info:
                self.problem(
                    f"{clip.side_info!r} became {back.side_info!r}"[:200],
                    "side_info must hold JSON values only (no tuples, arrays or integer keys)",
                )
        decoded = self.attempt(
            "decode of clips restored from their bytes", lambda: self.codec.decode(restored)
        )
        expected = (len(encoded), encoded[0].channels, encoded[0].num_samples)
        if not isinstance(decoded, torch.Tensor) or tuple(decoded.shape) != expected:
            got = tuple(decoded.shape) if isinstance(decoded, torch.Tensor) else type(decoded).__name__
            self.fail(
                f"got {got}, expected {expected}",
                "decode must return a tensor of shape (batch, channels, num_samples): pad before encoding"
                " where frames need it, and cut exactly that off after decoding",
            )
        if not decoded.is_floating_point():
            self.fail(
                f"got {decoded.dtype}",
                "decode must return float32 with full scale at 1.0 (nominal range [-1, 1]), neither integers"
                " nor complex numbers",
            )
        if decoded.dtype != torch.float32:
            self.problem(f"got {decoded.dtype}", "decode must return float32")
        decoded = decoded.detach().cpu().float()
        if not torch.isfinite(decoded).all():
            count = int((~torch.isfinite(decoded)).sum())
            self.fail(f"{count} samples", "decode must not return NaN or infinity")
        return decoded


def stored_and_read(clip: Encoded) -> Encoded:
    return Encoded.from_bytes(clip.to_bytes())
