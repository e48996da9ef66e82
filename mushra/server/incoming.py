"""Check the result of one page from a listener's browser, before any of it is stored.

First the shape (types, ranges, lengths), then the content: only signals of this page, scores on its scale,
and the test's rules. Unknown keys are dropped, so that nothing is stored without a check.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mushra.config.pages import HIDDEN_REFERENCE, Rules
from mushra.store.pages import Checked, Rating, SessionPage

#: Longest time in milliseconds, a day: a larger value is an error of the browser's clock.
MAX_TIME_MS = 86_400_000
MAX_COMMENT = 10_000
MAX_EVENTS = 2000


class BadResult(Exception):
    """A result that cannot be stored. ``code`` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


Milliseconds = Annotated[float, Field(ge=0, le=MAX_TIME_MS)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Comment = Annotated[str, Field(max_length=MAX_COMMENT)]
Name = Annotated[str, Field(max_length=200)]


class _Rating(_Model):
    signal: Name
    #: A list if the page has several scales, in their order.
    score: float | Name | Annotated[list[Name | None], Field(max_length=50)] | None = None
    comment: Comment = ""
    plays: Count = 0
    heard_ms: Milliseconds = 0
    moves: Count = 0
    first_ms: Milliseconds | None = None


class _Consent(_Model):
    given: bool
    text_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class _HeadphoneCheck(_Model):
    passed: bool
    answers: Annotated[list[Name | float | bool | None], Field(max_length=50)] = []


class _Result(_Model):
    revision: Annotated[int, Field(ge=1, le=1_000_000)]
    time_ms: Milliseconds
    shown_at_ms: Annotated[float, Field(ge=0, le=100 * MAX_TIME_MS)] | None = None
    ratings: Annotated[list[_Rating], Field(max_length=500)] = []
    answer: Name | None = None
    responses: Annotated[dict[Name, Any], Field(max_length=500)] = {}
    consent: _Consent | None = None
    volume: Annotated[float, Field(ge=0, le=1)] | None = None
    headphone_check: _HeadphoneCheck | None = None
    events: Annotated[
        list[Annotated[list[Name | float | None], Field(min_length=1, max_length=6)]],
        Field(max_length=MAX_EVENTS),
    ] = []
    comment: Comment = ""


def check_result(page: SessionPage, rules: Rules, body: Any) -> Checked:
    """The checked result of a page, from the JSON ``body``.

    Raises:
        BadResult: wrong shape, signals of another page, a score off the scale, or a rule that is not met.
    """
    try:
        result = _Result.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"][:4])
        raise BadResult("invalid", f"{where or 'the body'}: {first['msg']}") from None
    except RecursionError:
        raise BadResult("invalid", "the body is nested too deeply") from None
    if len({rating.signal for rating in result.ratings}) < len(result.ratings):
        raise BadResult("signal_twice", "a signal is rated twice")
    for rating in result.ratings:
        if rating.signal not in page.conditions:
            raise BadResult(
                "signal_unknown", f"page '{page.id}' does not have the signal '{rating.signal[:40]}'"
            )
        if rating.score is not None and not rating.moves:
            # The browser made this score, for example by a swipe that scrolled the page.
            raise BadResult("not_moved", f"signal '{rating.signal}' has a score that nobody gave; grade it")
    if page.type in _HEARD:
        _check_heard(page, rules, result)
    answers = None
    rows: list[Rating] = []
    if page.type == "mushra":
        rows = _mushra(page, rules, result)
    elif page.type in _RATINGS:
        rows = _RATINGS[page.type](page, result)
        if rules.must_hear_all and page.type in ("bs1116", "paired_comparison"):
            _all_heard(page, _by_signal(page, result))
        if rules.one_at_100 and page.type == "bs1116" and not any(r.score == 5 for r in result.ratings):
            raise BadResult("no_5", "neither signal is graded 5.0")
    elif page.type == "consent":
        _check_consent(page, result)
    elif page.type == "finish":
        answers = _questionnaire(page, result)
    cleaned = result.model_dump(exclude_defaults=True)
    if page.type == "consent":
        # The listener agreed to the text that this server showed, whatever the browser reports.
        cleaned["consent"]["text_sha256"] = consent_sha256(page)
    if page.type != "spatial":
        cleaned.pop("responses", None)
    if answers is not None:
        cleaned["responses"] = dict(answers)
    return Checked(result.revision, result.time_ms, cleaned, rows, answers)


#: Types of pages with the rule about seconds: all whose sounds are judged.
_HEARD = (
    "mushra",
    "bs1116",
    "paired_comparison",
    "dcr",
    "ab",
    "abx",
    "likert_multi_stimulus",
    "likert_single_stimulus",
)


def _check_heard(page: SessionPage, rules: Rules, result: _Result) -> None:
    """Check the rule about seconds as the page does: in whole milliseconds, repeats included."""
    heard = {rating.signal: rating.heard_ms for rating in result.ratings}
    short = [signal for signal in page.conditions if heard.get(signal, 0) < 1000 * rules.min_heard_s]
    if short:
        raise BadResult(
            "heard_too_short",
            f"{len(short)} of {len(page.conditions)} signals were heard less than {rules.min_heard_s:g} s",
        )


def consent_sha256(page: SessionPage) -> str:
    """Hash of a consent page's text: its ``content`` as sent, in UTF-8."""
    return hashlib.sha256((page.public.content or "").encode()).hexdigest()


def _rating(result: _Result, rating: _Rating | None, stimulus: str, **values: Any) -> Rating:
    detail = None
    if rating is not None:
        seen = rating.model_dump(include={"plays", "heard_ms", "moves", "first_ms"}, exclude_none=True)
        detail = json.dumps(seen, separators=(",", ":"))
    comment = rating.comment if rating is not None else result.comment
    values = {"time_ms": result.time_ms, "comment": comment, "detail": detail, **values}
    return Rating(stimulus, **values)


def _by_signal(page: SessionPage, result: _Result) -> dict[str, _Rating]:
    """Ratings by signal, in the page's order."""
    given = {rating.signal: rating for rating in result.ratings}
    return {signal: given[signal] for signal in page.conditions if signal in given}


def _scale(rating: _Rating, low: float, high: float, step: float) -> float | None:
    score = rating.score
    if score is None:
        return None
    if isinstance(score, str | list) or not low <= score <= high:
        raise BadResult(
            "score", f"score {str(score)[:20]} of '{rating.signal}' is not from {low:g} to {high:g}"
        )
    if abs(score / step - round(score / step)) > 1e-6:
        raise BadResult("score", f"score {score:g} of '{rating.signal}' is not a multiple of {step:g}")
    return round(score / step) * step if step == 1 else round(score, 6)


def _mushra(page: SessionPage, rules: Rules, result: _Result) -> list[Rating]:
    ratings = _by_signal(page, result)
    scores = {signal: _scale(rating, 0, 100, 1) for signal, rating in ratings.items()}
    missing = [signal for signal in page.conditions if scores.get(signal) is None]
    if rules.must_rate_all and missing:
        raise BadResult("not_rated", f"{len(missing)} of {len(page.conditions)} signals are not rated")
    if rules.must_hear_all:
        _all_heard(page, ratings)
    if rules.one_at_100 and rules.must_rate_all and 100 not in scores.values():
        raise BadResult("no_100", "no signal is rated 100")
    return [
        _rating(result, rating, page.conditions[signal], score=scores[signal])
        for signal, rating in ratings.items()
    ]


def _pair(page: SessionPage) -> tuple[str, str]:
    """Signals of (stimulus, hidden reference)."""
    first, second = page.conditions
    return (second, first) if page.conditions[first] == HIDDEN_REFERENCE else (first, second)


def _bs1116(page: SessionPage, result: _Result) -> list[Rating]:
    ratings = _by_signal(page, result)
    stimulus, reference = _pair(page)
    scores = {signal: _scale(rating, 1, 5, 0.1) for signal, rating in ratings.items()}
    if scores.get(stimulus) is None or scores.get(reference) is None:
        raise BadResult("not_rated", "both signals must be graded")
    comments = [ratings[signal].comment for signal in (stimulus, reference)]
    return [
        _rating(
            result,
            ratings[stimulus],
            page.conditions[stimulus],
            reference=HIDDEN_REFERENCE,
            score=scores[stimulus],
            reference_score=scores[reference],
            comment="; ".join(text for text in (*comments, result.comment) if text),
        )
    ]


def _paired_comparison(page: SessionPage, result: _Result) -> list[Rating]:
    stimulus, _ = _pair(page)
    if result.answer == "undecided" and page.public.unforced:
        answer = "undecided"
    elif result.answer in page.conditions:
        answer = page.conditions[result.answer]
    else:
        raise BadResult("not_answered", "one of the two signals must be chosen")
    rating = _by_signal(page, result).get(stimulus)
    row = _rating(
        result,
        rating,
        page.conditions[stimulus],
        reference=HIDDEN_REFERENCE,
        answer=answer,
        comment=result.comment or (rating.comment if rating else ""),
    )
    return [row]


def _all_heard(page: SessionPage, ratings: dict[str, _Rating]) -> None:
    unheard = [signal for signal in page.conditions if signal not in ratings or not ratings[signal].plays]
    if unheard:
        raise BadResult("not_heard", f"{len(unheard)} of {len(page.conditions)} signals were not played")


def _chosen(page: SessionPage, result: _Result, others: tuple[str, ...] = ()) -> str:
    """Name of the chosen signal; all signals of the pair must have been played."""
    ratings = _by_signal(page, result)
    _all_heard(page, ratings)
    if result.answer in others:
        name = ""
    elif result.answer in list(page.conditions)[:2]:
        name = page.conditions[result.answer]
    else:
        raise BadResult("not_answered", "one of the two signals must be chosen")
    if not any(rating.moves for rating in ratings.values()):
        raise BadResult("not_moved", "nobody gave that answer; choose one")
    return name


def _own_row(page: SessionPage, result: _Result, signal: str, **values: Any) -> list[Rating]:
    """The row of a page of our own types; ``signal`` is the one whose plays the row has."""
    assert page.pair is not None
    rating = _by_signal(page, result)[signal]
    comment = result.comment or rating.comment
    return [_rating(result, rating, page.pair[0], reference=page.pair[1], comment=comment, **values)]


def _dcr(page: SessionPage, result: _Result) -> list[Rating]:
    ratings = _by_signal(page, result)
    _all_heard(page, ratings)
    ((signal, rating),) = ratings.items()
    score = _scale(rating, 1, 5, 1)
    if score is None:
        raise BadResult("not_rated", "the signal must be graded")
    return _own_row(page, result, signal, score=score)


def _ab(page: SessionPage, result: _Result) -> list[Rating]:
    answer = _chosen(page, result, ("undecided",) if page.public.unforced else ())
    assert page.pair is not None
    first = next(signal for signal, name in page.conditions.items() if name == page.pair[0])
    return _own_row(page, result, first, answer=answer)


def _abx(page: SessionPage, result: _Result) -> list[Rating]:
    answer = _chosen(page, result)
    x = list(page.conditions)[2]
    return _own_row(page, result, x, answer=answer, score=float(answer == page.conditions[x]))


def _text(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float | int) else value


def _likert(page: SessionPage, result: _Result) -> list[Rating]:
    """Answers as text; for pages with several scales as a JSON list, with "" for a missing answer."""
    allowed = [{one.value for one in scale} for scale in page.public.response]
    several = len(allowed) > 1
    ratings = _by_signal(page, result)
    rows = []
    unrated = len(page.conditions) * len(allowed)
    for signal, rating in ratings.items():
        if rating.score is None:
            continue
        scores = rating.score if isinstance(rating.score, list) else [rating.score]
        if isinstance(rating.score, list) != several or len(scores) != len(allowed):
            raise BadResult("score", f"'{signal}' must have {len(allowed)} answers, one for each scale")
        answers = ["" if score is None else _text(score) for score in scores]
        for answer, score, values in zip(answers, scores, allowed, strict=False):
            if score is not None and answer not in values:
                raise BadResult("score", f"'{answer[:40]}' is not an answer of this page's scale")
        unrated -= sum(score is not None for score in scores)
        if any(score is not None for score in scores):
            answer = json.dumps(answers, ensure_ascii=False) if several else answers[0]
            rows.append(_rating(result, rating, page.conditions[signal], answer=answer))
    if page.public.must_rate and unrated:
        raise BadResult("not_rated", f"{unrated} answers are missing")
    if page.public.must_playback and any(
        signal not in ratings or not ratings[signal].plays for signal in page.conditions
    ):
        raise BadResult("not_heard", "a stimulus was not played")
    return rows


def _spatial(page: SessionPage, result: _Result) -> list[Rating]:
    """Answers of a spatial page: one per signal, in any shape, as JSON."""
    rows = []
    for name, value in result.responses.items():
        try:
            text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        except ValueError:
            raise BadResult("invalid", f"the response '{name[:40]}' has an infinite number") from None
        if len(text) > MAX_COMMENT:
            raise BadResult("invalid", f"the response '{name[:40]}' is too long")
        rows.append(_rating(result, None, page.conditions.get(name, name), answer=text))
    return rows


_RATINGS = {
    "bs1116": _bs1116,
    "paired_comparison": _paired_comparison,
    "dcr": _dcr,
    "ab": _ab,
    "abx": _abx,
    "likert_multi_stimulus": _likert,
    "likert_single_stimulus": _likert,
    "spatial": _spatial,
}


def _check_consent(page: SessionPage, result: _Result) -> None:
    if result.consent is None or (page.public.must_consent and not result.consent.given):
        raise BadResult("no_consent", "the test continues only with consent")
    if result.consent.text_sha256 not in (None, consent_sha256(page)):
        raise BadResult("consent_text", "the text of the consent is not the text of this test")


def _questionnaire(page: SessionPage, result: _Result) -> list[tuple[str, str]]:
    answers = []
    for question in page.public.questionnaire:
        name = question.name
        value = result.responses.get(name)
        if value is None or value == "":
            if not question.optional:
                raise BadResult("not_answered", f"question '{name}' is not answered")
            answers.append((name, ""))
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BadResult("invalid", f"the answer to '{name}' is neither a text nor a number")
        try:
            text = _text(value).strip()
            number = float(text) if question.type == "number" else 0.0
        except (ValueError, OverflowError):
            raise BadResult("invalid", f"the answer to '{name}' is not a number") from None
        low, high = question.min, question.max
        if question.type == "number" and not (
            (-1e300 if low is None else low) <= number <= (1e300 if high is None else high)
        ):
            raise BadResult("invalid", f"the answer to '{name}' is out of range")
        if question.type == "likert" and text not in {one.value for one in question.response or []}:
            raise BadResult("invalid", f"'{text[:40]}' is not an answer to '{name}'")
        if len(text) > MAX_COMMENT:
            raise BadResult("invalid", f"the answer to '{name}' is longer than {MAX_COMMENT} characters")
        answers.append((name, text))
    return answers
