"""False positives and coverage of what the report prints, over simulated tests: see docs/statistics.md."""

from __future__ import annotations

import math

import pytest
from measured_rates import COVERAGE, DESIGNS, FALSE, INCOMPLETE, MIXED_LEVELS, Design, measure

#: Methods for these items only: what they say of items that are drawn anew is not what they promise.
SAME_ITEMS = {"Wilcoxon", "Friedman", "Greenhouse-Geisser", "Huynh-Feldt", "Student's interval"}


def check(design: Design, num_tests: int) -> None:
    """At most 5 % false, at least 95 % covered, within three standard errors and one point in a hundred."""
    rates = measure(design, num_tests)
    print(design.words, design.listeners, {name: round(float(rate), 3) for name, rate in rates.items()})
    slack = 3 * math.sqrt(0.05 * 0.95 / num_tests) + 0.01
    assert set(rates) <= {*FALSE, *COVERAGE}
    for name, rate in rates.items():
        if design.drawn and name in SAME_ITEMS:
            continue
        if name in FALSE:
            assert rate <= 0.05 + slack, name
        else:
            assert rate >= 0.95 - slack, name


def words(design: Design) -> str:
    return f"{design.words}; {design.listeners} listeners"


@pytest.mark.parametrize("design", [DESIGNS[0], DESIGNS[7], MIXED_LEVELS[0]], ids=words)
def test_rates_short(design: Design) -> None:
    check(design, 40)


@pytest.mark.long
@pytest.mark.parametrize("design", [*DESIGNS, *MIXED_LEVELS, *INCOMPLETE], ids=words)
def test_rates(design: Design) -> None:
    check(design, 300)


@pytest.mark.long
def test_methods_for_these_items_are_none_for_others() -> None:
    """Why the mixed model is primary: on new items, tests of listeners alone part equal systems."""
    rates = measure(Design(30, drawn=True, clipped=False), 300)
    assert rates["letters"] <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    assert rates["Wilcoxon"] > 0.2
