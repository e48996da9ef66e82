"""What commands show of results whose files cannot be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qincodec.core.files import ELSEWHERE, StoreError


@contextmanager
def shown_anyway(show: Callable[[], None], advice: str = ELSEWHERE) -> Iterator[None]:
    """Have results shown before the error of the files that the block could not write.

    Args:
        show: prints the results.
        advice: what to do next where the folder cannot be chosen.
    """
    try:
        yield
    except StoreError as error:
        show()
        raise StoreError(str(error).replace(ELSEWHERE, advice)) from error
