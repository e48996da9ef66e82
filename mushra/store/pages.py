"""What the pages and their results are between the server and the data base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SessionPage:
    """One page of one session.

    Attributes:
        public: what the listener's browser gets (PAGE of the contract).
        trial: id of the page in the YAML.
        conditions: id of a signal -> its name in the results.
    """

    public: dict[str, Any]
    trial: str
    conditions: dict[str, str]

    @classmethod
    def read(cls, stored: dict[str, Any]) -> SessionPage:
        return cls(stored["public"], stored["trial"], stored["conditions"])

    def stored(self) -> dict[str, Any]:
        return {"public": self.public, "trial": self.trial, "conditions": self.conditions}

    @property
    def id(self) -> str:
        return str(self.public["id"])

    @property
    def type(self) -> str:
        return str(self.public["type"])

    @property
    def training(self) -> bool:
        return bool(self.public["training"])


@dataclass(frozen=True)
class Checked:
    """A result that may be stored.

    Attributes:
        revision: from 1; a later one replaces an earlier one.
        time_ms: on the page.
        result: as it was sent, without unknown keys.
        ratings: rows of the table of that name, without session and page.
        answers: (name, value) of the questionnaire in its order; None on other pages.
    """

    revision: int
    time_ms: float
    result: dict[str, Any]
    ratings: list[dict[str, Any]]
    answers: list[tuple[str, str]] | None


def storable(text: str) -> str:
    """``text`` with U+FFFD for NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
