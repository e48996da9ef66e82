"""The entropy coder against entropies, exact arithmetic and a decoder written another way."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qincodec.code_tables import LEAST_BITS, CodeTables

TOTAL = 1 << 20


def drawn(sizes: list[int], frames: int, seed: int, channels: int = 1) -> np.ndarray:
    """(channels, num_codebooks, frames) of a different skewed distribution for every codebook."""
    random = np.random.default_rng(seed)
    rows = [random.choice(size, (channels, frames), p=random.dirichlet(np.full(size, 0.5))) for size in sizes]
    return np.stack(rows, axis=1)


def counted(codes: np.ndarray, sizes: list[int]) -> CodeTables:
    return CodeTables.count(codes.transpose(0, 2, 1).reshape(-1, len(sizes)), sizes)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([2, 3, 7, 64, 1024]), min_size=1, max_size=6),
    frames=st.integers(1, 60),
    channels=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_round_trip(sizes: list[int], frames: int, channels: int, seed: int) -> None:
    tables = counted(drawn(sizes, 100, seed), sizes)
    codes = drawn(sizes, frames, seed + 1, channels)  # also codes that were never counted
    data = tables.encode(codes)
    back = tables.decode(data, frames, channels, len(sizes))
    assert back.dtype == np.int32
    assert np.array_equal(back, codes)
    # The whole is one number: log2 of the product of total / frequency, up to a word and the state.
    exact = Fraction(1)
    for c, t in np.ndindex(channels, frames):
        repeats, after_one = (
            bool(u > 0 and (codes[c, :, u] == codes[c, :, u - 1]).all()) for u in (t, max(0, t - 1))
        )
        share = Fraction(1, 2) if after_one else Fraction(1, 256)
        if t > 0:
            exact /= share if repeats else 1 - share
        if not repeats:
            for n in range(len(sizes)):
                exact *= Fraction(TOTAL, int(tables.frequencies[n][codes[c, n, t]]))
    bits = math.log2(exact.numerator) - math.log2(exact.denominator)
    assert bits + 31 - 0.1 <= 8 * len(data) <= bits * 1.0001 + 31 + 33


def test_the_length_is_the_entropy() -> None:
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(256))
    entropy = float(-(shares * np.log2(shares)).sum())
    codes = random.choice(256, 40_000, p=shares)
    tables = CodeTables.count(codes[:, None], [256])
    assert tables.bits_per_frame(1) == pytest.approx(entropy, rel=2e-3)
    assert tables.mean_bits(codes[:, None]) == pytest.approx(entropy, rel=2e-3)
    fresh = random.choice(256, (1, 1, 40_000), p=shares)
    assert len(tables.encode(fresh)) * 8 / 40_000 == pytest.approx(entropy, rel=6e-3)


def test_bytes_by_hand() -> None:
    """Two codes of a half each: 1, 1 again, 0, 0 again, 0 again, 1. Last to first, by frequency and start."""
    tables = CodeTables([np.array([TOTAL // 2, TOTAL // 2])])
    half, first_repeat = TOTAL // 2, TOTAL // 256
    repeat = (first_repeat, 0)
    none_after_one, one_more = (half, half), (half, 0)
    zero, one = (half, 0), (half, half)
    state = 1 << 31
    order = [one, repeat, none_after_one, zero, repeat, one_more, none_after_one, one]
    for frequency, start in reversed(order):
        state = (state // frequency) * TOTAL + state % frequency + start
    assert tables.encode(np.array([[[1, 1, 0, 0, 0, 1]]])) == state.to_bytes(8, "little")


def test_a_run_of_the_same_frame_takes_a_bit_each() -> None:
    sizes = [1024] * 20
    codes = drawn(sizes, 300, 0, channels=2)
    tables = counted(codes, sizes)
    plain = len(tables.encode(codes[:, :, :44]))
    codes[:, :, 44:] = codes[:, :, 43:44]
    data = tables.encode(codes)
    assert plain + 2 * 250 / 8 < len(data) < plain + 2 * 270 / 8
    assert np.array_equal(tables.decode(data, 300, 2, 20), codes)
    codes[1, 7, 200] ^= 1  # one code of one channel ends its run, and the next frame begins another
    longer = tables.encode(codes)
    assert len(longer) > len(data) + 2 * 20  # of eight bits and more for each of twenty codes, twice
    assert np.array_equal(tables.decode(longer, 300, 2, 20), codes)


def test_a_repeated_frame_that_is_not_said_to_be_one_is_refused() -> None:
    """Or there would be two files of the same codes."""
    tables = CodeTables([np.array([TOTAL // 2, TOTAL // 2])])
    state = 1 << 31
    for frequency, start in ((TOTAL // 2, 0), (TOTAL - TOTAL // 256, TOTAL // 256), (TOTAL // 2, 0)):
        state = (state // frequency) * TOTAL + state % frequency + start
    with pytest.raises(ValueError, match="repeats the last"):
        tables.decode(state.to_bytes(8, "little"), 2, 1, 1)


def test_fewer_codebooks_than_tables() -> None:
    sizes = [16, 8, 4]
    codes = drawn(sizes, 50, 0)
    tables = counted(codes, sizes)
    assert np.array_equal(tables.decode(tables.encode(codes[:, :2]), 50, 1, 2), codes[:, :2])
    assert tables.bits_per_frame(2) < tables.bits_per_frame(3)


def test_rare_and_certain_codes_have_their_limits() -> None:
    tables = CodeTables.count(np.zeros((100_000, 1), int), [1024])
    (frequencies,) = tables.frequencies
    assert frequencies.sum() == TOTAL
    assert frequencies.min() >= 1
    assert frequencies[0] <= TOTAL * 7 / 8
    assert pytest.approx(-math.log2(7 / 8)) == LEAST_BITS
    rare = np.full((1, 1, 30), 1023)
    assert np.array_equal(tables.decode(tables.encode(rare), 30, 1, 1), rare)


@pytest.mark.parametrize(
    "frequencies",
    [
        [TOTAL],
        [0, TOTAL],
        [TOTAL - 2, 2],
        [TOTAL // 2, TOTAL // 2 - 1],
        [-5, TOTAL // 2 + 5, TOTAL // 2],
    ],
)
def test_what_is_no_distribution_is_refused(frequencies: list[int]) -> None:
    with pytest.raises(ValueError, match="code table 0"):
        CodeTables([np.array(frequencies)])


def test_codes_and_bytes_that_do_not_fit() -> None:
    tables = CodeTables([np.array([TOTAL // 2, TOTAL // 2])] * 2)
    for codes in (np.zeros((1, 3, 4), int), np.zeros((2, 4), int)):
        with pytest.raises(ValueError, match="shape"):
            tables.encode(codes)
    for code in (-1, 2):
        with pytest.raises(ValueError, match="outside"):
            tables.encode(np.full((1, 2, 4), code))
    with pytest.raises(ValueError, match="too large"):
        CodeTables.count(np.zeros((10, 1), int), [1 << 17])
    data = tables.encode(np.ones((1, 2, 100), int))
    with pytest.raises(ValueError, match="3 codebooks, there are tables for 2"):
        tables.decode(data, 100, 1, 3)
    with pytest.raises(ValueError, match="do not hold"):
        tables.decode(data, 10**9, 1, 2)
    for wrong in (data[:-4], data[:-1], data + bytes(4), b"", bytes(len(data)), b"\xff" * len(data)):
        with pytest.raises(ValueError, match=r"hold|end|those|repeats"):
            tables.decode(wrong, 100, 1, 2)
    with pytest.raises(ValueError, match=r"hold|end|those|repeats"):
        tables.decode(data, 99, 1, 2)
