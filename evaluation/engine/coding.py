"""Clips as audio in batches, and the output of a condition: coded, read from a folder, or changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from baselines.codec import Codec, Encoded, Rate, check_decoded, check_encoded, highest
from baselines.rendered import Rendered, RenderedClip
from evaluation.datasets.base import Clip
from evaluation.datasets.unchanged import Unchanged
from evaluation.engine.alignment import Aligner, level_dbfs
from evaluation.engine.conditions import PreparedCondition
from evaluation.engine.ledger import Ledger
from evaluation.rows import CodedRow, Place
from qincodec import audio
from qincodec.audio import Audio
from qincodec.core.errors import UserError
from qincodec.core.plugins import FAULTS


@dataclass
class Batch:
    """Clips of the same length that are coded and scored at once, as audio.

    ``reference`` is (clips, channels, samples) at the evaluation's rate. Results computed from it live as
    long as the batch: codec inputs by sample rate, prepared metrics by (metric, delay), references as metrics
    take them by form and delay (`evaluation.engine.scoring`), the `Aligner`, and clips encoded at the highest
    rate of a codec, by `Condition.point` (`Coder`): clips and seconds, or None if encoding failed.
    """

    clips: list[Clip]
    reference: torch.Tensor
    inputs: dict[int, torch.Tensor] = field(default_factory=dict)
    prepared: dict[tuple[str, int], Any] = field(default_factory=dict)
    forms: dict[Any, torch.Tensor] = field(default_factory=dict)
    whole: dict[str, tuple[list[Encoded], float] | None] = field(default_factory=dict)
    parts: dict[tuple[int, ...], Batch] = field(default_factory=dict)
    aligner: Aligner | None = None

    @cached_property
    def levels_dbfs(self) -> list[float]:
        return [level_dbfs(reference) for reference in self.reference]

    def clip(self, index: int) -> Batch:
        """A batch of only this clip."""
        return Batch([self.clips[index]], self.reference[index : index + 1])

    def part(self, indices: tuple[int, ...]) -> Batch:
        """Some of the clips, with the results computed from them."""
        if len(indices) == len(self.clips):
            return self
        if indices not in self.parts:
            self.parts[indices] = Batch([self.clips[i] for i in indices], self.reference[list(indices)])
        return self.parts[indices]


@dataclass
class Coded:
    """A batch after a condition: ``decoded`` like `Batch.reference`, and one entry per clip.

    ``places`` say where the encoded clips are kept (`Ledger.write_encoded`). ``encode_s`` of a rate that was
    cut out of a higher one is the time of encoding at the higher rate, which takes at least as long, plus the
    time of cutting.
    """

    decoded: torch.Tensor
    encoded: Sequence[Encoded | None]
    places: Sequence[Place]
    notes: Sequence[str | None]
    encode_s: float | None = None  # per clip
    decode_s: float | None = None


@dataclass(frozen=True)
class Coder:
    """Reads references and applies conditions to them, at the evaluation's sample rate.

    Its methods may be called from several threads. Rates that are prefixes of a higher one
    (`Codec.is_prefix`) are cut out of it: a batch is encoded once, at the highest rate of ``conditions``.
    Clips from an earlier session are not encoded again.

    Attributes:
        conditions: of the run. Without them, a coder encodes at every rate.
        row: known row of a clip in a condition.
    """

    store: Ledger
    sample_rate: int
    channels: int
    unchanged: Unchanged = field(default_factory=Unchanged)
    conditions: Sequence[PreparedCondition] = ()
    row: Callable[[PreparedCondition, Clip], CodedRow | None] = lambda prepared, clip: None

    def reference(self, clip: Clip, what: str | None = None) -> Audio:
        """(channels, samples) of a clip.

        Raises:
            UserError: the recording (``what`` in messages) is gone, cannot be read, or has changed since the
                run scored it.
        """
        read = partial(audio.read, clip.path, clip.start_s, clip.duration_s)
        samples, sample_rate = self.unchanged.read(clip.path, clip.content_hash, read, what)
        return audio.resample(audio.mix(samples, self.channels), sample_rate, self.sample_rate)

    def code(self, prepared: PreparedCondition, batch: Batch) -> Coded:
        """Code a batch; encoded clips go to the run folder."""
        none, nowhere = [None] * len(batch.clips), [Place()] * len(batch.clips)
        if prepared.rendered is not None:
            loaded = [self._rendered(prepared, clip) for clip in batch.clips]
            length = batch.reference.shape[-1]
            decoded = torch.stack([fit_length(torch.from_numpy(clip.audio), length) for clip in loaded])
            return Coded(decoded, none, nowhere, ["; ".join(clip.notes) or None for clip in loaded])
        if prepared.change is not None:
            return Coded(prepared.change(batch.reference, self.sample_rate), none, nowhere, none)
        codec, rate = prepared.codec, prepared.rate
        assert codec is not None and rate is not None
        return self._encode(prepared, codec, rate, batch)

    def _encode(self, prepared: PreparedCondition, codec: Codec, rate: Rate, batch: Batch) -> Coded:
        if codec.sample_rate not in batch.inputs:
            samples = audio.resample(batch.reference.numpy(), self.sample_rate, codec.sample_rate)
            batch.inputs[codec.sample_rate] = torch.from_numpy(samples)
        given = batch.inputs[codec.sample_rate]
        encoded, encode_s = self._encoded(codec, rate, batch, given)
        start = time.perf_counter()
        decoded = _decoded(codec, encoded, given)
        decode_s = time.perf_counter() - start
        rows = [self.row(prepared, clip) for clip in batch.clips]
        places = [
            self.store.write_encoded(
                prepared.condition.point, clip.id, _bytes_of(item), Place() if row is None else row.place
            )
            for clip, item, row in zip(batch.clips, encoded, rows, strict=True)
        ]
        count = len(batch.clips)
        return Coded(
            self._fitted(decoded, codec, batch.reference.shape[-1]),
            encoded,
            places,
            [None] * count,
            encode_s / count,
            decode_s / count,
        )

    def _encoded(
        self, codec: Codec, rate: Rate, batch: Batch, given: torch.Tensor
    ) -> tuple[list[Encoded], float]:
        """A batch at a rate, cut out of a higher one if possible; and seconds."""
        own = {c.rate.label: c for c in self.conditions if c.codec is codec and c.rate is not None}
        of = highest(codec, rate, [c.rate for c in own.values() if c.rate is not None])
        whole = own.get(of.label)
        if whole is None:
            return _timed(codec, rate, given)
        point = whole.condition.point
        if of is not rate and point not in batch.whole:
            batch.whole[point] = self._stored(whole, batch) or _timed_if_it_works(codec, of, given)
        found = batch.whole.get(point)
        if found is None:
            return _timed(codec, rate, given)
        if of is rate:
            return found
        start = time.perf_counter()
        encoded = check_encoded(codec.name, [codec.truncate(clip, rate) for clip in found[0]], len(given))
        return encoded, found[1] + time.perf_counter() - start

    def _stored(self, prepared: PreparedCondition, batch: Batch) -> tuple[list[Encoded], float] | None:
        """Clips encoded before, and their seconds; None if any is missing."""
        rows = [self.row(prepared, clip) for clip in batch.clips]
        done = [row for row in rows if row is not None and row.error is None and row.encode_s is not None]
        try:
            encoded = [self.store.read_encoded(row) for row in done]
        except (OSError, UserError):
            return None
        return (encoded, sum(row.encode_s or 0 for row in done)) if len(done) == len(rows) else None

    def decode(
        self, codec: Codec, encoded: list[Encoded], length: int, given: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(clips, channels, ``length``) of clips that a codec encoded from ``given``, if known; on the CPU.

        soxr always resamples there: another library's filter on a GPU has other coefficients, so scores would
        depend on the device. Alignment and metrics move it back to their device.
        """
        return self._fitted(_decoded(codec, encoded, given), codec, length)

    def _fitted(self, decoded: torch.Tensor, codec: Codec, length: int) -> torch.Tensor:
        samples = audio.resample(decoded.float().numpy(), codec.output_sample_rate, self.sample_rate)
        return fit_length(torch.from_numpy(samples), length)

    def _rendered(self, prepared: PreparedCondition, clip: Clip) -> RenderedClip:
        rendered, file = prepared.rendered, prepared.files[clip.id]
        assert rendered is not None
        if file.fingerprint is None:
            raise UserError(file.missing)
        return self.rendered(rendered, rendered.find(clip.id, clip.path.name), file.fingerprint, clip)

    def rendered(self, folder: Rendered, path: Path, fingerprint: str, clip: Clip) -> RenderedClip:
        """A clip that was decoded elsewhere, read from its file."""
        info = self.unchanged.read(clip.path, clip.content_hash, partial(audio.info, clip.path))
        load = partial(
            folder.load,
            clip.id,
            clip.path.name,
            start_s=clip.start_s,
            duration_s=clip.duration_s,
            source_duration_s=info.duration_s,
            sample_rate=self.sample_rate,
            channels=self.channels,
        )
        return self.unchanged.read(path, fingerprint, load)


def make_batches(clips: Sequence[Clip], batch_size: int) -> list[list[Clip]]:
    """Clips of equal length and rate, in groups of ``batch_size``; nothing else matters."""
    ordered = sorted(clips, key=lambda clip: (clip.duration_s, clip.sample_rate, clip.id))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def fit_length(samples: torch.Tensor, length: int) -> torch.Tensor:
    """Cut or zero-pad (..., samples) to ``length``: resampling may give a sample too many or too few."""
    return functional.pad(samples, (0, length - samples.shape[-1]))


def _timed(codec: Codec, rate: Rate, given: torch.Tensor) -> tuple[list[Encoded], float]:
    """Clips as a codec encodes them, and the seconds it took."""
    start = time.perf_counter()
    encoded = check_encoded(codec.name, codec.encode(given.to(codec.device, copy=True), rate), len(given))
    return encoded, time.perf_counter() - start


def _timed_if_it_works(codec: Codec, rate: Rate, given: torch.Tensor) -> tuple[list[Encoded], float] | None:
    """None if it fails: the rate's own coding reports the failure, and lower rates may work."""
    try:
        return _timed(codec, rate, given)
    except KeyboardInterrupt:
        raise
    except FAULTS:
        return None


def _decoded(codec: Codec, encoded: list[Encoded], given: torch.Tensor | None) -> torch.Tensor:
    """Output of a codec's decoder, on the CPU; UserError if it is not audio, or not as long as ``given``."""
    decoded = codec.decode(encoded)
    shape: tuple[int | str, ...] = ("batch", "channels", "samples")
    if given is not None:
        shape = (*given.shape[:2], codec.output_length(given.shape[2]))
    check_decoded(codec.name, decoded, shape, torch.Tensor)
    return decoded.detach().cpu()


def _bytes_of(encoded: Encoded) -> bytes:
    """Bytes for the run folder. Raises UserError if they could not be decoded again."""
    data = encoded.to_bytes()
    try:
        Encoded.from_bytes(data)
    except UserError as error:
        reason = str(error).removesuffix("; delete it and run again")
        raise UserError(
            f"what the encoder returned cannot be kept: {reason}; baselines.check_codec shows more"
        ) from error
    return data
