"""Models of a test with many listeners in its YAML: blocks, gold items and panels.

A gold item is a grade whose right answer is known: a trap ("choose Poor"), or a hidden reference that must
get at least 90. Its page is shown and stored like any other and kept out of every analysis.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, TypeGuard
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from mushra.config.values import Float, Own, Text

#: Characters of a panel's id of a person or a session.
MAX_ID = 128


def _parameter(name: str) -> str:
    """``name``, if it is a name in a URL's query that browsers and panels leave as it is."""
    if not re.fullmatch("[A-Za-z0-9_.~-]{1,64}", name) or name in ("lang", "t"):
        raise ValueError("is not a valid parameter name; use letters, digits and - _ . ~, not 'lang' or 't'")
    return name


Parameter = Annotated[Text, AfterValidator(_parameter)]


class Gold(Own):
    """A grade with a known right answer: a score from `low` to `high`, or one of `answers`."""

    page: Text = Field(description="Id of the page. All of its grades are kept out of the analysis.")
    stimulus: Text = Field(
        description="Name of the stimulus, of an anchor that the page makes, or `reference`."
    )
    low: Float | None = Field(default=None, description="Lowest right score.")
    high: Float | None = Field(default=None, description="Highest right score.")
    answers: list[Text] | None = Field(default=None, description="Right answers, as they are stored.")

    def is_met(self, score: float | None, answer: str | None) -> bool:
        """Whether the stored grade of the stimulus is right; a missing grade is wrong."""
        if self.answers is not None:
            return answer in self.answers
        low, high = self.low, self.high
        return score is not None and (low is None or score >= low) and (high is None or score <= high)


#: (item, condition) -> right answer. Both are the names of the YAML, not those of a key.json.
Expected = Mapping[tuple[str, str], Gold]


def expected(gold: Iterable[Gold]) -> Expected:
    """Right answer of each (item, condition)."""
    return {(one.page, one.stimulus): one for one in gold}


def block_of(slot: int, n_blocks: int) -> int:
    """Block of a slot, from 0: successive slots get successive blocks, and each round takes the next row."""
    return slot % n_blocks


class Panel(Own):
    """Names of the parameters in the link of a panel that sends listeners (`identification: panel`)."""

    person: Parameter = Field(
        default="person", description="Parameter with the person's id, which payments show."
    )
    session: Parameter | None = Field(
        default=None, description="Parameter with the panel's id of the session. Default: none."
    )
    sign: Parameter | None = Field(
        default=None,
        description="Parameter with the signature of the two, without which nobody can begin. Default: none.",
    )

    @model_validator(mode="after")
    def _apart(self) -> Panel:
        names = [name for name in (self.person, self.session, self.sign) if name is not None]
        if len(set(names)) < len(names):
            raise ValueError("gives two of person, session and sign the same parameter; give each its own")
        return self


def signature(secret: str, test: str, person: str, session: str = "") -> str:
    """Signature that a panel puts into its link, in lower-case hexadecimal digits.

    HMAC-SHA256 of three lines in UTF-8, with a line feed between them and none at the end: the testId, the
    person, the session ("" if no parameter is named for it).
    """
    text = "\n".join((test, person, session))
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def is_signed(given: str, secret: str, test: str, person: str, session: str) -> bool:
    """Whether ``given`` is the `signature`; takes the same time for any ``given``."""
    right = signature(secret, test, person, session)
    return hmac.compare_digest(given.lower().encode(), right.encode())


def is_id(text: object) -> TypeGuard[str]:
    """Whether it can be a panel's id of a person or a session: one line that can be printed."""
    if not isinstance(text, str) or not 0 < len(text) <= MAX_ID:
        return False
    return text.isprintable() and "\ufffd" not in text and text == text.strip()


#: Replaced in the address at the end by the listener's values.
PLACEHOLDERS = ("person", "session", "study", "code")


def with_placeholders(address: str, values: Mapping[str, str]) -> str:
    """``address`` with the listener's values, percent-encoded except for unreserved characters."""
    known = "|".join(PLACEHOLDERS)
    return re.sub(f"{{({known})}}", lambda found: quote(values.get(found[1], ""), safe=""), address)
