"""Results with known structure, made of a seed: what statistics and reports are tested on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from evaluation.records import Condition, DatasetInfo, MetricInfo, Settings, read
from evaluation.results import CLIP_COLUMNS, Results
from evaluation.rows import CodeStatistics
from evaluation.statistics.analysis import analysis

SI_SDR = MetricInfo(
    "si_sdr", "SI-SDR", "1", "dB", True, "scale-invariant signal-to-distortion ratio of the whole clip"
)
MS_MEL = MetricInfo(
    "ms_mel", "MS-Mel", "1", "", False, "sum over seven scales of the mean log10 mel difference"
)


def make_results(
    *,
    codecs: Mapping[str, float] | None = None,
    rates: Sequence[float] = (8.0, 16.0),
    num_recordings: int = 10,
    clips_per_recording: int = 1,
    rate_factor: Mapping[str, float] | None = None,
    troubles: bool = False,
    control: bool = False,
    declared: bool = False,
    seed: int = 0,
    dataset: Mapping[str, Any] | None = None,
) -> Results:
    """Scores that grow by 3 dB per octave of rate, plus an offset in dB per codec and noise.

    Args:
        codecs: label -> offset in dB; half a tenth of it is taken off MS-Mel.
        rate_factor: label -> measured rate / asked rate.
        troubles: the first codec fails on one clip at every rate, has one score without a value and a
            delay; the last one has an infinite score at the highest rate.
        control: adds a control "reference" with infinite SI-SDR and MS-Mel 0.
        declared: adds a condition "rendered" at the first rate with a declared rate.
    """
    codecs = dict(codecs or {"opus": 0.0, "qincodec": 1.0})
    rng = np.random.default_rng(seed)
    clips = [
        (f"rec{r:03d}/take{t}", f"rec{r:03d}")
        for r in range(num_recordings)
        for t in range(clips_per_recording)
    ]
    hardness = {f"rec{r:03d}": rng.normal(0, 2) for r in range(num_recordings)}
    durations = {clip: 5.0 if index % 3 else 4.25 for index, (clip, _) in enumerate(clips)}
    conditions = [
        Condition(codec, kbps, kbps, {"points": 1}, {"name": codec, "version": "1"})
        for codec in codecs
        for kbps in rates
    ]
    if declared:
        conditions.append(Condition("rendered", rates[0], rates[0], rate_is="declared"))
    if control:
        conditions.append(Condition("reference", None, None, rate_is="none", control=True))
    rows: list[dict[str, Any]] = []
    for condition in conditions:
        for clip, recording in clips:
            row = _blank(condition, clip, recording, durations[clip])
            if condition.control:
                row.update(delay_samples=0, delay_applied=0, gain_db=0.0, si_sdr=math.inf, ms_mel=0.0)
            else:
                _score(row, condition, codecs.get(condition.codec, -1.0), hardness[recording], rng)
                if condition.rate_is == "measured":
                    factor = (rate_factor or {}).get(condition.codec, 1.0)
                    row["bytes"] = round(row["kbps"] * factor * row["duration_s"] * 125)
                    row["kbps_measured"] = 8 * row["bytes"] / row["duration_s"] / 1000
                    row.update(encode_s=rng.uniform(0.01, 0.02), decode_s=rng.uniform(0.002, 0.003))
            rows.append(row)
    names = [name for m in (SI_SDR, MS_MEL) for name in (m.name, f"{m.name}_reason")]
    frame = pd.DataFrame(rows, columns=[*CLIP_COLUMNS, *names])
    if troubles:
        _add_troubles(frame, list(codecs), max(rates))
    return Results(
        clips=frame,
        conditions=conditions,
        metrics=[SI_SDR, MS_MEL],
        corpus=[
            CodeStatistics(c.codec, c.kbps, c.kbps * 0.95, 1000)
            for c in conditions
            if c.codec == "qincodec" and c.kbps is not None
        ],
        dataset=read(
            DatasetInfo,
            {
                "name": "synthetic",
                "n_clips": len(clips),
                "n_recordings": num_recordings,
                "hash": f"hash-{num_recordings}-{clips_per_recording}",
                **(dataset or {}),
            },
        ),
        settings=Settings(seed=seed),
        environment={"python": "3.11", "commit": "0" * 40},
        analysis=analysis(seed),
    )


def _blank(condition: Condition, clip: str, recording: str, duration_s: float) -> dict[str, Any]:
    return {
        "codec": condition.codec,
        "kbps": math.nan if condition.kbps is None else condition.kbps,
        "kbps_nominal": math.nan if condition.nominal is None else condition.nominal,
        "kbps_measured": math.nan,
        "clip": clip,
        "recording": recording,
        "content_hash": f"hash of {clip}",
        "category": None,
        "duration_s": duration_s,
        "bytes": math.nan,
        "encode_s": math.nan,
        "decode_s": math.nan,
        "error": None,
        "si_sdr_reason": None,
        "ms_mel_reason": None,
    }


def _score(
    row: dict[str, Any], condition: Condition, offset: float, hardness: float, rng: np.random.Generator
) -> None:
    level = 3 * math.log2((condition.kbps or 1.0) / 8) + offset + hardness
    row.update(
        delay_samples=0,
        delay_applied=0,
        gain_db=float(rng.normal(0, 0.1)),
        si_sdr=float(5 + level + rng.normal(0, 0.5)),
        ms_mel=float(1.2 - 0.05 * level + rng.normal(0, 0.02)),
    )


def _add_troubles(frame: pd.DataFrame, codecs: list[str], highest: float) -> None:
    first, last = frame["codec"] == codecs[0], frame["codec"] == codecs[-1]
    clips = sorted(frame["clip"].unique())
    failed = first & (frame["clip"] == clips[0])
    for column in ("si_sdr", "ms_mel", "bytes", "kbps_measured", "delay_samples", "delay_applied", "gain_db"):
        frame.loc[failed, column] = math.nan
    frame.loc[failed, ["encode_s", "decode_s"]] = math.nan
    error = "RuntimeError: encoder refused the clip_1 & gave up at 50 %"
    frame.loc[failed, ["error", "si_sdr_reason", "ms_mel_reason"]] = error
    silent = first & (frame["clip"] == clips[1])
    frame.loc[silent, "si_sdr"] = math.nan
    frame.loc[silent, "si_sdr_reason"] = "the reference is silent"
    frame.loc[first & ~failed, ["delay_samples", "delay_applied"]] = 312
    frame.loc[last & (frame["clip"] == clips[2]) & (frame["kbps"] == highest), "si_sdr"] = math.inf


def troubled(**dataset: Any) -> Results:
    """Everything that a report has to cope with."""
    rates = {"opus": 1.2}
    return make_results(troubles=True, control=True, declared=True, rate_factor=rates, dataset=dataset)
