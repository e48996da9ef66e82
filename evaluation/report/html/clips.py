"""The clips of a report: the reference and every decoded signal, as sound and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluation.datasets.base import Clip
from evaluation.engine.replay import RunAudio
from evaluation.records import Condition
from evaluation.report.cells import MISSING, kbps_text, row_label
from evaluation.report.html import media
from evaluation.report.html.assets import Assets
from evaluation.report.html.figures import codec_colours
from evaluation.results import Results
from evaluation.statistics.recordings import asked_rate
from qincodec.audio import Audio
from qincodec.core.errors import UserError

#: Operating point (`Condition.point`) -> the row of one clip.
Rows = dict[str, dict[Any, Any]]


@dataclass(frozen=True)
class Signal:
    """One signal of a clip, as sound and pictures. An address is "" if there is no file."""

    label: str
    kbps: str  # asked, "" for signals shown at every rate
    rate: str  # asked and measured
    scores: list[tuple[str, str]]
    colour: int | None
    sound: str = ""
    picture: str = ""
    difference: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Card:
    """A clip with its signals: the reference first, then the conditions in their order."""

    clip: Clip
    why: list[str]
    signals: list[Signal]
    rates: list[str]
    ticks: list[tuple[str, float]]
    remarks: list[str]


@dataclass(frozen=True)
class CardMaker:
    """Makes the cards of a run.

    Attributes:
        results: results of the run.
        sources: restores the audio of the run.
        assets: writes the files.
        workers: number of threads that decode; it does not change the result.
    """

    results: Results
    sources: RunAudio
    assets: Assets
    workers: int = 1

    def make(self, clip: Clip, why: Sequence[str]) -> Card:
        """The card of a clip; a signal that cannot be heard has the reason."""
        shown = [("", None), *self._shown()]
        conditions = [condition for _, condition in shown]
        with ThreadPoolExecutor(self.workers) as pool:
            loaded = list(pool.map(self._load, conditions, [clip] * len(conditions)))
        gain = media.playback_gain([part for part in loaded if not isinstance(part, str)])
        rate = self.sources.sample_rate
        levels = [None if isinstance(part, str) else media.levels(part, rate) for part in loaded]
        top = max((float(part.max()) for part in levels if part is not None), default=0.0)
        rows = self._rows(self.results, clip) | self._rows(self.results.points, clip)
        signals = []
        for (label, condition), sound, level in zip(shown, loaded, levels, strict=True):
            signal = self._describe(condition, rows)
            signal = replace(signal, label=f"{signal.label}{label}")
            if isinstance(sound, str) or level is None:
                signals.append(replace(signal, problem=str(sound)))
                continue
            title = f"{clip.id} {signal.label} {signal.kbps}"
            difference = ""
            if condition is not None and levels[0] is not None:
                image = media.difference_spectrogram(level, levels[0], top)
                difference = self.assets.add(f"{title} difference", ".webp", image)
            signals.append(
                replace(
                    signal,
                    sound=self.assets.add_sound(title, sound * np.float32(gain), rate),
                    picture=self.assets.add(title, ".webp", media.spectrogram(level, top)),
                    difference=difference,
                )
            )
        remarks = []
        if gain != 1.0:
            remarks.append(
                f"All signals of this clip are played {-20 * math.log10(gain):.2f} dB softer, because one of"
                " them exceeds full scale"
            )
        rates = sorted({signal.kbps for signal in signals if signal.kbps}, key=float)
        return Card(clip, list(why), signals, rates, media.frequency_ticks(rate), remarks)

    def _shown(self) -> Iterator[tuple[str, Condition]]:
        """(addition to the label, condition) of all signals; an interpolated row has both of its points."""
        for condition in self.results.conditions:
            between = self.results.between.get((condition.codec, condition.kbps))
            if between is not None:
                yield ", point below", replace(between.low, kbps=condition.kbps)
                yield ", point above", replace(between.high, kbps=condition.kbps)
            # The control "reference" would repeat the first row.
            elif condition.identity.get("name") != "reference":
                yield "", condition

    def _rows(self, results: Results | None, clip: Clip) -> Rows:
        if results is None:
            return {}
        records = results.clips[results.clips["clip"] == clip.id].to_dict("records")
        by_rate = {(record["codec"], asked_rate(record["kbps"])): record for record in records}
        return {c.point: by_rate.get((c.codec, asked_rate(c.kbps)), {}) for c in results.conditions}

    def _load(self, condition: Condition | None, clip: Clip) -> Audio | str:
        """The signal (None: the reference), or why there is none."""
        try:
            if clip.error is not None:
                raise UserError(clip.error)
            if condition is None:
                return self.sources.reference(clip)
            return self.sources.decoded(condition, clip)
        except UserError as error:
            return str(error)

    def _describe(self, condition: Condition | None, rows: Rows) -> Signal:
        if condition is None:
            return Signal("reference", "", "", [], None)
        row = rows.get(condition.point, {})
        asked = "" if condition.kbps is None else f"{condition.kbps:g}"
        measured = float(row.get("kbps_measured", math.nan))
        if condition.rate_is == "declared":
            rate = f"{asked} kbps declared"
        elif condition.rate_is == "none":
            rate = ""
        else:
            rate = f"{f'asked {asked}, ' if asked else ''}measured {kbps_text(measured)} kbps"
        scores = []
        for metric in self.results.clip_metrics:
            value = float(row.get(metric.name, math.nan))
            unit = f" {metric.unit}" if metric.unit else ""
            text = MISSING if math.isnan(value) else f"{value:.4g}{unit}"
            scores.append((metric.label, text))
        delay = self.sources.delay(condition)
        if delay:
            rate += f"{', ' if rate else ''}delay of {delay} samples removed"
        colour = codec_colours(self.results).get(condition.codec)
        return Signal(condition.codec, asked, rate, scores, colour)


def missing_sounds(cards: Sequence[Card]) -> list[str]:
    """Why signals cannot be heard, one line per reason."""
    problems: dict[str, list[str]] = {}
    for card in cards:
        for signal in card.signals:
            if signal.problem:
                kbps = float(signal.kbps) if signal.kbps else None
                problems.setdefault(signal.problem, []).append(row_label(signal.label, kbps))
    return [
        f"no audio of {', '.join(list(dict.fromkeys(labels))[:6])} ({len(labels)}×): {reason}"
        for reason, labels in problems.items()
    ]
