"""`mushra create`: from a run and from folders to a test that keeps its secrets."""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from listening import N_CLIPS, RATE, make, recording, signals
from nominal import evaluate

from mushra.check import check_config
from mushra.config.load import load_config
from mushra.config.pages import FinishPage, MushraPage
from mushra.create import folder as create
from mushra.create.documents import Options
from mushra.create.folder import create_test
from mushra.create.material import RunMaterial
from mushra.create.stimuli import make_item
from qincodec.core.errors import UserError


def test_from_a_run(run: Path, tmp_path: Path) -> None:
    key, report = make(RunMaterial(run), tmp_path / "test", training=1)
    assert [finding for finding in check_config(tmp_path / "test") if finding.severity == "error"] == []
    assert list(key["trials"]) == ["training01", "trial01", "trial02", "trial03"]
    assert (key["format"], key["sample_rate"], key["seed"], key["run"]) == (1, RATE, 0, str(run))
    assert len({trial["clip"] for trial in key["trials"].values()}) == 4  # training has its own
    for trial in key["trials"].values():
        conditions = {entry["condition"]: entry for entry in trial["signals"].values()}
        assert set(conditions) == {"mp3@16", "mp3@32", "reference", "anchor35", "anchor70"}
        assert conditions["mp3@16"]["codec"] == "mp3"
        assert conditions["mp3@16"]["kbps"] == 16
        assert 12 < conditions["mp3@16"]["kbps_measured"] < 40
        assert conditions["reference"]["file"] == trial["reference"]
        heard = signals(tmp_path / "test", trial)
        assert {len(samples) for samples in heard.values()} == {round(trial["duration_s"] * RATE)}
    assert report["systems"][0]["label"] == "mp3@16"
    assert any("at 16000 Hz the 7 kHz anchor lacks only" in warning for warning in report["warnings"])


def test_what_is_heard_is_what_was_scored(run: Path, tmp_path: Path) -> None:
    """Reference and decoded file of the run, shifted and amplified as the key and the report say."""
    key, report = make(RunMaterial(run, codecs="mp3", kbps="32"), tmp_path / "test", anchors=(), bits=24)
    for entry in report["items"]:
        trial = key["trials"][entry["trial"]]
        heard = signals(tmp_path / "test", trial)
        gain = 10 ** (trial["gain_db"] / 20)
        first, count = round(trial["start_s"] * RATE), round(trial["duration_s"] * RATE)
        reference = recording(int(trial["clip"][-1]))[:, 0]
        decoded, _ = soundfile.read(run / "decoded" / "mp3@32" / f"{trial['clip']}.wav")
        inner = slice(200, -200)  # without fades
        np.testing.assert_allclose(
            heard["reference"][inner], gain * reference[first : first + count][inner], atol=2e-6
        )
        shift = entry["delays"]["mp3@32"]
        np.testing.assert_allclose(
            heard["mp3@32"][inner], gain * decoded[first + shift : first + shift + count][inner], atol=2e-6
        )


def test_payloads_give_the_same_bytes_as_saved_audio(run: Path, payloads: Path, tmp_path: Path) -> None:
    first, _ = make(RunMaterial(run), tmp_path / "a" / "test")
    second, _ = make(RunMaterial(payloads), tmp_path / "b" / "test")
    assert {**first, "run": None} == {**second, "run": None}  # digests of all files among it
    assert first["run"] != second["run"]


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_same_seed_same_bytes(run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(RunMaterial(run), tmp_path / name / "test", bits=16)
    key, _ = make(RunMaterial(run), tmp_path / "c" / "test", bits=16, seed=1)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    other = json.loads((tmp_path / "a" / "test" / "key.json").read_text())
    assert not set(key["trials"]["trial01"]["signals"]) & set(other["trials"]["trial01"]["signals"]) - {
        "reference"
    }


def test_nothing_that_is_served_tells_a_condition(run: Path, tmp_path: Path) -> None:
    key, _ = make(RunMaterial(run), tmp_path / "test", items=5)
    text = (tmp_path / "test" / "config.yaml").read_text()
    for telling in ("mp3", "@", "anchor35:", "clip", str(run)):
        assert telling not in text
    for trial in key["trials"].values():
        sizes = {(tmp_path / "test" / entry["file"]).stat().st_size for entry in trial["signals"].values()}
        assert len(sizes) == 1
        for name, entry in trial["signals"].items():
            assert name == "reference" or (len(name) == 8 and name.islower())
            data = (tmp_path / "test" / entry["file"]).read_bytes()
            assert data[36:40] == b"data"  # the shortest header there is: no room for a name or date
    names = [name for trial in key["trials"].values() for name in trial["signals"] if name != "reference"]
    assert len(set(names)) == len(names)
    # The order on the page tells nothing either: it is that of the names.
    for page in load_config(tmp_path / "test").flat():
        if isinstance(page, MushraPage):
            assert list(page.stimuli) == sorted(page.stimuli)


def test_open_names(run: Path, tmp_path: Path) -> None:
    key, report = make(RunMaterial(run), tmp_path / "test", open_names=True)
    page = next(page for page in load_config(tmp_path / "test").flat() if page.id == "trial02")
    assert isinstance(page, MushraPage)
    assert page.stimuli["mp3@16"] == "stimuli/trial02_mp3@16.wav"
    assert set(page.conditions()) == set(key["trials"]["trial02"]["signals"])
    assert any("--open-names" in warning for warning in report["warnings"])


def test_page_layout(run: Path, tmp_path: Path) -> None:
    make(RunMaterial(run), tmp_path / "test", training=2, language="fr", questionnaire=True, title="Essai")
    config = load_config(tmp_path / "test")
    assert (config.testname, config.language, config.test_id) == ("Essai", "fr", "test")
    assert [page.type for page in config.flat()] == ["consent", "volume", *["mushra"] * 5, "finish"]
    assert [config.is_training(page) for page in config.flat()[2:4]] == [True, True]
    assert not any(config.is_training(page) for page in config.flat()[4:])
    assert config.pages[4].random  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("language", "question"), [("en", "question"), ("de", "Fragen"), ("fr", "question"), ("es", "pregunta")]
)
def test_a_finish_page_asks_only_where_there_are_questions(
    run: Path, tmp_path: Path, language: str, question: str
) -> None:
    for asks in (True, False):
        make(RunMaterial(run), tmp_path / str(asks), items=1, language=language, questionnaire=asks)
        finish = load_config(tmp_path / str(asks)).flat()[-1]
        assert isinstance(finish, FinishPage)
        assert bool(finish.questionnaire) == asks
        assert (question in finish.content) == asks


# Which items


def chosen(source: Any, out: Path, **options: Any) -> list[str]:
    key, _ = make(source, out, training=0, **options)
    return [trial["clip"] for trial in key["trials"].values()]


def test_draws_are_seeded_and_nested(run: Path, tmp_path: Path) -> None:
    source = RunMaterial(run, kbps="16")
    few, many = chosen(source, tmp_path / "a", items=2), chosen(source, tmp_path / "b", items=5)
    assert many[:2] == few
    assert chosen(source, tmp_path / "c", items=5, seed=1) != many


def test_by_category_and_by_hand(run: Path, tmp_path: Path) -> None:
    source = RunMaterial(run, kbps="16")
    clips = chosen(source, tmp_path / "a", items=None, per_category=2)
    assert sorted(clip.split("/")[0] for clip in clips) == ["music", "music", "speech", "speech"]
    by_hand = ["music/clip3", "speech/clip0"]
    assert chosen(source, tmp_path / "b", items=None, clips=by_hand) == by_hand


def test_hardest_by_mean_rank(run: Path, tmp_path: Path) -> None:
    table = (run / "clips.csv").read_text().splitlines()
    columns = table[0].split(",")
    scores: dict[str, list[tuple[float, float]]] = {}
    for line in table[1:]:
        row = dict(zip(columns, line.split(","), strict=False))
        if row["codec"] == "mp3":
            scores.setdefault(row["clip"], []).append((float(row["si_sdr"]), -float(row["ms_mel"])))
    means = {clip: np.mean(values, axis=0) for clip, values in scores.items()}
    ranks = {
        clip: sum(sum(other[m] < value[m] for other in means.values()) for m in range(2))
        for clip, value in means.items()
    }
    found = chosen(RunMaterial(run), tmp_path / "a", items=4, pick="hardest")
    assert [ranks[clip] for clip in found] == sorted(ranks.values())[:4]


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items": 0}, "--items is 0; allowed: 1 or more"),
        ({"items": 8}, "asked for 8 items, 7 can be made of 7 recordings"),
        ({"items": 2, "per_category": 2}, "--items and --per-category both choose"),
        ({"items": None, "clips": ["music/clip9"]}, "no clip 'music/clip9'; close are music/clip"),
        (
            {"duration_s": 3.0},
            "asked for 3 items, 0 of 7 recordings last 3 s; --duration 2 leaves 3, or fewer",
        ),
        ({"duration_s": 0.1}, "--duration is 0.1; allowed: 1 to 60"),
        ({"duration_s": 61.0}, "--duration is 61"),
        ({"target_lufs": 3.0}, "--loudness is 3.0; allowed: -50 to -10"),
        ({"training": -1}, "--training is -1"),
        ({"bits": 8}, "--bits is 8; allowed: 16 or 24"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_options_without_meaning(run: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(RunMaterial(run), tmp_path / "test", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codecs": "opus"}, "has no codec 'opus'; it has mp3, pcm16"),
        ({"kbps": "8"}, "has no 'mp3@8'; it has mp3@16, mp3@32, pcm16"),
        ({"codecs": ""}, "no condition of .* was chosen"),
        ({"kbps": "x"}, "--kbps takes numbers of kbit/s above 0"),
        ({"folders": ["mp3@8=/"]}, "not a chosen condition of"),
    ],
)
def test_conditions_a_run_does_not_have(run: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunMaterial(run, **options)


def test_controls_only_if_named(run: Path) -> None:
    assert [system.label for system in RunMaterial(run).systems] == ["mp3@16", "mp3@32"]
    assert [system.label for system in RunMaterial(run, codecs="pcm16").systems] == ["pcm16"]


def test_a_run_whose_codec_or_recording_changed(payloads: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(payloads, copy)
    manifest = json.loads((copy / "run.json").read_text())
    for condition in manifest["conditions"]:
        condition["identity"]["version"] = "another"
    (copy / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"there is no clip to take an item from; .*has no result yet"):
        make(RunMaterial(copy), tmp_path / "test")

    shutil.copy(payloads / "run.json", copy / "run.json")
    lines = (copy / "clips.jsonl").read_text().splitlines()
    moved = [{**json.loads(line), "path": str(tmp_path / "gone.wav")} for line in lines]
    (copy / "clips.jsonl").write_text("\n".join(map(json.dumps, moved)))
    with pytest.raises(UserError, match=r"gone\.wav' of clip '.*' cannot be read"):
        make(RunMaterial(copy), tmp_path / "test")
    shutil.rmtree(copy / "encoded")
    shutil.copy(payloads / "clips.jsonl", copy / "clips.jsonl")
    with pytest.raises(UserError, match=r"mp3@16 encoded is gone .*evaluate again with another --out"):
        make(RunMaterial(copy), tmp_path / "test")


def test_conditions_decoded_elsewhere(clips: Path, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    decoded = run / "decoded" / "mp3@32"
    evaluate(
        clips,
        codecs=[],
        conditions={"other@32": decoded},
        metrics="si_sdr",
        out=folder,
        sample_rate=RATE,
        workers=1,
        chunk_s=2.0,
    )
    with pytest.raises(UserError, match="--condition other@32=DIR, or evaluate with --save-audio"):
        make(RunMaterial(folder), tmp_path / "test")
    source = RunMaterial(folder, folders=[f"other@32={decoded}"])
    key, _ = make(source, tmp_path / "test", training=0)
    direct, _ = make(RunMaterial(run, kbps="32"), tmp_path / "direct", training=0)
    assert [trial["clip"] for trial in key["trials"].values()] == [
        t["clip"] for t in direct["trials"].values()
    ]
    first, second = (
        {
            entry["condition"].split("@")[0]: entry["sha256"]
            for entry in test["trials"]["trial01"]["signals"].values()
        }
        for test in (key, direct)
    )
    assert first["other"] == second["mp3"]
    with pytest.raises(UserError, match=r"is not the file that the run scored"):
        make(RunMaterial(folder, folders=[f"other@32={run / 'decoded' / 'mp3@16'}"]), tmp_path / "test2")


def test_a_key_that_does_not_fit(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "test"
    key, _ = make(RunMaterial(run, kbps="16"), out, training=0)

    def errors(**changes: Any) -> list[str]:
        (out / "key.json").write_text(json.dumps({**key, **changes}))
        return [finding.message for finding in check_config(out) if finding.severity == "error"]

    assert errors() == []
    assert len(errors(format=2)) == 1
    trials = dict(key["trials"])
    assert errors(trials={**trials, "other": trials["trial01"]}) == [
        "'key.json' has trial 'other', which is not a page of the test"
    ]
    del trials["trial02"]
    assert errors(trials=trials) == ["'key.json' does not have trial 'trial02'"]
    swapped = {**key["trials"], "trial01": key["trials"]["trial02"], "trial02": key["trials"]["trial01"]}
    assert len(errors(trials=swapped)) == 8  # reference, mp3@16 and both anchors of two trials
    for broken in ("[", 100_000 * "["):
        (out / "key.json").write_text(broken)
        assert any("is not a key of" in finding.message for finding in check_config(out))


def recordings(key: dict[str, Any], training: bool) -> set[str]:
    return {t["recording"] for name, t in key["trials"].items() if name.startswith("training") == training}


def training_warnings(out: Path) -> list[tuple[int | None, str]]:
    return [(f.page, f.message) for f in check_config(out) if "this training page has" in f.message]


def test_training_keeps_recordings_of_its_own(run: Path, tmp_path: Path) -> None:
    source, out = RunMaterial(run, kbps="16"), tmp_path / "test"
    key, _ = make(source, out, items=None, training=2)
    assert len(recordings(key, training=True)) == 2
    assert len(recordings(key, training=False)) == N_CLIPS - 2
    assert not recordings(key, training=True) & recordings(key, training=False)
    assert training_warnings(out) == []


@pytest.mark.parametrize(
    ("options", "items", "pages"),
    [
        ({"items": N_CLIPS}, "7 items", "1 training page"),
        ({"items": 6, "training": 2}, "6 items", "2 training pages"),
        ({"items": None, "clips": ["music/clip1"], "training": 7}, "1 item", "7 training pages"),
    ],
)
def test_training_on_recordings_of_the_test_only_if_asked(
    run: Path, tmp_path: Path, options: dict[str, Any], items: str, pages: str
) -> None:
    source, out = RunMaterial(run, kbps="16"), tmp_path / "test"
    with pytest.raises(
        UserError, match=f"{items} and {pages} each need a recording of .*there are 7: .*--training"
    ):
        make(source, out, **options)
    assert not out.exists()
    key, report = make(source, out, **options, training_reuse=True)
    assert recordings(key, training=True) & recordings(key, training=False)
    n = len(key["trials"]) - N_CLIPS
    named = [warning for warning in report["warnings"] if "(--training-reuse)" in warning]
    assert len(named) == len(training_warnings(out)) == n
    # Without a key it is told by the files.
    (out / "key.json").unlink()
    assert len(training_warnings(out)) == n


# The folder appears whole or not at all


def test_an_existing_folder_is_kept(run: Path, tmp_path: Path) -> None:
    source, out = RunMaterial(run, kbps="16"), tmp_path / "test"
    make(source, out)
    before = digests(out)
    with pytest.raises(UserError, match=r"already holds a test; .*--force"):
        make(source, out)
    (out / "results.sqlite").write_text("precious")
    with pytest.raises(UserError, match=r"holds 'results.sqlite', which `mushra create` did not write"):
        create_test(source, out, Options(items=2), force=True)
    (out / "results.sqlite").unlink()
    assert digests(out) == before
    create_test(source, out, Options(items=2), force=True)
    assert len(json.loads((out / "key.json").read_text())["trials"]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["test"]


def test_interrupted_it_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def interrupted(*args: Any) -> Any:
        made.append(args)
        if len(made) == 2:
            raise KeyboardInterrupt
        return make_item(*args)

    monkeypatch.setattr(create, "make_item", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(RunMaterial(run), tmp_path / "deep" / "test")
    assert list((tmp_path / "deep").iterdir()) == []


def test_killed_it_leaves_no_test(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "test"
    context = multiprocessing.get_context("fork")
    child = context.Process(target=create_test, args=(RunMaterial(run), out, Options(items=6)))
    child.start()
    while child.is_alive() and len(list(tmp_path.rglob("*.wav"))) < 3:
        time.sleep(0.005)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not out.exists()
    (left,) = tmp_path.iterdir()
    busy = tmp_path / ".test.creating-busy"
    busy.mkdir()
    lock = os.open(busy, os.O_RDONLY)  # as another process holds it that makes the same test
    fcntl.flock(lock, fcntl.LOCK_EX)
    make(RunMaterial(run), out)
    assert sorted(tmp_path.iterdir()) == [busy, out]  # what was killed left no litter
    assert left.name.startswith(".test.creating-")
    os.close(lock)
    assert [f for f in check_config(out) if f.severity == "error"] == []
