"""Keys of rows: a hash of everything that decides a row's content.

A key has a codec's identity, never its label. So a model never gets another model's score, and nothing is
computed twice.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.datasets.base import Clip
from evaluation.records import Condition, DecodedFile, MetricInfo, Settings

if TYPE_CHECKING:
    import pandas as pd

    from evaluation.metrics.base import Metric

#: Bytes of a key; a row has its hex digits.
SIZE = 12


def row_key(**content: Any) -> str:
    """Hash of a canonical JSON object: 24 hex digits of its SHA-256."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:24]


def coded_key(condition: Condition, settings: Settings, clip: Clip, file: DecodedFile | None = None) -> str:
    """Key of the row of a clip coded by a condition.

    Args:
        settings: of the run; its ``sample_rate`` and ``channels`` count here.
        file: the clip's file where it was decoded elsewhere.
    """
    return row_key(
        kind="coded",
        codec=condition.identity,
        settings=condition.settings,
        nominal=condition.nominal,
        sample_rate=settings.sample_rate,
        channels=settings.channels,
        clip=clip.id,
        content=clip.content_hash,
        start_s=clip.start_s,
        duration_s=clip.duration_s,
        file=None if file is None else file.text,
    )


def score_key(coded: str, metric: Metric | MetricInfo, delay: int) -> str:
    """Key of the row with one metric of the clip of row ``coded``, after a shift by ``delay``."""
    return row_key(kind="score", coded=coded, metric=metric.name, version=metric.version, delay=delay)


def reference_frames_key(embedding: dict[str, Any], settings: Settings, clip: Clip) -> str:
    """Key of the row of a reference's embedding, shared by all codecs.

    Args:
        embedding: its identity.
        settings: of the run; its ``sample_rate`` and ``channels`` count here.
    """
    return row_key(
        kind="frames",
        embedding=embedding,
        sample_rate=settings.sample_rate,
        channels=settings.channels,
        content=clip.content_hash,
        start_s=clip.start_s,
        duration_s=clip.duration_s,
    )


def frames_key(embedding: dict[str, Any], coded: str, delay: int) -> str:
    """Key of the row of the embedding of the clip of row ``coded``."""
    return row_key(kind="frames", embedding=embedding, coded=coded, delay=delay)


@dataclass(frozen=True)
class Keys:
    """Many keys, `SIZE` bytes each."""

    data: bytes

    def __len__(self) -> int:
        return len(self.data) // SIZE

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """The first eight bytes of each and the last four, as whole numbers."""
        found = np.frombuffer(self.data, [("high", ">u8"), ("low", ">u4")])
        return found["high"].astype(np.uint64), found["low"].astype(np.uint32)

    def hex(self) -> list[str]:
        """Keys as in rows, in hex digits."""
        digits = self.data.hex()
        return [digits[start : start + 2 * SIZE] for start in range(0, len(digits), 2 * SIZE)]

    def where(self, chosen: np.ndarray) -> Keys:
        """The keys where the mask is true."""
        return Keys(np.frombuffer(self.data, f"V{SIZE}")[chosen].tobytes())


def row_keys(shared: Mapping[str, Any], different: Mapping[str, Iterable[Any]]) -> Keys:
    """`row_key` of many rows that differ only in the values in ``different``."""
    text = ""
    for name in sorted({*shared, *different}):
        value = "%s" if name in different else _plain(shared[name]).replace("%", "%%")
        text += f"{',' if text else ''}{_plain(name)}:{value}"
    template = f"{{{text}}}"
    columns = [map(_plain, different[name]) for name in sorted(different)]
    sha256 = hashlib.sha256
    return Keys(
        b"".join(sha256((template % row).encode()).digest()[:SIZE] for row in zip(*columns, strict=True))
    )


def _plain(value: Any) -> str:
    """Canonical JSON; fast for the values that differ between clips."""
    if type(value) is str:
        return encode_basestring_ascii(value)
    if type(value) is float and math.isfinite(value):
        return repr(value)
    if value is None:
        return "null"
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def coded_keys(
    condition: Condition,
    settings: Settings,
    clips: pd.DataFrame,
    files: Mapping[str, DecodedFile],
) -> Keys:
    """`coded_key` of many clips.

    Args:
        clips: columns ``clip`` (the id), ``content_hash``, ``start_s`` and ``duration_s``, as objects: a
            whole number gives another key than a float.
        files: by clip id.
    """
    shared = {
        "kind": "coded",
        "codec": condition.identity,
        "settings": condition.settings,
        "nominal": condition.nominal,
        "sample_rate": settings.sample_rate,
        "channels": settings.channels,
    }
    different: dict[str, Iterable[Any]] = {
        "clip": clips["clip"],
        "content": clips["content_hash"],
        "start_s": clips["start_s"],
        "duration_s": clips["duration_s"],
        "file": [files[clip].text if clip in files else None for clip in clips["clip"]],
    }
    return row_keys(shared, different)


def score_keys(coded: Keys, metric: Metric | MetricInfo, delay: int) -> Keys:
    """`score_key` of many coded clips."""
    shared = {"kind": "score", "metric": metric.name, "version": metric.version, "delay": delay}
    return row_keys(shared, {"coded": coded.hex()})
