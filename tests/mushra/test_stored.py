"""A test's folder as version 1 of the schema left it opens, and every way to its ratings gives the same.

`stored/` was made by the server itself, from what scripted listeners sent: six people (one of them twice,
one not finished, one excluded, one with a slider that was never moved), a training page, and in the same data
base a test imported from webMUSHRA's CSV. `expected.csv` is what they said and what counts of it, written
down by the script that sent it; `exported/` are the exports of that day.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

import mushra
from mushra.cli.main import app
from mushra.server.plots import draw, look
from mushra.store import schema
from mushra.store.export import export, import_csv
from mushra.store.records import sha256
from mushra.store.store import Store
from qincodec.core.errors import UserError

STORED = Path(__file__).with_name("stored")
CONDITIONS = ("reference", "mp3@16", "opus@16", "anchor35")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the test's folder, which opening may change."""
    monkeypatch.delenv("MUSHRA_DATABASE", raising=False)
    return Path(shutil.copytree(STORED, tmp_path / "stored"))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def expected() -> pd.DataFrame:
    return pd.read_csv(STORED / "expected.csv")


def expected_means() -> dict[str, float]:
    """Condition -> mean of listeners, each the mean of the items they rated; exact, then rounded once."""
    means = {}
    for condition, rows in expected().groupby("condition"):
        of = [[Fraction(s) for s in scores] for _, scores in rows.groupby("listener")["score"]]
        means[str(condition)] = float(sum(sum(scores) / len(scores) for scores in of) / len(of))
    return means


def sources(folder: Path) -> dict[str, mushra.Ratings]:
    """Every way to the ratings of the test."""
    database, key = folder / "results.sqlite", folder / "key.json"
    out = folder.parent / "now"
    with Store(database) as store:
        for kind in ("tidy", "webmushra", "json"):
            export(store, out / kind, kind, key=key, test="stored")  # type: ignore[arg-type]
    return {
        "folder": mushra.load(folder),
        "yaml": mushra.load(folder / "config.yaml"),
        "data base": mushra.load(database, tests=["stored"]),
        "data base and key": mushra.load(database, tests=["stored"], key=key),
        "url": mushra.load(f"sqlite:///{database}", tests=["stored"], key=key),
        "tidy of that day": mushra.load(folder / "exported/ratings.csv", key=key),
        "CSV of that day": mushra.load(folder / "exported/stored/mushra.csv", key=key),
        **{kind: mushra.load(out / kind) for kind in ("tidy", "webmushra", "json")},
        "page": look(str(database), "stored", folder / "config.yaml").loaded,
    }


def test_every_way_gives_what_listeners_said(folder: Path) -> None:
    right = expected().sort_values(["listener", "item", "condition"]).reset_index(drop=True)
    found = sources(folder)
    means = dict(found["folder"].matrix().mean())
    assert means == pytest.approx(expected_means(), rel=1e-14)
    for way, ratings in found.items():
        frame = ratings.frame[list(right)].sort_values(["listener", "item", "condition"])
        pd.testing.assert_frame_equal(frame.reset_index(drop=True), right, check_exact=True, obj=way)
        assert ratings.conditions == CONDITIONS, way
        assert dict(ratings.matrix().mean()) == means, way
    for way in ("folder", "data base", "page", "tidy", "json"):
        assert sum(found[way].not_given.values()) == 1, way
        kinds = [problem.kind for problem in found[way].problems if problem.kind != "does not count"]
        assert kinds == ["not given", "rated twice", "missing ratings"], way


def test_page_and_commands_print_the_same_means(folder: Path, tmp_path: Path) -> None:
    means = dict(mushra.load(folder).matrix().mean())
    drawn = draw(str(folder / "results.sqlite"), "stored", folder / "config.yaml", tmp_path)
    analysed = run("analyze", folder, "--out", tmp_path / "out", "--no-plots", "--permutations", "200")
    assert analysed.exit_code == 0
    table = pd.read_csv(tmp_path / "out" / "conditions.csv", index_col="condition")
    for condition in CONDITIONS:
        assert table.loc[condition, "mean"] == pytest.approx(means[condition], rel=1e-9)
    printed = {line.split()[0]: line for line in analysed.stdout.splitlines() if line.strip()}
    for row in drawn["conditions"]:
        assert any(str(row["mean"]) in line for line in printed.values()), row


def test_plan_and_correlate_read_the_same_ratings(folder: Path, tmp_path: Path) -> None:
    database = folder / "results.sqlite"
    options = ("--listeners", "8", "--items", "5", "--simulations", "200", "--keep", "all")
    ways = [
        (folder,),
        (database, "--test", "stored", "--key", folder / "key.json"),
        (folder / "exported" / "ratings.csv", "--key", folder / "key.json"),
    ]
    plans = []
    for number, way in enumerate(ways):
        done = run("plan", "--from", *way, *options, "--out", tmp_path / str(number))
        assert done.exit_code == 0, done.stderr
        content = json.loads((tmp_path / str(number) / "plan.json").read_text())
        plans.append({name: value for name, value in content.items() if name not in ("origin", "notes")})
    assert plans[0] == plans[1] == plans[2]
    correlated = ("correlate", folder, "--metrics", "si_sdr", "--keep", "all", "--resamples", "100")
    assert run(*correlated, "--out", tmp_path / "correlated").exit_code == 0
    cells = pd.read_csv(tmp_path / "correlated" / "cells.csv").set_index(["item", "condition"])
    right = expected()[expected()["condition"] != "reference"].groupby(["item", "condition"])["score"]
    assert cells["score"].to_dict() == pytest.approx(right.mean().to_dict(), abs=1e-9)
    assert cells["n_listeners"].to_dict() == right.size().to_dict()


def test_exports_are_those_of_the_day_it_was_made(folder: Path, tmp_path: Path) -> None:
    for kind, file in (("tidy", "ratings.csv"), ("webmushra", "stored/mushra.csv")):
        done = run("export", folder, "--no-key", "--format", kind, "--out", tmp_path)
        assert done.exit_code == 0, done.stderr
        assert (tmp_path / file).read_bytes() == (STORED / "exported" / file).read_bytes()
    # What came from webMUSHRA is still known for what it is.
    with Store(folder / "results.sqlite") as store:
        export(store, tmp_path, "webmushra", test="other")
        assert import_csv(store, tmp_path / "other" / "mushra.csv") == (0, 2)


def exports(database: Path, out: Path) -> dict[str, bytes]:
    """Of the test, without a key."""
    with Store(database) as store:
        for kind in ("tidy", "webmushra"):
            export(store, out, kind, test="stored")  # type: ignore[arg-type]
    return {name: (out / name).read_bytes() for name in ("ratings.csv", "stored/mushra.csv")}


def test_it_is_served_and_who_was_in_it_goes_on(
    serve: Any, listener: Any, answer: Any, folder: Path, tmp_path: Path
) -> None:
    app = serve(folder=folder)
    store = app.extensions["mushra"].store
    with store.read() as connection:
        query = "SELECT id FROM sessions WHERE state = 'running' AND plan IS NOT NULL"
        session = connection.execute(sa.text(query)).scalar_one()
    row = {"session": session, "key_sha256": sha256("key")}
    store.write(lambda connection: connection.execute(schema.session_keys.insert().values(row)))
    client, headers = app.test_client(), {"Authorization": "Bearer key"}
    url = f"/api/sessions/{session}"
    found = client.get(url, headers=headers).get_json()
    assert 0 < len(found["saved"]) < len(found["pages"])
    for page in found["pages"]:
        for signal in page.get("signals", []):
            assert client.get(f"/{signal['url']}").status_code == 200
        if page["id"] not in found["saved"]:
            put = client.put(f"{url}/pages/{page['id']}", json=answer(page), headers=headers)
            assert put.status_code == 200, put.get_json()
    assert client.post(f"{url}/finish", json={}, headers=headers).status_code == 200
    listener(app, prolific={"pid": "new", "study": "s", "session": "1"}).take()
    now = exports(folder / "results.sqlite", tmp_path)["ratings.csv"].splitlines()
    then = (STORED / "exported" / "ratings.csv").read_bytes().splitlines()
    assert set(then) < set(now) and len(now) == len(then) + 2 * 3 * len(CONDITIONS)


def test_an_older_schema_becomes_todays_once_and_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has needed a second schema yet; this one is made up."""
    runs = []

    def migrate(connection: sa.Connection) -> None:
        runs.append(connection)
        connection.execute(sa.text("ALTER TABLE sessions ADD COLUMN novelty TEXT"))

    monkeypatch.setattr(schema, "SCHEMA_VERSION", 2)
    monkeypatch.setitem(schema.MIGRATIONS, 1, migrate)
    database = folder / "results.sqlite"
    start = threading.Barrier(2)

    def open_it(_: int) -> str | None:
        start.wait()
        with Store(database) as store:
            return store.get_meta("schema_version")

    with ThreadPoolExecutor(2) as servers:  # that are started at once
        assert list(servers.map(open_it, range(2))) == ["2", "2"]
    assert len(runs) == 1
    then = {name: (STORED / "exported" / name).read_bytes() for name in ("ratings.csv", "stored/mushra.csv")}
    assert exports(database, tmp_path / "upgraded") == then
    assert [path.name for path in folder.glob("results.sqlite*schema*")] == ["results.sqlite-schema1"]
    monkeypatch.undo()
    with pytest.raises(UserError, match="has schema 2, this version reads up to 1"):
        Store(database)
    database.unlink()
    (folder / "results.sqlite-schema1").rename(database)  # as docs/how-to/hosting.md says
    assert exports(database, tmp_path / "kept") == then


@pytest.mark.parametrize("command", ["load", "analyze", "plan", "correlate", "export", "backup", "serve"])
def test_a_data_base_of_a_later_schema_says_so_in_one_line(folder: Path, command: str) -> None:
    connection = sqlite3.connect(folder / "results.sqlite")
    with connection:
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")
    connection.close()
    before = (folder / "results.sqlite").read_bytes()
    wanted = "has schema 2, this version reads up to 1; use the version that wrote it"
    if command == "load":
        with pytest.raises(UserError, match=wanted) as said:
            mushra.load(folder)
    else:
        more = {"plan": ["--from"], "backup": [], "serve": ["--port", "0"]}.get(command, [])
        arguments = [command, *more, str(folder)] if command == "plan" else [command, str(folder), *more]
        done = run(*arguments, *([str(folder.parent / "copy")] if command == "backup" else []))
        assert isinstance(done.exception, UserError)
        said = done.exception  # type: ignore[assignment]
    text = str(said.value if command == "load" else said)
    assert wanted in text and "\n" not in text
    assert (folder / "results.sqlite").read_bytes() == before


def test_the_package_has_one_door() -> None:
    assert callable(mushra.load)
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        _ = mushra.lod  # type: ignore[attr-defined]
