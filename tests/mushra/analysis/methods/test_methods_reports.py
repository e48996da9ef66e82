"""From data bases, exports and webMUSHRA's CSV through the same door to one report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import typer

from mushra.analysis.methods.load import load, page_types
from mushra.analysis.methods.pipeline import analyze
from mushra.cli.analyze import register
from mushra.server.plots import draw
from mushra.store.export import export
from mushra.store.pages import Rating
from mushra.store.store import Store
from mushra.store.whole_sessions import WholePage, WholeSession, add_whole
from qincodec.core.console import run_command
from qincodec.core.errors import UserError

SYSTEMS = ("opus@16", "mp3@16", "<b>own</b>")
KINDS = ("bs1116", "ab", "abx", "paired_comparison", "likert_single_stimulus", "dcr")


def rating(kind: str, system: str, other: str, g: np.random.Generator) -> Rating:
    """What somebody said who often hears a system."""
    heard = bool(g.random() < 0.8)
    if kind == "bs1116":
        grade = round(float(g.uniform(3, 5)), 1)
        return Rating(system, "reference", grade, 5.0) if heard else Rating(system, "reference", 5.0, grade)
    if kind == "ab":
        return Rating(system, other, answer=["", system, other, other][g.integers(4)])
    if kind == "abx":
        return Rating(system, "reference", float(heard), answer=system)
    if kind == "paired_comparison":
        return Rating(system, "reference", answer="reference" if heard else system)
    if kind == "dcr":
        return Rating(system, "reference", float(g.integers(2, 6)))
    return Rating(system, answer=str(g.integers(1, 6)))


def sessions(kinds: tuple[str, ...], listeners: int = 6) -> list[WholeSession]:
    found = []
    for who in range(listeners):
        g = np.random.default_rng(who)
        pages = []
        for kind in kinds:
            for item in range(3):
                pairs = [(a, SYSTEMS[number - 1]) for number, a in enumerate(SYSTEMS)]
                if kind == "mushra":
                    rows = [Rating("reference", score=100.0)]
                    rows += [Rating(a, score=float(g.integers(30, 90))) for a in SYSTEMS]
                else:
                    rows = [rating(kind, a, b, g) for a, b in pairs]
                pages.append(WholePage(f"{kind}{item}", kind, False, rows))
            pages.append(WholePage(f"training_{kind}", kind, True, rows))
        found.append(WholeSession("mine", "webmushra", f"u{who}", [("age", str(30 + who))], pages))
    return found


def fill(database: Path, kinds: tuple[str, ...]) -> Path:
    with Store(database) as store:
        store.write(lambda connection: [add_whole(connection, one) for one in sessions(kinds)])
    return database


def run(*arguments: str | Path) -> int:
    """Exit code of the command line."""
    app = typer.Typer(add_completion=False)
    register(app)
    app.command("other")(lambda: None)
    with pytest.raises(SystemExit) as end:
        run_command(app, [str(argument) for argument in arguments], "mushra")
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data base with pages of all methods, MUSHRA among them."""
    return fill(tmp_path_factory.mktemp("methods") / "results.sqlite", ("mushra", *KINDS))


def test_database_and_exports_hold_the_same_answers(everything: Path, tmp_path: Path) -> None:
    found = load(everything)
    assert found.methods == ("bs1116", "ab", "abx", "paired_comparison", "acr", "dcr")
    assert {method: len(found.of(method)) for method in found.methods} == dict.fromkeys(
        found.methods, 6 * 3 * 3
    )
    assert not any(item.startswith("training") for item in found.frame["item"])
    with Store(everything) as store:
        export(store, tmp_path / "results.json", "json")
        export(store, tmp_path / "csv", "webmushra")
    again = load(tmp_path / "results.json")
    assert again.frame.equals(found.frame)
    # webMUSHRA's files have no ids of sessions.
    with pytest.raises(UserError, match="--listener-ids"):
        load(tmp_path / "csv")
    files = load(tmp_path / "csv", listener_ids="per-file")
    for method in ("bs1116", "paired_comparison", "acr"):
        assert len(files.of(method)) == len(found.of(method))
    scores = [table.of("bs1116").groupby("condition")["score"].mean() for table in (files, found)]
    assert scores[0].equals(scores[1])


def test_types_of_pages_are_found_without_reading_them(everything: Path, tmp_path: Path) -> None:
    assert page_types(everything) == {"mushra", *KINDS}
    tidy = tmp_path / "ratings.csv"
    tidy.write_text("listener,item,condition,score\na,b,c,5\n")
    assert page_types(tidy) == {"mushra"}
    with pytest.raises(UserError, match="hold no answers of BS"):
        load(tidy)


def test_answers_that_are_none_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [
        Rating("A", answer="4"),
        Rating("B", answer="7"),
        Rating("C", answer='["1", "2"]'),
        Rating("D", answer="very good"),
    ]
    pages = [
        WholePage("one", "likert_single_stimulus", False, rows),
        WholePage("two", "ab", False, [Rating("A", "B", answer="C"), Rating("A", "C", answer="C")]),
        WholePage("three", "spatial", False, [Rating("A", answer="{}")]),
    ]
    database = tmp_path / "results.sqlite"
    with Store(database) as store:
        store.write(lambda c: add_whole(c, WholeSession("mine", "webmushra", "u", [], pages)))
    found = load(database)
    assert sorted(found.frame["method"]) == ["ab", "acr"]
    left_out = {problem.kind: problem.rows for problem in found.problems}
    assert left_out == {"other pages": 1, "several scales": 1, "outside the scale": 2, "no choice": 1}


def test_one_report_with_a_section_for_each_method(
    everything: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["--system", "all", "--permutations", "100", "--quiet", "--no-plots"]
    assert run("analyze", everything, "--out", out, *options) == 0
    printed = capsys.readouterr().out
    page = (out / "report.html").read_text()
    for title in (
        "BS.1116: difference grades",
        "AB: preferences",
        "ABX: is",
        "ACR: mean",
        "DCR: degradation",
    ):
        assert title in page and title in printed
    assert "not have gold questions or a headphone test: 0 of 6 listeners were excluded" in page
    assert "<h2>Input</h2>" in page and "<b>own</b>" not in page and "&lt;b&gt;own&lt;/b&gt;" in page
    content = json.loads((out / "analysis.json").read_text())
    assert content["systems"] and [one["method"] for one in content["other_methods"]] == [
        *("bs1116", "ab", "abx", "paired_comparison", "acr", "dcr")
    ]
    with (out / "bs1116_conditions.csv").open() as file:
        rows = {row["condition"]: float(row["mean"]) for row in csv.DictReader(file)}
    means = analyze(load(everything)).results["bs1116"].screened.means  # type: ignore[union-attr]
    assert rows == pytest.approx(dict(zip(means["condition"], means["mean"], strict=True)))
    assert (out / "acr.tex").read_text().startswith("% needs")


def test_without_mushra_pages_the_report_has_the_others_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = fill(tmp_path / "results.sqlite", ("abx", "likert_single_stimulus"))
    gold = tmp_path / "gold.csv"
    gold.write_text("item,condition,expected\nlikert_single_stimulus0,opus@16,1|2|3|4\n")
    options = ["--gold", str(gold), "--keep", "u0"]
    assert run("analyze", database, "--out", tmp_path / "out", *options) == 0
    content = json.loads((tmp_path / "out/analysis.json").read_text())
    assert [one["method"] for one in content["other_methods"]] == ["abx", "acr"]
    assert {row["gold_failed"] for row in content["other_methods"][1]["tables"]["listeners"]} <= {0, 1}
    assert "ABX" in capsys.readouterr().out
    assert (tmp_path / "out/plots/acr.pdf").is_file() and (
        tmp_path / "out/plots/abx_one_column.png"
    ).is_file()
    assert (tmp_path / "out/report.html").read_text().count("data:image/svg") == 2
    assert run("analyze", database, "--baseline", "opus@16") == 2
    assert "--baseline is for MUSHRA pages" in capsys.readouterr().err
    gold.write_text("item,condition,expected\nnothing,opus@16,1\n")
    assert run("analyze", database, "--gold", gold) == 2
    assert "is not in the answers" in capsys.readouterr().err


def test_the_administrators_page_has_the_main_table_of_each(tmp_path: Path) -> None:
    database = fill(tmp_path / "results.sqlite", ("ab", "dcr"))
    done = draw(str(database), None, None, tmp_path)
    assert not done["conditions"] and not done["figures"]
    assert [table["title"] for table in done["others"]] == [
        *("AB: preferences", "DCR: degradation mean opinion scores")
    ]
    assert {row[0] for row in done["others"][1]["rows"]} == set(SYSTEMS)
