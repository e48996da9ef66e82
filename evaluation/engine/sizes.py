"""Bytes and seconds of clips at an operating point, measured by a pilot, in threads of one process or by
workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from baselines.codec import Codec, Encoded, Rate, check_encoded
from evaluation.datasets.base import Clip
from evaluation.engine.coding import Coder
from qincodec import audio
from qincodec.core.plugins import FAULTS

#: Seconds of audio that are kept for the next operating point.
KEPT_S = 600.0

#: Bytes and seconds of a clip; None if it cannot be coded, which the run itself will report.
Size = tuple[int, float] | None


class Measure(Protocol):
    """Encodes some clips at a codec's operating point, and returns the `Size` of each."""

    def __call__(self, label: str, codec: Codec, rate: Rate, of: Rate, clips: list[Clip]) -> list[Size]: ...


@dataclass
class Sizes:
    """Measures clips one by one. Threads may share one, for one codec at a time.

    Args:
        coder: reads the clips.
    """

    coder: Coder
    #: (codec, rate, clip) -> the clip encoded at the highest rate, and seconds of audio; None if it failed.
    _whole: dict[tuple[str, str, str], tuple[Encoded, float] | None] = field(default_factory=dict, init=False)
    #: Input of codecs, by (sample rate, clip): the same at every bitrate that is tried.
    _inputs: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict, init=False)

    def turn_to(self, label: str, codec: Codec) -> None:
        """Forget input and encoded clips of other codecs."""
        self._whole = {at: whole for at, whole in self._whole.items() if at[0] == label}
        self._inputs = {at: kept for at, kept in self._inputs.items() if at[0] == codec.sample_rate}

    def forget(self) -> None:
        """Forget input and encoded clips of all codecs."""
        self._whole, self._inputs = {}, {}

    def size(self, label: str, codec: Codec, rate: Rate, of: Rate, clip: Clip) -> Size:
        """Bytes and seconds of a clip.

        Args:
            label: of the codec's rows.
            of: the highest rate that ``rate`` is a prefix of, at which a clip is encoded once.
        """
        key = label, of.label, clip.id
        is_cut = of.label != rate.label
        if is_cut and key not in self._whole:
            self._whole[key] = self._encoded(codec, of, clip)
        whole = self._whole.get(key)
        if whole is None or not is_cut:
            found = whole or self._encoded(codec, rate, clip)
            return None if found is None else (len(found[0].payload), found[1])
        try:
            (encoded,) = check_encoded(codec.name, [codec.truncate(whole[0], rate)], 1)
        except KeyboardInterrupt:
            raise
        except FAULTS:
            return None
        return len(encoded.payload), whole[1]

    def _encoded(self, codec: Codec, rate: Rate, clip: Clip) -> tuple[Encoded, float] | None:
        """An encoded clip and its seconds; None if it fails."""
        try:
            given = self._given(codec, clip)
            encoded = codec.encode(given.to(codec.device, copy=True), rate)
            (item,) = check_encoded(codec.name, encoded, 1)
        except KeyboardInterrupt:
            raise
        except FAULTS:
            return None
        return item, given.shape[-1] / codec.sample_rate

    def _given(self, codec: Codec, clip: Clip) -> torch.Tensor:
        """(1, channels, samples) at the codec's sample rate."""
        key = codec.sample_rate, clip.id
        if (kept := self._inputs.get(key)) is not None:
            return kept
        samples = audio.resample(self.coder.reference(clip), self.coder.sample_rate, codec.sample_rate)
        given = torch.from_numpy(samples)[None]
        if sum(tensor.shape[-1] for tensor in [*self._inputs.values(), given]) <= KEPT_S * codec.sample_rate:
            self._inputs[key] = given
        return given
