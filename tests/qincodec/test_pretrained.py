"""The weights that are shipped do what their model card claims, in short."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from nominal import evaluate

from qincodec import model_folder
from qincodec.codec import load
from qincodec.training.config import load_config


def base_of(name: str) -> str | None:
    """Name of the model whose parts a shipped model takes."""
    config = json.loads((model_folder.PRETRAINED / name / model_folder.CONFIG_NAME).read_bytes())
    return config["base"]["name"] if "base" in config else None


def test_all_weights_together_have_at_most_64_mb() -> None:
    assert sum(path.stat().st_size for path in model_folder.PRETRAINED.rglob("*") if path.is_file()) <= 64e6


def test_a_model_that_takes_parts_of_another_loads_and_says_what_it_is() -> None:
    for name in model_folder.shipped():
        if base_of(name) is not None:
            codec = load(name)
            assert codec.trained and codec.finetuned is name.endswith("-finetuned")
            assert codec.autoencoder.config == load(base_of(name)).autoencoder.config


@pytest.mark.parametrize("name", [name for name in model_folder.shipped() if base_of(name) is None])
def test_the_configuration_of_its_name_continues_from_it(name: str) -> None:
    """`--config small --set stage1.init=small` needs weights of one shape."""
    codec, config = load(name), load_config(name)
    assert codec.autoencoder.config == config.shape
    assert codec.quantizer is not None and codec.quantizer.num_codebooks == config.stage2.num_codebooks
    assert (model_folder.PRETRAINED / name / "README.md").is_file()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_on_real_audio_it_is_better_than_opus_at_16_kbps(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    data = shared("audio/valid/esc10")
    results = evaluate(data, "qincodec,opus", [17], limit=6, out=tmp_path / "run")
    means = results.clips.groupby("codec")[["kbps_measured", "si_sdr", "ms_mel"]].mean()
    assert means["kbps_measured"].between(13, 18).all()
    assert means["si_sdr"]["qincodec"] > 5
    assert means["ms_mel"]["qincodec"] < means["ms_mel"]["opus"]
