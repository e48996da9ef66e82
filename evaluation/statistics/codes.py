"""Statistics of a codec's codes: perplexity, entropy and usage of every codebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from baselines.codec import Encoded
from evaluation.run.store import RunStore, row_key
from qincodec.core.errors import UserError

VERSION = "1"
# Entries. A damaged file must not make the counts take all memory.
_LARGEST_CODEBOOK = 2**24


def code_statistics(store: RunStore, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the codes of a condition tell, over all frames of all its clips; {} for codecs without codes.

    Read from the encoded clips once; kept as a row of the run folder.

    Args:
        rows: coded rows of a condition.

    Returns:
        ``kbps_entropy``: the sum over codebooks of H times the frames per second, in kbit/s: the rate an
        ideal memoryless entropy coder would reach; ``frames``; ``codebooks``: `codebook_statistics` of each;
        ``perplexity``, the mean of 2^H; ``perplexity_of_mean``, 2^mean(H); both again with
        ``_miller_madow``; ``usage``, the mean share of entries that occur. Or ``kbps_entropy_reason``.
    """
    rows = [row for row in rows if row["error"] is None and row.get("codebooks")]
    if not rows:
        return {}
    key = row_key(kind="codes", version=VERSION, members=sorted(row["key"] for row in rows))
    known = store.row(key, "codes")
    if known is None:
        found = _count(store, rows)
        if "codebooks" not in found or not store.writable:
            return found
        known = {"kind": "codes", "key": key, "codec": rows[0]["codec"], "rate": rows[0]["rate"], **found}
        store.append([known])
    return {name: value for name, value in known.items() if name not in ("kind", "key", "codec", "rate")}


def _count(store: RunStore, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counts: list[np.ndarray] = []
    frames, duration_s = 0, 0.0
    for row in rows:
        try:
            encoded = Encoded.from_bytes((store.folder / row["encoded"]).read_bytes())
        except (OSError, UserError):
            return {"kbps_entropy_reason": f"{row['encoded']} is gone or damaged"}
        if encoded.codes is None:
            continue
        sizes = encoded.codebook_sizes
        if not counts and max(sizes, default=0) <= _LARGEST_CODEBOOK:
            counts = [np.zeros(size, np.int64) for size in sizes]
        fits = tuple(map(len, counts)) == tuple(sizes) and len(sizes) == len(encoded.codes)
        if not fits or any(
            codes.size and not 0 <= codes.min() <= codes.max() < size
            for codes, size in zip(encoded.codes, sizes, strict=False)
        ):
            return {"kbps_entropy_reason": f"{row['encoded']} has other codebooks than its codec"}
        for count, codes in zip(counts, encoded.codes, strict=True):
            count += np.bincount(codes, minlength=len(count))
        frames += encoded.codes.shape[1]
        duration_s += row["duration_s"]
    if not counts or not frames:
        return {}
    books = [codebook_statistics(count, duration_s) for count in counts]

    def mean(name: str) -> float:
        return float(np.mean([book[name] for book in books]))

    return {
        "kbps_entropy": sum(book["kbps_entropy"] for book in books),
        "frames": frames,
        "codebooks": books,
        "perplexity": mean("perplexity"),
        "perplexity_miller_madow": mean("perplexity_miller_madow"),
        "perplexity_of_mean": 2 ** mean("entropy_bits"),
        "perplexity_of_mean_miller_madow": 2 ** mean("entropy_bits_miller_madow"),
        "usage": mean("usage"),
    }


def codebook_statistics(counts: np.ndarray, duration_s: float) -> dict[str, Any]:
    """Of one codebook, from how often each entry occurs in audio of a duration.

    ``entropy_bits`` is H = -sum p log2 p, ``perplexity`` is 2^H, both biased low on little data. Miller and
    Madow's correction (Miller, "Note on the bias of information estimates", 1955) adds (used - 1) / (2 frames
    ln 2) bits; what exceeds log2 of the size counts as that. ``usage`` is the share of entries that occur,
    ``kbps_entropy`` H times the frames per second.
    """
    frames, used = int(counts.sum()), int((counts > 0).sum())
    p = counts[counts > 0] / frames
    entropy = max(0.0, float(-np.sum(p * np.log2(p))))
    corrected = min(entropy + (used - 1) / (2 * frames * math.log(2)), math.log2(len(counts)))
    corrected = max(corrected, entropy)  # log2 of the size, rounded
    return {
        "size": len(counts),
        "used": used,
        "usage": used / len(counts),
        "frames": frames,
        "entropy_bits": entropy,
        "entropy_bits_miller_madow": corrected,
        "perplexity": 2**entropy,
        "perplexity_miller_madow": 2**corrected,
        "kbps_entropy": entropy * frames / duration_s / 1000,
    }
