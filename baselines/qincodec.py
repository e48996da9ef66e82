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
)
from baselines.lazy import Lazy
from qincodec import bitstream, model_folder
from qincodec.bitstream import EIGHTHS, NO_CODE
from qincodec.core.errors import UserError, shown

if TYPE_CHECKING:
    import torch

    from qincodec import codec, stereo
else:
    torch, codec, stereo = Lazy("torch"), Lazy("qincodec.codec"), Lazy("qincodec.stereo")


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


#: Settings of a rate: codebooks of the mid, or of the one channel, and of the side.
_COUNTS = ("num_codebooks", "side_codebooks")


def _counts(rate: Rate) -> tuple[int, ...]:
    return tuple(int(rate.settings[name]) for name in _COUNTS if name in rate.settings)


class Qincodec(_Model):
    """The codec at every rate its quantizer has; two channels are coded as mid and side (`qincodec.stereo`).

    The payload is the codes as `qincodec.bitstream.code` makes them: entropy-coded if the model has tables.
    ``codes`` of an `Encoded` are the codebooks of the mid, then those of the side, without frames where it is
    silent. How codes are looked for is part of the `identity`.
    """

    name = "qincodec"
    of_encoding = ("quantizer",)
    _SEARCH = "default"

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [
            Rate(kbps, dict(zip(_COUNTS, self.model.codebooks(n, channels), strict=False)))
            for n, kbps in self.model.rates(channels)
        ]

    def encode(self, audio: torch.Tensor, rate: Rate) -> list[Encoded]:
        self.check_audio(audio)
        counts, channels = _counts(rate), audio.shape[1]
        predictions = stereo.best_predictions(audio) if channels == 2 else [0] * len(audio)
        codes = self.model.encode(
            audio,
            num_codebooks=counts if channels == 2 else counts[0],
            predictions=predictions if channels == 2 else None,
        )
        return [
            self._of_codes(clip, audio.shape[-1], counts, prediction)
            for clip, prediction in zip(codes.to("cpu", torch.int32).numpy(), predictions, strict=True)
        ]

    def is_prefix(self, rate: Rate, of: Rate) -> bool:
        quantizer, low, high = self.model.quantizer, _counts(rate), _counts(of)
        fewer = len(low) == len(high) and low != high and all(map(int.__le__, low, high))
        return quantizer is not None and quantizer.prefix_encoded and fewer

    def truncate(self, encoded: Encoded, rate: Rate) -> Encoded:
        self._check_model(encoded)
        counts, (most, *side) = _counts(rate), self._stored_counts(encoded)
        rows, frames = () if encoded.codes is None else encoded.codes, self._frames(encoded)
        if (
            len(counts) != encoded.channels
            or len(side) != len(counts) - 1
            or len(rows) < max(most, counts[0])
        ):
            raise UserError(f"encoded clip has no {counts} codebooks to keep; delete it and run again")
        codes = np.full((len(counts), counts[0], frames), NO_CODE, dtype=np.int32)
        codes[0] = rows[: counts[0]]
        if side and side[0]:
            codes[1, : counts[1]] = rows[most : most + counts[1]]
        return self._of_codes(codes, encoded.num_samples, counts, encoded.side_info.get("prediction", 0))

    def _of_codes(
        self, codes: np.ndarray, num_samples: int, counts: tuple[int, ...], prediction: int
    ) -> Encoded:
        """A clip of codes (channels, num_codebooks, frames) at a rate of so many codebooks."""
        n, *side = counts
        rows, sizes, side_info = codes[0], self._sizes(n), {"model": self.weights_hash, "num_codebooks": n}
        if side:
            side = [side[0] if (codes[1] != NO_CODE).any() else 0]
            side_info |= {"side_codebooks": side[0], "prediction": prediction}
            of_side = codes[1, : side[0]] if side[0] else np.empty((counts[1], 0), np.int32)
            rows = np.concatenate([rows, of_side]) if side[0] else (*rows, *of_side)
        return Encoded(
            bitstream.code(codes, sizes, self.model.tables, *side),
            self.sample_rate,
            len(codes),
            num_samples,
            codes=rows,
            codebook_sizes=sum(map(self._sizes, counts), ()),
            side_info=side_info,
        )

    def decode(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        check_batch(encoded)
        return torch.cat([self._decode_clip(clip) for clip in encoded])

    def _stored_counts(self, clip: Encoded) -> list[int]:
        """Codebooks of the mid, or of every channel; and of the side, where the clip has mid and side."""
        assert self.model.quantizer is not None  # `rates` has refused such a model
        counts = [clip.side_number("num_codebooks", 1, self.model.quantizer.num_codebooks)]
        if "side_codebooks" in clip.side_info:
            counts.append(clip.side_number("side_codebooks", 0, counts[0]))
        return counts

    def _decode_clip(self, clip: Encoded) -> torch.Tensor:
        n, *side = self._stored_counts(clip)
        frames, sizes, tables = self._frames(clip), self._sizes(n), self.model.tables
        packed = bitstream.packed_bytes(frames, clip.channels, sizes, *side)
        # Entropy-coded, it is shorter; by how much, only decoding shows.
        self._check_payload(clip, packed if tables is None else min(packed, len(clip.payload)))
        try:
            codes = bitstream.decode(clip.payload, frames, clip.channels, sizes, tables, *side)
        except ValueError as error:
            raise damaged(self.name, error) from error
        if not side:  # mono, or an old clip of left and right, each by itself
            return self.model.decode(torch.from_numpy(codes)[:, None], clip.num_samples).transpose(0, 1)
        prediction = clip.side_number("prediction", -EIGHTHS, EIGHTHS)
        return self.model.decode(torch.from_numpy(codes)[None], clip.num_samples, predictions=[prediction])

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
