"""Rates that are prefixes of a higher one are encoded once: the same rows and bytes as encoding each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from known import RATE, LayersCodec, register_codecs, tone_and_noise

from baselines.codec import Codec, Encoded, Rate
from baselines.qincodec import Qincodec
from evaluation import evaluate
from evaluation.statistics.recordings import TIMING_COLUMNS


class Counting(LayersCodec):
    """Remembers the rates it encoded at; fails on loud clips at the highest one."""

    encoded: list[float]

    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        self.encoded.append(rate.kbps or 0)
        if np.abs(audio).max() > 0.9 and rate.settings["num_codebooks"] == 8:
            raise RuntimeError("too loud for so many layers")
        return super().encode_clip(audio, rate)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    register_codecs(monkeypatch, Counting)
    monkeypatch.setattr("evaluation.report.files.write_plots", lambda *_: [])
    monkeypatch.setattr(Counting, "encoded", [], raising=False)
    return Counting


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings, one loud, one of another length."""
    folder = tmp_path_factory.mktemp("three")
    for seed, (peak, seconds) in enumerate([(0.3, 0.3), (0.95, 0.3), (0.4, 0.2)]):
        sound = tone_and_noise(seed, seconds)
        soundfile.write(folder / f"{seed}.wav", sound * peak / np.abs(sound).max(), RATE, subtype="FLOAT")
    return folder


def files(run: Path) -> dict[str, bytes]:
    """Encoded clips by name."""
    found = {str(path.relative_to(run)): path.read_bytes() for path in (run / "encoded").rglob("*.enc")}
    assert found
    return found


def rows(run: Path) -> list[dict[str, Any]]:
    """As they were written, without times."""
    lines = [json.loads(line) for path in (run / "rows").iterdir() for line in path.read_text().splitlines()]
    return [{name: row[name] for name in row if name not in ("encode_s", "decode_s")} for row in lines]


def without_times(clips: pd.DataFrame) -> pd.DataFrame:
    """In one order, whatever rate came first."""
    timed = clips.columns.intersection(TIMING_COLUMNS)
    return clips.drop(columns=timed).sort_values(["kbps", "clip"], ignore_index=True)


def nominal(three: Path, codec: str, kbps: list[float], out: Path) -> pd.DataFrame:
    results = evaluate(three, codec, kbps, metrics="si_sdr", match="nominal", out=out, workers=1)
    return results.clips


def test_same_rows_and_bytes_as_encoding_every_rate(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QINCODEC with a residual quantizer: three rates, one encoding of each batch."""
    encoded: list[tuple[int, Any]] = []
    encode = Qincodec.encode

    def counted(codec: Qincodec, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        encoded.append((len(audio), rate.settings["num_codebooks"]))
        return encode(codec, audio, rate)

    monkeypatch.setattr(Qincodec, "encode", counted)
    wanted = three, "qincodec:untrained:tiny", [8, 16, 24]
    once = nominal(*wanted, tmp_path / "once")
    assert len(encoded) == 2 and len({n for _, n in encoded}) == 1  # two lengths, two batches
    monkeypatch.setattr(Qincodec, "is_prefix", Codec.is_prefix)
    nominal(*wanted, tmp_path / "each")
    assert len(encoded) == 2 + 3 * 2
    assert files(tmp_path / "once") == files(tmp_path / "each")
    assert rows(tmp_path / "once") == rows(tmp_path / "each")
    # A lower rate is not said to take less time than the encoding that it was cut out of.
    times = once.pivot(index="clip", columns="kbps", values="encode_s")
    assert (times[8] >= times[24]).all() and (times[16] >= times[24]).all() and (times > 0).all().all()


def test_what_an_earlier_session_encoded_is_cut(
    counting: type[Counting], three: Path, tmp_path: Path
) -> None:
    low, middle, _ = (rate.kbps or 0 for rate in counting().rates())
    nominal(three, "layers", [middle], tmp_path / "run")
    assert counting.encoded == [middle] * 3
    resumed = nominal(three, "layers", [low, middle], tmp_path / "run")
    assert counting.encoded == [middle] * 3
    # What is gone from the folder is encoded again.
    (lost,) = (tmp_path / "run" / "encoded" / f"layers@{middle:.4g}").glob("0.enc")
    lost.unlink()
    for path in (tmp_path / "run" / "rows").iterdir():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if f'"rate":"{low:.4g}"' not in line))
    again = nominal(three, "layers", [low, middle], tmp_path / "run")
    assert counting.encoded[3:] == [middle] * 2  # a batch of two clips, of which one is gone
    fresh = nominal(three, "layers", [low, middle], tmp_path / "fresh")
    for clips in (resumed, again):
        pd.testing.assert_frame_equal(without_times(clips), without_times(fresh))


def test_a_clip_that_fails_at_the_highest_rate_is_coded_at_the_others(
    counting: type[Counting], three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kbps = [rate.kbps or 0 for rate in counting().rates()]
    once = nominal(three, "layers", kbps, tmp_path / "once")
    monkeypatch.setattr(counting, "is_prefix", Codec.is_prefix)
    nominal(three, "layers", kbps, tmp_path / "each")
    assert rows(tmp_path / "once") == rows(tmp_path / "each")
    assert files(tmp_path / "once") == files(tmp_path / "each")
    failed = once[once["error"].notna()]
    assert failed[["clip", "kbps"]].to_numpy().tolist() == [["1", kbps[-1]]]


def test_measured_rates_cost_one_encoding_of_the_pilot_and_one_of_the_run(
    counting: type[Counting], three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    low, middle, _ = (rate.kbps or 0 for rate in counting().rates())
    monkeypatch.setattr(counting, "rates", lambda codec, channels=1: LayersCodec.rates(codec)[:2])
    wanted: dict[str, Any] = {"metrics": "si_sdr", "workers": 1}
    asked = [low, (low + middle) / 2]
    once = evaluate(three, "layers", asked, out=tmp_path / "once", **wanted)
    assert counting.encoded == [middle] * 6
    assert once.summary["interpolated"].tolist() == [False, True]
    monkeypatch.setattr(counting, "is_prefix", Codec.is_prefix)
    each = evaluate(three, "layers", asked, out=tmp_path / "each", **wanted)
    assert len(counting.encoded) == 6 + 12
    assert each.asked == once.asked and rows(tmp_path / "once") == rows(tmp_path / "each")
    assert files(tmp_path / "once") == files(tmp_path / "each")
