"""Convolution by 3 x 3 with a quarter of the multiplications, for inference on a CPU.

Winograd's F(4 x 4, 3 x 3) in the form of Lavin and Gray ("Fast Algorithms for Convolutional Neural
Networks", CVPR 2016): 16 values of the output from 36 of the input in 36 products of the channels instead of
144. With few channels the transforms before and after cost more than this saves.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional

_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
#: Times 24.
_KERNEL = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class WinogradConv2d(nn.Conv2d):
    """``nn.Conv2d(channels, width, 3, padding=1)``, to 1e-5 of its largest value; on a GPU exactly the same.

    The weights must not change after the first call.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 3, padding=1)
        self._transformed: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width), channels last -> the same shape with other channels."""
        if x.device.type != "cpu":
            return super().forward(x)
        if self._transformed is None:
            kernel = torch.tensor(_KERNEL, dtype=torch.float64) / 24
            weight = torch.einsum("ik,ockl,jl->ijco", kernel, self.weight.double(), kernel)
            self._transformed = weight.flatten(0, 1).float().contiguous()
        batch, channels, height, width = x.shape
        rows, columns = -(-height // 4), -(-width // 4)
        x = functional.pad(
            x.permute(0, 2, 3, 1), (0, 0, 1, 4 * columns + 1 - width, 1, 4 * rows + 1 - height)
        )
        image, row, column, _ = x.stride()
        maps = x.new_empty(batch, rows, 4, columns, 4, self.out_channels)
        # About as many tiles per step as channels: enough for the products, few enough for the cache.
        step = max(1, round(channels / (batch * columns)))
        for top in range(0, rows, step):
            count = min(step, rows - top)
            # Tiles of 6 x 6, each 4 after the last: (36, tiles, channels).
            shape = 6, 6, batch, count, columns, channels
            strides = row, column, image, 4 * row, 4 * column, 1
            tiles = x[:, 4 * top :].as_strided(shape, strides).reshape(36, -1)
            products = (_both_ways(_INPUT) @ tiles).view(36, -1, channels).bmm(self._transformed)
            values = (_both_ways(_OUTPUT) @ products.flatten(1)).view(4, 4, batch, count, columns, -1)
            maps[:, top : top + count] = values.permute(2, 3, 0, 4, 1, 5)
        assert self.bias is not None
        maps = maps.view(batch, 4 * rows, 4 * columns, -1)[:, :height, :width] + self.bias
        return maps.permute(0, 3, 1, 2)


@lru_cache(maxsize=2)
def _both_ways(matrix: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    """The transform of the columns and of the rows of a tile, as one matrix."""
    with torch.inference_mode(False):  # kept, and maybe used with gradients
        one_way = torch.tensor(matrix, dtype=torch.float32)
        return torch.kron(one_way, one_way)
