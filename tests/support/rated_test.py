"""A test of `mushra create`, made of a run of `evaluate`, that scripted listeners take at the server."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from nominal import evaluate

from mushra.config.load import load_config
from mushra.create.documents import Options
from mushra.create.folder import create_test
from mushra.create.material import RunMaterial
from mushra.server import Limits, create_app

#: So large that no test meets them.
NO_LIMITS = Limits(*[(1e9, 1e9)] * 4)

#: What everybody hears, in points; a listener and an item add up to `SPREAD`.
LEVELS = {"reference": 100, "opus@16": 70, "mp3@16": 45, "anchor70": 35, "anchor35": 12}
SPREAD = 9

Change = Callable[[dict[str, Any], dict[str, str], dict[str, Any]], None]


def make_run(folder: Path, metrics: str = "si_sdr,ms_mel,logmel") -> Path:
    """A run of the demo clips with Opus and MP3."""
    evaluate("demo", "opus,mp3", [16], metrics=metrics, limit=4, seed=1, out=folder)
    return folder


def make_test(run: Path, folder: Path, **options: Any) -> Path:
    """A test of three items and one of training."""
    create_test(
        RunMaterial(run),
        folder,
        Options(**{"items": 3, "duration_s": 3.0, "test_id": "walk", "questionnaire": False, **options}),
    )
    return folder


def open_server(test: Path, database: str | Path | None = None, **options: Any) -> Flask:
    options = {"database": database or test / "results.sqlite", "limits": NO_LIMITS, **options}
    return create_app(load_config(test), **options)


def close_server(app: Flask) -> None:
    app.extensions["mushra"].store.close()


def score(who: str, item: str, condition: str) -> int:
    """What a listener says: of everybody's level, with a spread that is the same in every run."""
    noise = zlib.crc32(f"{who}/{item}/{condition}".encode()) % (2 * SPREAD + 1) - SPREAD
    return 100 if condition == "reference" else max(0, min(100, LEVELS[condition] + noise))


class Visitor:
    """Takes a test as the page does, page after page; ``who`` decides the scores."""

    def __init__(self, app: Flask, test: Path, who: str, **arrival: Any) -> None:
        self.client: FlaskClient = app.test_client()
        self.who = who
        self.key = json.loads((test / "key.json").read_text())["trials"]
        self.store = app.extensions["mushra"].store
        answer = self.client.post("/api/sessions", json=arrival)
        assert answer.status_code in (200, 201), answer.get_json()
        self.session = answer.get_json()
        self.headers = {"Authorization": f"Bearer {self.session['key']}"}

    def rate(self, page: dict[str, Any], change: Change | None = None) -> None:
        """Fills in and saves a page."""
        result: dict[str, Any] = {"revision": 1, "time_ms": 20_000 + zlib.crc32(self.who.encode()) % 9_000}
        if page["type"] == "consent":
            result["consent"] = {"given": True}
        if page["type"] == "mushra":
            item, names = self._heard(page["id"])
            seen = {"plays": 2, "heard_ms": 900, "moves": 3, "first_ms": 50}
            result["ratings"] = [
                {"signal": signal, "score": score(self.who, item, name), **seen}
                for signal, name in names.items()
            ]
            if change is not None:
                change(page, names, result)
        saved = self.client.put(
            f"/api/sessions/{self.session['id']}/pages/{page['id']}", json=result, headers=self.headers
        )
        assert saved.status_code == 200, saved.get_json()

    def _heard(self, page: str) -> tuple[str, dict[str, str]]:
        """The page's item, and its signals with their conditions, by the data base and the key."""
        import sqlalchemy as sa

        from mushra.store import schema

        with self.store.read() as connection:
            plan = connection.execute(
                sa.select(schema.sessions.c.plan).where(schema.sessions.c.id == self.session["id"])
            ).scalar_one()
        (planned,) = [entry for entry in json.loads(plan) if entry["public"]["id"] == page]
        item = planned["trial"]
        signals = self.key[item]["signals"]
        return item, {signal: signals[name]["condition"] for signal, name in planned["conditions"].items()}

    def take(self, change: Change | None = None) -> Visitor:
        """All pages, then the end."""
        for page in self.session["pages"]:
            self.rate(page, change)
        return self.finish()

    def finish(self) -> Visitor:
        done = self.client.post(
            f"/api/sessions/{self.session['id']}/finish", json={"revision_of": {}}, headers=self.headers
        )
        assert done.status_code == 200, done.get_json()
        return self
