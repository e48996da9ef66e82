"""CLAP's audio half out of a whole model's file, held against transformers' own `ClapModel`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
import transformers

from baselines import weights
from evaluation.embeddings import EMBEDDINGS, clap
from evaluation.embeddings.clap import Clap, load_released
from evaluation.metrics.embedding import describe_embedding
from qincodec.core.errors import Unavailable, UserError

RATE = 44100
AUDIO = {
    "patch_embeds_hidden_size": 8,
    "hidden_size": 64,
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
}
TEXT = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}


@pytest.fixture(scope="module")
def model() -> transformers.ClapModel:
    """Of random weights, statistics of batch norms too."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = transformers.ClapConfig(audio_config=AUDIO, text_config=TEXT)
    found = transformers.ClapModel(config).eval()
    norm = found.audio_model.audio_encoder.batch_norm
    with torch.no_grad():
        norm.running_mean.normal_(-30, 3)
        norm.running_var.uniform_(200, 300)
    return found


@pytest.fixture
def file(model: transformers.ClapModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As LAION's: all tensors of the model, by torch.save."""
    path = tmp_path / "pytorch_model.bin"
    torch.save(model.state_dict(), path)
    monkeypatch.setitem(weights._explicit, "clap", path)
    small = transformers.ClapAudioConfig(**AUDIO)
    monkeypatch.setattr(clap, "load_released", partial(load_released, config=small))
    return path


@pytest.mark.usefixtures("file")
def test_embeddings_are_those_of_the_whole_model(model: transformers.ClapModel) -> None:
    noise = np.random.default_rng(0).standard_normal(round(6.2 * RATE)).astype(np.float32)
    sound = 0.1 * noise * np.linspace(0, 1, len(noise), dtype=np.float32)
    embedding = Clap()
    found = embedding.embed(torch.from_numpy(sound), RATE)
    assert found.shape == (3, 512) and found.dtype == torch.float32

    # Frames of 10 s around 0, 1 and 2 s, as the model's own preprocessor and audio tower take them.
    padded = np.pad(soxr.resample(sound, RATE, 48000, quality="VHQ"), (5 * 48000, 10 * 48000))
    extractor = transformers.ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc")
    for second, vector in enumerate(found):
        frame = padded[second * 48000 :][: 10 * 48000]
        given = extractor(frame, sampling_rate=48000, return_tensors="pt")
        with torch.inference_mode():
            expected = model.get_audio_features(**given).pooler_output[0]
        torch.testing.assert_close(vector, expected, atol=1e-4, rtol=0)
    assert found.norm(dim=1).tolist() == pytest.approx([1] * 3, abs=1e-5)
    assert (found[0] - found[2]).abs().max() > 1e-3

    info = describe_embedding(embedding)
    assert len(info.identity["weights"]) == 16 and "Apache 2.0" in info.attribution


def test_a_file_of_something_else_is_refused(file: Path, model: transformers.ClapModel) -> None:
    tensors = dict(model.state_dict())
    del tensors["audio_projection.linear1.weight"]
    torch.save(tensors, file)
    with pytest.raises(Unavailable, match=r"audio_projection\.linear1\.weight is missing"):
        Clap()
    torch.save([1], file)
    with pytest.raises(UserError, match="are not a model's tensors"):
        load_released(file)
    file.write_bytes(b"rubbish")
    with pytest.raises(Unavailable, match=r"pytorch_model\.bin"):
        Clap()


def test_it_is_listed_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path))
    kind = EMBEDDINGS.load("clap")
    assert "evaluate weights fetch clap" in str(kind.unavailable())
    assert weights.entry("clap").url.startswith(
        "https://huggingface.co/laion/clap-htsat-unfused/resolve/8fa0"
    )
