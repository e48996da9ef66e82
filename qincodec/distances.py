"""Distances between two signals: the kernels that training losses and evaluation metrics share.

SI-SDR (Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019) and MS-Mel, the multi-scale mel
distance of DAC (Kumar et al., "High-fidelity audio compression with improved RVQGAN", NeurIPS 2023); the
distance of short-time spectra of the same source, and the log-spectral distance.

Audio is (batch, channels, samples) in and one value per item out. All is differentiable torch code for any
device, and an item's value does not depend on its company beyond float rounding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

#: (window length, mel bands) of the scales of MS-Mel; the hop is a quarter of the window.
MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
#: Mel magnitudes below this count as this.
MEL_FLOOR = 1e-5
#: Window lengths of the STFT distance, and that of the log-spectral distance; the hop is a quarter.
STFT_WINDOWS, LSD_WINDOW = (2048, 512), 2048
#: Magnitudes of bins below this count as this in a logarithm.
STFT_FLOOR = 1e-5

_PADDING = max(window for window, _ in MEL_SCALES) // 2
#: Samples whose spectra are computed at once, at about 60 bytes each: so few on a CPU that they stay in its
#: cache and their memory is not handed back to the system after each step, enough to keep a GPU busy.
_BLOCK_CPU, _BLOCK_GPU = 2**17, 2**22
#: Mel bands multiplied at once on a CPU. Neighbouring bands need few neighbouring bins, so groups skip most
#: of the zeros of a large filter bank.
_BANDS_CPU = 16
#: Samples that `si_sdr` converts to float64 at once.
_BLOCK_SUMS = 2**17
#: Samples beyond this are left to torch: the squares of their spectra overflow, and so no score is theirs.
_LOUDEST = 1e12


def si_sdr(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Scale-invariant signal-to-distortion ratio in dB.

    Each channel's mean is removed; then, with all samples of all channels as one vector,
    ``a = <r, e> / <r, r>`` and the ratio is ``10 log10(|a r|^2 / |a r - e|^2)``. One gain for all channels: a
    changed stereo balance counts as distortion, and a single silent channel is no obstacle.

    Args:
        reference: (batch, channels, samples).
        estimate: same shape.

    Returns:
        (batch,) float64: +inf where the estimate is the reference times a gain, -inf where it holds nothing
        of the reference, NaN where either is silent (constant).

    Raises:
        ValueError: shapes that differ or are not (batch, channels, samples).
    """
    _check_shapes(reference.shape, estimate.shape)
    return torch.stack([_si_sdr(r, e) for r, e in zip(reference, estimate, strict=True)])


def _si_sdr(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """`si_sdr` of one item: float64 copies of a whole batch would take several times its memory."""
    if reference.device.type == "cpu" and not (reference.requires_grad or estimate.requires_grad):
        ratio_db = _si_sdr_of_sums(reference, estimate)
        if ratio_db is not None:
            return torch.tensor(ratio_db, dtype=torch.float64)
    reference, estimate = remove_mean(reference).flatten(), remove_mean(estimate).flatten()
    # For identical signals both products are the same bits, so the gain is exactly 1 and nothing remains.
    energy = torch.dot(reference, reference)
    gain = torch.dot(reference, estimate) / energy
    # The residual itself: |e|^2 - |a r|^2 would cancel for good estimates.
    residual = torch.addcmul(estimate, reference, gain, value=-1)
    ratio = 10 * torch.log10(gain.square() * energy / torch.dot(residual, residual))
    silent = (energy == 0) | (torch.dot(estimate, estimate) == 0)
    return torch.where(silent, math.nan, ratio)


def _si_sdr_of_sums(reference: torch.Tensor, estimate: torch.Tensor) -> float | None:
    """`_si_sdr` from five float64 sums, without copies of the signals: several times as fast.

    None where their differences would lose more than seven of 16 digits: beyond 70 dB, below -70 dB, where a
    signal is tiny beside its mean (as silence is); and where samples are not finite.
    """
    with_means, centred = [0.0] * 3, [0.0] * 3  # <r, r>, <r, e>, <e, e>
    for r, e in zip(reference, estimate, strict=True):
        sums = torch.zeros(5, dtype=torch.float64)
        for x, y in zip(r.split(_BLOCK_SUMS), e.split(_BLOCK_SUMS), strict=True):
            x, y = x.double(), y.double()
            sums += torch.stack([torch.dot(x, x), torch.dot(x, y), torch.dot(y, y), x.sum(), y.sum()])
        *products, total_r, total_e = sums.tolist()
        of_means = [a * b / len(r) for a, b in ((total_r, total_r), (total_r, total_e), (total_e, total_e))]
        with_means = [a + b for a, b in zip(with_means, products, strict=True)]
        centred = [a + b - c for a, b, c in zip(centred, products, of_means, strict=True)]
    (energy, product, estimate_energy), (loud_energy, _, loud_estimate) = centred, with_means
    if not energy > 1e-7 * loud_energy:
        return None
    target = product * product / energy
    residual = estimate_energy - target
    if not (target > 1e-7 * loud_estimate and residual > 1e-7 * loud_estimate):
        return None
    return 10 * math.log10(target / residual)


def remove_mean(audio: torch.Tensor) -> torch.Tensor:
    """(..., samples) less the mean of each channel, float64. A constant channel becomes exactly 0."""
    audio = audio.double()
    # Not mean(), which on some devices multiplies by 1 / samples and leaves a constant's rounding error.
    return audio - audio.sum(-1, keepdim=True) / audio.shape[-1]


def ms_mel(
    reference: torch.Tensor | Sequence[torch.Tensor], estimate: torch.Tensor, sample_rate: int
) -> torch.Tensor:
    """Multi-scale mel distance, as DAC's training loss defines it.

    The sum over the scales of the mean over channels, bands and frames of the absolute difference of
    `log_mel_spectra`. Symmetric, 0 for identical signals, without unit, not invariant to level. The gradient
    is finite everywhere; in silence it is 0.

    Args:
        reference: (batch, channels, samples), or its `log_mel_spectra` where it is compared more than once.
        estimate: (batch, channels, samples).
        sample_rate: Hz.

    Returns:
        (batch,) float32, or float64 for float64 input; NaN where a signal holds NaN or infinity.

    Raises:
        ValueError: shapes that differ or are not (batch, channels, samples).
    """
    if isinstance(reference, torch.Tensor):
        _check_shapes(reference.shape, estimate.shape)
    else:
        _check_shapes(estimate.shape)
        _check_spectra(reference, estimate.shape)
    _, channels, samples = estimate.shape
    distances = []
    for items in _item_blocks(estimate):
        padded = _pad(estimate[items])
        other = _pad(reference[items]) if isinstance(reference, torch.Tensor) else None
        in_numpy = suits_numpy(padded) and (other is None or suits_numpy(other))
        distance = padded.new_zeros(len(padded))
        for scale, (window, bands) in enumerate(MEL_SCALES):
            size = channels * bands * _frame_count(samples, window)
            for frames in _frame_blocks(padded, samples, window):
                spectrum = _log_mel(padded, sample_rate, scale, frames, in_numpy)
                if other is None:
                    target = reference[scale][items, :, :, frames]
                else:
                    target = _log_mel(other, sample_rate, scale, frames, in_numpy)
                distance = distance + spectrum.sub_(target).abs_().sum((1, 2, 3)) / size
        distances.append(distance)
    return torch.cat(distances)


def log_mel_spectra(audio: torch.Tensor, sample_rate: int) -> list[torch.Tensor]:
    """What `ms_mel` compares: ``log10(max(mel magnitude, 1e-5))`` at every scale of `MEL_SCALES`.

    Frames are centred, ``1 + samples // hop`` of them, under a periodic Hann window. The ends are extended by
    reflection, repeatedly where the signal is shorter than the extension (as numpy.pad does; one sample gives
    a constant), so every length from one sample has a value.

    Args:
        audio: (batch, channels, samples).
        sample_rate: Hz.

    Returns:
        Per scale (batch, channels, bands, frames), float32, or float64 for float64 input; together 4.4 values
        per sample.

    Raises:
        ValueError: a shape that is not (batch, channels, samples).
    """
    _check_shapes(audio.shape)
    items, channels, samples = audio.shape
    dtype = torch.promote_types(audio.dtype, torch.float32)
    spectra = [
        audio.new_empty(items, channels, bands, _frame_count(samples, window), dtype=dtype)
        for window, bands in MEL_SCALES
    ]
    for part in _item_blocks(audio):
        padded = _pad(audio[part])
        in_numpy = suits_numpy(padded)
        for scale, (window, _) in enumerate(MEL_SCALES):
            for frames in _frame_blocks(padded, samples, window):
                block = _log_mel(padded, sample_rate, scale, frames, in_numpy)
                spectra[scale][part, :, :, frames] = block
    return spectra


def stft_distance(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Multi-resolution STFT distance, as the evaluation of DAC has it.

    The sum over windows of 2048 and 512 samples of two means over channels, frames and bins, of
    ``| |R| - |E| |`` and of ``|log10 max(|R|, 1e-5)^2 - log10 max(|E|, 1e-5)^2|``, where R and E are the
    short-time spectra under a periodic Hann window, a hop of a quarter, centred, with reflected ends, not
    normalised. (``MultiScaleSTFTLoss`` of descript-audio-codec 1.0.0 with its defaults, which
    ``scripts/evaluate.py`` prints as ``stft-44k``.) Symmetric, 0 for identical signals, without unit.

    Args:
        reference: (batch, channels, samples).
        estimate: same shape.

    Returns:
        (batch,) float64; NaN where a signal holds NaN or infinity.

    Raises:
        ValueError: shapes that differ or are not (batch, channels, samples).
    """
    _check_shapes(reference.shape, estimate.shape)
    distance = estimate.new_zeros(len(estimate), dtype=torch.float64)
    for window in STFT_WINDOWS:
        for items, r, e in _magnitudes(reference, estimate, window):
            size = r[0, :, 0].numel() * _frame_count(estimate.shape[-1], window)
            logs = (part.clamp(min=STFT_FLOOR).log10() for part in (r, e))
            apart = (r - e).abs() + 2 * torch.sub(*logs).abs()
            distance[items] += apart.sum((1, 2, 3), dtype=torch.float64) / size
    return distance


def log_spectral_distance(reference: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """Log-spectral distance, as papers on codecs and bandwidth extension have it.

    The mean over channels and frames of the root of the mean over bins of
    ``(log10 max(|R|, 1e-5)^2 - log10 max(|E|, 1e-5)^2)^2``, where R and E are the short-time spectra under a
    periodic Hann window of 2048 samples, hop 512, centred, with reflected ends, not normalised. (Gray and
    Markel, "Distance measures for speech processing", IEEE TASSP 1976, with frames and logarithms of Lee and
    Han, "NU-Wave", Interspeech 2021.) Symmetric, 0 for identical signals, without unit: 1 is 10 dB.
    Its gradient is not finite where frames are alike: no loss for training.

    Args:
        reference: (batch, channels, samples).
        estimate: same shape.

    Returns:
        (batch,) float64; NaN where a signal holds NaN or infinity.

    Raises:
        ValueError: shapes that differ or are not (batch, channels, samples).
    """
    _check_shapes(reference.shape, estimate.shape)
    distance = estimate.new_zeros(len(estimate), dtype=torch.float64)
    size = estimate.shape[1] * _frame_count(estimate.shape[-1], LSD_WINDOW)
    for items, r, e in _magnitudes(reference, estimate, LSD_WINDOW):
        logs = (part.clamp(min=STFT_FLOOR).log10() for part in (r, e))
        frames = 2 * torch.sub(*logs).square().mean(-1).sqrt()
        distance[items] += frames.sum((1, 2), dtype=torch.float64) / size
    return distance


def mel_filter_bank(sample_rate: int, window: int, bands: int) -> torch.Tensor:
    """Triangular mel filters from 0 Hz to Nyquist on Slaney's scale, each of unit area over frequency in Hz.

    The scale (Slaney, Auditory Toolbox, 1998; the default of librosa) has 15 linear steps up to 1 kHz and a
    factor of 6.4 in 27 steps above. Filters narrower than the distance of two bins may be all zero.

    Args:
        sample_rate: Hz.
        window: length of the Fourier transform.
        bands: number of filters.

    Returns:
        (bands, window // 2 + 1) float64, for magnitudes.
    """
    knee_hz, knee, hz_per_mel, log_step = 1000.0, 15.0, 200 / 3, math.log(6.4) / 27
    nyquist = sample_rate / 2
    top = nyquist / hz_per_mel if nyquist < knee_hz else knee + math.log(nyquist / knee_hz) / log_step
    mels = torch.linspace(0, top, bands + 2, dtype=torch.float64)
    edges = torch.where(mels < knee, mels * hz_per_mel, knee_hz * torch.exp((mels - knee) * log_step))
    bins = torch.linspace(0, nyquist, window // 2 + 1, dtype=torch.float64)
    low, centre, high = (edges[start : start + bands, None] for start in range(3))
    triangles = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    return triangles * 2 / (high - low)


def log_mel(frames: torch.Tensor, sample_rate: int, num_bands: int, in_numpy: bool) -> torch.Tensor:
    """``log10(max(mel magnitude, 1e-5))`` of frames under a periodic Hann window.

    Args:
        frames: (..., window).
        sample_rate: Hz.
        num_bands: number of bands of `mel_filter_bank`.
        in_numpy: faster; only where `suits_numpy` says so of the signal.

    Returns:
        (num_bands, ...).
    """
    hann, groups = _constants(sample_rate, frames.shape[-1], num_bands, frames.dtype, frames.device)
    spectrum = torch.fft.rfft(frames * hann)
    bands = (_log_mel_numpy if in_numpy else _log_mel_torch)(spectrum.flatten(0, -2), groups)
    return bands.unflatten(1, spectrum.shape[:-1])


def suits_numpy(audio: torch.Tensor) -> bool:
    """Whether `log_mel` may use NumPy: no gradient is asked for, and no sample is NaN or enormous."""
    if audio.device.type != "cpu" or audio.requires_grad:
        return False
    low, high = audio.aminmax()
    return bool(low > -_LOUDEST and high < _LOUDEST)


@functools.lru_cache(maxsize=64)
def _constants(
    sample_rate: int, window: int, num_bands: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, list[tuple[slice, torch.Tensor]]]:
    """Window and mel filters: the bins that a group of bands needs, and its (bands, bins) weights."""
    with torch.inference_mode(False):  # or the first metric would leave tensors that no loss can use
        bank = mel_filter_bank(sample_rate, window, num_bands).to(dtype)
        groups = []
        for group in bank.split(_BANDS_CPU if device.type == "cpu" else num_bands):
            used = group.any(0).nonzero().flatten().tolist() or [0]
            bins = slice(used[0], used[-1] + 1)
            groups.append((bins, group[:, bins].contiguous().to(device)))
        hann = torch.hann_window(window, dtype=torch.float64).to(device, dtype)
        return hann, groups


def _log_mel(
    padded: torch.Tensor, sample_rate: int, scale: int, frames: slice, in_numpy: bool
) -> torch.Tensor:
    """Log-mel spectra (items, channels, bands, frames) of some frames of `_pad`'s output."""
    window, num_bands = MEL_SCALES[scale]
    return log_mel(_framed(padded, window, frames), sample_rate, num_bands, in_numpy).movedim(0, 2)


def _magnitudes(
    reference: torch.Tensor, estimate: torch.Tensor, window: int
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Slices of items, and of these the spectra of some frames of both, (items, channels, frames, bins)."""
    for items in _item_blocks(estimate):
        padded = _pad(reference[items]), _pad(estimate[items])
        hann = torch.hann_window(window, dtype=torch.float64).to(padded[0])
        for frames in _frame_blocks(padded[1], estimate.shape[-1], window):
            r, e = (torch.fft.rfft(_framed(part, window, frames) * hann).abs() for part in padded)
            yield items, r, e


def _framed(padded: torch.Tensor, window: int, frames: slice) -> torch.Tensor:
    """Some frames of `_pad`'s output, (..., frames, window); the hop is a quarter."""
    hop = window // 4
    start = _PADDING - window // 2 + frames.start * hop
    segment = padded[..., start : start + (frames.stop - frames.start - 1) * hop + window]
    return segment.unfold(-1, window, hop)


def _log_mel_torch(spectrum: torch.Tensor, groups: list[tuple[slice, torch.Tensor]]) -> torch.Tensor:
    """(frames, bins) -> (bands, frames), differentiable and on any device."""
    # Four times as fast as abs(); the clamp, far below MEL_FLOOR, keeps the root's gradient finite at 0.
    squares = torch.view_as_real(spectrum).square()
    magnitude = (squares[..., 0] + squares[..., 1]).clamp_(min=1e-30).sqrt_()
    with torch.autocast(spectrum.device.type, enabled=False):  # half precision would change the distance
        bands = [weights @ magnitude[:, bins].mT for bins, weights in groups]
    return _join(bands, 0).clamp_(min=MEL_FLOOR).log10_()


def _log_mel_numpy(spectrum: torch.Tensor, groups: list[tuple[slice, torch.Tensor]]) -> torch.Tensor:
    """The same on the CPU, to the rounding: NumPy's absolute value and logarithm are three times as fast."""
    with np.errstate(divide="ignore"):
        magnitude = torch.from_numpy(np.abs(spectrum.numpy()))
        mel = magnitude.new_empty(sum(len(weights) for _, weights in groups), len(magnitude))
        with torch.autocast("cpu", enabled=False):
            by_bin = magnitude.mT
            for (bins, weights), bands in zip(groups, mel.split(_BANDS_CPU), strict=True):
                torch.mm(weights, by_bin[bins], out=bands)
        values = mel.numpy()
        # Not np.log10, which is slow but on the newest processors. The floor comes last, so that it is exact.
        np.log(values, out=values)
        values *= 1 / math.log(10)
        np.maximum(values, math.log10(MEL_FLOOR), out=values)
    return mel


def _pad(audio: torch.Tensor) -> torch.Tensor:
    """The signals in at least float32, extended by reflection for the longest window."""
    audio = audio.to(torch.promote_types(audio.dtype, torch.float32))
    samples = audio.shape[-1]
    if samples > _PADDING:
        head, tail = audio[..., 1 : _PADDING + 1].flip(-1), audio[..., -_PADDING - 1 : -1].flip(-1)
        return torch.cat([head, audio, tail], -1)
    period = max(2 * (samples - 1), 1)
    index = torch.arange(-_PADDING, samples + _PADDING, device=audio.device) % period
    return audio[..., torch.minimum(index, period - index)] if samples > 1 else audio[..., index]


def _item_blocks(audio: torch.Tensor) -> Iterator[slice]:
    """Slices of a batch: a block on a GPU, an item on a CPU, where it has the same bits in every batch."""
    items, channels, samples = audio.shape
    together = 1 if audio.device.type == "cpu" else _BLOCK_GPU // (channels * (samples + 2 * _PADDING))
    step = max(1, together)
    for start in range(0, items, step):
        yield slice(start, min(start + step, items))


def _frame_blocks(padded: torch.Tensor, samples: int, window: int) -> Iterator[slice]:
    """Slices of the frames of a scale; more than one for signals longer than a block."""
    items, channels, _ = padded.shape
    frames = _frame_count(samples, window)
    blocks = -(-items * channels * samples // _block(padded))
    step = -(-frames // blocks)
    for start in range(0, frames, step):
        yield slice(start, min(start + step, frames))


def _join(parts: list[torch.Tensor], dim: int) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)  # cat would copy a single one


def _block(audio: torch.Tensor) -> int:
    return _BLOCK_CPU if audio.device.type == "cpu" else _BLOCK_GPU


def _frame_count(samples: int, window: int) -> int:
    return 1 + samples // (window // 4)


def _check_shapes(*shapes: torch.Size) -> None:
    for shape in shapes:
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"audio must be (batch, channels, samples), none of them 0; got {tuple(shape)}")
    if len(set(shapes)) > 1:
        raise ValueError(f"reference and estimate differ in shape: {tuple(shapes[0])}, {tuple(shapes[1])}")


def _check_spectra(spectra: Sequence[torch.Tensor], shape: torch.Size) -> None:
    """That `log_mel_spectra` belong to audio of a shape."""
    expected = [(*shape[:2], bands, _frame_count(shape[2], window)) for window, bands in MEL_SCALES]
    if [tuple(part.shape) for part in spectra] != expected:
        raise ValueError(f"the reference's spectra do not belong to audio of shape {tuple(shape)}")
