"""Parts that nobody installed: out of a Python file, ``FILE.py:NAME``, or a codec that is an object."""

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
    """Know codecs, metrics, embeddings and quantizers of ``FILE.py:NAME`` by their names.

    Raises:
        UserError: a file cannot be loaded, a class is none of these, or its name is another's.
    """
    for text in texts:
        add_file(text, *_REGISTRIES)


def added_sources() -> list[Source]:
    """What `add_files` and names of codecs and metrics that were such files have added."""
    return [source for registry in _REGISTRIES for source in registry.sources()]


def digest_of(codec: Codec) -> str:
    """What stands for the code of a codec that was given as an object; "" of one that is installed.

    It is the hash of the file that its class stands in; of a class of a notebook, of what it was compiled to.

    Raises:
        UserError: another codec has its name.
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
    except (OSError, TypeError):  # of a class in a notebook, Python knows no file
        own = [base for base in kind.__mro__ if base.__module__ == kind.__module__]
        code = repr([_contents(base) for base in own]).encode()
    return hashlib.sha256(code).hexdigest()[:16]


def _contents(kind: type) -> list[tuple[str, Any]]:
    """Names and values of a class, functions as what they were compiled to."""
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
    """Without file and lines: a cell that runs again, or in another session, is the same."""
    return code.co_code, code.co_names, code.co_varnames, [_constant(value) for value in code.co_consts]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _compiled(value)
    if isinstance(value, set | frozenset):  # whose order is another in each process
        return sorted(map(repr, value))
    plain = value is None or isinstance(value, str | bytes | int | float | complex | tuple | list | dict)
    return repr(value) if plain else type(value).__qualname__
