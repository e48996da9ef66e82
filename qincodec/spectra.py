"""Short-time spectra of the distances: mel filters and mel magnitudes, in blocks of frames."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

#: (window length, mel bands) of the scales of MS-Mel; the hop is a quarter of the window.
MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
#: Least mel magnitude.
MEL_FLOOR = 1e-5

_PADDING = max(window for window, _ in MEL_SCALES) // 2
#: Samples per step, at about 50 bytes each: on a CPU they fit in the cache, on a GPU they keep it busy.
#: In NumPy twice as many as in torch on a CPU: it makes fewer copies, and each step costs calls.
_BLOCK_CPU, _BLOCK_NUMPY, _BLOCK_GPU = 2**16, 2**17, 2**22
#: Mel weights multiplied at once on a CPU, or as many as a filter has bins if that is more: long windows have
#: few frames, so each product costs more than its zeros. Neighbouring bands need few neighbouring bins, so
#: groups skip most of the zeros of a large filter bank: many narrow bands or few wide ones.
_WEIGHTS_CPU = 200
#: Samples beyond this are left to torch: the squares of their spectra overflow, so they have no score.
_LOUDEST = 1e12


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
        in_numpy: faster; only if `suits_numpy` is true for the signal.

    Returns:
        (num_bands, ...).
    """
    hann, groups = _constants(sample_rate, frames.shape[-1], num_bands, frames.dtype, frames.device)
    spectrum = torch.fft.rfft(frames * hann)
    flat = spectrum.flatten(0, -2)
    if in_numpy:
        mel = frames.new_empty(num_bands, len(flat))
        _multiply(_products(groups, torch.from_numpy(np.abs(flat.numpy())), mel))
        mel.clamp_(min=MEL_FLOOR)
        # Not log10, which NumPy has fast only on the newest processors. The floor again, so that it is exact.
        np.log(mel.numpy(), out=mel.numpy())
        mel.mul_(1 / math.log(10)).clamp_(min=math.log10(MEL_FLOOR))
    else:
        mel = _mel_torch(flat, groups).log10()
    return mel.unflatten(1, spectrum.shape[:-1])


def suits_numpy(audio: torch.Tensor) -> bool:
    """Whether `log_mel` may use NumPy: no gradient is needed, and no sample is NaN or enormous."""
    if audio.device.type != "cpu" or audio.requires_grad:
        return False
    samples = audio.numpy()  # NumPy finds the extremes faster than torch, and NaN where a sample is
    return bool(samples.min() > -_LOUDEST and samples.max() < _LOUDEST)


@functools.lru_cache(maxsize=64)
def _constants(
    sample_rate: int, window: int, num_bands: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, list[tuple[slice, torch.Tensor]]]:
    """Window and mel filters: the bins that a group of bands needs, and its (bands, bins) weights."""
    with torch.inference_mode(False):  # or a metric's call would leave tensors that no loss can use
        bank = mel_filter_bank(sample_rate, window, num_bands).to(dtype)
        groups = []
        while len(bank):
            count = _group_size(bank) if device.type == "cpu" else num_bands
            bins = _used_bins(bank[:count])
            groups.append((bins, bank[:count, bins].contiguous().to(device)))
            bank = bank[count:]
        hann = torch.hann_window(window, dtype=torch.float64).to(device, dtype)
        return hann, groups


def _group_size(bank: torch.Tensor) -> int:
    """Number of first bands to multiply together on a CPU, in fours, which suit matrix products."""
    count = 4
    while count < len(bank):
        bins = _used_bins(bank[: count + 4])
        if (count + 4) * (bins.stop - bins.start) > max(_WEIGHTS_CPU, bank.shape[1]):
            break
        count += 4
    return min(count, len(bank))


def _used_bins(bands: torch.Tensor) -> slice:
    used = bands.any(0).nonzero().flatten().tolist() or [0]
    return slice(used[0], used[-1] + 1)


class MelBlocks:
    """Mel magnitudes, from `MEL_FLOOR` on, of signals of one shape (batch, channels, samples).

    Called with some items of `pad`'s output and whether they suit NumPy, it gives scale, frames and
    magnitudes (items, channels, bands, frames), block by block. In NumPy a block may be changed and must be
    used before the next, which is written to the same memory.
    """

    def __init__(self, shape: Sequence[int], sample_rate: int) -> None:
        _, self._channels, self._samples = shape
        self._sample_rate = sample_rate
        self._scales: list[_Scale] = []

    def __call__(self, padded: torch.Tensor, in_numpy: bool) -> Iterator[tuple[int, slice, torch.Tensor]]:
        if in_numpy:
            yield from self._in_numpy(padded[0])
            return
        for scale, (window, bands) in enumerate(MEL_SCALES):
            hann, groups = _constants(self._sample_rate, window, bands, padded.dtype, padded.device)
            for frames in frame_blocks(padded, self._samples, window):
                spectrum = torch.fft.rfft(framed(padded, window, frames) * hann)
                mel = _mel_torch(spectrum.flatten(0, -2), groups)
                yield scale, frames, mel.unflatten(1, spectrum.shape[:-1]).movedim(0, 2)

    def _in_numpy(self, padded: torch.Tensor) -> Iterator[tuple[int, slice, torch.Tensor]]:
        """The same of one item, to the rounding: NumPy's absolute value is three times as fast as torch's."""
        if not self._scales:
            shape = self._channels, self._samples
            self._scales = [_Scale(*scale, *shape, self._sample_rate, padded.dtype) for scale in MEL_SCALES]
            # The same memory for all: what one has used is still in the cache.
            memory = padded.new_empty(max(scale.size for scale in self._scales))
            for scale in self._scales:
                scale.use(memory)
        for index, scale in enumerate(self._scales):
            done = 0
            for start in scale.starts:
                frames = slice(done, start + scale.step)
                yield index, frames, scale.mel(padded, start)[None, ..., done - start :]
                done = frames.stop

    def room(self, audio: torch.Tensor) -> list[torch.Tensor]:
        """For the magnitudes of as many items as ``audio`` has."""
        dtype = torch.promote_types(audio.dtype, torch.float32)
        return [
            audio.new_empty(
                len(audio), self._channels, bands, frame_count(self._samples, window), dtype=dtype
            )
            for window, bands in MEL_SCALES
        ]

    def joined(self, padded: torch.Tensor, in_numpy: bool) -> list[torch.Tensor]:
        """All blocks of some items, per scale."""
        spectra = self.room(padded)
        for scale, frames, mel in self(padded, in_numpy):
            spectra[scale][..., frames] = mel
        return spectra


class _Scale:
    """A scale on the CPU.

    All blocks have equally many frames, a multiple of 16, which matrix products like; so the last one begins
    within the one before it.

    Attributes:
        starts: the blocks' first frames.
        step: frames of a block.
    """

    def __init__(
        self, window: int, bands: int, channels: int, samples: int, sample_rate: int, dtype: torch.dtype
    ) -> None:
        self._window, self._hop = window, window // 4
        count, blocks = frame_count(samples, window), max(1, round(samples / _BLOCK_NUMPY))
        self.step = step = min(count, -(-count // (16 * blocks)) * 16)
        self.starts = [min(start, count - step) for start in range(0, count, step)]
        self._hann, self._groups = _constants(sample_rate, window, bands, dtype, torch.device("cpu"))
        self._shapes = (step, window), (step, window // 2 + 1), (channels, bands, step)
        self.size = sum(map(math.prod, self._shapes))

    def use(self, memory: torch.Tensor) -> None:
        """Work in the first ``size`` elements of it."""
        parts = memory[: self.size].split([math.prod(shape) for shape in self._shapes])
        self._frames, magnitude, self._mel = (
            part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)
        )
        self._magnitude = magnitude.numpy()
        self._products = [_products(self._groups, magnitude, mel) for mel in self._mel]

    def mel(self, padded: torch.Tensor, start: int) -> torch.Tensor:
        """(channels, bands, step) of the frames from ``start`` on, of (channels, samples)."""
        first = _PADDING - self._window // 2 + start * self._hop
        for channel, products in zip(padded, self._products, strict=True):
            frames = channel[first:].as_strided(self._frames.shape, (self._hop, 1))
            torch.mul(frames, self._hann, out=self._frames)
            np.abs(torch.fft.rfft(self._frames).numpy(), out=self._magnitude)
            _multiply(products)
        return self._mel.clamp_(min=MEL_FLOOR)


def _mel_torch(spectrum: torch.Tensor, groups: list[tuple[slice, torch.Tensor]]) -> torch.Tensor:
    """(frames, bins) -> (bands, frames) from `MEL_FLOOR` on, differentiable and on any device."""
    # Four times as fast as abs(); the clamp, far below MEL_FLOOR, keeps the root's gradient finite at 0.
    squares = torch.view_as_real(spectrum).square()
    magnitude = (squares[..., 0] + squares[..., 1]).clamp_(min=1e-30).sqrt_()
    with torch.autocast(spectrum.device.type, enabled=False):  # half precision would change the distance
        bands = [weights @ magnitude[:, bins].mT for bins, weights in groups]
    return _join(bands, 0).clamp_(min=MEL_FLOOR)


def _products(
    groups: list[tuple[slice, torch.Tensor]], magnitude: torch.Tensor, mel: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Per group of bands its weights, the bins of ``magnitude`` (frames, bins) that they need, and its part
    of ``mel`` (bands, frames), for `_multiply`."""
    parts = mel.split([len(weights) for _, weights in groups])
    return [(weights, magnitude.mT[bins], part) for (bins, weights), part in zip(groups, parts, strict=True)]


def _multiply(products: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
    for weights, magnitude, mel in products:
        torch.mm(weights, magnitude, out=mel)  # with ``out``, which autocast leaves alone


def framed(padded: torch.Tensor, window: int, frames: slice) -> torch.Tensor:
    """Some frames of `pad`'s output, (..., frames, window); the hop is a quarter."""
    hop = window // 4
    start = _PADDING - window // 2 + frames.start * hop
    segment = padded[..., start : start + (frames.stop - frames.start - 1) * hop + window]
    return segment.unfold(-1, window, hop)


def pad(audio: torch.Tensor) -> torch.Tensor:
    """The signals in at least float32, extended by reflection for the longest window."""
    audio = audio.to(torch.promote_types(audio.dtype, torch.float32))
    samples = audio.shape[-1]
    if samples > _PADDING:
        head, tail = audio[..., 1 : _PADDING + 1].flip(-1), audio[..., -_PADDING - 1 : -1].flip(-1)
        return torch.cat([head, audio, tail], -1)
    period = max(2 * (samples - 1), 1)
    index = torch.arange(-_PADDING, samples + _PADDING, device=audio.device) % period
    return audio[..., torch.minimum(index, period - index)] if samples > 1 else audio[..., index]


def item_blocks(audio: torch.Tensor) -> Iterator[slice]:
    """Slices of a batch: a block on a GPU, an item on a CPU, where it has the same bits in every batch."""
    items, channels, samples = audio.shape
    together = 1 if audio.device.type == "cpu" else _BLOCK_GPU // (channels * (samples + 2 * _PADDING))
    step = max(1, together)
    for start in range(0, items, step):
        yield slice(start, min(start + step, items))


def frame_blocks(padded: torch.Tensor, samples: int, window: int) -> Iterator[slice]:
    """Slices of the frames of a scale; more than one for signals longer than a block."""
    items, channels, _ = padded.shape
    frames = frame_count(samples, window)
    blocks = -(-items * channels * samples // _block(padded))
    step = -(-frames // blocks)
    for start in range(0, frames, step):
        yield slice(start, min(start + step, frames))


def _join(parts: list[torch.Tensor], dim: int) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)  # cat would copy a single one


def _block(audio: torch.Tensor) -> int:
    return _BLOCK_CPU if audio.device.type == "cpu" else _BLOCK_GPU


def frame_count(samples: int, window: int) -> int:
    return 1 + samples // (window // 4)
