"""Audio codecs behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baselines.check import CodecProblem, check_codec

__all__ = ["CodecProblem", "check_codec"]


def __getattr__(name: str) -> Any:
    # Loaded on use: a command's --help must not wait for torch.
    if name in __all__:
        from baselines import check

        return getattr(check, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
