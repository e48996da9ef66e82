"""Codecs of transformers' models against those models called as their authors call them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from baselines import check_codec, transformers_codec, weights
from baselines.encodec import Encodec24
from baselines.higgs import resample
from baselines.registry import CODECS, missing_weights, unavailable
from baselines.transformers_codec import TransformersCodec
from baselines.wavtokenizer import WavTokenizer
from qincodec.core.errors import Unavailable, UserError

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("cache")
TINY = "untrained:tiny"
Coded = tuple[torch.Tensor, torch.Tensor]


def encodec(model: Any, audio: torch.Tensor, n: int) -> Coded:
    model.config.target_bandwidths = [0.75 * n, 24.0]
    codes = model.encode(audio, bandwidth=0.75 * n).audio_codes
    return codes[0, 0], model.decode(codes, [None]).audio_values


def wavtokenizer(model: Any, audio: torch.Tensor, n: int) -> Coded:
    found = model(audio)
    return found.audio_codes[0], found.audio_values


def xcodec(kbps: float) -> Callable[[Any, torch.Tensor, int], Coded]:
    """X-Codec and Higgs Audio v2: a bandwidth says how many codebooks, of which each has ``kbps``."""

    def coded(model: Any, audio: torch.Tensor, n: int) -> Coded:
        codes = model.encode(audio, bandwidth=kbps * n).audio_codes
        return codes[0], model.decode(codes).audio_values

    return coded


def speech(edge: int) -> Callable[[Any, torch.Tensor, int], Coded]:
    """X-Codec2 and NeuCodec: one zero more, then zeros up to whole frames; the spectrogram of it all."""

    def coded(model: Any, audio: torch.Tensor, n: int) -> Coded:
        padded = torch.nn.functional.pad(audio, (0, 1))
        padded = torch.nn.functional.pad(padded, (0, -padded.shape[-1] % 320))
        heard = torch.nn.functional.pad(padded, (edge, edge))[0, 0].numpy()
        extractor = transformers.SeamlessM4TFeatureExtractor()
        features = extractor(heard, sampling_rate=16000, return_tensors="pt")["input_features"]
        codes = model.encode(padded, input_features=features).audio_codes
        return codes[0], model.decode(codes).audio_values

    return coded


#: Codec -> samples, numbers of codebooks to try (all of them if there is one), the authors' way.
AUTHORS: dict[str, tuple[int, tuple[int, ...], Callable[[Any, torch.Tensor, int], Coded]]] = {
    "encodec-24khz": (4001, (2, 8, 32), encodec),
    "wavtokenizer": (6001, (1,), wavtokenizer),
    "xcodec2": (3333, (1,), speech(160)),
    "xcodec": (3200, (1, 3, 8), xcodec(0.5)),
    "neucodec": (3200, (1,), speech(0)),
    "higgs-audio-v2": (2880, (2, 6, 8), xcodec(0.25)),
}


@pytest.fixture(scope="module", params=AUTHORS)
def codec(request: pytest.FixtureRequest) -> TransformersCodec:
    kind = CODECS.load(request.param)
    if reason := kind.cannot_run():
        pytest.skip(reason)
    loaded: TransformersCodec = kind(weights=TINY)
    return loaded


def sound(channels: int, samples: int) -> torch.Tensor:
    return 0.3 * torch.randn(1, channels, samples, generator=torch.Generator().manual_seed(0))


def test_codes_and_audio_are_the_authors(codec: TransformersCodec) -> None:
    samples, numbers, authors = AUTHORS[codec.name]
    audio = sound(2, samples)
    for n in numbers:
        (clip,) = codec.encode(audio, codec.rates(2)[n - 1])
        decoded = codec.decode([clip])
        length = -(-samples * codec.output_sample_rate // codec.sample_rate)
        assert (clip.sample_rate, clip.num_samples) == (codec.output_sample_rate, length)
        assert decoded.shape == (1, 2, length)
        of_channels = np.split(np.asarray(clip.codes), 2)
        for channel, found in enumerate(of_channels):
            with torch.inference_mode():
                codes, expected = authors(codec.model, audio[:, [channel]], n)
            assert codes.shape == found.shape and np.array_equal(found, codes.numpy())
            assert len({*found.ravel()}) > 2 and expected.std() > 0.01
            torch.testing.assert_close(decoded[:, channel], expected[0, :, :length], atol=1e-6, rtol=0)


def test_higgs_resamples_like_torchaudio() -> None:
    """By torchaudio 2.11.1's resample, of what numbers below 11 make."""
    audio = (torch.arange(24) * 7 % 11) / 11 - 0.4
    expected = [-0.1765797, 0.0336638, 0.3473878, -0.033009, 0.2425879, -0.1104919, 0.1276502, -0.1500409]
    expected += [-0.0822589, 0.3028892, 0.0974852, 0.1182544, 0.0518161, -8.32e-05, -0.0101178, -0.1446013]
    of_both = torch.tensor([expected, [-value for value in expected]])[:, None]
    found = resample(torch.stack([audio, -audio])[:, None], 24000, 16000)
    torch.testing.assert_close(found, of_both, atol=3e-7, rtol=0)


def test_promises_of_the_interface(codec: TransformersCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels are the common base's; the quickest is checked with two."""
    if codec.name != "wavtokenizer":
        monkeypatch.setattr(codec, "channels", (1,))
    rates = codec.rates()
    check_codec(codec, rates=[rates[len(rates) // 2]], lengths=(1, 333))


def test_rates_are_those_of_the_bytes(codec: TransformersCodec) -> None:
    """Of a second and a half, whose last frame may be the only one that is not full."""
    rate = codec.rates()[-1]
    (clip,) = codec.encode(sound(1, codec.sample_rate * 3 // 2), rate)
    assert clip.duration_s == 1.5
    assert clip.kbps == pytest.approx(rate.kbps, rel=0.02)


def test_a_folder_of_transformers_is_the_same_model(codec: TransformersCodec, tmp_path: Path) -> None:
    codec.model.save_pretrained(tmp_path / "hub")  # type: ignore[operator]
    loaded = type(codec)(weights=str(tmp_path / "hub"))
    assert loaded.version == "1" and loaded.weights_hash != codec.weights_hash
    expected, found = codec.model.state_dict(), loaded.model.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_released_pair_of_files_is_the_folder(cache: Path, tmp_path: Path) -> None:
    if reason := WavTokenizer.cannot_run():
        pytest.skip(reason)
    model: Any = WavTokenizer(weights=TINY).model
    model.save_pretrained(tmp_path / "hub")
    names = ["wavtokenizer-config", "wavtokenizer"]
    assert missing_weights("wavtokenizer") == names
    assert f"evaluate weights fetch {' '.join(names)}" in str(unavailable("wavtokenizer"))
    weights.cached_path(names[0]).parent.mkdir(parents=True)
    for name, file in zip(names, ("config.json", "model.safetensors"), strict=True):
        shutil.copy(tmp_path / "hub" / file, weights.cached_path(name))
    assert unavailable("wavtokenizer") is None
    released, loaded = WavTokenizer(), WavTokenizer(weights=str(tmp_path / "hub"))
    assert released.weights_hash == loaded.weights_hash
    audio, rate = sound(1, 2000), released.rates()[0]
    assert released.encode(audio, rate)[0].to_bytes() == loaded.encode(audio, rate)[0].to_bytes()
    with pytest.raises(UserError, match=r"there is no '.*config\.json'; give a folder with"):
        WavTokenizer(weights=str(weights.cached_path(names[1])))
    weights.cached_path(names[0]).write_text("{}")
    with pytest.raises(UserError, match="is not the file that was first used here"):
        WavTokenizer()


def test_the_original_file_of_encodec(tmp_path: Path) -> None:
    codec = Encodec24(weights=TINY)
    tensors = {}
    for name, tensor in codec.model.state_dict().items():
        name = re.sub(r"^(encoder|decoder)\.layers\.", r"\1.model.", name)
        kind = "convtr" if tensor.ndim and re.match(r"decoder\.model\.(3|6|9|12)\.conv", name) else "conv"
        name = re.sub(r"\.conv\.(bias|parametrizations)", rf".{kind}.{kind}.\1", name)
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        tensors[re.sub(r"^quantizer\.layers\.(\d+)\.codebook", r"quantizer.vq.layers.\1._codebook", name)] = (
            tensor
        )
    for name in (  # of the released file
        "encoder.model.0.conv.conv.weight_g",
        "encoder.model.1.shortcut.conv.conv.weight_v",
        "encoder.model.13.lstm.weight_ih_l0",
        "decoder.model.3.convtr.convtr.bias",
        "quantizer.vq.layers.31._codebook.embed",
    ):
        assert name in tensors
    torch.save(tensors, tmp_path / "original.th")
    loaded = Encodec24(weights=str(tmp_path / "original.th"))
    audio, rate = sound(1, 1000), codec.rates()[7]
    (clip,) = loaded.encode(audio, rate)
    assert clip.payload == codec.encode(audio, rate)[0].payload
    with pytest.raises(UserError, match="not a 48 kHz EnCodec model of the original release"):
        CODECS.load("encodec")(weights=str(tmp_path / "original.th"))


@pytest.mark.parametrize(
    ("name", "field", "ours"),
    [("wavtokenizer", "sampling_rate", 24000), ("neucodec", "output_sampling_rate", 24000)],
)
def test_a_folder_of_another_rate_is_refused(name: str, field: str, ours: int, tmp_path: Path) -> None:
    kind = CODECS.load(name)
    if reason := kind.cannot_run():
        pytest.skip(reason)
    model = getattr(transformers, kind.model_class)
    model(model.config_class(**kind.tiny, **{field: 48000})).save_pretrained(tmp_path / "hub")
    with pytest.raises(UserError, match=f"runs at {ours} Hz, the model at 48000 Hz"):
        kind(weights=str(tmp_path / "hub"))


@pytest.mark.parametrize("change", [{"codebook_size": 1 << 19}, {"upsampling_ratios": []}])
def test_a_configuration_that_the_tensors_do_not_fit_is_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    if reason := WavTokenizer.cannot_run():
        pytest.skip(reason)
    WavTokenizer.untrained("unify-40", "tiny").save_pretrained(tmp_path)  # type: ignore[operator]
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError) as caught:
        WavTokenizer(weights=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_older_transformers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_codec, "version", lambda name: "5.0.1")
    reason = "codec 'wavtokenizer' needs transformers 5.24 or newer, 5.0.1 is installed: run `pip install"
    assert reason in str(unavailable("wavtokenizer"))
    assert missing_weights("wavtokenizer") == []
    with pytest.raises(Unavailable, match=re.escape(reason)):
        WavTokenizer(weights=TINY)
    assert "is not in the cache" in str(unavailable("xcodec")) or "are not in" in str(unavailable("xcodec"))
