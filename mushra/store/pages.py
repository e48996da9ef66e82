"""Records of a session's pages and their ratings, shared by server, data base and exports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel

from mushra.config.pages import Question, Scales


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """The fields that are set, for `json.dumps`, with the names and the order of webMUSHRA's YAML."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Sound(_Model):
    """A reference; ``url`` is relative to the listening page."""

    url: str


class Signal(_Model):
    """A rated sound: ``id`` reveals only its place on the page; ``label`` is shown if it is set."""

    id: str
    url: str
    label: str | None = None


class PublicPage(_Model):
    """A page as the listener's browser gets it.

    Only the fields of the page's type are set. Keys of the YAML that are not named here are not sent.
    """

    id: str
    type: str
    training: bool
    name: str | None
    content: str | None
    show_waveform: bool = False
    enable_looping: bool = False
    strict: bool = True
    show_condition_names: bool = False
    switch_back: bool = False
    unforced: str | None = None
    must_rate: bool = False
    must_playback: str | None = None
    response: Scales = []
    must_consent: bool = False
    default_volume: float = 0.5
    framerate: float | None = None
    numberof_loc_obj: int = 1
    room_measurements: Any = None
    responses: Any = None
    views: Any = None
    objects: Any = None
    popup_content: str | None = None
    show_results: bool = False
    show_errors: bool = False
    #: Each one has all of its keys, set or not.
    questionnaire: Annotated[
        list[Question],
        PlainSerializer(lambda asked: [question.model_dump(by_alias=True) for question in asked]),
    ] = []
    reference: Sound | None = None
    signals: list[Signal] = []


class SessionPage(_Model):
    """One page of one session.

    Attributes:
        public: the part that the browser gets.
        trial: id of the page in the YAML.
        conditions: id of a signal -> its name in the results. On an ABX page the third is X.
        pair: on a page of our own types, the names in the order of `OwnTrial.pairs`.
        gold: whether it is a gold item, which the browser does not know.
    """

    public: PublicPage
    trial: str
    conditions: dict[str, str]
    pair: tuple[str, str] | None = None
    gold: bool = False

    @property
    def id(self) -> str:
        return self.public.id

    @property
    def type(self) -> str:
        return self.public.type

    @property
    def kept_apart(self) -> bool:
        """Whether its grades are left out of all results."""
        return self.public.training or self.gold


def pages_to_json(pages: list[SessionPage]) -> str:
    """JSON of a session's pages, for the data base."""
    return json.dumps([page.to_json() for page in pages], separators=(",", ":"))


def pages_from_json(text: str | None) -> dict[str, SessionPage]:
    """Pages by id, in the session's order; empty for a session that was submitted whole."""
    pages = [SessionPage.model_validate(page) for page in json.loads(text or "[]")]
    return {page.id: page for page in pages}


@dataclass(frozen=True)
class Rating:
    """A listener's rating of a signal or a pair.

    Attributes:
        reference: the other signal of a pair.
        score: of ``stimulus``, or None. ABX: 1 if the answer is right, 0 if it is wrong.
        reference_score: of ``reference`` (BS.1116).
        answer: a choice in words. AB: the name of the chosen signal, "" for no preference. ABX: the name of
            the signal that the listener took for X.
        time_ms: on the page.
        detail: JSON: plays, heard_ms, moves, first_ms; None if unknown.
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
        """Parsed ``detail``."""
        return json.loads(self.detail) if self.detail else {}


@dataclass(frozen=True)
class Checked:
    """A result that may be stored.

    Attributes:
        revision: from 1; a later revision replaces an earlier one.
        time_ms: on the page.
        result: the JSON that was sent, without unknown keys.
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
