"""Codecs and runs of parts for the tests of `evaluate merge`, and what is compared of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from known import LateCodec, StepCodec
from nominal import evaluate

from baselines.codec import Encoded
from evaluation.datasets import load_dataset
from evaluation.loading import load_results, open_results
from evaluation.report.files import write_all
from evaluation.results import Results
from evaluation.run.merge import merge_runs
from evaluation.run.store import RunStore
from evaluation.statistics.recordings import TIMING_COLUMNS

NAMES = ["a", "b", "c", "d", "sub/e", "sub/f", "g", "h", "i", "j"]
#: One clip at a time: batches of a part have other company than those of the whole.
OPTIONS: dict[str, Any] = {"batch_size": 1, "workers": 1, "metrics": "si_sdr,bands"}


class JitterCodec(StepCodec):
    """Late by another number of samples in every clip."""

    name = "jitter"

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        decoded = super().decode(encoded)
        delays = [30 + 3 * (len(item.payload) // 4 % 7) + item.payload[4000] % 5 for item in encoded]
        late = [torch.roll(item, delay, -1) for item, delay in zip(decoded, delays, strict=True)]
        return torch.stack(late)


class PickyCodec(StepCodec):
    name = "picky"
    fails_above = 0.425


OWN = (StepCodec, LateCodec, JitterCodec, PickyCodec)


def part(data: Path, names: Sequence[str], path: Path) -> Path:
    """A manifest of some of the clips, with the ids and recordings they have in the whole."""
    clips = [clip.to_json() for clip in load_dataset(data).clips if clip.id in names]
    keys = ("id", "path", "recording", "category")
    path.write_text("".join(json.dumps({key: clip[key] for key in keys}) + "\n" for clip in clips))
    return path


def split(data: Path, tmp_path: Path, parts: Sequence[Sequence[str]], codecs: str, **more: Any) -> list[Path]:
    """Runs of parts."""
    runs = []
    for number, names in enumerate(parts):
        runs.append(tmp_path / f"part{number}")
        manifest = part(data, names, tmp_path / f"{number}.jsonl")
        evaluate(manifest, codecs, [4, 8], out=runs[-1], **{**OPTIONS, **more})
    return runs


def merge(out: Path, runs: Sequence[Path]) -> Results:
    merge_runs(out, runs)
    with RunStore(out) as store:
        return load_results(store)


def tables(run: Path) -> dict[str, str]:
    """What a run's tables say, but for wall times; one of perplexities is there if a codec has codebooks."""
    write_all(open_results(run), run)
    found = {}
    for name in ("summary.csv", "clips.csv", "tests.csv", "perplexity.csv"):
        if name == "perplexity.csv" and not (run / name).exists():
            continue
        frame = pd.read_csv(run / name, dtype=str)
        frame = frame.drop(columns=[c for c in TIMING_COLUMNS if c in frame])
        found[name] = frame.to_csv(index=False)
    return found


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in (run / "rows").iterdir() for line in path.read_text().splitlines()]
