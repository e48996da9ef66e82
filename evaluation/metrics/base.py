"""The interface of a metric, and its score."""

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

    ``value`` may be +-inf (identical signals). It is NaN only with a ``reason``: a silent reference has no
    SI-SDR, and no other number replaces it. ``failed``: it could not be computed this time, and will be tried
    again.

    Examples:
        >>> Score(float("nan"), "shorter than 0.25 s").reason
        'shorter than 0.25 s'
    """

    value: float
    reason: str | None = None
    failed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))  # also from NumPy's and torch's numbers
        if math.isnan(self.value) and not self.reason:
            raise ValueError("a score that is not a number needs a reason")


class Metric(ABC):
    """A number per clip that compares a decoded signal with its reference.

    Attributes:
        name: column name in every table ("si_sdr").
        label: heading for people ("SI-SDR").
        version: changes with the definition; scores are stored by name and version.
        unit: "dB", or "" for none.
        higher_is_better: direction of the arrow.
        definition: one sentence, printed in reports.
        sample_rate: of its signals, Hz; they are resampled once for all metrics of the same rate. None: the
            rate of the evaluation.
        channels: of its signals: 1, the mean of all channels; 2, with no score for a mono evaluation. None:
            those of the evaluation.
        device: of its tensors: "cpu", or None for the device of the evaluation.
        speech_only: it is made for speech: clips of other categories have a score only with ``--speech``.

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
        """Why it cannot run here and what to do about it, in one line; None if it can."""
        return None

    def prepare(self, reference: torch.Tensor, sample_rate: int) -> Any:
        """Result that depends only on the reference, computed once for all codecs.

        Args:
            reference: (batch, channels, samples), float32.
            sample_rate: of the signals, Hz.
        """
        return reference

    @abstractmethod
    def score(self, prepared: Any, decoded: torch.Tensor, sample_rate: int) -> list[Score]:
        """One `Score` per item: ``decoded`` (batch, channels, samples) against the result of `prepare`.

        The score of an item must not depend on the other items beyond float rounding.
        """


def attributes(what: str, name: str, plugin: object, names: Sequence[str]) -> dict[str, Any]:
    """The named attributes that a plug-in has. Raises UserError if reading one fails."""
    from baselines.registry import of_plugin

    def found() -> dict[str, Any]:
        return {attribute: getattr(plugin, attribute) for attribute in names if hasattr(plugin, attribute)}

    return of_plugin(what, name, "an attribute", found)


def describe_metric(metric: Metric) -> MetricInfo:
    """Description of a metric for the run folder.

    Raises:
        UserError: an attribute is absent or invalid.
    """
    from evaluation.records import MetricInfo, read, short

    names = ["name", "label", "version", "unit", "higher_is_better", "definition"]
    names += ["sample_rate", "channels", "device", "speech_only"]
    said = attributes("metric", type(metric).__name__, metric, names)
    try:
        if (device := said.pop("device", None)) not in (None, "cpu"):
            raise ValueError(f"'device' is {short(device)}; it must be 'cpu' or None")
        found = read(MetricInfo, said)
    except ValueError as error:
        raise UserError(f"metric {type(metric).__name__}: {error}; set it in the class") from error
    return replace(found, definition=one_line(found.definition))
