"""Two channels as mid and side. Recordings need fewer codebooks for the side.

    mid = (left + right) / sqrt(2), side = (left - right) / sqrt(2)

Two equal channels have a side of zeros, which needs no codebook. The same holds for a source in one channel,
because the side is predicted from the mid: ``prediction`` / 8 times the mid is subtracted from the side
before it is coded, and added after it is decoded. The prediction is 8 for a source on the left and -8 for one
on the right. Neuendorf et al., "The ISO/MPEG Unified Speech and Audio Coding Standard" (JAES 2013), predict
each band; here a signal has one prediction.

Codes of a pair are an array (2, num_codebooks, frames), mid first. If the side has fewer codebooks than the
mid, its codes are -1 in the codebooks that it lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from qincodec.bitstream import EIGHTHS, NO_CODE
from qincodec.core.errors import UserError

#: Smallest part of the side's power that a prediction must remove; otherwise there is none.
_LEAST_COMMON = 0.75
_ROOT_HALF = math.sqrt(0.5)


def to_mid_side(audio: torch.Tensor, prediction: torch.Tensor | int = 0) -> torch.Tensor:
    """Left and right (..., 2, samples) to mid and side minus its prediction, in the same shape.

    Args:
        prediction: in eighths; a number, or a tensor (...) of them.
    """
    left, right = audio.unbind(-2)
    mid, side = _ROOT_HALF * (left + right), _ROOT_HALF * (left - right)
    return torch.stack([mid, side - _share(prediction, mid) * mid], dim=-2)


def to_left_right(audio: torch.Tensor, prediction: torch.Tensor | int = 0) -> torch.Tensor:
    """Inverse of `to_mid_side`."""
    mid, side = audio.unbind(-2)
    side = side + _share(prediction, mid) * mid
    return torch.stack([_ROOT_HALF * (mid + side), _ROOT_HALF * (mid - side)], dim=-2)


def _share(prediction: torch.Tensor | int, mid: torch.Tensor) -> torch.Tensor | float:
    if isinstance(prediction, int):
        return prediction / EIGHTHS
    return (prediction.to(mid) / EIGHTHS).unsqueeze(-1)


def best_prediction(blocks: Iterable[torch.Tensor]) -> int:
    """The prediction that minimizes the rest of a signal's side, <mid, side> / <mid, mid>, or 0.

    It is 0 unless it removes most of the side's power. A weaker prediction does harm: if mid and side differ,
    for example in their bands, the decoder's noise in the prediction adds to that in the coded rest.

    Args:
        blocks: (2, n) with any n, in order.
    """
    common = of_mid = of_side = 0.0
    for block in blocks:
        mid, side = to_mid_side(block.double())
        common, of_mid, of_side = (
            total + float(a @ b)
            for total, a, b in ((common, mid, side), (of_mid, mid, mid), (of_side, side, side))
        )
    if common**2 <= _LEAST_COMMON * of_mid * of_side:
        return 0
    return round(EIGHTHS * min(max(common / of_mid, -1.0), 1.0))


def best_predictions(audio: torch.Tensor) -> list[int]:
    """`best_prediction` of every item of audio (batch, 2, samples)."""
    return [best_prediction([item]) for item in audio]


def checked_predictions(predictions: Sequence[int] | None, items: int) -> torch.Tensor:
    """Predictions of ``items`` items, 0 if None. Raises UserError for another number or range."""
    found = [0] * items if predictions is None else list(predictions)
    if len(found) != items or not all(abs(prediction) <= EIGHTHS for prediction in found):
        raise UserError(
            f"predictions must be numbers from {-EIGHTHS} to {EIGHTHS}, one for each of {items} items; got"
            f" {found}"
        )
    return torch.tensor(found)


def codebooks_of(codes: torch.Tensor) -> list[int]:
    """Number of codebooks of each row of codes (rows, num_codebooks, frames), where mids and sides alternate.

    Raises:
        UserError: a codebook has codes in some frames only, or follows one without codes; or a mid has no
            codes.
    """
    present = codes != NO_CODE
    counts: list[int] = present[:, :, 0].sum(1).tolist()
    expected = torch.arange(codes.shape[1], device=codes.device) < present[:, :, 0].sum(1)[:, None]
    if not torch.equal(present, expected[:, :, None].expand_as(present)) or not all(counts[::2]):
        raise UserError(
            f"codes of two channels are those of the mid and those of the side, with {NO_CODE} in all frames"
            " of the last codebooks that the side lacks; these have it elsewhere"
        )
    return counts
