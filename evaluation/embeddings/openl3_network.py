"""Front end and network of OpenL3 and the reader of its weights; see `evaluation.embeddings.openl3`."""

from __future__ import annotations

import base64
import gzip
import io
import math
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import fft
from torch import nn
from torch.nn import functional

from evaluation.embeddings.kaiser_best import resample
from evaluation.embeddings.winograd import WinogradConv2d
from qincodec.core.errors import UserError
from qincodec.distances import mel_filter_bank

SAMPLE_RATE = 48000
N_FFT, HOP_LENGTH, NUM_MELS = 2048, 242, 256
#: Time steps of a frame of one second: the last window is zero-padded.
NUM_STEPS = -(-SAMPLE_RATE // HOP_LENGTH)
BATCH_NORM_EPS = 1e-3
#: (channels, followed by 2 x 2 max-pooling) of all convolutions but the last; maps of the last.
LAYERS = ((64, False), (64, True), (128, False), (128, True), (256, False), (256, True), (512, False))
EMBEDDING_DIM = 512
#: Number of maps from which Winograd's algorithm is faster, measured with two frames.
_WINOGRAD_FROM = 128


def to_48k(audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """(samples,) float32 at 48 kHz, by resampy's kaiser_best: another resampler changes the embeddings."""
    if sample_rate == SAMPLE_RATE:
        return audio
    # A clip too short for one sample gets one; zeros after the end do not change values before it.
    missing = max(0, -(-sample_rate // SAMPLE_RATE) + 1 - len(audio))
    samples = functional.pad(audio, (0, missing)).numpy()
    return torch.from_numpy(resample(samples, sample_rate, SAMPLE_RATE))


#: The original's Hann window comes from single-precision cosines. In empty bands of a clip (for example above
#: the cutoff of its original rate), the mel bands hold the rounding noise of window and transform, which the
#: network sees at about -60 dB. So the window must be the same to the last bit: these are its deviations in
#: 2^-25 (int8, zlib, base 85) from 0.5 - 0.5 cos, each cosine rounded. From TensorFlow 2.21.
_WINDOW_DEVIATIONS = (
    "c-pm9ixz_*2=(&+-"
    "wfL*5>PtYHaaH>k$2bDI!XI6;r(QixuR~#u6e)I3Q+^_fj~czqCRwxGe`nB4{%><0G5&ToJF6a95NHhC9&dQt2X~2TGHa<-"
    "4|9N+s>dpikY)VO5VwFl*N<}Q5j|<3xK&&2|N#qY<rx~>=7?Wc6&u%^_%~8gg54j0#D;CoSh~=EPVzjPEk<cY1=0wL}|_@?ic?W8"
    "v0Y@M{E7#`@%mOAz2db!cj+7Wetr#02+`OBgh(u3gz;BgJ=PlcNj=RVKt_euOXZO>;iH(kDNv?WY<M-TTzHvt!j$x<~-"
    "}o3)4VOL;"
)


def front_end(frames: torch.Tensor) -> torch.Tensor:
    """Mel spectra in dB below each frame's maximum.

    STFT (window 2048, hop 242, periodic Hann, not centred, zeros after the end), magnitude, 256 mel bands
    (Slaney's scale and norm, 0 to 24 kHz), ``10 log10(max(x, 1e-10))``, less the frame's maximum, at least
    -80. A frame of zeros becomes 0 dB everywhere.

    On the CPU: SciPy's transform (pocketfft) rounds like the original's; torch's does not.

    Args:
        frames: (frames, 48000) float32, one second each.

    Returns:
        (frames, 1, 256, 199) float32.
    """
    window, bank = _front_end_constants()
    padded = functional.pad(frames.cpu(), (0, (NUM_STEPS - 1) * HOP_LENGTH + N_FFT - frames.shape[-1]))
    steps = padded.unfold(-1, N_FFT, HOP_LENGTH) * window
    magnitude = torch.from_numpy(fft.rfft(steps.numpy())).abs()
    decibels = (magnitude @ bank).clamp_(min=1e-10).log10_().mul_(10)
    decibels -= decibels.amax((1, 2), keepdim=True)
    return decibels.clamp_(min=-80).mT.unsqueeze(1)


@lru_cache(maxsize=1)
def _front_end_constants() -> tuple[torch.Tensor, torch.Tensor]:
    """Window (2048,) and mel filters (1025, 256), float32."""
    angles = np.float32(2 * np.pi) * np.arange(N_FFT, dtype=np.float32) / np.float32(N_FFT)
    cosines = np.cos(angles.astype(np.float64)).astype(np.float32)
    deviations = np.frombuffer(zlib.decompress(base64.b85decode(_WINDOW_DEVIATIONS)), np.int8)
    window = np.float32(0.5) - np.float32(0.5) * cosines
    window += deviations.astype(np.float32) * np.float32(2.0**-25)
    bank = mel_filter_bank(SAMPLE_RATE, N_FFT, NUM_MELS).float().T.contiguous()
    return torch.from_numpy(window), bank


class Network(nn.Module):
    """The audio subnetwork, for inference: each batch norm folded into the convolution before it.

    (batch, 1, 256, 199) in dB -> (batch, 512, 32, 24), not pooled yet. The first batch norm precedes a
    zero-padded convolution, so it cannot be folded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))
        convs, channels = [], 1
        for width, _ in (*LAYERS, (EMBEDDING_DIM, False)):
            wide = width >= _WINOGRAD_FROM
            convs.append(
                WinogradConv2d(channels, width) if wide else nn.Conv2d(channels, width, 3, padding=1)
            )
            channels = width
        self.convs = nn.ModuleList(convs)

    def forward(self, decibels: torch.Tensor) -> torch.Tensor:
        x = (decibels * self.scale + self.shift).contiguous(memory_format=torch.channels_last)
        for conv, (_, pools) in zip(self.convs, LAYERS, strict=False):
            # In place, and after pooling: the maximum of ReLUs is the ReLU of the maximum.
            x = conv(x)
            if pools:
                x = functional.max_pool2d(x, 2)
            x = x.relu_()
        return self.convs[-1](x)


#: Greatest size of a weights file, packed or not, in bytes: four times the weights, for optimizer states.
_LARGEST = 1 << 27

Arrays = list[tuple[str, list[np.ndarray]]]


def read_weights(path: Path) -> Arrays:
    """(layer name, its arrays) of a Keras ``.h5`` or ``.h5.gz`` file, in the order of its ``layer_names``.

    Raises:
        UserError: the file is something else or damaged, or its layers are not those of OpenL3 with mel256
            input.
    """
    import h5py

    def refuse(what: str) -> UserError:
        return UserError(
            f"{path} does not hold OpenL3 weights (mel256, Keras .h5 or .h5.gz): {what}; fetch the official "
            "file "
            "with `evaluate weights fetch openl3`"
        )

    try:
        with h5py.File(io.BytesIO(_content(path)), "r") as file:
            root = file.get("model_weights", file)
            layers = []
            for name in _names(root, "layer_names"):
                sets = [root[name][entry] for entry in _names(root[name], "weight_names")]
                if sets:
                    layers.append((name, sets))
            expected = _expected_shapes()
            if len(layers) != len(expected):
                raise ValueError(f"{len(layers)} layers with weights instead of {len(expected)}")
            # Checked before reading: a file of a few bytes can declare any size.
            for (name, sets), right in zip(layers, expected, strict=True):
                shapes = [entry.shape for entry in sets]
                if shapes != right:
                    raise ValueError(f"layer '{name}' has shapes {shapes} instead of {right}")
                if any(entry.chunks and math.prod(entry.chunks) > _LARGEST for entry in sets):
                    raise ValueError(f"layer '{name}' is stored in blocks larger than itself")
            arrays = [(name, [np.asarray(entry, np.float32) for entry in sets]) for name, sets in layers]
    except (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise refuse(" ".join(str(error).split()) or type(error).__name__) from error
    layers = arrays
    if not all(np.isfinite(array).all() for _, arrays in layers for array in arrays):
        raise refuse("its values contain NaN or infinity")
    return layers


def _content(path: Path) -> bytes:
    """The unpacked bytes of the file; ValueError above `_LARGEST`."""
    with path.open("rb") as stream:
        data = stream.read(_LARGEST + 1)
    if data[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as unpacked:
            data = unpacked.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST >> 20} MB, but the weights have 19")
    return data


def _names(group: Any, attribute: str) -> list[str]:
    """A Keras attribute that lists names; ValueError if it has more than such a network can have."""
    shape = group.attrs.get_id(attribute).shape
    if math.prod(shape) > 1000:
        raise ValueError(f"{attribute} has {math.prod(shape)} entries")
    return [n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs[attribute]]


def _expected_shapes() -> list[list[tuple[int, ...]]]:
    shapes: list[list[tuple[int, ...]]] = [[(1,)] * 4]
    channels = 1
    for width, _ in LAYERS:
        shapes += [[(3, 3, channels, width), (width,)], [(width,)] * 4]
        channels = width
    return [*shapes, [(3, 3, channels, EMBEDDING_DIM), (EMBEDDING_DIM,)]]


def build_network(layers: Arrays) -> Network:
    """The network with the weights of `read_weights`."""
    network = Network()
    arrays = [[torch.from_numpy(array).double() for array in entries] for _, entries in layers]

    def affine(batch_norm: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        gamma, beta, mean, variance = batch_norm
        scale = gamma / (variance + BATCH_NORM_EPS).sqrt()
        return scale, beta - mean * scale

    network.scale.data, network.shift.data = (part.float() for part in affine(arrays[0]))
    for index, conv in enumerate(network.convs):
        kernel, bias = arrays[1 + 2 * index]
        if index < len(LAYERS):
            scale, shift = affine(arrays[2 + 2 * index])
            kernel, bias = kernel * scale, bias * scale + shift
        conv.weight.data = kernel.permute(3, 2, 0, 1).float().contiguous(memory_format=torch.channels_last)
        conv.bias.data = bias.float()
    return network.eval().requires_grad_(False)
