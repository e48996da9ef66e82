"""Beam search over the codewords of QINCO2: the deep network runs rarely, and in large products.

A stage's network on (codeword c, reconstruction x_hat) begins with a linear map. This splits into a table
over the codewords and one vector per reconstruction, so the search never multiplies by the first two layers::

    h_0 = P_in c + W [P_in c; x_hat] + b  =  table[c] + W_x x_hat

The plain codebook that selects A candidates for each of the B reconstructions also predicts the distance of
each of all A * B candidates from the target. With ``shortlist`` only the best predictions are evaluated; on a
CPU these are searched among all B * K together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from qincodec.core.errors import UserError, check_whole, shown
from qincodec.quantizers.base import squared_distances

#: Entries of a group in `smallest`.
_GROUP = 8
#: Candidates per step, so that their activations fit in the processor's cache.
_ROWS = 4096
#: Greatest number of a vector's candidates in a stage that are held in memory.
_MOST_EVALUATED = 1 << 18
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: Names of `Search.preset`, each with its share of a model's own beam and shortlist.
PRESETS = {"fast": 0.5, "default": 1, "best": 2}


@dataclass(frozen=True)
class Search:
    """Search for QINCO2's codes; the decoder does not need it.

    docs/explanation/speed.md has speed and error of the settings, measured by benchmarks/qinco2_speed.py.
    B reduces the error more than the other settings.

    Attributes:
        candidates: A, codewords of each stage that are considered for each partial reconstruction.
        beam: B, partial reconstructions that are kept after each stage.
        shortlist: number of a stage's A * B candidates that the network evaluates; None evaluates all.
        precision: "float32", or "bfloat16": network and pre-selection then multiply numbers rounded to
            bfloat16, sum in float32 and round the result. The errors that decide which reconstructions are
            kept are float32. Every processor gives the same: those without such products round and multiply
            in float32, about as fast as "float32".
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

    def preset(self, name: str) -> Search:
        """This search in bfloat16, with its beam and shortlist unchanged ("default"), halved or doubled.

        Raises:
            UserError: another name.
        """
        if name not in PRESETS:
            raise UserError(f"search must be fast, default or best; got {shown(name)}")
        share, shortlist = PRESETS[name], self.shortlist
        return replace(
            self,
            beam=min(1 << 12, max(1, int(self.beam * share))),
            shortlist=shortlist and min(_MOST_EVALUATED, max(1, int(shortlist * share))),
            precision="bfloat16",
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Search:
        """Search from values of a configuration. Raises UserError for unknown names and wrong numbers."""
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(
                f"search does not fit: {error}; it has {', '.join(cls.__annotations__)}"
            ) from error


@lru_cache
def multiplies_bfloat16(kind: str) -> bool:
    """Whether devices of this kind ("cpu", "cuda") multiply bfloat16 faster than float32."""
    if kind != "cpu":
        return True
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())


class StageTables(NamedTuple):
    """One stage, ready for the search.

    Attributes:
        codebook: (K, dim), float32.
        likeness: (dim + 4, K), factor in `_guesses`.
        table: (K, width), output of the first two layers for each codeword.
        by_reconstruction: (width, dim), float32.
        blocks: (up, down) of each residual block.
        out: (dim, width).
        rounds: values and results are bfloat16's, stored as float32.
    """

    codebook: torch.Tensor
    likeness: torch.Tensor
    table: torch.Tensor
    by_reconstruction: torch.Tensor
    blocks: tuple[tuple[torch.Tensor, ...], ...]
    out: torch.Tensor
    rounds: bool

    @classmethod
    def of(
        cls,
        codebook: torch.Tensor,
        preselection: torch.Tensor,
        table: torch.Tensor,
        by_reconstruction: torch.Tensor,
        blocks: Sequence[tuple[torch.Tensor, torch.Tensor]],
        out: torch.Tensor,
        precision: str,
    ) -> StageTables:
        """A stage from float32 tensors; ``preselection`` is (K, dim)."""
        rounds = precision == "bfloat16" and not multiplies_bfloat16(codebook.device.type)

        def stored(x: torch.Tensor) -> torch.Tensor:
            x = x.to(PRECISIONS[precision])
            return x.float() if rounds else x

        norm = preselection.square().sum(1, keepdim=True)
        likeness = torch.cat([-2 * preselection, *_two_parts(norm), torch.ones_like(norm).expand(-1, 2)], 1)
        return cls(
            codebook=codebook,
            likeness=stored(likeness.T.contiguous()),
            table=stored(table),
            by_reconstruction=by_reconstruction.contiguous(),
            blocks=tuple((stored(up), stored(down)) for up, down in blocks),
            out=stored(out),
            rounds=rounds,
        )

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """``x``, rounded in place if products are not."""
        return x.copy_(x.bfloat16()) if self.rounds else x


class Found(NamedTuple):
    """Result of a search.

    Attributes:
        codes: (n, m), int64.
        partials: (n, m, dim), the search's reconstruction after each stage.
    """

    codes: torch.Tensor
    partials: torch.Tensor


def smallest(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and indices of the k smallest entries along the last axis, unordered.

    The k smallest of all are among the k groups with the smallest minima. On the CPU a strided minimum is
    much faster than `torch.topk`, so searching these groups first takes a third of the time.
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
    step = stage.codebook.index_select(0, code)
    size = len(code) if code.is_cuda else _ROWS
    for part, codes, rows in zip(step.split(size), code.split(size), row.split(size), strict=True):
        h = stage.table.index_select(0, codes)
        h += by_beam.index_select(0, rows)
        stage.rounded(h)
        for up, down in stage.blocks:
            inner = stage.rounded(torch.relu_(h @ up.T))
            stage.rounded(h.addmm_(inner, down.T))
        part += stage.rounded(h @ stage.out.T)
    return step


def search(x: torch.Tensor, first: torch.Tensor, stages: Sequence[StageTables], how: Search) -> Found:
    """Search the codes of (n, dim) vectors, n small enough that n * B * K floats fit in memory.

    Args:
        x: (n, dim), float32, standardised.
        first: (K, dim), the codebook of stage 1.
        stages: the later stages.
    """
    n, dim = x.shape
    history: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # parent, code, x_hat: (n, kept, ...)

    keep = min(how.beam, len(first)) if stages else 1
    _, code = smallest(squared_distances(x, first), keep)
    x_hat = first[code]
    history.append((torch.zeros_like(code), code, x_hat))

    frames = torch.arange(n, device=x.device)[:, None]
    for number, stage in enumerate(stages):
        beams = x_hat.shape[1]
        residual = x[:, None] - x_hat
        parent, code = _candidates(stage.rounded(_guesses(residual, stage)), how)
        by_beam = (x_hat.flatten(0, 1) @ stage.by_reconstruction.T).to(stage.table.dtype)
        row = (parent + beams * frames).flatten()
        step = evaluate(stage, code.flatten(), stage.rounded(by_beam), row)
        error = (residual.flatten(0, 1).index_select(0, row) - step).square_().sum(1).view(n, -1)

        evaluated = code.shape[1]
        _, best = smallest(error, 1 if number == len(stages) - 1 else min(how.beam, evaluated))
        parent, code = parent.gather(1, best), code.gather(1, best)
        x_hat = x_hat.flatten(0, 1).index_select(0, (parent + beams * frames).flatten())
        x_hat += step.index_select(0, (best + evaluated * frames).flatten())
        x_hat = x_hat.view(n, -1, dim)
        history.append((parent, code, x_hat))

    at = torch.zeros(n, 1, dtype=torch.int64, device=x.device)
    codes, partials = [], []
    for parent, code, x_hat in reversed(history):
        codes.append(code.gather(1, at))
        partials.append(x_hat.gather(1, at[:, :, None].expand(-1, -1, dim)))
        at = parent.gather(1, at)
    return Found(torch.cat(codes[::-1], 1), torch.cat(partials[::-1], 1))


def _two_parts(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers whose sum is x though each is rounded to bfloat16: to 17 bits."""
    high = x.bfloat16().to(x.dtype)
    return high, x - high


def _guesses(residual: torch.Tensor, stage: StageTables) -> torch.Tensor:
    """(n, beams, K) squared distances of (n, beams, dim) residuals from the codewords of the pre-selection.

    Without the term that all of a vector share, so that rounding to bfloat16 is finest for the smallest. One
    product gives them: of (r, 1, 1, ||r||^2 in two parts) and (-2 c, ||c||^2 in two parts, 1, 1).
    """
    norm = residual.square().sum(2, keepdim=True)
    norm -= norm.amin(1, keepdim=True)
    left = torch.cat([residual, torch.ones_like(norm).expand(-1, -1, 2), *_two_parts(norm)], 2)
    left = stage.rounded(left.to(stage.likeness.dtype))
    return (left.flatten(0, 1) @ stage.likeness).view(*residual.shape[:2], -1)


def _candidates(guess: torch.Tensor, how: Search) -> tuple[torch.Tensor, torch.Tensor]:
    """(beam, codeword) of the candidates, both (n, candidates), by (n, beams, K) guessed distances.

    Changes ``guess``.
    """
    n, beams, size = guess.shape
    width = how.candidates
    shortlist = beams * width if how.shortlist is None else how.shortlist
    short = shortlist < beams * width
    if short and (width == size or not guess.is_cuda):
        at = _few_of_each(guess, width, shortlist)
        return at // size, at % size
    guess, code = smallest(guess, width)
    parent = torch.arange(beams, device=guess.device).repeat_interleave(width).expand(n, -1)
    code = code.flatten(1)
    if not short:
        return parent, code
    _, at = smallest(guess.flatten(1), shortlist)
    return parent.gather(1, at), code.gather(1, at)


def _few_of_each(guess: torch.Tensor, width: int, count: int) -> torch.Tensor:
    """(n, count) indices into B * K of the smallest of (n, B, K), at most ``width`` of each of the B.

    If a beam has more, its ``width`` smallest are kept and its vector is searched again; this is rare.
    """
    n, beams, size = guess.shape
    _, at = smallest(guess.flatten(1), count)
    for _ in range(beams if width < size else 0):
        beam = at // size
        taken = torch.zeros(n, beams, dtype=torch.int64, device=at.device)
        frame, beam = (taken.scatter_add_(1, beam, torch.ones_like(beam)) > width).nonzero().T
        if not len(frame):
            break
        full = guess[frame, beam]
        values, kept = smallest(full, width)
        guess[frame, beam] = full.fill_(torch.inf).scatter_(1, kept, values)
        frame = frame.unique()
        _, at[frame] = smallest(guess[frame].flatten(1), count)
    return at
