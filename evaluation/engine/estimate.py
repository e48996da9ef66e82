"""Time and storage of a run, extrapolated from seconds of it (``evaluate --dry-run``)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from baselines.registry import of_plugin
from evaluation.datasets.base import Clip
from evaluation.engine.conditions import PreparedCondition
from evaluation.engine.matching import PATIENCE, PILOT_CLIPS, PILOT_S, STEP_TOLERANCE
from evaluation.engine.runner import PreparedRun, Runner
from evaluation.engine.speeds import Speeds
from evaluation.run.store import RunStore
from evaluation.statistics.matching import meets
from qincodec import audio
from qincodec.core.errors import UserError

#: Seconds that coding and scoring a sample should take; seconds of audio in the sample before it, which shows
#: how long the next may be.
_AIM_S, _FIRST_S = 1.5, 1.0


@dataclass(frozen=True)
class Estimate:
    """Time and storage of a run, extrapolated from ``sample_s`` seconds of ``sample_clips`` of its clips."""

    n_clips: int
    n_conditions: int
    sample_clips: int
    sample_s: float
    time_s: float
    disk_bytes: int


@dataclass(frozen=True)
class _Measured:
    """Cost of a sample: wall time in all, and without coding; bytes of its run folder."""

    clips: list[Clip]
    wall_s: float
    speeds: Speeds
    num_bytes: int

    @property
    def audio_s(self) -> float:
        return sum(clip.duration_s for clip in self.clips)


def estimate(run: PreparedRun) -> Estimate:
    """Code and score a sample of typical clips in a temporary folder, and extrapolate.

    A second of one clip comes first; it shows how long the sample may be, up to a batch of whole clips. A
    codec's time is extrapolated separately, so that the pilot and further points of measured rates can be
    counted. An embedding takes equally long for every condition, and is measured once.
    """
    clips = sorted((c for c in run.dataset.clips if c.error is None), key=lambda c: (c.duration_s, c.id))
    if not clips:
        raise UserError("no readable clip to estimate from; check the data")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the run itself
    try:
        count = min(len(clips), run.request.typed.batch_size)
        typical = clips[(len(clips) - count) // 2 :][:count]
        first = _measure(run, _cut(typical[:1], _FIRST_S))
        affordable = first.audio_s * _AIM_S / first.wall_s
        length = max(_FIRST_S, min(affordable, typical[0].duration_s))
        measured = _measure(run, _cut(typical[: max(1, int(affordable / length))], length))
        embedding_s, frame_bytes = _embed(run, measured.clips[0])
    finally:
        torch.set_num_threads(threads)
    seconds = sum(clip.duration_s for clip in clips)
    conditions = len(run.conditions) + len(run.floor)
    coding = {key: (s.encode + s.decode) / s.audio for key, s in measured.speeds.by_condition.items()}
    encoding = {key: s.encode / s.audio for key, s in measured.speeds.by_condition.items()}
    rest = (measured.wall_s / measured.audio_s - sum(coding.values())) / len(run.conditions)
    total = (conditions + 1) * embedding_s * seconds
    for prepared in run.conditions:
        key = prepared.condition.codec, prepared.condition.rate_label
        pilot_s, points = _matching(run, prepared, clips)
        total += encoding.get(key, 0.0) * pilot_s + (coding.get(key, 0.0) + rest) * points * seconds
    share = seconds / measured.audio_s
    batches = -(-len(clips) // run.request.typed.batch_size)
    return Estimate(
        len(clips),
        len(run.conditions),
        len(measured.clips),
        measured.audio_s,
        total / min(run.workers, batches),
        int(measured.num_bytes * share + (conditions + 1) * frame_bytes * seconds),
    )


def _cut(clips: Sequence[Clip], longest_s: float) -> list[Clip]:
    return [replace(clip, duration_s=min(clip.duration_s, longest_s)) for clip in clips]


def _measure(run: PreparedRun, clips: list[Clip]) -> _Measured:
    """Code and score some clips, without embeddings."""
    speeds = Speeds()
    with tempfile.TemporaryDirectory(prefix="evaluate-dry-run-") as temporary:
        with RunStore(Path(temporary) / "run") as store:
            store.on_append = speeds.add
            began = time.perf_counter()
            Runner(store, replace(run, dataset=replace(run.dataset, clips=clips), embeddings=[])).run()
            wall_s = time.perf_counter() - began
        num_bytes = sum(path.stat().st_size for path in Path(temporary).rglob("*") if path.is_file())
    return _Measured(clips, wall_s, speeds, num_bytes)


def _embed(run: PreparedRun, clip: Clip) -> tuple[float, float]:
    """Seconds that all embeddings take for a second of audio, and bytes of their frames."""
    rate = run.settings.sample_rate
    samples, sample_rate = audio.read(clip.path, clip.start_s, clip.duration_s)
    mono = torch.from_numpy(audio.resample(audio.mix(samples, 1), sample_rate, rate)[0])
    taken = num_bytes = 0.0
    for embedding in run.embeddings:
        name, embed = embedding.name, embedding.embed
        few = partial(embed, mono[: rate // 2].clone(), rate)  # the first call is slower
        of_plugin("embedding", name, "embed()", few)
        began = time.perf_counter()
        frames = of_plugin("embedding", name, "embed()", partial(embed, mono.clone(), rate))
        taken += time.perf_counter() - began
        num_bytes += 4 * frames.numel()
    duration_s = len(mono) / rate
    return taken / duration_s, num_bytes / duration_s


def _matching(run: PreparedRun, prepared: PreparedCondition, clips: Sequence[Clip]) -> tuple[float, int]:
    """At measured rates: seconds that the pilot will encode, about, and operating points of an asked rate."""
    codec, kbps = prepared.codec, prepared.condition.kbps
    if run.settings.match != "measured" or codec is None or kbps is None or prepared.condition.control:
        return 0.0, 1
    seconds = sum(clip.duration_s for clip in clips)
    few = seconds * min(1.0, PILOT_CLIPS / len(clips))
    if codec.rate_at(kbps, run.settings.channels) is not None:
        return PATIENCE * few + PATIENCE * max(few, min(seconds, PILOT_S)), 1
    nominal = prepared.condition.nominal
    return 2 * few, 1 if nominal is not None and meets(nominal, kbps, STEP_TOLERANCE) else 2
