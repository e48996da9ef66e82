"""The metrics of embeddings in an evaluation: right, kept, resumed, and never another model's."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from known import FragileCodec, LateCodec, StepCodec, announce, frechet_distance, register_codecs
from nominal import evaluate
from toy_embedding import Absent, Bands, Fragile, OtherBands

from evaluation import open_results
from evaluation.engine.embedder import shift
from evaluation.metrics.embedding import compare_frames
from evaluation.report.compare import compare_runs
from evaluation.report.notes import notes
from evaluation.report.tables import all_tables
from evaluation.results import Results
from evaluation.rows import CodedRow, FramesRow
from evaluation.run.store import RunStore, frames_key
from qincodec import audio
from qincodec.core.errors import UserError


@pytest.fixture(autouse=True)
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codecs by name; the embedding as another package would announce it. Nothing is drawn."""
    register_codecs(monkeypatch, StepCodec, LateCodec, FragileCodec)
    replace_plug_in(monkeypatch, Bands)
    monkeypatch.setattr(Bands, "calls", 0)
    monkeypatch.setattr("evaluation.report.files.write_plots", lambda *_: [])


def replace_plug_in(monkeypatch: pytest.MonkeyPatch, kind: type[Bands]) -> None:
    announce(monkeypatch, EntryPoint("bands", f"toy_embedding:{kind.__name__}", "qincodec.embeddings"))


def frames_of(folder: Path, codec: str, bits: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """All frames of references and of decoded clips, computed from the audio again."""
    embedding = Bands()
    references, decoded, recordings = [], [], []
    for path in sorted(folder.rglob("*.wav")):
        samples, rate = audio.read(path)
        steps = np.round(samples * 2**bits) / 2**bits
        references.append(embedding.embed(torch.from_numpy(samples[0]), rate).numpy())
        decoded.append(embedding.embed(torch.from_numpy(steps[0].astype(np.float32)), rate).numpy())
        recordings += [str(path)] * len(references[-1])
    return np.concatenate(references), np.concatenate(decoded), recordings


def test_values_of_a_third_partys_embedding(clip_folder: Path, tmp_path: Path) -> None:
    results = evaluate(clip_folder, "steps", [4, 8], metrics="bands", out=tmp_path / "run")
    assert [m.name for m in results.metrics] == ["fd_bands", "kad_bands", "fm_bands", "cos_bands"]
    row = results.summary[results.summary["kbps"] == 4].iloc[0]
    x, y, _ = frames_of(clip_folder, "steps", 4)
    assert row["fd_bands"] == pytest.approx(frechet_distance(x, y), rel=1e-6)
    assert row["fd_bands_frames"] == len(x) and row["fd_bands_n"] == 7
    assert row["fd_bands_ci_low"] < row["fd_bands"] < row["fd_bands_ci_high"]
    assert row["fd_bands_limit"] == pytest.approx(max(0, 2 * row["fd_bands"] - row["fd_bands_half"]))
    assert row["fd_bands_half_frames"] == len(x) / 2
    assert row["fd_bands_limit_ci_low"] <= row["fd_bands_limit"] <= row["fd_bands_limit_ci_high"]
    clips = results.clips[results.clips["kbps"] == 4].set_index("clip")
    samples, rate = audio.read(clip_folder / "a.wav")
    r = Bands().embed(torch.from_numpy(samples[0]), rate).numpy().astype(float)
    d = Bands().embed(torch.from_numpy(np.round(samples[0] * 16) / 16), rate).numpy().astype(float)
    assert clips.loc["a", "fm_bands"] == pytest.approx(np.abs(r - d).mean(), rel=1e-5)
    cosines = (r * d).sum(1) / np.linalg.norm(r, axis=1) / np.linalg.norm(d, axis=1)
    assert clips.loc["a", "cos_bands"] == pytest.approx((1 - cosines).mean(), rel=1e-5)
    # Finer steps are nearer to the reference in all four.
    finer = results.summary[results.summary["kbps"] == 8].iloc[0]
    assert all(finer[m.name] < row[m.name] for m in results.metrics)


def test_the_reference_scores_zero_and_the_noise_floor_is_low(clip_folder: Path, tmp_path: Path) -> None:
    results = evaluate(clip_folder, "reference,steps", [4], metrics="bands", out=tmp_path / "run")
    reference, steps = results.summary.iloc[0], results.summary.iloc[1]
    assert reference["fm_bands"] == reference["kad_bands"] == reference["cos_bands"] == 0
    assert 0 <= reference["fd_bands"] < 1e-12
    assert results.noise_floor is not None
    floor = results.noise_floor.summary
    assert floor["codec"].tolist() == ["16 bits, dithered", "resampled and back"]
    for name in ("fd_bands", "fm_bands"):
        assert (floor[name] > 0).all() and (floor[name] < steps[name]).all()
    text = (tmp_path / "run" / "table.md").read_text()
    for part in (
        "noise floor",
        "16 bits, dithered",
        "FD-bands ↓",
        "at n/2",
        "KAD-bands ↓",
        "Bands by nobody",
    ):
        assert part in text
    summary = pd.read_csv(tmp_path / "run" / "summary.csv")
    assert (summary["rate_is"] == "noise floor").sum() == 2
    content = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(content["noise_floor"]) == 2 and content["embeddings"][0]["name"] == "bands"
    for entry in [*content["conditions"], *content["noise_floor"]]:
        assert all(entry.get(f"{name}_reason") for name, value in entry.items() if value is None)


def test_references_are_embedded_once_and_nothing_twice(clip_folder: Path, tmp_path: Path) -> None:
    evaluate(clip_folder, "steps", [4, 8, 12], metrics="bands", out=tmp_path / "run")
    assert Bands.calls == 7 * (1 + 3 + 2)  # references, three rates, two rows of the noise floor
    first = (tmp_path / "run" / "summary.csv").read_bytes()
    rows = (tmp_path / "run" / "rows" / "rank-0.jsonl").read_bytes()
    evaluate(clip_folder, "steps", [4, 8, 12], metrics="bands", out=tmp_path / "run")
    assert Bands.calls == 7 * 6
    assert (tmp_path / "run" / "rows" / "rank-0.jsonl").read_bytes() == rows
    # A codec added later costs its own clips alone.
    evaluate(clip_folder, "steps,late", [12], metrics="bands", out=tmp_path / "run")
    assert Bands.calls == 7 * 7
    assert first != (tmp_path / "run" / "summary.csv").read_bytes()


def test_another_models_embeddings_are_never_used(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(clip_folder, "steps", [4], metrics="bands", out=tmp_path / "run")
    with RunStore(tmp_path / "run", write=False) as store:
        row = next(row for row in store.rows() if isinstance(row, CodedRow))
        assert store.row(frames_key(Bands().identity(), row.key, 0), FramesRow) is not None
        assert store.row(frames_key(OtherBands().identity(), row.key, 0), FramesRow) is None
    replace_plug_in(monkeypatch, OtherBands)
    with pytest.raises(UserError, match="version of 'fd_bands' was 1/1, now 1/1/feedbeef"):
        evaluate(clip_folder, "steps", [4], metrics="bands", out=tmp_path / "run")


def test_lost_frames_are_made_again(clip_folder: Path, tmp_path: Path) -> None:
    first = evaluate(clip_folder, "steps", [4], metrics="bands", out=tmp_path / "run")
    shard = tmp_path / "run" / "embeddings" / "bands" / "rank-0.f32"
    shard.write_bytes(shard.read_bytes()[:-100])  # the last clip's are cut
    calls = Bands.calls
    again = evaluate(clip_folder, "steps", [4], metrics="bands", out=tmp_path / "run")
    assert Bands.calls == calls + 1
    pd.testing.assert_frame_equal(first.summary, again.summary)
    shutil.rmtree(shard.parent)
    remarks = "\n".join(open_results(tmp_path / "run").remarks)
    assert re.search(r"bands/rank-0.f32: the frames of \d+ signals are missing; .*run the same", remarks)
    assert open_results(tmp_path / "run").summary["fd_bands_reason"].str.contains("needs two frames").all()
    again = evaluate(clip_folder, "steps", [4], metrics="bands", out=tmp_path / "run")
    pd.testing.assert_frame_equal(first.summary, again.summary)


def test_frames_made_again_are_not_taken_for_those_that_were_cut(clip_folder: Path, tmp_path: Path) -> None:
    """What is made again for one codec must not stand where rows of another, that is not run, point to."""
    out = tmp_path / "run"
    first = evaluate(clip_folder, "late,steps", [4], metrics="bands", out=out)
    os.truncate(out / "embeddings" / "bands" / "rank-0.f32", 0)
    evaluate(clip_folder, "late", [4], metrics="bands", out=out)
    results = open_results(out)
    late, steps = (results.summary[results.summary["codec"] == name].iloc[0] for name in ("late", "steps"))
    assert late["fd_bands"] == first.summary[first.summary["codec"] == "late"].iloc[0]["fd_bands"]
    assert math.isnan(steps["fd_bands"]) and steps["fd_bands_n"] == 0
    assert any("rank-0.f32: the frames of" in remark for remark in results.remarks)
    again = evaluate(clip_folder, "late,steps", [4], metrics="bands", out=out)
    pd.testing.assert_frame_equal(first.summary, again.summary)
    assert not any("are missing" in remark for remark in again.remarks)


def test_files_of_several_processes_add_up(clip_folder: Path, tmp_path: Path) -> None:
    """What two processes of earlier versions wrote into one folder is read like what one wrote."""
    whole = evaluate(clip_folder, "steps", [4, 8], metrics="bands", out=tmp_path / "whole", batch_size=2)
    lines = (tmp_path / "whole" / "rows" / "rank-0.jsonl").read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines]
    data = (tmp_path / "whole" / "embeddings" / "bands" / "rank-0.f32").read_bytes()
    shutil.copytree(tmp_path / "whole", tmp_path / "split")
    out: dict[int, list[str]] = {0: [], 1: []}
    shards = {0: b"", 1: b""}
    for index, row in enumerate(rows):
        rank = index % 2
        if row["kind"] in ("corpus", "codes"):
            continue
        if row["kind"] == "frames":
            size = 4 * row["frames"] * row["dim"]
            part = data[row["offset"] : row["offset"] + size]
            row = {**row, "file": f"embeddings/bands/rank-{rank}.f32", "offset": len(shards[rank])}
            shards[rank] += part
        out[rank].append(json.dumps(row) + "\n")
    for rank in out:
        (tmp_path / "split" / "rows" / f"rank-{rank}.jsonl").write_text("".join(out[rank]))
        (tmp_path / "split" / "embeddings" / "bands" / f"rank-{rank}.f32").write_bytes(shards[rank])
    pd.testing.assert_frame_equal(open_results(tmp_path / "split").summary, whole.summary, check_exact=True)


def test_one_delay_is_taken_out_before_embedding(clip_folder: Path, tmp_path: Path) -> None:
    results = evaluate(clip_folder, "late,steps", [12], metrics="bands", out=tmp_path / "run")
    late, plain = results.summary.iloc[0], results.summary.iloc[1]
    assert late["delay_applied"] == 37
    loose = evaluate(clip_folder, "late", [12], metrics="bands", out=tmp_path / "loose", align=False)
    assert plain["fm_bands"] <= late["fm_bands"] < loose.summary["fm_bands"].iloc[0]


@pytest.mark.parametrize("delay", [-3, 0, 4])
def test_shift(delay: int) -> None:
    signal = torch.arange(1.0, 11.0)
    decoded = torch.zeros(10)
    decoded[max(delay, 0) : 10 + min(delay, 0)] = signal[max(-delay, 0) : 10 - max(delay, 0)]
    moved = shift(decoded, delay)
    kept = slice(max(-delay, 0), 10 - max(delay, 0))
    assert torch.equal(moved[kept], signal[kept]) and moved.count_nonzero() == 10 - abs(delay)


def test_what_cannot_be_embedded_is_said_and_tried_again(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_plug_in(monkeypatch, Fragile)
    results = evaluate(clip_folder, "steps", [8], metrics="si_sdr,bands", out=tmp_path / "run")
    assert results.clips["error"].isna().all() and results.clips["si_sdr"].notna().all()
    lost = results.clips[results.clips["fm_bands"].isna()]
    assert 0 < len(lost) < 7
    assert lost["fm_bands_reason"].str.contains("no embedding: RuntimeError: too loud for this network").all()
    assert results.summary["fd_bands_n"].tolist() == [7 - len(lost)]
    replace_plug_in(monkeypatch, Bands)
    mended = evaluate(clip_folder, "steps", [8], metrics="si_sdr,bands", out=tmp_path / "run")
    assert mended.clips["fm_bands"].notna().all() and mended.summary["fd_bands_n"].tolist() == [7]


def test_unavailable_embeddings_are_said_and_the_rest_is_scored(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_plug_in(monkeypatch, Absent)
    results = evaluate(clip_folder, "steps", [8], metrics="si_sdr,bands", out=tmp_path / "run")
    assert results.unavailable == {"bands": "its network is not here; fetch it"}
    assert [m.name for m in results.metrics] == ["si_sdr"] and results.noise_floor is None
    assert "Unavailable: bands: its network is not here" in (tmp_path / "run" / "table.md").read_text()
    with pytest.raises(UserError, match="no metric can be computed here: its network is not here"):
        evaluate(clip_folder, "steps", [8], metrics="bands", out=tmp_path / "other")
    assert not (tmp_path / "other").exists()
    replace_plug_in(monkeypatch, Bands)  # it arrives: the same command goes on
    results = evaluate(clip_folder, "steps", [8], metrics="si_sdr,bands", out=tmp_path / "run")
    assert results.unavailable == {} and results.summary["fd_bands"].notna().all()


def test_tests_compare_on_the_clips_all_codecs_have(clip_folder: Path, tmp_path: Path) -> None:
    results = evaluate(clip_folder, "fragile,steps", [4], metrics="bands", out=tmp_path / "run")
    tests = pd.read_csv(tmp_path / "run" / "tests.csv").set_index("metric")
    failed = int(results.summary["n_failed"].iloc[0])
    assert 0 < failed < 7
    # Where both worked they gave the same, so there is no difference, though the two values differ.
    assert tests.loc["fd_bands", "n_clips"] == 7 - failed
    assert tests.loc["fd_bands", "difference"] == 0 and tests.loc["fd_bands", "winner"] == "n.s."
    first, second = results.summary["fd_bands"]
    assert first != second


def test_paired_tests_find_the_better_codec(clip_folder: Path, tmp_path: Path) -> None:
    codecs = "fine=steps,coarse=steps"
    results = evaluate(clip_folder, codecs, [4], metrics="bands", out=tmp_path / "run")
    tests = pd.read_csv(tmp_path / "run" / "tests.csv").set_index("metric")
    assert tests.loc["fd_bands", "reason"] == "all differences are zero"
    other = evaluate(clip_folder, "fine=steps", [8], metrics="bands", out=tmp_path / "other")
    for condition in (*results.conditions, *other.conditions):
        object.__setattr__(condition, "kbps", 4.0)
    for run in (results, other):
        run.clips["kbps"] = 4.0
        run.scores = [score.__class__(**{**score.__dict__, "kbps": 4.0}) for score in run.scores]
        run.__dict__.pop("summary", None)
    comparison = compare_runs(results, other).table.set_index("metric")
    row = comparison.loc["fd_bands"]
    row = row if isinstance(row, pd.Series) else row.iloc[0]
    assert row["difference"] < 0 and row["ci_low"] < row["difference"] < row["ci_high"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("fd_logmel", "an embedding's metrics come together; ask for 'logmel'"),
        ("openl4", "unknown metric 'openl4': did you mean openl3"),
    ],
)
def test_names_of_metrics(clip_folder: Path, tmp_path: Path, asked: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(clip_folder, "steps", [8], metrics=asked, out=tmp_path / "run")


def test_silence_short_clips_and_few_frames_are_said(tmp_path: Path) -> None:
    import soundfile

    for name, samples in (("silent", 44100), ("short", 3000), ("one", 1)):
        signal = np.zeros(samples) if name == "silent" else 0.1 * np.ones(samples)
        (tmp_path / "data").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "data" / f"{name}.wav", signal, 44100, subtype="FLOAT")
    results = evaluate(tmp_path / "data", "steps", [8], metrics="logmel", out=tmp_path / "run")
    assert results.clips["fm_logmel"].notna().all()
    row = results.summary.iloc[0]
    assert row["fd_logmel"] >= 0 and row["fd_logmel_frames"] == 4
    text = "\n".join(note.text for note in notes(results, results.summary))
    assert "logmel: 2 of 4 reference frames are digital silence; they count" in text
    assert "logmel: 2 of 3 clips are shorter than a frame of 1 s" in text
    assert "4 reference frames for 80 dimensions: the covariances are singular" in text


def test_frames_without_direction_have_no_cosine() -> None:
    scores = compare_frames(np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32))
    assert scores["fm"].value == 1 and math.isnan(scores["cos"].value)
    assert "no direction" in (scores["cos"].reason or "")


def test_killed_between_frames_and_row_leaves_no_trace(clip_folder: Path, tmp_path: Path) -> None:
    """Frames without a row, as a kill leaves them, are not read and are not in the way."""
    folder = tmp_path / "run" / "embeddings" / "bands"
    whole = evaluate(clip_folder, "steps", [8], metrics="bands", out=tmp_path / "whole")
    evaluate(clip_folder, "steps", [8], metrics="si_sdr", out=tmp_path / "run")
    folder.mkdir(parents=True)
    (folder / "rank-0.f32").write_bytes(b"half a frame and an odd number of bytes")
    resumed = evaluate(clip_folder, "steps", [8], metrics="bands", out=tmp_path / "run")
    names = [m.name for m in whole.metrics]
    pd.testing.assert_frame_equal(resumed.summary[names], whole.summary[names], check_exact=True)


def test_ranks_share_why_an_embedding_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from evaluation.engine.embedder import load_embeddings

    replace_plug_in(monkeypatch, Absent)
    loaded, reasons = load_embeddings(["bands", "logmel"], "cpu")
    assert [e.name for e in loaded] == ["logmel"] and set(reasons) == {"bands"}


def test_tables_are_whole(clip_folder: Path, tmp_path: Path) -> None:
    results: Results = evaluate(clip_folder, "steps", [4, 8], metrics="si_sdr,bands", out=tmp_path / "run")
    main, bands, codebooks, tokens = all_tables(results, results.summary)
    assert "SI-SDR (dB) ↑" in main.headings and not any("bands" in h for h in main.headings)
    assert [section.heading for section in bands.sections] == ["4 kbps", "8 kbps", "noise floor"]
    assert codebooks.headings[2:5] == ["codebooks", "frames", "mean 2^H"]
    assert tokens.headings[2:5] == ["frames/s", "tokens/s", "bits/token"]
    for table in (main, bands, codebooks, tokens):
        assert all(len(row) == len(table.headings) for section in table.sections for row in section.rows)
    latex = (tmp_path / "run" / "table.tex").read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    assert all(metric.label in latex for metric in results.metrics) and "16 bits, dithered" in latex
