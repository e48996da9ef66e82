"""Results on the terminal when their files cannot be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qincodec.core.files import ELSEWHERE, StoreError


@contextmanager
def shown_anyway(show: Callable[[], None], advice: str = ELSEWHERE) -> Iterator[None]:
    """Show the results before the error if the block cannot write its files.

    Args:
        show: prints the results.
        advice: what to do next where the command has no option for the folder.
    """
    try:
        yield
    except StoreError as error:
        show()
        raise StoreError(str(error).replace(ELSEWHERE, advice)) from error
