"""`mushra correlate`: coefficients and bootstrap against scipy and a slow loop, metrics of what was heard."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from nominal import evaluate
from scipy import stats
from typer.testing import CliRunner

from evaluation.metrics.base import Score
from evaluation.metrics.si_sdr import SiSdr
from evaluation.records import MetricInfo
from mushra.analysis.ratings import Ratings
from mushra.cli.study import register
from mushra.config.key import KeyTrial, read_key
from mushra.config.locate import KEY_NAME
from mushra.study.coefficients import (
    COEFFICIENTS,
    coefficient_interval,
    coefficients,
    difference_interval,
)
from mushra.study.correlate import Correlations, correlate, format_correlations, write_correlations
from mushra.study.heard import choose_settings, is_run, score_trials
from qincodec import audio
from qincodec.core.errors import UserError

UP = MetricInfo("up", "Up", "1", "dB", True, "Higher is better.")
DOWN = MetricInfo("down", "Down", "1", "", False, "Lower is better.")
NOISE = MetricInfo("noise", "Noise", "1", "", True, "Says nothing.")
SYSTEMS = {"dac@8": 30.0, "dac@16": 70.0, "opus@8": 40.0, "opus@16": 75.0}


def make_ratings(listeners: int = 7, items: int = 5, seed: int = 0) -> Ratings:
    generator = np.random.default_rng(seed)
    levels = {"reference": 99.0, "anchor35": 12.0, **SYSTEMS}
    rows = [
        (f"l{who}", f"i{what}", name, float(np.clip(round(level + generator.normal(0, 9)), 0, 100)))
        for who in range(listeners)
        for what in range(items)
        for name, level in levels.items()
    ]
    frame = pd.DataFrame(rows, columns=["listener", "item", "condition", "score"])
    return Ratings(frame, "reference", ("anchor35",))


def make_scores(items: int = 5, seed: int = 1) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    rows = []
    for what in range(items):
        for name, level in {"anchor35": 12.0, **SYSTEMS}.items():
            x = level / 5 + generator.normal(0, 2)
            rows.append((f"i{what}", name, x, math.exp(-x / 10), generator.normal()))
    return pd.DataFrame(rows, columns=["item", "condition", "up", "down", "noise"])


def row_of(result: Correlations, metric: str, level: str, anchors: str) -> dict[str, Any]:
    table = result.table
    chosen = table[(table["metric"] == metric) & (table["level"] == level) & (table["anchors"] == anchors)]
    assert len(chosen) == 1
    return chosen.to_dict("records")[0]


# Coefficients


@pytest.mark.parametrize("n", [3, 8, 60, 400])
@pytest.mark.parametrize("ties", [False, True])
def test_coefficients_are_scipys(n: int, ties: bool) -> None:
    generator = np.random.default_rng(n)
    x = generator.normal(size=n)
    y = x + generator.normal(size=n)
    if ties:
        x, y = np.round(x), np.round(y * 2) / 2
        x[0], x[1], y[0], y[1] = -9, 9, 9, -9
    found, reason = coefficients(x, y)
    assert reason == ""
    expected = (stats.pearsonr(x, y)[0], stats.spearmanr(x, y)[0], stats.kendalltau(x, y)[0])
    assert found == pytest.approx(expected, abs=1e-12)


def test_coefficients_have_a_reason_where_there_are_none() -> None:
    assert coefficients(np.array([1.0, 2.0]), np.array([1.0, 2.0]))[1].startswith("2 points")
    assert "values of the metric are equal" in coefficients(np.ones(4), np.arange(4.0))[1]
    assert "scores are equal" in coefficients(np.arange(4.0), np.ones(4))[1]
    assert coefficients(np.arange(4.0) * 1e-200, np.arange(4.0))[0] == pytest.approx((1, 1, 1))


def test_levels_and_anchors_are_what_pandas_makes_of_them() -> None:
    ratings, scores = make_ratings(), make_scores()
    result = correlate(ratings, scores, [UP, DOWN], num_resamples=100)
    for anchors in ("with", "without"):
        frame = ratings.frame[ratings.frame["condition"] != "reference"]
        if anchors == "without":
            frame = frame[frame["condition"] != "anchor35"]
        cells = frame.groupby(["item", "condition"])["score"].mean().reset_index().merge(scores)
        averaged = cells.groupby("condition")[["score", "up", "down"]].mean()
        for metric in ("up", "down"):
            for level, points in (("item", cells), ("condition", averaged)):
                row = row_of(result, metric, level, anchors)
                assert row["n"] == len(points)
                assert row["pearson"] == pytest.approx(stats.pearsonr(points[metric], points["score"])[0])
                assert row["spearman"] == pytest.approx(stats.spearmanr(points[metric], points["score"])[0])
                assert row["kendall"] == pytest.approx(stats.kendalltau(points[metric], points["score"])[0])
    assert (
        row_of(result, "down", "item", "with")["pearson"]
        < 0
        < row_of(result, "up", "item", "with")["pearson"]
    )
    assert "hidden reference" in result.notes[0]


# Bootstrap


def test_intervals_are_those_of_a_loop_over_copied_rows() -> None:
    """The same draws, done the slow way: rows of drawn listeners and items copied, then scipy."""
    ratings, scores = make_ratings(listeners=5, items=4), make_scores(items=4)
    incomplete = ratings.frame.drop(index=[7, 20, 33])
    ratings = Ratings(incomplete, "reference", ("anchor35",))
    resamples, seed = 60, 3
    result = correlate(ratings, scores, [UP], seed=seed, num_resamples=resamples)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(5, np.full(5, 0.2), size=resamples)
    items = generator.integers(4, size=(resamples, 4))
    frame = incomplete[~incomplete["condition"].isin(["reference", "anchor35"])]
    samples: dict[str, list[list[float]]] = {"item": [], "condition": []}
    for weights, chosen in zip(drawn, items, strict=True):
        copies = pd.concat(
            [frame[frame["listener"] == f"l{who}"] for who in range(5) for _ in range(weights[who])]
        )
        cells = copies.groupby(["item", "condition"])["score"].mean().reset_index().merge(scores)
        table = pd.concat(
            [cells[cells["item"] == f"i{what}"].assign(copy=k) for k, what in enumerate(chosen)]
        )
        averaged = table.groupby("condition")[["up", "score"]].mean()
        for level, points in (("item", table), ("condition", averaged)):
            x, y = points["up"].to_numpy(), points["score"].to_numpy().round(9)
            samples[level].append(
                [stats.pearsonr(x, y)[0], stats.spearmanr(x, y)[0], stats.kendalltau(x, y)[0]]
            )
    # Percentiles from four items, expanded after Hesterberg, to 1 where that is as far on the z scale.
    tail = stats.norm.cdf(-math.sqrt(4 / 3) * stats.t.ppf(0.975, 3))
    for level, values in samples.items():
        lows, highs = np.quantile(np.array(values), [tail, 1 - tail], axis=0)
        row = row_of(result, "up", level, "without")
        for index, name in enumerate(COEFFICIENTS):
            point, low, high = row[name], min(lows[index], row[name]), max(highs[index], row[name])
            if point < 1:
                high = max(high, math.tanh(2 * math.atanh(point) - math.atanh(low)))
            assert row[f"{name}_ci_low"] == pytest.approx(low, abs=1e-9)
            assert row[f"{name}_ci_high"] == pytest.approx(high, abs=1e-9)


def test_intervals_hold_their_estimate() -> None:
    """Noise pulls resamples towards 0: also where all of them are below the estimate."""
    low, high = coefficient_interval(0.9, np.linspace(0.5, 0.8, 99), 20)
    assert 0.5 <= low < 0.51 and math.atanh(high) - math.atanh(0.9) == pytest.approx(
        math.atanh(0.9) - math.atanh(low)
    )
    assert coefficient_interval(-0.9, -np.linspace(0.5, 0.8, 99), 20) == pytest.approx((-high, -low))
    low, high = coefficient_interval(1.0, np.array([0.8, 0.9, 1.0] * 50), 9)
    assert (low, high) == (0.8, 1.0)
    assert coefficient_interval(0.3, np.full(9, -1.0), 9) == (-1.0, 0.3)
    assert difference_interval(0.4, np.linspace(0.1, 0.3, 9), 9)[1] == 0.4
    plain = np.quantile(np.linspace(-1, 1, 4001), [0.025, 0.975])
    assert difference_interval(0.0, np.linspace(-1, 1, 4001), 10**6) == pytest.approx(tuple(plain), abs=1e-4)


def test_a_metric_that_predicts_is_found_better_than_one_that_does_not() -> None:
    ratings, scores = make_ratings(items=8), make_scores(items=8)
    result = correlate(ratings, scores, [DOWN, NOISE], num_resamples=300)
    table = result.differences
    row = table[
        (table["level"] == "item") & (table["anchors"] == "with") & (table["coefficient"] == "spearman")
    ]
    # The sign of a metric that is better when lower is turned.
    down, noise = (row_of(result, name, "item", "with")["spearman"] for name in ("down", "noise"))
    assert row["difference"].iloc[0] == pytest.approx(-down - noise)
    assert row["ci_low"].iloc[0] > 0 and row["better"].iloc[0] == "down"
    assert "Down predicted listeners better than Noise" in format_correlations(result)
    alike = correlate(
        ratings, scores.assign(other=scores["up"]), [UP, replace(UP, name="other")], num_resamples=100
    )
    assert "No metric was found to predict" in format_correlations(alike)
    same = correlate(ratings, scores, [UP, DOWN], num_resamples=100)
    spearman = same.differences["coefficient"] == "spearman"
    assert (same.differences.loc[spearman & (same.differences["level"] == "item"), "difference"] == 0).all()


def test_same_seed_same_result() -> None:
    first, second, other = (
        correlate(make_ratings(), make_scores(), [UP], seed=seed, num_resamples=100).table
        for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, second)
    assert not first.equals(other)


# Edges


def test_infinite_metrics_are_left_out_and_counted() -> None:
    ratings, scores = make_ratings(), make_scores()
    transparent = (scores["condition"] == "opus@16") & (scores["item"].isin(["i0", "i1"]))
    scores.loc[transparent, "up"] = math.inf
    result = correlate(ratings, scores, [UP], num_resamples=100)
    row = row_of(result, "up", "item", "with")
    assert row["n"] == 23 and row["n_left_out"] == 2 and math.isfinite(row["pearson"])
    assert row_of(result, "up", "condition", "with")["n"] == 5
    assert "Up: 2 cells without a finite value" in format_correlations(result)


@pytest.mark.parametrize(("listeners", "items"), [(1, 5), (5, 1)], ids=["one listener", "one item"])
def test_one_listener_or_item_has_no_interval(listeners: int, items: int) -> None:
    result = correlate(make_ratings(listeners, items), make_scores(items), [UP, NOISE], num_resamples=100)
    row = row_of(result, "up", "item", "with")
    assert math.isfinite(row["pearson"]) and math.isnan(row["pearson_ci_low"])
    assert "needs 2 of each" in row["ci_reason"]
    assert (result.differences["better"] == "").all()


def test_constant_scores_and_metrics_have_a_reason() -> None:
    ratings, scores = make_ratings(), make_scores()
    constant = correlate(ratings, scores.assign(up=1.0), [UP], num_resamples=100)
    assert constant.table["reason"].str.contains("all values of the metric are equal").all()
    ratings = Ratings(ratings.frame.assign(score=50.0), "reference", ("anchor35",))
    result = correlate(ratings, scores, [UP], num_resamples=100)
    assert result.table["reason"].str.contains("all scores are equal").all()
    assert "all scores are equal" in format_correlations(result)


def test_what_has_no_audio_is_said() -> None:
    ratings, scores = make_ratings(), make_scores()
    partly = scores[(scores["item"] != "i1") & (scores["condition"] != "dac@8")]
    result = correlate(ratings, partly, [UP], num_resamples=100)
    assert "item without audio in the test, left out: i1" in result.notes
    assert "condition without audio in the test, left out: dac@8" in result.notes
    with pytest.raises(UserError, match="the test folder has no item and condition"):
        correlate(ratings, scores.assign(item="other"), [UP])


def test_without_anchors_there_is_one_set() -> None:
    frame = make_ratings().frame
    ratings = Ratings(frame[frame["condition"] != "anchor35"], "reference")
    result = correlate(ratings, make_scores(), [UP], num_resamples=100)
    assert set(result.table["anchors"]) == {"without"}
    assert "anchors" not in format_correlations(result)


def test_files_are_the_same_bytes_and_valid(tmp_path: Path) -> None:
    ratings, scores = make_ratings(), make_scores()
    scores.loc[scores["condition"] == "opus@16", "up"] = math.inf
    written = []
    for name in ("a", "b"):
        result = correlate(ratings, scores, [UP], num_resamples=100)
        written.append(write_correlations(result, ratings, tmp_path / name))
    names = ["correlations.csv", "metric_differences.csv", "cells.csv", "correlations.json"]
    assert [path.name for path in written[0]] == [
        *names,
        "scatter_up.png",
        "scatter_up.svg",
        "scatter_up.pdf",
    ]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*written, strict=True))
    content = json.loads((tmp_path / "a" / "correlations.json").read_text(), parse_constant=pytest.fail)
    assert {row["up"] for row in content["cells"] if row["condition"] == "opus@16"} == {"inf"}
    assert content["num_resamples"] == 100 and content["metrics"][0]["name"] == "up"


# What was heard


def make_test(folder: Path, items: int = 3) -> dict[str, float]:
    """A test folder and its ratings; returns the SI-SDR of each (item, condition) by construction."""
    (folder / "stimuli").mkdir(parents=True)
    generator = np.random.default_rng(0)
    sample_rate, ratios, trials = 16_000, {"anchor35": 0.0, "codec@8": 8.0, "codec@16": 16.0, "b@8": 12.0}, {}
    known, rows = {}, []
    for item in range(items):
        # Orthogonal sine and cosine over whole periods: the noise is exactly what SI-SDR says.
        time = np.arange(8000) / sample_rate
        reference = (0.1 * np.sin(2 * np.pi * 200 * (item + 1) * time)).astype(np.float32)
        audio.write(folder / "stimuli" / f"r{item}.wav", reference, sample_rate)
        signals = {"reference": {"condition": "reference", "file": f"stimuli/r{item}.wav"}}
        for condition, ratio in ratios.items():
            noise = 0.1 * 10 ** (-(ratio + item) / 20) * np.cos(2 * np.pi * 200 * (item + 1) * time)
            name = f"x{item}{len(signals)}"
            path = folder / "stimuli" / f"{name}.wav"
            audio.write(path, reference + noise.astype(np.float32), sample_rate)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            signals[name] = {"condition": condition, "file": f"stimuli/{name}.wav", "sha256": digest}
            known[f"t{item}/{condition}"] = ratio + item
            rows += [
                f"t,l{who},t{item},{name},{min(100, 20 + 4 * int(ratio) + int(generator.integers(9)))},9000,"
                for who in range(4)
            ]
        rows += [f"t,l{who},t{item},reference,100,9000," for who in range(4)]
        trials[f"t{item}"] = {"reference": f"stimuli/r{item}.wav", "signals": signals}
    key = {"format": 1, "sample_rate": sample_rate, "trials": trials}
    (folder / "key.json").write_text(json.dumps(key))
    header = "session_test_id,session_uuid,trial_id,rating_stimulus,rating_score,rating_time,rating_comment"
    (folder / "mushra.csv").write_text("\n".join([header, *rows]) + "\n")
    return known


def file_of(trial: KeyTrial, condition: str) -> str:
    (file,) = [signal.file for signal in trial.signals.values() if signal.condition == condition]
    assert file is not None
    return file


def test_metrics_are_those_of_the_files(tmp_path: Path) -> None:
    known = make_test(tmp_path)
    settings = choose_settings(None, "si_sdr")
    scores = score_trials(tmp_path, read_key(tmp_path / KEY_NAME, whole=True).trials, settings)
    found = {
        f"{i}/{c}": v for i, c, v in zip(scores["item"], scores["condition"], scores["si_sdr"], strict=True)
    }
    assert found == pytest.approx(known, abs=1e-3)
    assert set(scores["si_sdr_reason"]) == {""}


def test_a_metric_takes_what_was_heard_at_its_own_rate(tmp_path: Path) -> None:
    class Low(SiSdr):
        sample_rate, speech_only = 8000, True

        def score(self, prepared: Any, decoded: Any, sample_rate: int) -> list[Score]:
            assert sample_rate == 8000 and prepared.shape == decoded.shape == (1, 1, 4000)
            return super().score(prepared[..., 400:-400], decoded[..., 400:-400], sample_rate)

    known = make_test(tmp_path, items=1)
    settings = replace(choose_settings(None, "si_sdr"), metrics=(Low(),))
    scores = score_trials(tmp_path, read_key(tmp_path / KEY_NAME, whole=True).trials, settings)
    assert scores["si_sdr"].tolist() == pytest.approx(list(known.values()), abs=0.05)
    everything = choose_settings(None)
    assert not any(metric.speech_only for metric in everything.metrics)
    assert any("pesq left out" in note for note in everything.notes)


def test_a_run_decides_metrics_rate_and_channels(tmp_path: Path) -> None:
    make_test(tmp_path / "test", items=1)
    run = tmp_path / "run"
    evaluate("demo", "opus", [16], metrics="si_sdr,logmel", limit=1, sample_rate=8000, out=run)
    assert is_run(run) and not is_run(tmp_path / "test")
    settings = choose_settings(run)
    assert [type(metric) for metric in settings.metrics] == [SiSdr] and settings.sample_rate == 8000
    assert "8000 Hz, 1 channel" in settings.notes[0] and "FD-logmel left out" in settings.notes[1]
    assert [info.name for info in settings.infos] == ["si_sdr", "fm_logmel", "cos_logmel"]
    test = tmp_path / "test"
    trials = read_key(test / KEY_NAME, whole=True).trials
    scores = score_trials(test, trials, settings).set_index("condition")
    found = scores["si_sdr"]
    # More noise, further away.
    distances = scores.loc[["codec@16", "b@8", "codec@8", "anchor35"], ["fm_logmel", "cos_logmel"]]
    assert (distances.diff().iloc[1:] > 0).all(axis=None)
    reference, decoded = (
        audio.resample(audio.read(test / path)[0], 16_000, 8000)[0].astype(float)
        for path in (trials["t0"].reference, file_of(trials["t0"], "codec@8"))
    )
    reference, decoded = reference - reference.mean(), decoded - decoded.mean()
    target = (reference @ decoded) / (reference @ reference) * reference
    expected = 10 * math.log10((target @ target) / ((decoded - target) @ (decoded - target)))
    assert found["codec@8"] == pytest.approx(expected, abs=1e-3)


def test_changed_missing_and_unlike_files_are_refused(tmp_path: Path) -> None:
    make_test(tmp_path, items=1)
    trials = read_key(tmp_path / KEY_NAME, whole=True).trials
    settings = choose_settings(None, "si_sdr")
    path = tmp_path / file_of(trials["t0"], "codec@8")
    original = path.read_bytes()
    audio.write(path, 0.5 * audio.read(path)[0], 16_000)
    with pytest.raises(UserError, match="differs from its SHA-256"):
        score_trials(tmp_path, trials, settings)
    path.unlink()
    with pytest.raises(UserError, match="create the test again"):
        score_trials(tmp_path, trials, settings)
    path.write_bytes(original)
    audio.write(tmp_path / "stimuli" / "r0.wav", np.ones((1, 100)), 16_000)
    with pytest.raises(UserError, match=r"its reference r0\.wav 1 x 100"):
        score_trials(tmp_path, trials, settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read key '.*key.json': No such file"),
        ("{", "is not a key of `mushra create`"),
        ('{"trials": {}}', "has format None"),
        ("[]", "is not a key of `mushra create`"),
        ('{"format": 9, "trials": {}}', "has format 9"),
        ('{"format": 1, "trials": {"a": {"signals": {}}}}', "is not a key of `mushra create`"),
    ],
)
def test_bad_keys_are_refused(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "key.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_key(tmp_path / KEY_NAME, whole=True)
    assert "\n" not in str(caught.value)


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(UserError, match="si_sdr"):
        choose_settings(None, "si_sdrr")


# The command


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def test_command_from_test_folder_to_figures(app: typer.Typer, tmp_path: Path) -> None:
    make_test(tmp_path / "test")
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app,
        ["correlate", str(tmp_path / "test"), "--resamples", "100", "--metrics", "si_sdr", "--out", str(out)],
    )
    assert result.exit_code == 0, result.output
    assert "SI-SDR" in result.output and "with anchors" in result.output
    table = pd.read_csv(out / "correlations.csv")
    row = table[(table["level"] == "condition") & (table["anchors"] == "without")].iloc[0]
    assert row["n"] == 3 and row["spearman"] == 1.0
    assert set(pd.read_csv(out / "cells.csv")["condition"]) == {"anchor35", "codec@8", "codec@16", "b@8"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--resamples", "5"], "--resamples 5"), (["nowhere.csv"], "nowhere.csv"), ([], "holds no ratings")],
)
def test_command_refuses_in_one_line(
    app: typer.Typer, arguments: list[str], message: str, tmp_path: Path
) -> None:
    make_test(tmp_path, items=1)
    (tmp_path / "mushra.csv").unlink()
    result = CliRunner().invoke(app, ["correlate", str(tmp_path), *arguments])
    assert isinstance(result.exception, UserError) and message in str(result.exception)
    assert "\n" not in str(result.exception)
