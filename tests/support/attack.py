"""Code in a file of weights: what it does when the file is unpickled shows in a file that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.target), "w")
