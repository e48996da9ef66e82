"""Frozen records that describe a run in its folder, checked when they are read. Results: `evaluation.rows`.

Run folders are copied, edited and damaged, so every value from a file is checked by the type of its field
(`read`, `rows.read_row`). Records that the code makes are not checked. Rows are dataclasses with slots, which
pydantic fills: its own models take more time and memory, and a large run has millions of rows. Unknown fields
are ignored, so a later version may add fields.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from baselines.codec import Rate

T = TypeVar("T")

# Larger numbers would overflow when they are squared and summed.
_LARGEST = 1e100
_LARGEST_COUNT = 2**53


# Types of fields


@dataclass(frozen=True, eq=False)
class _Is:
    """Schema of a value, and the words that a message has for it."""

    schema: CoreSchema
    needed: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        return core_schema.custom_error_schema(
            self.schema, custom_error_type="needed", custom_error_message=self.needed
        )


def _text(pattern: str, needed: str) -> _Is:
    return _Is(core_schema.str_schema(strict=True, pattern=f"^{pattern}$"), needed)


def _whole(least: int, most: int = _LARGEST_COUNT) -> _Is:
    schema = core_schema.int_schema(strict=True, ge=least, le=most)
    return _Is(schema, f"a whole number from {least} to {most}")


def _number(needed: str, **least: float) -> _Is:
    """A number that keeps its type, because 8 and 8.0 kbps make different keys of rows."""
    bounds: Any = {"ge": -_LARGEST, "le": _LARGEST, **least}
    whole: Any = {name: int(value) for name, value in bounds.items()}
    parts: list[CoreSchema] = [
        core_schema.int_schema(strict=True, **whole),
        core_schema.float_schema(strict=True, allow_inf_nan=False, **bounds),
    ]
    return _Is(core_schema.union_schema([*parts], mode="left_to_right"), needed)


def is_text(value: object) -> bool:
    """Whether JSON, CSV and terminals can hold it."""
    return isinstance(value, str) and re.search("[\0\ud800-\udfff]", value) is None


def is_value(value: float) -> bool:
    """Whether it can be a score: any number that is not too large, infinity and NaN."""
    return not math.isfinite(value) or abs(value) <= _LARGEST


def number_to_json(value: float | None) -> float | str | None:
    """The number, or "inf", "-inf" and null for infinity and NaN, which JSON does not have."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def number_from_json(value: Any) -> float:
    """Inverse of `number_to_json`. Raises ValueError for values that it does not return."""
    if value is None:
        return math.nan
    if isinstance(value, str):
        if value not in ("inf", "-inf"):
            raise ValueError
    elif isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise ValueError
    return float(value)


def _path(value: Any) -> Path:
    """Path of a file anywhere. Its name may have bytes that are not text."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return Path(value)


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    json.dumps(value, allow_nan=False)
    return value


def _identifying(value: dict[str, Any]) -> dict[str, Any]:
    if not is_text(value.get("version")) or not is_text(value.get("weights")):
        raise ValueError
    return _finite(value)


def _object(check: Callable[[dict[str, Any]], dict[str, Any]], needed: str) -> _Is:
    return _Is(core_schema.no_info_after_validator_function(check, core_schema.dict_schema()), needed)


_CHARACTER = r"[^\x00]"
_PART = r"([^/\x00.][^/\x00]*|\.[^/\x00.][^/\x00]*|\.\.[^/\x00]+)"  # neither "." nor ".."
_ENDS_OF_LINES = r"\n\r\x0b\x0c\x1c-\x1e\x{85}\x{2028}\x{2029}"

Text = Annotated[str, _text(f"{_CHARACTER}*", "text")]
Name = Annotated[str, _text(rf"{_CHARACTER}*[^\s\x00]{_CHARACTER}*", "text that is not empty")]
#: Label of a plug-in; one line, because it appears in headings.
Line = Annotated[str, _text(rf"[^\x00{_ENDS_OF_LINES}]{{0,100}}", "text of one line, up to 100 characters")]
File = Annotated[str, _text(f"{_PART}(/{_PART})*", "a file below the run folder")]
FilePath = Annotated[Path, _Is(core_schema.no_info_plain_validator_function(_path), "a path")]
Flag = Annotated[bool, _Is(core_schema.bool_schema(strict=True), "true or false")]
Number = Annotated[float, _number("a number")]
Positive = Annotated[float, _number("a number above 0", gt=1e-9)]
Amount = Annotated[float, _number("a number, 0 or more", ge=0)]
Value = Annotated[
    float,
    _Is(core_schema.no_info_plain_validator_function(number_from_json), 'a number, "inf", "-inf" or null'),
]
Count = Annotated[int, _whole(0)]
CountedFrom1 = Annotated[int, _whole(1)]
Dimensions = Annotated[int, _whole(1, 2**20)]
Delay = Annotated[int, _whole(-(2**31), 2**31)]
#: Part of keys of rows.
Finite = Annotated[dict[str, Any], _object(_finite, "an object without infinite numbers")]
Identity = Annotated[dict[str, Any], _object(_identifying, "an object with version and weights")]


# Reading


adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def loads(text: str | bytes) -> Any:
    """Value of a JSON text. Raises ValueError for any error in it."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read(kind: type[T], content: Any) -> T:
    """A record from what `json.loads` gave.

    Raises:
        ValueError: a field is missing or wrong; the message is one line that names the field.
    """
    try:
        found: T = adapter(kind).validate_python(content)
    except ValidationError as error:
        raise ValueError(explain(error)) from error
    return found


def check_fields(kind: type[Any], values: dict[str, Any]) -> None:
    """Check some fields of a record as `read` does; other fields may be missing."""
    try:
        adapter(kind).validate_python(values)
    except ValidationError as error:
        if any(found["type"] != "missing" for found in error.errors()):
            raise ValueError(explain(error)) from error


def explain(error: ValidationError, place: tuple[int | str, ...] = ()) -> str:
    """Message on the first error: the field, its value, and what it must be."""
    found = next((e for e in error.errors() if e["type"] != "missing"), error.errors()[0])
    where = ""
    for part in found["loc"][len(place) :]:
        where += f"[{part}]" if isinstance(part, int) else f"{'.' * bool(where)}{part}"
    if found["type"] == "missing":
        return f"{short(where)} is missing"
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    if found["type"] == "json_invalid":
        return found["msg"]
    needed = found["msg"] if found["type"] == "needed" else found["msg"].removeprefix("Input should be ")
    if found["type"] in ("dataclass_type", "dict_type", "model_type"):
        needed = "an object"
    return f"{short(where) if where else 'it'} is {short(found['input'])}; it must be {needed}"


def short(value: Any) -> str:
    """A value as text for a message of one line."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# run.json


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation, the same for every condition of a run.

    Attributes:
        sample_rate: sample rate of the scoring, Hz.
        channels: number of channels to which clips are mixed before coding.
        align: whether one integer delay per condition is removed before scoring.
        chunk_s: longest excerpt of a recording, seconds.
        chunks: "first" (one excerpt per recording) or "all".
        limit: number of recordings drawn from the data, None for all.
        seed: seed of the draw, of the pilot and of the bootstrap.
        match: rate of a codec that meets the asked one: measured on these data
            (`evaluation.statistics.matching`), or nominal, as in runs of earlier versions.
    """

    sample_rate: Annotated[int, _whole(1, 10**6)] = 44100
    channels: Annotated[int, _whole(1, 2)] = 1
    align: Flag = True
    chunk_s: Positive = 5.0
    chunks: Literal["first", "all"] = "first"
    limit: CountedFrom1 | None = None
    seed: Count = 0
    match: Literal["measured", "nominal"] = "nominal"

    def to_json(self) -> dict[str, Any]:
        """Entries of run.json, without a nominal ``match``, which earlier versions do not know."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("match", "nominal")}


@dataclass(frozen=True)
class Condition:
    """One row of the summary: a codec at a rate.

    Attributes:
        codec: row label.
        kbps: asked bitrate; None for controls and conditions without one.
        nominal: bitrate of the operating point; None if it has none.
        settings: settings of the operating point.
        identity: everything that decides the codec's output (`baselines.codec.Codec.identity`).
        rate_is: "measured" (from the payload), "declared" (decoded elsewhere, rate given by the user),
            "none"; in results also "interpolated", between two operating points.
        control: whether it is a control, which is in the table once for all asked rates.
    """

    codec: Name
    kbps: Positive | None
    nominal: Positive | None
    settings: Finite = field(default_factory=dict)
    identity: Finite = field(default_factory=dict)
    rate_is: Literal["measured", "declared", "none", "interpolated"] = "measured"
    control: Flag = False

    @property
    def label(self) -> str:
        """Name for people: the codec at the asked rate, "qincodec@16"."""
        return label_of(self.codec, self.kbps)

    @property
    def rate_label(self) -> str:
        """Rate in names of files: the one of the operating point, which several asked rates may share."""
        return Rate(self.nominal).label

    @property
    def point(self) -> str:
        """Name of folders and of entries of files.json: the codec at the rate of its operating point,
        "qincodec@15.88". Unlike `label`, it is the same for asked rates with the same point.
        """
        return f"{self.codec}@{self.rate_label}"


def is_untrained(identity: Mapping[str, Any]) -> bool:
    """Whether an adapter's version ends in "untrained", which means that its weights were never trained."""
    return str(identity.get("version", "")).endswith("untrained")


@dataclass(frozen=True)
class Tried:
    """An operating point that the pilot measured.

    Attributes:
        nominal: its nominal bitrate; None if it has none.
        kbps: bitrate measured on ``clips`` clips.
    """

    nominal: Positive | None
    kbps: Positive
    clips: CountedFrom1


@dataclass(frozen=True)
class AskedRate:
    """A rate that a codec must meet as measured.

    Attributes:
        codec: row label.
        kbps: asked rate.
        pilot: operating points that the pilot measured, in that order.
    """

    codec: Name
    kbps: Positive
    pilot: tuple[Tried, ...] = ()


def label_of(codec: str, kbps: float | None) -> str:
    """Name of a codec at an asked rate, "codec@16"; the codec alone without a rate."""
    return codec if kbps is None else f"{codec}@{Rate(kbps).label}"


@dataclass(frozen=True)
class MetricInfo:
    """A metric as reports need it (see `evaluation.metrics.base.Metric`).

    Attributes:
        embedding: name of the embedding that it compares, or "".
        per_clip: False for a distance between distributions: a number per condition, not per clip.
        sample_rate: sample rate of its signals, Hz; None: the evaluation's.
        channels: channels of its signals, 1 for the mean of all; None: the evaluation's.
        speech_only: whether only clips that are marked as speech have a score.
    """

    name: Name
    label: Line
    version: Line
    unit: Line
    higher_is_better: Flag
    definition: Text
    embedding: Text = ""
    per_clip: Flag = True
    sample_rate: Annotated[int, _whole(1, 10**6)] | None = None
    channels: Annotated[int, _whole(1, 2)] | None = None
    speech_only: Flag = False

    def wants(self, category: object) -> bool:
        """Whether a clip of a category has a score of it."""
        return not self.speech_only or is_speech(category)

    @property
    def takes(self) -> str:
        """Form and choice of its clips: "16 kHz, mono, speech"; "" for all clips as they are."""
        rate = "" if self.sample_rate is None else f"{self.sample_rate / 1000:g} kHz"
        channels = {None: "", 1: "mono", 2: "stereo"}[self.channels]
        return ", ".join(filter(None, (rate, channels, "speech" if self.speech_only else "")))

    def to_json(self) -> dict[str, Any]:
        """Entries of run.json, without optional fields that are not set."""
        optional = ("sample_rate", "channels", "speech_only")
        return {name: value for name, value in asdict(self).items() if name not in optional or value}


def is_speech(category: object) -> bool:
    """Whether a clip of a category is marked as speech; data frames have None or NaN for none."""
    return isinstance(category, str) and category.strip().casefold() == "speech"


@dataclass(frozen=True)
class EmbeddingInfo:
    """An embedding as the run folder and reports need it (see `evaluation.embeddings.base.Embedding`)."""

    name: Name
    label: Line
    dim: Dimensions
    frame_s: Positive
    hop_s: Positive
    definition: Text
    attribution: Text
    identity: Identity


@dataclass(frozen=True)
class ShardInfo:
    """The parts of a data set that a run has.

    Attributes:
        indices: indices of the parts, from 1.
        count: number of parts of the whole data set.
        recordings: number of recordings of the whole.
        of: hash of the whole; parts of different wholes cannot be merged.
    """

    indices: tuple[Dimensions, ...]
    count: Dimensions
    recordings: Count
    of: Text

    @property
    def missing(self) -> list[int]:
        """Indices of the other parts of the whole."""
        return [index for index in range(1, self.count + 1) if index not in self.indices]


@dataclass(frozen=True)
class LowRates:
    """Files below the evaluation's sample rate, for a note.

    Attributes:
        files: number of files of the data set.
        low: number of files below ``below``.
        lowest: lowest sample rate, Hz.
        below: sample rate of the evaluation, Hz.
        end: end of the note.
    """

    files: Count
    low: Count
    lowest: Count
    below: Count
    end: Text

    @property
    def note(self) -> str:
        return (
            f"{self.low} of {self.files} files are below {self.below} Hz (lowest {self.lowest} Hz){self.end}"
        )


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A data set as run.json describes it (`evaluation.datasets.base.Dataset`)."""

    name: Name
    n_clips: Count
    n_recordings: Count
    n_lossy: Count = 0
    lossy_formats: tuple[Text, ...] = ()
    n_excluded: Count = 0
    excluded: tuple[tuple[Text, Text], ...] = ()
    disclaimer: Text | None = None
    notes: tuple[Text, ...] = ()
    hash: Text
    shard: ShardInfo | None = None
    low_rates: LowRates | None = None

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        optional = ("shard", "low_rates")
        return {name: value for name, value in plain.items() if name not in optional or value is not None}


@dataclass(frozen=True)
class DecodedFile:
    """A clip's file that was decoded elsewhere: its fingerprint, or why it is missing."""

    fingerprint: str | None = None
    missing: str = ""

    _MISSING = "missing: "

    @property
    def text(self) -> str:
        """Its form in files.json and in keys of rows."""
        return f"{self._MISSING}{self.missing}" if self.fingerprint is None else self.fingerprint

    @classmethod
    def of(cls, text: str) -> DecodedFile:
        """Inverse of `text`."""
        if text.startswith(cls._MISSING):
            return cls(missing=text.removeprefix(cls._MISSING))
        return cls(text)
