"""Speed of codecs during a run."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from evaluation.rows import CodedRow, Row


@dataclass
class Seconds:
    """Sums over clips: seconds of audio, and wall time of its encoding and decoding."""

    audio: float = 0.0
    encode: float = 0.0
    decode: float = 0.0


@dataclass
class Speeds:
    """Times of the clips coded in this session, by (codec, rate) as in rows.

    `add` may be called from several threads.

    Args:
        names: display names of these conditions; conditions with one name are shown as one.
    """

    names: Mapping[tuple[str, str], str] = field(default_factory=dict)
    by_condition: dict[tuple[str, str], Seconds] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rows: Iterable[Row]) -> None:
        """Count rows that were just written; clips of which nothing was encoded add nothing."""
        with self._lock:
            for row in rows:
                if isinstance(row, CodedRow) and row.encode_s and row.decode_s:
                    sums = self.by_condition.setdefault((row.codec, row.rate), Seconds())
                    sums.audio += row.duration_s
                    sums.encode += row.encode_s
                    sums.decode += row.decode_s

    def __str__(self) -> str:
        """``"× real time, encoding/decoding: opus@8=153/900, mp3@8=214/2133"``; "" before the first clip."""
        found: dict[str, Seconds] = {}
        with self._lock:
            for (codec, rate), sums in self.by_condition.items():
                of = found.setdefault(self.names.get((codec, rate), f"{codec}@{rate}"), Seconds())
                of.audio += sums.audio
                of.encode += sums.encode
                of.decode += sums.decode
        shown = [
            f"{name}={_factor(sums.audio / sums.encode)}/{_factor(sums.audio / sums.decode)}"
            for name, sums in found.items()
        ]
        return f"× real time, encoding/decoding: {', '.join(shown)}" if shown else ""


def _factor(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
