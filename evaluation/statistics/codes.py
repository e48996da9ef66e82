"""Statistics of a codec's codes: perplexity, entropy and usage of each codebook, and of all together."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from evaluation.rows import Codebook, CodedRow, CodesRow
from evaluation.run.columns import Found
from evaluation.run.store import RunStore, row_key
from evaluation.statistics.joint_codes import KeptCodes, joint_statistics
from qincodec.core.errors import UserError

VERSION = "2"
# This version has no joint statistics of codebooks.
_OLD_VERSION = "1"
# Entries. Without a limit, a damaged file could make the counts take all memory.
_LARGEST_CODEBOOK = 2**24


def code_statistics(store: RunStore, rows: Found[CodedRow]) -> CodesRow | str | None:
    """Statistics of the codes of a condition, over all frames of all its clips (`CodeStatistics`).

    They are computed from the encoded clips once and kept as a row of the run folder.

    Args:
        rows: rows of a condition.

    Returns:
        None for codecs without codes; the reason, if there are no statistics; or the row.
    """
    rows = rows.where(pd.isna(rows.texts("error")))
    rows = rows.where(rows.numbers("codebooks") > 0)
    if not len(rows.keys):
        return None
    members = sorted(rows.keys.hex())
    key, old = (row_key(kind="codes", version=v, members=members) for v in (VERSION, _OLD_VERSION))
    known = store.row(key, CodesRow)
    if known is not None:
        return known
    found = _count(store, rows, key)
    if isinstance(found, CodesRow) and store.writable:
        store.append([found])
    return found if isinstance(found, CodesRow) else store.row(old, CodesRow) or found


def _count(store: RunStore, rows: Iterable[CodedRow], key: str) -> CodesRow | str | None:
    counts: list[np.ndarray] = []
    frames, duration_s = 0, 0.0
    codec = rate = ""
    kept = KeptCodes()
    for row in rows:
        codec, rate = codec or row.codec, rate or row.rate
        try:
            encoded = store.read_encoded(row)
        except (OSError, UserError):
            return f"{row.encoded} is missing or damaged"
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
            return f"{row.encoded} has other codebooks than its codec"
        for count, codes in zip(counts, encoded.codes, strict=True):
            count += np.bincount(codes, minlength=len(count))
        if isinstance(encoded.codes, np.ndarray):
            kept.add(row.key, encoded.codes)
        frames += encoded.frames
        duration_s += row.duration_s
    if not counts or not frames:
        return None
    books = [codebook_statistics(count, duration_s) for count in counts]
    bits = float(np.mean([book.entropy_bits for book in books]))
    corrected = float(np.mean([book.entropy_bits_miller_madow for book in books]))
    return CodesRow(
        key=key,
        codec=codec,
        rate=rate,
        kbps_entropy=sum(book.kbps_entropy for book in books),
        frames=frames,
        codebooks=tuple(books),
        perplexity=float(np.mean([book.perplexity for book in books])),
        perplexity_miller_madow=float(np.mean([book.perplexity_miller_madow for book in books])),
        perplexity_of_mean=2**bits,
        perplexity_of_mean_miller_madow=2**corrected,
        usage=float(np.mean([book.usage for book in books])),
        duration_s=duration_s,
        joint=None if len(books) == 1 or kept.empty else joint_statistics(kept.joined()),
    )


def codebook_statistics(counts: np.ndarray, duration_s: float) -> Codebook:
    """Statistics of one codebook, from the counts of its entries in audio of a duration.

    ``entropy_bits`` is H = -sum p log2 p, ``perplexity`` is 2^H, both biased low on little data. Miller and
    Madow's correction (Miller, "Note on the bias of information estimates", 1955) adds (used - 1) / (2 frames
    ln 2) bits; the sum is limited to log2 of the size. Without frames the entropy is 0. ``usage`` is the
    share of entries that occur; ``kbps_entropy`` is H times the frames per second.
    """
    frames, used = int(counts.sum()), int((counts > 0).sum())
    entropy = corrected = 0.0
    if frames:
        p = counts[counts > 0] / frames
        entropy = max(0.0, float(-np.sum(p * np.log2(p))))
        corrected = min(entropy + (used - 1) / (2 * frames * math.log(2)), math.log2(len(counts)))
        corrected = max(corrected, entropy)  # log2 of the size may be rounded below the entropy
    return Codebook(
        size=len(counts),
        used=used,
        usage=used / len(counts),
        frames=frames,
        entropy_bits=entropy,
        entropy_bits_miller_madow=corrected,
        perplexity=2**entropy,
        perplexity_miller_madow=2**corrected,
        kbps_entropy=entropy * frames / duration_s / 1000,
    )
