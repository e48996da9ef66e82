"""What the codebooks of a codec share: the entropy of all codes of a frame, the mutual information of two.

Plug-in estimates from counts. Few frames bias an entropy low, and a mutual information high: where two
codebooks are independent by about (pairs that can occur - entries of one - entries of the other + 1) /
(2 frames ln 2) bits (Miller, 1955; Roulston, "Estimating the errors on measured entropy and mutual
information", 1999), so that two codebooks of 1024 need millions of frames to show as independent. Beside a
mutual information stands what the same codes give in shuffled frames, where nothing is shared: its bias.
"""

from __future__ import annotations

import bisect
import math
from itertools import combinations

import numpy as np

from evaluation.rows import CodebookPair, JointCodes

#: Frames that joint statistics are computed from, plus those of one clip: what memory and a minute allow.
MAX_FRAMES = 2**18
#: Codebooks that are compared with each other: the first ones.
MAX_CODEBOOKS = 32


class KeptCodes:
    """The codes of clips in the order of their keys, which are hashes, so as good as drawn at random: as many
    as have `MAX_FRAMES` frames. In whatever order clips are added, the same ones are kept."""

    def __init__(self) -> None:
        self._clips: list[tuple[str, np.ndarray]] = []
        self._frames = 0

    def add(self, key: str, codes: np.ndarray) -> None:
        """``codes``: (codebooks, frames) of a clip."""
        bisect.insort(self._clips, (key, codes), key=lambda clip: clip[0])
        self._frames += codes.shape[1]
        while self._frames - self._clips[-1][1].shape[1] >= MAX_FRAMES:
            self._frames -= self._clips.pop()[1].shape[1]

    @property
    def empty(self) -> bool:
        """No frame is kept: there were no clips, or their codebooks have no common frames."""
        return not self._frames

    def joined(self) -> np.ndarray:
        """(codebooks, frames) of all that is kept."""
        return np.concatenate([codes for _, codes in self._clips], axis=1)


def joint_statistics(codes: np.ndarray) -> JointCodes:
    """Of (codebooks, frames) of whole numbers, 0 or more.

    ``entropy_bits`` is that of the tuple of all codes of a frame, at most log2 of the frames, and beside it
    with Miller's and Madow's correction. A pair's ``mutual_bits`` is I = H(a) + H(b) - H(a, b);
    ``mutual_bits_shuffled`` the same with the frames of b in another order, drawn with seed 0.
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
    """Plug-in entropy in bits, and how many of the counts are not 0."""
    found = counts[counts > 0]
    p = found / found.sum()
    return max(0.0, float(-np.sum(p * np.log2(p)))), len(found)
