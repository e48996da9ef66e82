"""The discriminators of adversarial training: multi-period, and complex multi-band multi-scale STFT.

As in DAC (Kumar et al., "High-fidelity audio compression with improved RVQGAN", NeurIPS 2023), whose
multi-period part is HiFi-GAN's (Kong et al., 2020). Audio is (batch, samples). Each discriminator returns the
outputs of all its layers: the last is its verdict, the others are the features to match.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

PERIODS = (2, 3, 5, 7, 11)
STFT_WINDOWS = (2048, 1024, 512)
#: Edges of the bands, as parts of the spectrum.
BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
#: Peak to which a discriminator's input is scaled.
PEAK = 0.8
_SLOPE = 0.1

#: Of one discriminator, one tensor per layer, the last its verdict.
Layers = list[torch.Tensor]


def _conv(
    channels_in: int, channels_out: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)
) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return weight_norm(nn.Conv2d(channels_in, channels_out, kernel, stride, padding))


class PeriodDiscriminator(nn.Module):
    """Samples a period apart, side by side: 2-D convolutions along the first axis of (samples / p, p)."""

    def __init__(self, period: int, width: float) -> None:
        super().__init__()
        self.period = period
        channels = [1, *(_scaled(c, width) for c in (32, 128, 512, 1024, 1024))]
        strides = [3, 3, 3, 3, 1]
        self.convs = nn.ModuleList(
            _conv(a, b, (5, 1), (stride, 1))
            for a, b, stride in zip(channels, channels[1:], strides, strict=False)
        )
        self.verdict = _conv(channels[-1], 1, (3, 1))

    def forward(self, audio: torch.Tensor) -> Layers:
        x = F.pad(audio, (0, -audio.shape[1] % self.period), mode="reflect")
        x = x.unflatten(1, (-1, self.period)).unsqueeze(1)
        layers = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), _SLOPE)
            layers.append(x)
        return [*layers, self.verdict(x)]


class StftDiscriminator(nn.Module):
    """Real and imaginary parts of an STFT as two channels; each band has its own convolutions."""

    window: torch.Tensor

    def __init__(self, window: int, width: float) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        bins = window // 2 + 1
        self.edges = [int(edge * bins) for edge in BANDS]
        c = _scaled(32, width)
        shapes = [(2, (3, 9), (1, 1)), *[(c, (3, 9), (1, 2))] * 3, (c, (3, 3), (1, 1))]
        self.bands = nn.ModuleList(
            nn.ModuleList(_conv(a, c, kernel, stride) for a, kernel, stride in shapes) for _ in self.edges[1:]
        )
        self.verdict = _conv(c, 1, (3, 3))

    def forward(self, audio: torch.Tensor) -> Layers:
        size = len(self.window)
        audio = F.pad(audio, (size // 2, size // 2), mode="reflect")
        spectrum = torch.stft(audio, size, size // 4, window=self.window, center=False, return_complex=True)
        x = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # (batch, 2, frames, bins)
        layers, outputs = [], []
        for low, high, convs in zip(self.edges, self.edges[1:], self.bands, strict=False):
            band = x[..., low:high]
            for conv in convs:  # type: ignore[attr-defined]  # an nn.ModuleList is iterable
                band = F.leaky_relu(conv(band), _SLOPE)
                layers.append(band)
            outputs.append(band)
        return [*layers, self.verdict(torch.cat(outputs, dim=-1))]


class Discriminators(nn.Module):
    """All of them.

    Args:
        width: of every layer, as a share of the published one (1 is the paper's; 0.25 trains on a CPU).
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        periods = [PeriodDiscriminator(period, width) for period in PERIODS]
        self.members = nn.ModuleList(
            [*periods, *(StftDiscriminator(window, width) for window in STFT_WINDOWS)]
        )

    def forward(self, audio: torch.Tensor) -> list[Layers]:
        """(batch, samples), at least 1025 samples -> the layers of each discriminator.

        The mean is removed and the peak scaled to `PEAK`, so the level has no effect.
        """
        audio = audio - audio.mean(-1, keepdim=True)
        audio = PEAK * audio / (audio.abs().amax(-1, keepdim=True) + 1e-9)
        return [member(audio) for member in self.members]


def _scaled(channels: int, width: float) -> int:
    return max(1, math.ceil(channels * width))
