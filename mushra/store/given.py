"""The rule that decides which stored scores are grades, for the analysis and the admin pages."""

from __future__ import annotations


def nobody_gave(score: float | None, moves: float | None) -> bool:
    """Whether a score was stored although its slider was never moved.

    Some versions of the listening page stored a score when a touch on an unset slider became a swipe of the
    page; the item then did not show a score. Such a score is not a grade of the listener: it is left out of
    every result, counted and reported.

    Args:
        score: None or NaN if there is none.
        moves: number of slider moves; None or NaN if unknown (webMUSHRA's clients).
    """
    return score is not None and score == score and moves == 0
