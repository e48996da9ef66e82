"""The autoencoder: complex STFT -> ConvNeXt encoder -> latents -> ConvNeXt decoder -> inverse STFT.

Everything between the two transforms runs at the frame rate: one latent per hop (256 samples in the paper),
exactly ``ceil(samples / hop)`` of them. Audio here is one channel per row, ``(rows, samples)``; latents are
``(rows, frames, latent_dim)``, frames by dimensions as the quantizers take them.

Receptive field: a latent depends on the ``context_frames = 3 * (1 + num_layers)`` frames on either side of
its own (27 in the paper's size: 0.16 s), since a backbone is that many convolutions of width 7. A decoded
sample depends on one frame more, through the overlap of the inverse STFT. `Autoencoder.encode_blocks`
and `Autoencoder.decode_blocks` overlap their chunks by just that, so their output is that of the whole
signal up to float rounding, whatever its length.

Sources: Lahrichi et al., QINCODEC, section IV-A and V-A; Siuzdak, Vocos (2024), for backbone and head.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qincodec._audio_files import SAMPLE_RATES
from qincodec.errors import UserError, check_whole
from qincodec.transform_path import (
    ENVELOPE_FROM_HZ,
    NOISE_FRAMES,
    WAVEFORM_TO_HZ,
    EnvelopeAnalysis,
    EnvelopeSynthesis,
    TransformAnalysis,
    TransformSynthesis,
    envelope_bins,
    envelope_triangles,
    features,
    level,
    noise_spectra,
    smoothed,
    steady_noise,
    waveform_bins,
)

#: Frames of one pass of `Autoencoder.encode_blocks` and `decode_blocks`: 24 s, about 100 MB at dim 512.
CHUNK_FRAMES = 4096

KERNEL_SIZE = 7
MAX_MAGNITUDE = 100.0


#: Largest numbers of a configuration, which may be anybody's; checked before anything is made.
_MOST = {"latent_dim": 4096, "dim": 8192, "intermediate_dim": 32_768, "num_layers": 128, "hop_length": 32_768}
_MOST_WEIGHTS = 1 << 30


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
        transform_path: ours, not the paper's: see `qincodec.transform_path`.
        envelope_latents: how many of the latents carry levels above the waveform's band then.
    """

    latent_dim: int = 32
    dim: int = 512
    intermediate_dim: int = 1536
    num_layers: int = 8
    sample_rate: int = 44_100
    hop_length: int = 256
    transform_path: bool = False
    envelope_latents: int = 0

    def __post_init__(self) -> None:
        if type(self.transform_path) is not bool:
            raise UserError(f"autoencoder: transform_path must be true or false, got {self.transform_path!r}")
        for name, most in _MOST.items():
            check_whole(f"autoencoder: {name}", getattr(self, name), 1, most)
        check_whole("autoencoder: envelope_latents", self.envelope_latents, 0, 4096)
        check_whole("autoencoder: sample_rate", self.sample_rate, SAMPLE_RATES[0], SAMPLE_RATES[-1])
        if self.hop_length % 2:
            raise UserError(f"autoencoder: hop_length must be even, got {self.hop_length}")
        if (n := self.num_weights) > _MOST_WEIGHTS:
            raise UserError(f"autoencoder: {n} weights, {_MOST_WEIGHTS} are allowed: lower one of its sizes")
        if not self.transform_path and self.envelope_latents:
            raise UserError("autoencoder: envelope_latents are part of a transform path: set transform_path")
        most = min(self.hop_length, waveform_bins(self.sample_rate, self.n_fft))
        if self.transform_path and not 0 < self.waveform_latents <= most:
            raise UserError(
                f"autoencoder: with transform_path, latent_dim less envelope_latents must be at least 1 and"
                f" at most {most} (bins below {WAVEFORM_TO_HZ:g} Hz), got {self.waveform_latents}; a longer"
                " hop_length has more"
            )
        if self.envelope_latents > (bins := envelope_bins(self.sample_rate, self.n_fft)):
            raise UserError(
                f"autoencoder: envelope_latents must be at most {bins} (bins above {ENVELOPE_FROM_HZ:g} Hz),"
                f" got {self.envelope_latents}"
            )

    @property
    def num_weights(self) -> int:
        """Of the matrices, about."""
        in_and_out = 7 * (3 * self.n_bins + self.latent_dim) + 3 * self.n_bins + 4 * self.latent_dim
        return self.dim * (4 * self.num_layers * self.intermediate_dim + in_and_out)

    @property
    def n_fft(self) -> int:
        return 2 * self.hop_length

    @property
    def n_bins(self) -> int:
        """Of a frame's spectrum."""
        return self.hop_length + 1

    @property
    def waveform_bins(self) -> int:
        """Lowest of them, which a transform path codes."""
        return waveform_bins(self.sample_rate, self.n_fft)

    @property
    def waveform_latents(self) -> int:
        """Of a transform path; they come first."""
        return self.latent_dim - self.envelope_latents

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AutoencoderConfig:
        """Inverse of `dataclasses.asdict`. Raises UserError for keys missing, unknown, or of a wrong type."""
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"autoencoder configuration does not fit: {error}") from error


#: Configurations by name. The paper does not give its widths; these are Vocos'.
SIZES = {
    "paper-d16": AutoencoderConfig(latent_dim=16),
    "paper-d32": AutoencoderConfig(latent_dim=32),
    "paper-d64": AutoencoderConfig(latent_dim=64),
    # 6.3M parameters, a ninth of the paper's work: trains on a laptop's CPU. 60 latents carry the waveform.
    "small": AutoencoderConfig(
        latent_dim=80,
        dim=256,
        intermediate_dim=768,
        num_layers=4,
        hop_length=512,
        transform_path=True,
        envelope_latents=20,
    ),
    # For tests.
    "tiny": AutoencoderConfig(latent_dim=8, dim=32, intermediate_dim=64, num_layers=1),
}


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


def _gain(logarithm: torch.Tensor) -> torch.Tensor:
    """Exponential, at most 100. Limited before it is taken: what overflows has no gradient after."""
    return logarithm.clamp(max=math.log(MAX_MAGNITUDE)).exp()


class Autoencoder(nn.Module):
    """Audio to continuous latents and back.

    Weights are drawn from torch's global generator: convolutions and linear maps from a normal of 0.02
    truncated at two, biases zero.
    """

    window: torch.Tensor
    noise: torch.Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        transform = config.transform_path
        self.encoder = Backbone((3 if transform else 2) * config.n_bins, config)
        self.to_latents = nn.Linear(config.dim, (2 if transform else 1) * config.latent_dim)
        self.decoder = Backbone(config.latent_dim + (1 if transform else 0), config)
        self.head = nn.Linear(config.dim, sum(self._head_parts) if transform else 2 * config.n_bins)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if transform:
            shape = config.n_fft, config.waveform_bins, config.waveform_latents
            self.transform_analysis = TransformAnalysis(*shape)
            self.transform_synthesis = TransformSynthesis(*shape)
            if config.envelope_latents:
                self.envelope_analysis = EnvelopeAnalysis(self._envelope_triangles())
                self.envelope_synthesis = EnvelopeSynthesis(self._envelope_triangles())
            self.register_buffer("noise", torch.randn(NOISE_FRAMES * config.hop_length))
            self._begin_as_transform()
        self._add_constants()

    @torch.no_grad()
    def _begin_as_transform(self) -> None:
        """Backbones that change nothing about the transform, and a quiet noise beside it."""
        _, log_magnitude, _, _ = self.head.bias.split(self._head_parts)
        nn.init.constant_(log_magnitude, -3.0)
        if self.config.envelope_latents:
            of_noise = log_magnitude[-len(self.envelope_synthesis.offset) :]
            nn.init.constant_(of_noise, -1.0)  # below what is there, as long as the waveform is in it too
            nn.init.zeros_(log_magnitude[self.config.waveform_bins :])
        gain, _, *correction = self.head.weight.split(self._head_parts)
        for weight in (self.to_latents.weight, gain, *correction):
            nn.init.zeros_(weight)

    def _envelope_triangles(self) -> torch.Tensor:
        return envelope_triangles(self.config.sample_rate, self.config.n_fft, self.config.envelope_latents)

    def _add_constants(self) -> None:
        self.register_buffer("window", torch.hann_window(self.config.n_fft), persistent=False)
        if self.config.envelope_latents:
            self.envelope_analysis.set_triangles(self._envelope_triangles())

    @property
    def _head_parts(self) -> list[int]:
        """With a transform path: gain of its bins; log-magnitude of noise; scale, offset of latents."""
        low, bins, latent_dim = self.config.waveform_bins, self.config.n_bins, self.config.latent_dim
        return [low, bins, latent_dim, latent_dim]

    @classmethod
    def from_tensors(cls, config: AutoencoderConfig, tensors: dict[str, torch.Tensor]) -> Autoencoder:
        """An autoencoder with these weights, which it keeps; none are drawn.

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
        model._add_constants()
        return model

    @property
    def encoder_side(self) -> list[nn.Module]:
        """What `encode` uses: the part that is frozen once there is a quantizer."""
        transform = [self.transform_analysis] if self.config.transform_path else []
        envelope = [self.envelope_analysis] if self.config.envelope_latents else []
        return [self.encoder, self.to_latents, *transform, *envelope]

    def fit_transform(self, audio: Iterable[torch.Tensor]) -> None:
        """Begin with the transform that suits this audio best, see `TransformAnalysis.fit`, and steady noise.

        Args:
            audio: (rows, samples) each.
        """
        audio = list(audio)
        self.transform_analysis.fit(self.transform_synthesis, map(self.analysis, audio))
        if self.config.envelope_latents:
            self.envelope_analysis.fit(self.envelope_synthesis, map(self.analysis, audio))
        self.noise = steady_noise(self.noise, self.config.sample_rate)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.config.sample_rate / self.config.hop_length

    @property
    def context_frames(self) -> int:
        """Frames on either side of its own that a latent depends on."""
        return (KERNEL_SIZE // 2) * (1 + self.config.num_layers)

    def num_frames(self, num_samples: int) -> int:
        """ceil(num_samples / hop_length)."""
        return -(-num_samples // self.config.hop_length)

    # ---- whole signals ---------------------------------------------------------------------------------

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """(rows, samples) -> (rows, samples): encoded and decoded, nothing quantized."""
        return self.decode(self.encode(audio))[:, : audio.shape[1]]

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        """(rows, samples) float32 -> latents (rows, ceil(samples / hop_length), latent_dim)."""
        return self._encode_spectrum(self.analysis(audio))

    def decode(self, latents: torch.Tensor, first_frame: int | torch.Tensor = 0) -> torch.Tensor:
        """(rows, frames, latent_dim) -> audio (rows, frames * hop_length), not clipped.

        ``first_frame``: where in the signal the first one stands, or a scalar tensor of it. The noise of a
        transform path goes by it.
        """
        return self.synthesis(self._decode_spectrum(latents, first_frame))

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

    def synthesis(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Inverse of `analysis`: (rows, frames, n_fft / 2 + 1) -> (rows, frames * hop_length), float32.

        Overlap-add of windowed frames, divided by the sum of the squared windows.
        """
        edge = self.config.hop_length // 2
        return self._overlap_add(spectrum)[:, edge:-edge]

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
        self, blocks: Iterable[torch.Tensor], chunk_frames: int = CHUNK_FRAMES
    ) -> Iterator[torch.Tensor]:
        """Audio of latents that arrive in blocks, in memory that does not grow with their number.

        Args:
            blocks: (rows, n, latent_dim) with any n, in order; of the model's device.
            chunk_frames: frames per pass.

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
                padded = self._overlap_add(self._decode_spectrum(held[:, : stop - origin], origin))
                at = (done - origin) * hop + edge
                yield padded[:, at : at + chunk_frames * hop]
                done += chunk_frames
                start = max(0, done - context)
                parts, origin = [held[:, start - origin :]], start
        if end:
            padded = self._overlap_add(self._decode_spectrum(torch.cat(parts, dim=1), origin))
            yield padded[:, (done - origin) * hop + edge : -edge]

    # ---- parts -----------------------------------------------------------------------------------------

    def _stft(self, audio: torch.Tensor, *, first: bool, last: bool) -> torch.Tensor:
        """Frames of (rows, samples) that begins (``first``) and ends (``last``) where the signal does.

        At other ends the samples include the half hop that lies outside the outermost frame's own.
        """
        edge = self.config.hop_length // 2
        if last:
            own = audio.shape[1] if first else audio.shape[1] - edge
            audio = F.pad(audio, (0, -own % self.config.hop_length))
        audio = F.pad(audio, (edge if first else 0, edge if last else 0), mode="reflect")
        return torch.stft(
            audio,
            self.config.n_fft,
            self.config.hop_length,
            window=self.window,
            center=False,
            return_complex=True,
        ).transpose(1, 2)

    def _encode_spectrum(self, spectrum: torch.Tensor) -> torch.Tensor:
        if not self.config.transform_path:
            return self.to_latents(self.encoder(torch.cat([spectrum.real, spectrum.imag], dim=-1)))
        gain, offset = self.to_latents(self.encoder(features(spectrum))).float().chunk(2, dim=-1)
        latents = self.transform_analysis(spectrum)
        if self.config.envelope_latents:
            latents = torch.cat([latents, self.envelope_analysis(spectrum)], dim=-1)
        return latents * _gain(gain) + offset

    def _decode_spectrum(self, latents: torch.Tensor, first_frame: int | torch.Tensor) -> torch.Tensor:
        # The transform exists in float32 only, and a phase needs it, whatever precision the maps run in.
        if not self.config.transform_path:
            log_magnitude, phase = self.head(self.decoder(latents)).float().chunk(2, dim=-1)
            return torch.polar(log_magnitude.exp().clamp(max=MAX_MAGNITUDE), phase)
        of_waveform, bins = self.config.waveform_latents, self.config.waveform_bins
        hidden = self.decoder(torch.cat([latents, level(latents[..., :of_waveform]).log()], dim=-1))
        gain, log_magnitude, scale, offset = self.head(hidden).float().split(self._head_parts, dim=-1)
        latents = latents * _gain(scale) + offset
        low = self.transform_synthesis(latents[..., :of_waveform]) * _gain(gain)
        if self.config.envelope_latents:
            high = self.envelope_synthesis(latents[..., of_waveform:])
            log_magnitude = log_magnitude + F.pad(high, (log_magnitude.shape[-1] - high.shape[-1], 0))
        frames = first_frame + torch.arange(latents.shape[1], device=latents.device)
        noise = noise_spectra(self.noise, self.window)[frames % NOISE_FRAMES]
        added = smoothed(_gain(log_magnitude)) * noise
        return torch.cat([low + added[..., :bins], added[..., bins:]], dim=-1)

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
