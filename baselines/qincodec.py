"""QINCODEC in evaluations: the codec itself, and its autoencoder without quantizer as a control.

Both take the folder of a model as weights, or ``untrained:SIZE`` for random ones, which show in the version
under which scores are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.codec import (
    Codec,
    Encoded,
    Rate,
    check_batch,
    damaged,
    fewer_codebooks,
    first_codebooks,
)
from baselines.lazy import Lazy
from qincodec import bitstream, model_folder
from qincodec.core.errors import UserError, shown

if TYPE_CHECKING:
    import torch

    from qincodec import codec
else:
    torch, codec = Lazy("torch"), Lazy("qincodec.codec")


class _Model(Codec):
    channels = (1, 2)
    _VERSION = "1"
    _SEARCH: str | None = None

    def __init__(self, *, device: str | torch.device = "cpu", weights: str | None = None) -> None:
        super().__init__(device=device)
        self.model = codec.load(weights, device=device, search=self._SEARCH)
        self.version = self._VERSION if self.model.trained else f"{self._VERSION}-untrained"
        self.sample_rate = self.model.sample_rate
        self.weights_hash = self.model.hash[:16]

    @classmethod
    def unavailable(cls, weights: str | None = None) -> str | None:
        if weights is None:
            if model_folder.shipped():
                return None
            return f"{model_folder.NOTHING_SHIPPED}; pass --weights {cls.name}=PATH"
        if weights.startswith(codec.UNTRAINED):
            return None
        try:
            model_folder.find(weights)
        except UserError as error:
            return str(error)
        return None

    def _frames(self, clip: Encoded) -> int:
        return self.model.autoencoder.num_frames(clip.num_samples)

    def _check_model(self, clip: Encoded) -> None:
        if clip.side_info.get("model") != self.weights_hash:
            raise UserError(
                f"clip was encoded with {self.name} model {shown(clip.side_info.get('model'))}, the loaded"
                f" one is {self.weights_hash}: give the model it was encoded with"
            )

    def _check_payload(self, clip: Encoded, num_bytes: int) -> None:
        self._check_model(clip)
        if len(clip.payload) != num_bytes:
            raise damaged(self.name, f"{len(clip.payload)} bytes instead of {num_bytes}")


class Qincodec(_Model):
    """The codec at every rate its quantizer has; each channel is coded by itself.

    The payload is the codes as `qincodec.bitstream.code` makes them: entropy-coded if the model has tables.
    ``codes`` of an `Encoded` are the codebooks of the first channel, then those of the second. How codes are
    looked for is part of the `identity`.
    """

    name = "qincodec"
    of_encoding = ("quantizer",)
    _SEARCH = "default"

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [Rate(kbps, {"num_codebooks": n}) for n, kbps in self.model.rates(channels)]

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        self.check_audio(audio)
        n = int(rate.settings["num_codebooks"])
        codes = self.model.encode(audio, num_codebooks=n).to("cpu", torch.int32).numpy()
        return [self._of_codes(clip, audio.shape[-1]) for clip in codes]

    def is_prefix(self, rate: Rate, of: Rate) -> bool:
        quantizer = self.model.quantizer
        return quantizer is not None and quantizer.prefix_encoded and fewer_codebooks(rate, of)

    def truncate(self, encoded: Encoded, rate: Rate) -> Encoded:
        self._check_model(encoded)
        return self._of_codes(first_codebooks(encoded, rate), encoded.num_samples)

    def _of_codes(self, codes: np.ndarray, num_samples: int) -> Encoded:
        """A clip of codes (channels, num_codebooks, frames)."""
        channels, n, frames = codes.shape
        sizes = self._sizes(n)
        return Encoded(
            bitstream.code(codes, sizes, self.model.tables),
            self.sample_rate,
            channels,
            num_samples,
            codes=codes.reshape(-1, frames),
            codebook_sizes=sizes * channels,
            side_info={"model": self.weights_hash, "num_codebooks": n},
        )

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        check_batch(encoded)
        return torch.cat([self._decode_clip(clip) for clip in encoded])

    def _decode_clip(self, clip: Encoded) -> torch.Tensor:
        assert self.model.quantizer is not None  # `rates` has refused such a model
        n = clip.side_number("num_codebooks", 1, self.model.quantizer.num_codebooks)
        frames, sizes = self._frames(clip), self._sizes(n)
        packed, tables = bitstream.payload_bytes(frames, clip.channels, sizes), self.model.tables
        # Entropy-coded, it is shorter; by how much, only decoding shows.
        self._check_payload(clip, packed if tables is None else min(packed, len(clip.payload)))
        try:
            codes = bitstream.decode(clip.payload, frames, clip.channels, sizes, tables)
        except ValueError as error:
            raise damaged(self.name, error) from error
        return self.model.decode(torch.from_numpy(codes)[None], clip.num_samples)

    def _sizes(self, num_codebooks: int) -> tuple[int, ...]:
        assert self.model.quantizer is not None  # `rates` has refused such a model
        return self.model.quantizer.codebook_sizes[:num_codebooks]

    def identity(self) -> dict[str, Any]:
        if self.model.quantizer is None:
            return super().identity()
        quantizer = {"kind": self.model.quantizer.kind, **self.model.quantizer.settings()}
        return {**super().identity(), "quantizer": quantizer}


class Fast(Qincodec):
    """The codec with the search preset of that name."""

    name = "qincodec-fast"
    _SEARCH = "fast"


class Best(Qincodec):
    """The codec with the search preset of that name."""

    name = "qincodec-best"
    _SEARCH = "best"


class Continuous(_Model):
    """The autoencoder alone: what the codec would give if quantization cost nothing.

    The payload is the latents as float32. That is no bitrate to compare with, hence rate "none".
    """

    name = "qincodec-continuous"
    control = True

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [Rate(None)]

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        self.check_audio(audio)
        latents = self.model.encode_latents(audio).cpu().numpy().astype("<f4")
        channels, num_samples = audio.shape[1:]
        return [
            Encoded(
                clip.tobytes(),
                self.sample_rate,
                channels,
                num_samples,
                side_info={"model": self.weights_hash},
            )
            for clip in latents
        ]

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        check_batch(encoded)
        dim = self.model.autoencoder.config.latent_dim
        latents = []
        for clip in encoded:
            shape = clip.channels, self._frames(clip), dim
            self._check_payload(clip, 4 * int(np.prod(shape)))
            latents.append(np.frombuffer(clip.payload, "<f4").reshape(shape))
        return self.model.decode_latents(torch.from_numpy(np.stack(latents)), encoded[0].num_samples)
