"""Modules imported on first use: torch and transformers take seconds, and naming codecs needs neither."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Lazy:
    """Placeholder of a module, imported when an attribute is used."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._module), name)


def inference_mode(function: F) -> F:
    """``torch.inference_mode()`` as a decorator that needs torch when the function is called."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        import torch

        with torch.inference_mode():
            return function(*args, **kwargs)

    return wrapped  # type: ignore[return-value]
