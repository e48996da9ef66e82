"""Residual vector quantization with re-standardised residuals (iRVQ; QINCODEC paper, III-C).

Stage n works in units that every earlier stage has scaled. With S_1 = 1, r_1 = x, x_hat_1 = 0::

    k_n       = argmin_k ||r_n - c_n^k||^2                  unweighted: the paper's
                argmin_k ||S_n (r_n - c_n^k)||^2            weighted: the error in the units of x
    x_hat_n+1 = x_hat_n + S_n c_n
    S_n+1     = S_n sigma_kn
    r_n+1     = (r_n - c_n) / sigma_kn

so that x - x_hat_n = S_n r_n at every stage. The paper prints x_hat + sigma_c c for the update, which is not
the inverse of its equation (1); this one is.
"""

from __future__ import annotations

from typing import Any

import torch

from qincodec.core.errors import UserError
from qincodec.quantizers.base import EqualCodebooks, Fitting
from qincodec.quantizers.fit_state import FitState
from qincodec.quantizers.latents import Latents
from qincodec.quantizers.rvq import _DISTANCES, MAX_FRAMES, check_k_means, nearest, next_codebook

#: Least standard deviation, as a share of its stage's global one.
_FLOOR = 1e-2
SELECTIONS = ("unweighted", "weighted")


class IRVQ(EqualCodebooks):
    """Residual vector quantizer that divides each residual by its cluster's standard deviation.

    `fit` takes ``max_frames``: one codebook after the other is fitted on at most this number of frames, held
    in memory, by ``k_means`` ("minibatch", as in the paper, or "lloyd"). An interrupted fit continues with
    its current codebook. A cluster's standard deviations are those of the frames that `selection` assigns to
    it. Clusters with fewer than two frames have the stage's global ones, and the least is 1 % of the global
    one.

    Args:
        dim: dimensions of a latent.
        num_codebooks: N.
        codebook_size: K.
        selection: "unweighted", the paper's rule: the codeword nearest in the units of the stage; a stage
            can make the error in the units of the latent larger. "weighted": the codeword that leaves the
            least error in the units of the latent; with the zero vector among its codewords a stage never
            makes it larger.

    Attributes:
        codebooks: (num_codebooks, codebook_size, dim); entry 0 of all but the first is the zero vector.
        sigmas: (num_codebooks, codebook_size, dim), per-cluster standard deviations.
    """

    kind = "irvq"
    prefix_encoded = True
    recordable = True
    codebooks: torch.Tensor
    sigmas: torch.Tensor

    def __init__(
        self, dim: int, num_codebooks: int, codebook_size: int = 1024, selection: str = "unweighted"
    ) -> None:
        super().__init__(dim, num_codebooks, codebook_size)
        if selection not in SELECTIONS:
            raise UserError(f"unknown selection '{selection}' of irvq; give {' or '.join(SELECTIONS)}")
        self.selection = selection
        self.register_buffer("codebooks", torch.randn(num_codebooks, codebook_size, dim))
        self.codebooks[1:, 0] = 0
        self.register_buffer("sigmas", torch.full((num_codebooks, codebook_size, dim), 0.5))

    def _select(self, r: torch.Tensor, scale: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
        """(n,) codes of (n, dim) residuals in the units of a stage; ``scale`` (n, dim) is S_n."""
        if self.selection == "unweighted":
            return nearest(r, codebook)
        chunk = max(1, _DISTANCES // len(codebook))
        codes = []
        for rows, weights in zip(r.split(chunk), scale.square().split(chunk), strict=True):
            # sum S^2 (r - c)^2 without its term free of c, as one product
            left = torch.cat([weights * rows * -2, weights], 1)
            codes.append((left @ torch.cat([codebook, codebook.square()], 1).T).argmin(1))
        return torch.cat(codes)

    def stages(self, x: torch.Tensor, num_codebooks: int) -> list[tuple[torch.Tensor, ...]]:
        """(code, x_hat, S, r) after each stage, of shapes (n,), (n, dim), (n, dim), (n, dim)."""
        r, scale, x_hat = x, torch.ones_like(x), torch.zeros_like(x)
        out: list[tuple[torch.Tensor, ...]] = []
        for codebook, sigma in zip(self.codebooks[:num_codebooks], self.sigmas, strict=False):
            code = self._select(r, scale, codebook)
            x_hat = x_hat + scale * codebook[code]
            scale, r = scale * sigma[code], (r - codebook[code]) / sigma[code]
            out.append((code, x_hat, scale, r))
        return out

    def _encode(self, x: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        return torch.stack([stage[0] for stage in self.stages(x, num_codebooks)], 1)

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        x = self.codebooks[0, codes[:, 0]]
        scale = self.sigmas[0, codes[:, 0]]
        for n in range(1, codes.shape[1]):
            x = x + scale * self.codebooks[n, codes[:, n]]
            scale = scale * self.sigmas[n, codes[:, n]]
        return x

    def _fit(
        self, latents: Latents, how: Fitting, max_frames: int = MAX_FRAMES, k_means: str = "minibatch"
    ) -> None:
        check_k_means(k_means)
        latents.check(self.dim, self.codebook_size)
        state = FitState(how.state_dir, self, latents, seed=how.seed, max_frames=max_frames, k_means=k_means)
        done = state.load()
        x = torch.from_numpy(latents.sample(max_frames, how.seed)).to(self.codebooks.device)
        r, scale = x, torch.ones_like(x)
        for n in range(self.num_codebooks):
            if n < len(done.get("codebooks", ())):
                codebook, sigma = done["codebooks"][n].to(x.device), done["sigmas"][n].to(x.device)
                code = self._select(r, scale, codebook)
            else:
                codebook = next_codebook(r, n, self.codebook_size, how.seed, k_means)
                code = self._select(r, scale, codebook)
                sigma = cluster_deviations(r - codebook[code], code, self.codebook_size)
            scale, r = scale * sigma[code], (r - codebook[code]) / sigma[code]
            self.codebooks[n], self.sigmas[n] = codebook, sigma
            tables = {"codebooks": self.codebooks, "sigmas": self.sigmas}
            state.save({name: table[: n + 1].cpu().clone() for name, table in tables.items()})
            how.tell(self._progress(n, scale * r))
        state.finish()

    def config(self) -> dict[str, Any]:
        return {**super().config(), "selection": self.selection}


def cluster_deviations(rows: torch.Tensor, labels: torch.Tensor, clusters: int) -> torch.Tensor:
    """(clusters, dim) standard deviations of (n, dim) rows per cluster and dimension, floored.

    Deviations from the cluster's mean. Clusters with fewer than two rows get the deviations of all rows. The
    least value is `_FLOOR` times that, and never zero, even if a dimension is constant.
    """
    rows = rows.double()
    counts = torch.bincount(labels, minlength=clusters)[:, None]
    zeros = rows.new_zeros(clusters, rows.shape[1])
    means = zeros.index_add(0, labels, rows) / counts.clamp(min=1)
    squares = zeros.index_add(0, labels, (rows - means[labels]).square())
    overall = rows.std(0, correction=0)
    overall = torch.where(overall > 0, overall, overall.max().clamp(min=1e-12))
    sigma = torch.where(counts >= 2, (squares / counts.clamp(min=1)).sqrt(), overall)
    return torch.maximum(sigma, _FLOOR * overall).float()
