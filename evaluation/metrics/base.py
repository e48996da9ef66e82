"""The interface of a metric, and the score it gives."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from baselines.lazy import Lazy
from qincodec.core.errors import UserError, one_line

if TYPE_CHECKING:
    import torch

    from evaluation.records import MetricInfo
else:
    torch = Lazy("torch")


@dataclass(frozen=True)
class Score:
    """A metric's value for one clip.

    ``value`` may be +-inf (identical signals). It is NaN only with a ``reason``: a silent reference has
    no SI-SDR, and no other number is put in its place. ``failed``: it could not be computed this time, and
    is tried again.

    Examples:
        >>> Score(float("nan"), "shorter than 0.25 s").reason
        'shorter than 0.25 s'
    """

    value: float
    reason: str | None = None
    failed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))  # of NumPy's and torch's numbers too
        if math.isnan(self.value) and not self.reason:
            raise ValueError("a score that is not a number needs a reason")


class Metric(ABC):
    """A number per clip that compares a decoded signal with its reference.

    Attributes:
        name: column name in every table ("si_sdr").
        label: heading for people ("SI-SDR").
        version: changes with the definition; scores are kept under name and version.
        unit: "dB", or "" for none.
        higher_is_better: direction of the arrow.
        definition: one sentence, printed in reports.
        sample_rate: that it wants signals at, Hz: they are resampled once for all metrics that want the same.
            None: the rate of the evaluation.
        channels: that it wants: 1, the mean of all channels; 2, and clips of an evaluation in mono have no
            score. None: those of the evaluation.
        device: "cpu": it always gets tensors there. None: on the device of the evaluation.
        speech_only: it is made for speech: clips of other categories have no score, but with ``--speech``.

    Examples:
        >>> class Loudest(Metric):
        ...     name, label, version = "loudest", "Loudest error", "1"
        ...     unit, higher_is_better = "", False
        ...     definition = "Largest absolute difference of two samples."
        ...
        ...     def score(self, prepared, decoded, sample_rate):
        ...         return [Score(float(error.abs().max())) for error in decoded - prepared]
        >>> [score.value for score in Loudest().score(torch.zeros(1, 1, 9), torch.ones(1, 1, 9), 44100)]
        [1.0]
    """

    name: str
    label: str
    version: str
    unit: str
    higher_is_better: bool
    definition: str
    sample_rate: int | None = None
    channels: Literal[1, 2] | None = None
    device: Literal["cpu"] | None = None
    speech_only: bool = False

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot run here as things stand and what to do about it, in one line; None if it can."""
        return None

    def prepare(self, reference: torch.Tensor, sample_rate: int) -> Any:
        """What can be computed from the reference alone, once for all codecs.

        Args:
            reference: (batch, channels, samples), float32.
            sample_rate: of the signals, Hz.
        """
        return reference

    @abstractmethod
    def score(self, prepared: Any, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        """One `Score` per item: ``decoded`` (batch, channels, samples) beside what `prepare` returned.

        The score of an item must not depend on the other items beyond float rounding.
        """


def attributes(what: str, name: str, plugin: object, names: Sequence[str]) -> dict[str, Any]:
    """Those attributes of a plug-in that it has. Raises UserError if asking for them fails."""
    from baselines.registry import of_plugin

    def found() -> dict[str, Any]:
        return {attribute: getattr(plugin, attribute) for attribute in names if hasattr(plugin, attribute)}

    return of_plugin(what, name, "an attribute", found)


def describe_metric(metric: Metric) -> MetricInfo:
    """What the run folder keeps of a metric.

    Raises:
        UserError: an attribute is absent or not what it must be.
    """
    from evaluation.records import MetricInfo, read, short

    names = ["name", "label", "version", "unit", "higher_is_better", "definition"]
    names += ["sample_rate", "channels", "device", "speech_only"]
    said = attributes("metric", type(metric).__name__, metric, names)
    try:
        if (device := said.pop("device", None)) not in (None, "cpu"):
            raise ValueError(f"'device' is {short(device)}; needed is 'cpu' or None")
        found = read(MetricInfo, said)
    except ValueError as error:
        raise UserError(f"metric {type(metric).__name__}: {error}; set it in the class") from error
    return replace(found, definition=one_line(found.definition))
