"""The engine on clips and codecs whose right answers are known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from known import RATE, FragileCodec, LateCodec, StepCodec, register_codecs
from nominal import evaluate

from baselines.codec import Encoded, Rate
from evaluation import open_results
from evaluation.engine.request import parse_kbps
from qincodec.core.errors import Unavailable, UserError


class SoftCodec(LateCodec):
    gain = 0.5


class CountingCodec(StepCodec):
    name = "counting"
    encoded_clips = 0

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        CountingCodec.encoded_clips += len(audio)
        return super().encode(audio, rate)


class ShortCodec(StepCodec):
    name = "short"

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        return super().decode(encoded)[..., :-100]


class MonoCodec(StepCodec):
    name = "mono"
    channels = (1,)


class AbsentCodec(StepCodec):
    name = "absent"

    @classmethod
    def unavailable(cls, weights: str | None = None) -> str | None:
        return "its weights are not here; fetch them"


@pytest.fixture(autouse=True)
def codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    own = (StepCodec, SoftCodec, FragileCodec, CountingCodec, ShortCodec, MonoCodec, AbsentCodec)
    register_codecs(monkeypatch, *own)


def scores(frame: pd.DataFrame) -> pd.DataFrame:
    """What must not depend on how the work was cut up: all but wall times."""
    return frame.drop(columns=["encode_s", "decode_s"])


def rows_of(folder: Path) -> list[dict[str, object]]:
    lines = [line for path in sorted((folder / "rows").iterdir()) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_scores_and_rates_of_known_codecs(clip_folder: Path, tmp_path: Path) -> None:
    results = evaluate(clip_folder, "steps,reference", [8, 12], out=tmp_path / "run")
    clips = results.clips
    assert len(clips) == 7 * 3
    assert clips["error"].isna().all()
    steps = clips[clips["codec"] == "steps"]
    # 32 bits a sample go into the payload, whatever the nominal rate says.
    assert np.allclose(steps["kbps_measured"], 32 * RATE / 1000)
    assert np.allclose(steps["bytes"], steps["duration_s"] * RATE * 4)
    assert (steps["delay_samples"] == 0).all()
    # Rounding to steps of q adds noise of q^2 / 12: four bits finer is 24.08 dB better.
    eight, twelve = (steps[steps["kbps"] == kbps]["si_sdr"].to_numpy() for kbps in (8, 12))
    assert np.allclose(twelve - eight, 20 * np.log10(16), atol=0.15)
    for name, value in zip(steps["clip"][:7], eight, strict=True):
        samples, _ = soundfile.read(clip_folder / f"{name}.wav")
        assert value == pytest.approx(10 * np.log10(np.mean(samples**2) / (2.0**-16 / 12)), abs=0.2)
    reference = clips[clips["codec"] == "reference"]
    assert len(reference) == 7  # a control stands once, whatever rates were asked for
    assert np.isposinf(reference["si_sdr"]).all()
    assert (reference["ms_mel"] == 0).all()


def test_entropy_of_codes(clip_folder: Path, tmp_path: Path) -> None:
    results = evaluate(clip_folder, "steps", [4], out=tmp_path / "run")
    folder = tmp_path / "run" / "encoded" / "steps@4"
    codes = np.concatenate(
        [Encoded.from_bytes(path.read_bytes()).codes[0] for path in sorted(folder.rglob("*.enc"))]  # type: ignore[index]
    )
    p = np.unique(codes, return_counts=True)[1] / len(codes)
    assert results.corpus[0].kbps_entropy == pytest.approx(-np.sum(p * np.log2(p)) * RATE / 1000)
    assert results.corpus[0].frames == len(codes)


def test_one_delay_per_condition_is_taken_out_and_gain_never(clip_folder: Path, tmp_path: Path) -> None:
    late = evaluate(clip_folder, "late,steps", [12], out=tmp_path / "aligned").clips
    plain = late[late["codec"] == "steps"].reset_index()
    late = late[late["codec"] == "late"].reset_index()
    assert (late["delay_applied"] == 37).all()
    assert np.allclose(late["gain_db"], 20 * np.log10(0.5), atol=0.01)
    # SI-SDR does not see the gain, MS-Mel does: had it been applied, MS-Mel would be as good as without.
    assert np.allclose(late["si_sdr"], plain["si_sdr"], atol=0.1)
    assert (late["ms_mel"] > plain["ms_mel"] + 1).all()
    loose = evaluate(clip_folder, "late", [12], out=tmp_path / "loose", align=False).clips
    assert (loose["delay_samples"] == 37).all()
    assert (loose["delay_applied"] == 0).all()
    assert (loose["si_sdr"] < late["si_sdr"].min() - 10).all()


def test_nothing_is_computed_twice(clip_folder: Path, tmp_path: Path) -> None:
    CountingCodec.encoded_clips = 0
    first = evaluate(clip_folder, "counting", [8], out=tmp_path / "run")
    assert CountingCodec.encoded_clips == 7
    rows = rows_of(tmp_path / "run")
    again = evaluate(clip_folder, "counting", [8], out=tmp_path / "run")
    assert CountingCodec.encoded_clips == 7
    assert rows_of(tmp_path / "run") == rows
    pd.testing.assert_frame_equal(first.clips, again.clips)
    # A rate more costs that rate alone; a metric more costs no encoding at all.
    evaluate(clip_folder, "counting", [8, 12], out=tmp_path / "run")
    assert CountingCodec.encoded_clips == 14


def test_a_metric_added_later_is_scored_from_what_was_encoded(clip_folder: Path, tmp_path: Path) -> None:
    CountingCodec.encoded_clips = 0
    evaluate(clip_folder, "counting", [8], metrics="si_sdr", out=tmp_path / "run")
    later = evaluate(clip_folder, "counting", [8], metrics="ms_mel", out=tmp_path / "run")
    assert CountingCodec.encoded_clips == 7
    both = evaluate(clip_folder, "counting", [8], metrics="si_sdr,ms_mel", out=tmp_path / "new")
    pd.testing.assert_frame_equal(scores(later.clips), scores(both.clips))


def test_lost_encoded_files_are_made_again(clip_folder: Path, tmp_path: Path) -> None:
    evaluate(clip_folder, "counting", [8], metrics="si_sdr", out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "encoded")
    again = evaluate(clip_folder, "counting", [8], metrics="si_sdr,ms_mel", out=tmp_path / "run")
    assert again.clips["ms_mel"].notna().all()


@pytest.mark.slow
def test_batch_size_changes_nothing_that_matters(clip_folder: Path, tmp_path: Path) -> None:
    expected, *others = (
        evaluate(clip_folder, "steps,late,fragile", [4, 12], out=tmp_path / str(size), batch_size=size)
        for size in (8, 1, 3, 100)
    )
    for found in others:
        pd.testing.assert_frame_equal(scores(expected.clips), scores(found.clips), rtol=1e-6)


@pytest.mark.slow
def test_workers_change_nothing_at_all(clip_folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"codecs": "steps,late,opus", "kbps": [8, 12], "batch_size": 2}
    one, *others = (
        evaluate(clip_folder, **options, out=tmp_path / str(workers), workers=workers)
        for workers in (1, 2, 3)
    )
    timings = [name for name in one.summary.columns if name.startswith(("encode_", "decode_"))]
    for many in others:
        pd.testing.assert_frame_equal(scores(one.clips), scores(many.clips), check_exact=True)
        pd.testing.assert_frame_equal(
            one.summary.drop(columns=timings), many.summary.drop(columns=timings), check_exact=True
        )


def test_a_clip_that_fails_is_recorded_and_the_rest_is_scored(clip_folder: Path, tmp_path: Path) -> None:
    results = evaluate(clip_folder, "fragile,steps", [12], out=tmp_path / "run")
    fragile = results.clips[results.clips["codec"] == "fragile"].set_index("clip")
    peaks = {name: np.abs(soundfile.read(clip_folder / f"{name}.wav")[0]).max() for name in fragile.index}
    failed = {name for name, peak in peaks.items() if peak > 0.44}
    assert failed  # or the test would test nothing
    assert set(fragile.index[fragile["error"].notna()]) == failed
    assert all("too loud for this codec" in error for error in fragile["error"].dropna())
    assert fragile.loc[sorted(failed), "si_sdr"].isna().all()
    assert fragile.loc[sorted(set(peaks) - failed), "si_sdr"].notna().all()
    row = results.summary[results.summary["codec"] == "fragile"].iloc[0]
    assert (row["n"], row["n_failed"]) == (7 - len(failed), len(failed))


def test_what_failed_is_tried_again_and_only_that(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(clip_folder, "fragile", [12], out=tmp_path / "run")
    before = rows_of(tmp_path / "run")
    evaluate(clip_folder, "fragile", [12], out=tmp_path / "run")
    assert rows_of(tmp_path / "run") == before  # the same failure is not written twice
    monkeypatch.setattr(FragileCodec, "fails_above", 9.9)
    mended = evaluate(clip_folder, "fragile", [12], out=tmp_path / "run")
    assert mended.clips["error"].isna().all()
    fresh = evaluate(clip_folder, "fragile", [12], out=tmp_path / "fresh")
    pd.testing.assert_frame_equal(scores(mended.clips), scores(fresh.clips), check_exact=True)


def test_unreadable_files_among_good_ones_fail_by_name(clip_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(clip_folder, data)
    (data / "broken.wav").write_bytes(b"RIFF....WAVEgarbage")
    (data / "empty.flac").write_bytes(b"")
    nan = np.zeros(RATE, np.float32)
    nan[100] = np.nan
    soundfile.write(data / "nan.wav", nan, RATE, subtype="FLOAT")
    soundfile.write(data / "silent.wav", np.zeros(RATE, np.float32), RATE, subtype="FLOAT")
    results = evaluate(data, "steps", [8], out=tmp_path / "run")
    clips = results.clips.set_index("clip")
    assert len(clips) == 11
    assert set(clips.index[clips["error"].notna()]) == {"broken", "empty", "nan"}
    assert results.summary["n_failed"].tolist() == [3]
    # Silence has no SI-SDR, and that is no failure.
    assert np.isnan(clips.loc["silent", "si_sdr"])
    assert "silent" in clips.loc["silent", "si_sdr_reason"]
    assert results.summary["si_sdr_n"].tolist() == [7]


def test_saved_audio_is_what_was_scored(clip_folder: Path, tmp_path: Path) -> None:
    evaluate(clip_folder, "steps", [8], out=tmp_path / "run", save_audio=True)
    for path in sorted((tmp_path / "run" / "decoded" / "steps@8").rglob("*.wav")):
        name = path.relative_to(tmp_path / "run" / "decoded" / "steps@8")
        saved, rate = soundfile.read(path, dtype="float32")
        original, _ = soundfile.read(clip_folder / name, dtype="float32")
        assert rate == RATE
        assert np.array_equal(saved, np.round(original * 256) / 256)


def test_files_decoded_elsewhere_score_like_the_codec_itself(clip_folder: Path, tmp_path: Path) -> None:
    evaluate(clip_folder, "steps", [8], out=tmp_path / "run", save_audio=True)
    decoded = tmp_path / "run" / "decoded" / "steps@8"
    shutil.copytree(decoded, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "c.wav").unlink()
    results = evaluate(
        clip_folder, "steps", [8], conditions={"theirs@8": tmp_path / "elsewhere"}, out=tmp_path / "both"
    )
    clips = results.clips.set_index(["codec", "clip"])
    for name in "abdfg":
        assert clips.loc[("theirs", name), "si_sdr"] == clips.loc[("steps", name), "si_sdr"]
        assert clips.loc[("theirs", name), "ms_mel"] == clips.loc[("steps", name), "ms_mel"]
    assert "c" in clips.loc[("theirs", "c"), "error"]
    assert clips.loc["theirs"]["kbps_measured"].isna().all()
    # The missing file arrives: the same command scores it, and nothing else.
    shutil.copy(decoded / "c.wav", tmp_path / "elsewhere")
    before = len(rows_of(tmp_path / "both"))
    again = evaluate(
        clip_folder, "steps", [8], conditions={"theirs@8": tmp_path / "elsewhere"}, out=tmp_path / "both"
    )
    assert again.clips["error"].isna().all()
    kinds = [row["kind"] for row in rows_of(tmp_path / "both")[before:]]
    # SI-SDR, MS-Mel and the two of logmel per clip; its distributions are compared again.
    assert sorted(kinds) == ["coded", "corpus", "frames", *["score"] * 4]


def test_a_changed_decoded_file_is_scored_again(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path / "elsewhere")
    conditions = {"theirs": tmp_path / "elsewhere"}
    first = evaluate(clip_folder, "", conditions=conditions, out=tmp_path / "run")
    assert np.isposinf(first.clips["si_sdr"]).all()
    samples, _ = soundfile.read(clip_folder / "b.wav")
    soundfile.write(tmp_path / "elsewhere" / "b.wav", samples + 0.01, RATE, subtype="PCM_16")
    second = evaluate(clip_folder, "", conditions=conditions, out=tmp_path / "run").clips.set_index("clip")
    assert np.isfinite(second.loc["b", "si_sdr"])
    assert np.isposinf(second.drop("b")["si_sdr"]).all()


def test_a_decoder_of_the_wrong_length_fails(clip_folder: Path, tmp_path: Path) -> None:
    results = evaluate(clip_folder, "short", [8], out=tmp_path / "run")
    assert results.clips["error"].str.contains("the decoder returned audio of shape").all()


def test_interrupting_keeps_what_is_finished(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0

    def stop(what: str, done: int, total: int) -> None:
        nonlocal seen
        seen = done
        if what == "coding and scoring" and done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(clip_folder, "steps", [8, 12], out=tmp_path / "run", batch_size=1, workers=1, progress=stop)
    partial = open_results(tmp_path / "run")
    assert partial.n_pending + len(partial.clips) == 14
    assert 2 <= len(partial.clips) < 14
    whole = evaluate(clip_folder, "steps", [8, 12], out=tmp_path / "run", batch_size=1)
    fresh = evaluate(clip_folder, "steps", [8, 12], out=tmp_path / "fresh", batch_size=1)
    pd.testing.assert_frame_equal(scores(whole.clips), scores(fresh.clips), check_exact=True)


def test_another_configuration_is_refused_and_nothing_is_lost(clip_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = evaluate(clip_folder, "steps", [8], out=run)
    for change, message in (
        ({"channels": 2}, "channels was 1, now 2"),
        ({"align": False}, "align was True, now False"),
        ({"limit": 3}, "limit was None, now 3"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(clip_folder, "steps", [8], out=run, **change)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the data was"):
        evaluate(clip_folder / "sub", "steps", [8], out=run)
    with pytest.raises(UserError, match="identity of 'steps' was"):
        evaluate(clip_folder, "steps=late", [8], out=run)
    with pytest.raises(UserError, match="the row with this folder of clips was 'steps', now 'Steps'"):
        evaluate(clip_folder, "Steps=late", [8], out=run)
    pd.testing.assert_frame_equal(open_results(run).clips, first.clips)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codecs": "opsu"}, r"unknown codec 'opsu': did you mean opus\?"),
        ({"metrics": "si_sdrr"}, r"unknown metric 'si_sdrr': did you mean si_sdr\?"),
        ({"codecs": ""}, "nothing to evaluate"),
        ({"codecs": "steps,steps"}, "two codecs have the row name 'steps'"),
        ({"codecs": "a b=steps,a_b=late"}, "'a b' and 'a_b' would share one folder of clips"),
        ({"codecs": "a=steps", "conditions": ["A@8=x"]}, "'a' and 'A' would share one folder of clips"),
        ({"codecs": "a/b=steps"}, "'a/b' in 'a/b=steps' cannot name a row"),
        (
            {"kbps": "8,x"},
            "--kbps takes numbers of kbit/s above 0 and below 100000, .*; got 'x'",
        ),
        ({"kbps": "-3"}, "got '-3'"),
        ({"kbps": "nan"}, "got 'nan'"),
        ({"kbps": 0}, "got '0'"),
        ({"kbps": [None]}, "got 'None'"),
        ({"weights": {"dac": "x"}}, "--weights names 'dac', which is not among --codecs"),
        ({"conditions": ["theirs"]}, "--condition takes NAME=DIR or NAME@KBPS=DIR; got 'theirs'"),
        ({"codecs": "mono", "channels": 2}, "codec 'mono' codes 1 channel"),
        ({"channels": 6}, "--channels is 6; allowed: 1 or 2"),
        ({"device": "tpu9"}, "unknown device 'tpu9'"),
        ({"batch_size": 0}, "--batch-size is 0; allowed: 1 or more"),
        ({"codecs": "steps:somewhere"}, "codec 'steps' has no weights to load; got somewhere"),
    ],
)
def test_bad_requests_get_one_line_before_any_work(
    clip_folder: Path, tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        evaluate(clip_folder, **{"codecs": "steps", **arguments}, out=tmp_path / "run")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kbps", [8, 8.0, np.float32(8), "8", [8], (8, "8")])
def test_one_rate_may_be_a_number(kbps: object) -> None:
    assert parse_kbps(kbps) == [8.0]  # type: ignore[arg-type]


def test_codecs_that_cannot_run_are_all_named_or_skipped(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"absent: its weights are not here; .*--skip-unavailable"):
        evaluate(clip_folder, "steps,absent", [8], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    results = evaluate(clip_folder, "steps,absent", [8], out=tmp_path / "run", skip_unavailable=True)
    assert set(results.clips["codec"]) == {"steps"}


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_the_default_folder_is_found_again_by_the_same_request(clip_folder: Path, in_folder: Path) -> None:
    CountingCodec.encoded_clips = 0
    evaluate(clip_folder, "counting", [8])
    evaluate(clip_folder, "counting", [8])
    assert CountingCodec.encoded_clips == 7
    evaluate(clip_folder, "counting", [12])
    assert len(list((in_folder / "runs").iterdir())) == 2
