"""Finite scalar quantization (Mentzer et al. 2023) of existing latents.

Every coded axis is rounded to one of a few evenly spaced levels. In end-to-end training, the network adapts
its latents to the grid. Offline the grid is adapted to the latents: their principal axes, a number of levels
for each by Lagrangian bit allocation, and the step with the least squared error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch

from qincodec.core.errors import UserError, check_whole, shown
from qincodec.quantizers.base import MAX_DIM, FitProgress, Fitting, Quantizer
from qincodec.quantizers.latents import Latents

#: Possible numbers of levels of an axis: 1 (not coded), 2, 3, 4, then in steps of a quarter of a bit up to
#: 4096.
_LADDER = np.unique(np.round(2.0 ** (np.arange(49) / 4))).astype(int)
#: Candidate steps, in units of a range of +-4 standard deviations over the levels.
_STEPS = np.geomspace(0.1, 2, 40)
#: Number of an axis' values that decide steps and allocation.
_VALUES = 8192


class FSQ(Quantizer):
    """Rounds the latents' principal axes to grids; one codebook per coded axis.

    The axes have no coarse-to-fine order, so the only rate is that of all axes: another rate needs another
    fit.

    `fit` takes ``max_frames``, the most frames in memory, and changes ``codebook_sizes``. It takes seconds:
    an interrupted one starts again, and ``state_dir`` stays empty.

    Args:
        dim: dimensions of a latent.
        bits: most bits of a frame; `fit` distributes them.
        levels: of each coded axis; None distributes the bits evenly until `fit` finds better ones.

    Attributes:
        mean: (dim,).
        axes: (dim, coded axes), orthonormal columns.
        steps: (coded axes,), spacing of the levels, in the units of the latents.
    """

    kind = "fsq"
    prefix_decodable = False
    mean: torch.Tensor
    axes: torch.Tensor
    steps: torch.Tensor

    def __init__(self, dim: int, bits: float, levels: Sequence[int] | None = None) -> None:
        check_whole("dim", dim, 1, MAX_DIM)
        if type(bits) not in (int, float) or not 0 < bits <= 30 * dim:
            raise UserError(
                f"bits must be a number above 0 and at most {30 * dim} (30 a dimension), got {shown(bits)}"
            )
        if levels is None:
            coded = min(dim, int(bits))
            levels = (int(2 ** (bits / coded) + 1e-9),) * coded if coded else ()
        if not isinstance(levels, list | tuple):
            raise UserError(f"levels must be a list of whole numbers, got {shown(levels)}")
        levels = tuple(check_whole("levels", level, 2, 2**31 - 1) for level in levels)
        if sum(math.log2(level) for level in levels) > bits + 1e-6 or len(levels) > dim:
            raise UserError(f"levels {shown(levels)} need more than {dim} dimensions or {bits:g} bits")
        super().__init__(dim, levels)
        self.bits = bits
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("axes", torch.eye(dim)[:, : len(levels)].clone())
        self.register_buffer("steps", torch.tensor([4 / level for level in levels]))

    @classmethod
    def for_rate(cls, dim: int, num_codebooks: int, codebook_size: int) -> Self:
        return cls(dim=dim, bits=num_codebooks * math.log2(codebook_size))

    def _encode(self, x: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        tops = torch.tensor(self.codebook_sizes, device=x.device) - 1
        scaled = (x - self.mean) @ self.axes / self.steps + tops / 2
        return torch.minimum(scaled.round().clamp(min=0), tops).long()

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        tops = torch.tensor(self.codebook_sizes, device=codes.device) - 1
        return self.mean + ((codes - tops / 2) * self.steps) @ self.axes.T

    def _fit(self, latents: Latents, how: Fitting, max_frames: int = 1_000_000) -> None:
        latents.check(self.dim, 2 * self.dim)
        rows = latents.sample(max_frames, how.seed).astype(np.float64)
        mean = rows.mean(0)
        _, axes = np.linalg.eigh(np.cov(rows - mean, rowvar=False).reshape(self.dim, self.dim))
        values = ((rows - mean) @ axes)[np.random.default_rng(how.seed).permutation(len(rows))[:_VALUES]]
        distortions, steps = _grids(values)
        chosen = allocate(distortions, np.log2(_LADDER), self.bits)
        coded = np.flatnonzero(chosen)[::-1]  # the axis with most variance first
        if not len(coded):
            raise UserError(
                f"no axis gains from {self.bits:g} bits a frame: latents all alike, or too few bits"
            )
        self.codebook_sizes = tuple(int(level) for level in _LADDER[chosen[coded]])
        device = self.mean.device
        self.mean = torch.from_numpy(mean).float().to(device)
        self.axes = torch.from_numpy(axes[:, coded].copy()).float().to(device)
        self.steps = torch.from_numpy(steps[coded, chosen[coded]]).float().to(device)
        mse = float(distortions[np.arange(self.dim), chosen].mean())
        how.tell(FitProgress("levels of each axis", 1, 1, mse))

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "dim": self.dim, "bits": self.bits, "levels": list(self.codebook_sizes)}


def _grids(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least mean squared error and its step, both (axes, ladder), for (n, axes) values."""
    deviations = np.maximum(values.std(0), 1e-12)
    distortions = np.tile(np.square(values).mean(0)[:, None], (1, len(_LADDER)))
    best = np.ones_like(distortions)
    for column, level in enumerate(_LADDER[1:], start=1):
        for factor in _STEPS:
            step = deviations * 8 * factor / level
            codes = np.clip(np.round(values / step + (level - 1) / 2), 0, level - 1)
            error = np.square(values - (codes - (level - 1) / 2) * step).mean(0)
            better = error < distortions[:, column]
            distortions[better, column] = error[better]
            best[:, column] = np.where(better | (factor == _STEPS[0]), step, best[:, column])
    return distortions, best


def allocate(distortions: np.ndarray, costs: np.ndarray, budget: float) -> np.ndarray:
    """(axes,) choice per axis that makes the summed distortion small within the budget.

    Args:
        distortions: (axes, choices).
        costs: (choices,), ascending from 0.
        budget: of the summed costs.
    """
    low, high = 0.0, float(distortions.max()) + 1e-300
    for _ in range(100):  # Lagrangian: distortion + multiplier * cost, the multiplier by bisection
        middle = (low + high) / 2
        within = costs[(distortions + middle * costs).argmin(1)].sum() <= budget
        low, high = (low, middle) if within else (middle, high)
    choice = (distortions + high * costs).argmin(1)
    while True:  # spend the Lagrangian's rest by the best return per bit
        gains = [
            (float(distortions[axis, at] - distortions[axis, up]) / float(costs[up] - costs[at]), axis, up)
            for axis, at in enumerate(choice)
            for up in range(at + 1, len(costs))
            if costs[choice].sum() - costs[at] + costs[up] <= budget + 1e-9
        ]
        gain, axis, up = max(gains, default=(0.0, 0, 0))
        if gain <= 0:
            return choice
        choice[axis] = up
