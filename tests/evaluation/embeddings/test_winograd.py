"""The fast convolution beside the plain one in float64, at sizes that are no multiple of its tiles too."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from evaluation.embeddings.winograd import WinogradConv2d


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 5), (1, 2), (13, 4)])
def test_is_the_convolution(height: int, width: int) -> None:
    torch.manual_seed(0)
    layer = WinogradConv2d(24, 40).requires_grad_(False)
    x = torch.randn(3, 24, height, width).contiguous(memory_format=torch.channels_last)
    exact = functional.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
    y = layer(x)
    assert y.shape == exact.shape
    assert (y - exact).abs().max() < 1e-5 * exact.abs().max()
