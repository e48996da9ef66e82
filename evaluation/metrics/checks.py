"""Reasons why a signal cannot be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.lazy import Lazy

if TYPE_CHECKING:
    import torch
else:
    torch = Lazy("torch")


def not_finite(audio: torch.Tensor, what: str) -> list[str | None]:
    """Per item of (batch, channels, samples) the reason why it has no score, or None.

    Args:
        audio: a reference or a codec's output.
        what: which of them, for the message ("output").
    """
    reasons: list[str | None] = []
    for item in audio:
        # NaN and infinity survive a sum, so only an infinite sum needs a closer look: a sum of large finite
        # samples may be infinite, too.
        if item.sum().isfinite() or item.isfinite().all():
            reasons.append(None)
        else:
            reasons.append(f"{what} contains {'NaN' if item.isnan().any() else 'infinite values'}")
    return reasons
