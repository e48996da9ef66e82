"""MUSHRA listening tests.

``load(TEST)`` reads the ratings of a listening test from wherever they are: its folder or YAML, its data
base, an export, webMUSHRA's CSV, pymushra's files. Every command and the administrator's page read them so.
"""

from __future__ import annotations

TYPE_CHECKING = False  # without `typing`, which takes longer to import than all that `mushra` begins with
if TYPE_CHECKING:
    from typing import Any

    from mushra.analysis.load import load
    from mushra.analysis.ratings import Ratings

__all__ = ["Ratings", "load"]

_HOMES = {"load": "load", "Ratings": "ratings"}


def __getattr__(name: str) -> Any:
    # On first use: importing the package must not cost a second of pandas, for `mushra --help`.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"mushra.analysis.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mushra' has no attribute '{name}'")
