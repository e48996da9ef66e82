"""Likert pages with several scales, spatial pages with several objects: what is taken, what is exported."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from webmushra_cases import SCALES

from mushra.store.export import import_csv, render
from mushra.store.store import Store

SPATIAL = """
testname: Where
testId: where
pages:
  - {type: spatial, id: s, numberofLocObj: 2, stimuli: {a: a.wav}}
  - {type: finish}
"""


def ratings(page: dict[str, Any], *scores: Any) -> dict[str, Any]:
    signals = [signal["id"] for signal in page["signals"]]
    given = [
        {"signal": s, "score": score, "plays": 1, "moves": 1}
        for s, score in zip(signals, scores, strict=True)
    ]
    return {"revision": 1, "time_ms": 1500, "ratings": given}


def test_every_scale_has_a_column(serve: Any, listener: Any, tmp_path: Any) -> None:
    app = serve(SCALES)
    one = listener(app)
    page = one.pages[0]
    assert [[answer["value"] for answer in scale] for scale in page["response"]] == [
        ["bad", "good"],
        ["dull", "bright"],
    ]
    assert page["showWaveform"] is True
    assert one.put(page, ratings(page, ["good", "dull"], ["bad", "bright"])).status_code == 200
    assert one.put(one.pages[1], {"revision": 1, "time_ms": 1}).status_code == 200
    assert one.finish().status_code == 200
    store = app.extensions["mushra"].store
    text = render(store, "webmushra")["multi/lss.csv"]
    header, *rows = csv.reader(io.StringIO(text))
    assert header == [
        "session_test_id",
        "trial_id",
        "stimuli_rating1",
        "stimuli_rating2",
        "stimuli",
        "rating_time",
    ]
    assert sorted(row[2:4] for row in rows) == [["bad", "bright"], ["good", "dull"]]
    assert {row[4] for row in rows} == {"a", "b"}
    # In again, out again: the same bytes.
    (tmp_path / "lss.csv").write_text(text, encoding="utf-8")
    again = Store(tmp_path / "again.sqlite")
    import_csv(again, tmp_path / "lss.csv")
    assert render(again, "webmushra")["multi/lss.csv"] == text
    again.close()


@pytest.mark.parametrize(
    ("scores", "code"),
    [
        ((["good", "dull"], ["bad", None]), "not_rated"),
        ((["good", "dull"], None), "not_rated"),
        ((["good"], ["bad", "dull"]), "score"),
        (("good", ["bad", "dull"]), "score"),
        ((["good", "bad"], ["bad", "dull"]), "score"),
        ((["good", 1], ["bad", "dull"]), "invalid"),
        (([["good"], "dull"], ["bad", "dull"]), "invalid"),
    ],
)
def test_all_scales_must_have_an_answer_of_theirs(serve: Any, listener: Any, scores: Any, code: str) -> None:
    one = listener(serve(SCALES))
    reply = one.put(one.pages[0], ratings(one.pages[0], *scores))
    assert (reply.status_code, reply.get_json()["code"]) == (400, code)


def test_a_list_of_scores_is_for_likert_pages_only(serve: Any, listener: Any, answer: Any) -> None:
    one = listener(serve())
    for kind in ("mushra", "bs1116", "likert_multi_stimulus"):
        page = one.page(kind)
        result = answer(page)
        result["ratings"][0]["score"] = ["100"]
        reply = one.put(page, result)
        assert (reply.status_code, reply.get_json()["code"]) == (400, "score")


def test_directions_of_several_objects(serve: Any, listener: Any) -> None:
    app = serve(SPATIAL)
    one = listener(app)
    assert one.pages[0]["numberofLocObj"] == 2
    result = {"revision": 1, "time_ms": 5, "responses": {"s1": {"azimuths": [30, -30]}}}
    assert one.put(one.pages[0], result).status_code == 200
    one.put(one.pages[1], {"revision": 1, "time_ms": 1})
    one.finish()
    document = render(app.extensions["mushra"].store, "json")["results.json"]
    assert '"answer": "{\\"azimuths\\":[30,-30]}"' in document
