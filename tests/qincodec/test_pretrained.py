"""The weights that are shipped do what their model card claims, in short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nominal import evaluate

from qincodec import model_folder
from qincodec.codec import load
from qincodec.training.config import load_config


def test_all_weights_together_have_at_most_40_mb() -> None:
    assert sum(path.stat().st_size for path in model_folder.PRETRAINED.rglob("*") if path.is_file()) < 40e6


@pytest.mark.parametrize("name", model_folder.shipped())
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
