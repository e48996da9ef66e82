"""Perplexities of codebooks against closed forms and simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from known import StepCodec, register_codecs
from nominal import evaluate

from baselines.codec import Encoded
from evaluation import open_results
from evaluation.statistics.codes import codebook_statistics


def test_uniform_and_constant_codes() -> None:
    uniform = codebook_statistics(np.full(8, 25), duration_s=2.0)
    assert uniform.perplexity == pytest.approx(8) and uniform.entropy_bits == pytest.approx(3)
    assert uniform.perplexity_miller_madow == pytest.approx(8)  # never above the size
    assert (uniform.frames, uniform.used, uniform.usage) == (200, 8, 1.0)
    assert uniform.kbps_entropy == pytest.approx(3 * 100 / 1000)
    constant = codebook_statistics(np.array([0, 50, 0, 0]), duration_s=1.0)
    assert constant.perplexity == 1 and constant.entropy_bits == 0 and constant.usage == 0.25
    unused = codebook_statistics(np.zeros(4, np.int64), duration_s=1.0)
    assert (unused.perplexity, unused.perplexity_miller_madow) == (1, 1)
    assert (unused.frames, unused.used, unused.entropy_bits, unused.kbps_entropy) == (0, 0, 0, 0)


def test_miller_madow_by_hand() -> None:
    found = codebook_statistics(np.array([3, 1, 0, 0, 0, 0, 0, 0]), duration_s=1.0)
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert found.entropy_bits == pytest.approx(entropy)
    assert found.entropy_bits_miller_madow == pytest.approx(entropy + 1 / (2 * 4 * math.log(2)))


def test_the_correction_takes_most_of_the_bias_away() -> None:
    # 1024 entries, near uniform; a minute at 86 Hz has 5168 frames and is biased by several percent.
    random = np.random.default_rng(0)
    p = random.uniform(0.5, 1.5, 1024)
    p /= p.sum()
    true = 2 ** -np.sum(p * np.log2(p))
    found = [codebook_statistics(random.multinomial(5168, p), 60.0) for _ in range(20)]
    plain = np.mean([entry.perplexity for entry in found]) / true - 1
    corrected = np.mean([entry.perplexity_miller_madow for entry in found]) / true - 1
    assert -0.12 < plain < -0.05 and abs(corrected) < 0.25 * abs(plain)


def test_statistics_of_a_run_are_kept_and_written(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_codecs(monkeypatch, StepCodec)
    results = evaluate(clip_folder, "steps,opus", [8], metrics="si_sdr", out=tmp_path / "run")
    entry, opus = results.corpus
    codes = np.concatenate(
        [
            Encoded.from_bytes(path.read_bytes()).codes[0]  # type: ignore[index]
            for path in (tmp_path / "run" / "encoded" / "steps@8").rglob("*.enc")
        ]
    )
    p = np.unique(codes, return_counts=True)[1] / len(codes)
    assert entry.perplexity == pytest.approx(2 ** -np.sum(p * np.log2(p)))
    assert entry.perplexity_of_mean == pytest.approx(entry.perplexity)
    assert entry.frames == len(codes) and entry.codebooks[0].size == 16
    assert not opus.codebooks and not opus.kbps_entropy_reason
    table = pd.read_csv(tmp_path / "run" / "perplexity.csv")
    assert table["codec"].tolist() == ["steps"] and table["perplexity"][0] == entry.perplexity
    for kind in ("png", "svg"):
        assert (tmp_path / "run" / f"perplexity.{kind}").stat().st_size > 1000
    # Loading again reads no encoded clip.
    monkeypatch.setattr(Encoded, "from_bytes", lambda data: pytest.fail("read again"))
    assert open_results(tmp_path / "run").corpus[0] == entry
