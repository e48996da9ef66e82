"""A progress callback that checks what it is told; import ``phases``."""

from __future__ import annotations

from itertools import groupby


class Phases:
    """Give it as ``progress``."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        self.calls.append((what, done, total))

    @property
    def names(self) -> list[str]:
        return [what for what, _ in groupby(self.calls, lambda call: call[0])]

    def check(self) -> None:
        """Every phase has one total, never goes back, and ends at its end."""
        for what, calls in groupby(self.calls, lambda call: call[0]):
            dones, totals = zip(*((done, total) for _, done, total in calls), strict=True)
            assert len(set(totals)) == 1, f"the total of '{what}' jumps: {totals}"
            assert list(dones) == sorted(dones) and dones[-1] == totals[0], (
                f"'{what}': {dones} of {totals[0]}"
            )
