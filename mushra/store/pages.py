"""A session's pages, and what was said on them: what server, data base and exports hand each other."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class SessionPage:
    """One page of one session.

    Attributes:
        public: what the listener's browser gets (PAGE of the contract), JSON.
        trial: id of the page in the YAML.
        conditions: id of a signal -> its name in the results.
    """

    public: dict[str, Any]
    trial: str
    conditions: dict[str, str]

    @property
    def id(self) -> str:
        return str(self.public["id"])

    @property
    def type(self) -> str:
        return str(self.public["type"])

    @property
    def training(self) -> bool:
        return bool(self.public["training"])


def pages_to_json(pages: list[SessionPage]) -> str:
    """As a session's pages are stored."""
    return json.dumps([asdict(page) for page in pages], separators=(",", ":"))


def pages_from_json(text: str | None) -> dict[str, SessionPage]:
    """Pages by id, in the session's order; none of a session that came in one piece."""
    pages = [SessionPage(**page) for page in json.loads(text or "[]")]
    return {page.id: page for page in pages}


@dataclass(frozen=True)
class Rating:
    """What was said about a signal or a pair.

    Attributes:
        score: of ``stimulus``, or None.
        reference_score: of ``reference`` (BS.1116).
        answer: a choice in words.
        time_ms: on the page.
        detail: JSON: plays, heard_ms, moves, first_ms; None where nothing is known.
    """

    stimulus: str
    reference: str | None = None
    score: float | None = None
    reference_score: float | None = None
    answer: str | None = None
    time_ms: float | None = None
    comment: str = ""
    detail: str | None = None

    @cached_property
    def details(self) -> dict[str, Any]:
        """What ``detail`` says."""
        return json.loads(self.detail) if self.detail else {}


@dataclass(frozen=True)
class Checked:
    """A result that may be stored.

    Attributes:
        revision: from 1; a later one replaces an earlier one.
        time_ms: on the page.
        result: as it was sent, without unknown keys, JSON.
        answers: (name, value) of the questionnaire in its order; None on other pages.
    """

    revision: int
    time_ms: float
    result: dict[str, Any]
    ratings: list[Rating]
    answers: list[tuple[str, str]] | None


def storable(text: str) -> str:
    """``text`` with U+FFFD for NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
