"""A transform coder around the paper's two backbones: ours, a subclass of `qincodec.autoencoder`.

A backbone alone learns phases slowly: its layer norms remove the level, and it must find a phase as an angle.
Here a linear transform carries the waveform below ``waveform_to_hz`` past the backbones, as in a classical
codec, and the backbones steer it. The encoder's backbone scales every latent and adds to it. The decoder's
scales every bin and adds the parts that the transform leaves out. `TransformAnalysis.fit` starts from the
Karhunen-Loeve transform of the training audio, so that even an untrained model codes waveforms.

Levels: noise on the latents, for example a quantizer's, must be quiet where the audio is quiet, in time and
in frequency. So the coefficients c of a frame with level g (root mean square over its D) become c g^-0.65,
and each of the results v becomes sign(v) |v|^0.75. The decoder's backbone, which sees the neighbouring
frames, first corrects the latents. Then both steps are inverted.

The decoder adds noise, whose magnitudes its backbone gives; above ``waveform_to_hz`` there is only noise. If
the phases of the noise came from the latents, they would repeat from frame to frame where the latents hardly
change, and buzz at the frame rate. So the noise is one fixed signal of a few seconds, repeated, that the
model stores and filters: `steady_noise`.

Some of the latents can carry the levels of bands above `ENVELOPE_FROM_HZ` past the backbones, too
(`EnvelopeAnalysis`), as in spectral band replication. A decoder that had to guess these levels from its
training data would be wrong for every sound with another spectral envelope.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from qincodec._audio_files import SAMPLE_RATES
from qincodec.autoencoder import MAX_MAGNITUDE, Autoencoder, AutoencoderConfig, Widths
from qincodec.core.errors import UserError, check_whole, shown
from qincodec.distances import MEL_SCALES, log_mel_spectra

#: Coefficients of a frame are divided by this power of its level.
LEVEL_POWER = 0.65
#: Then each is raised to this power.
COEFFICIENT_POWER = 0.75
#: Frequency up to which the waveform is coded, unless a configuration says otherwise; above, there is noise
#: alone.
WAVEFORM_TO_HZ = 3400.0
#: Frequency from which on latents of levels tell how much noise there is.
ENVELOPE_FROM_HZ = 1600.0
#: Highest frequency that a configuration may name: Nyquist's of the highest sample rate.
_MOST_HZ = SAMPLE_RATES[-1] // 2
#: Frames after which the noise repeats: 3 s at a hop of 512, 1.5 s at the paper's.
NOISE_FRAMES = 256

#: Level under which a frame counts as silent.
_SILENCE = 1e-3
#: The analysis matrix is stored this many times larger. Then its entries are as large as other weights and
#: change as much in a step of AdamW.
_ANALYSIS_SCALE = 20.0
#: Square below which a coefficient is not companded, so that gradients stay finite.
_SMALLEST_SQUARE = 1e-5
_TINY = 1e-12
#: Level that `TransformAnalysis.fit` adds to the level of a frame before it divides by it.
_FIT_LEVEL = 0.005
#: Power of a component's level that `TransformAnalysis.fit` divides it by: 1 whitens.
_WHITENING = 0.5
#: Magnitude below which a band counts as silent; units of a latent for a factor of e in level.
_SILENT_BAND, _ENVELOPE_SCALE = 3e-4, 0.25
#: For `steady_noise`: steps, first step size, bands of equal power, level of the noise when it is compared.
_STEPS, _STEP, _EQUAL_BANDS, _NOISE_LEVEL = 120, 0.05, 64, 0.05


@dataclass(frozen=True)
class TransformConfig(AutoencoderConfig):
    """Shape of a `TransformAutoencoder`.

    Attributes:
        envelope_latents: how many of the latents, the last, carry levels above `ENVELOPE_FROM_HZ`.
        waveform_to_hz: highest frequency at which the waveform is coded.
    """

    envelope_latents: int = 0
    waveform_to_hz: float = WAVEFORM_TO_HZ

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("autoencoder: envelope_latents", self.envelope_latents, 0, 4096)
        to_hz = self.waveform_to_hz
        if type(to_hz) not in (int, float) or not 0 < to_hz <= _MOST_HZ:
            raise UserError(
                f"autoencoder: waveform_to_hz must be above 0 and at most {_MOST_HZ} Hz, got {shown(to_hz)}"
            )
        most = min(self.hop_length, self.waveform_bins)
        if not 0 < self.waveform_latents <= most:
            raise UserError(
                f"autoencoder: with transform_path, latent_dim less envelope_latents must be at least 1 and"
                f" at most {most} (bins below {to_hz:g} Hz), got {self.waveform_latents}; a longer"
                " hop_length has more"
            )
        if self.envelope_latents > (bins := envelope_bins(self.sample_rate, self.n_fft)):
            raise UserError(
                f"autoencoder: envelope_latents must be at most {bins} (bins above {ENVELOPE_FROM_HZ:g} Hz),"
                f" got {self.envelope_latents}"
            )

    @property
    def waveform_bins(self) -> int:
        """Number of bins below `waveform_to_hz`, at least one."""
        return min(self.n_bins, max(1, round(self.waveform_to_hz * self.n_fft / self.sample_rate)))

    @property
    def waveform_latents(self) -> int:
        """Number of latents that carry these bins; they come first."""
        return self.latent_dim - self.envelope_latents

    @property
    def head_parts(self) -> list[int]:
        """Head: gain of the waveform's bins; log-magnitude of noise; scale and offset of latents."""
        return [self.waveform_bins, self.n_bins, self.latent_dim, self.latent_dim]

    @property
    def widths(self) -> Widths:
        """`features` in, scale and offset of every latent out; latents and their level in."""
        return Widths(3 * self.n_bins, 2 * self.latent_dim, self.latent_dim + 1, sum(self.head_parts))


class TransformAutoencoder(Autoencoder):
    """The autoencoder with a transform around its backbones. Untrained, it is that transform."""

    config: TransformConfig
    noise: torch.Tensor
    triangles: torch.Tensor

    def __init__(self, config: TransformConfig) -> None:
        super().__init__(config)
        shape = config.n_fft, config.waveform_bins, config.waveform_latents
        self.transform_analysis = TransformAnalysis(*shape)
        self.transform_synthesis = TransformSynthesis(*shape)
        if config.envelope_latents:
            self.envelope_analysis = EnvelopeAnalysis(config.envelope_latents)
            self.envelope_synthesis = EnvelopeSynthesis(self.triangles)
        self.register_buffer("noise", torch.empty(NOISE_FRAMES * config.hop_length))
        if not self.noise.is_meta:  # on meta it would import torch's compiler
            self.noise.normal_()
        self._begin_as_transform()

    def _add_constants(self) -> None:
        super()._add_constants()
        bands = envelope_triangles(self.config.sample_rate, self.config.n_fft, self.config.envelope_latents)
        self.register_buffer("triangles", bands, persistent=False)

    @torch.no_grad()
    def _begin_as_transform(self) -> None:
        """Set weights so that the backbones leave the transform as it is, and add quiet noise."""
        _, log_magnitude, _, _ = self.head.bias.split(self.config.head_parts)
        nn.init.constant_(log_magnitude, -3.0)
        if self.config.envelope_latents:
            of_noise = log_magnitude[-len(self.triangles) :]
            nn.init.constant_(of_noise, -1.0)  # the band also contains the waveform
            nn.init.zeros_(log_magnitude[self.config.waveform_bins :])
        gain, _, *correction = self.head.weight.split(self.config.head_parts)
        for weight in (self.to_latents.weight, gain, *correction):
            nn.init.zeros_(weight)

    @property
    def encoder_side(self) -> list[nn.Module]:
        envelope = [self.envelope_analysis] if self.config.envelope_latents else []
        return [*super().encoder_side, self.transform_analysis, *envelope]

    def fit_transform(self, audio: Iterable[torch.Tensor]) -> None:
        """Start from the best transform for this audio (`TransformAnalysis.fit`) and from steady noise.

        Args:
            audio: (rows, samples) each.
        """
        audio = list(audio)
        self.transform_analysis.fit(self.transform_synthesis, map(self.analysis, audio))
        if self.config.envelope_latents:
            spectra = map(self.analysis, audio)
            self.envelope_analysis.fit(self.envelope_synthesis, spectra, self.triangles)
        self.noise = steady_noise(self.noise, self.config.sample_rate)

    def _encode_spectrum(self, spectrum: torch.Tensor) -> torch.Tensor:
        gain, offset = self.to_latents(self.encoder(features(spectrum))).float().chunk(2, dim=-1)
        latents = self.transform_analysis(spectrum)
        if self.config.envelope_latents:
            latents = torch.cat([latents, self.envelope_analysis(spectrum, self.triangles)], dim=-1)
        return latents * _gain(gain) + offset

    def decode_parts(
        self, latents: torch.Tensor, first_frame: int | torch.Tensor = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decoded audio, and the part of it in the band whose waveform is coded."""
        spectrum = self._decode_spectrum(latents, first_frame)
        bins = self.config.waveform_bins
        low = F.pad(spectrum[..., :bins], (0, spectrum.shape[-1] - bins))
        return self.synthesis(spectrum), self.synthesis(low)

    def _decode_spectrum(self, latents: torch.Tensor, first_frame: int | torch.Tensor) -> torch.Tensor:
        of_waveform, bins = self.config.waveform_latents, self.config.waveform_bins
        hidden = self.decoder(torch.cat([latents, level(latents[..., :of_waveform]).log()], dim=-1))
        gain, log_magnitude, scale, offset = self.head(hidden).float().split(self.config.head_parts, dim=-1)
        latents = latents * _gain(scale) + offset
        low = self.transform_synthesis(latents[..., :of_waveform]) * _gain(gain)
        if self.config.envelope_latents:
            high = self.envelope_synthesis(latents[..., of_waveform:])
            log_magnitude = log_magnitude + F.pad(high, (log_magnitude.shape[-1] - high.shape[-1], 0))
        frames = first_frame + torch.arange(latents.shape[1], device=latents.device)
        noise = noise_spectra(self.noise, self.window)[frames % NOISE_FRAMES]
        added = smoothed(_gain(log_magnitude)) * noise
        return torch.cat([low + added[..., :bins], added[..., bins:]], dim=-1)


def envelope_bins(sample_rate: int, n_fft: int) -> int:
    """Number of a spectrum's bins above `ENVELOPE_FROM_HZ`, at least one."""
    return n_fft // 2 + 1 - min(n_fft // 2, max(1, round(ENVELOPE_FROM_HZ * n_fft / sample_rate)))


def features(spectrum: torch.Tensor) -> torch.Tensor:
    """Input of the encoder's backbone: (..., bins) complex -> (..., 3 * bins).

    Real and imaginary parts with their magnitude raised to 0.3, and the logarithm of the magnitude, so that
    weak bins and the level survive the layer norms.
    """
    magnitude = spectrum.abs() + 1e-3
    compressed = spectrum * magnitude**-0.7
    return torch.cat([compressed.real, compressed.imag, 0.3 * magnitude.log()], dim=-1)


def level(coefficients: torch.Tensor) -> torch.Tensor:
    """Root mean square over the last axis, which keeps length 1; at least 1e-3."""
    return (coefficients.square().mean(-1, keepdim=True) + _SILENCE**2).sqrt()


def noise_spectra(noise: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """Spectra of a periodic signal: (frames * hop,) -> (frames, bins), complex64, mean square 1 for power 1.

    The frames are those of `qincodec.autoencoder.Autoencoder.analysis`, so that a smooth filter of these
    spectra filters the signal. Frames with unrelated phases would partly cancel where they overlap, and
    flutter.
    """
    hop = len(window) // 2
    edge = hop // 2
    around = torch.cat([noise[-edge:], noise, noise[:edge]])
    return torch.fft.rfft(around.unfold(0, 2 * hop, hop) * window) / window.square().sum().sqrt()


def steady_noise(noise: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """White noise of unit power with the least fluctuation, by gradient descent from ``noise``.

    The power of Gaussian noise in a band and a short time is itself random. A decoder's noise can only be
    right on average, so its fluctuation is an error beside that of the original's fluctuation. Steady noise
    avoids this half of the error (Pumplin, "Low-noise noise", JASA 1985, for one band; here for the bands of
    `qincodec.distances.MEL_SCALES`).

    Args:
        noise: (samples,), one period.
        sample_rate: Hz.
    """
    with torch.enable_grad():
        steady = noise.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([steady])
        for step in range(_STEPS):
            optimizer.param_groups[0]["lr"] = _STEP * (1 - step / _STEPS)
            wrapped = torch.cat([steady, steady[: max(w for w, _ in MEL_SCALES)]])
            fluctuation = torch.stack(
                [
                    (logarithm - logarithm.mean(-1, keepdim=True)).abs().mean()
                    for logarithm in log_mel_spectra(_NOISE_LEVEL * wrapped[None, None], sample_rate)
                ]
            ).sum()
            power = torch.fft.rfft(steady, norm="ortho").abs().square()
            bands = power[: len(power) // _EQUAL_BANDS * _EQUAL_BANDS].view(_EQUAL_BANDS, -1).mean(1)
            loss = fluctuation + bands.log().square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    steady = steady.detach()
    return steady / steady.square().mean().sqrt()


def smoothed(magnitudes: torch.Tensor) -> torch.Tensor:
    """Magnitudes (rows, frames, bins) with their power averaged over a bin and its neighbours, 1:2:1.

    For magnitudes of noise. Otherwise a decoder learns to empty every other bin: the rest overlaps less, is
    steadier and easier to match, but sounds like a comb filter.
    """
    power = magnitudes.square()
    below = torch.cat([power[..., :1], power[..., :-1]], dim=-1)
    above = torch.cat([power[..., 1:], power[..., -1:]], dim=-1)
    return ((below + 2 * power + above) / 4 + _TINY).sqrt()


class TransformAnalysis(nn.Module):
    """Transform of the lowest ``bins`` of a frame's complex spectrum to companded coefficients.

    Unfitted, these are the D lowest coefficients of a modified discrete cosine transform with the windows of
    the spectrum. `qincodec.autoencoder.Autoencoder.synthesis` divides by the overlapping squares, as Princen
    and Bradley require, so time aliasing cancels. It cancels only nearly, because the middle of a periodic
    window is off by half a sample, and not in the outermost half hops, which only one frame covers.
    """

    def __init__(self, n_fft: int, bins: int, latent_dim: int) -> None:
        super().__init__()
        self.n_fft, self.bins = n_fft, bins
        basis = _cosines(n_fft)[:, :latent_dim]
        self.matrix = nn.Parameter(_ANALYSIS_SCALE * _from_spectrum(n_fft, bins, basis))

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        """(rows, frames, bins or more) complex -> (rows, frames, D), real."""
        low = spectrum[..., : self.bins]
        parts = torch.cat([low.real, low.imag], dim=-1)
        coefficients = (parts @ (self.matrix / _ANALYSIS_SCALE)).float()
        levelled = coefficients * level(coefficients) ** -LEVEL_POWER
        return levelled * (levelled.square() + _SMALLEST_SQUARE) ** ((COEFFICIENT_POWER - 1) / 2)

    @torch.no_grad()
    def fit(self, synthesis: TransformSynthesis, spectra: Iterable[torch.Tensor]) -> None:
        """Set this and ``synthesis`` to the D strongest principal components of these spectra's coefficients.

        They are whitened by half: a component of a hundredth of the power has latents of a tenth of it. Noise
        on the latents is the same on each. Whitened latents would spend as many bits on the weakest component
        as on the strongest; others would leave the weak ones, and their bands, without any.

        Args:
            spectra: (rows, frames, n_fft / 2 + 1) complex. The weight of a frame is the power of its level
                that companding leaves.
        """
        cosines = _cosines(self.n_fft).to(self.matrix)
        covariance = cosines.new_zeros(self.n_fft // 2, self.n_fft // 2)
        for spectrum in spectra:
            low = F.pad(spectrum[..., : self.bins], (0, self.n_fft // 2 + 1 - self.bins))
            coefficients = torch.fft.irfft(low, n=self.n_fft).flatten(0, 1) @ cosines
            root = coefficients.square().mean(-1, keepdim=True).sqrt()
            coefficients = coefficients / (root + _FIT_LEVEL) ** LEVEL_POWER
            covariance += coefficients.T @ coefficients
        powers, components = torch.linalg.eigh(covariance.double().cpu())
        latent_dim = self.matrix.shape[1]
        basis = cosines @ components.flip(1)[:, :latent_dim].to(cosines)
        scales = powers.flip(0)[:latent_dim].clamp(min=1e-6 * float(powers[-1])) ** (_WHITENING / 2)
        scales = (scales / scales.square().mean().sqrt()).to(cosines)
        self.matrix.copy_(_ANALYSIS_SCALE * _from_spectrum(self.n_fft, self.bins, basis) / scales)
        synthesis.matrix.copy_(_to_spectrum(basis, self.bins) * scales[:, None])


class TransformSynthesis(nn.Module):
    """Inverse of `TransformAnalysis` on the space its coefficients span."""

    def __init__(self, n_fft: int, bins: int, latent_dim: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(_to_spectrum(_cosines(n_fft)[:, :latent_dim], bins))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """(rows, frames, D) -> (rows, frames, bins), complex64."""
        # The power of an absolute value would have no gradient at 0.
        levelled = latents * (latents.square() + _TINY) ** (0.5 / COEFFICIENT_POWER - 0.5)
        coefficients = levelled * level(levelled) ** (LEVEL_POWER / (1 - LEVEL_POWER))
        real, imaginary = (coefficients @ self.matrix).float().chunk(2, dim=-1)
        return torch.complex(real, imaginary)


class EnvelopeAnalysis(nn.Module):
    """Transform of a frame's complex spectrum to the logarithms of its levels in K bands.

    ``triangles`` are (bins, K) of `envelope_triangles`.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(_ENVELOPE_SCALE * torch.eye(bands, device="cpu"))
        self.offset = nn.Parameter(torch.zeros(bands))

    def forward(self, spectrum: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
        """(rows, frames, bins) complex -> (rows, frames, K), real; only the highest bins count."""
        return (_band_levels(spectrum, triangles) @ self.matrix).float() + self.offset

    @torch.no_grad()
    def fit(
        self, synthesis: EnvelopeSynthesis, spectra: Iterable[torch.Tensor], triangles: torch.Tensor
    ) -> None:
        """Set this and ``synthesis`` to the principal components of these spectra's levels.

        They are not whitened: the same noise is the same error in dB in each.

        Args:
            spectra: (rows, frames, n_fft / 2 + 1) complex.
        """
        levels = torch.cat([_band_levels(s, triangles).flatten(0, 1) for s in spectra]).double().cpu()
        mean, covariance = levels.mean(0), torch.atleast_2d(levels.T.cov())
        components = torch.linalg.eigh(covariance).eigenvectors.flip(1)
        between = triangles.T.double().cpu()
        self.matrix.copy_(_ENVELOPE_SCALE * components)
        self.offset.copy_(-_ENVELOPE_SCALE * mean @ components)
        synthesis.matrix.copy_(components.T @ between / _ENVELOPE_SCALE)
        synthesis.offset.copy_(mean @ between)


class EnvelopeSynthesis(nn.Module):
    """Inverse of `EnvelopeAnalysis`: logarithms of magnitudes, linear between the centres of the bands.

    Args:
        triangles: (bins, K) of `envelope_triangles`.
    """

    def __init__(self, triangles: torch.Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(triangles.T / _ENVELOPE_SCALE)
        self.offset = nn.Parameter(torch.zeros(len(triangles)))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """(rows, frames, K) -> (rows, frames, bins)."""
        return (latents @ self.matrix).float() + self.offset


def envelope_triangles(sample_rate: int, n_fft: int, count: int) -> torch.Tensor:
    """Weights of bands above `ENVELOPE_FROM_HZ`, equally wide in the logarithm of frequency: (bins, count).

    Each band is a triangle that reaches to the centres of its neighbours, so the weights of a bin sum to 1.
    """
    bins = n_fft // 2 + 1
    lowest = bins - envelope_bins(sample_rate, n_fft)
    logarithm = torch.arange(lowest, bins, device="cpu").float().log()
    span = logarithm[-1] - logarithm[0]
    place = (logarithm - logarithm[0]) / span.clamp(min=_TINY) * (count - 1)
    return (1 - (place[:, None] - torch.arange(count, device="cpu")).abs()).clamp(min=0)


def _band_levels(spectrum: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """Logarithms of root mean squares of the highest bins, (rows, frames, K)."""
    power = torch.view_as_real(spectrum[..., -len(triangles) :]).square().sum(-1)
    means = (power @ (triangles / triangles.sum(0))).float()
    return (means + _SILENT_BAND**2).log() / 2


def _gain(logarithm: torch.Tensor) -> torch.Tensor:
    """Exponential, at most 100. The limit comes first, because the gradient after an overflow is lost."""
    return logarithm.clamp(max=math.log(MAX_MAGNITUDE)).exp()


def _cosines(n_fft: int) -> torch.Tensor:
    """(n_fft, n_fft / 2): orthonormal basis of the modified discrete cosine transform, without a window."""
    hop = n_fft // 2
    n, k = torch.arange(n_fft, device="cpu")[:, None], torch.arange(hop, device="cpu")
    return math.sqrt(2 / hop) * torch.cos(math.pi / hop * (n + 0.5 + hop / 2) * (k + 0.5))


def _from_spectrum(n_fft: int, bins: int, basis: torch.Tensor) -> torch.Tensor:
    """(2 * bins, D): matrix from real and imaginary parts of the lowest bins to products with ``basis``."""
    unit = torch.eye(2 * bins, device="cpu").to(basis)
    real, imaginary = F.pad(unit.unflatten(-1, (2, bins)), (0, n_fft // 2 + 1 - bins)).unbind(-2)
    return torch.fft.irfft(torch.complex(real, imaginary), n=n_fft) @ basis


def _to_spectrum(basis: torch.Tensor, bins: int) -> torch.Tensor:
    """(D, 2 * bins): real and imaginary parts of the lowest bins of the spectra of ``basis``' vectors."""
    spectrum = torch.fft.rfft(basis.T)[:, :bins]
    return torch.cat([spectrum.real, spectrum.imag], dim=-1)
