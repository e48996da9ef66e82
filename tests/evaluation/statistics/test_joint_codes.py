"""Mutual information of codebooks, against closed forms, scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mutual_info_score

from evaluation.rows import CodeStatistics
from evaluation.statistics import joint_codes
from evaluation.statistics.codes import codebook_statistics
from evaluation.statistics.joint_codes import KeptCodes, joint_statistics


def test_independent_and_uniform_codebooks_share_nothing() -> None:
    a, b = (grid.ravel() for grid in np.meshgrid(np.arange(8), np.arange(4)))
    found = joint_statistics(np.stack([np.tile(a, 10), np.tile(b, 10)]))
    assert found.entropy_bits == pytest.approx(3 + 2) and (found.frames, found.used) == (320, 32)
    (pair,) = found.pairs
    assert pair.mutual_bits == pytest.approx(0, abs=1e-12)
    assert (pair.first, pair.second, pair.used) == (1, 2, 32)
    assert found.entropy_bits_miller_madow == pytest.approx(5 + 31 / (2 * 320 * math.log(2)))


def test_constant_and_copied_codebooks() -> None:
    uniform = np.tile(np.arange(16), 5)
    found = joint_statistics(np.stack([uniform, uniform, np.full(80, 3)]))
    copied, *constant = found.pairs
    assert copied.mutual_bits == pytest.approx(4) and found.entropy_bits == pytest.approx(4)
    assert 1 < copied.mutual_bits_shuffled < 3  # 225 / (160 ln 2) = 2.0 by the formula for many frames
    for pair in constant:
        assert pair.mutual_bits == pytest.approx(0, abs=1e-12) == pair.mutual_bits_shuffled


@pytest.mark.parametrize("size", [8, 1000])
def test_agrees_with_scipy_and_sklearn(size: int) -> None:
    random = np.random.default_rng(size)
    a = random.integers(size, size=2000)
    codes = np.stack([a, (a // 2 + random.integers(3, size=2000)) % size, random.integers(size, size=2000)])
    found = joint_statistics(codes.astype(np.int32))
    expected = [mutual_info_score(codes[i], codes[j]) / math.log(2) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert [pair.mutual_bits for pair in found.pairs] == pytest.approx(expected)
    counts = np.unique(codes, axis=1, return_counts=True)[1]
    assert found.entropy_bits == pytest.approx(stats.entropy(counts, base=2))


def test_shuffled_frames_show_the_bias() -> None:
    random = np.random.default_rng(0)
    found = [joint_statistics(random.integers(16, size=(2, 2000))).pairs[0] for _ in range(20)]
    plain, shuffled = (
        np.mean([getattr(pair, name) for pair in found]) for name in ("mutual_bits", "mutual_bits_shuffled")
    )
    bias = (256 - 16 - 16 + 1) / (2 * 2000 * math.log(2))
    assert plain == pytest.approx(bias, rel=0.1) and shuffled == pytest.approx(bias, rel=0.1)
    # Far too few frames: I says much, and nothing is shared.
    pair = joint_statistics(random.integers(1024, size=(2, 350))).pairs[0]
    assert pair.mutual_bits > 5 and pair.mutual_bits == pytest.approx(pair.mutual_bits_shuffled, abs=0.1)


def test_clips_that_are_kept_do_not_depend_on_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint_codes, "MAX_FRAMES", 10)
    clips = {f"{number:02x}": np.full((2, 4), number) for number in range(16)}
    for order in (sorted(clips), sorted(clips, reverse=True), sorted(clips, key=lambda key: key[::-1])):
        kept = KeptCodes()
        for key in order:
            kept.add(key, clips[key])
        np.testing.assert_array_equal(kept.joined()[0], np.repeat([0, 1, 2], 4))


def test_rates_of_frames_and_tokens() -> None:
    books = tuple(codebook_statistics(np.full(size, 150 // size), 2.0) for size in (2, 50))
    entry = CodeStatistics("c", 1.0, frames=150, codebooks=books, duration_s=2.0)
    assert entry.frame_rate == 75 and entry.tokens_per_second == 150
    assert entry.bits_per_token == pytest.approx((1 + math.log2(50)) / 2)
    assert math.isnan(CodeStatistics("c", 1.0).frame_rate)
