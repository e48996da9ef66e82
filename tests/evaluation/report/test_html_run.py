"""The report of a real run: its sounds are those that were scored, and missing parts are named."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from nominal import evaluate
from page_text import parsed
from typer.testing import CliRunner

from evaluation.cli.evaluate import app
from evaluation.loading import open_results
from evaluation.report.html import write, write_html
from qincodec.core.errors import UserError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "report"
    result = write_html(small_run, out, clips=9)
    assert result.page == out / "index.html" and result.num_clips == 4
    assert [remark.partition("(")[0] for remark in result.remarks] == [
        f"no audio of fragile@{kbps} " for kbps in (4, 8)
    ]
    assert result.num_bytes == sum(map(len, contents(out).values()))
    return out


def test_sounds_are_what_was_scored(small_run: Path, written: Path) -> None:
    """Compared with the decoded audio that the evaluation kept, after removing its delay of 37 samples."""
    sounds = {path.name.rpartition("-")[0]: path for path in (written / "assets").glob("*.flac")}
    assert len(sounds) == 4 * 7 - 2  # the fragile codec fails on the loud clip at both rates
    for codec, delay in (("steps", 0), ("late", 37), ("fragile", 0)):
        kept, rate = soundfile.read(small_run.parent / "decoded" / f"{codec}@8" / "sub" / "<d>.wav")
        heard, heard_rate = soundfile.read(sounds[f"sub-d-{codec}-8"], dtype="float64")
        assert heard_rate == rate and len(heard) == len(kept)
        assert soundfile.info(sounds[f"sub-d-{codec}-8"]).subtype == "PCM_24"
        np.testing.assert_allclose(heard[: len(kept) - delay], kept[delay:], atol=2**-24)
        assert not heard[len(kept) - delay :].any()


def test_shared_files_have_no_path_of_the_run(small_run: Path, written: Path) -> None:
    """run.json and rows do have paths: who continues the run needs the command and the failures."""
    root = small_run.parent.parent
    told = []
    for folder in (small_run, written):
        for path in folder.iterdir():
            if path.suffix in (".csv", ".md", ".tex", ".html", ".svg") or path.name == "summary.json":
                told += [path.name] if str(root).encode() in path.read_bytes() else []
    assert told == []
    everything = "".join(path.read_text() for path in small_run.glob("*.json"))
    for secret in (str(root), socket.gethostname()):
        assert not re.search(
            rf"\b{re.escape(secret)}\b", everything
        )  # what a run keeps of itself has none of it, either


def test_a_clip_beyond_full_scale_is_turned_down_as_a_whole(written: Path, small_run: Path) -> None:
    sounds = {path.name.rpartition("-")[0]: path for path in (written / "assets").glob("loud-*.flac")}
    reference, steps = (soundfile.read(sounds[name])[0] for name in ("loud-reference", "loud-steps-8"))
    original, _ = soundfile.read(small_run.parent / "decoded" / "steps@8" / "loud.wav")
    np.testing.assert_allclose(steps / np.abs(steps).max(), original / np.abs(original).max(), atol=1e-6)
    assert np.abs(np.stack([reference, steps])).max() == pytest.approx(10 ** (-0.1 / 20), abs=1e-6)
    assert "played 2.04 dB softer" in (written / "index.html").read_text()


def test_a_failure_has_its_reason_in_place(written: Path) -> None:
    page = parsed((written / "index.html").read_text())
    assert page.text.count("fragile@8 failed: RuntimeError: too loud for this codec") >= 1
    assert len(page.all("div", class_="signal")) == 4 * 7
    names = [attributes["src"] for attributes in page.all("img")]
    names += [a["data-sound"] for a in page.all("div", class_="signal") if "data-sound" in a]
    names += [a["href"] for a in page.all("link", rel="stylesheet")] + [a["src"] for a in page.all("script")]
    names += [attributes["href"] for attributes in page.all("a") if "download" in attributes]
    assert set(names) == {f"assets/{path.name}" for path in (written / "assets").iterdir()}


def test_the_report_has_the_tables_that_its_notes_mention(small_run: Path, written: Path) -> None:
    page = parsed((written / "index.html").read_text())
    tables = {a["download"]: a["href"] for a in page.all("a") if "download" in a}
    assert set(tables) == set(re.findall(r"\w+\.csv", page.text)) >= {"clips.csv", "summary.csv", "tests.csv"}
    for name, address in tables.items():
        assert (written / address).read_bytes() == (small_run / name).read_bytes()


def test_the_same_run_gives_the_same_bytes(small_run: Path, written: Path, tmp_path: Path) -> None:
    write_html(small_run, tmp_path / "again", clips=4, workers=3)
    assert contents(tmp_path / "again") == contents(written)


def test_a_new_report_takes_the_place_of_the_old_one(small_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    write_html(small_run, out, clips=2)
    before = contents(out)
    (out / "assets" / "mine.txt").write_text("keep")
    write_html(small_run, out, clips=0)
    after = contents(out)
    assert sum(name.endswith(".flac") for name in before) > 0
    assert {Path(name).suffix for name in after} == {".css", ".csv", ".html", ".js", ".txt"}
    assert sum(name.endswith((".css", ".html", ".js")) for name in after) == 3


def test_an_interrupted_report_leaves_the_old_one(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    write_html(small_run, out, clips=1)
    before = contents(out)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "render_page", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_html(small_run, out, clips=2)
    after = contents(out)
    assert {name: after[name] for name in before} == before
    monkeypatch.undo()
    write_html(small_run, out, clips=1)
    assert contents(out) == before


def test_sound_is_limited_by_size(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MAX_CLIP_BYTES", 1)
    result = write_html(small_run, tmp_path / "report")
    assert (
        result.num_clips == 1
        and "The first 1 of 3 clips" in result.remarks[0]
        and "--clips" in result.remarks[0]
    )
    assert write_html(small_run, tmp_path / "report", clips=3).num_clips == 3


@pytest.fixture
def damaged_run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def test_without_payloads_there_is_still_a_report(damaged_run: Path) -> None:
    shutil.rmtree(damaged_run / "encoded")
    result = write_html(damaged_run, clips=1)
    assert result.page == damaged_run / "report" / "index.html"
    assert any("is gone" in remark and "evaluate" in remark for remark in result.remarks)
    page = parsed(result.page.read_text())
    assert len([a for a in page.all("div", class_="signal") if "data-sound" in a]) == 1  # the reference
    assert open_results(damaged_run).clips["si_sdr"].notna().any() and "SI-SDR" in page.text


def test_damaged_payloads_and_changed_recordings_are_named(damaged_run: Path, tmp_path: Path) -> None:
    for path in (damaged_run / "encoded" / "steps@8").rglob("*.enc"):
        path.write_bytes(path.read_bytes()[:-10])
    clips = (damaged_run / "clips.jsonl").read_text()
    folder = tmp_path / "moved"
    folder.mkdir()
    (damaged_run / "clips.jsonl").write_text(re.sub(r'"path": "[^"]*/', f'"path": "{folder}/', clips))
    remarks = "\n".join(write_html(damaged_run, clips=1).remarks)
    assert "cannot be read: truncated" in remarks and "restore it where the run found it" in remarks


def test_damaged_audio_that_was_kept_is_named_and_written_again(small_run: Path, damaged_run: Path) -> None:
    kept = Path(shutil.copytree(small_run.parent / "decoded", damaged_run / "decoded")) / "steps@8"
    sound = {path: path.read_bytes() for path in (kept / "c.wav", kept / "loud.wav", kept / "a & b.wav")}
    for path, data in sound.items():
        path.write_bytes(bytes(len(data)) if path.name == "c.wav" else data[: len(data) // 2])
    remarks = "\n".join(write_html(damaged_run, clips=4).remarks)
    for path in sound:
        assert f"the stored decoded audio is damaged: '{path}' is" in remarks
    assert "run `evaluate` with the same options and --save-audio to write it again" in remarks
    entries = [json.loads(line) for line in (damaged_run / "clips.jsonl").read_text().splitlines()]
    data = next(Path(entry["path"]).parent for entry in entries if entry["id"] == "c")
    options: dict[str, Any] = {"metrics": "si_sdr,ms_mel", "save_audio": True, "workers": 1}
    evaluate(data, "steps,late,fragile,reference", "4,8", out=damaged_run, **options)
    assert {path: path.read_bytes() for path in sound} == sound


def test_another_model_is_not_passed_off_as_the_one_that_was_scored(
    damaged_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baselines.registry import CODECS

    monkeypatch.setattr(CODECS.load("steps"), "version", "2")
    remarks = "\n".join(write_html(damaged_run, clips=1).remarks)
    assert "steps was made with version '1', here it is '2'" in remarks


def test_what_only_encoding_depends_on_may_have_changed(
    damaged_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baselines.registry import CODECS

    monkeypatch.setattr(CODECS.load("steps"), "version", "2")
    monkeypatch.setattr(CODECS.load("steps"), "of_encoding", ("version",))
    assert "steps was made with" not in "\n".join(write_html(damaged_run, clips=1).remarks)


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "is not a run"),
        (["RUN", "--clips", "-1"], "--clips is -1; allowed: 0 or more"),
        (["RUN", "--device", "nowhere"], "unknown device 'nowhere'"),
        (["RUN", "--condition", "opus@8=."], "--condition opus@8 is not in"),
        (["RUN", "--weights", "qincodecs=x"], "'qincodecs' is not a codec of "),
        (["RUN", "--out", "FULL"], "holds files that are not a report"),
        (["RUN", "--out", "FILE"], "is a file"),
    ],
)
def test_mistakes_are_one_line(small_run: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "index.html").write_text("<h1>My home page</h1>")
    (tmp_path / "full" / "a.wav").write_bytes(b"")
    places = {"RUN": small_run, "FULL": tmp_path / "full", "FILE": tmp_path / "full" / "a.wav"}
    if "opus@8=." in arguments:
        soundfile.write(tmp_path / "full" / "a.wav", np.zeros(10), 8000)
        arguments = [*arguments[:-1], f"opus@8={tmp_path / 'full'}"]
    result = CliRunner().invoke(app, ["html", *(str(places.get(part, part)) for part in arguments)])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception) and "\n" not in str(result.exception)
    assert (tmp_path / "full" / "index.html").read_text() == "<h1>My home page</h1>"


def test_the_command_says_where_the_page_is(small_run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["html", str(small_run), "--out", str(tmp_path / "r"), "--clips", "1"])
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'r' / 'index.html'} (1 clips to hear" in result.output
