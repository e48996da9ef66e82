"""SNAC against its authors' package: codebooks of different frame rates, and noise from a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines import check_codec, weights
from baselines.codec import Encoded
from baselines.registry import CODECS, unavailable
from qincodec.core.errors import UserError

snac = pytest.importorskip("snac")
pytestmark = pytest.mark.usefixtures("cache")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def codec() -> Any:
    return CODECS.load("snac-24khz")(weights="untrained:tiny")


@pytest.fixture(scope="module")
def with_attention() -> Any:
    return CODECS.load("snac")(weights="untrained:tiny")


def sound(channels: int, samples: int) -> torch.Tensor:
    return 0.3 * torch.randn(1, channels, samples, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["codec", "with_attention"])
def test_codes_and_audio_are_the_authors(name: str, request: pytest.FixtureRequest) -> None:
    codec = request.getfixturevalue(name)
    audio = sound(2, 13_000)
    (clip,) = codec.encode(audio, codec.rates(2)[0])
    before = torch.random.get_rng_state()
    decoded = codec.decode([Encoded.from_bytes(clip.to_bytes())])
    assert torch.equal(torch.random.get_rng_state(), before), "whoever draws next is not disturbed"
    books, noise = len(codec.model.vq_strides), torch.Generator().manual_seed(codec.seed)
    torch.manual_seed(codec.seed)
    for channel in range(2):
        with torch.inference_mode():
            codes = codec.model.encode(audio[:, [channel]])
            expected = codec.model.decode(codes)
        for found, row in zip(clip.codes[channel * books :][:books], codes, strict=True):
            assert np.array_equal(found, row[0].numpy())
        assert expected.std() > 0.01
        torch.testing.assert_close(decoded[:, channel], expected[0, :, :13_000], atol=1e-6, rtol=0)
    assert not torch.equal(torch.random.get_rng_state(), noise.get_state()), "its decoder draws noise"
    # Of each channel 12 bits a code.
    assert len(clip.payload) == -(-12 * sum(map(len, clip.codes)) // 8)


def test_promises_of_the_interface(codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "channels", (1,))  # two are compared with the authors' above
    check_codec(codec, lengths=(1, 333))
    assert codec.identity()["seed"] == 0


@pytest.mark.parametrize(
    ("name", "kbps", "millions", "frames"),
    [
        ("snac", 2.6, 54.5, [16, 32, 64, 128]),
        ("snac-24khz", 0.98, 19.8, [12, 24, 48]),
    ],
)
def test_the_released_architectures(name: str, kbps: float, millions: float, frames: list[int]) -> None:
    """Rates, parameters and frames of a second as the authors' pages say."""
    kind = CODECS.load(name)
    with torch.device("meta"):
        model = kind.untrained("", "full")
    assert sum(part.numel() for part in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    small = kind(weights="untrained:tiny")
    assert small.rates()[0].kbps == pytest.approx(kbps, rel=0.02)
    (clip,) = small.encode(sound(1, small.sample_rate), small.rates()[0])
    assert [len(row) for row in clip.codes] == frames


def test_the_released_pair_of_files_is_the_folder(codec: Any, cache: Path, tmp_path: Path) -> None:
    kind, model = type(codec), codec.model
    arguments = {
        "sampling_rate": model.sampling_rate,
        "encoder_dim": model.encoder_dim,
        "encoder_rates": model.encoder_rates,
        "decoder_dim": model.decoder_dim,
        "decoder_rates": model.decoder_rates,
        "attn_window_size": model.attn_window_size,
        "vq_strides": model.vq_strides,
        "noise": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(arguments))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    authors = snac.SNAC.from_pretrained(str(tmp_path))
    loaded = kind(weights=str(tmp_path))
    audio = sound(1, 900)
    (clip,) = loaded.encode(audio, loaded.rates()[0])
    for found, row in zip(clip.codes, authors.encode(audio), strict=True):
        assert np.array_equal(found, row[0].numpy())
    names = kind.released[next(iter(kind.released))]
    assert f"evaluate weights fetch {' '.join(names)}" in str(unavailable(codec.name))
    for file, name in zip(kind.folder, names, strict=True):
        weights.use(name, tmp_path / file)
    assert kind().weights_hash == loaded.weights_hash
    (tmp_path / "config.json").write_text(json.dumps({**arguments, "decoder_dim": 10**9}))
    with pytest.raises(UserError, match="is not a SNAC model: decoder_dim is 1000000000"):
        kind(weights=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({**arguments, "other": 1}))
    with pytest.raises(UserError, match="are not a SNAC model"):
        kind(weights=str(tmp_path))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baselines.snac.find_spec", lambda name: None)
    assert unavailable("snac") == "codec 'snac' needs the package snac: run `pip install 'qincodec[snac]'`"
