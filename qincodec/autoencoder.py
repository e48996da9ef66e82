"""The paper's autoencoder: complex STFT -> ConvNeXt encoder -> latents -> ConvNeXt decoder -> inverse STFT.

In the paper's letters, with X the complex STFT of the audio x and W, V the linear maps before and after the
bottleneck::

    Z    = W E([Re X; Im X])       encoder, Z of D x T (section IV-A)
    m, p = V G(Z)                  decoder, and the head of Vocos:
    X'   = min(e^m, 100) e^(ip)    log-magnitude and phase of every bin
    x'   = inverse STFT of X'

Everything between the two transforms has the frame rate F = T / d: one latent per hop (256 samples in the
paper), exactly ``ceil(samples / hop)`` of them. Audio here is one channel per row, ``(rows, samples)``;
latents are ``(rows, frames, latent_dim)``, frames by dimensions as the quantizers take them.

Receptive field: a latent depends on the ``context_frames = 3 * (1 + num_layers)`` frames on either side of
its own (27 in the paper's size: 0.16 s), since a backbone is that many convolutions of width 7. A decoded
sample depends on one frame more, through the overlap of the inverse STFT. `Autoencoder.encode_blocks`
and `Autoencoder.decode_blocks` overlap their chunks by just that, so their output is that of the whole
signal up to float rounding, whatever its length.

Latency: neither half is causal. A latent needs the samples up to ``context_frames + 1/2`` hops after the end
of its own hop. A decoded sample needs the latents up to ``context_frames`` after that of its own hop, in the
second half of the hop one more. The sum, at most ``2 * (context_frames + 1)`` hops, is
`Autoencoder.latency_samples`; the time for the computation comes on top. `Autoencoder.encode_blocks` and
`Autoencoder.decode_blocks` with ``chunk_frames=1`` need half a hop more, because they give whole hops.

Sources: Lahrichi et al., QINCODEC, section IV-A and V-A; Siuzdak, Vocos (2024), for backbone and head. What
we added is a subclass, `qincodec.transform_path`; `qincodec.architectures` makes either from a configuration.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import nn

from qincodec._audio_files import SAMPLE_RATES
from qincodec.core.errors import UserError, check_whole

#: Frames of one pass of `Autoencoder.encode_blocks` and `decode_blocks`: 24 s, about 100 MB at dim 512.
CHUNK_FRAMES = 4096

KERNEL_SIZE = 7
MAX_MAGNITUDE = 100.0


#: Largest numbers of a configuration, which may be anybody's; checked before anything is made.
_MOST = {"latent_dim": 4096, "dim": 8192, "intermediate_dim": 32_768, "num_layers": 128, "hop_length": 32_768}
_MOST_WEIGHTS = 1 << 30


class Widths(NamedTuple):
    """Channels into and out of each half, including its linear map."""

    encoder_in: int
    encoder_out: int
    decoder_in: int
    decoder_out: int


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of an autoencoder.

    Attributes:
        latent_dim: D, values per frame between encoder and decoder.
        dim: width of both backbones.
        intermediate_dim: width inside a ConvNeXt block.
        num_layers: ConvNeXt blocks of each backbone.
        sample_rate: Hz.
        hop_length: samples per frame; the transform is twice as long.
    """

    latent_dim: int = 32
    dim: int = 512
    intermediate_dim: int = 1536
    num_layers: int = 8
    sample_rate: int = 44_100
    hop_length: int = 256

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            check_whole(f"autoencoder: {name}", getattr(self, name), 1, most)
        check_whole("autoencoder: sample_rate", self.sample_rate, SAMPLE_RATES[0], SAMPLE_RATES[-1])
        if self.hop_length % 2:
            raise UserError(f"autoencoder: hop_length must be even, got {self.hop_length}")
        if (n := self.num_weights) > _MOST_WEIGHTS:
            raise UserError(f"autoencoder: {n} weights, {_MOST_WEIGHTS} are allowed: lower one of its sizes")

    @property
    def num_weights(self) -> int:
        """Approximate number of weights in the matrices, also for a subclass with wider `widths`."""
        in_and_out = 7 * (3 * self.n_bins + self.latent_dim) + 3 * self.n_bins + 4 * self.latent_dim
        return self.dim * (4 * self.num_layers * self.intermediate_dim + in_and_out)

    @property
    def n_fft(self) -> int:
        return 2 * self.hop_length

    @property
    def n_bins(self) -> int:
        """Number of bins of a frame's spectrum."""
        return self.hop_length + 1

    @property
    def widths(self) -> Widths:
        """Real and imaginary parts in, magnitudes and phases out, D latents between."""
        return Widths(2 * self.n_bins, self.latent_dim, self.latent_dim, 2 * self.n_bins)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a two-layer perceptron over channels, scaled and added."""

    def __init__(self, dim: int, intermediate_dim: int, layer_scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, KERNEL_SIZE, padding=KERNEL_SIZE // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, intermediate_dim)
        self.pwconv2 = nn.Linear(intermediate_dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, frames, dim) -> the same shape."""
        y = self.norm(_conv_frames(self.dwconv, x))
        y = self.pwconv2(F.gelu(self.pwconv1(y)))
        return torch.addcmul(x, y, self.gamma)


class Backbone(nn.Module):
    """Vocos' backbone, (rows, frames, in_channels) -> (rows, frames, dim)."""

    def __init__(self, in_channels: int, config: AutoencoderConfig) -> None:
        super().__init__()
        dim, layers = config.dim, config.num_layers
        self.embed = nn.Conv1d(in_channels, dim, KERNEL_SIZE, padding=KERNEL_SIZE // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(dim, config.intermediate_dim, 1 / layers) for _ in range(layers)
        )
        self.final_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(_conv_frames(self.embed, x))
        for block in self.blocks:
            x = block(x)
        return self.final_norm(x)


def _conv_frames(conv: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """``conv`` along the frames of (rows, frames, channels)."""
    x = x.transpose(1, 2)
    if x.device.type != "cpu":
        return conv(x).transpose(1, 2)
    # A transposed tensor is a channels-last image of height 1, for which oneDNN's depthwise kernel is ten
    # times faster than conv1d with its copies.
    image, weight = x.unsqueeze(2), conv.weight.unsqueeze(2)
    padding = (0, KERNEL_SIZE // 2)
    return F.conv2d(image, weight, conv.bias, padding=padding, groups=conv.groups).squeeze(2).transpose(1, 2)


class Autoencoder(nn.Module):
    """Audio to continuous latents and back.

    Weights are drawn from torch's global generator: convolutions and linear maps from a normal of 0.02
    truncated at two, biases zero.
    """

    window: torch.Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.encoder = Backbone(widths.encoder_in, config)
        self.to_latents = nn.Linear(config.dim, widths.encoder_out)
        self.decoder = Backbone(widths.decoder_in, config)
        self.head = nn.Linear(config.dim, widths.decoder_out)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self._add_constants()

    def _add_constants(self) -> None:
        """Add the buffers that follow from the configuration and are not stored.

        On the CPU, whatever the default device is: on meta, where `from_tensors` makes modules, functions
        like these import torch's compiler, a second of CPU time.
        """
        window = torch.hann_window(self.config.n_fft, device="cpu")
        self.register_buffer("window", window, persistent=False)

    @classmethod
    def from_tensors(cls, config: AutoencoderConfig, tensors: dict[str, torch.Tensor]) -> Self:
        """An autoencoder that uses these tensors as its weights, without drawing any.

        Raises:
            UserError: tensors missing, unknown or of another shape.
        """
        with torch.device("meta"):
            model = cls(config)
        try:
            model.load_state_dict({name: t.float() for name, t in tensors.items()}, assign=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"weights do not fit the autoencoder's configuration: {reason[:300]}") from error
        return model

    @property
    def encoder_side(self) -> list[nn.Module]:
        """The modules that `encode` uses. They are frozen as soon as there is a quantizer."""
        return [self.encoder, self.to_latents]

    @property
    def frame_rate(self) -> float:
        """F, frames per second."""
        return self.config.sample_rate / self.config.hop_length

    @property
    def context_frames(self) -> int:
        """Number of frames on either side that a latent depends on."""
        return (KERNEL_SIZE // 2) * (1 + self.config.num_layers)

    @property
    def latency_samples(self) -> int:
        """Algorithmic latency of encoding and decoding, in samples.

        A decoded sample n depends on samples before ``n + latency_samples`` only.
        """
        return 2 * (self.context_frames + 1) * self.config.hop_length

    def num_frames(self, num_samples: int) -> int:
        """T, ceil(num_samples / hop_length)."""
        return -(-num_samples // self.config.hop_length)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """(rows, samples) -> (rows, samples): encoded and decoded without quantization."""
        return self.decode(self.encode(audio))[:, : audio.shape[1]]

    # ---- encoder ---------------------------------------------------------------------------------------

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        """(rows, samples) float32 -> latents (rows, ceil(samples / hop_length), latent_dim)."""
        return self._encode_spectrum(self.analysis(audio))

    def analysis(self, audio: torch.Tensor) -> torch.Tensor:
        """Complex STFT with one frame per hop that has begun.

        The signal is padded with zeros to whole hops, then by reflection with half a hop on either
        side, and not centred.

        Args:
            audio: (rows, samples), one sample or more.

        Returns:
            (rows, ceil(samples / hop_length), n_fft / 2 + 1), complex64.

        Raises:
            ValueError: another number of dimensions, or no samples.
        """
        if audio.ndim != 2 or audio.shape[1] == 0:
            raise ValueError(f"audio must have shape (rows, samples), got {tuple(audio.shape)}")
        return self._stft(audio, first=True, last=True)

    def _stft(self, audio: torch.Tensor, *, first: bool, last: bool) -> torch.Tensor:
        """Frames of (rows, samples) that begins (``first``) and ends (``last``) where the signal does.

        At other ends the samples include the half hop that lies outside the outermost frame's own.
        """
        n_fft, hop, edge = self.config.n_fft, self.config.hop_length, self.config.hop_length // 2
        if last:
            own = audio.shape[1] if first else audio.shape[1] - edge
            audio = F.pad(audio, (0, -own % hop))
        audio = F.pad(audio, (edge if first else 0, edge if last else 0), mode="reflect")
        spectrum = torch.stft(audio, n_fft, hop, window=self.window, center=False, return_complex=True)
        return spectrum.transpose(1, 2)

    def _encode_spectrum(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Z = W E([Re X; Im X])."""
        return self.to_latents(self.encoder(torch.cat([spectrum.real, spectrum.imag], dim=-1)))

    # ---- decoder ---------------------------------------------------------------------------------------

    def decode(self, latents: torch.Tensor, first_frame: int | torch.Tensor = 0) -> torch.Tensor:
        """(rows, frames, latent_dim) -> audio (rows, frames * hop_length), not clipped.

        ``first_frame``: position of the first frame in the signal: a number, or a tensor () or (rows, 1).
        The paper's decoder does not depend on it; that of a subclass may.
        """
        return self.synthesis(self._decode_spectrum(latents, first_frame))

    def decode_parts(
        self, latents: torch.Tensor, first_frame: int | torch.Tensor = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decoded audio, and the part of it in the band whose waveform is coded: here all of it."""
        audio = self.decode(latents, first_frame)
        return audio, audio

    def _decode_spectrum(self, latents: torch.Tensor, first_frame: int | torch.Tensor) -> torch.Tensor:
        """m, p = V G(Z); X' = min(e^m, 100) e^(ip)."""
        # The transform exists in float32 only, and a phase needs it, whatever precision the maps run in.
        log_magnitude, phase = self.head(self.decoder(latents)).float().chunk(2, dim=-1)
        return torch.polar(log_magnitude.exp().clamp(max=MAX_MAGNITUDE), phase)

    def synthesis(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Inverse of `analysis`: (rows, frames, n_fft / 2 + 1) -> (rows, frames * hop_length), float32.

        Overlap-add of windowed frames, divided by the sum of the squared windows.
        """
        edge = self.config.hop_length // 2
        return self._overlap_add(spectrum)[:, edge:-edge]

    def _overlap_add(self, spectrum: torch.Tensor) -> torch.Tensor:
        """(rows, frames, bins) -> (rows, (frames + 1) * hop_length), over summed squared windows."""
        hop = self.config.hop_length
        frames = torch.fft.irfft(spectrum, n=self.config.n_fft) * self.window
        squared = self.window.square()
        # With a hop of half a frame, each hop is the head of one frame over the tail of the one before.
        total = F.pad(frames[..., :hop], (0, 0, 0, 1)) + F.pad(frames[..., hop:], (0, 0, 1, 0))
        weight = total.new_empty(total.shape[1], hop)
        weight[:] = squared[:hop] + squared[hop:]
        weight[0], weight[-1] = squared[:hop], squared[hop:]
        # The outermost half hop is trimmed by every caller; its weight goes down to zero.
        return (total / weight.clamp(min=math.ulp(1.0))).flatten(1)

    # ---- signals of any length -------------------------------------------------------------------------

    @torch.no_grad()
    def encode_blocks(
        self, blocks: Iterable[torch.Tensor], chunk_frames: int = CHUNK_FRAMES
    ) -> Iterator[torch.Tensor]:
        """Latents of a signal that arrives in blocks, in memory that does not grow with its length.

        Args:
            blocks: (rows, n) with any n, in order; of the model's device.
            chunk_frames: frames per pass; where chunks begin does not depend on the blocks.

        Yields:
            (rows, frames, latent_dim); laid end to end they are ``encode`` of the blocks laid end to end,
            up to float rounding.
        """
        hop, context, edge = self.config.hop_length, self.context_frames, self.config.hop_length // 2
        parts: list[torch.Tensor] = []  # what came in and is still needed; `origin` is its first sample
        origin = end = done = 0  # in samples, samples, and frames yielded
        for block in blocks:
            parts.append(block)
            end += block.shape[1]
            # A frame reaches half a hop over either end of its own hop.
            while end >= (stop := (done + chunk_frames + context) * hop + edge):
                held = torch.cat(parts, dim=1)
                spectrum = self._stft(held[:, : stop - origin], first=origin == 0, last=False)
                skip = min(done, context)
                yield self._encode_spectrum(spectrum)[:, skip : skip + chunk_frames]
                done += chunk_frames
                start = max(0, (done - context) * hop - edge)
                parts, origin = [held[:, start - origin :]], start
        if end:
            spectrum = self._stft(torch.cat(parts, dim=1), first=origin == 0, last=True)
            yield self._encode_spectrum(spectrum)[:, min(done, context) :]

    @torch.no_grad()
    def decode_blocks(
        self,
        blocks: Iterable[torch.Tensor],
        chunk_frames: int = CHUNK_FRAMES,
        first_frame: int | torch.Tensor = 0,
    ) -> Iterator[torch.Tensor]:
        """Audio of latents that arrive in blocks, in memory that does not grow with their number.

        Args:
            blocks: (rows, n, latent_dim) with any n, in order; of the model's device.
            chunk_frames: frames per pass.
            first_frame: as `decode` has it.

        Yields:
            (rows, samples); laid end to end they are ``decode`` of the blocks laid end to end, up to float
            rounding.
        """
        hop, context, edge = self.config.hop_length, self.context_frames + 1, self.config.hop_length // 2
        parts: list[torch.Tensor] = []
        origin = end = done = 0  # in frames
        for block in blocks:
            parts.append(block)
            end += block.shape[1]
            while end >= (stop := done + chunk_frames + context):
                held = torch.cat(parts, dim=1)
                padded = self._overlap_add(
                    self._decode_spectrum(held[:, : stop - origin], first_frame + origin)
                )
                at = (done - origin) * hop + edge
                yield padded[:, at : at + chunk_frames * hop]
                done += chunk_frames
                start = max(0, done - context)
                parts, origin = [held[:, start - origin :]], start
        if end:
            padded = self._overlap_add(self._decode_spectrum(torch.cat(parts, dim=1), first_frame + origin))
            yield padded[:, (done - origin) * hop + edge : -edge]
