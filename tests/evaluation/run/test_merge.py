"""Merged runs of parts are the run of the whole."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from known import RATE, announce, register_codecs, tone_and_noise
from merging import NAMES, OPTIONS, OWN, PickyCodec, merge, rows_of, snapshot, split, tables
from nominal import evaluate

from evaluation.cli import merge as merge_cli
from evaluation.datasets import load_dataset
from evaluation.loading import open_results
from evaluation.report.files import latex_of
from evaluation.report.tables import build_table
from evaluation.run import merge as merging_runs
from evaluation.run.merge import merge_runs
from qincodec.core.errors import UserError


@pytest.fixture(autouse=True)
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    register_codecs(monkeypatch, *OWN)
    # Plots are no part of what is compared; tables are written where they are (`tables`).
    monkeypatch.setattr("evaluation.report.files.write_plots", lambda *_: [])
    monkeypatch.setattr("evaluation.report.write_all", lambda *_: [])
    announce(monkeypatch, EntryPoint("bands", "toy_embedding:Bands", "qincodec.embeddings"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine short recordings, two of them below the evaluation's rate, one that cannot be read."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "sub").mkdir()
    for seed, name in enumerate(["a", "b", "c", "d", "sub/e", "sub/f", "g", "h", "i"]):
        samples = tone_and_noise(seed, 0.25 + 0.05 * (seed % 3))
        rate = 22050 if name in "ah" else RATE
        soundfile.write(folder / f"{name}.wav", samples, rate, subtype="FLOAT")
    (folder / "j.wav").write_bytes(b"RIFF....WAVEgarbage")
    return folder


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Run folder of all clips for some codecs."""
    made: dict[str, Path] = {}

    def make(codecs: str) -> Path:
        if codecs not in made:
            made[codecs] = tmp_path_factory.mktemp("whole") / "run"
            evaluate(data, codecs, [4, 8], out=made[codecs], **OPTIONS)
        return made[codecs]

    return make


@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.long)])
def test_merged_parts_are_the_whole(
    data: Path, whole: Callable[[str], Path], tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    names = chance.sample(NAMES, len(NAMES))
    names.remove("j")
    cuts = sorted(chance.sample(range(1, len(names)), seed))
    parts = [names[a:b] for a, b in zip([0, *cuts], [*cuts, len(names)], strict=True)]
    parts[0].append("j")  # not by itself: data of which nothing can be read is refused
    codecs = "steps,picky"
    runs = split(data, tmp_path, parts, codecs)
    before = [snapshot(run) for run in runs]
    out = tmp_path / "out"
    merged = merge(out, runs)
    assert tables(out) == tables(whole(codecs))
    assert merged.n_pending == 0 and merged.noise_floor is not None
    assert [snapshot(run) for run in runs] == before
    notes = json.loads((whole(codecs) / "run.json").read_text())["dataset"]
    mine = json.loads((out / "run.json").read_text())["dataset"]
    for key in ("n_clips", "n_recordings", "notes", "excluded", "hash", "disclaimer"):
        assert mine[key] == notes[key]
    assert any("2 of 10 files are below 44100 Hz" in note for note in notes["notes"])


@pytest.mark.slow
def test_again_changes_nothing_and_more_runs_are_added(
    data: Path, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    runs = split(data, tmp_path, [NAMES[:3], NAMES[3:7], NAMES[7:]], "steps,picky")
    out = tmp_path / "out"
    merge(out, runs[:2])
    first = snapshot(out)
    merge(out, runs[:2])
    again = snapshot(out)
    changed = {name for name in first if first[name][1] != again[name][1]}
    assert not changed and first.keys() == again.keys()
    merge(out, runs)
    assert tables(out) == tables(whole("steps,picky"))
    keys = [row["key"] for row in rows_of(out) if row["kind"] != "corpus"]
    assert len(keys) == len(set(keys))


@pytest.mark.slow
def test_the_delay_is_that_of_the_whole_and_evaluate_finishes(
    data: Path, whole: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = open_results(whole("jitter")).clips.dropna(subset="delay_samples")
    ordered = list(dict.fromkeys(clips.sort_values("delay_samples")["clip"]))
    runs = split(data, tmp_path, [[*ordered[:4], "j"], ordered[4:]], "jitter")
    out = tmp_path / "out"
    told = io.StringIO()  # stdout and stderr, in their order
    with redirect_stdout(told), redirect_stderr(told), pytest.raises(SystemExit) as end:
        merge_cli.merge(out, runs)
    assert end.value.code == 3
    *above, last = told.getvalue().splitlines()
    delay = open_results(whole("jitter")).summary["delay_applied"].iloc[0]
    assert "results are missing: no part has them, or none at the delay" in last and f"--out {out}" in last
    assert any(line.startswith("Unfinished, ⚠ at n: ") for line in above)
    merged = open_results(out)
    clips = merged.clips
    assert merged.n_unscored == sum(
        (clips[f"{m.name}_reason"] == "not scored yet").sum() for m in merged.clip_metrics
    )
    assert (clips["si_sdr_reason"] == "not scored yet").sum() > 0
    assert (clips["delay_applied"].dropna() == delay).all()
    (asked,) = (section for section in build_table(merged, merged.summary).sections if section.kbps == 4)
    number = asked.rows[0][build_table(merged, merged.summary).headings.index("n")]
    scored = clips[(clips["kbps"] == 4) & clips[[m.name for m in merged.clip_metrics]].notna().all(axis=1)]
    assert number.text == f"⚠ {len(scored)}" and 0 < len(scored) < 9
    evaluate(data, "jitter", [4, 8], out=out, **OPTIONS)
    assert tables(out) == tables(whole("jitter"))
    with pytest.raises(SystemExit) as end:
        merge_cli.merge(out, runs)  # finished, and stays so; j.wav failed
    assert end.value.code == 3 and "missing" not in capsys.readouterr().err
    assert tables(out) == tables(whole("jitter"))


@pytest.mark.slow
def test_one_data_set_on_two_machines(data: Path, whole: Callable[[str], Path], tmp_path: Path) -> None:
    """Other codecs on each, one on both; one run left its rows in several files, one of them empty."""
    first, second = tmp_path / "first", tmp_path / "second"
    evaluate(data, "late,steps", [4, 8], out=first, **OPTIONS)
    evaluate(data, "steps,picky", [4, 8], out=second, **OPTIONS)
    lines = (second / "rows" / "rank-0.jsonl").read_text().splitlines(keepends=True)
    for rank, some in enumerate((lines[::2], [], lines[1::2])):
        (second / "rows" / f"rank-{rank}.jsonl").write_text("".join(some))
    merge(tmp_path / "out", [first, second])
    assert tables(tmp_path / "out") == tables(whole("late,steps,picky"))


def test_what_failed_on_one_machine_only_has_not_failed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(data, "picky", [8], out=tmp_path / "a", **OPTIONS)
    monkeypatch.setattr(PickyCodec, "fails_above", 9.9)
    evaluate(data, "picky", [8], out=tmp_path / "b", **OPTIONS)
    failed = open_results(tmp_path / "a").clips["error"].notna().sum()
    assert failed > 1
    merge(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    assert tables(tmp_path / "out") == tables(tmp_path / "b")


def test_payloads_and_audio_are_linked(data: Path, tmp_path: Path) -> None:
    (run,) = split(data, tmp_path, [NAMES[:3]], "steps", save_audio=True)
    (run / "encoded" / "steps@4" / "a.enc").unlink()  # as a user may to save space
    merge_runs(tmp_path / "out", [run])
    for name in ("encoded/steps@8/a.enc", "decoded/steps@4/b.wav"):
        assert (tmp_path / "out" / name).samefile(run / name)
    (frames,) = (tmp_path / "out" / "embeddings" / "bands").iterdir()
    assert frames.samefile(run / "embeddings" / "bands" / "rank-0.f32")
    assert not frames.name.startswith("rank-")  # or going on would append to the run's own


def _refuse_links(*_: object) -> None:
    raise OSError(18, "Invalid cross-device link")


def test_copies_where_there_are_no_links(
    data: Path, whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = split(data, tmp_path, [NAMES[:5], NAMES[5:]], "jitter")
    monkeypatch.setattr(os, "link", _refuse_links)
    merge(tmp_path / "out", runs)
    assert not (tmp_path / "out" / "encoded/jitter@8/a.enc").samefile(runs[0] / "encoded/jitter@8/a.enc")
    for run in runs:  # nothing of it is needed any more
        shutil.rmtree(run)
    evaluate(data, "jitter", [4, 8], out=tmp_path / "out", **OPTIONS)
    assert tables(tmp_path / "out") == tables(whole("jitter"))


def test_tar_files_of_large_runs_are_linked_or_copied(
    data: Path, whole: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.run.encoded.MOST_FILES", 2)
    runs = split(data, tmp_path, [NAMES[:5], NAMES[5:]], "jitter")
    edit_rows(runs[1], lambda row: None if row.get("clip") == "g" and row.get("rate") == "8" else row)
    link = os.link
    monkeypatch.setattr(
        os, "link", lambda path, to: (link if runs[0] in path.parents else _refuse_links)(path, to)
    )
    before = [snapshot(run) for run in runs]
    merge_runs(tmp_path / "out", runs)
    again = merge_runs(tmp_path / "out", runs)
    assert (again.new_rows, again.new_files) == (0, 0)
    brought = sorted((tmp_path / "out" / "encoded" / "jitter@8").iterdir())
    own = [run / "encoded" / "jitter@8" / "clips-00000.tar" for run in runs]
    assert [path.suffix for path in brought] == [".tar", ".tar"]
    assert [any(new.samefile(path) for new in brought) for path in own] == [True, False]
    # The whole encodes what is missing, into a file of its own. Its delays ask for all that was encoded.
    results = evaluate(data, "jitter", [4, 8], out=tmp_path / "out", **OPTIONS)
    assert results.n_pending == 0 and tables(tmp_path / "out") == tables(whole("jitter"))
    assert {*(tmp_path / "out" / "encoded" / "jitter@8").iterdir()} - {*brought} == {
        tmp_path / "out" / "encoded" / "jitter@8" / "clips-00000.tar"
    }
    assert [snapshot(run) for run in runs] == before
    # A file that is lost comes back with the part that has it, and nothing else does.
    brought[0].unlink()
    again = merge_runs(tmp_path / "out", runs)
    assert (again.new_rows, again.new_files) == (0, 1) and brought[0].exists()
    merge_runs(tmp_path / "more", [tmp_path / "out"])
    assert tables(tmp_path / "more") == tables(whole("jitter"))


@pytest.mark.parametrize(
    "kills",
    [
        (1, 2, 4, 5, 9, 20),
        pytest.param((1, 2, 3, 4, *(5 + n % 3 for n in range(26))), marks=pytest.mark.long, id="30"),
    ],
)
def test_a_merge_continues_after_a_kill_at_any_moment(
    data: Path,
    whole: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kills: tuple[int, ...],
) -> None:
    runs = split(data, tmp_path, [NAMES[:5], NAMES[5:]], "steps,picky")
    monkeypatch.setattr(merging_runs, "_ROWS_AT_ONCE", 6)
    out = tmp_path / "out"
    for calls in kills:
        child = os.fork()
        if child == 0:
            _kill_after(calls)
            merge_runs(out, runs)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        with (out / "rows" / "rank-0.jsonl").open("a") as rows:
            rows.write('{"kind":"score","key":"torn')
    merge(out, runs)
    assert tables(out) == tables(whole("steps,picky"))


def _kill_after(calls: int) -> None:
    """This process dies at the n-th file or row that it puts in place."""
    left = calls

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    Path.replace = counted(Path.replace)  # type: ignore[method-assign]
    os.fsync = counted(os.fsync)


# What is refused


def edit(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((run / "run.json").read_text())
    change(content)
    (run / "run.json").write_text(json.dumps(content))


def edit_rows(run: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    rows = [row for row in map(change, rows_of(run)) if row is not None]
    for path in (run / "rows").iterdir():
        path.unlink()
    (run / "rows" / "rank-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[Path]]:
    """Two runs that overlap in clip c, to be spoilt: copies in a folder."""
    made: list[Path] = []

    def make(folder: Path) -> list[Path]:
        if not made:
            made.extend(split(data, tmp_path_factory.mktemp("two"), [list("abc"), list("cdg")], "steps"))
        return [Path(shutil.copytree(run, folder / run.name)) for run in made]

    return make


def _set(*path: Any) -> Callable[[list[Path]], None]:
    *keys, last, value = path

    def change(content: dict[str, Any]) -> None:
        entry: Any = content
        for key in keys:
            entry = entry[key]
        entry[last] = value

    return lambda runs: edit(runs[1], change)


def _rows(**condition: Any) -> Callable[[list[Path]], None]:
    """Changes or, without ``to``, drops rows of a kind and clip."""
    to = condition.pop("to", None)

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        if any(row.get(name) != value for name, value in condition.items()):
            return row
        return None if to is None else {**row, **to}

    return lambda runs: edit_rows(runs[1], change)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_set("settings", "seed", 5), "are not parts of one run: seed is 0 and 5"),
        (_set("settings", "sample_rate", 48000), "sample_rate is 44100 and 48000"),
        (
            _set("conditions", 0, "identity", {"name": "other"}),
            "identity of 'steps' is name 'steps', .* and name 'other'",
        ),
        (_set("conditions", 0, "settings", {"bits": 5}), "settings of 'steps' is"),
        (_set("metrics", 0, "version", "77"), "version of 'si_sdr' is .* and 77"),
        (_set("embeddings", 0, "identity", {"version": "1", "weights": "x"}), "identity of 'bands' is"),
        (_set("floor", 0, "identity", {"version": "2"}), "identity of '16 bits, dithered' is"),
        (_set("schema_version", 99), "has run schema 99"),
        (
            _rows(kind="coded", codec="steps", clip="d", to={"encoded": "../x"}),
            "'encoded' is '../x'; it must be a file below the run folder",
        ),
        (lambda runs: shutil.rmtree(runs[1]), "part1 is not a run"),
        (lambda runs: (runs[1] / "clips.jsonl").write_text("{"), "clips.jsonl is damaged, line 1"),
    ],
)
def test_runs_that_are_not_parts_of_one_run_are_refused(
    two: Callable[[Path], list[Path]], tmp_path: Path, spoil: Callable[[list[Path]], Any], message: str
) -> None:
    runs = two(tmp_path)
    spoil(runs)
    with pytest.raises(UserError, match=message) as caught:
        merge_runs(tmp_path / "out", runs)
    assert "\n" not in str(caught.value)
    if "outside" not in message:
        assert not (tmp_path / "out").exists()


def test_of_two_results_under_one_key_the_first_counts(
    two: Callable[[Path], list[Path]], tmp_path: Path
) -> None:
    runs = two(tmp_path)
    edit_rows(runs[1], lambda row: {**row, "value": row["value"] + 1} if "metric" in row else row)
    merge_runs(tmp_path / "out", runs)
    values = {row["key"]: row["value"] for run in runs[::-1] for row in rows_of(run) if "value" in row}
    assert {row["key"]: row["value"] for row in rows_of(tmp_path / "out") if "value" in row} == values


def test_parts_that_are_not_finished_are_finished_in_the_whole(
    data: Path, whole: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = split(data, tmp_path, [NAMES[:5], NAMES[5:]], "steps,picky")
    lost = {"codec": "steps", "clip": "g"}
    edit_rows(runs[1], lambda row: None if lost.items() <= row.items() else row)
    edit_rows(runs[0], lambda row: None if row.get("metric") == "fm_bands" else row)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        merge_cli.merge(out, runs)
    assert end.value.code == 3
    results = open_results(out)
    assert results.n_pending == 2 and results.n_unscored > 0
    coded = len(NAMES[5:]) - 2  # by steps, of the part with all metrics: one is lost, one is no audio
    of_steps = results.summary[results.summary["codec"] == "steps"]
    assert set(of_steps["n"]) == set(of_steps["fm_bands_n"]) == {coded}
    assert set(of_steps["si_sdr_n"]) == {coded + 5}
    written = latex_of(results)
    assert "UNFINISHED, so provisional" in written and "textbf" not in written and "Bold" not in written
    left = results.n_pending + results.n_unscored + results.noise_floor.n_unscored
    assert f"{left} results are missing" in capsys.readouterr().err
    evaluate(data, "steps,picky", [4, 8], out=out, **OPTIONS)
    assert tables(out) == tables(whole("steps,picky"))


def test_clips_of_one_id_that_are_not_the_same(data: Path, tmp_path: Path) -> None:
    (run,) = split(data, tmp_path, [["a"]], "steps")
    other = tmp_path / "other"
    other.mkdir()
    soundfile.write(other / "a.wav", np.zeros(RATE // 4), RATE)
    evaluate(other, "steps", [4, 8], out=tmp_path / "silent", **OPTIONS)
    with pytest.raises(UserError, match=r"clip 'a' is not the same in .*part0 and .*silent: content_hash is"):
        merge_runs(tmp_path / "out", [run, tmp_path / "silent"])


def test_out_must_not_hold_something_else(two: Callable[[Path], list[Path]], tmp_path: Path) -> None:
    runs = two(tmp_path)
    for out in (runs[0], runs[0] / "merged", tmp_path):
        with pytest.raises(UserError, match="are one inside the other"):
            merge_runs(out, runs)
    with pytest.raises(UserError, match="is a run that has clip 'd', which none of the others has"):
        merge_runs(runs[1], runs[:1])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not empty and not a run"):
        merge_runs(tmp_path / "full", runs)
    with pytest.raises(UserError, match="nothing to merge"):
        merge_runs(tmp_path / "out", [])


# Shards


def test_shards_are_disjoint_whole_and_even(data: Path) -> None:
    everything = {clip.id for clip in load_dataset(data).clips}
    parts = [load_dataset(data, shard=f"{index}/3") for index in (1, 2, 3)]
    names = [{clip.id for clip in part.clips} for part in parts]
    assert set.union(*names) == everything and sum(map(len, names)) == len(everything)
    assert max(map(len, names)) - min(map(len, names)) <= 1
    assert load_dataset(data, shard="2/3").hash == parts[1].hash
    assert any(note.startswith("shard 2 of 3: 3 of 10 recordings") for note in parts[1].notes)
    assert load_dataset(data, shard="1/1").hash == load_dataset(data).hash


@pytest.mark.slow
def test_merged_shards_are_the_whole(
    data: Path, whole: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / f"shard{index}" for index in (1, 2, 3)]
    for index, run in enumerate(runs, start=1):
        evaluate(data, "steps,picky", [4, 8], out=run, shard=f"{index}/3", **OPTIONS)
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        merge_cli.merge(out, runs[::2])
    assert "missing shards: 2; merge again with those too" in capsys.readouterr().err
    entry = json.loads((out / "run.json").read_text())["dataset"]
    assert any(note.startswith("shards 1, 3 of 3: ") for note in entry["notes"])
    for _ in range(2):
        merge_runs(out, runs)
        assert tables(out) == tables(whole("steps,picky"))
        run, one = (json.loads((folder / "run.json").read_text()) for folder in (out, whole("steps,picky")))
        assert run["dataset"] == one["dataset"]
    mixed = merge_runs(tmp_path / "mixed", [whole("steps,picky"), runs[1]]).run.dataset
    assert mixed.n_clips == run["dataset"]["n_clips"] and not any("shard" in note for note in mixed.notes)
    evaluate(data, "steps,picky", [4, 8], out=out, **OPTIONS)  # the same data: nothing to refuse
    evaluate(data, "steps,picky", [4, 8], out=tmp_path / "of2", shard="2/2", **OPTIONS)
    with pytest.raises(
        UserError, match=r"shards of different wholes: 2 parts of .* and 3 parts of .*; the hosts must"
    ):
        merge_runs(tmp_path / "x", [runs[0], tmp_path / "of2"])


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", ""])
def test_invalid_shards_are_refused(data: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"--shard is '.*'; give I/N"):
        load_dataset(data, shard=text)


def test_more_shards_than_recordings(data: Path) -> None:
    with pytest.raises(UserError, match="--shard 2/11 of 10 recordings leaves parts empty"):
        load_dataset(data, shard="2/11")


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        (
            ["evaluate d --codecs a --shard 1/2 --out x", "evaluate d --shard=2/2 --codecs a --out=y"],
            "evaluate d --codecs a --out 'of all'",
        ),
        (["python -m evaluation d --out x", "evaluate merge o x"], "python -m evaluation d --out 'of all'"),
        (["evaluate 'a b' --out '/x y' --codecs c"], "evaluate 'a b' --codecs c --out 'of all'"),
        (["evaluate d1 --out x", "evaluate d2 --out y"], "the command of the runs, without --shard, on all"),
    ],
)
def test_the_command_that_finishes_is_printed(commands: list[str], expected: str) -> None:
    assert merge_cli._finishing(commands, Path("of all")).startswith(expected)
