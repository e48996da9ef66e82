"""Fair, rate-matched evaluation of audio codecs.

``evaluate(...)`` runs an evaluation, ``load(folder)`` reads one back; both give `Results`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # without `typing`, which takes longer to import than all that `evaluate` begins with
if TYPE_CHECKING:
    from typing import Any

    from evaluation.notebook import Results, load, open_results
    from evaluation.session import evaluate

__all__ = ["Results", "evaluate", "load", "open_results"]

_HOMES = {"evaluate": "session", "load": "notebook", "open_results": "notebook", "Results": "notebook"}


def __getattr__(name: str) -> Any:
    # On first use: importing the package must not cost a second of torch, for `evaluate --help`.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'evaluation' has no attribute '{name}'")
