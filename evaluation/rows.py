"""Results in the rows of a run folder, and results computed from all rows of a condition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, ValidationError

from evaluation.records import (
    Amount,
    Count,
    CountedFrom1,
    Delay,
    Dimensions,
    File,
    Name,
    Number,
    Positive,
    Text,
    Value,
    adapter,
    explain,
    number_to_json,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One result under its key. A row of an unknown kind has only its key."""

    kind: str = ""
    key: Name

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRow(Row):
    """A result of one clip in one condition.

    Attributes:
        codec: row label of the condition.
        rate: label of its operating point.
        error: why there is no result; the next run tries again.
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
        """Whether it must be written: a known result is kept, and the same failure is written once."""
        return known is None or (known.error is not None and known.error != self.error)

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in Row.to_json(self).items() if name != "error"},
            "error": self.error,
        }


class Place(NamedTuple):
    """Where an encoded clip is kept (`evaluation.run.encoded`).

    Attributes:
        file: path below the run folder; None: nothing was encoded.
        offset: first byte of the clip in a tar file. None: the file has this clip only.
    """

    file: str | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedRow(ClipRow):
    """A clip as one condition coded it. With an ``error``, the other results have no meaning.

    Attributes:
        bytes: size of the payload; None if nothing was encoded.
        delay: estimated delay, samples; None if it cannot be estimated.
        gain_db: estimated gain; None if it cannot be estimated.
        encode_s: wall time; None if nothing was encoded this time.
        encoded: file of the encoded clip (`Place`).
        offset: its first byte in that file (`Place`).
        codebooks: number of codebooks; 0 for codecs without codes.
        note: remark of loading or aligning.
        reference_dbfs: RMS of the scored reference without DC; None in rows of earlier versions.
    """

    kind: Literal["coded"] = "coded"
    duration_s: Positive = math.nan
    bytes: Count | None = None
    delay: Delay | None
    gain_db: Number | None = None
    encode_s: Amount | None = None
    decode_s: Amount | None = None
    encoded: File | None = None
    offset: Count | None = None
    codebooks: Count = 0
    note: Text | None = None
    reference_dbfs: Number | None = None

    def __post_init__(self) -> None:
        if self.error is None and math.isnan(self.duration_s):
            raise ValueError("'duration_s' is missing")

    @property
    def place(self) -> Place:
        return Place(self.encoded, self.offset)

    def at(self, place: Place) -> CodedRow:
        """The row with another place of the encoded clip."""
        return replace(self, encoded=place.file, offset=place.offset)

    def to_json(self) -> dict[str, Any]:
        if self.error is None:
            found = ClipRow.to_json(self)
            return found if self.offset is not None else {n: v for n, v in found.items() if n != "offset"}
        names = ("kind", "key", "codec", "rate", "clip", "delay", "error")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow(ClipRow):
    """Value of one metric for a coded clip shifted by ``delay``; NaN has a ``reason``."""

    kind: Literal["score"] = "score"
    metric: Text
    delay: Delay
    value: Value
    reason: Text | None

    def to_json(self) -> dict[str, Any]:
        return {**ClipRow.to_json(self), "value": number_to_json(self.value)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesRow(Row):
    """Place of the embedding of a clip: (frames, dim) float32 at an offset in bytes.

    Attributes:
        silent: number of frames whose samples are all 0.
        crc32: checksum of the bytes; None in rows of earlier versions.
    """

    kind: Literal["frames"] = "frames"
    embedding: Text = ""
    file: File
    offset: Count
    frames: CountedFrom1
    dim: Dimensions
    silent: Count
    error: Text | None
    crc32: Count | None = None

    @property
    def end(self) -> int:
        """End of its bytes in the file."""
        return self.offset + 4 * self.frames * self.dim


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance between distributions in a row (see `CorpusScore`)."""

    value: Value
    sizes: tuple[CountedFrom1, ...] = ()
    half: Number = math.nan
    half_frames: Number = math.nan
    limit: Number = math.nan
    left_out: tuple[Number, ...] = ()
    low: Number = math.nan
    high: Number = math.nan
    limit_low: Number = math.nan
    limit_high: Number = math.nan
    reason: Text = ""
    ci_reason: Text = ""

    def __post_init__(self) -> None:
        if len(self.left_out) not in (0, len(self.sizes)):
            raise ValueError(
                f"'left_out' has {len(self.left_out)} values for {len(self.sizes)} groups; it must have one"
                " per group"
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


@dataclass(frozen=True, slots=True)
class CodebookPair:
    """Mutual information of two codebooks, counted from 1 (`evaluation.statistics.joint_codes`).

    Attributes:
        used: number of pairs of entries that occur.
    """

    first: CountedFrom1
    second: CountedFrom1
    used: Count
    mutual_bits: Amount
    mutual_bits_shuffled: Amount


@dataclass(frozen=True, slots=True)
class JointCodes:
    """Statistics of all codebooks together (`evaluation.statistics.joint_codes`).

    Attributes:
        frames: number of frames they use; for a large set, a part of its frames.
        used: number of different frames among them.
    """

    frames: CountedFrom1
    used: Count
    entropy_bits: Amount
    entropy_bits_miller_madow: Amount
    pairs: tuple[CodebookPair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesRow(Row):
    """Statistics of all codes of a condition (`evaluation.statistics.codes.code_statistics`).

    Attributes:
        duration_s: duration of the clips; None in rows of earlier versions.
        joint: None in rows of earlier versions, and for one codebook.
    """

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
    duration_s: Positive | None = None
    joint: JointCodes | None = None

    def __post_init__(self) -> None:
        if not self.codebooks:
            raise ValueError("'codebooks' is empty; it must have one or more")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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
        ValueError: it is not JSON, or a field is missing or wrong.
    """
    try:
        row: Row = adapter(_Known).validate_json(line)
        return row
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] not in ("union_tag_invalid", "union_tag_not_found"):
            raise ValueError(explain(error, first["loc"][:1])) from error
    try:
        other: Row = adapter(Row).validate_json(line)
        return other
    except ValidationError as error:
        raise ValueError(explain(error)) from error


def read_rows(lines: Sequence[bytes]) -> list[Row]:
    """`read_row` for many lines in half the time. Raises ValueError if one line fails."""
    try:
        rows: list[Row] = adapter(list[_Known]).validate_json(b"[%b]" % b",".join(lines))
    except ValidationError:
        rows = []
    # Lines that are not rows one by one could be rows when joined.
    if len(rows) == len(lines) and all(
        row.key.encode() in line for row, line in zip(rows, lines, strict=True)
    ):
        return rows
    return list(map(read_row, lines))


def _known(record: Any) -> dict[str, Any]:
    """The fields that differ from their default, in order, without NaN."""
    fields = record.__dataclass_fields__.items()
    values = {name: (getattr(record, name), spec.default) for name, spec in fields}
    return {name: value for name, (value, default) in values.items() if value == value != default}


@dataclass(frozen=True)
class CorpusScore:
    """A distance between the distributions of all references and all decoded clips of a condition.

    Attributes:
        metric: name of the metric.
        codec: row label of the condition.
        kbps: its asked rate, None without one.
        value: NaN with a ``reason``.
        low, high: 95 % interval by jackknife over recordings; NaN with a ``ci_reason``.
        half: mean of the distances of two halves of the recordings, an estimate for half the data, or NaN.
        limit: value extrapolated to infinite data, ``2 value - half``, for a bias that falls with 1 / frames
            (Chong and Forsyth, "Effectively Unbiased FID and Inception Score", CVPR 2020).
        limit_low, limit_high: 95 % interval of ``limit`` by jackknife, or NaN, as in earlier versions.
        n_clips: number of compared clips.
        n_recordings: number of their recordings.
        n_frames: number of their frames.
        half_frames: mean number of frames of a half.
        left_out: the value without each group of recordings, for paired intervals.
        sizes: number of recordings of each group.
        members: hash of the references: equal for conditions scored on the same clips.
        common: True: on the clips that all codecs at the asked rate have, for comparing them; False: on all
            clips of the condition.
    """

    metric: str
    codec: str
    kbps: float | None
    value: float
    low: float = math.nan
    high: float = math.nan
    limit_low: float = math.nan
    limit_high: float = math.nan
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
    """Statistics of the codes of a condition, over all frames of all its clips.

    Attributes:
        codec: row label.
        kbps: asked rate.
        kbps_entropy: the sum over codebooks of H times the frames per second, kbit/s: the rate that an ideal
            memoryless entropy coder would reach. NaN for codecs without codes, or with a reason.
        frames: number of frames of all clips.
        perplexity: mean of 2^H over codebooks.
        perplexity_of_mean: 2^mean(H).
        usage: mean share of entries that occur.
        duration_s: duration of all clips; None if it is not known, as for interpolated rows.
        joint: statistics of the codebooks together, if there are several.
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
    duration_s: float | None = None
    joint: JointCodes | None = None
    kbps_entropy_reason: str = ""

    @property
    def frame_rate(self) -> float:
        """Frames per second of audio."""
        return self.frames / self.duration_s if self.duration_s else math.nan

    @property
    def tokens_per_second(self) -> float:
        """Codes of all codebooks per second of audio."""
        tokens = sum(book.frames for book in self.codebooks)
        return tokens / self.duration_s if self.duration_s else math.nan

    @property
    def bits_per_token(self) -> float:
        """Mean of log2 of the codebooks' sizes over all codes."""
        tokens = sum(book.frames for book in self.codebooks)
        return (
            sum(book.frames * math.log2(book.size) for book in self.codebooks) / tokens
            if tokens
            else math.nan
        )

    def to_json(self) -> dict[str, Any]:
        """The fields that are set."""
        found = {"codec": self.codec, "kbps": self.kbps, **_known(self)}
        if self.codebooks:
            found["codebooks"] = [asdict(book) for book in self.codebooks]
        if self.joint is not None:
            found["joint"] = asdict(self.joint)
        return found
