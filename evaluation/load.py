"""From the rows of a run to `Results`: the one way reports and statistics get at them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from baselines.codec import Encoded, Rate
from evaluation.datasets.base import Clip
from evaluation.results import CLIP_COLUMNS, Condition, MetricInfo, Results
from evaluation.store import RunStore, coded_key, condition_delay, number_from_json, score_key
from qincodec.errors import UserError


def open_results(folder: str | Path) -> Results:
    """Results of the run in ``folder``, complete or not. Raises UserError if it is not a run."""
    with RunStore(Path(folder), write=False) as store:
        return load_results(store)


def load_results(store: RunStore) -> Results:
    """Results of an open run. Clips without a row yet are counted in `Results.n_pending`."""
    run = store.read_run()
    if run is None:
        raise UserError(f"{store.folder} holds no run yet; start it with `evaluate --out {store.folder}`")
    conditions = [Condition(**entry) for entry in run["conditions"]]
    metrics = [MetricInfo(**entry) for entry in run["metrics"]]
    clips = store.read_clips()
    all_files = store.read_files()
    records: list[dict[str, Any]] = []
    corpus = []
    n_pending = 0
    for condition in conditions:
        rate_label = Rate(condition.nominal).label
        files = all_files.get(f"{condition.codec}@{rate_label}", {})
        keys = {clip.id: coded_key(condition, run["settings"], clip, files.get(clip.id)) for clip in clips}
        rows = {clip.id: store.row(keys[clip.id]) for clip in clips}
        delay = condition_delay(rows.values(), run["settings"]["align"])
        for clip in clips:
            row = rows[clip.id]
            if row is None:
                n_pending += 1
                continue
            records.append(_clip_record(condition, clip, row, delay))
            for metric in metrics:
                score = store.row(score_key(keys[clip.id], metric, delay))
                value = None if score is None else score["value"]
                records[-1][metric.name] = number_from_json(value)
                reason = "not scored yet" if score is None else score["reason"]
                records[-1][f"{metric.name}_reason"] = row["error"] or reason
        corpus.append(
            {
                "codec": condition.codec,
                "kbps": condition.kbps,
                **_code_entropy(store.folder, [row for row in rows.values() if row is not None]),
            }
        )
    columns = CLIP_COLUMNS + [name for metric in metrics for name in (metric.name, f"{metric.name}_reason")]
    return Results(
        clips=pd.DataFrame.from_records(records, columns=columns),
        conditions=conditions,
        metrics=metrics,
        corpus=corpus,
        dataset=run["dataset"],
        settings=run["settings"],
        environment=store.read_environment(),
        n_pending=n_pending,
    )


def _clip_record(condition: Condition, clip: Clip, row: dict[str, Any], delay: int) -> dict[str, Any]:
    """One row of `Results.clips`, without its metrics."""
    failed = row["error"] is not None
    size, duration_s = row.get("bytes"), row.get("duration_s", clip.duration_s)
    measured = size is not None and condition.rate_is == "measured"
    return {
        "codec": condition.codec,
        "kbps": math.nan if condition.kbps is None else condition.kbps,
        "kbps_nominal": math.nan if condition.nominal is None else condition.nominal,
        "kbps_measured": 8 * size / duration_s / 1000 if measured and size is not None else math.nan,
        "clip": clip.id,
        "recording": clip.recording,
        "content_hash": clip.content_hash,
        "category": clip.category,
        "duration_s": duration_s,
        "bytes": size if measured else math.nan,
        "delay_samples": number_from_json(row["delay"]),
        "delay_applied": math.nan if failed else delay,
        "gain_db": number_from_json(row.get("gain_db")),
        "encode_s": number_from_json(row.get("encode_s")),
        "decode_s": number_from_json(row.get("decode_s")),
        "error": row["error"],
    }


def _code_entropy(folder: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """First-order entropy of the codes of a condition over all its clips; {} for codecs without codes.

    ``kbps_entropy`` is the sum over codebooks of H = -sum p log2 p times the frames per second, in kbit/s:
    the rate an ideal memoryless entropy coder would reach with these frequencies.
    """
    counts: list[np.ndarray] = []
    frames, duration_s = 0, 0.0
    for row in rows:
        if row["error"] is not None or not row.get("codebooks"):
            continue
        try:
            encoded = Encoded.from_bytes((folder / row["encoded"]).read_bytes())
        except (OSError, UserError):
            return {"kbps_entropy_reason": f"{row['encoded']} is gone or damaged"}
        if encoded.codes is None:
            continue
        if not counts:
            counts = [np.zeros(size, np.int64) for size in encoded.codebook_sizes]
        for count, codes in zip(counts, encoded.codes, strict=True):
            count += np.bincount(codes, minlength=len(count))
        frames += encoded.codes.shape[1]
        duration_s += row["duration_s"]
    if not counts:
        return {}
    bits = 0.0
    for count in counts:
        p = count[count > 0] / frames
        bits -= float(np.sum(p * np.log2(p)))
    return {"kbps_entropy": bits * frames / duration_s / 1000, "frames": frames}
