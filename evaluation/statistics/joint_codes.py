"""Joint statistics of the codebooks of a codec: entropy of all codes of a frame, mutual information of pairs.

They are plug-in estimates from counts. Few frames bias an entropy low, and a mutual information high: for two
independent codebooks by about (pairs that can occur - entries of one - entries of the other + 1) /
(2 frames ln 2) bits (Miller, 1955; Roulston, "Estimating the errors on measured entropy and mutual
information", 1999). So two codebooks of 1024 entries need millions of frames to appear independent. Each
mutual information comes with its value for the same codes in shuffled frames, which share nothing: its bias.
"""

from __future__ import annotations

import bisect
import math
from itertools import combinations

import numpy as np

from evaluation.rows import CodebookPair, JointCodes

#: Most frames for joint statistics, plus those of one clip; more would take too much memory and time.
MAX_FRAMES = 2**18
#: Number of first codebooks that are compared in pairs.
MAX_CODEBOOKS = 32


class KeptCodes:
    """A random choice of clips with `MAX_FRAMES` frames: the first in the order of their keys, which are
    hashes. It does not depend on the order in which clips are added."""

    def __init__(self) -> None:
        self._clips: list[tuple[str, np.ndarray]] = []
        self._frames = 0

    def add(self, key: str, codes: np.ndarray) -> None:
        """Add the codes (codebooks, frames) of a clip."""
        bisect.insort(self._clips, (key, codes), key=lambda clip: clip[0])
        self._frames += codes.shape[1]
        while self._frames - self._clips[-1][1].shape[1] >= MAX_FRAMES:
            self._frames -= self._clips.pop()[1].shape[1]

    @property
    def empty(self) -> bool:
        """Whether no frame is kept: there were no clips, or their codebooks have no common frames."""
        return not self._frames

    def joined(self) -> np.ndarray:
        """(codebooks, frames) of all clips that are kept."""
        return np.concatenate([codes for _, codes in self._clips], axis=1)


def joint_statistics(codes: np.ndarray) -> JointCodes:
    """Statistics of (codebooks, frames) of whole numbers, 0 or more.

    ``entropy_bits`` is the entropy of the tuple of all codes of a frame, at most log2 of the number of
    frames; ``entropy_bits_miller_madow`` has Miller and Madow's correction. A pair's ``mutual_bits`` is
    I = H(a) + H(b) - H(a, b); ``mutual_bits_shuffled`` is I after shuffling the frames of b with seed 0.
    """
    frames = codes.shape[1]
    compared = codes[:MAX_CODEBOOKS]
    order = np.random.default_rng(0).permutation(frames)
    alone = [_entropy(np.bincount(row))[0] for row in compared]
    pairs = []
    for a, b in combinations(range(len(compared)), 2):
        entropy, used = _entropy(_pair_counts(codes[a], codes[b]))
        by_chance, _ = _entropy(_pair_counts(codes[a], codes[b][order]))
        bits, bits_by_chance = (max(0.0, alone[a] + alone[b] - both) for both in (entropy, by_chance))
        pairs.append(CodebookPair(a + 1, b + 1, used, bits, bits_by_chance))
    entropy, used = _entropy(np.unique(codes.T, axis=0, return_counts=True)[1])
    corrected = entropy + (used - 1) / (2 * frames * math.log(2))
    return JointCodes(frames, used, entropy, corrected, tuple(pairs))


def _pair_counts(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    both = a.astype(np.int64) * (int(b.max()) + 1) + b
    if both.max() < 8 * len(both):
        return np.bincount(both)
    return np.unique(both, return_counts=True)[1]


def _entropy(counts: np.ndarray) -> tuple[float, int]:
    """Plug-in entropy in bits, and the number of counts that are not 0."""
    found = counts[counts > 0]
    p = found / found.sum()
    return max(0.0, float(-np.sum(p * np.log2(p)))), len(found)
