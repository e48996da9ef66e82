"""A small test, a server for it, and a listener who answers as the page would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from postgresql_server import new_database, postgresql_server

from mushra.config.load import load_config
from mushra.server import Limits, create_app
from qincodec import audio

#: So large that no test meets them.
NO_LIMITS = Limits(*[(1e9, 1e9)] * 4)

YAML = """
testname: A small test
testId: small
showButtonPreviousPage: true
pages:
  - {type: generic, id: hello, content: "<p>Hello</p>"}
  - {type: consent, id: agree, content: "<p>We keep your answers.</p>"}
  - {type: volume, id: volume, stimulus: ref.wav}
  - {type: mushra, id: training1, reference: ref.wav, stimuli: {A: a.wav}}
  - - random
    - {type: mushra, id: one, reference: ref.wav, stimuli: {A: a.wav, B: b.wav}}
    - {type: mushra, id: two, reference: ref.wav, stimuli: {A: a.wav, B: b.wav}}
    - {type: bs1116, id: graded, reference: ref.wav, stimuli: {A: a.wav, B: b.wav}}
    - {type: paired_comparison, id: pairs, unforced: Neither, reference: ref.wav, stimuli: {A: a.wav}}
  - type: likert_multi_stimulus
    id: liked
    mustRate: true
    stimuli: {A: a.wav, B: b.wav}
    response: [{value: "1", label: bad}, {value: "2", label: good}]
  - type: finish
    id: end
    questionnaire:
      - {type: text, name: age, label: Your age}
      - {type: number, name: years, optional: true, min: 0, max: 99}
      - {type: likert, name: ears, optional: true, response: [{value: good}, {value: bad}]}
"""


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Folder of a test: (YAML, extra top-level lines) -> folder."""

    def make(yaml: str = YAML, section: str = "", name: str = "test") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(1)
        for file in ("ref", "a", "b"):
            audio.write(folder / f"{file}.wav", rng.normal(0, 0.1, (1, 4410)), 44100, "pcm16")
        own = f"\nqincodec:\n  {section}\n" if section else ""
        (folder / "config.yaml").write_text(yaml + own, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def serve(make_folder: Callable[..., Path]) -> Iterator[Callable[..., Flask]]:
    """(YAML, section `qincodec`, options of `create_app`) -> application of a new test."""
    apps: list[Flask] = []

    def make(yaml: str = YAML, section: str = "", folder: Path | None = None, **options: Any) -> Flask:
        folder = folder or make_folder(yaml, section)
        options = {"database": folder / "results.sqlite", "limits": NO_LIMITS, **options}
        app = create_app(load_config(folder), **options)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions["mushra"].store.close()


def valid_result(page: dict[str, Any], score: int = 70) -> dict[str, Any]:
    """What a listener's browser might send for a page."""
    result: dict[str, Any] = {"revision": 1, "time_ms": 12345, "shown_at_ms": 10}
    signals = [signal["id"] for signal in page.get("signals", [])]
    if page["type"] == "consent":
        result["consent"] = {"given": True}
    elif page["type"] == "mushra":
        scores = [100] + [score] * (len(signals) - 1)
        result["ratings"] = [
            {"signal": s, "score": v, "plays": 2, "heard_ms": 900, "moves": 3, "first_ms": 50, "comment": ""}
            for s, v in zip(signals, scores, strict=True)
        ]
    elif page["type"] == "bs1116":
        result["ratings"] = [
            {"signal": s, "score": v, "plays": 1, "moves": 1}
            for s, v in zip(signals, (5.0, 3.7), strict=True)
        ]
    elif page["type"] == "paired_comparison":
        result |= {"ratings": [{"signal": s, "plays": 1} for s in signals], "answer": "s1"}
    elif page["type"] in ("ab", "abx", "dcr"):
        graded = page["type"] == "dcr"
        heard = {"score": 5 if graded else None, "plays": 1, "moves": 1, "heard_ms": 900}
        result |= {"ratings": [{"signal": s, **heard} for s in signals], "answer": None if graded else "s1"}
    elif page["type"].startswith("likert"):
        result["ratings"] = [{"signal": s, "score": "2", "plays": 1, "moves": 1} for s in signals]
    elif page["type"] == "finish":
        result["responses"] = {"age": "33"}
    return result


class Listener:
    """Takes a test through Flask's test client."""

    def __init__(self, app: Flask, **arrival: Any) -> None:
        self.client = app.test_client()
        answer = self.client.post("/api/sessions", json=arrival)
        self.status, self.session = answer.status_code, answer.get_json()
        self.headers = {"Authorization": f"Bearer {self.session.get('key')}"}

    @property
    def pages(self) -> list[dict[str, Any]]:
        pages: list[dict[str, Any]] = self.session["pages"]
        return pages

    @property
    def url(self) -> str:
        return f"/api/sessions/{self.session['id']}"

    def page(self, kind: str) -> dict[str, Any]:
        return next(page for page in self.pages if page["type"] == kind)

    def put(self, page: dict[str, Any] | str, result: Any) -> Any:
        name = page if isinstance(page, str) else page["id"]
        return self.client.put(f"{self.url}/pages/{name}", json=result, headers=self.headers)

    def get(self) -> Any:
        return self.client.get(self.url, headers=self.headers)

    def finish(self, revisions: dict[str, int] | None = None) -> Any:
        return self.client.post(
            f"{self.url}/finish", json={"revision_of": revisions or {}}, headers=self.headers
        )

    def take(self, score: int = 70) -> Listener:
        """The whole test, but for pages that are saved."""
        saved = self.get().get_json()["saved"]
        for page in self.pages:
            if page["id"] in saved:
                continue
            answer = self.put(page, valid_result(page, score))
            assert answer.status_code == 200, answer.get_json()
        assert self.finish().status_code == 200
        return self


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server of our own, without the name of a data base."""
    with postgresql_server() as cluster:
        yield cluster.url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty data base of either kind."""
    if request.param == "sqlite":
        return str(tmp_path / "store.sqlite")
    return new_database(str(request.getfixturevalue("postgresql")))


@pytest.fixture
def listener() -> type[Listener]:
    return Listener


@pytest.fixture
def answer() -> Callable[..., dict[str, Any]]:
    return valid_result


@pytest.fixture
def small_test() -> str:
    """The YAML that `serve` serves unless told otherwise."""
    return YAML
