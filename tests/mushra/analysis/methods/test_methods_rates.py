"""False positives and coverage of BS.1116, AB, ABX, ACR and DCR: docs/explanation/statistics.md."""

from __future__ import annotations

import math

import pytest
from measured_methods import DESIGNS, LISTENERS, measure

#: Events that should happen in 5 % of the tests or less.
FALSE = {
    "letters",
    "sign test",
    "fit, clustered",
    "binomial test, pooled",
    "any listener passes",
    "guesser stays",
}
#: What does not promise what is counted: see docs/explanation/statistics.md.
OTHERS = {"interval, everybody", "fit, independent", "Wilson, all independent"}
OTHERS |= {"t interval", "item interval", "plain interval"}


def check(method: str, listeners: int, num_tests: int, how: dict[str, object]) -> dict[str, float]:
    """At most 5 % false, at least 95 % covered, within three standard errors and two points in a hundred."""
    rates = measure(method, listeners, num_tests, **how)
    print(method, listeners, how, {name: round(rate, 3) for name, rate in rates.items()})
    slack = 3 * math.sqrt(0.05 * 0.95 / num_tests) + 0.02
    for name in set(rates) - OTHERS:
        if name in FALSE:
            assert rates[name] <= 0.05 + slack, name
        else:
            assert rates[name] >= 0.95 - slack, name
    return rates


@pytest.mark.parametrize(
    ("method", "how"), [("ab", {"items": 2}), ("abx", {"d": 1.0}), ("acr", {"items": 6})]
)
def test_rates_short(method: str, how: dict[str, object]) -> None:
    check(method, 8, 8, how)


@pytest.mark.long
@pytest.mark.parametrize("listeners", LISTENERS)
@pytest.mark.parametrize(("method", "how"), [design[1:] for design in DESIGNS], ids=[d[0] for d in DESIGNS])
def test_rates(method: str, how: dict[str, object], listeners: int) -> None:
    check(method, listeners, 200, how)


@pytest.mark.long
def test_intervals_that_take_answers_for_independent_are_too_narrow() -> None:
    assert measure("acr", 15, 100)["plain interval"] < 0.8
    assert measure("abx", 15, 200, d=3.0)["Wilson, all independent"] < 0.9
    assert measure("bs1116", 30, 60, guessers=0.25)["interval, everybody"] < 0.7
