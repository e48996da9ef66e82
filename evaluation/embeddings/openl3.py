"""OpenL3 (Cramer, Wu, Salamon and Bello, "Look, Listen and Learn More", ICASSP 2019), version 0.4.

Front end and network as in the authors' package, written in PyTorch from their description; their published
weight files are read directly. Agreement with the package: 1e-3 dB after the front end, 1e-4 relative in the
embeddings.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import fft
from torch import nn
from torch.nn import functional

from baselines import weights
from evaluation.embeddings.base import Embedding, centred_frames
from qincodec.distances import mel_filter_bank
from qincodec.errors import Unavailable, UserError

SAMPLE_RATE = 48000
N_FFT, HOP_LENGTH, NUM_MELS = 2048, 242, 256
#: Time steps of a frame of one second: the last window is filled up with zeros.
NUM_STEPS = -(-SAMPLE_RATE // HOP_LENGTH)
BATCH_NORM_EPS = 1e-3
#: (channels, ends in a 2 x 2 max-pooling) of the convolutions.
LAYERS = ((64, False), (64, True), (128, False), (128, True), (256, False), (256, True), (512, False))
EMBEDDING_DIM = 512

#: Frames in the network at once: on a CPU, where more maps at a time leave its cache, and on a GPU.
_FRAMES_CPU, _FRAMES_GPU = 2, 64


def to_48k(audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """(samples,) float32 at 48 kHz, by resampy's kaiser_best: another resampler moves the embeddings."""
    if sample_rate == SAMPLE_RATE:
        return audio
    import resampy

    # resampy refuses what would leave it without a sample; zeros behind the end change no value before it.
    missing = max(0, -(-sample_rate // SAMPLE_RATE) + 1 - len(audio))
    samples = functional.pad(audio, (0, missing)).numpy()
    resampled = resampy.resample(samples, sample_rate, SAMPLE_RATE, filter="kaiser_best")
    return torch.from_numpy(np.asarray(resampled, np.float32))


#: The original's Hann window comes from single-precision cosines. Where a clip has nothing (above the
#: cutoff of what it was resampled from, say), its mel bands hold the rounding noise of window and transform,
#: which the network sees at -60 dB or so. So the window is the same to the last bit: these are its
#: deviations in 2^-25 (int8, zlib, base 85) from 0.5 - 0.5 cos, each cosine rounded. From TensorFlow 2.21.
_WINDOW_DEVIATIONS = (
    "c-pm9ixz_*2=(&+-"
    "wfL*5>PtYHaaH>k$2bDI!XI6;r(QixuR~#u6e)I3Q+^_fj~czqCRwxGe`nB4{%><0G5&ToJF6a95NHhC9&dQt2X~2TGHa<-"
    "4|9N+s>dpikY)VO5VwFl*N<}Q5j|<3xK&&2|N#qY<rx~>=7?Wc6&u%^_%~8gg54j0#D;CoSh~=EPVzjPEk<cY1=0wL}|_@?ic?W8"
    "v0Y@M{E7#`@%mOAz2db!cj+7Wetr#02+`OBgh(u3gz;BgJ=PlcNj=RVKt_euOXZO>;iH(kDNv?WY<M-TTzHvt!j$x<~-"
    "}o3)4VOL;"
)


def front_end(frames: torch.Tensor) -> torch.Tensor:
    """Mel spectra in dB below each frame's maximum.

    STFT (window 2048, hop 242, periodic Hann, not centred, zeros behind the end), magnitude, 256 mel bands
    (Slaney's scale and norm, 0 to 24 kHz), ``10 log10(max(x, 1e-10))``, less the frame's maximum, at least
    -80. A frame of zeros becomes 0 dB everywhere.

    On the CPU: SciPy's transform (pocketfft) rounds as the original's does, and torch's does not.

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

    (batch, 1, 256, 199) in dB -> (batch, 512, 32, 24), not pooled yet. The first batch norm stands before a
    convolution that pads with zeros and therefore stays by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))
        convs, channels = [], 1
        for width, _ in (*LAYERS, (EMBEDDING_DIM, False)):
            convs.append(nn.Conv2d(channels, width, 3, padding=1))
            channels = width
        self.convs = nn.ModuleList(convs)

    def forward(self, decibels: torch.Tensor) -> torch.Tensor:
        x = (decibels * self.scale + self.shift).contiguous(memory_format=torch.channels_last)
        for conv, (_, pools) in zip(self.convs, LAYERS, strict=False):
            # In place and, by its order, on a quarter of the values: the maximum of ReLUs is the ReLU of it.
            x = conv(x)
            if pools:
                x = functional.max_pool2d(x, 2)
            x = x.relu_()
        return self.convs[-1](x)


Arrays = list[tuple[str, list[np.ndarray]]]


def read_weights(path: Path) -> Arrays:
    """(layer name, its arrays) of a Keras ``.h5`` or ``.h5.gz`` file, in the order of its ``layer_names``.

    Raises:
        UserError: it is no such file, damaged, or its layers are not those of OpenL3 with mel256 input.
    """
    import h5py

    def refuse(what: str) -> UserError:
        return UserError(
            f"{path} holds no OpenL3 weights (mel256, Keras .h5 or .h5.gz): {what}; fetch the official file "
            "with `evaluate weights fetch openl3`"
        )

    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        with h5py.File(io.BytesIO(data), "r") as file:
            root = file.get("model_weights", file)
            layers = []
            for name in map(_text, root.attrs["layer_names"]):
                names = [_text(entry) for entry in root[name].attrs["weight_names"]]
                if names:
                    layers.append((name, [np.asarray(root[name][entry], np.float32) for entry in names]))
    except (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise refuse(" ".join(str(error).split()) or type(error).__name__) from error
    found = [[array.shape for array in arrays] for _, arrays in layers]
    expected = _expected_shapes()
    if len(found) != len(expected):
        raise refuse(f"{len(found)} layers with weights instead of {len(expected)}")
    for (name, _), shapes, right in zip(layers, found, expected, strict=True):
        if shapes != right:
            raise refuse(f"layer '{name}' has shapes {shapes} instead of {right}")
    if not all(np.isfinite(array).all() for _, arrays in layers for array in arrays):
        raise refuse("NaN or infinity among its values")
    return layers


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


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


class OpenL3(Embedding):
    """Environmental model, 512 values per second of audio: FD-OL3 of the literature."""

    name = "openl3"
    label = "OL3"
    version = "openl3-0.4/mel256"
    dim = EMBEDDING_DIM
    frame_s = 1.0
    hop_s = 0.5
    weights_name = "openl3"
    definition = (
        "OpenL3 0.4, mel256, environmental sounds, 512 values per frame of 1 s every 0.5 s (centred), of the "
        "mono mix at 48 kHz."
    )
    #: Cells the last map is pooled to.
    pooling: tuple[int, int] = (32, 24)

    def __init__(self, *, device: str | torch.device = "cpu") -> None:
        super().__init__(device=device)
        try:
            path = weights.obtain(self.weights_name)
            layers = read_weights(path)
        except Unavailable:
            raise
        except UserError as error:
            raise Unavailable(str(error)) from error
        file = weights.entry(self.weights_name)
        self.attribution = f"OpenL3 weights: {file.attribution}, {file.licence}"
        digest = hashlib.sha256()
        for _, arrays in layers:
            for array in arrays:
                digest.update(array.astype("<f4").tobytes())
        self.weights_hash = digest.hexdigest()[:16]
        self.network = build_network(layers).to(self.device)

    @classmethod
    def unavailable(cls) -> str | None:
        try:
            return None if weights.find(cls.weights_name) else weights.why_unavailable(cls.weights_name)
        except UserError as error:
            return str(error)

    @torch.inference_mode()
    def embed(self, audio: torch.Tensor, sample_rate: int) -> torch.Tensor:
        hop = round(self.hop_s * SAMPLE_RATE)
        frames = centred_frames(to_48k(audio.cpu(), sample_rate), SAMPLE_RATE, hop)
        step = _FRAMES_CPU if self.device.type == "cpu" else _FRAMES_GPU
        return torch.cat([self.embed_frames(part).cpu() for part in frames.split(step)])

    def embed_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """(frames, 48000) at 48 kHz -> (frames, dim)."""
        maps = functional.max_pool2d(self.network(front_end(frames).to(self.device)), self.pooling)
        return maps.permute(0, 2, 3, 1).flatten(1)  # Keras flattens with the channels last


class OpenL3Wide(OpenL3):
    """Environmental model, 6144 values: 12 cells of the last map, of which `OpenL3` is the maximum."""

    name = "openl3-6144"
    label = "OL3-6144"
    dim = 12 * EMBEDDING_DIM
    pooling = (8, 8)
    definition = OpenL3.definition.replace("512 values", "6144 values")


class OpenL3Music(OpenL3):
    """Music model, 512 values."""

    name = "openl3-music"
    label = "OL3-music"
    weights_name = "openl3-music"
    definition = OpenL3.definition.replace("environmental sounds", "music")


class OpenL3MusicWide(OpenL3Wide):
    """Music model, 6144 values."""

    name = "openl3-music-6144"
    label = "OL3-music-6144"
    weights_name = "openl3-music"
    definition = OpenL3Wide.definition.replace("environmental sounds", "music")


class _Unverified(OpenL3):
    """An input representation whose front end nobody has compared with the original yet."""

    @classmethod
    def unavailable(cls) -> str:
        return (
            f"'{cls.name}' has not been compared with the original implementation and is left out until it "
            "is; use openl3, whose mel256 front end has been"
        )

    def __init__(self, *, device: str | torch.device = "cpu") -> None:
        raise Unavailable(self.unavailable())


class OpenL3Mel128(_Unverified):
    name = "openl3-mel128"
    label = "OL3-mel128"
    definition = OpenL3.definition.replace("mel256", "mel128")


class OpenL3Linear(_Unverified):
    name = "openl3-linear"
    label = "OL3-linear"
    definition = OpenL3.definition.replace("mel256", "linear spectrum")
