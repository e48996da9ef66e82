"""`mushra analyze` from end to end: files, figures, bytes, escaping, and bad or thin input."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from synthetic_ratings import simulate, thin, tidy

from mushra.analysis import wording
from mushra.analysis.load import load
from mushra.analysis.pipeline import TEST_COLUMNS, WILCOXON, Analysis, analyze
from mushra.analysis.ratings import with_roles
from mushra.analysis.report import html, latex, write_all
from mushra.cli.analyze import register
from qincodec.core.console import run_command
from qincodec.core.errors import UserError

Shared = Callable[[str], Path]
AES = "mushra/AES2023_webmushra_results.csv"
TABLES = "conditions conditions_all screening listeners intervals items differences tests means contrasts"


def run(*arguments: str | Path) -> int:
    """Exit code of the command line."""
    app = typer.Typer(add_completion=False)
    register(app)
    app.command("other")(lambda: None)
    with pytest.raises(SystemExit) as end:
        run_command(app, [str(argument) for argument in arguments], "mushra")
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def aes(shared: Shared) -> Analysis:
    return analyze(load([shared(AES)]), baseline="FOA", num_permutations=2000)


def test_files_and_their_columns(shared: Shared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("analyze", shared(AES), "--out", out, "--no-plots", "--permutations", "200") == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [f"{name}.csv" for name in [*TABLES.split(), "sensitivity"]]
        + ["analysis.json", "report.html", "table.tex"]
    )
    columns = "condition,n_listeners,n_ratings,mean,ci_low,ci_high,median,q1,q3"
    for name, listeners in (("conditions", 14), ("conditions_all", 22)):
        text = (out / f"{name}.csv").read_text()
        assert text.splitlines()[0] == columns
        assert set(pd.read_csv(out / f"{name}.csv")["n_listeners"]) == {listeners}
    screening = pd.read_csv(out / "screening.csv")
    shares = ["reference_below_90_share", "mid_anchor_above_90_share"]
    assert list(screening) == ["listener", "excluded", "reason", *shares]
    assert screening["excluded"].sum() == 8
    all_listeners = pd.read_csv(out / "conditions_all.csv", index_col="condition")
    assert all_listeners["mean"].round(3)[["reference", "FOA", "Param1", "Mono"]].tolist() == [
        96.385,
        78.441,
        75.175,
        19.549,
    ]
    foa = all_listeners.loc["FOA"]
    assert (foa["ci_high"] - foa["ci_low"]) / 2 == pytest.approx(4.35, abs=0.005)
    content = json.loads((out / "analysis.json").read_text())
    assert content["n_ratings"] == 2288
    assert len(content["tables"]["tests"]) == len(pd.read_csv(out / "tests.csv"))
    printed = capsys.readouterr()
    assert "FOA-Amb-Param1" in printed.out
    assert "8 listeners of 22 excluded" in printed.err


@pytest.mark.parametrize("plots", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_same_bytes_again_from_elsewhere(shared: Shared, tmp_path: Path, plots: bool) -> None:
    """Also in another folder and with rows in another order."""
    source = shared(AES)
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / source.name
    copy.write_bytes(source.read_bytes())
    ratings = load([source])
    few = with_roles(ratings.frame[ratings.frame["item"].isin(ratings.items[:2])])
    shuffled = with_roles(few.frame.sample(frac=1, random_state=3).reset_index(drop=True))
    results = []
    for test, path, out in ((few, source, "one"), (shuffled, copy, "two")):
        analysis = analyze(replace(test, sources=(path,)), num_permutations=200, seed=3)
        files = write_all(analysis, tmp_path / out, plots=plots)
        results.append({file.relative_to(tmp_path / out): file.read_bytes() for file in files})
    assert results[0].keys() == results[1].keys()
    differing = [str(name) for name in results[0] if results[0][name] != results[1][name]]
    assert differing == []
    assert any(name.suffix == ".svg" for name in results[0]) == plots


def test_every_missing_number_has_a_reason(aes: Analysis) -> None:
    for analysis in (aes, analyze(with_roles(tidy(simulate(0, listeners=3, items=1))))):
        for name in ("intervals", "items", "differences"):
            table = getattr(analysis, name)
            missing = table.drop(columns="reason").isna().any(axis=1)
            assert (table.loc[missing, "reason"] != "").all(), name
        without = analysis.tests["p"].isna()
        assert (analysis.tests.loc[without, "reason"] != "").all()
        assert list(analysis.tests) == TEST_COLUMNS


def test_families_are_corrected_apart(aes: Analysis) -> None:
    pairs = aes.tests[aes.tests["test"] == WILCOXON]
    assert pairs["family"].value_counts().to_dict() == {"systems": 21, "reference": 7}
    for _, family in pairs.groupby("family"):
        assert family["p_holm"].min() == pytest.approx(family["p"].min() * len(family))
        assert (family["p_hochberg"] <= family["p_holm"] + 1e-12).all()
    assert set(aes.letters) == set(aes.ratings.systems)
    differ = {frozenset((r.a, r.b)) for r in aes.primary.contrasts.itertuples() if r.p_holm < 0.05}
    for a in aes.letters:
        for b in aes.letters:
            if a != b:
                assert (frozenset((a, b)) in differ) != bool(set(aes.letters[a]) & set(aes.letters[b]))


def test_methods_state_the_numbers(aes: Analysis) -> None:
    text = " ".join(wording.methods(aes))
    assert "22 listeners rated 13 items under 8 conditions (7 systems and the hidden reference)" in text
    assert "2,288 ratings" in text
    assert "8 listeners of 22 were excluded. 14 listeners remained." in text
    assert "21 pairs of systems" in text
    assert "nan" not in text.lower()
    friedman = aes.tests[aes.tests["test"] == "friedman"].iloc[0]
    assert f"χ²(6) = {friedman['statistic']:.2f}" in text


def test_the_report_leads_with_the_primary_analysis_in_words(aes: Analysis) -> None:
    page = html(aes, [], [])
    first, rest = page.split("<h2>Scores</h2>")
    assert "The primary analysis is a linear mixed model of each pair of systems" in first
    assert "25 % or more of the scores of 7 systems" in first
    assert first.count("<table>") == 2
    assert "Repeated" not in first and "Wilcoxon" not in first
    fold = rest.split("<summary>All other intervals and tests</summary>")[1].split("</details>")[0]
    assert "Friedman" in fold and "repeated-measures ANOVA, Greenhouse-Geisser" in fold
    assert not re.search(r"rm_anova|kendalls_w|partial_eta|mixed_model|greenhouse_", page)
    assert "equivalent" not in page


def test_reports_never_claim_that_systems_do_not_differ(aes: Analysis) -> None:
    said = (
        "No difference was found between systems that share a letter (mixed model, Holm, 0.05); letters hold "
    )
    said += "for other listeners and other items."
    assert said in html(aes, [], [])
    assert said in latex(aes)
    text = html(aes, [], []) + latex(aes) + " ".join(wording.methods(aes)) + " ".join(aes.notes)
    assert not re.search(r"(do|does|did) not differ|no significant difference|are equal\b(?!;)", text)


def test_sensitivity_sets_screening_beside_all_listeners(aes: Analysis) -> None:
    """14 of 22 listeners remain: each row is the test of the one and of the other ratings."""
    table = aes.sensitivity.set_index(["test", "family", "a", "b"])
    friedman = table.loc["friedman", "systems", "", ""]
    assert (friedman["n_listeners"], friedman["n_listeners_all"]) == (14, 22)
    everybody = analyze(aes.loaded, keep=["all"], num_permutations=100, num_resamples=100)
    others = everybody.sensitivity.set_index(["test", "family", "a", "b"])
    for name in ("statistic", "df1", "df2", "p", "estimate"):
        assert table[f"{name}_all"].to_numpy() == pytest.approx(others[name].to_numpy(), nan_ok=True), name
        assert others[name].to_numpy() == pytest.approx(others[f"{name}_all"].to_numpy(), nan_ok=True), name


def test_margin_asks_for_equivalence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thin(listeners=20).to_csv(tmp_path / "r.csv", index=False)
    arguments = ["--out", tmp_path / "out", "--no-plots", "--permutations", "100", "--margin", "20"]
    assert run("analyze", tmp_path / "r.csv", *arguments) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "equivalent within ±20 points (two one-sided tests, Holm, 0.05)" in page
    contrasts = pd.read_csv(tmp_path / "out" / "contrasts.csv")
    assert contrasts["margin"].tolist() == [20]
    assert run("analyze", tmp_path / "r.csv", "--margin", "0") == 2
    assert "--margin" in capsys.readouterr().err


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)


def test_names_are_escaped() -> None:
    """Names from a data file cannot become mark-up in the page or commands in the table."""
    evil = "<script>alert(1)</script>&\"'"
    frame = tidy(simulate(1, listeners=7), ["reference", evil, r"50%_\input{x}$#~^"])
    frame["listener"] += evil
    frame["item"] += evil
    first, *others = sorted(set(frame["listener"]))
    analysis = analyze(with_roles(frame), exclude=[first], keep=others, num_permutations=100)
    page = html(analysis, [{"name": evil, "sha256": ""}], [])
    parser = _Tags()
    parser.feed(page)
    assert "script" not in parser.tags
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    table = latex(analysis)
    assert r"\input{x}" not in table
    assert r"50\%\_\textbackslash{}input\{x\}\$\#\textasciitilde{}\textasciicircum{}" in table


def test_a_spreadsheet_runs_no_name(tmp_path: Path) -> None:
    """Also those of listeners, which whoever submits a session may choose."""
    frame = tidy(simulate(1, listeners=7), ["reference", "A", "@b"])
    frame["listener"] = "=HYPERLINK(1)" + frame["listener"]
    frame["item"] = "+" + frame["item"]
    write_all(analyze(with_roles(frame), keep=["all"], num_permutations=100), tmp_path, plots=False)
    for path in tmp_path.glob("*.csv"):
        cells = pd.read_csv(path, dtype=str, keep_default_na=False).to_numpy().ravel()
        assert not [cell for cell in cells if re.match(r"[=+@]|-(?![\d.])", cell)], path
    assert "'=HYPERLINK(1)" in (tmp_path / "screening.csv").read_text()


def test_screening_options() -> None:
    frame = thin(listeners=22)
    spoilt = (frame["condition"] == "reference") & (frame["listener"] < "L03")
    ratings = with_roles(frame.assign(score=frame["score"].where(~spoilt, 50)))
    assert analyze(ratings, num_permutations=100).screening.excluded == ("L00", "L01", "L02")
    everybody = analyze(ratings, keep=["all"], num_permutations=100)
    pd.testing.assert_frame_equal(everybody.conditions, everybody.conditions_all)
    fewer = analyze(ratings, exclude=["L20"], keep=["L00"], num_permutations=100)
    assert fewer.screening.excluded == ("L01", "L02", "L20")
    with pytest.raises(UserError, match=r"all 22 listeners are excluded .*--keep all"):
        analyze(ratings, exclude=ratings.listeners)
    with pytest.raises(UserError, match="baseline 'nope' is not a condition"):
        analyze(ratings, baseline="nope")


def test_systems_are_shown_by_mean_or_as_asked() -> None:
    """B is better than A by 10 points; C is a copy of A that got worse."""
    frame = thin(listeners=8)
    worse = frame[frame["condition"] == "A"].assign(condition="C", score=lambda rows: rows["score"] / 2)
    low = worse.assign(condition="anchor35", score=worse["score"] / 4)
    ratings = with_roles(pd.concat([frame, worse, low], ignore_index=True))

    def shown(*order: str) -> list[str]:
        found = analyze(ratings, order=order or ["mean"], num_permutations=100)
        assert found.in_order(found.primary.means)["condition"].tolist() == list(found.order[1:-1])
        return [row["condition"] for row in wording.condition_rows(found)]

    assert shown() == ["reference", "B", "A", "C", "anchor35"]
    assert shown("name") == ["reference", "A", "B", "C", "anchor35"]
    assert shown("C", "mean") == ["reference", "C", "B", "A", "anchor35"]
    assert shown("C", "A", "B") == ["reference", "C", "A", "B", "anchor35"]
    with pytest.raises(UserError, match="--order names 'anchor35', which is not a system"):
        shown("anchor35")


def test_intervals_beyond_the_scale_are_said_to_be() -> None:
    """Two listeners far apart: files have the interval as computed, and no report is silent about it."""
    frame = thin(listeners=2)
    apart = frame["score"].where(frame["listener"] == "L00", 20) + 0.0
    found = analyze(with_roles(frame.assign(score=apart)), keep=["all"], num_permutations=100)
    (note,) = [note for note in found.notes if "beyond 0 to 100" in note]
    assert found.conditions["ci_high"].max() > 200 and "say nothing" in note and "differences" in note
    assert "No mean can be beyond 0 to 100" in latex(found)
    assert note in html(found, [], [])
    calm = analyze(with_roles(thin()), num_permutations=100)
    assert not any("beyond" in note for note in calm.notes) and "beyond" not in latex(calm)


def test_seed_changes_only_what_is_drawn() -> None:
    ratings = with_roles(tidy(np.clip(simulate(9, means=(50, 51, 52), listeners=16), 0, 100)))
    one, two = (analyze(ratings, seed=seed, keep=["all"], num_permutations=300) for seed in (1, 2))
    pd.testing.assert_frame_equal(one.conditions, two.conditions)
    assert (one.intervals["bootstrap_low"] != two.intervals["bootstrap_low"]).any()
    assert (one.tests["p"].dropna() != two.tests["p"].dropna()).any()
    again = analyze(ratings, seed=1, keep=["all"], num_permutations=300)
    pd.testing.assert_frame_equal(one.tests, again.tests)


# Many systems: every pair is tested, nothing counts to a number of its own


def of_systems(number: int, *, own: int = 0) -> pd.DataFrame:
    """A test of so many systems; with ``own`` each item has so many of them, the next item the next."""
    names = ["reference", *(f"s{k:02d}" for k in range(number)), "anchor35"]
    means = (99, *np.linspace(20, 90, number), 15)
    frame = tidy(np.clip(simulate(2, means=means, listeners=8, items=5), 0, 100), names)
    if not own:
        return frame
    first = frame["item"].str[1:].astype(int) * own
    place = pd.to_numeric(frame["condition"].str[1:], errors="coerce")
    return frame[place.isna() | ((place - first) % number < own)].reset_index(drop=True)


@cache
def analysed(number: int, own: int) -> tuple[Analysis, list[tuple[int, int]]]:
    """The analysis of `of_systems`, and its steps."""
    steps: list[tuple[int, int]] = []
    analysis = analyze(
        with_roles(of_systems(number, own=own)),
        num_permutations=100,
        num_resamples=100,
        progress=lambda what, done, total: steps.append((done, total)),
    )
    return analysis, steps


@pytest.mark.parametrize(
    ("number", "own"),
    [(3, 0), (13, 0), (14, 0), *(pytest.param(30, own, marks=pytest.mark.slow) for own in (0, 6))],
)
def test_any_number_of_systems(number: int, own: int) -> None:
    ratings = with_roles(of_systems(number, own=own))
    analysis, steps = analysed(number, own)
    assert len(analysis.ratings.systems) == number
    pairs = math.comb(number, 2) + number
    assert steps == [(done, pairs + 5) for done in range(pairs + 6)]
    wilcoxon = analysis.tests[analysis.tests["test"] == WILCOXON]
    assert len(wilcoxon) == pairs
    assert not wilcoxon[["a", "b"]].duplicated().any()
    without = wilcoxon["p"].isna()
    assert (wilcoxon.loc[without, "reason"] != "").all()
    assert without.any() == bool(own)
    means = ratings.frame.groupby(["listener", "condition"])["score"].mean().groupby("condition").mean()
    assert analysis.conditions.set_index("condition")["mean"].to_dict() == pytest.approx(means.to_dict())


def test_the_files_of_fourteen_systems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_systems(14).to_csv(tmp_path / "r.csv", index=False)
    arguments = ("--out", tmp_path / "out", "--permutations", "100", "--no-plots")
    assert run("analyze", tmp_path / "r.csv", *arguments) == 0
    assert len(pd.read_csv(tmp_path / "out" / "tests.csv").query("test == 'wilcoxon'")) == 91 + 14
    page = (tmp_path / "out" / "report.html").read_text()
    assert "s13" in page and "14 systems" in page


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_what_only_displays_stops_nothing(redirection: str, tmp_path: Path) -> None:
    """Standard error that is closed or full: the table comes all the same."""
    of_systems(3).to_csv(tmp_path / "r.csv", index=False)
    code = "import sys; sys.argv[0] = 'mushra'; from mushra.cli.main import main; main()"
    command = [sys.executable, "-c", code, "analyze", "r.csv", "--permutations", "100"]
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[0].split()[:2] == ["condition", "listeners"]
    assert len(done.stdout.splitlines()) == 6
    assert done.returncode == 0


def test_what_many_pairs_cannot_show_is_said() -> None:
    """Eight listeners agree at best with p = 2/256: not enough for 435 pairs after Holm."""
    analysis, _ = analysed(30, 0)
    assert set(analysis.letters) == set(analysis.ratings.systems)  # from the mixed model, which can
    assert any("cannot find a difference among 435 pairs" in note for note in analysis.notes)
    few, _ = analysed(3, 0)
    assert set(few.letters) == set(few.ratings.systems)
    assert not any("pairs" in note for note in few.notes)


# Thin and strange tests: a result with a stated limit


THIN = {
    "one listener": (thin(listeners=1), "There is one listener"),
    "two listeners": (thin(listeners=2), "With 2 listeners Wilcoxon's test cannot"),
    "one item": (thin(items=1), "There is one item"),
    "three items": (thin(items=3), "There are 3 items"),
    "one condition": (thin().query("condition == 'A'"), "There is one system"),
    "only the reference": (thin().query("condition == 'reference'"), "no condition besides"),
    "all scores equal": (thin().assign(score=50.0), "All 288 scores are 50"),
    "no reference": (thin().query("condition != 'reference'"), "Without a hidden reference"),
    "no anchors": (thin(), "No condition is known to be an anchor"),
    "missing ratings": (thin().iloc[:-5], "Some ratings are missing"),
    "one rating": (thin().iloc[[0]], "There is one listener"),
    "systems never on one page": (
        thin().query("(condition == 'A' and item < 'i04') or (condition == 'B' and item >= 'i04')"),
        "Some ratings are missing",
    ),
}


@pytest.mark.parametrize("name", THIN)
def test_thin_tests_give_results_with_limits(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, limit = THIN[name]
    source = tmp_path / "ratings.csv"
    frame.to_csv(source, index=False)
    plots = name == "one rating"
    arguments = ["--keep", "all", "--permutations", "100", "--plots" if plots else "--no-plots"]
    assert run("analyze", source, "--out", tmp_path / "out", *arguments) == 0
    printed = capsys.readouterr()
    assert limit in printed.err
    assert "nan" not in printed.out.lower()
    assert "Traceback" not in printed.err
    content = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert any(limit in note for note in content["notes"])
    for table in ("intervals", "items", "differences", "tests"):
        for row in content["tables"][table]:
            needed = [row["p"]] if table == "tests" else [v for k, v in row.items() if k != "reason"]
            assert None not in needed or row["reason"], (table, row)
    page = (tmp_path / "out" / "report.html").read_text()
    assert ("data:image/" in page) == plots
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", page), re.IGNORECASE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.csv"], "nope.csv does not exist"),
        (["r.csv", "--columns", "who"], "--columns got 'who'"),
        (["r.csv", "--columns", "person=listener"], "--columns got 'person=listener'"),
        (["r.csv", "--reference", "X"], "condition 'X' is not in the ratings"),
        (["r.csv", "--keep", "X"], "no listener 'X'"),
        (["r.csv", "--drop-item", "X"], "item 'X' cannot be dropped"),
        (["r.csv", "--test", "X"], "test 'X' is not in the sources"),
        (["r.csv", "--key", "nope.json"], "nope.json"),
        (["r.csv", "--baseline", "X"], "baseline 'X'"),
        (["r.csv", "--out", "r.csv"], "cannot write r.csv"),
        (["r.csv", "--out", "o", "--style", "no-such-style"], "no-such-style"),
    ],
)
def test_bad_options_give_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    thin().to_csv("r.csv", index=False)
    assert run("analyze", *arguments, "--quiet", "--permutations", "100") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("mushra: ")
    assert error.count("\n") == 1


def test_the_example_of_the_package_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mushra.analysis

    example = (mushra.analysis.__doc__ or "").split("::\n", 1)[1].split("\nModules:")[0]
    scores = np.clip(simulate(5, means=(97, 40, 60)), 0, 100)
    tidy(scores, ["reference", "opus@16", "opus@24"]).to_csv(tmp_path / "mushra.csv", index=False)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(line[4:] for line in example.splitlines()), {})


def test_help_is_fast() -> None:
    """No numpy, pandas or matplotlib before they are needed."""
    code = (
        "import sys, mushra.cli.analyze; print(sorted({'numpy', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


# Size


def large(listeners: int) -> pd.DataFrame:
    means = (99, 40, 55, 70, 45, 60, 75, 65, 50, 22)
    names = ["reference", *(f"codec{k}@16" for k in range(7)), "anchor70", "anchor35"]
    scores = simulate(0, means=means, listeners=listeners, items=20, sd_item=4, sd_item_condition=4)
    scores[:, 0] = np.where(scores[:, 0] < 85, 95, 100)
    frame = tidy(np.clip(np.round(scores), 0, 100), names)
    return frame.assign(time_ms=np.arange(len(frame)) // 10 * 7)


def test_a_hundred_listeners_in_seconds() -> None:
    start = time.process_time()
    analysis = analyze(with_roles(large(100)))
    assert time.process_time() - start < 15
    assert len(analysis.ratings.listeners) == 100
    assert not math.isnan(analysis.mixed.p)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_listeners_in_a_minute(tmp_path: Path) -> None:
    """1,000 listeners x 20 items x 10 conditions, from the CSV to the last plot, with progress."""
    source = tmp_path / "large.csv"
    large(1000).to_csv(source, index=False)
    start, start_cpu = time.perf_counter(), time.process_time()
    assert run("analyze", source, "--out", tmp_path / "out") == 0
    taken, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    print(f"1,000 x 20 x 10: {taken:.1f} s, {cpu:.1f} s of the processor")
    # Not the wall clock, which also counts what else the machine does.
    assert cpu < 60
    assert len(pd.read_csv(tmp_path / "out" / "screening.csv")) == 1000
