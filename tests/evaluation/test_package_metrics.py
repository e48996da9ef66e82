"""Metrics of other people's packages: each is what the package itself says of stored pairs."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch

from evaluation.engine.scoring import Form
from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric, Score

RATE = 44100
#: Name -> what a perfect copy has. PESQ: the mapping of P.862.2 at its best; ViSQOL: what the package says of
#: the C++ program's conformance test with identical signals.
PERFECT = {
    "pesq": 0.999 + 4 / (1 + math.exp(-1.3669 * 4.5 + 3.8224)),
    "stoi": 1.0,
    "estoi": 1.0,
    "visqol": 4.7321,
    "visqol_speech": 5.0,
    "2f": 100.0,
}
#: What seabass-2f 0.1.0 says of ``speech--opus16`` from 1 s to 3 s.
COMPILED_2F = 60.232472
Pairs = Callable[[str, float], tuple[np.ndarray, np.ndarray]]


def metric_of(name: str) -> Metric:
    """The metric; skips where its package is absent."""
    kind: type[Metric] = METRICS.load(name)
    if reason := kind.unavailable():
        pytest.skip(f"{reason} (which may take a compiler)")
    return kind()


def score(metric: Metric, reference: Any, decoded: Any) -> Score:
    """Of signals (samples,) at 44.1 kHz, as the engine asks."""
    form = Form.of(metric)
    signals = (torch.tensor(np.asarray(part, np.float32))[None, None] for part in (reference, decoded))
    r, d = (form.make(part, RATE) for part in signals)
    rate = form.sample_rate or RATE
    (found,) = metric.score(metric.prepare(r, rate), d, rate)
    return found


@pytest.fixture(scope="module")
def pair(shared: Callable[[str], Path]) -> Pairs:
    """The best part of a stored clip and of its degraded version, (samples,) float32."""

    def read(what: str, seconds: float = 1.6) -> tuple[np.ndarray, np.ndarray]:
        folder, length = shared("golden/metrics"), round(seconds * RATE)
        files = (folder / f"speech{end}.flac" for end in ("", f"--{what}"))
        reference, decoded = (soundfile.read(file, dtype="float32")[0][RATE:][:length] for file in files)
        return reference, decoded

    return read


def by_package(name: str, reference: np.ndarray, decoded: np.ndarray) -> float:
    """What the package's own interface returns, at the rate that its documentation asks for."""

    def at(rate: int) -> list[np.ndarray]:
        return [
            soxr.resample(part, RATE, rate, quality="VHQ").astype(np.float64) for part in (reference, decoded)
        ]

    if name == "pesq":
        return float(importlib.import_module("pesq").pesq(16000, *at(16000), "wb"))
    if name in ("stoi", "estoi"):
        stoi = importlib.import_module("pystoi").stoi
        return float(stoi(reference.astype(float), decoded.astype(float), RATE, extended=name == "estoi"))
    if name == "2f":
        estimate = importlib.import_module("seabass.core.models.mms").estimated_mean_mushra_score
        r, d = at(48000)
        return float(estimate(d, r))
    api = importlib.import_module("visqol").VisqolApi()
    speech = name == "visqol_speech"
    api.create(mode="speech" if speech else "audio", use_lattice_model=False)
    rate = 16000 if speech else 48000
    return float(api.measure_from_arrays(*at(rate), rate).moslqo)


@pytest.mark.parametrize("name", PERFECT)
def test_scores_are_those_of_the_package(name: str, pair: Pairs) -> None:
    metric = metric_of(name)
    for what in ("opus16", "lowpass3500"):
        reference, decoded = pair(what)
        found = score(metric, reference, decoded)
        expected = by_package(name, reference, decoded)  # after that: it is loaded as the metric loads it
        assert found.reason is None and found.value == pytest.approx(expected, rel=1e-6)
        assert 0 < expected < PERFECT[name]
    assert score(metric, reference, reference).value == pytest.approx(PERFECT[name], rel=1e-6)


@pytest.mark.parametrize("name", PERFECT)
def test_a_clip_that_cannot_be_scored_says_why(name: str, pair: Pairs) -> None:
    metric = metric_of(name)
    reference, decoded = pair("opus16")
    short = score(metric, reference[:5000], decoded[:5000])
    assert math.isnan(short.value) and not short.failed
    said = ("shorter than", "minimum patch size", "nothing to compare", "no passage")
    assert any(part in str(short.reason) for part in said)
    nothing = np.zeros_like(reference)
    assert score(metric, nothing, decoded).reason == "silent reference"
    assert score(metric, reference, nothing).reason == "silent output"
    broken = decoded.copy()
    broken[99] = math.nan
    assert score(metric, reference, broken).reason == "output contains NaN"


def test_2f_is_what_the_package_says_compiled(pair: Pairs) -> None:
    """Compiled by Numba, as it is by itself, which takes minutes and was done once."""
    assert score(metric_of("2f"), *pair("opus16", 2.0)).value == pytest.approx(COMPILED_2F, abs=1e-5)


def test_2f_has_no_score_of_a_single_click() -> None:
    click = np.zeros(RATE, np.float32)
    click[RATE // 2] = 0.9
    found = score(metric_of("2f"), click, 0.9 * click)
    assert found.reason == "no passage of the reference is long enough for PEAQ" and not found.failed


def test_pesq_takes_no_clip_that_its_program_has_no_room_for(pair: Pairs) -> None:
    """With more than 50 utterances it would end the process."""
    metric = metric_of("pesq")
    noise = np.random.default_rng(0).standard_normal(RATE * 20).astype(np.float32)
    noise[RATE * np.arange(len(noise)) // RATE // (RATE // 4) % 2 == 1] = 0  # 40 bursts
    assert score(metric, noise, 0.9 * noise).reason == (
        "longer than 19 s, beyond which PESQ may overrun; use --chunk"
    )
    assert score(metric, noise[: 18 * RATE], noise[: 18 * RATE]).value == pytest.approx(PERFECT["pesq"])


def test_estoi_draws_its_noise_from_a_seed_and_leaves_the_generator_alone(pair: Pairs) -> None:
    metric = metric_of("estoi")
    reference, _ = pair("opus16")
    low = np.zeros_like(reference)
    low[::40] = reference[::40]  # and silence in between: what is normalised is the package's noise
    low[len(low) // 2 :] = 0
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random(3).tolist()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    assert len({score(metric, reference, low).value for _ in range(3)}) == 1
    assert np.random.random(3).tolist() == expected  # noqa: NPY002


def test_visqol_is_asked_by_one_thread_at_a_time(pair: Pairs) -> None:
    """Numba's threads would end the process."""
    metric = metric_of("visqol")
    ask = partial(score, metric, *pair("opus16"))
    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(ask), pool.submit(ask)])
    assert first == second and first.reason is None


def test_versions_of_packages_are_versions_of_metrics() -> None:
    metric = metric_of("stoi")
    assert metric.version == f"1/pystoi-{importlib.import_module('pystoi').__version__}"
