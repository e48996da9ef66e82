"""The interface of an embedding, which turns a clip into points whose distributions are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from baselines.lazy import Lazy

if TYPE_CHECKING:
    import torch
    from torch.nn import functional
else:
    torch, functional = Lazy("torch"), Lazy("torch.nn.functional")


class Embedding(ABC):
    """Turns audio into a sequence of vectors, one per frame, for distances between distributions.

    A new embedding needs a subclass and an entry point (group ``qincodec.embeddings``). Its name after
    ``--metrics`` adds four metrics: ``fd_NAME``, ``kad_NAME``, ``fm_NAME`` and ``cos_NAME``.

    Attributes:
        name: as typed after ``--metrics``.
        label: text after "FD-" and the like in tables.
        version: of the front end and the network. Embeddings and scores are stored by it, so change it when
            the output changes.
        dim: length of a vector.
        frame_s: length of a frame, seconds.
        hop_s: from frame to frame, seconds. Frame ``k`` is centred at ``k * hop_s``, with zeros beyond both
            ends of the clip.
        definition: one sentence, printed in reports.
        attribution: a line that the licence of the weights requires, printed in reports; "" if none.
        weights_hash: identifies the loaded weights; "" for embeddings without.

    Args:
        device: where it computes.

    Raises:
        Unavailable: it cannot run here; one line says why and what to do about it.

    Examples:
        >>> class Level(Embedding):
        ...     name = label = "level"
        ...     version, dim, frame_s, hop_s = "1", 1, 0.4, 0.1
        ...     definition = "RMS of frames of 0.4 s."
        ...
        ...     def embed(self, audio, sample_rate):
        ...         frames = centred_frames(audio, round(0.4 * sample_rate), round(0.1 * sample_rate))
        ...         return frames.square().mean(1, keepdim=True).sqrt()
        >>> Level().embed(torch.ones(8000), 8000).shape
        torch.Size([9, 1])
    """

    name: str
    label: str
    version: str
    dim: int
    frame_s: float
    hop_s: float
    definition: str
    attribution: str = ""
    weights_hash: str = ""

    def __init__(self, *, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot be loaded here and what to do about it, in one line. Fast, without network."""
        return None

    @abstractmethod
    def embed(self, audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
        """Embed one clip; called from several threads.

        Args:
            audio: (samples,) float32, mono, finite; of any length from one sample; may be silent.
            sample_rate: Hz, of the evaluation; the embedding resamples if necessary.

        Returns:
            (frames, dim) float32, with at least one frame, and equally many for clips of equal length.
        """

    def identity(self) -> dict[str, Any]:
        """Everything that decides the vectors, as canonical JSON values."""
        return {"name": self.name, "version": self.version, "weights": self.weights_hash, "dim": self.dim}


def centred_frames(audio: torch.Tensor, frame: int, hop: int) -> torch.Tensor:
    """Frames centred at 0, hop, 2 hop ... with zeros beyond both ends.

    Half a frame of zeros precedes the audio; frames follow until one reaches the end, and the last is
    zero-padded. At hop 0.5 s, 5 s make 10 frames of 1 s. (The framing of openl3's ``center=True``.)

    Args:
        audio: (samples,), at least one.
        frame: length of a frame, samples, even.
        hop: samples.

    Returns:
        (frames, frame), a view.

    Examples:
        >>> centred_frames(torch.tensor([1, 2, 3, 4]), frame=2, hop=1).tolist()
        [[0, 1], [1, 2], [2, 3], [3, 4]]
    """
    samples = frame // 2 + len(audio)
    count = 1 + max(0, -(-(samples - frame) // hop))
    return functional.pad(audio, (frame // 2, (count - 1) * hop + frame - samples)).unfold(0, frame, hop)
