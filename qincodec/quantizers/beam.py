"""Beam search over the codewords of QINCO2: the deep network runs seldom, and in large products.

What a stage's network does to (codeword c, reconstruction x_hat) begins with a linear map, so it splits
into a table over the codewords and one vector per reconstruction, and the search never multiplies by its
first two layers::

    h_0 = P_in c + W [P_in c; x_hat] + b  =  table[c] + W_x x_hat

The plain codebook that picks A candidates for each of the B reconstructions also says how far each of all
A * B candidates is likely to end from the target. ``shortlist`` evaluates the likeliest of them only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from qincodec.core.errors import UserError, check_whole, shown
from qincodec.quantizers.base import squared_distances

#: Entries of a group in `smallest`.
_GROUP = 8
#: Candidates whose activations are in the processor's cache at a time.
_ROWS = 2048
#: Candidates of a vector in a stage that are held at a time.
_MOST_EVALUATED = 1 << 18
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Search:
    """How QINCO2 looks for codes; the decoder needs none of it.

    Measured by benchmarks/qinco2_speed.py for size M, D = 32, K = 1024, N = 9 on two cores with AVX-512 and
    its bfloat16, over the full search of A = 16 and B = 32 by the definition: ``shortlist=64`` has the same
    codes and 11 times the speed; ``shortlist=32`` 0.3 % more squared error and 17 times the speed, which is
    1.3 times real time; with "bfloat16" 19 and 32 times, 1.3 and 2.1 times real time. Error falls with B
    more than with anything else. On processors without bfloat16 arithmetic that precision is slow.

    Attributes:
        candidates: A, codewords of each stage that are considered for each partial reconstruction.
        beam: B, partial reconstructions that are kept after each stage.
        shortlist: of the A * B candidates of a stage, those the network evaluates; None evaluates all.
        precision: of the network within the search, "float32" or "bfloat16". Distances are float32.
    """

    candidates: int = 16
    beam: int = 32
    shortlist: int | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_whole("search: candidates", self.candidates, 1, 1 << 16)
        check_whole("search: beam", self.beam, 1, 1 << 12)
        if self.shortlist is not None:
            check_whole("search: shortlist", self.shortlist, 1, _MOST_EVALUATED)
        elif self.candidates * self.beam > _MOST_EVALUATED:
            raise UserError(
                f"search: candidates {self.candidates} times beam {self.beam} is more than {_MOST_EVALUATED}:"
                " lower one, or set a shortlist"
            )
        if self.precision not in list(PRECISIONS):
            raise UserError(
                f"search: precision must be {' or '.join(PRECISIONS)}, got {shown(self.precision)}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Search:
        """Of the values of a configuration. Raises UserError for names that are unknown and numbers too."""
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(
                f"search does not fit: {error}; it has {', '.join(cls.__annotations__)}"
            ) from error


class StageTables(NamedTuple):
    """One stage, ready for the search.

    Attributes:
        codebook: (K, dim), float32.
        preselection: (K, dim), float32.
        table: (K, width), what the first two layers make of each codeword.
        by_reconstruction: (width, dim), float32.
        blocks: (up, down) of each residual block.
        out: (dim, width).
    """

    codebook: torch.Tensor
    preselection: torch.Tensor
    table: torch.Tensor
    by_reconstruction: torch.Tensor
    blocks: tuple[tuple[torch.Tensor, ...], ...]
    out: torch.Tensor


class Found(NamedTuple):
    """Result of a search.

    Attributes:
        codes: (n, m), int64.
        partials: (n, m, dim), the reconstruction after each stage, as the search saw it.
    """

    codes: torch.Tensor
    partials: torch.Tensor


def smallest(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and indices of the k smallest entries along the last axis, in no order.

    The k smallest of all are among the k groups with the smallest minima. On the CPU a strided minimum is
    so much faster than `torch.topk` that looking for those groups first takes a third of the time.
    """
    size = x.shape[-1]
    groups = size // _GROUP
    if x.is_cuda or size % _GROUP or groups < 4 * k:
        values, indices = x.topk(k, dim=-1, largest=False, sorted=False)
        return values, indices
    minima = x.view(*x.shape[:-1], _GROUP, groups).amin(-2)
    _, chosen = smallest(minima, k)
    members = chosen[..., None, :] + groups * torch.arange(_GROUP, device=x.device)[:, None]
    members = members.flatten(-2)
    values, at = x.gather(-1, members).topk(k, dim=-1, largest=False, sorted=False)
    return values, members.gather(-1, at)


def evaluate(
    stage: StageTables, code: torch.Tensor, by_beam: torch.Tensor, row: torch.Tensor
) -> torch.Tensor:
    """(rows, dim) float32 network codewords.

    Args:
        code: (rows,) codeword of each row.
        by_beam: (beams, width), ``by_reconstruction`` times each partial reconstruction.
        row: (rows,) beam of each row.
    """
    step = stage.codebook[code]
    size = len(code) if code.is_cuda else _ROWS
    for part, codes, rows in zip(step.split(size), code.split(size), row.split(size), strict=True):
        h = stage.table[codes]
        h += by_beam[rows]
        for up, down in stage.blocks:
            h.addmm_(torch.relu_(h @ up.T), down.T)
        part += h @ stage.out.T
    return step


def search(x: torch.Tensor, first: torch.Tensor, stages: Sequence[StageTables], how: Search) -> Found:
    """Search the codes of (n, dim) vectors, n small enough that n * B * K floats fit in memory.

    Args:
        x: (n, dim), float32, standardised.
        first: (K, dim), the codebook of stage 1.
        stages: the stages after it.
    """
    n, dim = x.shape
    history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # parent, code, x_hat: (n, kept, ...)

    keep = min(how.beam, len(first)) if stages else 1
    _, code = smallest(squared_distances(x, first), keep)
    x_hat = first[code]
    history.append((torch.zeros_like(code), code, x_hat))

    for number, stage in enumerate(stages):
        residual = x[:, None] - x_hat
        parent, code = _candidates(residual, stage.preselection, how)
        by_beam = (x_hat.flatten(0, 1) @ stage.by_reconstruction.T).to(stage.table.dtype)
        row = (parent + x_hat.shape[1] * torch.arange(n, device=x.device)[:, None]).flatten()
        step = evaluate(stage, code.flatten(), by_beam, row)
        error = (residual.flatten(0, 1)[row] - step).square().sum(1).view(n, -1)

        _, best = smallest(error, 1 if number == len(stages) - 1 else min(how.beam, code.shape[1]))
        parent, code = parent.gather(1, best), code.gather(1, best)
        wide = best[:, :, None].expand(-1, -1, dim)
        x_hat = x_hat.gather(1, parent[:, :, None].expand(-1, -1, dim)) + step.view(n, -1, dim).gather(
            1, wide
        )
        history.append((parent, code, x_hat))

    at = torch.zeros(n, 1, dtype=torch.int64, device=x.device)
    codes, partials = [], []
    for parent, code, x_hat in reversed(history):
        codes.append(code.gather(1, at))
        partials.append(x_hat.gather(1, at[:, :, None].expand(-1, -1, dim)))
        at = parent.gather(1, at)
    return Found(torch.cat(codes[::-1], 1), torch.cat(partials[::-1], 1))


def _candidates(
    residual: torch.Tensor, preselection: torch.Tensor, how: Search
) -> tuple[torch.Tensor, torch.Tensor]:
    """(beam, codeword) of the candidates of (n, beams, dim) residuals, both (n, candidates)."""
    n, beams, _ = residual.shape
    size, width = len(preselection), how.candidates
    guess = squared_distances(residual, preselection)
    norm = residual.square().sum(2, keepdim=True)  # differs between beams, and is not in the distances
    short = how.shortlist is not None and how.shortlist < beams * width
    if short and width == size:
        _, at = smallest((guess + norm).flatten(1), how.shortlist or 0)
        return at // size, at % size
    guess, code = smallest(guess, width)
    parent = torch.arange(beams, device=residual.device).repeat_interleave(width).expand(n, -1)
    code = code.flatten(1)
    if not short:
        return parent, code
    _, at = smallest((guess + norm).flatten(1), how.shortlist or 0)
    return parent.gather(1, at), code.gather(1, at)
