"""The whole reproduction with tiny models of random weights."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from baselines import weights
from evaluation.cli.evaluate import app
from evaluation.paper.printed import Column, WantedRow
from evaluation.paper.run import PaperRequest, _data_note
from evaluation.paper.sheets import table_sheet
from evaluation.paper.tables import Entry, PaperTable, Row
from evaluation.records import DatasetInfo
from evaluation.report.terminal import Report
from qincodec import model_folder
from qincodec.codec import Qincodec, load
from qincodec.core.console import run_command

Build = Callable[..., Qincodec]
Call = Callable[..., tuple[int, str, str]]

FIGURES = [f"fig{number}.{suffix}" for number in (3, 4) for suffix in ("png", "svg", "pdf")]
WRITTEN = ["paper.json", "tables.tex", "paper.html"]


def call_paper(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """`evaluate paper ARGUMENTS`: exit code, stdout and stderr."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        run_command(app, ["paper", *map(str, arguments)], "evaluate")
    shown = capfd.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    return lambda *arguments: call_paper(capfd, *arguments)


@dataclass
class Done:
    """A reproduction that has run."""

    folder: Path
    out: str
    arguments: list[object]
    other: Path

    @property
    def numbers(self) -> dict[str, Any]:
        return json.loads((self.folder / "paper.json").read_text())

    def row(self, table: int, key: str) -> dict[str, Any]:
        return next(r for r in self.numbers["tables"][table]["rows"] if r["wanted"]["key"] == key)


@pytest.fixture(scope="module")
def done(training: Path, clips: Path, build: Build, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """All roles of one training, another model of another latent dimension, DAC with random weights."""
    root = tmp_path_factory.mktemp("reproduction")
    build("rvq", False, 16).save(root / "other")
    arguments: list[object] = ["--data", clips, "--training", training, "--model", f"rvq={root / 'other'}"]
    arguments += ["--weights", "dac=untrained:tiny", "--skip", "encodec", "--out", root / "out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folder, "PRETRAINED", root)
        patch.setenv("QINCODEC_CACHE", str(root / "cache"))
        patch.setenv("COLUMNS", "200")
        with (root / "stdout").open("w+", encoding="utf-8") as file:
            patch.setattr("sys.stdout", file)
            with pytest.raises(SystemExit) as end:
                run_command(app, ["paper", *map(str, arguments)], "evaluate")
            assert not end.value.code
    return Done(root / "out", (root / "stdout").read_text(encoding="utf-8"), arguments, root / "other")


def test_every_row_is_filled_or_says_why(done: Done) -> None:
    reasons = {}
    for table, kbps in zip(done.numbers["tables"], (16, 8, 16), strict=True):
        for row in table["rows"]:
            reasons[row["wanted"]["key"]] = row["reason"]
            if row["reason"]:
                assert row["model"] == "" and all(e["value"] is None for e in row["entries"].values())
                continue
            assert row["n"] == row["n_recordings"] == 3 and row["n_failed"] == 0
            assert abs(row["kbps_measured"] / kbps - 1) < 0.15
            for name, entry in row["entries"].items():
                if name.endswith("openl3"):
                    assert entry["value"] is None and "openl3" in entry["reason"]
                else:
                    assert entry["value"] is not None
                assert entry["difference"] is None  # not the paper's data
    assert {key for key, reason in reasons.items() if reason} == {"encodec", "irvq-finetuned"}
    assert reasons["encodec"] == "left out with --skip encodec"
    assert "no finetuned-irvq/model" in reasons["irvq-finetuned"]
    assert done.row(0, "encodec")["entries"]["si_sdr"]["paper"] == 6.10


def test_values_are_beside_the_papers_and_labelled(done: Done) -> None:
    assert "not the paper's data: " in done.out and "3 clips of 3 recordings" in done.out
    assert re.search(r"here .* not run +not run", done.out) and "FD-logmel" in done.out
    assert re.search(r"^paper +16 ", done.out, re.MULTILINE)
    assert not re.search(r"^difference", done.out, re.MULTILINE)
    for line in ("9.04", "0.85", "51.4", "0.23", "784"):
        assert line in done.out
    models = [done.row(0, key)["model"] for key in ("dac", "irvq", "qinco2-finetuned")]
    assert all(text.startswith("RANDOM WEIGHTS, never trained") for text in models)
    assert "not the paper's size: D 8, the paper has 16, 32, 64" in models[1]
    assert "QINCO2 of L 1, d_e 8, d_h 8, the paper has L 4, d_e 384, d_h 384" in models[2]
    assert "search: " in models[2] and "num_codebooks" in models[0]
    assert load(done.arguments[3] / "quantizer-irvq" / "model").hash[:16] in models[1]  # type: ignore[operator]


def test_reasons_are_in_one_box_after_all_that_ran(done: Done) -> None:
    """Each reason once, on the terminal, in the page and in LaTeX."""
    before, _, after = done.out.partition("\nNot run here\n")
    assert "left out with" not in before and "OpenL3" not in before
    box = after.partition("\n\n")[0].splitlines()
    encodec = "EnCodec (Table I, Table II); EnCodec at 16 and 8 kbps (Fig. 3): left out with --skip encodec"
    assert encodec in box
    assert any(line.startswith("QINCODEC iRVQ, finetuned (Table I, Table II): ") for line in box)
    assert any(line.startswith("FD-OL3, FM-OL3 (Table I, Table II, Table III): ") for line in box)
    assert all(f"Table {name}. " in before for name in ("I", "II", "III")) and "Fig. 4. " in before
    # Nothing ran for it, and the paper's numbers of it are lost: only the box speaks of it.
    assert "Fig. 2. " not in done.out and any("(Fig. 2): no listening test" in line for line in box)
    # In a table, too, what ran comes first.
    first = before.partition("Table II. ")[0]
    ran = ["DAC", "QINCODEC iRVQ", "QINCODEC QINCO2", "QINCODEC QINCO2, finetuned"]
    rows = re.findall(r"^((?:DAC|EnCodec|QINCODEC).*?) *$", first, re.MULTILINE)
    assert [row for row in rows if ":" not in row] == [*ran, "EnCodec", "QINCODEC iRVQ, finetuned"]
    for name in ("paper.html", "tables.tex"):
        text = (done.folder / name).read_text(encoding="utf-8")
        assert text.count("Not run here") >= 1 and text.count("skip encodec") == 1, name


def test_latent_error_against_all_latents_at_once(done: Done, training: Path, clips: Path) -> None:
    for kind in ("rvq", "irvq", "qinco2"):
        # What is given by itself comes before what a training left.
        model = load(done.other if kind == "rvq" else training / f"quantizer-{kind}" / "model")
        row = done.row(2, kind)
        count = int(re.search(r"num_codebooks (\d+)", row["model"])[1])  # type: ignore[index]
        x, decoded = [], []
        for path in sorted(clips.glob("*.wav")):
            samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None, None]
            latents = model.encode_latents(samples)[0, 0]
            x.append(latents.detach().numpy())
            assert model.quantizer is not None
            decoded.append(model.quantizer.decode(model.quantizer.encode(latents, count)).numpy())
        whole = np.concatenate(x).astype(float)
        error = np.square(np.concatenate(decoded) - whole).mean() / whole.var(axis=0).mean()
        entry = row["entries"]["latent_error"]
        assert entry["value"] == pytest.approx(error, rel=1e-5)
        assert entry["low"] < entry["value"] < entry["high"] and entry["paper"] is None
    assert "The quantizers belong to different encoders" in done.out


def test_perplexity_is_the_mean_over_codebooks_and_its_figure_shows_them(done: Done) -> None:
    figure = done.numbers["figures"][1]
    series = {(entry["panel"], entry["label"]): entry["points"] for entry in figure["series"]}
    assert {label for _, label in series} == {
        f"{name} (random weights)" for name in ("DAC", "QINCODEC", "QINCODEC with iRVQ")
    }
    points = series["16 kbps", "QINCODEC (random weights)"]
    assert [point["x"] for point in points] == list(range(1, 13))  # 12 books of 8 bits: 16.5 kbps
    mean = np.mean([point["value"] for point in points])
    assert done.row(0, "qinco2-finetuned")["entries"]["perplexity"]["value"] == pytest.approx(mean)
    # Fine-tuning moves no code.
    assert done.row(0, "qinco2")["entries"]["perplexity"]["value"] == pytest.approx(mean)
    assert ["EnCodec at 16 and 8 kbps", "left out with --skip encodec"] in figure["missing"]


def test_curves_are_of_every_latent_dimension(done: Done) -> None:
    figure = done.numbers["figures"][2]
    rates = {}
    for entry in figure["series"]:
        rates[entry["label"], entry["panel"]] = [point["x"] for point in entry["points"]]
    labels = ("D = 8, qinco2-finetuned (random weights)", "D = 16, rvq (random weights)")
    assert set(rates) == {(label, panel) for label in labels for panel in ("MS-Mel ↓", "SI-SDR (dB) ↑")}
    for found in rates.values():
        assert np.allclose(found, [3, 8, 16, 24], rtol=0.15) and found == sorted(found)
    value = done.row(0, "qinco2-finetuned")["entries"]["si_sdr"]["value"]
    points = next(e for e in figure["series"] if e["label"] == labels[0] and "SDR" in e["panel"])["points"]
    assert points[2]["value"] == value and points[2]["n"] == 3
    assert [entry[0] for entry in figure["missing"]] == ["D = 32", "D = 64"]


def test_again_gives_the_same_bytes_and_codes_nothing(
    done: Done, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QINCODEC_CACHE", str(done.folder.parent / "cache"))  # it is in the reasons
    before = {name: (done.folder / name).read_bytes() for name in [*FIGURES, *WRITTEN]}
    again: list[str] = []
    monkeypatch.setattr(Qincodec, "encode", lambda *_, **__: again.append("coded"))
    monkeypatch.setattr(Qincodec, "encode_latents", lambda *_: again.append("latents"))
    code, out, _ = call(*done.arguments)
    assert code == 0 and out == done.out and not again
    for name, content in before.items():
        assert (done.folder / name).read_bytes() == content, name


class Page(HTMLParser):
    """Checks nesting, gathers addresses and text."""

    VOID = ("meta", "link", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_no_other_file(done: Done) -> None:
    page = Page()
    page.feed((done.folder / "paper.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.addresses and all(address.startswith("data:") for address in page.addresses)
    for text in ("Table III", "Fig. 4", "not the paper's data", "left out with --skip encodec", "9.04"):
        assert text in page.text


def test_latex_has_as_many_cells_as_columns(done: Done) -> None:
    text = (done.folder / "tables.tex").read_text(encoding="utf-8")
    assert text.isascii(), sorted({sign for sign in text if not sign.isascii()})
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    for table in re.findall(r"\\begin\{tabular\}\{(l[r]*)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for line in table[1].splitlines():
            if "&" in line:
                assert len(re.findall(r"(?<!\\)&", line)) == len(table[0]) - 1, line


def test_without_anything_all_rows_say_so(call: Call, clips: Path, tmp_path: Path) -> None:
    code, out, _ = call("--data", clips, "--out", tmp_path / "out", "--offline")
    assert code == 0 and "0 of 15 rows of the tables ran and 0 of 3 figures" in out
    numbers = json.loads((tmp_path / "out" / "paper.json").read_text())
    rows = [row for table in numbers["tables"] for row in table["rows"]]
    assert len(rows) == 15 and all(row["reason"] for row in rows)
    box = out.partition("Not run here\n")[2].partition("\n\n")[0]
    assert all(row["wanted"]["label"] + " (Table" in box and row["reason"] in box for row in rows)
    assert "--model qinco2-finetuned=PATH" in box
    assert all(out.count(reason) == 1 for reason in {row["reason"] for row in rows})
    assert sum(e["paper"] is not None for row in rows for e in row["entries"].values()) == 60
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(WRITTEN)


def test_a_shipped_model_is_the_finetuned_one(
    build: Build, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluation.paper.models import find_models

    monkeypatch.setattr(model_folder, "PRETRAINED", tmp_path)
    build("qinco2", True).save(tmp_path / "small")
    models, reasons = find_models([], [])
    assert list(models) == ["qinco2-finetuned"] and models["qinco2-finetuned"][0].weights == "small"
    assert "shipped model 'small'" in models["qinco2-finetuned"][0].description
    assert set(reasons) == {"rvq", "irvq", "irvq-finetuned", "qinco2"}
    # What is given comes before what is shipped; fine-tuning shows in the hash of the whole alone.
    build("qinco2", False).save(tmp_path.parent / "before")
    build("qinco2", True).save(tmp_path.parent / "after")
    given = [
        ("qinco2", f"{tmp_path.parent / 'before'}"),
        ("qinco2-finetuned", f"{tmp_path.parent / 'after'}"),
    ]
    models, _ = find_models([], given)
    before, after = models["qinco2"][0], models["qinco2-finetuned"][0]
    assert after.source.startswith("given") and before.coder == after.coder and before.hash != after.hash
    build("qinco2", True, 16).save(tmp_path.parent / "after")
    models, _ = find_models([], given)
    assert models["qinco2-finetuned"][0].coder != before.coder
    # A shipped one of another latent dimension is one more point of Fig. 4 only where none was given.
    assert len(models["qinco2-finetuned"]) == 1


def test_mistakes_are_refused_in_one_line(
    call: Call, training: Path, clips: Path, build: Build, tmp_path: Path
) -> None:
    irvq = training / "quantizer-irvq" / "model"
    build("rvq", False).save(tmp_path / "a,b")
    cases: list[tuple[list[object], str]] = [
        (["--model", f"qinco2={irvq}"], "has quantizer 'irvq', but role 'qinco2' needs 'qinco2'"),
        (["--model", f"best={irvq}"], "--model takes ROLE=PATH with a role of rvq, irvq"),
        (["--model", "irvq"], "--model takes ROLE=PATH"),
        (["--model", f"irvq={tmp_path / 'none'}"], "is not a model"),
        (["--model", f"irvq={irvq}", "--training", training], "two models are 'irvq' with D = 8"),
        (
            ["--model", f"irvq={irvq}", "--model", f"irvq-finetuned={irvq}"],
            "one model is given as 'irvq' and",
        ),
        (["--model", f"rvq={tmp_path / 'a,b'}"], "must not have a comma"),
        (["--training", clips], "is not the folder of a training"),
        (["--skip", "opus"], "--skip 'opus' is not a part"),
        (["--listening", clips], "conditions.csv' cannot be read"),
        (["--weights", "dac"], "--weights takes NAME=PATH"),
        (["--weights", "opus=x"], "opus"),
        (["--weights", f"dac={tmp_path / 'none.pth'}"], "--weights dac="),
        (["--limit", "0", "--training", training], "--limit is 0"),
        (["--data", tmp_path / "nowhere"], "nowhere"),
    ]
    for arguments, message in cases:
        data = [] if "--data" in arguments else ["--data", clips]
        code, out, err = call(*data, *arguments, "--out", tmp_path / "out")
        assert code == 2 and out == "", arguments
        assert message in err and err.count("\n") == 1, (arguments, err)
    assert not (tmp_path / "out").exists()


HEADER = "condition,n_listeners,n_ratings,mean,ci_low,ci_high,median,q1,q3\n"


def test_a_listening_test_becomes_a_figure(call: Call, clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "listening"
    folder.mkdir()
    rows = ["qincodec@16,11,132,71.5,66.25,76.75,72,60,84", "dac@16,11,132,74,69,79,75,61,88"]
    rows.append("anchor35,11,132,20,,,18,9,28")
    (folder / "conditions.csv").write_text(HEADER + "\n".join(rows) + "\n")
    code, out, _ = call("--data", clips, "--listening", folder, "--out", tmp_path / "out", "--skip", "dac")
    assert code == 0 and "1 of 3 figures" in out
    points = json.loads((tmp_path / "out" / "paper.json").read_text())["figures"][0]["series"][0]["points"]
    first = {"x": "qincodec@16", "value": 71.5, "low": 66.25, "high": 76.75, "n": 11, "asked": None}
    assert points[0] == first
    assert points[2]["low"] is None and "[66.25, 76.75]" in out
    assert (tmp_path / "out" / "fig2.pdf").read_bytes().startswith(b"%PDF")
    # Without it the next time, its figure goes.
    assert call("--data", clips, "--out", tmp_path / "out", "--skip", "dac")[0] == 0
    assert not (tmp_path / "out" / "fig2.pdf").exists()
    for broken in (
        "condition,mean\nx,3\n",
        HEADER + "x,1,1,high,1,2,1,1,1\n",
        HEADER + "x,1,1,150,1,2,1,1,1\n",
    ):
        (folder / "conditions.csv").write_text(broken)
        code, _, err = call("--data", clips, "--listening", folder, "--out", tmp_path / "out2")
        assert code == 2 and err.count("\n") == 1 and "conditions.csv" in err


def test_failed_clips_are_in_the_row_and_in_the_exit_code(
    call: Call, build: Build, clips: Path, tmp_path: Path
) -> None:
    build("rvq", False).save(tmp_path / "model")
    data = tmp_path / "data"
    data.mkdir()
    (data / "c0.wav").write_bytes((clips / "c0.wav").read_bytes())
    (data / "broken.wav").write_bytes((clips / "c1.wav").read_bytes()[:5000])
    arguments = ["--data", data, "--model", f"rvq={tmp_path / 'model'}", "--skip", "openl3,fig4"]
    code, out, _ = call(*arguments, "--out", tmp_path / "out")
    assert code == 3 and "1 (1 failed)" in out and "broken.wav" in out
    row = json.loads((tmp_path / "out" / "paper.json").read_text())["tables"][2]["rows"][0]
    assert (row["n"], row["n_failed"], row["reason"]) == (1, 1, "")
    assert row["entries"]["latent_error"]["low"] is None  # one recording has no interval
    assert "left out with --skip openl3" in out


@pytest.mark.long  # OpenL3's network and its resampler's compilation take ten seconds
def test_with_openl3_there_are_only_the_papers_columns(
    call: Call,
    build: Build,
    shared: Callable[[str], Path],
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "_explicit", {})
    file = shared("golden/openl3/random_openl3_audio_mel256_env.h5.gz")
    build("rvq", False).save(tmp_path / "model")
    arguments = ["--data", clips, "--model", f"rvq={tmp_path / 'model'}", "--skip", "fig4"]
    code, out, _ = call(*arguments, "--weights", f"openl3={file}", "--out", tmp_path / "out")
    assert code == 0 and "FD-logmel ↓" not in out and "left out with --skip fig4" in out
    table = json.loads((tmp_path / "out" / "paper.json").read_text())["tables"][2]
    entry = table["rows"][0]["entries"]["fd_openl3"]
    assert entry["value"] > 0 and entry["half"] > 0 and entry["paper"] is None and entry["ran"]
    assert any(re.match(r"FD-OL3 is of 3 clips, \d+ frames \(half: \d+\)", note) for note in table["notes"])
    assert any(note.startswith("Noise floor, FD-OL3 and FM-OL3") for note in table["notes"])
    assert "The paper has no formula for its FM-OL3" in out


def test_the_papers_data_are_named_as_such() -> None:
    data = DatasetInfo(name="audiocaps-test", n_clips=975, n_recordings=975, hash="")
    assert _data_note(PaperRequest("audiocaps:x"), data).startswith(
        "the paper's data: AudioCaps' test set, 975"
    )
    part = _data_note(PaperRequest("audiocaps:x"), replace(data, n_clips=900))
    assert "a part of its 975 clips" in part
    assert _data_note(PaperRequest("/audiocaps"), data).startswith("not the paper's data")


def test_differences_are_given_on_audiocaps(call: Call, build: Build, clips: Path, tmp_path: Path) -> None:
    build("irvq", False).save(tmp_path / "model")
    folder = tmp_path / "audiocaps"
    folder.mkdir()
    rows = []
    for number, path in enumerate(sorted(clips.glob("*.wav"))):
        (folder / f"Yid_of_clip_{number}.wav").write_bytes(path.read_bytes())
        rows.append(f"{number},id_of_clip_{number},{number},A sound.")
    (folder / "test.csv").write_text("audiocap_id,youtube_id,start_time,caption\n" + "\n".join(rows) + "\n")
    data = ["--data", f"audiocaps:{folder}", "--model", f"irvq={tmp_path / 'model'}"]
    code, out, _ = call(*data, "--skip", "openl3,fig4,dac,encodec", "--out", tmp_path / "out")
    assert code == 0 and "a part of its 975 clips" in out
    numbers = json.loads((tmp_path / "out" / "paper.json").read_text())
    row = next(row for row in numbers["tables"][0]["rows"] if row["wanted"]["key"] == "irvq")
    entry = row["entries"]["si_sdr"]
    assert entry["difference"] == pytest.approx(entry["value"] - 6.20)
    shown = re.search(r"^difference +(\S+)", out, re.MULTILINE)
    assert shown is not None and shown[1] == f"{entry['value'] - 6.20:+.2f}"


def test_a_narrow_terminal_gets_blocks() -> None:
    numbers = {name: Entry(float(number), paper=0.5) for number, name in enumerate(("x", "y", "z"), 1)}
    row = Row(WantedRow("dac", "DAC"), 16.0, model="because " * 20, kbps_measured=16.1, n=3, entries=numbers)
    columns = [Column(name, f"{name} ↑", 2) for name in numbers]
    sheet = table_sheet(PaperTable("I", "title", columns, [row], [], ["a note " * 20]), True)
    blocks = {}
    for width in (30, 40, 200):
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        console.print(Report([sheet.table], sheet.notes), crop=False)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert all(len(line) <= width for line in text.splitlines())
        assert text.split().count("3.00") == 1 and text.split().count("+2.50") == 1
        assert text.split().count("because") == 20
        blocks[width] = text.count("16.10")  # each block says again which row it is of
    assert blocks[30] > blocks[40] >= blocks[200] == 1
