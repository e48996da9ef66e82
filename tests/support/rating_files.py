"""Files of ratings as webMUSHRA, pymushra and people write them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from mushra.analysis.ratings import Ratings

CONDITIONS = ("reference", "anchor35", "codec@16")


def webmushra(
    sessions: list[dict[str, Any]],
    *,
    uuid: bool = True,
    questions: tuple[str, ...] = ("age",),
    header: int = 1,
) -> str:
    """A mushra.csv: each session has ``uuid, answers`` and ``scores`` {trial: {condition: score}}."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["session_test_id", *questions, *(["session_uuid"] if uuid else [])]
    names += ["trial_id", "rating_stimulus", "rating_score", "rating_time", "rating_comment"]
    for _ in range(header):
        writer.writerow(names)
    for number, session in enumerate(sessions):
        for trial, scores in session["scores"].items():
            for condition, score in scores.items():
                row = ["test", *session.get("answers", ["30"] * len(questions))]
                row += [session["uuid"]] if uuid else []
                time = session.get("time", 10_000 * ord(session["uuid"][0]) + number)
                writer.writerow([*row, trial, condition, score, time, session.get("comment", "")])
    return text.getvalue()


def page(*scores: float) -> dict[str, float]:
    return dict(zip(CONDITIONS, scores, strict=True))


def session(name: str, first: float = 60, **more: Any) -> dict[str, Any]:
    return {"uuid": name, "scores": {"t1": page(100, 20, first), "t2": page(98, 10, 55)}, **more}


def write(folder: Path, text: str | bytes, name: str = "mushra.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def kinds(ratings: Ratings) -> dict[str, int]:
    return {problem.kind: problem.rows for problem in ratings.problems}


def pymushra(folder: Path) -> Path:
    """As pymushra stores: TinyDB tables of pages, each with its answers and responses, numbers cast."""
    documents = {}
    for number, (uuid, trial) in enumerate([("u1", 1), ("u1", "t2"), ("u2", 1), ("u2", "t2")], start=1):
        responses = [
            {"stimulus": name, "score": score, "comment": "", "time": 1000 * number}
            for name, score in (("reference", 100), ("anchor35", 5), (16, 50 + number))
        ]
        documents[str(number)] = {
            "id": trial,
            "type": "mushra",
            "responses": responses,
            "config": "configs/x.yaml",
            "testId": "demo",
            "date": "2024-01-01",
            "questionaire": {"age": 30, "uuid": uuid},
        }
    documents["9"] = {**documents["1"], "type": "likert_single_stimulus"}
    return write(folder, json.dumps({"_default": {}, "demo": documents}), "db.json")


def tidy(rows: list[tuple[str, str, str, float]]) -> str:
    return pd.DataFrame(rows, columns=["listener", "item", "condition", "score"]).to_csv(index=False)
