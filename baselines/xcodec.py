"""X-Codec (Ye et al., AAAI 2025): 16 kHz, residual codebooks, through transformers' `XcodecModel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from baselines.lazy import Lazy
from baselines.transformers_codec import Layout, TransformersCodec

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch, nn = Lazy("torch"), Lazy("torch.nn")


class Xcodec(TransformersCodec):
    """X-Codec at 16 kHz, trained on all kinds of sound: 1 to 8 codebooks of 10 bits, 50 frames per second.

    Trained with 1, 2, 3, 4 and 8 codebooks; other numbers use the first codebooks of these.
    """

    name = "xcodec"
    sample_rate = 16000
    gain = 0.7
    released: ClassVar = {"general": ("xcodec-config", "xcodec")}
    model_class = "XcodecModel"
    tiny: ClassVar = {
        "acoustic_model_config": {
            "model_type": "dac",
            "encoder_hidden_size": 2,
            "decoder_hidden_size": 32,
            "downsampling_ratios": [8, 5, 4, 2],
            "upsampling_ratios": [8, 5, 4, 2],
            "hidden_size": 32,
        },
        "semantic_model_config": {
            "model_type": "hubert",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "conv_dim": [4] * 7,
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
        },
    }

    def layout(self, config: Any) -> Layout:
        return Layout(config.sample_rate, config.hop_length, config.codebook_size, config.num_quantizers)

    def encode_channel(self, samples: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        # The model pads clips that end within a frame differently, and loses this frame.
        whole = nn.functional.pad(samples, (0, -len(samples) % self.hop_length))
        codes: torch.Tensor = self.model.encode(whole[None, None]).audio_codes
        return codes[0, :num_codebooks]

    def decode_channel(self, codes: torch.Tensor) -> torch.Tensor:
        audio: torch.Tensor = self.model.decode(codes[None]).audio_values
        return audio[0, 0]
