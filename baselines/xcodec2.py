"""X-Codec2 (Ye et al., 2025) and its descendant NeuCodec (Julian et al., 2025), through transformers.

Both add features of a speech model, from a mel spectrogram, to those of convolutions on the waveform. The
class that their authors use (`SeamlessM4TFeatureExtractor`) computes the spectrogram, because transformers'
own feature extractors for both need torchaudio.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from baselines.lazy import Lazy
from baselines.transformers_codec import Layout, TransformersCodec

if TYPE_CHECKING:
    import torch
    import transformers
    from torch import nn
else:
    torch, nn, transformers = Lazy("torch"), Lazy("torch.nn"), Lazy("transformers")

_SPEECH_MODEL = {"model_type": "wav2vec2-bert", "feature_projection_input_dim": 160}
_TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "encoder_hidden_size": 1,
    "quantization_dim": 80,
    "semantic_model_config": {
        **_SPEECH_MODEL,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
}


class Xcodec2(TransformersCodec):
    """X-Codec2 at 16 kHz, made for speech: one codebook of 65,536 entries, 50 frames per second.

    As in its authors' code, a clip of whole frames gets one more.
    """

    name = "xcodec2"
    sample_rate = 16000
    released: ClassVar = {"released": ("xcodec2-config", "xcodec2")}
    model_class = "Xcodec2Model"
    since = "5.13"
    gain = 1.5
    tiny: ClassVar = _TINY
    #: Zeros at both ends of the waveform before the spectrogram.
    _edge: ClassVar[int] = 160

    def layout(self, config: Any) -> Layout:
        return Layout(config.sampling_rate, config.hop_length, math.prod(config.quantization_levels))

    def num_frames(self, num_samples: int) -> int:
        return num_samples // self.hop_length + 1

    def encode_channel(self, samples: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        padded = nn.functional.pad(samples, (0, self.hop_length - len(samples) % self.hop_length))
        heard = nn.functional.pad(padded, (self._edge, self._edge)).cpu().numpy()
        found = self._spectrogram(heard, sampling_rate=self.sample_rate, return_tensors="pt")
        codes: torch.Tensor = self.model.encode(
            padded[None, None], input_features=found["input_features"].to(padded)
        ).audio_codes
        return codes[0]

    def decode_channel(self, codes: torch.Tensor) -> torch.Tensor:
        audio: torch.Tensor = self.model.decode(codes[None]).audio_values
        return audio[0, 0]

    @cached_property
    def _spectrogram(self) -> Any:
        # padding_value, of w2v-bert-2.0, is never used: clips come one at a time.
        return transformers.SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80, padding_value=1)


class NeuCodec(Xcodec2):
    """NeuCodec, which takes 16 kHz and returns 24: one codebook of 65,536 entries, 50 frames per second.

    The model gives no code for an incomplete last frame, so clips are zero-padded, and the decoded clip is
    not shorter.
    """

    name = "neucodec"
    output_sample_rate = 24000
    released: ClassVar = {"released": ("neucodec-config", "neucodec")}
    model_class = "NeuCodecModel"
    since = "5.17"
    _edge = 0

    def layout(self, config: Any) -> Layout:
        return Layout(
            config.input_sampling_rate,
            config.encoder_hop_length,
            math.prod(config.quantization_levels),
            output_sample_rate=config.output_sampling_rate,
        )

    def num_frames(self, num_samples: int) -> int:
        return TransformersCodec.num_frames(self, num_samples)

    def encode_channel(self, samples: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        whole = nn.functional.pad(samples, (0, -len(samples) % self.hop_length))
        return super().encode_channel(whole, num_codebooks)
