"""WavTokenizer (Ji et al., ICLR 2025): 24 kHz, one codebook, through transformers' `WavTokenizerModel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from baselines.transformers_codec import Layout, TransformersCodec

if TYPE_CHECKING:
    import torch


class WavTokenizer(TransformersCodec):
    """WavTokenizer at 40 frames per second and 12 bits each, for all kinds of sound ("large unify")."""

    name = "wavtokenizer"
    sample_rate = 24000
    released: ClassVar = {"unify-40": ("wavtokenizer-config", "wavtokenizer")}
    model_class = "WavTokenizerModel"
    since = "5.24"
    gain = 3.0
    tiny: ClassVar = {
        "num_filters": 2,
        "hidden_size": 8,
        "codebook_dim": 8,
        "decoder_hidden_size": 32,
        "decoder_intermediate_size": 8,
        "decoder_num_layers": 1,
        "decoder_attention_num_groups": 4,
    }

    def layout(self, config: Any) -> Layout:
        return Layout(config.sampling_rate, config.hop_length, config.codebook_size)

    def encode_channel(self, samples: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        codes: torch.Tensor = self.model.encode(samples[None, None]).audio_codes
        return codes[0]

    def decode_channel(self, codes: torch.Tensor) -> torch.Tensor:
        audio: torch.Tensor = self.model.decode(codes[None]).audio_values
        return audio[0, 0]


class WavTokenizer75(WavTokenizer):
    """WavTokenizer at 75 frames per second, for speech ("large speech v2")."""

    name = "wavtokenizer-75"
    released: ClassVar = {"speech-75": ("wavtokenizer-75-config", "wavtokenizer-75")}
    full: ClassVar = {"upsampling_ratios": [8, 5, 4, 2]}
