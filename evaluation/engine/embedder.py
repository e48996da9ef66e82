"""Embeddings of references and decoded clips: read from the run folder, or computed once and kept there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from baselines.registry import of_plugin, why_not
from evaluation.datasets.base import Clip
from evaluation.embeddings import EMBEDDINGS
from evaluation.embeddings.base import Embedding, centred_frames
from evaluation.engine.ledger import Ledger
from evaluation.engine.scoring import describe
from evaluation.metrics.base import Score
from evaluation.metrics.checks import not_finite
from evaluation.metrics.embedding import (
    COSINE,
    MATCHING,
    compare_frames,
    describe_embedding,
    embedding_metrics,
)
from evaluation.records import MetricInfo, Settings
from evaluation.run.store import frames_key, reference_frames_key
from qincodec.core.errors import Unavailable, UserError
from qincodec.core.files import StoreError
from qincodec.core.plugins import FAULTS

#: Frames of a clip, or why it has none.
Frames = np.ndarray | str


def load_embeddings(names: Sequence[str], device: str) -> tuple[list[Embedding], dict[str, str]]:
    """Embeddings that can be computed here, and why the others cannot."""
    loaded: list[Embedding] = []
    reasons: dict[str, str] = {}
    for name in names:
        try:
            kind = EMBEDDINGS.load(name)
            # Built-in embeddings download missing weights and explain failures themselves.
            if not EMBEDDINGS.is_own(name):
                reason = why_not("embedding", name, kind)
                if reason is not None:
                    raise Unavailable(reason)
            loaded.append(of_plugin("embedding", name, "loading it", partial(kind, device=device)))
        except Unavailable as error:
            reasons[name] = str(error)
    return loaded, reasons


class Embedder:
    """One embedding in one run.

    Every clip is embedded separately, so its frames do not depend on batches. A reference is embedded once,
    uncut, for all codecs. The decoded signal is shifted by its delay and zero-padded, as every clip is beyond
    its ends.

    Args:
        store: holds known frames and takes new ones.
        embedding: loaded.
        settings: of the run; its ``sample_rate`` and ``channels`` count.
    """

    def __init__(self, store: Ledger, embedding: Embedding, settings: Settings) -> None:
        self.store = store
        self.embedding = embedding
        self.settings = settings
        self.info = describe_embedding(embedding)
        self.clip_metrics = [metric for metric in embedding_metrics(self.info) if metric.per_clip]
        self._identity = self.info.identity

    def keys(self, clip: Clip, coded: str, delay: int) -> tuple[str, str]:
        """Keys of the frames of a clip's reference, and of the decoded clip of row ``coded``."""
        return self._reference_key(clip), frames_key(self._identity, coded, delay)

    def score(
        self,
        clips: Sequence[Clip],
        coded: Sequence[str],
        reference: torch.Tensor,
        decoded: torch.Tensor,
        delay: int,
    ) -> list[tuple[MetricInfo, list[Score]]]:
        """FM and cosine distance, a score per clip; new frames go to the run folder.

        Args:
            clips: of a batch.
            coded: key of the coded row of each.
            reference: (clips, channels, samples).
            decoded: same shape, not shifted yet.
            delay: to remove from ``decoded``, samples.
        """
        references = self._frames([self._reference_key(clip) for clip in clips], reference, "reference")
        outputs: list[Frames]
        if abs(delay) < reference.shape[-1]:
            keys = [frames_key(self._identity, key, delay) for key in coded]
            outputs = self._frames(keys, shift(decoded, delay), "output")
        else:
            outputs = [f"clip is shorter than the delay of {delay} samples"] * len(clips)
        found = [self._compare(*pair) for pair in zip(references, outputs, strict=True)]
        return [
            (metric, [scores[kind] for scores in found])
            for kind, metric in zip((MATCHING, COSINE), self.clip_metrics, strict=True)
        ]

    def _compare(self, reference: Frames, output: Frames) -> dict[str, Score]:
        for part in (reference, output):
            if isinstance(part, str):
                return dict.fromkeys((MATCHING, COSINE), Score(math.nan, part, failed=True))
        assert isinstance(reference, np.ndarray) and isinstance(output, np.ndarray)
        if len(reference) != len(output):
            reason = f"{len(reference)} frames of the reference, {len(output)} of the output"
            return dict.fromkeys((MATCHING, COSINE), Score(math.nan, reason))
        return compare_frames(reference, output)

    def _reference_key(self, clip: Clip) -> str:
        return reference_frames_key(self._identity, self.settings, clip)

    def _frames(self, keys: Sequence[str], audio: torch.Tensor, what: str) -> list[Frames]:
        """Stored frames of each key, or those of the audio (clips, channels, samples)."""
        found: dict[int, Frames] = {}
        new: dict[int, np.ndarray] = {}
        bad = not_finite(audio, what)
        for index, key in enumerate(keys):
            known = self.store.frames(key)
            if known is not None:
                found[index] = known
                continue
            try:
                if bad[index]:
                    raise UserError(bad[index])
                found[index] = new[index] = self._embed(audio[index])
            except (StoreError, KeyboardInterrupt):
                raise
            except FAULTS as error:
                found[index] = f"no embedding: {describe(error)}"
        if new:
            silent = [self._silent_frames(audio[index]) for index in new]
            new_keys = [keys[index] for index in new]
            self.store.append_frames(self.info.name, new_keys, list(new.values()), silent)
        return [found[index] for index in range(len(keys))]

    def _embed(self, audio: torch.Tensor) -> np.ndarray:
        mono = _mono(audio).clone()  # an embedding may write into it
        found: object = self.embedding.embed(mono, self.settings.sample_rate)
        if not isinstance(found, torch.Tensor) or found.is_complex():
            got = "complex numbers" if isinstance(found, torch.Tensor) else type(found).__name__
            raise UserError(
                f"embedding '{self.info.name}' returned {got}; it must be a float tensor (frames, "
                f"{self.embedding.dim})"
            )
        frames = found.detach().cpu().numpy()
        if frames.ndim != 2 or not len(frames) or frames.shape[1] != self.embedding.dim:
            raise UserError(
                f"embedding '{self.info.name}' returned shape {frames.shape}; it must be (frames, "
                f"{self.embedding.dim}), one frame at least"
            )
        with np.errstate(over="ignore"):
            frames = frames.astype(np.float32, copy=False)
        if not np.isfinite(frames).all():
            raise UserError(f"embedding '{self.info.name}' returned NaN, infinity or more than float32 holds")
        return frames

    def _silent_frames(self, audio: torch.Tensor) -> int:
        """Number of frames whose samples are all 0."""
        rate = self.settings.sample_rate
        frame, hop = (2 * round(seconds * rate / 2) for seconds in (self.info.frame_s, self.info.hop_s))
        return int((~centred_frames(_mono(audio), frame, hop).any(-1)).sum())


def _mono(audio: torch.Tensor) -> torch.Tensor:
    """(samples,): the mean of the channels. Mono in two channels stays as it is."""
    audio = audio.cpu()
    return audio[0] if len(audio) == 1 else audio.double().mean(0).float()


def shift(decoded: torch.Tensor, delay: int) -> torch.Tensor:
    """(..., samples) earlier by ``delay`` samples, padded with zeros."""
    return functional.pad(decoded, (-delay, delay))
