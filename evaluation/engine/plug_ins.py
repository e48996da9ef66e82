"""Parts that are not installed: from a Python file, ``FILE.py:NAME``, or a codec that is an object."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from types import CodeType
from typing import Any

from baselines.codec import Codec
from baselines.registry import CODECS
from evaluation.embeddings import EMBEDDINGS
from evaluation.metrics import METRICS
from qincodec.core.errors import UserError
from qincodec.core.plugins import Source, add_file
from qincodec.quantizers import QUANTIZERS

_REGISTRIES = CODECS, METRICS, EMBEDDINGS, QUANTIZERS


def add_files(texts: Sequence[str]) -> None:
    """Register codecs, metrics, embeddings and quantizers of ``FILE.py:NAME`` under their names.

    Raises:
        UserError: a file cannot be loaded, a class is not one of these, or its name is taken.
    """
    for text in texts:
        add_file(text, *_REGISTRIES)


def added_sources() -> list[Source]:
    """Sources added by `add_files`, or by names of codecs and metrics with a file."""
    return [source for registry in _REGISTRIES for source in registry.sources()]


def digest_of(codec: Codec) -> str:
    """Hash of the code of a codec that was given as an object; "" if it is installed.

    It covers the file of its class, or the compiled class of a notebook.

    Raises:
        UserError: its name is taken by another codec.
    """
    kind = type(codec)
    if codec.name in CODECS:
        if CODECS.load(codec.name) is kind:
            return CODECS.digest(codec.name)
        raise UserError(
            f"the object {kind.__name__}() has the name of codec '{codec.name}'; give it another name"
        )
    try:
        file = inspect.getsourcefile(kind)
        code = Path(file).read_bytes() if file and Path(file).is_file() else inspect.getsource(kind).encode()
    except (OSError, TypeError):  # Python knows no file of a class in a notebook
        own = [base for base in kind.__mro__ if base.__module__ == kind.__module__]
        code = repr([_contents(base) for base in own]).encode()
    return hashlib.sha256(code).hexdigest()[:16]


def _contents(kind: type) -> list[tuple[str, Any]]:
    """Names and values of a class, with functions as compiled code."""
    found = []
    for name, value in sorted(vars(kind).items()):
        function = getattr(value, "__func__", getattr(value, "fget", value))
        code = getattr(function, "__code__", None)
        if code is not None:
            defaults = [_constant(value) for value in function.__defaults__ or ()]
            found.append((name, (_compiled(code), defaults)))
        elif not name.startswith("__"):
            found.append((name, _constant(value)))
    return found


def _compiled(code: CodeType) -> Any:
    """Code without file and lines: a cell that runs again, or in another session, gives the same."""
    return code.co_code, code.co_names, code.co_varnames, [_constant(value) for value in code.co_consts]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _compiled(value)
    if isinstance(value, set | frozenset):  # their order differs between processes
        return sorted(map(repr, value))
    plain = value is None or isinstance(value, str | bytes | int | float | complex | tuple | list | dict)
    return repr(value) if plain else type(value).__qualname__
