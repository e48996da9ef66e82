"""Embeddings with a pretrained network: source and identity of the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from baselines import weights
from evaluation.embeddings.base import Embedding
from qincodec.core.errors import Unavailable, UserError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


class PretrainedEmbedding(Embedding):
    """An embedding with a file of `baselines.weights`.

    Attributes:
        weights_name: name of this file.
    """

    weights_name: str

    @classmethod
    def unavailable(cls) -> str | None:
        try:
            return None if weights.find(cls.weights_name) else weights.why_unavailable(cls.weights_name)
        except UserError as error:
            return str(error)

    def read_weights(self, read: Callable[[Path], T]) -> T:
        """Result of ``read`` on the file, which is downloaded if needed; sets `attribution`.

        Raises:
            Unavailable: the file does not exist, or cannot be read.
        """
        try:
            found = read(weights.obtain(self.weights_name))
        except Unavailable:
            raise
        except UserError as error:
            raise Unavailable(str(error)) from error
        file = weights.entry(self.weights_name)
        self.attribution = f"{file.attribution}, {file.licence}"
        return found


def hash_of(arrays: Iterable[np.ndarray]) -> str:
    """Hash of weights: 16 digits of the SHA-256 of their bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
