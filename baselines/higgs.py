"""Higgs Audio v2's tokenizer (Boson AI, 2025): 24 kHz, through transformers' `HiggsAudioV2TokenizerModel`.

The file of that class imports torchaudio and calls one function of it, `resample`, because the model's speech
part works at 16 kHz. torchaudio's wheel needs another torch than most users have, so the file gets a module
with only this function. No other code sees it, and an installed torchaudio is not used.
"""

from __future__ import annotations

import builtins
import importlib.util
import math
import sys
import threading
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from baselines.lazy import Lazy
from baselines.xcodec import Xcodec

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch, nn = Lazy("torch"), Lazy("torch.nn")

_MODULE = "transformers.models.higgs_audio_v2_tokenizer.modeling_higgs_audio_v2_tokenizer"
_RATIOS = [8, 5, 4, 2, 3]
_LOCK = threading.Lock()


class HiggsAudioV2(Xcodec):
    """Higgs Audio v2's tokenizer, for all kinds of sound: 1 to 8 codebooks of 10 bits, 25 frames per second.

    Trained with 2, 4, 6 and 8 codebooks; other numbers use the first codebooks of these.
    """

    name = "higgs-audio-v2"
    sample_rate = 24000
    released: ClassVar = {"released": ("higgs-audio-v2-config", "higgs-audio-v2")}
    model_class = "HiggsAudioV2TokenizerModel"
    since = "5.3"
    full: ClassVar = {
        "target_bandwidths": [0.5, 1, 1.5, 2],
        "acoustic_model_config": {
            "model_type": "dac",
            "downsampling_ratios": _RATIOS,
            "upsampling_ratios": _RATIOS,
        },
    }
    tiny: ClassVar = {
        **Xcodec.tiny,
        "codebook_dim": 8,
        "acoustic_model_config": {
            **Xcodec.tiny["acoustic_model_config"],
            "downsampling_ratios": _RATIOS,
            "upsampling_ratios": _RATIOS,
        },
    }

    @classmethod
    def model_kind(cls) -> Any:
        with _LOCK:  # two threads must not make two classes
            return getattr(_authors_module(), cls.model_class)


@cache
def _authors_module() -> Any:
    """The file of the model's class, imported without torchaudio."""
    torchaudio = SimpleNamespace(functional=SimpleNamespace(resample=resample))

    def find(name: str, *context: Any) -> Any:
        return torchaudio if name == "torchaudio" else builtins.__import__(name, *context)

    spec = importlib.util.find_spec(_MODULE)
    assert spec is not None and spec.loader is not None  # `cannot_run` has checked the version
    module = importlib.util.module_from_spec(spec)
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": find}
    imported = sys.modules.get(_MODULE)
    sys.modules[_MODULE] = module  # its decorators look for it there
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[_MODULE]
        if imported is not None:
            sys.modules[_MODULE] = imported
    return module


def resample(audio: torch.Tensor, sample_rate: int, new_sample_rate: int) -> torch.Tensor:
    """The result of torchaudio's function of the same name: (..., samples) -> (..., samples at the new rate).

    A sinc under a Hann window of six zero crossings to each side, which cuts off at 0.99 of half the lower
    rate. soxr's sharper filter would change the model's input, and so its codes.
    """
    common = math.gcd(sample_rate, new_sample_rate)
    step, phases = sample_rate // common, new_sample_rate // common
    cutoff = 0.99 * min(step, phases) / step  # zero crossings per sample
    reach = math.ceil(6 / cutoff)
    samples = torch.arange(-reach, reach + step, dtype=torch.float64)
    wanted = torch.arange(phases, dtype=torch.float64)[:, None] * step / phases
    crossings = ((samples - wanted) * cutoff).clamp(-6, 6)
    kernel = cutoff * torch.sinc(crossings) * torch.cos(crossings * torch.pi / 12) ** 2
    rows = nn.functional.pad(audio.reshape(-1, 1, audio.shape[-1]), (reach, reach + step))
    found = nn.functional.conv1d(rows, kernel[:, None].to(audio), stride=step)
    length = math.ceil(audio.shape[-1] * phases / step)
    return found.transpose(1, 2).reshape(*audio.shape[:-1], -1)[..., :length]
