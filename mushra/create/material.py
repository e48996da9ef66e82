"""Sources of a test's signals: an evaluation run, or folders of decoded files.

A run stores the output of its encoders. So its audio is restored without encoding, exactly as it was scored:
decoded, resampled to the run's sample rate, and without its condition's delay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch

from baselines.rendered import Rendered
from evaluation.datasets import load_dataset
from evaluation.datasets.base import Clip
from evaluation.datasets.unchanged import Unchanged
from evaluation.engine.alignment import Alignment, estimate_delay
from evaluation.engine.coding import fit_length
from evaluation.engine.replay import RunAudio
from evaluation.engine.request import parse_conditions, parse_kbps
from evaluation.loading import load
from evaluation.records import Condition, label_of
from evaluation.rows import CodedRow
from evaluation.run.store import RunStore, condition_delay
from mushra.check import is_control
from mushra.create.stimuli import MAX_CHANNELS, Raw, Unsuitable
from qincodec import audio
from qincodec.audio import Audio
from qincodec.core.errors import UserError

#: Excerpts of files begin on this grid; its step has whole samples at all usual sample rates.
GRID_S = 0.04
#: Margin on both sides of an excerpt, for delays of up to 0.1 s.
_MARGIN_S = 4 * GRID_S
#: A clip whose own delay differs more than this from its condition's has a delay of its own.
_FAR_S = 0.001
#: An excerpt that ends closer than this to the end of its recording counts as ending with it.
_END_S = 0.001


@dataclass(frozen=True)
class System:
    """A condition under test. ``label`` is its name in results: codec and rate, "qincodec@16"."""

    label: str
    codec: str
    kbps: float | None
    weights: str | None = None


@dataclass(frozen=True)
class Pick:
    """An excerpt of a clip; ``start_s`` is relative to the clip's start."""

    clip: Clip
    start_s: float
    duration_s: float


class Material(Protocol):
    """What `mushra create` needs from a run or from folders.

    Attributes:
        name: the run folder; None for folders.
        systems: conditions under test.
        sample_rate: of all signals, Hz.
        clips: clips that can be items, by id.
        excluded: (clip id, reason) of clips that cannot.
    """

    name: str | None
    systems: list[System]
    sample_rate: int
    clips: list[Clip]
    excluded: list[tuple[str, str]]

    def delays(self, picks: Sequence[Pick]) -> dict[str, int]:
        """Label -> delay of each condition, samples."""

    def load(self, pick: Pick) -> Raw:
        """The excerpt with the available margin. Raises `Unsuitable` if another excerpt may work."""

    def kbps_measured(self, label: str, clip: Clip) -> float | None:
        """Rate from the bytes of a clip's payload; None if it has no payload."""

    def reference(self, clip: Clip) -> Audio:
        """The whole clip."""


class RunMaterial:
    """An evaluation run.

    Args:
        run: its folder.
        codecs: comma-separated row labels; None: all codecs under test.
        kbps: comma-separated nominal rates; None: all of them.
        folders: ``NAME[@KBPS]=DIR`` of the run's conditions that were decoded elsewhere.
        weights: codec -> path, if a run used other weights than the shipped ones.
        device: device that codecs decode on.

    Raises:
        UserError: the folder is not a run, it lacks a condition, a codec cannot run here or differs from
            that of the run, or clips were not scored.
    """

    def __init__(
        self,
        run: Path,
        *,
        codecs: str | None = None,
        kbps: str | None = None,
        folders: Sequence[str] = (),
        weights: Mapping[str, str] | None = None,
        device: str = "cpu",
    ) -> None:
        self.name: str | None = str(run)
        with RunStore(run, write=False) as store:
            description = store.read_run()
        self._store = store
        self.sample_rate = description.settings.sample_rate
        conditions = load(run).heard if description.asked else description.conditions
        self._conditions = _choose(conditions, codecs, kbps, run)
        self.systems = [
            System(label, c.codec, c.kbps, c.identity.get("weights") or None)
            for label, c in self._conditions.items()
        ]
        given = {label_of(spec.label, spec.kbps): spec for spec in parse_conditions(folders)}
        unused = [label for label in given if label not in self._conditions]
        if unused:
            raise UserError(
                f"--condition {unused[0]} is not a chosen condition of {run}; chosen are"
                f" {', '.join(self._conditions)}"
            )
        self._audio = RunAudio(store, folders=list(given.values()), weights=weights, device=device)
        self._unchanged = Unchanged()
        self._all_clips = store.read_clips()
        self.clips: list[Clip] = []
        self.excluded: list[tuple[str, str]] = []
        for clip in self._all_clips:
            reason = clip.error or self._failure(clip)
            if reason is None:
                self.clips.append(clip)
            else:
                self.excluded.append((clip.id, reason))

    def delays(self, picks: Sequence[Pick]) -> dict[str, int]:
        return self._delays

    @cached_property
    def _delays(self) -> dict[str, int]:
        """Medians over the whole run: the delays that were removed before scoring."""
        found = {label: [self._row(label, clip) for clip in self._all_clips] for label in self._conditions}
        return {
            label: condition_delay((None if row is None else row.delay for row in rows), align=True)
            for label, rows in found.items()
        }

    def kbps_measured(self, label: str, clip: Clip) -> float | None:
        row = self._row(label, clip)
        if row is None or row.bytes is None or self._conditions[label].rate_is != "measured":
            return None
        return 8 * row.bytes / row.duration_s / 1000

    def reference(self, clip: Clip) -> Audio:
        return self._audio.reference(clip)

    def load(self, pick: Pick) -> Raw:
        clip = pick.clip
        reference = self.reference(clip)
        notes: list[str] = []
        decoded = {}
        for label, condition in self._conditions.items():
            said: list[str] = []
            decoded[label] = self._audio.late(condition, clip, said)
            notes += [f"'{label}': {note}" for note in said]
        first = round(pick.start_s * self.sample_rate)
        stop = min(reference.shape[1], first + round(pick.duration_s * self.sample_rate))
        ends = clip.start_s + stop / self.sample_rate
        whole = self._unchanged.read(clip.path, clip.content_hash, partial(audio.info, clip.path))
        found = {label: self._row(label, clip) for label in self._conditions}
        rows = {label: row for label, row in found.items() if row is not None}
        # Estimates of coded signals scatter by some samples; the scored delay is kept unless it is far off.
        far = _FAR_S * self.sample_rate
        own = {label: row.delay for label, row in rows.items()}
        notes += [f"'{label}': {row.note}" for label, row in rows.items() if row.note]
        return Raw(
            sample_rate=self.sample_rate,
            reference=reference,
            decoded=decoded,
            own_delays={n: d for n, d in own.items() if d is not None and abs(d - self._delays[n]) > far},
            first=first,
            stop=stop,
            cut_start=clip.start_s + pick.start_s > 0,
            cut_stop=ends < whole.duration_s - _END_S,
            notes=notes,
            name=clip.path.name,
        )

    def hardness(self) -> tuple[dict[str, float], list[str]]:
        """Clip id -> mean rank by the chosen conditions' scores (1 is the worst), and the metrics used.

        A clip's score of a metric is the mean over the chosen conditions. Clips that lack one are left out.

        Raises:
            UserError: the run has no metric, or no clip with all scores.
        """
        results = load(self._store.folder)
        metrics = {metric.name: metric.higher_is_better for metric in results.metrics if metric.per_clip}
        labels = [
            label_of(codec, None if math.isnan(kbps) else kbps)
            for codec, kbps in zip(results.clips["codec"], results.clips["kbps"], strict=True)
        ]
        rows = results.clips[[label in self._conditions for label in labels]].set_index("clip")
        scores = rows[list(metrics)].astype(float)
        complete = scores.notna().all(axis=1).groupby(level=0).sum() == len(self._conditions)
        clips = complete.index[complete]
        if not metrics or clips.empty:
            raise UserError(f"--pick hardest needs clips with scores of all conditions; {self.name} has none")
        means = scores.loc[scores.index.isin(clips)].groupby(level=0).mean()
        ranks = pd.DataFrame({name: means[name].rank(ascending=better) for name, better in metrics.items()})
        return {str(clip): float(rank) for clip, rank in ranks.mean(axis=1).items()}, list(metrics)

    def _row(self, label: str, clip: Clip) -> CodedRow | None:
        return self._audio.row(self._conditions[label], clip)

    def _failure(self, clip: Clip) -> str | None:
        for label in self._conditions:
            row = self._row(label, clip)
            if row is None:
                return f"{label} has no result yet; run `evaluate` to its end"
            if row.error is not None:
                return f"{label} failed: {row.error}"
        return None


class FolderMaterial:
    """Folders of files: one of references and one per condition, matched by name (`baselines.rendered`).

    Args:
        reference: folder, glob or manifest of the references; its folders are their categories.
        conditions: ``NAME[@KBPS]=DIR``.
        sample_rate: of the test, Hz; None: that of the references.

    Raises:
        UserError: a folder does not exist or is empty, or the references' rates differ.
    """

    def __init__(self, reference: str, conditions: Sequence[str], sample_rate: int | None = None) -> None:
        self.name: str | None = None
        self._rendered = {
            label_of(spec.label, spec.kbps): Rendered(spec.label, spec.folder, spec.kbps)
            for spec in parse_conditions(conditions)
        }
        if len(self._rendered) < len(conditions):
            raise UserError("two --condition options have the same name; rename one")
        if not self._rendered:
            raise UserError("--reference needs at least one --condition NAME=DIR to compare with it")
        _refuse_reserved(self._rendered)
        self.systems = [System(label, folder.label, folder.kbps) for label, folder in self._rendered.items()]
        found = load_dataset(reference, chunk_s=math.inf)
        self.excluded = [(clip.id, clip.error) for clip in found.clips if clip.error is not None]
        self.clips = [clip for clip in found.clips if clip.error is None]
        rates = sorted({clip.sample_rate for clip in self.clips})
        if sample_rate is None and len(rates) > 1:
            raise UserError(
                f"the references have {', '.join(map(str, rates))} Hz; choose the test's rate with"
                " --sample-rate"
            )
        self.sample_rate = sample_rate or (rates[0] if rates else 0)
        self._alignments: dict[Pick, dict[str, Alignment]] = {}
        self._unchanged = Unchanged("command", "begin again")

    def _read(self, clip: Clip, start_s: float = 0.0, duration_s: float | None = None) -> tuple[Audio, int]:
        """(samples, sample rate) of the listed recording. Raises `UserError` if the file has changed."""
        read = partial(audio.read, clip.path, start_s, duration_s)
        return self._unchanged.read(clip.path, clip.content_hash, read)

    def delays(self, picks: Sequence[Pick]) -> dict[str, int]:
        """Median delay of each condition over the picked excerpts."""
        found: dict[str, list[int | None]] = {label: [] for label in self._rendered}
        for pick in picks:
            try:
                raw = self.load(pick)
            except UserError:  # reported when the item is made
                continue
            for label, delay in raw.own_delays.items():
                found[label].append(delay)
        return {label: condition_delay(delays, align=True) for label, delays in found.items()}

    def kbps_measured(self, label: str, clip: Clip) -> float | None:
        return None

    def reference(self, clip: Clip) -> Audio:
        samples, sample_rate = self._read(clip)
        return audio.resample(samples, sample_rate, self.sample_rate)

    def load(self, pick: Pick) -> Raw:
        if pick.clip.channels > MAX_CHANNELS:
            raise Unsuitable(
                f"the reference has {pick.clip.channels} channels; `mushra create` aligns the loudness of 1"
                f" to {MAX_CHANNELS} (5.1). A YAML written by hand takes what browsers play: up to 8"
            )
        try:
            return self._load(pick)
        except UserError as error:  # of this recording's files
            raise Unsuitable(str(error)) from error

    def _load(self, pick: Pick) -> Raw:
        clip, rate = pick.clip, self.sample_rate
        begin = max(0.0, pick.start_s - _MARGIN_S)
        end = min(clip.duration_s, pick.start_s + pick.duration_s + _MARGIN_S)
        samples, file_rate = self._read(clip, begin, end - begin)
        reference = audio.resample(samples, file_rate, rate)
        notes = [f"reference resampled from {file_rate} Hz"] if file_rate != rate else []
        decoded = {}
        for label, folder in self._rendered.items():
            loaded = folder.load(
                clip.id,
                clip.path.name,
                start_s=begin,
                duration_s=end - begin,
                source_duration_s=clip.duration_s,
                sample_rate=rate,
                channels=clip.channels,
            )
            # Both were cut at the same place, so this needs no warning.
            notes += [f"'{label}': {note}" for note in loaded.notes if not note.startswith("cut from")]
            decoded[label] = fit_length(torch.from_numpy(loaded.audio), reference.shape[1]).numpy()
        if pick not in self._alignments:
            self._alignments[pick] = {
                label: estimate_delay(torch.from_numpy(reference)[None], torch.from_numpy(other)[None], rate)[
                    0
                ]
                for label, other in decoded.items()
            }
        alignments = self._alignments[pick]
        notes += [f"'{label}': {found.reason}" for label, found in alignments.items() if found.reason]
        first = round((pick.start_s - begin) * rate)
        stop = min(reference.shape[1], first + round(pick.duration_s * rate))
        return Raw(
            sample_rate=rate,
            reference=reference,
            decoded=decoded,
            own_delays={label: found.delay_samples for label, found in alignments.items()},
            first=first,
            stop=stop,
            cut_start=pick.start_s > 0,
            cut_stop=pick.start_s + pick.duration_s < clip.duration_s - _END_S,
            notes=notes,
            name=clip.path.name,
        )


def _refuse_reserved(labels: Mapping[str, Any]) -> None:
    for label in labels:
        if is_control(label):
            raise UserError(
                f"a condition cannot be called '{label}', which is the name of a hidden reference or an"
                " anchor; give another name"
            )


def _choose(
    conditions: Sequence[Condition], codecs: str | None, kbps: str | None, run: Path
) -> dict[str, Condition]:
    """Label -> condition, for the requested conditions."""
    by_label = {c.label: c for c in conditions}
    labels = list(dict.fromkeys(c.codec for c in conditions))
    wanted = [name.strip() for name in codecs.split(",") if name.strip()] if codecs is not None else None
    unknown = [name for name in wanted or [] if name not in labels]
    if unknown:
        raise UserError(f"{run} has no codec '{unknown[0]}'; it has {', '.join(labels)}")
    rates = parse_kbps(kbps) if kbps is not None else None
    chosen = {}
    for label, condition in by_label.items():
        if wanted is None and condition.control:
            continue
        if (wanted is None or condition.codec in wanted) and (
            rates is None or condition.kbps is None or condition.kbps in rates
        ):
            chosen[label] = condition
    for name in wanted or labels:
        missing = [
            rate
            for rate in rates or []
            if label_of(name, rate) not in by_label and any(c.codec == name and c.kbps for c in conditions)
        ]
        if missing:
            raise UserError(
                f"{run} has no '{label_of(name, missing[0])}'; it has {', '.join(by_label)}: evaluate it with"
                f" --out {run}, or ask for one of these"
            )
    if not chosen:
        raise UserError(f"no condition of {run} was chosen; it has {', '.join(by_label)}")
    _refuse_reserved(chosen)
    points = [(c.identity, c.settings, c.nominal, c.codec) for c in chosen.values()]
    for index, point in enumerate(points):
        if point in points[:index]:
            same = list(chosen)[points.index(point)], list(chosen)[index]
            raise UserError(f"{' and '.join(same)} are the same operating point; ask for one of them")
    return chosen
