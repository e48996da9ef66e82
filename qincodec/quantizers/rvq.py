"""Residual vector quantization, each codebook by k-means of the residuals (QINCODEC paper, III-A and V-E)."""

from __future__ import annotations

import numpy as np
import torch

from qincodec.core.errors import UserError, shown
from qincodec.quantizers.base import EqualCodebooks, Fitting, squared_distances
from qincodec.quantizers.fit_state import FitState
from qincodec.quantizers.latents import Latents

#: Frames to fit a codebook by k-means on, as in the paper.
MAX_FRAMES = 5_000_000
#: Ways to fit a codebook, see `k_means`.
K_MEANS = ("minibatch", "lloyd")
#: Passes of `lloyd` over all rows.
_PASSES = 25
#: Distances (frames times codewords) per step: 64 MB, and on a CPU 2 MB, which stay in its cache.
_DISTANCES, _DISTANCES_CPU = 1 << 24, 1 << 19


def check_k_means(name: str) -> None:
    """Raise UserError for a name that is not one of `K_MEANS`."""
    if name not in K_MEANS:
        raise UserError(f"unknown k_means {shown(name)}; give {' or '.join(K_MEANS)}")


def k_means(rows: torch.Tensor, clusters: int, seed: int, how: str = "minibatch") -> torch.Tensor:
    """(clusters, dim) centroids of (n, dim) rows, on the rows' device.

    Args:
        how: "minibatch", scikit-learn's mini-batch k-means with batches of 3K, as in the paper, computed on
            the CPU; or `lloyd`, whose error is a few percent lower.
    """
    if how == "lloyd":
        return lloyd(rows, clusters, seed)
    # On use: encoding and decoding do not need it, and it takes a second to import.
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    model = MiniBatchKMeans(clusters, batch_size=3 * clusters, random_state=seed, n_init="auto")
    # The batches are small: more threads are slower on a busy machine and round differently.
    with threadpool_limits(1):
        centers = np.asarray(model.fit(rows.cpu().numpy()).cluster_centers_, dtype=np.float32)
    return torch.from_numpy(centers).to(rows.device)


def lloyd(rows: torch.Tensor, clusters: int, seed: int, passes: int = _PASSES) -> torch.Tensor:
    """(clusters, dim) centroids of (n, dim) rows by Lloyd's algorithm, on the rows' device.

    It begins with random rows; an empty cluster restarts at another row.
    """
    random = torch.Generator().manual_seed(seed)
    centroids = rows[torch.randperm(len(rows), generator=random)[:clusters].to(rows.device)]
    for _ in range(passes):
        cluster = nearest(rows, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, cluster, rows)
        counts = torch.bincount(cluster, minlength=clusters)[:, None]
        others = rows[torch.randint(len(rows), (clusters,), generator=random).to(rows.device)]
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), others)
    return centroids


def next_codebook(residual: torch.Tensor, n: int, size: int, seed: int, how: str) -> torch.Tensor:
    """(size, dim) codewords of stage ``n`` by `k_means` of its residuals; all but the first include 0."""
    if n == 0:
        return k_means(residual, size, seed, how)
    codebook = k_means(residual, size - 1, seed + n, how)
    return torch.cat([codebook.new_zeros(1, codebook.shape[1]), codebook])


def nearest(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """(n,) index of the codeword nearest to each of (n, dim) rows, in bounded memory."""
    on_cpu = x.device.type == "cpu"
    blocks = x.split(max(1, (_DISTANCES_CPU if on_cpu else _DISTANCES) // len(codebook)))
    distances = (squared_distances(rows, codebook).detach() for rows in blocks)
    if on_cpu:  # NumPy's argmin is several times as fast as torch's; NumPy has no bfloat16
        arrays = ((d.float() if d.dtype == torch.bfloat16 else d).numpy() for d in distances)
        return torch.from_numpy(np.concatenate([array.argmin(1) for array in arrays]))
    return torch.cat([d.argmin(1) for d in distances])


class AdditiveQuantizer(EqualCodebooks):
    """A quantizer whose reconstruction is a sum of codewords, one per codebook.

    Attributes:
        codebooks: (num_codebooks, codebook_size, dim).
    """

    codebooks: torch.Tensor

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int = 1024) -> None:
        super().__init__(dim, num_codebooks, codebook_size)
        # Random, each half as large as the previous one, so that an unfitted quantizer can be tried.
        scale = 0.5 ** torch.arange(num_codebooks)[:, None, None]
        self.register_buffer("codebooks", torch.randn(num_codebooks, codebook_size, dim) * scale)

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        x = self.codebooks[0, codes[:, 0]]
        for n in range(1, codes.shape[1]):
            x = x + self.codebooks[n, codes[:, n]]
        return x


class RVQ(AdditiveQuantizer):
    """Residual vector quantizer: each codebook quantizes the residual of the previous ones.

    Every codebook but the first includes the zero vector, so that another codebook never increases the error
    of a frame. `fit` takes ``max_frames``: one codebook after the other is fitted on at most this number of
    frames, held in memory, by ``k_means`` ("minibatch", as in the paper, or "lloyd"). An interrupted fit
    continues with its current codebook.

    Args:
        dim: dimensions of a latent.
        num_codebooks: N.
        codebook_size: K.
    """

    kind = "rvq"
    prefix_encoded = True
    recordable = True

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int = 1024) -> None:
        super().__init__(dim, num_codebooks, codebook_size)
        self.codebooks[1:, 0] = 0

    def _encode(self, x: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        residual, codes = x, []
        for codebook in self.codebooks[:num_codebooks]:
            code = nearest(residual, codebook)
            residual = residual - codebook[code]
            codes.append(code)
        return torch.stack(codes, 1)

    def _fit(
        self, latents: Latents, how: Fitting, max_frames: int = MAX_FRAMES, k_means: str = "minibatch"
    ) -> None:
        check_k_means(k_means)
        latents.check(self.dim, self.codebook_size)
        state = FitState(how.state_dir, self, latents, seed=how.seed, max_frames=max_frames, k_means=k_means)
        done = state.load()
        residual = torch.from_numpy(latents.sample(max_frames, how.seed)).to(self.codebooks.device)
        for n in range(self.num_codebooks):
            if n < len(done.get("codebooks", ())):
                codebook = done["codebooks"][n].to(residual.device)
            else:
                codebook = next_codebook(residual, n, self.codebook_size, how.seed, k_means)
            residual -= codebook[nearest(residual, codebook)]
            self.codebooks[n] = codebook
            state.save({"codebooks": self.codebooks[: n + 1].cpu().clone()})
            how.tell(self._progress(n, residual))
        state.finish()
