"""What webMUSHRA's own client sends for a small test."""

from __future__ import annotations

import json
from typing import Any

COMMENT = 'A & B + C = 100% "fine" %41 \u00e4\U0001f3a7'
SESSION = {
    "testId": "My Test",
    "participant": {"name": ["age", "e&mail"], "response": ["33", "a+b@example.org"]},
    "trials": [
        {
            "id": "drums+saw",
            "type": "mushra",
            "responses": [
                {"stimulus": "reference", "score": "100", "comment": COMMENT, "time": 1234},
                {"stimulus": "C1", "score": "40", "comment": "", "time": 1234},
            ],
        },
        {
            "id": "pair",
            "type": "paired_comparison",
            "responses": [
                {
                    "reference": "reference",
                    "nonReference": "C1",
                    "answer": "reference",
                    "comment": "",
                    "time": 5,
                }
            ],
        },
        {
            "id": "graded",
            "type": "bs1116",
            "responses": [
                {
                    "reference": "reference",
                    "nonReference": "C1",
                    "referenceScore": "5.0",
                    "nonReferenceScore": "3.6",
                    "comment": "dull",
                    "time": 77,
                }
            ],
        },
        {
            "id": "liked",
            "type": "likert_multi_stimulus",
            "responses": [{"stimulus": "C1", "stimulusRating": "2", "time": 9}],
        },
    ],
    "uuid": "5b8c-uuid",
    "config": "configs/default.yaml",
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
