"""MUSHRA listening tests.

``load(TEST)`` reads the ratings of a listening test from its folder or YAML, its data base, an export,
webMUSHRA's CSV, or pymushra's files. Every command and the administrator's page use it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing` would take longer than the rest of the start of `mushra`
if TYPE_CHECKING:
    from typing import Any

    from mushra.analysis.load import load
    from mushra.analysis.ratings import Ratings

__all__ = ["Ratings", "load"]

_HOMES = {"load": "load", "Ratings": "ratings"}


def __getattr__(name: str) -> Any:
    # Imported on first use: pandas takes a second, which `mushra --help` must not.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"mushra.analysis.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mushra' has no attribute '{name}'")
