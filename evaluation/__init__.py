"""Fair, rate-matched evaluation of audio codecs.

``evaluate(...)`` runs an evaluation, ``load(folder)`` reads a stored one; both return `Results`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes longer to import than everything else at the start of `evaluate`
if TYPE_CHECKING:
    from typing import Any

    from evaluation.notebook import Results, load, open_results
    from evaluation.session import evaluate

__all__ = ["Results", "evaluate", "load", "open_results"]

_HOMES = {"evaluate": "session", "load": "notebook", "open_results": "notebook", "Results": "notebook"}


def __getattr__(name: str) -> Any:
    # On first use: `evaluate --help` must not wait a second for torch.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'evaluation' has no attribute '{name}'")
