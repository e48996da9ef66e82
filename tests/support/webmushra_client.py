"""What webMUSHRA's own client sends for a small test."""

from __future__ import annotations

import json
from typing import Any

COMMENT = 'A & B + C = 100% "fine" %41 \u00e4\U0001f3a7'


def rated(trial: str, **scores: str) -> dict[str, Any]:
    """A MUSHRA page that was filled in."""
    responses = [{"stimulus": name, "score": score, "time": 1234} for name, score in scores.items()]
    return {"id": trial, "type": "mushra", "responses": responses}


def graded(*names: str, score: str, **more: Any) -> dict[str, Any]:
    grades = {"referenceScore": "5.0", "nonReferenceScore": score, **more}
    responses = [{"reference": "reference", "nonReference": name, **grades} for name in names]
    return {"id": "graded", "type": "bs1116", "responses": responses}


def chosen(trial: str, name: str) -> dict[str, Any]:
    pair = {"reference": "reference", "nonReference": name, "answer": "reference", "comment": "", "time": 5}
    return {"id": trial, "type": "paired_comparison", "responses": [pair]}


def liked(*names: str) -> dict[str, Any]:
    responses = [{"stimulus": name, "stimulusRating": "2", "time": 9} for name in names]
    return {"id": "liked", "type": "likert_multi_stimulus", "responses": responses}


SESSION: dict[str, Any] = {
    "testId": "My Test",
    "participant": {"name": ["age", "e&mail"], "response": ["33", "a+b@example.org"]},
    "trials": [
        rated("drums+saw", reference="100", C1="40"),
        chosen("pair", "C1"),
        graded("C1", score="3.6", comment="dull", time=77),
        liked("C1"),
    ],
    "uuid": "5b8c-uuid",
    "config": "configs/default.yaml",
}
for response, comment in zip(SESSION["trials"][0]["responses"], (COMMENT, ""), strict=True):
    response["comment"] = comment

#: What the page of the test "small", which `serve` serves, would send.
OWN: dict[str, Any] = {
    "testId": "small",
    "trials": [
        *(rated(trial, A="50", B="50", reference="50") for trial in ("one", "two")),
        graded("A", "B", score="3.4"),
        chosen("pairs", "A"),
        liked("A", "B"),
    ],
    "uuid": "of-this-session",
}


#: What SESSION is a session of.
YAML = """
testname: x
testId: My Test
pages:
  - {type: mushra, id: drums+saw, reference: r.wav, stimuli: {C1: a.wav}}
  - {type: paired_comparison, id: pair, reference: r.wav, stimuli: {C1: a.wav}}
  - {type: bs1116, id: graded, reference: r.wav, stimuli: {C1: a.wav}}
  - {type: likert_multi_stimulus, id: liked, stimuli: {C1: a.wav}, response: [{value: "1"}, {value: "2"}]}
  - type: finish
    questionnaire: [{type: text, name: age}, {type: text, name: e&mail}]
"""


def raw(session: Any) -> bytes:
    """As the original client sends it: JSON, not encoded."""
    return b"sessionJSON=" + json.dumps(session, ensure_ascii=False).encode()


FORM = "application/x-www-form-urlencoded"


def submit(app: Any, body: bytes, mimetype: str = f"{FORM}; charset=UTF-8") -> Any:
    return app.test_client().post("/service/write.php", data=body, content_type=mimetype)
