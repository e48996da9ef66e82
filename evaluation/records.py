"""What stands in a run folder: frozen records, checked as they are read.

Run folders are copied, edited and damaged, so every value from a file is checked by the type of its field
(`read`, `read_row`); what the code itself makes is not checked again. Records are dataclasses with slots,
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

from pydantic import Discriminator, TypeAdapter, ValidationError
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


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


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
        found: T = _adapter(kind).validate_python(content)
    except ValidationError as error:
        raise ValueError(_explain(error)) from error
    return found


def check_fields(kind: type[Any], values: Mapping[str, Any]) -> None:
    """`read` for some of the fields of a record: those that are absent are not missed."""
    try:
        _adapter(kind).validate_python(dict(values))
    except ValidationError as error:
        if any(found["type"] != "missing" for found in error.errors()):
            raise ValueError(_explain(error)) from error


def _explain(error: ValidationError, place: tuple[int | str, ...] = ()) -> str:
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
        seed: of the draw and of the bootstrap.
    """

    sample_rate: Annotated[int, _whole(1, 10**6)] = 44100
    channels: Annotated[int, _whole(1, 2)] = 1
    align: Flag = True
    chunk_s: Positive = 5.0
    chunks: Literal["first", "all"] = "first"
    limit: CountedFrom1 | None = None
    seed: Count = 0


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
            "none".
        control: a control stands once in the table, whatever rates were asked for.
    """

    codec: Name
    kbps: Positive | None
    nominal: Positive | None
    settings: Finite = field(default_factory=dict)
    identity: Finite = field(default_factory=dict)
    rate_is: Literal["measured", "declared", "none"] = "measured"
    control: Flag = False

    @property
    def label(self) -> str:
        """What people read and type: the codec at the rate that was asked for, "qincodec@16"."""
        return label(self.codec, self.kbps)

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


def label(codec: str, kbps: float | None) -> str:
    """`Condition.label` of a codec at an asked rate; the codec alone without one."""
    return codec if kbps is None else f"{codec}@{Rate(kbps).label}"


@dataclass(frozen=True)
class MetricInfo:
    """A metric as reports need it (see `evaluation.metrics.base.Metric`).

    Attributes:
        embedding: name of the embedding it compares, or "".
        per_clip: False for a distance between distributions: a number per condition, not per clip.
    """

    name: Name
    label: Line
    version: Line
    unit: Line
    higher_is_better: Flag
    definition: Text
    embedding: Text = ""
    per_clip: Flag = True


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


# Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One result under its key. Of a kind that is not known here only the key counts."""

    kind: str = ""
    key: Name

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRow(Row):
    """What came of one clip in one condition.

    Attributes:
        codec: row label of the condition.
        rate: label of its operating point.
        error: why there is no result; it is tried again.
    """

    codec: Text
    rate: Text
    clip: Text
    error: Text | None

    @property
    def point(self) -> str:
        """`Condition.point` of its condition."""
        return f"{self.codec}@{self.rate}"

    def is_news_after(self, known: ClipRow | None) -> bool:
        """Whether it belongs behind what is known: results stay as they are, a failure is written once."""
        return known is None or (known.error is not None and known.error != self.error)

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in Row.to_json(self).items() if name != "error"},
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedRow(ClipRow):
    """What a condition made of a clip. With an ``error``, the rest says nothing.

    Attributes:
        bytes: of the payload; None where nothing was encoded.
        delay: estimated, samples; None if it cannot be.
        gain_db: estimated; None likewise.
        encode_s: wall time; None if nothing was encoded this time.
        encoded: the encoded clip's file, relative to the run folder.
        codebooks: number of them; 0 for codecs without codes.
        note: what loading or aligning it had to say.
    """

    kind: Literal["coded"] = "coded"
    duration_s: Positive = math.nan
    bytes: Count | None = None
    delay: Delay | None
    gain_db: Number | None = None
    encode_s: Amount | None = None
    decode_s: Amount | None = None
    encoded: File | None = None
    codebooks: Count = 0
    note: Text | None = None

    def __post_init__(self) -> None:
        if self.error is None and math.isnan(self.duration_s):
            raise ValueError("'duration_s' is missing")

    def to_json(self) -> dict[str, Any]:
        if self.error is None:
            return ClipRow.to_json(self)
        names = ("kind", "key", "codec", "rate", "clip", "delay", "error")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow(ClipRow):
    """One metric of a coded clip after a shift by ``delay``; a value that is NaN has a ``reason``."""

    kind: Literal["score"] = "score"
    metric: Text
    delay: Delay
    value: Value
    reason: Text | None

    def to_json(self) -> dict[str, Any]:
        return {**ClipRow.to_json(self), "value": number_to_json(self.value)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesRow(Row):
    """Where the embedding of a clip stands: (frames, dim) float32 at an offset in bytes.

    ``silent``: frames without a sample that is not 0.
    """

    kind: Literal["frames"] = "frames"
    embedding: Text = ""
    file: File
    offset: Count
    frames: CountedFrom1
    dim: Dimensions
    silent: Count
    error: Text | None


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance between distributions as a row keeps it (see `CorpusScore`)."""

    value: Value
    sizes: tuple[CountedFrom1, ...] = ()
    half: Number = math.nan
    half_frames: Number = math.nan
    limit: Number = math.nan
    left_out: tuple[Number, ...] = ()
    low: Number = math.nan
    high: Number = math.nan
    reason: Text = ""
    ci_reason: Text = ""

    def __post_init__(self) -> None:
        if len(self.left_out) not in (0, len(self.sizes)):
            raise ValueError(
                f"{len(self.left_out)} values left out of {len(self.sizes)} groups; needed are all"
            )

    def to_json(self) -> dict[str, Any]:
        return {"value": number_to_json(self.value)} | {
            name: value for name, value in _known(self).items() if name != "value"
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusRow(Row):
    """Both distances of a condition in one embedding."""

    kind: Literal["corpus"] = "corpus"
    codec: Text = ""
    kbps: Positive | None = None
    embedding: Text = ""
    fd: Distance
    kad: Distance

    def to_json(self) -> dict[str, Any]:
        return {**Row.to_json(self), "fd": self.fd.to_json(), "kad": self.kad.to_json()}


@dataclass(frozen=True, slots=True)
class Codebook:
    """Statistics of one codebook (`evaluation.statistics.codes.codebook_statistics`)."""

    size: CountedFrom1
    used: Count
    usage: Amount
    frames: Count
    entropy_bits: Amount
    entropy_bits_miller_madow: Amount
    perplexity: Amount
    perplexity_miller_madow: Amount
    kbps_entropy: Amount

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Codebook.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesRow(Row):
    """Statistics of all codes of a condition (`evaluation.statistics.codes.code_statistics`)."""

    kind: Literal["codes"] = "codes"
    codec: Text
    rate: Text
    kbps_entropy: Amount
    frames: Count
    codebooks: tuple[Codebook, ...]
    perplexity: Amount
    perplexity_miller_madow: Amount
    perplexity_of_mean: Amount
    perplexity_of_mean_miller_madow: Amount
    usage: Amount

    def __post_init__(self) -> None:
        if not self.codebooks:
            raise ValueError("'codebooks' is empty; needed is one or more")

    def to_json(self) -> dict[str, Any]:
        return {**Row.to_json(self), "codebooks": [book.to_json() for book in self.codebooks]}


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentsRow(Row):
    """Sums over the frames of a clip (`evaluation.paper.latents`)."""

    kind: Literal["latents"] = "latents"
    codec: Text = ""
    clip: Text = ""
    frames: CountedFrom1
    error_sum: Amount
    x: tuple[Number, ...]
    squares: Amount


_Known = Annotated[CodedRow | ScoreRow | FramesRow | CorpusRow | CodesRow | LatentsRow, Discriminator("kind")]


def read_row(line: bytes) -> Row:
    """A row from its line.

    Raises:
        ValueError: it is not JSON, or a field is absent or not what it must be.
    """
    try:
        row: Row = _adapter(_Known).validate_json(line)
        return row
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] not in ("union_tag_invalid", "union_tag_not_found"):
            raise ValueError(_explain(error, first["loc"][:1])) from error
    try:
        other: Row = _adapter(Row).validate_json(line)
        return other
    except ValidationError as error:
        raise ValueError(_explain(error)) from error


def _known(record: Any) -> dict[str, Any]:
    """The fields that do not have their default, in order; NaN is one."""
    fields = record.__dataclass_fields__.items()
    values = {name: (getattr(record, name), spec.default) for name, spec in fields}
    return {name: value for name, (value, default) in values.items() if value == value != default}


# What results are made of, besides rows


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


@dataclass(frozen=True)
class CorpusScore:
    """A distance between the distributions of all references and all decoded clips of a condition.

    Attributes:
        metric: name of the metric.
        codec: row label of the condition.
        kbps: its asked rate, None without one.
        value: NaN with a ``reason``.
        low: of the 95 % interval by jackknife over recordings; NaN with a ``ci_reason``.
        high: likewise.
        half: the mean of the distances of two halves of the recordings: what half the data would give. NaN
            where there is none.
        limit: extrapolated to infinite data, ``2 value - half``, for a bias that falls with 1 / frames.
        n_clips: clips compared.
        n_recordings: recordings they are from.
        n_frames: frames they have.
        half_frames: mean frames of a half.
        left_out: the value without each group of recordings, for paired intervals.
        sizes: recordings of each group.
        members: hash of the references: equal for conditions scored on the same clips.
        common: on the clips that all codecs at the asked rate have, for their comparison; False: on all
            clips of the condition.
    """

    metric: str
    codec: str
    kbps: float | None
    value: float
    low: float = math.nan
    high: float = math.nan
    half: float = math.nan
    limit: float = math.nan
    n_clips: int = 0
    n_recordings: int = 0
    n_frames: int = 0
    half_frames: float = math.nan
    left_out: tuple[float, ...] = ()
    sizes: tuple[int, ...] = ()
    members: str = ""
    reason: str = ""
    ci_reason: str = ""
    common: bool = False


@dataclass(frozen=True)
class CodeStatistics:
    """What the codes of a condition tell, over all frames of all its clips.

    Attributes:
        codec: row label.
        kbps: asked rate.
        kbps_entropy: the sum over codebooks of H times the frames per second, kbit/s: the rate an ideal
            memoryless entropy coder would reach. NaN for codecs without codes, or with a reason.
        frames: of all clips.
        perplexity: mean of 2^H over codebooks.
        perplexity_of_mean: 2^mean(H).
        usage: mean share of entries that occur.
    """

    codec: str
    kbps: float | None
    kbps_entropy: float = math.nan
    frames: int = 0
    codebooks: tuple[Codebook, ...] = ()
    perplexity: float = math.nan
    perplexity_miller_madow: float = math.nan
    perplexity_of_mean: float = math.nan
    perplexity_of_mean_miller_madow: float = math.nan
    usage: float = math.nan
    kbps_entropy_reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """What applies."""
        found = {"codec": self.codec, "kbps": self.kbps, **_known(self)}
        if self.codebooks:
            found["codebooks"] = [book.to_json() for book in self.codebooks]
        return found
