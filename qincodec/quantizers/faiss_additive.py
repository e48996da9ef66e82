"""Off-the-shelf additive quantizers of FAISS: residual with beam search, and local search (LSQ++)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from qincodec.core.errors import UserError, check_whole
from qincodec.quantizers.base import FitProgress, Fitting
from qincodec.quantizers.latents import Latents
from qincodec.quantizers.rvq import AdditiveQuantizer, nearest

_LACK = "FAISS quantizers need FAISS, which is not installed: pip install 'qincodec[faiss]'"


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(_LACK) from error
    return faiss


class _FaissQuantizer(AdditiveQuantizer):
    """FAISS trains in one call: an interrupted fit starts again, and ``state_dir`` stays empty."""

    @classmethod
    def unavailable(cls) -> str | None:
        return None if find_spec("faiss") else _LACK

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int = 1024) -> None:
        super().__init__(dim, num_codebooks, codebook_size)
        self._bits = codebook_size.bit_length() - 1
        if codebook_size != 1 << self._bits:
            raise UserError(f"FAISS needs codebooks whose size is a power of two, got {codebook_size}")

    def _train(self, model: Any, latents: Latents, how: Fitting, frames: int, name: str) -> None:
        """Train a FAISS additive quantizer and copy its codebooks."""
        latents.check(self.dim, self.codebook_size)
        model.train(latents.sample(frames, how.seed))
        codebooks = _faiss().vector_to_array(model.codebooks).reshape(self.codebooks.shape)
        self.codebooks.copy_(torch.from_numpy(codebooks))
        how.tell(FitProgress(f"{name} quantizer of FAISS", 1, 1))


class FaissRQ(_FaissQuantizer):
    """Residual quantizer of FAISS: k-means codebooks, encoded with a beam search.

    `fit` takes ``max_frames``, the most frames in memory.

    Args:
        dim: dimensions of a latent.
        num_codebooks: N.
        codebook_size: K, a power of two.
        beam: partial reconstructions kept at each stage; can be set at run time.
    """

    kind = "faiss_rq"

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int = 1024, beam: int = 5) -> None:
        super().__init__(dim, num_codebooks, codebook_size)
        self.beam = check_whole("beam", beam, 1, 1 << 12)

    def _encode(self, x: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        faiss = _faiss()
        model = faiss.ResidualQuantizer(self.dim, num_codebooks, self._bits)
        faiss.copy_array_to_vector(self.codebooks[:num_codebooks].cpu().numpy().ravel(), model.codebooks)
        model.is_trained = True
        model.max_beam_size = self.beam
        packed = model.compute_codes(np.ascontiguousarray(x.cpu().numpy()))
        codes = faiss.unpack_bitstrings(packed, num_codebooks, self._bits)
        return torch.from_numpy(codes.astype(np.int64)).to(x.device)

    def _fit(self, latents: Latents, how: Fitting, max_frames: int = 1_000_000) -> None:
        model = _faiss().ResidualQuantizer(self.dim, self.num_codebooks, self._bits)
        model.max_beam_size = self.beam
        model.cp.seed = how.seed
        self._train(model, latents, how, max_frames, "residual")

    def config(self) -> dict[str, Any]:
        return {**super().config(), "beam": self.beam}

    def settings(self) -> dict[str, Any]:
        return {"beam": self.beam}


class FaissLSQ(_FaissQuantizer):
    """Additive quantizer with the codebooks of FAISS's local-search quantization (LSQ++).

    All codebooks work together, so a prefix of the codes cannot be decoded. `fit` takes ``max_frames``, the
    most frames in memory, and ``iterations``, its rounds.

    Encoding is iterated local search as in LSQ, but with the same perturbations for every frame (FAISS draws
    them by the frame's place in the call), so that a frame's codes do not depend on other frames.

    Args:
        dim: dimensions of a latent.
        num_codebooks: N.
        codebook_size: K, a power of two.
        searches: local searches per frame, each from a perturbation of the best codes so far; can be set at
            run time.
    """

    kind = "faiss_lsq"
    prefix_decodable = False

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int = 1024, searches: int = 32) -> None:
        super().__init__(dim, num_codebooks, codebook_size)
        self.searches = check_whole("searches", searches, 1, 1 << 16)

    def _encode(self, x: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        return torch.cat([self._search(rows) for rows in x.split(1 << 14)])

    def _search(self, x: torch.Tensor) -> torch.Tensor:
        random = np.random.default_rng(0)
        best = self._descend(
            x, torch.zeros(len(x), self.num_codebooks, dtype=torch.int64, device=x.device), greedy=True
        )
        error = (x - self._decode(best)).square().sum(1)
        for _ in range(self.searches - 1):
            codes = best.clone()
            # Two codebooks were better than one, three or four, as measured.
            for n in random.permutation(self.num_codebooks)[:2]:
                codes[:, n] = (codes[:, n] + int(random.integers(1, self.codebook_size))) % self.codebook_size
            codes = self._descend(x, codes)
            trial = (x - self._decode(codes)).square().sum(1)
            better = trial < error
            best[better], error[better] = codes[better], trial[better]
        return best

    def _descend(self, x: torch.Tensor, codes: torch.Tensor, *, greedy: bool = False) -> torch.Tensor:
        """Iterated conditional modes: the best code of one codebook after the other, with the rest fixed.

        ``greedy`` starts from zero instead of from ``codes``.
        """
        residual = x if greedy else x - self._decode(codes)
        for sweep in range(4):
            for n, codebook in enumerate(self.codebooks):
                if sweep or not greedy:
                    residual = residual + codebook[codes[:, n]]
                codes[:, n] = nearest(residual, codebook)
                residual = residual - codebook[codes[:, n]]
        return codes

    def _fit(self, latents: Latents, how: Fitting, max_frames: int = 100_000, iterations: int = 25) -> None:
        model = _faiss().LocalSearchQuantizer(self.dim, self.num_codebooks, self._bits)
        model.train_iters = iterations
        model.random_seed = how.seed
        self._train(model, latents, how, max_frames, "local-search")

    def config(self) -> dict[str, Any]:
        return {**super().config(), "searches": self.searches}

    def settings(self) -> dict[str, Any]:
        return {"searches": self.searches}
