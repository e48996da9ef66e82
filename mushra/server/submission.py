"""Check a submission of webMUSHRA's client against the test, before any of it is stored.

First the shape, then the content: only pages of this test, their stimuli, their scales, their questionnaire.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from mushra.config.pages import (
    HIDDEN_REFERENCE,
    Bs1116Page,
    FinishPage,
    LikertMultiPage,
    LikertPage,
    LikertSinglePage,
    MushraPage,
    OwnTrial,
    Page,
    PairedComparisonPage,
    SpatialPage,
    TestConfig,
    Trial,
)
from mushra.config.yaml_js import Plain, resolve
from mushra.server.incoming import BadResult
from mushra.store.pages import Rating
from mushra.store.whole_sessions import WholePage, WholeSession

MAX_TEXT = 10_000
MAX_RESPONSES = 20_000
#: Answer that the client sends for a stimulus of a Likert page that was not rated.
_NOT_RATED = ("", "NA")
#: Printable ASCII, in which texts that look equal are equal.
_UUID = re.compile(r"[ -~]+")
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def parse_submission(sent: Any, config: TestConfig) -> WholeSession:
    """A submission as a session.

    Args:
        sent: ``{testId, participant: {name, response}, trials, uuid, ...}``.
        config: the test to which it must belong.

    Raises:
        BadResult: it has another shape, or this test cannot produce it. Do not store any of it.
    """
    if not isinstance(sent, dict) or _text(sent.get("testId"), "testId") not in as_sent([config.test_id]):
        raise BadResult("other_test", f"these are not results of the test '{config.test_id}'")
    trials = sent.get("trials")
    if not isinstance(trials, list) or not trials:
        raise BadResult("invalid", "trials must be a list with at least one trial")
    own = [page.type for page in config.flat() if isinstance(page, OwnTrial)]
    if own:
        raise BadResult("trial_unknown", f"webMUSHRA cannot show this test: it has pages of type '{own[0]}'")
    graded = {page.id: page for page in config.flat() if isinstance(page, tuple(_RATING))}
    ids = as_sent(graded)
    pages: dict[str, WholePage] = {}
    for trial in trials:
        id = ids.get(_text(trial.get("id"), "id")) if isinstance(trial, dict) else None
        page = graded[id] if id is not None else None
        if page is None or trial.get("type") != page.type:
            raise BadResult("trial_unknown", "a trial does not belong to this test")
        if page.id in pages:
            raise BadResult("trial_twice", f"trial '{page.id}' occurs twice")
        pages[page.id] = WholePage(page.id, page.type, config.is_kept_apart(page), _ratings(page, trial))
    if sum(len(page.ratings) for page in pages.values()) > MAX_RESPONSES:
        raise BadResult("invalid", f"more than {MAX_RESPONSES} responses")
    answers = _answers(sent.get("participant") or {}, config)
    missing = [page.id for page in graded.values() if page.id not in pages and not config.is_training(page)]
    if missing:
        raise BadResult("trial_missing", f"trial '{missing[0]}' is missing ({len(missing)} in all)")
    # It identifies the listener; blanks around it are dropped, because a reader of the results cannot see
    # them.
    uuid = _text(sent.get("uuid"), "uuid", 200).strip() or None
    if uuid is not None and not _UUID.fullmatch(uuid):
        raise BadResult("invalid", "uuid must have only letters, digits, blanks and punctuation of ASCII")
    return WholeSession(config.test_id, "webmushra", uuid, answers, list(pages.values()))


def as_sent(names: Iterable[str]) -> dict[str, str]:
    """Names that webMUSHRA's client may send -> the names in the YAML.

    Its parser converts names without quotes to values: it sends ``01`` as 1, ``1.50`` as 1.5, a date as a
    time. A sent name that could mean two names is left out.
    """
    names = list(names)
    known = {name: name for name in names}
    for name in names:
        value = resolve(Plain(name))
        sent = json.dumps(value) if not isinstance(value, str) else name
        if re.fullmatch(r"\d{4}-\d\d-\d\d", name):
            sent = f"{name}T00:00:00.000Z"
        if sent not in names:
            known[sent] = name if sent not in known else ""
    return {sent: name for sent, name in known.items() if name}


def _answers(participant: Any, config: TestConfig) -> list[tuple[str, str]]:
    names = participant.get("name", []) if isinstance(participant, dict) else None
    values = participant.get("response", []) if isinstance(participant, dict) else None
    if not isinstance(names, list) or not isinstance(values, list) or not len(names) == len(values) <= 500:
        raise BadResult("invalid", "participant: name and response must be lists of the same length")
    finish = [page for page in config.flat() if isinstance(page, FinishPage)]
    asked = as_sent(question.name for page in finish for question in page.questionnaire or [])
    answers = {}
    for name, value in zip(names, values, strict=True):
        given = _text(name, "participant.name", 200)
        question = asked.get(given)
        if question is None or question in answers:
            raise BadResult("invalid", f"'{given[:40]}' is not a question of this test, or occurs twice")
        answers[question] = _text(value, "participant.response")
    return list(answers.items())


def _ratings(page: Page, trial: dict[str, Any]) -> list[Rating]:
    """The responses of a trial."""
    responses = trial.get("responses")
    if not isinstance(responses, list) or not all(isinstance(response, dict) for response in responses):
        raise BadResult("invalid", "a trial's responses are not a list of objects")
    known: dict[str, str] = {}
    if isinstance(page, Trial):
        known = as_sent(
            page.conditions() if isinstance(page, MushraPage) else [*page.stimuli, *page.anchors()]
        )
    elif isinstance(page, LikertPage):
        known = as_sent(page.stimuli)
    given = [_RATING[type(page)](page, _with_names(response, known)) for response in responses]
    if isinstance(page, SpatialPage):
        if page.stimuli and not given:
            raise BadResult("not_rated", f"trial '{page.id}' has no response")
        return given
    names = [rating.stimulus for rating in given]
    unknown = [name for name in names if name not in known.values()]
    if unknown:
        raise BadResult(
            "stimulus_unknown", f"trial '{page.id}' does not have the stimulus '{unknown[0][:40]}'"
        )
    if len(set(names)) < len(names):
        raise BadResult("stimulus_twice", f"trial '{page.id}' rates a stimulus twice")
    wanted = len(set(known.values()))
    if isinstance(page, LikertPage):
        wanted = min(wanted, page.max_stimuli or wanted) if page.must_rate else 0
    if len(names) < wanted:
        raise BadResult("not_rated", f"trial '{page.id}' rates {len(names)} of {wanted} stimuli")
    return given


def _with_names(response: dict[str, Any], known: dict[str, str]) -> dict[str, Any]:
    """A response with the stimulus names of the YAML."""
    named = {field: response.get(field) for field in ("stimulus", "nonReference", "answer")}
    return {
        **response,
        **{f: known[name] for f, name in named.items() if isinstance(name, str) and name in known},
    }


def _mushra(_: Any, response: dict[str, Any]) -> Rating:
    score = _score(response.get("score"), 0, 100, 1)
    return Rating(_text(response.get("stimulus"), "stimulus"), score=score, **_common(response))


def _pair(page: Any, response: dict[str, Any]) -> Rating:
    if response.get("reference") != HIDDEN_REFERENCE:
        raise BadResult("stimulus_unknown", f"the reference of a pair must be named '{HIDDEN_REFERENCE}'")
    rating = Rating(
        _text(response.get("nonReference"), "nonReference"), HIDDEN_REFERENCE, **_common(response)
    )
    if isinstance(page, PairedComparisonPage):
        return replace(rating, answer=_choice(page, rating.stimulus, response.get("answer")))
    score = _score(response.get("nonReferenceScore"), 1, 5, 0.1)
    return replace(rating, score=score, reference_score=_score(response.get("referenceScore"), 1, 5, 0.1))


def _choice(page: PairedComparisonPage, stimulus: str, given: Any) -> str:
    """The chosen side, from its own name, as in our results, or from the name of its field."""
    answer = _text(given, "answer", 200)
    neither = ["undecided", page.unforced] if page.unforced else []
    if answer not in (stimulus, HIDDEN_REFERENCE, "nonReference", *neither):
        raise BadResult("not_answered", f"'{answer[:40]}' is not an answer of trial '{page.id}'")
    return answer


def _likert(page: Any, response: dict[str, Any]) -> Rating:
    given = response.get("stimulusRating", response.get("rating", response.get("score")))
    several = [_text(one, "rating") for one in given] if isinstance(given, list) else [_text(given, "rating")]
    if len(several) != len(page.response):
        raise BadResult("score", f"trial '{page.id}' has {len(page.response)} scales, not {len(several)}")
    for index, scale in enumerate(page.response):
        answer, known = several[index], as_sent(choice.value for choice in scale)
        if answer not in known and (page.must_rate or answer not in _NOT_RATED):
            raise BadResult("score", f"'{answer[:40]}' is not an answer of trial '{page.id}'")
        several[index] = known.get(answer, answer)
    answer = json.dumps(several) if isinstance(given, list) else several[0]
    return Rating(_text(response.get("stimulus"), "stimulus"), answer=answer, **_common(response))


def _spatial(_: Any, response: dict[str, Any]) -> Rating:
    """A response without columns of its own, stored as JSON."""
    name = response.get("name", response.get("stimulus"))
    text = json.dumps(response, sort_keys=True)
    if len(text) > MAX_TEXT:
        raise BadResult("invalid", f"a response has more than {MAX_TEXT} characters")
    return Rating(name[:1000] if isinstance(name, str) else "", answer=text)


#: Type of a graded page -> function that converts its responses to ratings.
_RATING: dict[type, Callable[[Any, dict[str, Any]], Rating]] = {
    MushraPage: _mushra,
    PairedComparisonPage: _pair,
    Bs1116Page: _pair,
    LikertMultiPage: _likert,
    LikertSinglePage: _likert,
    SpatialPage: _spatial,
}


def _common(response: dict[str, Any]) -> dict[str, Any]:
    comment = _text(response.get("comment"), "comment")
    time_ms = _number(response.get("time"), "time")
    if time_ms is not None and time_ms < 0:
        raise BadResult("invalid", "time is negative")
    return {"time_ms": time_ms, "comment": comment}


def _text(value: Any, name: str, longest: int = MAX_TEXT) -> str:
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadResult("invalid", f"{name} is not a text")
    if len(value) > longest:
        raise BadResult("invalid", f"{name} has more than {longest} characters")
    return value


def _score(value: Any, low: float, high: float, step: float) -> float:
    """A score, checked against the range and the step of the page's sliders."""
    score = _number(value, "score")
    if score is None or not low <= score <= high:
        raise BadResult("score", f"score {str(value)[:20]!r} is not from {low:g} to {high:g}")
    if abs(score / step - round(score / step)) > 1e-6:
        raise BadResult("score", f"score {str(value)[:20]!r} is not a multiple of {step:g}")
    return round(score, 6)


def _number(value: Any, name: str) -> float | None:
    """A number; the client sends scores as text and times as numbers."""
    if value is None or value == "":
        return None
    try:
        # `float` would accept texts that browsers do not write: "5_0", "1e2", blanks, digits of other
        # scripts.
        right = isinstance(value, int | float) or (isinstance(value, str) and _DECIMAL.fullmatch(value))
        number = float(value) if right else math.nan
    except OverflowError:
        number = math.nan
    if isinstance(value, bool) or not abs(number) < 1e15:
        raise BadResult("invalid", f"{name} is not a number")
    return number
