"""What run.json says a run was made with: described, compared between two runs, united."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from evaluation.datasets.base import Dataset
from evaluation.records import (
    AskedRate,
    Condition,
    DatasetInfo,
    EmbeddingInfo,
    MetricInfo,
    Settings,
    Text,
    read,
    short,
)
from evaluation.results import CLIP_COLUMNS, SUMMARY_COLUMNS, last_columns, metric_columns
from qincodec.core.files import safe_name

#: What tells the entries of run.json's lists apart, and what must not differ between two of one name.
_NAMES = {
    "conditions": ("codec", "kbps"),
    "asked": ("codec", "kbps"),
    "floor": ("codec",),
    "metrics": ("name",),
    "embeddings": ("name",),
}
#: Metric of an embedding -> whether it has a value per clip.
_KINDS = {"fm": True, "cos": True, "fd": False, "kad": False}
_DECIDES = {
    "conditions": ("identity", "settings", "nominal"),
    "asked": (),
    "floor": ("identity",),
    "metrics": ("version",),
    "embeddings": ("identity",),
}
# Without them, rows would be looked for under keys of settings that nobody chose.
_NEEDED_SETTINGS = ("sample_rate", "channels", "align", "seed")


@dataclass(frozen=True, kw_only=True)
class RunDescription:
    """run.json.

    Attributes:
        conditions: what is coded, in the order it was asked for. At measured rates, those of codecs under
            test are operating points, each at its own nominal rate, and ``asked`` are the rows of the tables.
        asked: what is asked of codecs at measured rates; nothing at nominal ones.
        floor: conditions of the noise floor, which only metrics of embeddings are computed for.
        metrics: in the order they were asked for.
        embeddings: that metrics compare.
        unavailable: name of a metric or embedding that was asked for -> why it could not be computed here.
        skipped: row label of a codec that was asked for and left out -> why it could not run here.
        commands: command lines that made the run.
    """

    settings: Settings
    dataset: DatasetInfo
    conditions: tuple[Condition, ...]
    asked: tuple[AskedRate, ...] = ()
    floor: tuple[Condition, ...] = ()
    metrics: tuple[MetricInfo, ...]
    embeddings: tuple[EmbeddingInfo, ...] = ()
    unavailable: dict[Text, Text] = field(default_factory=dict)
    skipped: dict[Text, Text] = field(default_factory=dict)
    commands: tuple[Text, ...] = ()

    @classmethod
    def of_json(cls, content: Any) -> RunDescription:
        """From what `to_json` gives.

        Raises:
            ValueError: a field is absent or not what it must be, or two entries have one name.
        """
        run = read(cls, content)
        for name in _NEEDED_SETTINGS:
            if name not in content["settings"]:
                raise ValueError(f"'settings.{name}' is missing")
        run._check()
        return run

    def to_json(self) -> dict[str, Any]:
        plain = {**asdict(self), "settings": self.settings.to_json(), "dataset": self.dataset.to_json()}
        plain["metrics"] = [metric.to_json() for metric in self.metrics]
        return plain if self.asked else {name: plain[name] for name in plain if name != "asked"}

    @property
    def points(self) -> tuple[Condition, ...]:
        """Operating points that asked rates are read from."""
        codecs = {asked.codec for asked in self.asked}
        return tuple(c for c in self.conditions if c.codec in codecs and c.rate_is == "measured")

    def _check(self) -> None:
        for part in _NAMES:
            seen = set()
            for entry in getattr(self, part):
                names = _name(part, entry)
                if names in seen:
                    raise ValueError(f"'{part}' has two entries {' at '.join(map(short, names))}")
                seen.add(names)
        columns = {*CLIP_COLUMNS, *SUMMARY_COLUMNS}
        for metric in self.metrics:
            own = {*metric_columns(metric.name), *last_columns(metric.name, per_clip=metric.per_clip)}
            if columns & own:
                raise ValueError(f"metric {short(metric.name)} has a column of the name of another's column")
            columns |= own
        for metric in self.metrics:
            name = short(metric.name)
            if metric.embedding not in ("", *(entry.name for entry in self.embeddings)):
                raise ValueError(f"metric {name} is of embedding {short(metric.embedding)}, not listed")
            kinds = _KINDS if metric.embedding else {"": True}
            kind = metric.name.removesuffix(f"_{metric.embedding}") if metric.embedding else ""
            if metric.per_clip != kinds.get(kind):
                raise ValueError(f"metric {name} is no such one as its embedding and 'per_clip' say")
        listed = {metric.name for metric in self.metrics}
        for entry in self.embeddings:
            frechet = f"fd_{entry.name}"  # its table has columns of it
            if frechet not in listed:
                raise ValueError(
                    f"embedding {short(entry.name)} is listed without its metric {short(frechet)}"
                )

    def differences(self, other: RunDescription) -> Iterator[tuple[str, Any, Any]]:
        """(what, here, of the other) wherever two runs cannot stand in one: settings, codecs, metrics.

        Conditions and metrics that only one of them has are no difference; neither is the data.
        """
        for spec in fields(Settings):
            values = getattr(self.settings, spec.name), getattr(other.settings, spec.name)
            if values[0] != values[1]:
                yield spec.name, *values
        codecs = {point.codec: point.identity for point in self.points}
        for point in other.points:
            if codecs.get(point.codec, point.identity) != point.identity:  # both would be on one curve
                had, got = _unlike(codecs[point.codec], point.identity)
                yield f"identity of {short(point.codec)}", had, got
                break
        labels = {condition.codec for condition in self.conditions}
        folders = {safe_name(label).casefold(): label for label in labels}
        for label in dict.fromkeys(condition.codec for condition in other.conditions):
            had = folders.get(safe_name(label).casefold())
            if had is not None and label not in labels:  # each would overwrite the other's clips
                yield "the row with this folder of clips", short(had), short(label)
        for part in _NAMES:
            known = {_name(part, entry): entry for entry in getattr(self, part)}
            for entry in getattr(other, part):
                before = known.get(_name(part, entry))
                for what in _DECIDES[part] if before is not None else ():
                    if getattr(before, what) != getattr(entry, what):
                        had, got = _unlike(getattr(before, what), getattr(entry, what))
                        yield f"{what} of {short(_name(part, entry)[0])}", had, got

    def united(self, other: RunDescription) -> RunDescription:
        """What either has, in the order of this one; settings and data are the other's.

        Entries of the same name are the other's: only what `differences` does not look at can differ.
        """
        parts: dict[str, Any] = {
            part: tuple({_name(part, e): e for e in getattr(self, part) + getattr(other, part)}.values())
            for part in _NAMES
        }
        known = {entry.name for entry in parts["embeddings"]}
        labels = {entry.codec for entry in parts["conditions"]}
        unavailable, skipped = self.unavailable | other.unavailable, self.skipped | other.skipped
        return replace(
            other,
            **parts,
            unavailable={name: reason for name, reason in unavailable.items() if name not in known},
            skipped={label: reason for label, reason in skipped.items() if label not in labels},
            commands=tuple(dict.fromkeys(self.commands + other.commands)),
        )


def _name(part: str, entry: Any) -> tuple[Any, ...]:
    return tuple(getattr(entry, name) for name in _NAMES[part])


def describe_dataset(dataset: Dataset) -> DatasetInfo:
    """What run.json says of a data set."""
    return DatasetInfo(
        name=dataset.name,
        n_clips=len(dataset.clips),
        n_recordings=len({clip.recording for clip in dataset.clips}),
        n_lossy=sum(clip.lossy is not None for clip in dataset.clips),
        lossy_formats=tuple(sorted({clip.lossy for clip in dataset.clips if clip.lossy})),
        n_excluded=len(dataset.excluded),
        excluded=tuple(dataset.excluded),
        disclaimer=dataset.disclaimer,
        notes=tuple(dataset.notes),
        hash=dataset.hash,
        shard=dataset.shard,
        low_rates=dataset.low_rates,
    )


def _unlike(had: Any, got: Any) -> tuple[Any, Any]:
    """Of two mappings what differs, for a message; of other values these."""
    if not (isinstance(had, Mapping) and isinstance(got, Mapping)):
        return had, got
    names = [name for name in {**had, **got} if had.get(name) != got.get(name)]
    before, now = (", ".join(f"{name} {one.get(name)!r}" for name in names) for one in (had, got))
    return before, now
