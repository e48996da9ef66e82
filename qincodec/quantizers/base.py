"""The interface every quantizer implements: latents of shape (frames, dim) to codes and back.

Codes are int64 of shape (frames, num_codebooks), entry ``[t, n]`` in ``range(codebook_sizes[n])``. A
quantizer is fitted offline on latents of a frozen encoder and never sees a gradient from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import nn

from qincodec.core.errors import UserError, check_whole, shown
from qincodec.quantizers.latents import Latents, LatentsLike

#: Greatest numbers of a configuration, which may be untrusted; they are checked before anything is made.
MAX_DIM = 4096
MAX_CODEBOOKS = 1024
MAX_CODEBOOK_SIZE = 1 << 20
#: Greatest number of values of all codebooks: 256 MB.
MAX_CODEBOOK_VALUES = 1 << 26


@dataclass(frozen=True)
class FitProgress:
    """Progress of a fit.

    Attributes:
        phase: the present step, in words ("codebook 3 of 9").
        done: finished steps, out of ``total``; all steps of a fit take about the same time.
        total: steps of the whole fit; for QINCO2 first those of its initial RVQ.
        mse: latest mean squared error per dimension, in the units of the latents; None if unknown.
    """

    phase: str
    done: int
    total: int
    mse: float | None = None


ProgressCallback = Callable[[FitProgress], None]


class Fitting(NamedTuple):
    """Arguments of `Quantizer.fit` besides its options; `tell` does nothing without a callback."""

    seed: int
    state_dir: Path | str | None
    tell: ProgressCallback


class Quantizer(nn.Module, ABC):
    """Turns latents into codes and codes into latents.

    Subclasses implement `_encode`, `_decode` and `_fit` and need not check the arguments of the first two.

    Attributes:
        kind: name in `qincodec.quantizers.QUANTIZERS`.
        prefix_decodable: the first m columns of ``encode(x, m)`` can be decoded alone, for every m up to
            ``num_codebooks``, so that one fitted quantizer has every rate. If False, the only rate is that of
            all codebooks.
        prefix_encoded: ``encode(x, m)`` is the first m columns of ``encode(x, n)`` for every n above m: each
            code is chosen without regard to those after it. A beam search looks ahead, so it is False.
        recordable: `_encode` and `_decode` neither read values nor leave the device, so that training on a
            GPU can record them as a CUDA graph.
        dim: dimensions of a latent.
        codebook_sizes: entries of each codebook; a frame costs ``sum(log2(size))`` bits.

    Examples:
        >>> from qincodec.quantizers.rvq import RVQ
        >>> latents = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
        >>> quantizer = RVQ(dim=4, num_codebooks=2, codebook_size=16)
        >>> quantizer.fit(latents, k_means="lloyd")
        >>> codes = quantizer.encode(latents)
        >>> codes.shape, quantizer.decode(codes).shape
        (torch.Size([1000, 2]), torch.Size([1000, 4]))
    """

    kind: ClassVar[str]
    prefix_decodable: ClassVar[bool] = True
    prefix_encoded: ClassVar[bool] = False
    recordable: ClassVar[bool] = False

    def __init__(self, dim: int, codebook_sizes: tuple[int, ...]) -> None:
        super().__init__()
        check_whole("dim", dim, 1, MAX_DIM)
        check_whole("number of codebooks", len(codebook_sizes), 1, MAX_DIM)
        for size in codebook_sizes:
            check_whole("codebook size", size, 2, 2**31 - 1)  # as in .qnc files
        self.dim = dim
        self.codebook_sizes = codebook_sizes

    @classmethod
    def unavailable(cls) -> str | None:
        """Why it cannot be fitted here and what to do about it, in one line; None if it can. Fast."""
        return None

    @property
    def num_codebooks(self) -> int:
        return len(self.codebook_sizes)

    @classmethod
    def for_rate(cls, dim: int, num_codebooks: int, codebook_size: int) -> Self:
        """An unfitted quantizer with at most ``num_codebooks * log2(codebook_size)`` bits per frame."""
        return cls(dim=dim, num_codebooks=num_codebooks, codebook_size=codebook_size)  # type: ignore[call-arg]

    @torch.no_grad()
    def encode(self, x: torch.Tensor, num_codebooks: int | None = None) -> torch.Tensor:
        """Codes of the latents, chosen for the rate of ``num_codebooks`` (all if None).

        Args:
            x: (frames, dim), float32.
            num_codebooks: 1 to ``num_codebooks``; quantizers that are not prefix-decodable accept only all.

        Returns:
            (frames, num_codebooks), int64.

        Raises:
            UserError: the shape is wrong, latents are not finite, or the quantizer does not have this rate.
        """
        m = self.num_codebooks if num_codebooks is None else num_codebooks
        self._check_rate(m)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise UserError(f"latents must have shape (frames, {self.dim}), got {tuple(x.shape)}")
        if not torch.isfinite(x).all():
            raise UserError(
                "latents hold NaN or infinity; the audio or the weights that made them are broken"
            )
        if len(x) == 0:
            return torch.empty((0, m), dtype=torch.int64, device=x.device)
        return self._encode(x.float(), m)

    @torch.no_grad()
    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Latents of the codes.

        Args:
            codes: (frames, m), integers; m below ``num_codebooks`` is a lower rate.

        Returns:
            (frames, dim), float32.

        Raises:
            UserError: the shape is wrong, codes are outside their codebook, or this rate does not exist.
        """
        if codes.ndim != 2:
            raise UserError(f"codes must have shape (frames, num_codebooks), got {tuple(codes.shape)}")
        if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
            raise UserError(f"codes must be integers, got {codes.dtype}")
        self._check_rate(codes.shape[1])
        if len(codes) == 0:
            return torch.empty((0, self.dim), device=codes.device)
        codes = codes.long()
        sizes = torch.tensor(self.codebook_sizes[: codes.shape[1]], device=codes.device)
        if (codes < 0).any() or (codes >= sizes).any():
            raise UserError(
                f"codes are outside their codebooks (range {int(codes.min())} to {int(codes.max())}, sizes "
                f"{min(self.codebook_sizes)} to {max(self.codebook_sizes)}): they come from another model"
            )
        return self._decode(codes)

    def _check_rate(self, m: int) -> None:
        if not 1 <= m <= self.num_codebooks:
            raise UserError(f"quantizer '{self.kind}' has 1 to {self.num_codebooks} codebooks; got {m}")
        if m != self.num_codebooks and not self.prefix_decodable:
            raise UserError(
                f"quantizer '{self.kind}' has only the rate of all its {self.num_codebooks} codebooks; got "
                f"{m}; fit another one for this rate"
            )

    @abstractmethod
    def _encode(self, x: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        """`encode` of one or more float32 latents, arguments checked."""

    @abstractmethod
    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        """`decode` of one or more int64 codes, arguments checked."""

    def fit(
        self,
        latents: LatentsLike,
        *,
        seed: int = 0,
        state_dir: Path | str | None = None,
        progress: ProgressCallback | None = None,
        **options: Any,
    ) -> None:
        """Fit on latents that may be on disk and larger than memory.

        Args:
            latents: array, memory map, ``.npy`` file or folder of them (see `latents.Latents`).
            seed: of every random choice; the same seed, data and machine give the same quantizer.
            state_dir: folder for the state of an interrupted fit, from which the same call continues; None
                keeps no state.
            progress: called from time to time.
            options: of this kind of quantizer, see its class; others are a TypeError.

        Raises:
            UserError: the latents have another dimension or are too few, or the state is another fit's.
        """
        self._fit(Latents(latents), Fitting(seed, state_dir, progress or (lambda _: None)), **options)

    def _fit(self, latents: Latents, how: Fitting, *more: Any, **options: Any) -> None:
        """Implementation of `fit`; subclasses name their options, each with a default, or override `fit`."""
        raise NotImplementedError

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON values for `from_config`; the tensors are the `state_dict`."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """An unfitted quantizer of this configuration.

        Raises:
            UserError: the configuration lacks a value, has an unknown one, or is of another kind.
        """
        values = dict(config)
        if values.pop("kind", cls.kind) != cls.kind:
            raise UserError(f"configuration is of quantizer '{config['kind']}', not of '{cls.kind}'")
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"configuration of quantizer '{cls.kind}' does not fit: {error}") from error

    def searching(self, preset: str) -> None:
        """Set the search preset of `qincodec.quantizers.beam`: "fast", "default" or "best".

        Raises:
            UserError: the name is unknown, or the quantizer has no search.
        """
        if preset != "default":
            raise UserError(
                f"quantizer '{self.kind}' has no beam search, so none that is {shown(preset)}: its search is"
                " 'default' only"
            )

    def settings(self) -> dict[str, Any]:
        """Run-time settings that change the output (search widths, precision): JSON values."""
        return {}


class EqualCodebooks(Quantizer):
    """A quantizer with equal codebooks of codewords of ``dim`` values.

    Raises:
        UserError: a number is not whole or out of range; the message has the range.
    """

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int) -> None:
        check_whole("dim", dim, 1, MAX_DIM)
        check_whole("num_codebooks", num_codebooks, 1, MAX_CODEBOOKS)
        check_whole("codebook_size", codebook_size, 2, MAX_CODEBOOK_SIZE)
        if (values := dim * num_codebooks * codebook_size) > MAX_CODEBOOK_VALUES:
            raise UserError(
                f"{num_codebooks} codebooks of {codebook_size} entries of {dim} values are {values} values; "
                f"allowed are {MAX_CODEBOOK_VALUES}; give fewer or smaller ones"
            )
        super().__init__(dim, (codebook_size,) * num_codebooks)

    @property
    def codebook_size(self) -> int:
        return self.codebook_sizes[0]

    def config(self) -> dict[str, Any]:
        names = ("kind", "dim", "num_codebooks", "codebook_size")
        return {name: getattr(self, name) for name in names}

    def _progress(self, n: int, error: torch.Tensor) -> FitProgress:
        """Progress after codebook ``n``, with the remaining (frames, dim) ``error``."""
        of = self.num_codebooks
        return FitProgress(f"codebook {n + 1} of {of}", n + 1, of, float(error.square().mean()))


def squared_distances(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """||c||^2 - 2 x.c for every row x and every codeword c: the squared distance minus ||x||^2.

    Args:
        x: (..., dim).
        codebook: (K, dim).

    Returns:
        (..., K); argmin and ranking over the last axis are those of the squared distance.
    """
    flat = torch.addmm(codebook.square().sum(1), x.reshape(-1, x.shape[-1]), codebook.T, alpha=-2)
    return flat.view(*x.shape[:-1], len(codebook))
