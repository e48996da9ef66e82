"""What describes a run in its folder: frozen records, checked as they are read. Results: `evaluation.rows`.

Run folders are copied, edited and damaged, so every value from a file is checked by the type of its field
(`read`, `rows.read_row`); what the code itself makes is not checked again. Rows are dataclasses with slots,
which pydantic fills: its own models take more time and memory, and a large run has millions of rows. Fields
that are not known here are left out, so that a later version may add some.
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

# Larger ones would overflow when they are squared and summed.
_LARGEST = 1e100
_LARGEST_COUNT = 2**53


# Types of fields


@dataclass(frozen=True, eq=False)
class _Is:
    """How a value is checked, and what a message says it must be."""

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
    """Whole numbers stay what they are: 8 and 8.0 kbps make different keys of rows."""
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
    """JSON has no infinity and no NaN: "inf", "-inf" and null stand for them."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def number_from_json(value: Any) -> float:
    """The number again. ValueError for what `number_to_json` does not give."""
    if value is None:
        return math.nan
    if isinstance(value, str):
        if value not in ("inf", "-inf"):
            raise ValueError
    elif isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise ValueError
    return float(value)


def _path(value: Any) -> Path:
    """Of a file anywhere, whose name may hold what is no text."""
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
#: What plug-ins call themselves: it stands in headings.
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
#: What keys of rows are made of.
Finite = Annotated[dict[str, Any], _object(_finite, "an object without infinite numbers")]
Identity = Annotated[dict[str, Any], _object(_identifying, "an object with version and weights")]


# Reading


adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def loads(text: str | bytes) -> Any:
    """JSON; ValueError for whatever is wrong with it."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read(kind: type[T], content: Any) -> T:
    """A record from what `json.loads` gave.

    Raises:
        ValueError: a field is absent or not what it must be; one line that names it.
    """
    try:
        found: T = adapter(kind).validate_python(content)
    except ValidationError as error:
        raise ValueError(explain(error)) from error
    return found


def check_fields(kind: type[Any], values: dict[str, Any]) -> None:
    """`read` for some of the fields of a record: those that are absent are not missed."""
    try:
        adapter(kind).validate_python(values)
    except ValidationError as error:
        if any(found["type"] != "missing" for found in error.errors()):
            raise ValueError(explain(error)) from error


def explain(error: ValidationError, place: tuple[int | str, ...] = ()) -> str:
    """What is wrong first, what was found, what is needed."""
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
    return f"{short(where) if where else 'it'} is {short(found['input'])}; needed is {needed}"


def short(value: Any) -> str:
    """A value in a message of one line."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# run.json


@dataclass(frozen=True)
class Settings:
    """How an evaluation is done; the same for every condition of a run.

    Attributes:
        sample_rate: clips are scored at this rate, Hz.
        channels: clips are mixed to this many channels before coding.
        align: take one integer delay per condition out before scoring.
        chunk_s: longest excerpt taken from a recording, seconds.
        chunks: "first" (one excerpt per recording) or "all".
        limit: number of recordings drawn from the data, None for all.
        seed: of the draw, of the pilot and of the bootstrap.
        match: at which rate a codec meets the asked one: at that measured on this data
            (`evaluation.statistics.matching`), or at the nominal one, as runs of earlier versions do.
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
        """As in run.json: earlier versions know nominal rates only."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("match", "nominal")}


@dataclass(frozen=True)
class Condition:
    """One row of the summary: a codec at a rate.

    Attributes:
        codec: row label.
        kbps: asked bitrate; None for controls and conditions without one.
        nominal: bitrate of the operating point; None if it has none.
        settings: of the operating point.
        identity: what decides the codec's output (`baselines.codec.Codec.identity`).
        rate_is: "measured" (from the payload), "declared" (decoded elsewhere, as the user said),
            "none"; of results "interpolated", between two operating points.
        control: a control stands once in the table, whatever rates were asked for.
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
        """What people read and type: the codec at the rate that was asked for, "qincodec@16"."""
        return label_of(self.codec, self.kbps)

    @property
    def rate_label(self) -> str:
        """The rate in names of files: that of the operating point, which several asked rates may share."""
        return Rate(self.nominal).label

    @property
    def point(self) -> str:
        """What folders and the entries of files.json are called: the codec at the rate of its operating
        point, "qincodec@15.88". Unlike `label`, it is the same for asked rates that chose the same point.
        """
        return f"{self.codec}@{self.rate_label}"


def is_untrained(identity: Mapping[str, Any]) -> bool:
    """Adapters say "untrained" in their version when their weights were never trained."""
    return str(identity.get("version", "")).endswith("untrained")


@dataclass(frozen=True)
class Tried:
    """An operating point that the pilot measured.

    Attributes:
        nominal: its nominal bitrate; None if it has none.
        kbps: measured on so many ``clips``.
    """

    nominal: Positive | None
    kbps: Positive
    clips: CountedFrom1


@dataclass(frozen=True)
class AskedRate:
    """A rate that was asked of a codec, and is to be met at the measured rate.

    Attributes:
        codec: row label.
        kbps: asked.
        pilot: what was measured to find the operating points, in that order.
    """

    codec: Name
    kbps: Positive
    pilot: tuple[Tried, ...] = ()


def label_of(codec: str, kbps: float | None) -> str:
    """Spell a codec at an asked rate, "codec@16"; the codec alone without a rate."""
    return codec if kbps is None else f"{codec}@{Rate(kbps).label}"


@dataclass(frozen=True)
class MetricInfo:
    """A metric as reports need it (see `evaluation.metrics.base.Metric`).

    Attributes:
        embedding: name of the embedding it compares, or "".
        per_clip: False for a distance between distributions: a number per condition, not per clip.
        sample_rate: that it wants signals at, Hz; None: the evaluation's.
        channels: that it wants, 1 being the mean of all; None: the evaluation's.
        speech_only: clips that are not marked as speech have no score of it.
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
        """In what form it takes clips, and which: "16 kHz, mono, speech"; "" for all as they are."""
        rate = "" if self.sample_rate is None else f"{self.sample_rate / 1000:g} kHz"
        channels = {None: "", 1: "mono", 2: "stereo"}[self.channels]
        return ", ".join(filter(None, (rate, channels, "speech" if self.speech_only else "")))

    def to_json(self) -> dict[str, Any]:
        """As in run.json, without what says nothing."""
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
    """Which parts of a whole a run is of.

    Attributes:
        indices: of the parts, from 1.
        count: parts of the whole.
        recordings: of the whole.
        of: hash of the whole; parts of wholes that differ do not add up to one.
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
    """Files below the evaluation's sample rate, as a note says it.

    Attributes:
        files: of the data set.
        low: of them, those below ``below``.
        lowest: sample rate, Hz.
        below: sample rate of the evaluation, Hz.
        end: what the note says of it.
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
    """What run.json says of a data set (`evaluation.datasets.base.Dataset`)."""

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
    """A clip's file that was decoded elsewhere: its fingerprint, or why there is none."""

    fingerprint: str | None = None
    missing: str = ""

    _MISSING = "missing: "

    @property
    def text(self) -> str:
        """As it stands in files.json and in the keys of rows."""
        return f"{self._MISSING}{self.missing}" if self.fingerprint is None else self.fingerprint

    @classmethod
    def of(cls, text: str) -> DecodedFile:
        """From `text`."""
        if text.startswith(cls._MISSING):
            return cls(missing=text.removeprefix(cls._MISSING))
        return cls(text)
