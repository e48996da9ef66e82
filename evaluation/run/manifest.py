"""What run.json says a run was made with: described, compared between two runs, united."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evaluation import records
from evaluation.datasets.base import Dataset
from evaluation.results import Condition, EmbeddingInfo, MetricInfo

#: What tells the entries of run.json's lists apart, and what must not differ between two of one label.
_LABELS = {
    "conditions": ("codec", "kbps"),
    "floor": ("codec",),
    "metrics": ("name",),
    "embeddings": ("name",),
}
_DECIDES = {
    "conditions": ("identity", "settings", "nominal"),
    "floor": ("identity",),
    "metrics": ("version",),
    "embeddings": ("identity",),
}


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """The entry ``dataset`` of run.json: JSON values."""
    entry: dict[str, Any] = {
        "name": dataset.name,
        "n_clips": len(dataset.clips),
        "n_recordings": len({clip.recording for clip in dataset.clips}),
        "n_lossy": sum(clip.lossy is not None for clip in dataset.clips),
        "lossy_formats": sorted({clip.lossy for clip in dataset.clips if clip.lossy}),
        "n_excluded": len(dataset.excluded),
        "excluded": [list(name_and_reason) for name_and_reason in dataset.excluded],
        "disclaimer": dataset.disclaimer,
        "notes": dataset.notes,
        "hash": dataset.hash,
    }
    return entry if dataset.shard is None else {**entry, "shard": dataset.shard}


def differences(one: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(what, of the one, of the other) wherever two runs cannot stand in one: settings, codecs, metrics.

    Conditions and metrics that only one of them has are no difference; neither is the data.
    """
    for name in dict.fromkeys([*one["settings"], *other["settings"]]):
        values = one["settings"].get(name), other["settings"].get(name)
        if values[0] != values[1]:
            yield name, *values
    for part, label in _LABELS.items():
        known = {tuple(entry[name] for name in label): entry for entry in one.get(part, [])}
        for entry in other.get(part, []):
            before = known.get(tuple(entry[name] for name in label))
            for name in _DECIDES[part] if before is not None else ():
                if before is not None and before[name] != entry[name]:
                    yield f"{name} of '{entry[label[0]]}'", before[name], entry[name]


def unite(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """run.json with what either has, in the order of the one; settings and data are the other's.

    Entries of the same label are the other's: only what `differences` does not look at can differ.
    """
    new = dict(other)
    for part, label in _LABELS.items():
        entries = [*one.get(part, []), *other.get(part, [])]
        new[part] = list({tuple(entry[name] for name in label): entry for entry in entries}.values())
    known = {entry["name"] for entry in new["embeddings"]}
    missing = one.get("unavailable", {}) | other.get("unavailable", {})
    new["unavailable"] = {name: reason for name, reason in missing.items() if name not in known}
    labels = {entry["codec"] for entry in new["conditions"]}
    skipped = one.get("skipped", {}) | other.get("skipped", {})
    new["skipped"] = {label: reason for label, reason in skipped.items() if label not in labels}
    new["commands"] = list(dict.fromkeys([*one["commands"], *other["commands"]]))
    return new


def conditions_of(run: dict[str, Any], part: str = "conditions") -> list[Condition]:
    """The entries ``conditions`` or ``floor`` of a run.json that was checked."""
    return [Condition(**records.only(entry, records.CONDITION)) for entry in run[part]]


def metrics_of(run: dict[str, Any]) -> list[MetricInfo]:
    """The entry ``metrics`` likewise."""
    return [MetricInfo(**records.only(entry, records.METRIC)) for entry in run["metrics"]]


def embeddings_of(run: dict[str, Any]) -> list[EmbeddingInfo]:
    """The entry ``embeddings`` likewise."""
    return [EmbeddingInfo(**records.only(entry, records.EMBEDDING)) for entry in run["embeddings"]]
