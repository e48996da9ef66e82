"""Entropy coding of codes: integer tables of their frequencies, and an asymmetric numeral system on them.

The tables belong to a model: they are counted once, on the latents that its quantizer was fitted on. All
numbers are integers, so that every machine reads the files of every other.

The coder is rANS (J. Duda, "Asymmetric numeral systems", arXiv:1311.2540) with one state of 63 bits, which is
renewed 32 bits at a time. A code of frequency f takes ``log2(2^20 / f)`` bits. The state adds 8 bytes.

A frame that repeats the codes of the frame before it in its channel, as in digital silence, takes one bit,
and 8 bits if it is the first of a run. The sign that a frame is not repeated takes 0.006 bits, or one bit
after a run.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: The frequencies of a codebook sum up to 2^20.
TOTAL_BITS = 20
#: No frequency is larger than 7/8 of the sum. So a code takes at least 0.19 bits, and the number of bytes
#: limits the number of codes.
_LARGEST = 7 << (TOTAL_BITS - 3)
LEAST_BITS = TOTAL_BITS - float(np.log2(_LARGEST))
#: Entries of the largest codebook that has a table.
MAX_SIZE = 1 << 16

#: Frequency of a repeated frame after one that is not repeated, and after one that is. A frame takes at
#: least one bit, or the `LEAST_BITS` of its codes.
_REPEATS = 1 << (TOTAL_BITS - 8), 1 << (TOTAL_BITS - 1)

_STATE_BYTES = 8
_WORD_BITS = 32
_LOW = 1 << 31  # the state is in [2^31, 2^63) between codes
_SHRINK = 63 - TOTAL_BITS  # a state of f 2^43 or more would leave that range with a code of frequency f


class CodeTables:
    """Frequencies of the codes of every codebook of a model.

    Args:
        frequencies: for each codebook, (size,) whole numbers from 1 to 7/8 of 2^20 that sum up to 2^20.

    Raises:
        ValueError: the frequencies break one of these rules.
    """

    def __init__(self, frequencies: Sequence[NDArray[np.integer]]) -> None:
        self.frequencies = tuple(np.asarray(f, dtype=np.int64) for f in frequencies)
        for n, f in enumerate(self.frequencies):
            if f.ndim != 1 or not 2 <= f.size <= MAX_SIZE:
                raise ValueError(f"code table {n} has shape {f.shape}; it must have 2 to {MAX_SIZE} entries")
            if f.min() < 1 or f.max() > _LARGEST or f.sum() != 1 << TOTAL_BITS:
                raise ValueError(f"code table {n} is not a distribution of {1 << TOTAL_BITS} parts")
        self._starts = tuple(np.cumsum(f) - f for f in self.frequencies)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return tuple(f.size for f in self.frequencies)

    @classmethod
    def count(cls, codes: NDArray[np.integer], codebook_sizes: Sequence[int]) -> CodeTables:
        """Tables of codes (frames, num_codebooks); half an occurrence is added to every code.

        Raises:
            ValueError: codebooks of more than 65,536 entries.
        """
        tables = []
        for column, size in zip(codes.T, codebook_sizes, strict=True):
            if size > MAX_SIZE:
                raise ValueError(f"a codebook of {size} entries is too large for a table")
            counts = np.bincount(column, minlength=size) + 0.5
            shares = counts / counts.sum()
            # Mixed with the uniform distribution as far as the largest share requires, mostly not at all.
            most = 0.99 * _LARGEST / (1 << TOTAL_BITS)
            if shares.max() > most:
                keep = (most - 1 / size) / (shares.max() - 1 / size)
                shares = keep * shares + (1 - keep) / size
            exact = shares * ((1 << TOTAL_BITS) - size)
            whole = np.floor(exact).astype(np.int64)
            missing = (1 << TOTAL_BITS) - size - int(whole.sum())
            whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
            tables.append(whole + 1)
        return cls(tables)

    def bits_per_frame(self, num_codebooks: int) -> float:
        """Mean bits of a frame's codes of the first codebooks, over the counted codes.

        Repeated frames count as if they were not.
        """
        shares = (f / (1 << TOTAL_BITS) for f in self.frequencies[:num_codebooks])
        return float(sum(-(p * np.log2(p)).sum() for p in shares))

    def mean_bits(self, codes: NDArray[np.integer]) -> float:
        """Mean bits per frame of codes (frames, num_codebooks), of the first codebooks or all.

        Repeated frames count as if they were not.
        """
        bits = (-np.log2(f / (1 << TOTAL_BITS)) for f in self.frequencies)
        return float(sum(b[column].mean() for b, column in zip(bits, codes.T, strict=False)))

    def encode(self, codes: NDArray[np.integer], counts: Sequence[int] | None = None) -> bytes:
        """Bytes of codes (channels, num_codebooks, frames), of the first codebooks or all.

        Args:
            counts: number of codebooks of each channel, 1 or more; None: all. Further codes are not coded.

        Raises:
            ValueError: another shape, or codes outside their codebooks.
        """
        if codes.ndim != 3 or not 1 <= codes.shape[1] <= len(self.frequencies):
            raise ValueError(f"codes must have shape (channels, num_codebooks, frames), got {codes.shape}")
        sizes = np.array(self.codebook_sizes[: codes.shape[1]])
        counts = [len(sizes)] * len(codes) if counts is None else counts
        coded = np.arange(len(sizes)) < np.array(counts)[:, None]
        if (((codes < 0) | (codes >= sizes[:, None])) & coded[..., None]).any():
            raise ValueError("codes lie outside their codebooks")
        # In the order of decoding: frame by frame, channel by channel; the repetition sign, then the codes.
        repeated = np.zeros((codes.shape[2], codes.shape[0]), dtype=bool)
        repeated[1:] = (codes[:, :, 1:] == codes[:, :, :-1]).all(1).T
        before = np.zeros_like(repeated)
        before[1:] = repeated[:-1]
        of_repeat = np.where(before, _REPEATS[1], _REPEATS[0])
        flags = (
            np.where(repeated, of_repeat, (1 << TOTAL_BITS) - of_repeat),
            np.where(repeated, 0, of_repeat),
        )
        used = np.ones((*repeated.shape, 1 + codes.shape[1]), dtype=bool)
        used[0, :, 0] = False  # the first frame cannot repeat another
        used[..., 1:] = ~repeated[..., None] & coded
        frequencies, starts = (
            np.concatenate(
                [
                    flag[..., None],
                    *(t[codes[:, n]].T[..., None] for n, t in enumerate(table[: codes.shape[1]])),
                ],
                axis=-1,
            )[used].tolist()
            for flag, table in zip(flags, (self.frequencies, self._starts), strict=True)
        )
        state, words = _LOW, []
        for frequency, start in zip(reversed(frequencies), reversed(starts), strict=True):
            if state >= frequency << _SHRINK:
                words.append(state & 0xFFFF_FFFF)
                state >>= _WORD_BITS
            quotient, rest = divmod(state, frequency)
            state = (quotient << TOTAL_BITS) + rest + start
        return state.to_bytes(_STATE_BYTES, "little") + np.array(words[::-1], dtype="<u4").tobytes()

    def decode(
        self,
        data: bytes,
        frames: int,
        channels: int,
        num_codebooks: int,
        counts: Sequence[int] | None = None,
    ) -> NDArray[np.int32]:
        """Inverse of `encode`: (channels, num_codebooks, frames), int32, -1 where a channel has no codebook.

        Raises:
            ValueError: the bytes are not what `encode` makes of that many codes with these tables.
        """
        if not 1 <= num_codebooks <= len(self.frequencies):
            raise ValueError(f"{num_codebooks} codebooks, there are tables for {len(self.frequencies)}")
        counts = [num_codebooks] * channels if counts is None else counts
        least = frames * sum(min(1.0, count * LEAST_BITS) for count in counts)
        if len(data) < _STATE_BYTES or len(data) % 4 or 8 * len(data) < least:
            raise ValueError(f"{len(data)} bytes do not hold {frames} frames of {channels} channels")
        state = int.from_bytes(data[:_STATE_BYTES], "little")
        words = iter(np.frombuffer(data, dtype="<u4", offset=_STATE_BYTES).tolist())
        tables = [
            (f.tolist(), s.tolist())
            for f, s in zip(self.frequencies[:num_codebooks], self._starts[:num_codebooks], strict=True)
        ]
        flags = [([r, (1 << TOTAL_BITS) - r], [0, r]) for r in _REPEATS]
        mask = (1 << TOTAL_BITS) - 1

        def take(table: tuple[list[int], list[int]]) -> int:
            nonlocal state
            frequencies, starts = table
            part = state & mask
            symbol = bisect_right(starts, part) - 1
            state = frequencies[symbol] * (state >> TOTAL_BITS) + part - starts[symbol]
            if state < _LOW:
                state = state << _WORD_BITS | next(words)
            return symbol

        decoded = np.full((frames, channels, num_codebooks), -1, dtype=np.int32)
        last: list[list[int]] = [[]] * channels
        repeats = [False] * channels
        try:
            for frame in range(frames):
                for channel in range(channels):
                    repeats[channel] = frame > 0 and take(flags[repeats[channel]]) == 0
                    if not repeats[channel]:
                        row = [take(table) for table in tables[: counts[channel]]]
                        if row == last[channel]:
                            raise ValueError("a frame repeats the last and is not marked so")
                        last[channel] = row
                    decoded[frame, channel, : counts[channel]] = last[channel]
        except StopIteration:
            raise ValueError("the bytes end before the codes do") from None
        if state != _LOW or next(words, None) is not None:
            raise ValueError("the bytes are not those of these codes")
        return np.ascontiguousarray(decoded.transpose(1, 2, 0))
