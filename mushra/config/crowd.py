"""What a test of many listeners has in its YAML: blocks, gold items and who a panel sends.

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

#: Characters of what a panel calls a person or a session.
MAX_ID = 128


def _parameter(name: str) -> str:
    """A name in a URL's query that no browser or panel changes."""
    if not re.fullmatch("[A-Za-z0-9_.~-]{1,64}", name) or name in ("lang", "t"):
        raise ValueError("is no name of a parameter: letters, digits and - _ . ~, not 'lang' or 't'")
    return name


Parameter = Annotated[Text, AfterValidator(_parameter)]


class Gold(Own):
    """A grade that is known beforehand: a score from `low` to `high`, or one of `answers`."""

    page: Text = Field(description="Id of the page. All of its grades are kept out of the analysis.")
    stimulus: Text = Field(
        description="Name of the stimulus, of an anchor that the page makes, or `reference`."
    )
    low: Float | None = Field(default=None, description="The least score that is right.")
    high: Float | None = Field(default=None, description="The highest score that is right.")
    answers: list[Text] | None = Field(
        default=None, description="The answers that are right, as they are stored."
    )

    def is_met(self, score: float | None, answer: str | None) -> bool:
        """Whether what was stored of the stimulus is right; nothing is never right."""
        if self.answers is not None:
            return answer in self.answers
        low, high = self.low, self.high
        return score is not None and (low is None or score >= low) and (high is None or score <= high)


#: (item, condition) -> what is right. Both are the names of the YAML, not those of a key.json.
Expected = Mapping[tuple[str, str], Gold]


def expected(gold: Iterable[Gold]) -> Expected:
    """What is right of each (item, condition)."""
    return {(one.page, one.stimulus): one for one in gold}


def block_of(slot: int, n_blocks: int) -> int:
    """Which block a slot is of, from 0: slots go through the blocks, and with each round to the next row."""
    return slot % n_blocks


class Panel(Own):
    """Names of the parameters in the link of a panel that sends listeners (`identification: panel`)."""

    person: Parameter = Field(
        default="person", description="Says who comes: what they are called in payments."
    )
    session: Parameter | None = Field(
        default=None, description="Says for which of the panel's sessions they come. Default: none is told."
    )
    sign: Parameter | None = Field(
        default=None,
        description="Has the signature of the two, without which nobody can begin. Default: none is asked.",
    )

    @model_validator(mode="after")
    def _apart(self) -> Panel:
        names = [name for name in (self.person, self.session, self.sign) if name is not None]
        if len(set(names)) < len(names):
            raise ValueError("gives two of person, session and sign the same parameter; give each its own")
        return self


def signature(secret: str, test: str, person: str, session: str = "") -> str:
    """What a panel that shares ``secret`` puts into its link, in lower-case hexadecimal digits.

    HMAC-SHA256 of three lines in UTF-8, with a line feed between them and none at the end: the testId, the
    person, the session ("" if no parameter is named for it).
    """
    text = "\n".join((test, person, session))
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def is_signed(given: str, secret: str, test: str, person: str, session: str) -> bool:
    """Whether ``given`` is the `signature`; takes the same time whatever it is."""
    right = signature(secret, test, person, session)
    return hmac.compare_digest(given.lower().encode(), right.encode())


def is_id(text: object) -> TypeGuard[str]:
    """Whether it can be what a panel calls a person or a session: one line that can be printed."""
    if not isinstance(text, str) or not 0 < len(text) <= MAX_ID:
        return False
    return text.isprintable() and "\ufffd" not in text and text == text.strip()


#: In the address at the end, replaced by what the listener came with.
PLACEHOLDERS = ("person", "session", "study", "code")


def with_placeholders(address: str, values: Mapping[str, str]) -> str:
    """``address`` with the listener's values, of which nothing but letters and digits stays as it is."""
    known = "|".join(PLACEHOLDERS)
    return re.sub(f"{{({known})}}", lambda found: quote(values.get(found[1], ""), safe=""), address)
