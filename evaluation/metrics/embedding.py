"""Metrics of an embedding: distances per clip (FM, cosine) and between distributions (FD, KAD)."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np

from baselines.registry import of_plugin
from evaluation.embeddings import EMBEDDINGS
from evaluation.embeddings.base import Embedding
from evaluation.metrics.base import Score, attributes
from evaluation.records import EmbeddingInfo, MetricInfo, check_fields, read
from qincodec.core.errors import UserError

FRECHET, KERNEL, MATCHING, COSINE = "fd", "kad", "fm", "cos"

#: kind -> (heading, definition)
_KINDS = {
    FRECHET: (
        "FD",
        "Frechet distance |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) between Gaussians fitted to all frames "
        "of all references and of all decoded clips (covariances over n - 1, float64). Biased upwards, more "
        "so with fewer frames: compare at equal n only; n/2: the value of half the recordings.",
    ),
    KERNEL: (
        "KAD",
        "100 times the unbiased squared maximum mean discrepancy between the same frames, without pairs of "
        "equal index, Gaussian kernel, bandwidth the median distance of up to 2000 reference frames. Not "
        "biased by n; below 0 by chance if nothing differs.",
    ),
    MATCHING: ("FM", "mean over a clip's time-aligned frames and dimensions of |e_ref - e_dec|."),
    COSINE: ("cos", "mean over a clip's time-aligned frames of 1 - <e_ref, e_dec> / (|e_ref| |e_dec|)."),
}
_ATTRIBUTES = [spec.name for spec in fields(EmbeddingInfo) if spec.name != "identity"]


def describe_embedding(embedding: Embedding) -> EmbeddingInfo:
    """Description of an embedding for the run folder.

    Raises:
        UserError: an attribute is absent or not what it must be.
    """
    name = type(embedding).__name__
    check_attributes(name, embedding)  # first, because identity() uses them
    said = attributes("embedding", name, embedding, _ATTRIBUTES)
    said["identity"] = of_plugin("embedding", name, "identity()", embedding.identity)
    try:
        info = read(EmbeddingInfo, said)
    except ValueError as error:
        raise UserError(f"embedding {name}: {error}; set it in the class") from error
    digest = EMBEDDINGS.digest(info.name)  # of its file, because an edit changes its vectors
    return replace(info, identity=info.identity | {"code": digest}) if digest else info


def check_attributes(name: str, embedding: Embedding | type[Embedding]) -> None:
    """Refuse invalid attributes of an embedding; missing ones may be set when it is loaded.

    Raises:
        UserError: as `describe_embedding`.
    """
    try:
        check_fields(EmbeddingInfo, attributes("embedding", name, embedding, _ATTRIBUTES))
    except ValueError as error:
        raise UserError(f"embedding {name}: {error}; set it in the class") from error


def embedding_metrics(info: EmbeddingInfo) -> list[MetricInfo]:
    """FD, KAD, FM and cosine distance of one embedding, in table order."""
    version = f"1/{info.identity['version']}"
    if info.identity["weights"]:
        version += f"/{info.identity['weights'][:8]}"
    return [
        MetricInfo(
            name=f"{kind}_{info.name}",
            label=f"{title}-{info.label}",
            version=version,
            unit="",
            higher_is_better=False,
            definition=definition,
            embedding=info.name,
            per_clip=kind in (MATCHING, COSINE),
        )
        for kind, (title, definition) in _KINDS.items()
    ]


def compare_frames(reference: np.ndarray, decoded: np.ndarray) -> dict[str, Score]:
    """FM and cosine distance of two embeddings, (frames, dim) each."""
    r, d = reference.astype(np.float64), decoded.astype(np.float64)
    scores = {MATCHING: Score(float(np.abs(r - d).mean()))}
    norms = np.linalg.norm(r, axis=1) * np.linalg.norm(d, axis=1)
    if (norms == 0).any():
        scores[COSINE] = Score(math.nan, "a frame's embedding is all zeros, which has no direction")
    else:
        # Half the squared distance of the unit vectors: 1 - <r, d> would lose small distances to rounding.
        unit_r = r / np.linalg.norm(r, axis=1, keepdims=True)
        unit_d = d / np.linalg.norm(d, axis=1, keepdims=True)
        scores[COSINE] = Score(float(np.square(unit_r - unit_d).sum(1).mean() / 2))
    return scores
