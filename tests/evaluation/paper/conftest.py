"""Tiny models of QINCODEC with random weights, in the layout that a training leaves, and short clips."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch
from known import RATE, tone_and_noise

from qincodec import model_folder
from qincodec.autoencoder import Autoencoder, AutoencoderConfig
from qincodec.codec import Qincodec
from qincodec.quantizers.base import Quantizer
from qincodec.quantizers.irvq import IRVQ
from qincodec.quantizers.qinco2 import QINCO2
from qincodec.quantizers.rvq import RVQ

os.environ["QINCODEC_OFFLINE"] = "1"

#: 8 bits per codebook: 12 make 16.5 kbit/s, 18 make 24.8.
SIZE, BOOKS = 256, 18


def quantizer_of(kind: str, dim: int) -> Quantizer:
    if kind == "rvq":
        quantizer: Quantizer = RVQ(dim, BOOKS, SIZE)
    elif kind == "irvq":
        quantizer = IRVQ(dim, BOOKS, SIZE)
    else:
        small = {"candidates": 2, "beam": 1, "shortlist": 4}
        quantizer = QINCO2(dim, BOOKS, SIZE, num_blocks=1, width=8, hidden=8, search=small)
    for name, tensor in quantizer.named_buffers():
        if "codebooks" in name or "preselection" in name:
            tensor *= 0.1  # about as large as the latents of random weights
    return quantizer


def make_model(kind: str, finetuned: bool, dim: int = 8) -> Qincodec:
    """The same encoder and quantizer every time; fine-tuning moves the decoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = AutoencoderConfig(latent_dim=dim, dim=16, intermediate_dim=32, num_layers=1)
        autoencoder = Autoencoder(config)
        quantizer = quantizer_of(kind, dim)
    if finetuned:
        with torch.no_grad():
            for name, parameter in autoencoder.named_parameters():
                if "decoder" in name:
                    parameter.mul_(1.01)
    return Qincodec(autoencoder, quantizer, trained=False)


@pytest.fixture(autouse=True)
def nothing_shipped(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shipped models and the cache of this machine must not change the tests."""
    monkeypatch.setattr(model_folder, "PRETRAINED", tmp_path_factory.mktemp("shipped"))
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="session")
def build() -> Callable[..., Qincodec]:
    return make_model


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run with all stages of all kinds but the fine-tuning of iRVQ."""
    run = tmp_path_factory.mktemp("trainings") / "tiny-run"
    for kind in ("rvq", "irvq", "qinco2"):
        (run / f"quantizer-{kind}").mkdir(parents=True)
        make_model(kind, finetuned=False).save(run / f"quantizer-{kind}" / "model")
    (run / "finetuned-qinco2").mkdir()
    make_model("qinco2", finetuned=True).save(run / "finetuned-qinco2" / "model")
    (run / "training.json").write_text("{}\n")
    return run


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recordings of half a second or so."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, seconds in enumerate((0.5, 0.5, 0.6)):
        soundfile.write(folder / f"c{seed}.wav", tone_and_noise(seed, seconds), RATE, subtype="FLOAT")
    return folder
