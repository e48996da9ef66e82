"""Parts that nobody installed: out of a Python file, ``FILE.py:NAME``, or a codec that is an object."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path

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

    It is the hash of the file that its class stands in, or in a notebook of the class itself.

    Raises:
        UserError: another codec has its name, or its code cannot be read, so that scores could not be kept.
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
    except (OSError, TypeError) as error:
        raise UserError(
            f"the code of {kind.__name__} cannot be read ({error}), and its scores are kept under that; "
            "define it in a file or a notebook"
        ) from error
    return hashlib.sha256(code).hexdigest()[:16]
