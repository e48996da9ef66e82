"""From a run to a test to its figures: nothing is written by hand, a command finds what the one before left.

A run of the real `evaluate`, a test that `mushra create` made of it, seven scripted listeners at the real
server. What they say is known (`rated_test.score`), so that every mean has a right answer.
"""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rated_test
from rated_test import Visitor, close_server, make_run, make_test, open_server

from evaluation import open_results
from evaluation.metrics.base import Metric, Score
from mushra.analysis.load import load
from mushra.cli.main import main
from mushra.config.key import read_key
from mushra.config.locate import KEY_NAME
from mushra.server.plots import look
from mushra.store.export import export
from mushra.store.ratings import read_ratings
from mushra.store.store import Store
from mushra.study import heard
from qincodec import audio
from qincodec.core.errors import UserError

WHO = [f"listener {n}" for n in range(7)]
ITEMS = ("trial01", "trial02", "trial03")


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `run` and `test`; the test is taken and its server stopped. Not to be changed."""
    folder = tmp_path_factory.mktemp("walk")
    test = make_test(make_run(folder / "run"), folder / "test")
    app = open_server(test)
    for who in WHO:
        Visitor(app, test, who).take()
    close_server(app)
    return folder


@pytest.fixture
def here(walked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it to work in, as the current folder."""
    shutil.copytree(walked, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("MUSHRA_DATABASE", raising=False)
    yield tmp_path / "here"


def mushra(*arguments: str) -> int:
    """Exit code of the command."""
    import sys

    before, sys.argv = sys.argv, ["mushra", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def expected(names: list[str] = WHO) -> dict[str, float]:
    """Mean of each condition: of listeners, each the mean of the items."""
    return {
        condition: float(np.mean([[rated_test.score(who, i, condition) for i in ITEMS] for who in names]))
        for condition in rated_test.LEVELS
    }


def means(*sources: str | Path, **options: Any) -> dict[str, float]:
    return dict(load(list(sources), **options).matrix().mean())


# Every way to the same ratings


def test_every_source_of_a_test_gives_what_listeners_said(here: Path) -> None:
    with Store(here / "test" / "results.sqlite") as store:
        key = here / "test" / "key.json"
        for kind in ("webmushra", "tidy", "json"):
            export(store, here / kind, kind, key=key)  # type: ignore[arg-type]
            export(store, here / "test" / f"opaque-{kind}", kind)  # type: ignore[arg-type]
    sources = [
        *("test", "test/results.sqlite", "test/config.yaml"),
        *("webmushra", "webmushra/walk", "webmushra/walk/mushra.csv"),
        *("tidy", "tidy/ratings.csv", "json", "json/results.json"),
    ]
    right = pytest.approx(expected(), abs=1e-9)
    for source in sources:
        assert means(source) == right, source
    # webMUSHRA's own file, put into the folder of the test it was made of.
    shutil.copy("test/opaque-webmushra/walk/mushra.csv", "test/mushra.csv")
    (here / "test" / "results.sqlite").rename("elsewhere.sqlite")
    assert means("test") == right
    assert means("elsewhere.sqlite", key=key) == right
    assert means(f"sqlite:///{here}/elsewhere.sqlite", key=key) == right
    for source in ("test", "test/config.yaml"):
        assert means(source, database="elsewhere.sqlite") == right
        assert means(source, database=f"sqlite:///{here}/elsewhere.sqlite") == right
    for kind in ("webmushra", "tidy", "json"):
        assert means(f"test/opaque-{kind}", key=key) == right
        with pytest.raises(UserError, match=r"their folder has no key\.json.*--key"):
            load([f"test/opaque-{kind}"])
    with pytest.raises(UserError, match=r"their folder has no key\.json.*--key"):
        load(["elsewhere.sqlite"])


def test_all_paths_give_one_set_of_means_to_the_last_digit(here: Path) -> None:
    """With people of several sessions, fractions, scores that nobody gave, and an excluded first session."""
    database = here / "test" / "results.sqlite"
    forget_moves(database, "mp3@16", here / "test", 2)
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE ratings SET score = score / 3.0 + 1")
        connection.execute("UPDATE ratings SET time_ms = 20000")  # what differs is the score alone
        people = {0: "p/a", 1: "p/b", 2: "p/a", 3: "p/c", 4: "p/a", 5: "p/b"}
        for number, (name,) in enumerate(
            connection.execute("SELECT id FROM sessions ORDER BY number").fetchall()
        ):
            connection.execute(
                "UPDATE sessions SET person = ?, kind = 'prolific', finished_at = 1000 - number WHERE id = ?",
                (people.get(number), name),
            )
            if number == 1:
                connection.execute("UPDATE sessions SET excluded_at = 1 WHERE id = ?", (name,))
    counted = connection.execute(
        "SELECT coalesce(sessions.person, sessions.id), ratings.trial, stimulus, ratings.score FROM ratings"
        " JOIN sessions ON sessions.id = ratings.session JOIN pages USING (session, page)"
        " WHERE excluded_at IS NULL AND NOT training AND coalesce(json_extract(detail, '$.moves'), 1) > 0"
    ).fetchall()
    connection.close()
    signals = {
        item: of["signals"] for item, of in json.loads((here / "test/key.json").read_text())["trials"].items()
    }
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    for person, item, stimulus, score in counted:
        condition = signals[item][stimulus]["condition"]
        cells.setdefault((condition, person), {}).setdefault(item, []).append(score)
    right = {
        condition: float(
            np.mean(
                [np.mean([np.mean(s) for s in of.values()]) for (c, _), of in cells.items() if c == condition]
            )
        )
        for condition in rated_test.LEVELS
    }
    assert right["mp3@16"] != round(right["mp3@16"], 6)  # fractions
    for kind in ("webmushra", "tidy", "json"):
        assert mushra("export", "test", "--format", kind, "--out", kind) == 0
    found = means("test")
    assert found == pytest.approx(right, rel=1e-13)
    for source in (
        "test/results.sqlite",
        "tidy/ratings.csv",
        "json/results.json",
        "webmushra/walk/mushra.csv",
    ):
        ratings = load([source])
        assert len(ratings.listeners) == 4, source
        assert dict(ratings.matrix().mean()) == found, source
    page = look(str(database), "walk", here / "test" / "config.yaml")
    assert dict(page.loaded.matrix().mean()) == found


def test_results_of_another_test_are_not_taken_for_those_of_the_named_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_test(here / "run", here / "second", test_id="second", seed=5)
    assert mushra("analyze", "second", "--database", "test/results.sqlite") == 2
    error = capsys.readouterr().err
    assert "holds no ratings of test second yet; it holds walk" in error and error.count("\n") == 1
    assert mushra("export", "second", "--database", "test/results.sqlite", "--out", "out") == 2
    error = capsys.readouterr().err
    assert "has no sessions of test second, only of walk" in error and error.count("\n") == 1
    assert not (here / "out").exists()


def test_several_exports_in_one_folder_are_told(here: Path) -> None:
    for kind in ("webmushra", "tidy", "json"):
        assert mushra("export", "test", "--format", kind) == 0
    ratings = load(["test/results"])
    assert dict(ratings.matrix().mean()) == pytest.approx(expected())
    (detail,) = [problem.detail for problem in ratings.problems if problem.kind == "several exports"]
    assert "results.json is read" in detail and "ratings.csv, walk/mushra.csv" in detail
    (here / "test" / "results" / "other").mkdir()
    for name in ("results.json", "ratings.csv"):
        (here / "test" / "results" / name).unlink()
    shutil.copy("test/results/walk/mushra.csv", "test/results/other")
    with pytest.raises(UserError, match=r"several tests \(other, walk\)"):
        load(["test/results"])


def test_of_a_data_base_of_several_tests_the_named_one_is_read(here: Path) -> None:
    make_test(here / "run", here / "second", test_id="second", seed=5)
    app = open_server(here / "second", here / "test" / "results.sqlite")
    Visitor(app, here / "second", "somebody else").take()
    close_server(app)
    assert means("test") == pytest.approx(expected())
    second = load(["second"], database="test/results.sqlite")
    assert len(second.listeners) == 1 and set(second.conditions) == set(rated_test.LEVELS)
    with pytest.raises(UserError, match="several tests"):
        load(["test/results.sqlite"])
    assert means("test/results.sqlite", tests=["walk"]) == pytest.approx(expected())
    with pytest.raises(UserError, match="holds no ratings of test third yet; it holds second, walk"):
        load(["test/results.sqlite"], tests=["third"])


def test_a_key_of_another_test_leaves_names_and_says_so(here: Path) -> None:
    make_test(here / "run", here / "second", seed=5)
    assert mushra("export", "test", "--format", "tidy", "--out", "open") == 0
    shutil.copy("second/key.json", "open/key.json")
    ratings = load(["open"])  # names of conditions need no key
    assert dict(ratings.matrix().mean()) == pytest.approx(expected())
    shutil.copy("second/key.json", "test/key.json")
    with pytest.raises(UserError, match="names such as"):
        load(["test"])
    (here / "test" / "key.json").write_text("{")
    with pytest.raises(UserError, match="is not a key of `mushra create`"):
        load(["test"])


# The commands


def test_the_commands_as_the_readme_has_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mushra("analyze", "test", "--out", "analysis", "--permutations", "200", "--no-plots") == 0
    table = pd.read_csv(here / "analysis" / "conditions.csv", index_col="condition")
    assert table["mean"].to_dict() == pytest.approx(expected(), abs=1e-6)
    content = json.loads((here / "analysis" / "analysis.json").read_text())
    assert [source["name"] for source in content["sources"]] == ["results.sqlite"]
    assert content["not_given"] == {}
    assert mushra("plan", "--from", "test", "--listeners", "8", "--items", "5", "--simulations", "200") == 0
    assert "estimated from 7 listeners, 3 items, 2 conditions of test" in capsys.readouterr().out
    # Gone from the folder of the test: one address for all three, and a key that has to be named.
    shutil.move("test/results.sqlite", "elsewhere.sqlite")
    assert mushra("analyze", "test", "--database", "elsewhere.sqlite", "--permutations", "200") == 0
    assert "opus@16" in capsys.readouterr().out
    plan = ("--listeners", "8", "--items", "5", "--simulations", "200")
    assert mushra("plan", "--from", "elsewhere.sqlite", *plan) == 2
    assert "no key.json" in capsys.readouterr().err
    assert mushra("plan", "--from", "elsewhere.sqlite", "--key", "test/key.json", *plan) == 0


def test_correlate_uses_every_metric_of_a_run_that_has_a_value_per_clip(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mushra("correlate", "test", "run", "--resamples", "100", "--out", "out") == 0
    printed = capsys.readouterr().out
    cells = pd.read_csv(here / "out" / "cells.csv")
    results = open_results(here / "run")
    names = [metric.name for metric in results.clip_metrics]
    assert {"si_sdr", "ms_mel", "fm_logmel", "cos_logmel"} <= set(names)
    assert list(cells.columns[5:]) == names
    assert len(cells) == 12 and np.isfinite(cells[names]).all(axis=None)
    for metric in results.metrics:
        if metric.per_clip:
            assert f"\n  {metric.label} " in printed
        else:
            assert f"Note: {metric.label} left out: a distance between whole sets" in printed
    for name, reason in results.unavailable.items():
        assert f"Note: {name} left out: {reason}" in printed
    # SI-SDR by its formula, of the files that were heard.
    key = json.loads((here / "test" / "key.json").read_text())["trials"]
    for item, trial in key.items():
        reference = audio.read(here / "test" / trial["reference"])[0].astype(float).ravel()
        reference -= reference.mean()
        for signal in trial["signals"].values():
            row = cells[(cells["item"] == item) & (cells["condition"] == signal["condition"])]
            if len(row):
                decoded = audio.read(here / "test" / signal["file"])[0].astype(float).ravel()
                decoded -= decoded.mean()
                target = (reference @ decoded) / (reference @ reference) * reference
                rest = decoded - target
                si_sdr = 10 * math.log10((target @ target) / (rest @ rest))
                assert row["si_sdr"].iloc[0] == pytest.approx(si_sdr, abs=1e-3)
    # And what it is correlated with: what listeners said.
    for row in cells.itertuples():
        said = [rated_test.score(who, row.item, row.condition) for who in WHO]
        assert row.score == pytest.approx(np.mean(said))
    # Ratings from elsewhere, still with the names of this test.
    assert mushra("export", "test", "--no-key", "--format", "tidy", "--out", "opaque") == 0
    capsys.readouterr()
    assert mushra("correlate", "test", "run", "opaque/ratings.csv", "--resamples", "100") == 0
    again = capsys.readouterr().out
    assert again[: again.index("Note:")] == printed[: printed.index("Note:")]


class Raises(Metric):
    name, label, version, unit, higher_is_better = "raises", "Raises", "1", "", True
    definition = "Fails where the signal is quiet."

    def score(self, prepared: Any, decoded: Any, sample_rate: int) -> list[Score]:
        if decoded.std() < prepared.std():
            raise ZeroDivisionError("too quiet")
        return [Score(1.0)]


def test_a_metric_that_raises_takes_no_other_with_it(here: Path) -> None:
    trials = read_key(here / "test" / KEY_NAME, whole=True).trials
    alone = heard.choose_settings(here / "run", "si_sdr")
    both = heard.Settings((Raises(), *alone.metrics), (), alone.sample_rate, alone.channels, ())
    scores = heard.score_trials(here / "test", trials, both)
    assert scores["si_sdr"].tolist() == heard.score_trials(here / "test", trials, alone)["si_sdr"].tolist()
    failed = scores["raises"].isna()
    assert failed.any() and set(scores.loc[failed, "raises_reason"]) == {"ZeroDivisionError: too quiet"}
    (note,) = heard.describe_gaps(scores, both.infos)
    assert note.startswith(f"Raises has no value for {failed.sum()} of {len(scores)} signals")


# Scores that nobody gave


def forget_moves(database: Path, condition: str, test: Path, listeners: int) -> list[str]:
    """As an older page stored a swipe: no move of the slider; ids of the sessions."""
    key = json.loads((test / "key.json").read_text())["trials"]
    connection = sqlite3.connect(database)
    with connection:
        sessions = [row[0] for row in connection.execute("SELECT id FROM sessions ORDER BY number")][
            :listeners
        ]
        for item in ITEMS:
            names = {entry["condition"]: name for name, entry in key[item]["signals"].items()}
            for session in sessions:
                connection.execute(
                    "UPDATE ratings SET score = 3, detail = json_set(detail, '$.moves', 0)"
                    " WHERE session = ? AND trial = ? AND stimulus = ?",
                    (session, item, names[condition]),
                )
    connection.close()
    return sessions


def test_scores_nobody_gave_are_left_out_counted_and_kept(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = forget_moves(here / "test" / "results.sqlite", "mp3@16", here / "test", 2)
    ratings = load(["test"])
    right = {**expected(), "mp3@16": expected(WHO[2:])["mp3@16"]}
    assert dict(ratings.matrix().mean()) == pytest.approx(right)
    assert ratings.not_given == dict.fromkeys(sessions, 3)
    (problem,) = [problem for problem in ratings.problems if problem.kind == "not given"]
    assert problem.rows == 6 and problem.detail.startswith("6 scores stored without a move of the slider")
    assert all(f"{session} 3" in problem.detail for session in sessions)
    assert mushra("analyze", "test", "--out", "analysis", "--permutations", "200", "--no-plots") == 0
    assert "not given: 6 scores stored without a move" in capsys.readouterr().err
    listeners = pd.read_csv(here / "analysis" / "listeners.csv", index_col="listener")
    assert listeners["n_not_given"][listeners["n_not_given"] > 0].to_dict() == ratings.not_given
    page = (here / "analysis" / "report.html").read_text()
    limits = page[page.index("Limits of these results") : page.index("</ul>")]
    assert "6 scores of 2 listeners were stored without a move of the slider" in limits
    assert all(f"{session}: 3" in limits for session in sessions)
    # The export keeps them, with what tells them.
    for kind in ("tidy", "json"):
        assert mushra("export", "test", "--format", kind, "--out", kind) == 0
        assert load([kind]).not_given == ratings.not_given
        assert means(kind) == pytest.approx(right)
    table = pd.read_csv(here / "tidy" / "ratings.csv")
    assert table.loc[table["moves"] == 0, "score"].tolist() == [3] * 6
    # But not to a file that cannot tell them.
    capsys.readouterr()
    assert mushra("export", "test", "--format", "webmushra", "--out", "webmushra") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "nobody gave" in line]
    assert line.startswith("6 scores that nobody gave") and "tidy" in line and "json" in line
    assert means("webmushra") == pytest.approx(right)
    assert mushra("correlate", "test", "--metrics", "si_sdr", "--resamples", "100") == 0
    assert "Note: not given: 6 scores stored without a move" in capsys.readouterr().out


def test_clients_that_do_not_count_moves_are_believed(here: Path) -> None:
    """Of webMUSHRA's clients and files it is not known how often a slider was moved."""
    connection = sqlite3.connect(here / "test" / "results.sqlite")
    with connection:
        connection.execute("UPDATE ratings SET detail = NULL")
    connection.close()
    ratings = load(["test"])
    assert ratings.not_given == {} and dict(ratings.matrix().mean()) == pytest.approx(expected())


# One line for what cannot be


def test_a_source_without_results_gives_a_message_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty").mkdir()
    (here / "fresh").mkdir()
    shutil.copy("test/config.yaml", "fresh")
    for name, change in {
        "future": "UPDATE meta SET value = '99' WHERE key = 'schema_version'",
        "unfinished": "UPDATE sessions SET state = 'running'",
        "nobody": "DELETE FROM ratings",
    }.items():
        (here / name).mkdir()
        for file in ("config.yaml", "key.json", "results.sqlite"):
            shutil.copy(here / "test" / file, name)
        connection = sqlite3.connect(here / name / "results.sqlite")
        with connection:
            connection.execute(change)
        connection.close()
    (here / "zero").write_bytes(b"SQLite format 3\0")
    for source, message in {
        "empty": "empty holds no ratings: neither results.sqlite nor results.json, ratings.csv, mushra.csv",
        "test/stimuli": "holds no ratings",
        "run": "is a run of `evaluate`",
        "fresh": "fresh has no results yet: fresh/results.sqlite does not exist; run `mushra serve fresh`",
        "fresh/config.yaml": "has no results yet: fresh/results.sqlite does not exist",
        "future": "has schema 99, this version reads up to 1",
        "unfinished": "nobody has finished a session that counts yet (training pages of 7 sessions left out; "
        "7 sessions not finished left out)",
        "nobody": "holds no MUSHRA ratings yet",
        "zero": "file is not a database; the file is damaged",
        "nowhere": "nowhere does not exist",
        "postgresql://nobody:secret@127.0.0.1:1/none": "cannot open data base",
    }.items():
        for command in (["analyze", source], ["plan", "--from", source], ["correlate", "test", source]):
            if command[0] == "correlate" and source == "run":
                continue
            assert mushra(*command) == 2, command
            error = capsys.readouterr().err
            assert message in error, (command, error)
            assert error.count("\n") == 1 and error.startswith("mushra: ") and "secret" not in error
    for folder in ("empty", "run", "test/config.yaml"):
        assert mushra("correlate", folder) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_damaged_data_base_gives_a_message_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (here / "test" / "results.sqlite").read_bytes()
    damaged = {
        "header": b"SQLite format 3\0" + bytes(100) + b"x" * 4000,
        "cut": whole[: len(whole) // 3],
        "schema": whole[:100] + b"\xff" * 3996 + whole[4096:],
        "pages": whole[:4096] + b"\xff" * (len(whole) - 4096),
        "most": whole[: 4096 * 3] + b"\xff" * (len(whole) - 4096 * 3),
    }
    for name, content in damaged.items():
        for command in ("export", "analyze", "backup"):
            (here / name / command).mkdir(parents=True)
            file = here / name / command / "results.sqlite"
            file.write_bytes(content)
            assert mushra(command, str(file), *(["copy"] if command == "backup" else [])) == 2, (
                name,
                command,
            )
            error = capsys.readouterr().err
            assert error.startswith("mushra: ") and error.count("\n") == 1, (name, command, error)
            assert str(file) in error or "results.sqlite" in error or "damaged" in error, error


def test_a_read_of_ratings_changes_nothing(here: Path) -> None:
    before = read_ratings(here / "test" / "results.sqlite", everything=True)
    load(["test"])
    pd.testing.assert_frame_equal(read_ratings(here / "test" / "results.sqlite", everything=True), before)
