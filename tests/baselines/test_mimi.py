"""Mimi: the released names of tensors, long clips, and files that are not what they say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from baselines import check_codec, mimi
from baselines.mimi import Mimi
from baselines.registry import CODECS
from qincodec.core.errors import UserError

torch.set_num_threads(1)
TINY = "untrained:tiny"
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def tiny() -> Mimi:
    return Mimi(weights=TINY)


def test_is_registered() -> None:
    assert CODECS.load("mimi") is Mimi
    assert "evaluate weights fetch mimi" in str(Mimi.unavailable())


def test_promises_of_the_interface(tiny: Mimi) -> None:
    measured = check_codec(tiny, rates=[tiny.rates()[7]])
    assert {m.batch_agreement for m in measured} == {1.0}
    assert tiny.version == "1-untrained"


@pytest.mark.parametrize("channels", [1, 2])
def test_rates_are_those_of_the_bytes(tiny: Mimi, channels: int) -> None:
    assert len(tiny.rates()) == 32
    rate = tiny.nearest_rate(1.1 * channels, channels)
    assert rate.settings == {"num_codebooks": 8}
    assert rate.kbps == pytest.approx(1.1 * channels)
    audio = 0.1 * torch.randn(1, channels, 24_000 * 8, generator=torch.Generator().manual_seed(0))
    (clip,) = tiny.encode(audio, rate)
    assert np.asarray(clip.codes).shape == (8 * channels, 100)
    assert clip.kbps == pytest.approx(rate.kbps)


def test_blocks_are_the_whole_clip(tiny: Mimi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times as long as the attention sees; with less context that is not so."""
    audio = 0.1 * torch.randn(1, 1, 24_000 * 15 + 7, generator=torch.Generator().manual_seed(1))
    rate = tiny.rates()[7]
    (whole,) = tiny.encode(audio, rate)
    expected = tiny.decode([whole])
    monkeypatch.setattr(mimi, "BLOCK_FRAMES", 40)
    (blocks,) = tiny.encode(audio, rate)
    assert np.mean(np.asarray(blocks.codes) == np.asarray(whole.codes)) > 0.999
    torch.testing.assert_close(tiny.decode([whole]), expected, atol=1e-5, rtol=0)
    monkeypatch.setattr(tiny, "_context", 10)
    assert (tiny.decode([whole]) - expected).abs().max() > 1e-4


def released_names(model: Any) -> dict[str, torch.Tensor]:
    """Tensors under the names of the released file, in which the networks lie side by side."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(r"^(en|de)coder\.\1coder_seanet\.", r"\1coder.", name)
        name = re.sub(r"^(?:en|de)coder\.((?:en|de)coder_transformer|downsample|upsample)\.", r"\1.", name)
        tensors[name] = tensor.clone()
    return tensors


def test_released_names(tiny: Mimi, tmp_path: Path) -> None:
    tensors = released_names(tiny._model)
    for name in (
        "encoder.layers.0.conv.weight",
        "encoder_transformer.layers.0.self_attn.q_proj.weight",
        "downsample.conv.weight",
        "upsample.conv.weight",
        "quantizer.semantic_residual_vector_quantizer.layers.0.codebook.embed_sum",
    ):
        assert name in tensors
    from transformers import MimiConfig  # where it is used: collecting tests takes no models

    path, config = tmp_path / "model.safetensors", MimiConfig(**mimi.TINY)
    save_file(tensors, path)
    loaded = mimi.load_released(path, config).state_dict()
    for name, tensor in tiny._model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name
    with pytest.raises(UserError, match="missing, unknown or of another shape") as caught:
        Mimi(weights=str(path))  # which is not tiny
    assert "\n" not in str(caught.value)
    del tensors["downsample.conv.weight"]
    save_file(tensors, path)
    with pytest.raises(UserError, match="1 tensors are missing"):
        mimi.load_released(path, config)


def test_the_released_architecture() -> None:
    """350 tensors of 96,151,393 values, as people who have the file report."""
    from transformers import MimiConfig, MimiModel

    with torch.device("meta"):
        tensors = MimiModel(MimiConfig()).state_dict()
    assert (len(tensors), sum(tensor.numel() for tensor in tensors.values())) == (350, 96_151_393)


@pytest.mark.parametrize("spoil", [lambda data: data[:1000], lambda data: b"", lambda data: b"x" * 100])
def test_files_that_are_nothing(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match="not a safetensors file") as caught:
        Mimi(weights=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_full_size_and_ten_minutes() -> None:
    codec = Mimi(weights="untrained")
    audio = 0.1 * torch.randn(1, 1, 5 * 24_000, generator=torch.Generator().manual_seed(2))
    (clip,) = codec.encode(audio, codec.nearest_rate(1.1))
    assert codec.decode([clip]).shape == audio.shape
    small = Mimi(weights=TINY)
    audio = 0.1 * torch.randn(1, 1, 600 * 24_000, generator=torch.Generator().manual_seed(3))
    (clip,) = small.encode(audio, small.nearest_rate(1.1))
    assert small.decode([clip]).shape == audio.shape
