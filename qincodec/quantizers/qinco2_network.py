"""QINCO2: residual quantization with implicit neural codebooks (Vallaeys et al. 2025).

With x_hat_0 = 0 and x_hat_m the reconstruction after stage m, stage 1 is a plain codebook and stage m > 1
adds f_m(c_m[i_m], x_hat_m-1), where the network f_m computes a codeword from one of a plain codebook and the
reconstruction so far::

    h  = P_in c
    h += W [h; x_hat] + b
    h += Down_l ReLU(Up_l h)    for each of L blocks
    f  = c + P_out h
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from qincodec.core.errors import UserError, check_whole
from qincodec.quantizers.base import EqualCodebooks
from qincodec.quantizers.beam import Found, Search, StageTables, search
from qincodec.quantizers.rvq import RVQ

#: The paper's sizes; QINCODEC uses M.
SIZES: dict[str, dict[str, int]] = {
    "S": {"num_blocks": 2, "width": 128, "hidden": 256},
    "M": {"num_blocks": 4, "width": 384, "hidden": 384},
    "L": {"num_blocks": 16, "width": 384, "hidden": 384},
}
#: Distances per step of a search: as many as fit in a CPU's cache, and on a GPU.
_DISTANCES_CPU, _DISTANCES_GPU = 1 << 21, 1 << 27
#: Greatest number of weights of all networks: 0.8 GB.
_MOST_WEIGHTS = 200_000_000


class ImplicitCodebook(nn.Module):
    """f_m, which computes the codewords of one stage.

    W, b, Down and P_out are zero at first: f(c, x_hat) = c, and training starts at plain residual
    quantization.
    """

    def __init__(self, dim: int, num_blocks: int, width: int, hidden: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(dim, width, bias=False)
        self.condition = nn.Linear(width + dim, width)
        self.up = nn.ModuleList(nn.Linear(width, hidden, bias=False) for _ in range(num_blocks))
        self.down = nn.ModuleList(nn.Linear(hidden, width, bias=False) for _ in range(num_blocks))
        self.project_out = nn.Linear(width, dim, bias=False)
        self.reset()

    def reset(self) -> None:
        for layer in (self.condition, self.project_out, *self.down):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, c: torch.Tensor, x_hat: torch.Tensor) -> torch.Tensor:
        """(..., dim) codewords from plain codewords and reconstructions, both (..., dim)."""
        h = self.project_in(c)
        h = h + self.condition(torch.cat([h, x_hat], -1))
        for up, down in zip(self.up, self.down, strict=True):
            h = h + down(torch.relu(up(h)))
        return c + self.project_out(h)


class QINCO2Model(EqualCodebooks):
    """Residual quantizer whose codebooks depend on the reconstruction so far, without its training.

    Args:
        dim: dimensions of a latent.
        num_codebooks: N.
        codebook_size: K.
        num_blocks: L, residual blocks of each network; see `SIZES`.
        width: d_e, of the network.
        hidden: d_h, inside a block.
        search: initial `search`; None: A = 16, B = 32 with a shortlist of 64.

    Attributes:
        search: search of `encode`; can be set at run time. Decoding does not depend on it.
        codebooks: (N, K, dim).
        preselection: (N - 1, K, dim), the plain codebooks that select candidates from stage 2 on.
        mean, scale: (dim,) and (), of the latents; the networks see (x - mean) / scale.
    """

    recordable = True
    networks: nn.ModuleList
    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        dim: int,
        num_codebooks: int,
        codebook_size: int = 1024,
        num_blocks: int = 4,
        width: int = 384,
        hidden: int = 384,
        search: Search | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(dim, num_codebooks, codebook_size)
        self.sizes = {
            "num_blocks": check_whole("num_blocks", num_blocks, 0, 128),
            "width": check_whole("width", width, 1, 8192),
            "hidden": check_whole("hidden", hidden, 1, 8192),
        }
        weights = (num_codebooks - 1) * width * (3 * dim + width + 2 * num_blocks * hidden)
        if weights > _MOST_WEIGHTS:
            raise UserError(
                f"networks of {num_codebooks} codebooks, num_blocks {num_blocks}, width {width} and hidden"
                f" {hidden} have {weights} weights; allowed are {_MOST_WEIGHTS}; lower one of these numbers"
            )
        if search is None:
            # The paper's widths; 64 of the 512 candidates give the same error, see `Search`.
            search = Search(candidates=min(16, codebook_size), beam=32, shortlist=64)
        self.search = search if isinstance(search, Search) else Search.from_dict(search)
        start = RVQ(dim, num_codebooks, codebook_size).codebooks
        self.codebooks = nn.Parameter(start.clone())
        self.preselection = nn.Parameter(start[1:].clone())
        self.networks = nn.ModuleList(
            ImplicitCodebook(dim, num_blocks, width, hidden) for _ in range(num_codebooks - 1)
        )
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        self._tables: tuple[Any, list[StageTables]] | None = None

    @torch.no_grad()
    def start_from(
        self, rvq: RVQ, mean: torch.Tensor, scale: torch.Tensor, *, noise: float = 0.0, seed: int = 0
    ) -> None:
        """Start from the residual quantizer ``rvq`` of standardised latents.

        Args:
            rvq: of the same sizes, fitted on (x - mean) / scale.
            mean: (dim,).
            scale: scalar.
            noise: standard deviation of noise added to the codewords, in units of their own per stage.
            seed: of the noise.
        """
        codebooks = rvq.codebooks.cpu()
        random = torch.randn(codebooks.shape, generator=torch.Generator().manual_seed(seed))
        codebooks = codebooks + noise * codebooks.std((1, 2), keepdim=True) * random
        self.codebooks.copy_(codebooks)
        self.preselection.copy_(codebooks[1:])
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        for network in self.networks:
            assert isinstance(network, ImplicitCodebook)
            network.reset()

    def tables(self, precision: str) -> list[StageTables]:
        """The stages after the first, prepared for the search; cached until a parameter changes."""
        key = (precision, *((p.data_ptr(), p._version) for p in self.parameters()))
        if self._tables is None or self._tables[0] != key:
            self._tables = (key, self._make_tables(precision))
        return self._tables[1]

    def forget_tables(self) -> None:
        """Clear the cache after changes that torch does not count: those of a recorded step."""
        self._tables = None

    @torch.no_grad()
    def _make_tables(self, precision: str) -> list[StageTables]:
        stages = []
        for number, network in enumerate(self.networks):
            assert isinstance(network, ImplicitCodebook)
            width = network.project_in.out_features
            codebook = self.codebooks[number + 1].detach()
            h = network.project_in(codebook)
            h = h + nn.functional.linear(h, network.condition.weight[:, :width], network.condition.bias)
            stages.append(
                StageTables.of(
                    codebook=codebook,
                    preselection=self.preselection[number],
                    table=h,
                    by_reconstruction=network.condition.weight[:, width:],
                    blocks=[
                        (up.get_parameter("weight").detach(), down.get_parameter("weight").detach())
                        for up, down in zip(network.up, network.down, strict=True)
                    ],
                    out=network.project_out.weight.detach(),
                    precision=precision,
                )
            )
        return stages

    @torch.no_grad()
    def find(self, z: torch.Tensor, num_codebooks: int, how: Search) -> Found:
        """Codes and partial reconstructions of (n, dim) standardised latents."""
        size = self.codebook_size
        if how.candidates > size:
            raise UserError(f"A = {how.candidates} candidates are more than the {size} codewords of a stage")
        if how.beam * size > (most := _DISTANCES_GPU):
            raise UserError(
                f"a search of beam {how.beam} over {size} codewords needs {how.beam * size} distances per "
                f"step; allowed are {most}; give a beam of {most // size} at most"
            )
        stages = self.tables(how.precision)[: num_codebooks - 1]
        chunk = max(1, (_DISTANCES_GPU if z.is_cuda else _DISTANCES_CPU) // (size * how.beam))
        parts = [search(rows, self.codebooks[0].detach(), stages, how) for rows in z.split(chunk)]
        return Found(torch.cat([part.codes for part in parts]), torch.cat([part.partials for part in parts]))

    def _encode(self, x: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        # In blocks of rows, because the partial reconstructions of a long file are not needed.
        parts = ((rows - self.mean) / self.scale for rows in x.split(1 << 14))
        return torch.cat([self.find(part, num_codebooks, self.search).codes for part in parts])

    def reconstruct(self, codes: torch.Tensor) -> list[torch.Tensor]:
        """(n, dim) standardised reconstruction after each stage, from (n, m) codes; differentiable."""
        x_hat = self.codebooks[0][codes[:, 0]]
        partials = [x_hat]
        for n, network in enumerate(self.networks[: codes.shape[1] - 1], start=1):
            x_hat = x_hat + network(self.codebooks[n][codes[:, n]], x_hat)
            partials.append(x_hat)
        return partials

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        # The activations of 4096 rows fit in the processor's cache.
        z = torch.cat([self.reconstruct(rows)[-1] for rows in codes.split(4096)])
        return z * self.scale + self.mean

    def config(self) -> dict[str, Any]:
        return {**super().config(), **self.sizes, "search": asdict(self.search)}

    def searching(self, preset: str) -> None:
        self.search = self.search.preset(preset)

    def settings(self) -> dict[str, Any]:
        # Formerly the pre-selection was always float32, which gave other scores.
        more = {} if self.search.precision == "float32" else {"preselection": self.search.precision}
        return asdict(self.search) | more
