"""Content of run.json: its model, its comparison between two runs, and their union."""

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

#: Fields that identify the entries of run.json's lists; `_DECIDES`: fields that entries of one name share.
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
# Without them, keys would be made from settings that nobody chose.
_NEEDED_SETTINGS = ("sample_rate", "channels", "align", "seed")


@dataclass(frozen=True, kw_only=True)
class RunDescription:
    """run.json.

    Attributes:
        conditions: all that are coded, in the order of the request. At measured rates, those of codecs under
            test are operating points, each at its own nominal rate, and ``asked`` are the rows of the tables.
        asked: codecs and rates of the request, at measured rates; empty at nominal ones.
        floor: conditions of the noise floor; they get only metrics of embeddings.
        metrics: in the order of the request.
        embeddings: compared by metrics.
        unavailable: name of a requested metric or embedding -> why it could not be computed here.
        skipped: row label of a requested codec -> why it could not run here.
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
        """A description from the output of `to_json`.

        Raises:
            ValueError: a field is absent or invalid, or two entries have one name.
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
                raise ValueError(f"metric {short(metric.name)} and another have a column of the same name")
            columns |= own
        for metric in self.metrics:
            name = short(metric.name)
            if metric.embedding not in ("", *(entry.name for entry in self.embeddings)):
                raise ValueError(f"embedding {short(metric.embedding)} of metric {name} is not listed")
            kinds = _KINDS if metric.embedding else {"": True}
            kind = metric.name.removesuffix(f"_{metric.embedding}") if metric.embedding else ""
            if metric.per_clip != kinds.get(kind):
                raise ValueError(f"the name of metric {name} does not fit its embedding and 'per_clip'")
        listed = {metric.name for metric in self.metrics}
        for entry in self.embeddings:
            frechet = f"fd_{entry.name}"  # its table has columns of this metric
            if frechet not in listed:
                raise ValueError(
                    f"embedding {short(entry.name)} is listed without its metric {short(frechet)}"
                )

    def differences(self, other: RunDescription) -> Iterator[tuple[str, Any, Any]]:
        """(what, value here, value there) of all settings, codecs and metrics that forbid one run folder.

        Conditions and metrics of only one of them do not count; neither does the data.
        """
        for spec in fields(Settings):
            values = getattr(self.settings, spec.name), getattr(other.settings, spec.name)
            if values[0] != values[1]:
                yield spec.name, *values
        codecs = {point.codec: point.identity for point in self.points}
        for point in other.points:
            if codecs.get(point.codec, point.identity) != point.identity:  # both would lie on one curve
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
        """Union of both, in the order of this one; settings and data are the other's.

        Entries of the same name are the other's: they differ only in fields that `differences` ignores.
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
    """Description of a data set for run.json."""
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
    """The differing entries of two mappings, for a message; other values unchanged."""
    if not (isinstance(had, Mapping) and isinstance(got, Mapping)):
        return had, got
    names = [name for name in {**had, **got} if had.get(name) != got.get(name)]
    before, now = (", ".join(f"{name} {one.get(name)!r}" for name in names) for one in (had, got))
    return before, now
