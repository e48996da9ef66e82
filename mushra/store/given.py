"""Which stored scores are grades: the one rule, for the analysis and for the administrator's pages."""

from __future__ import annotations


def nobody_gave(score: float | None, moves: float | None) -> bool:
    """Whether a score was stored although its slider was never moved.

    Some versions of the listeners' page stored one when a touch on an unset slider turned into a swipe of the
    page; the item then showed no score. Such a score is no grade of the listener: it is left out of every
    result, counted and reported.

    Args:
        score: None or NaN if there is none.
        moves: how often the slider was moved; None or NaN where that is not known (webMUSHRA's clients).
    """
    return score is not None and score == score and moves == 0
