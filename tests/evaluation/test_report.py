"""Reports: nothing is cut or hidden, bytes repeat, and other programs can read the files."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from synthetic_results import SI_SDR, make_results, troubled

from evaluation.report import print_report, render, write_all
from evaluation.report.cells import decimals, kbps_text, percent
from evaluation.report.notes import notes
from evaluation.report.tables import build_table
from evaluation.report.terminal import EXPLAIN
from evaluation.results import Results
from evaluation.statistics.recordings import TIMING_COLUMNS
from qincodec.core.errors import UserError

DISCLAIMER = "Demo data: synthetic sounds, not a benchmark."
#: Of `difficult`: both metrics at 8 kbps. Opus is 20 % off the rate, so at 16 kbps one codec is left.
BOLD_VALUES = 2


def difficult() -> Results:
    """Results with every difficulty for a report."""
    return troubled(disclaimer=DISCLAIMER, n_excluded=2, n_lossy=3, lossy_formats=["MP3", "Vorbis"])


def many() -> Results:
    """Four codecs at four rates, four metrics."""
    codecs = {"opus": 0.0, "mp3": -1.5, "encodec": 0.8, "a-codec-with-a-long-name": 1.4}
    results = make_results(codecs=codecs, rates=(4, 8, 16, 32), clips_per_recording=2, control=True)
    for name in ("visqol", "fad"):
        results.metrics.append(dataclasses.replace(SI_SDR, name=name, label=name.upper(), unit=""))
        results.clips[name] = results.clips["ms_mel"] * 1000
        results.clips[f"{name}_reason"] = None
    return results


def note_lines(results: Results) -> list[str]:
    return [note.text for note in notes(results, results.summary)]


def printed(results: Results, width: int, *, terminal: bool = True, colour: bool = False) -> str:
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=terminal,
        color_system="standard" if colour else None,
        highlight=False,
    )
    console.print(render(results, results.summary, explain=True), crop=False)
    return file.getvalue()


# Terminal


@pytest.mark.parametrize("make", [difficult, many])
@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_nothing_is_cut_and_no_line_is_too_long(make: Any, width: int) -> None:
    results = make()
    text = printed(results, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = text.split()
    for section in build_table(results, results.summary).sections:
        assert section.heading in text
        for row in section.rows:
            for cell in row:
                for word in f"{cell.text} {cell.interval_text}".split():
                    assert word in words
    # Every note, though perhaps over several lines.
    flat = " ".join(words)
    for line in note_lines(results):
        assert " ".join(line.split()) in flat


def test_a_terminal_narrower_than_any_layout_still_gets_whole_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "dumb")
    file = Terminal()
    print_report(difficult(), file)
    assert re.search(r"\d\.\d\d \[-?\d+\.\d\d, \d+\.\d\d\]", file.getvalue())


def test_one_line_per_row_where_it_fits() -> None:
    lines = printed(difficult(), 120).splitlines()
    assert sum(line.startswith("qincodec") for line in lines) == 2
    row = next(line for line in lines if line.startswith("opus"))
    assert re.fullmatch(
        r"opus\s+⚠ 9\.60\s+-?\d\.\d\d \[-?\d\.\d\d, \d\.\d\d\]\s+\d\.\d+ \[\d\.\d+, \d\.\d+\]"
        r"\s+9\s+1\s+–\s+\d+\s+\d+\s*",
        row,
    )


def test_numbers_in_the_table_are_those_of_the_summary() -> None:
    results = difficult()
    row = results.summary.iloc[2]
    expected = f"{row['si_sdr']:.2f} [{row['si_sdr_ci_low']:.2f}, {row['si_sdr_ci_high']:.2f}]"
    assert (row["codec"], row["kbps"]) == ("qincodec", 8)
    assert expected in printed(results, 120)


def test_a_control_near_zero_is_not_rounded_away() -> None:
    results = make_results(control=True)
    control = results.clips["codec"] == "reference"
    results.clips.loc[control, "ms_mel"] = np.linspace(0.004, 0.006, control.sum())
    assert re.search(r"reference.* 0\.00500 \[0\.004\d\d, 0\.005\d\d\]", printed(results, 120))


def test_piped_output_is_plain_and_unwrapped() -> None:
    file = io.StringIO()
    print_report(many(), file, explain=True)
    text = file.getvalue()
    assert "\x1b" not in text and "Bold" not in text
    header = next(line for line in text.splitlines() if line.startswith("codec"))
    assert all(name in header for name in ("SI-SDR (dB) ↑", "MS-Mel ↓", "VISQOL ↑", "n", "failed", "dec ×RT"))
    assert sum(line.startswith("opus") for line in text.splitlines()) == 4
    for line in note_lines(many()):
        assert line in text.splitlines()


def test_metrics_are_explained_on_request() -> None:
    def said(explain: bool) -> list[str]:
        file = io.StringIO()
        print_report(difficult(), file, explain=explain)
        return file.getvalue().splitlines()

    found = notes(difficult(), difficult().summary)
    explained = [note.text for note in found if note.kind in ("definition", "reading")]
    assert len(explained) == 4 and set(explained) <= set(said(True))
    assert said(True)[-2:] == explained[-2:]  # what the metrics are comes last
    assert [line for line in said(True) if line not in explained] == said(False)[:-1]
    assert said(False)[-1] == EXPLAIN and "evaluate report RUN --explain" in EXPLAIN


@pytest.mark.parametrize("rate_factor", [{}, {"above": 1.2}, {"above": 0.8}])
def test_best_value_at_each_rate_is_bold_controls_and_other_rates_never(
    rate_factor: dict[str, float],
) -> None:
    codecs = {"opus": 0, "best": 5, "mp3": -5} | dict.fromkeys(rate_factor, 9)
    results = make_results(codecs=codecs, control=True, rate_factor=rate_factor)
    bold = re.findall(r"\x1b\[1m\s*(-?\d+\.\d+)\x1b", printed(results, 160, colour=True))
    best = results.summary[results.summary["codec"] == "best"]
    expected = [
        f"{row[name]:.{2 if name == 'si_sdr' else 3}f}"
        for _, row in best.iterrows()
        for name in ("si_sdr", "ms_mel")
    ]
    assert [float(value) for value in bold] == pytest.approx([float(value) for value in expected], abs=6e-3)


def test_terminal_that_cannot_show_arrows() -> None:
    class Latin(io.StringIO):
        encoding = "latin-1"

    file = Latin()
    results = difficult()
    results.dataset = dataclasses.replace(results.dataset, name="Łódź")
    print_report(results, file)
    file.getvalue().encode("ascii")
    assert "SI-SDR (dB) (up)" in file.getvalue() and "! 9.60" in file.getvalue()


def test_notes_name_every_limit_of_the_results() -> None:
    results = difficult()
    results.n_pending = 3
    text = "\n".join(note_lines(results))
    for part in (
        "Data: synthetic, 10 clips of 10 recordings, 2 excluded; mean [95% interval over 9 to 10 recordings]",
        DISCLAIMER,
        "3 results of clips are missing",
        "3 of 10 clips come from a lossy format (MP3, Vorbis)",
        "8 kbps 8.00 to 9.60 (20%)",
        "⚠ more than 15% off the asked rate: opus@8 +20%, opus@16 +20%",
        "† declared rate",
        "opus@8 +312",
        "SI-SDR infinite, left out of the mean: qincodec@16 1 of 10, reference 10 of 10",
        "SI-SDR not a number: the reference is silent (2×)",
        "Failed: opus: RuntimeError: encoder refused the clip_1 & gave up at 50 % (2×)",
        "SI-SDR, version 1, higher is better: scale-invariant",
        "MS-Mel, version 1, lower is better: sum over seven scales",
    ):
        assert part in text


def test_a_delay_that_clips_do_not_agree_on_is_doubted() -> None:
    results = make_results(codecs={"opus": 0, "mp3": 1}, num_recordings=5)
    results.clips["delay_samples"] = results.clips["delay_samples"].astype(float)
    for codec, delays in (("opus", [-4118, -1, -3257, -3633, math.nan]), ("mp3", [1105, 1105, 1149, 0, 3])):
        rows = (results.clips["codec"] == codec) & (results.clips["kbps"] == 8)
        results.clips.loc[rows, "delay_samples"] = delays
        results.clips.loc[rows, "delay_applied"] = -3633 if codec == "opus" else 1105
    (line,) = [line for line in note_lines(results) if "doubtful" in line]
    assert line.startswith("⚠ That delay is doubtful: clips do not agree within 44 samples: opus@8")
    assert "opus@8 1 of 4 clips (estimates from -4118 to -1); --no-align" in line and "mp3" not in line


def test_quiet_results_have_few_notes() -> None:
    results = make_results(codecs={"opus": 0, "mp3": 1}, num_recordings=30)
    assert len(note_lines(results)) == 4  # the data, the columns and two definitions


def test_rows_that_shared_a_folder_of_clips_have_a_note() -> None:
    """An earlier version allowed it, and its run folders are still read."""
    results = make_results(codecs={"a b": 0, "mp3": 1, "a_b": 2})
    (line,) = [line for line in note_lines(results) if "one folder" in line]
    assert line.startswith(
        "'a b' and 'a_b' share one folder of encoded clips, a fault of an earlier version;"
    )


def test_many_failures_are_summed_up() -> None:
    results = make_results(num_recordings=9)
    opus = results.clips["codec"] == "opus"
    results.clips["error"] = results.clips["error"].astype(object)
    results.clips.loc[opus, "error"] = "no such file: " + results.clips["clip"]
    results.clips.loc[opus, ["si_sdr", "ms_mel"]] = math.nan
    lines = [line for line in note_lines(results) if line.startswith("Failed")]
    assert len(lines) == 6 and lines[-1] == "Failed: 4 more reasons: see clips.csv, column error"


def test_one_recording_and_nothing_scored() -> None:
    one = make_results(num_recordings=1)
    assert "no intervals: one recording only" in printed(one, 100)
    assert "[" not in printed(one, 100).split("Data:")[0]
    results = make_results()
    results.clips["error"] = "broken"
    results.clips[["si_sdr", "ms_mel"]] = math.nan
    assert "nothing could be scored" in printed(results, 100)


@pytest.mark.parametrize(
    ("means", "widths", "expected"),
    [
        ([7.5, 9.1], [0.9, 1.1], 2),
        ([0.81, 0.92], [0.02, 0.03], 3),
        ([81.2], [math.nan], 2),
        ([0.0123, math.nan], [0.0], 4),
        ([math.inf], [math.nan], 2),
        ([0.5], [1e-9], 5),
    ],
)
def test_decimals(means: list[float], widths: list[float], expected: int) -> None:
    assert decimals(pd.Series(means), pd.Series(widths)) == expected


def test_number_formats() -> None:
    assert [percent(ratio) for ratio in (0.05, 0.054, 0.0996, 0.15, 1.234)] == [
        "5%",
        "5.4%",
        "10%",
        "15%",
        "123%",
    ]
    assert [kbps_text(rate) for rate in (7.996, 99.0, 705.6, math.nan)] == ["8.00", "99.00", "705.6", "–"]


# Files


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time."""
    monkeypatch.setattr("evaluation.report.files.write_plots", lambda *_: [])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_all(difficult(), folder)
    return folder


def test_all_files_are_there_and_named(written: Path) -> None:
    names = {path.name for path in written.iterdir()}
    assert names == {
        *("clips.csv", "clips.parquet", "summary.csv", "summary.json", "table.md", "table.tex", "tests.csv"),
        *("rate_distortion.png", "rate_distortion.svg"),
    }


def test_the_same_results_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("an older one")
    paths = write_all(difficult(), tmp_path)
    assert {path.name for path in paths} == {path.name for path in written.iterdir()}
    for path in written.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_every_file_carries_the_disclaimer(written: Path) -> None:
    for path in written.iterdir():
        if path.suffix in (".csv", ".json", ".md", ".tex"):
            assert DISCLAIMER in path.read_text(encoding="utf-8"), path.name


@pytest.mark.usefixtures("without_plots")
def test_no_disclaimer_column_without_one(tmp_path: Path) -> None:
    write_all(make_results(), tmp_path)
    assert "disclaimer" not in (tmp_path / "summary.csv").read_text()


def test_csv_files_give_back_the_frames(written: Path) -> None:
    results = difficult()
    clips = pd.read_csv(written / "clips.csv")
    assert len(clips) == len(results.clips)
    for name in ("si_sdr", "ms_mel", "bytes", "encode_s", "kbps"):
        np.testing.assert_array_equal(clips[name], results.clips[name].astype(float))
    assert ",inf," in (written / "clips.csv").read_text() and "nan" not in (written / "clips.csv").read_text()
    read = pd.read_parquet(written / "clips.parquet")
    pd.testing.assert_frame_equal(read, clips, check_dtype=False, check_exact=True)
    summary = pd.read_csv(written / "summary.csv")
    for name in ("kbps_measured", "si_sdr", "si_sdr_ci_low", "ms_mel_ci_high", "si_sdr_inf"):
        np.testing.assert_array_equal(summary[name], results.summary[name].astype(float))


def test_only_timing_columns_change_with_timing(written: Path, tmp_path: Path) -> None:
    results = difficult()
    results.clips[["encode_s", "decode_s"]] *= 1.9
    write_all(results, tmp_path)
    for name in ("tests.csv", "rate_distortion.svg"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()
    for name in ("clips.csv", "summary.csv"):
        one, other = (pd.read_csv(folder / name) for folder in (written, tmp_path))
        changed = [column for column in one if not one[column].equals(other[column])]
        assert changed and set(changed) <= set(TIMING_COLUMNS)


def strict_json(path: Path) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def nulls_without_reason(value: Any, where: str = "") -> list[str]:
    found = []
    if isinstance(value, dict):
        for name, entry in value.items():
            if entry is None and not value.get(f"{name}_reason"):
                found.append(f"{where}.{name}")
            found += nulls_without_reason(entry, f"{where}.{name}")
    elif isinstance(value, list):
        for entry in value:
            found += nulls_without_reason(entry, where)
    return found


def test_json_has_no_nan_and_a_reason_for_every_null(written: Path) -> None:
    content = strict_json(written / "summary.json")
    for part in ("conditions", "tests", "bd_rate", "rate_spread", "metrics"):
        assert nulls_without_reason(content[part], part) == []
    assert content["schema_version"] == 1
    reference = content["conditions"][-1]
    assert reference["si_sdr"] is None and reference["si_sdr_inf"] == 10
    assert reference["si_sdr_reason"] == "all 10 values are infinite"
    assert content["metrics"][1]["definition"].startswith("sum over seven scales")
    assert content["settings"]["seed"] == 0 and content["environment"]["commit"]
    assert content["timing_columns"] == list(TIMING_COLUMNS)
    assert len(content["tests"]) == 8 and len(content["rate_spread"]) == 2
    first = difficult().summary.iloc[0]
    assert content["conditions"][0]["ms_mel_ci_low"] == first["ms_mel_ci_low"]


@pytest.mark.usefixtures("without_plots")
def test_json_of_awkward_values(tmp_path: Path) -> None:
    results = make_results(num_recordings=1)
    results.environment = {"path": Path("x"), "value": np.float32(math.nan), "n": np.int64(3), "t": (1, 2)}
    gone = dataclasses.replace(results.corpus[0], kbps_entropy=math.nan, kbps_entropy_reason="a file is gone")
    results.corpus[0] = gone
    write_all(results, tmp_path)
    content = strict_json(tmp_path / "summary.json")
    assert content["environment"] == {
        **{"path": "x", "value": None, "value_reason": "not finite: nan", "n": 3, "t": [1, 2]}
    }
    row = content["conditions"][0]
    assert row["si_sdr_ci_low"] is None and "one recording" in row["si_sdr_ci_low_reason"]
    assert nulls_without_reason(content["conditions"]) == nulls_without_reason(content["tests"]) == []
    assert "a file is gone" in {row.get("kbps_entropy_reason") for row in content["conditions"]}


@pytest.mark.usefixtures("without_plots")
def test_bd_rate_is_written_where_there_is_one_and_removed_where_not(tmp_path: Path) -> None:
    write_all(make_results(rates=(6, 12, 24, 48)), tmp_path)
    assert len(pd.read_csv(tmp_path / "bd_rate.csv")) == 2
    write_all(make_results(), tmp_path)
    assert not (tmp_path / "bd_rate.csv").exists()


def test_markdown_has_a_full_grid(written: Path) -> None:
    lines = (written / "table.md").read_text(encoding="utf-8").splitlines()
    grid = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    assert {len(row) for row in grid} == {9} and len(grid) == 2 + 3 + 6
    assert sum(cell.strip().startswith("**") for row in grid for cell in row[1:]) == BOLD_VALUES
    assert "clip\\_1" in "\n".join(lines)


def test_latex_is_balanced_escaped_and_rectangular(written: Path) -> None:
    text = (written / "table.tex").read_text(encoding="utf-8")
    bare = text.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    for name in ("table*", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    rows = text.split(r"\toprule")[1].split(r"\bottomrule")[0].split(r"\\")
    cells = [len(re.findall(r"(?<!\\)&", row)) for row in rows if "&" in row]
    assert set(cells) == {3} and len(cells) == 7
    comments = text.split(r"\end{table*}")[1].splitlines()[1:]
    assert len(comments) == len(note_lines(difficult())) and all(line.startswith("% ") for line in comments)
    assert "clip_1 & gave up at 50 %" in "".join(comments)
    assert r"SI-SDR (dB) $\uparrow$" in text and r"MS-Mel $\downarrow$" in text
    assert text.count(r"\textbf{") == BOLD_VALUES
    text.encode("ascii")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_all(make_results(), tmp_path / "run")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(make_results(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(KeyboardInterrupt):
        write_all(make_results(seed=1), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_random_weights_and_notes_of_the_data_are_below_every_table() -> None:
    results = make_results()
    note = "3 of 9 recordings, drawn with seed 7"
    results.dataset = dataclasses.replace(results.dataset, notes=(note,))
    assert not any("RANDOM" in line for line in note_lines(results))
    first = dataclasses.replace(results.conditions[0], identity={"name": "q", "version": "1-untrained"})
    results.conditions[0] = first
    lines = note_lines(results)
    assert f"RANDOM WEIGHTS, never trained: {first.codec}; scores mean nothing" in lines
    assert "Data: 3 of 9 recordings, drawn with seed 7" in lines
