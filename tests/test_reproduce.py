"""docs/how-to/reproduce.md: its commands in their order, with the sizes of a miniature."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from known import tone_and_noise
from pages import blocks

from qincodec import audio

RATE = 44_100
#: Commands that are not run: how they begin -> why.
SKIPPED = {
    "python3 -m venv": "is `make setup`",
    ". venv": "is `make setup`",
    "pip install": "is `make setup`",
    "evaluate weights fetch": "downloads weights; DAC has random ones below, the others are left out",
    "mushra serve": "takes listeners; their results are written below",
    "mushra analyze": "takes their results",
}
#: What is smaller, and what a machine without GPUs and weights has in its place.
MINIATURE = {
    "torchrun --nproc-per-node 8 -m qincodec": "qincodec",
    "--config paper-d$D": "--config mini-d$D.yaml",
    "--device cuda": "--weights dac=untrained:tiny --skip encodec,openl3 --device cpu",
    # DAC with random weights is in the tables, but is not decoded again.
    "--codecs dac,": "--weights irvq-finetuned-d32=run-d32/finetuned-irvq/model --codecs irvq-finetuned-d32,",
    "--preset paper": "--preset paper --items 2 --training 0 --duration 1",
}
IDS = ("7fmOlUlwoNg", "6BJ455B1aAs", "GOD8Bt5LfDE")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """WavCaps' layout, AudioCaps' lists and audio, configurations with the paper's D."""
    parts = {
        "AudioSet_SL": ["Yb0RFKhbpFJA", f"Y{IDS[0]}"],
        "BBC_Sound_Effects": ["NHU05093027"],
        "FreeSound": ["180913"],
        "SoundBible": ["2219"],
    }
    for number, (part, names) in enumerate(parts.items()):
        lists = tmp_path / "WavCaps" / "json_files" / part
        lists.mkdir(parents=True)
        (lists / "final.json").write_text(json.dumps({"data": [{"id": name} for name in names]}))
        folder = tmp_path / "WavCaps" / f"{part}_flac"
        folder.mkdir()
        for name in names:
            sound = tone_and_noise(number, 3.0)[None].astype(np.float32)
            audio.write(folder / f"{name}.flac", sound, RATE, "pcm16")
    (tmp_path / "audiocaps").mkdir()
    table = "audiocap_id,youtube_id,start_time,caption\n"
    for number, name in enumerate(IDS):
        sound = tone_and_noise(9 + number, 1.0)[None].astype(np.float32)
        audio.write(tmp_path / "audiocaps" / f"Y{name}.wav", sound, RATE)
        table += f"{number},{name},{number},A sound.\n"
    for split in ("train", "val", "test"):
        (tmp_path / "audiocaps" / f"{split}.csv").write_text(table)
    for dim in (16, 32, 64):
        small = {"candidates": 2, "beam": 1, "shortlist": 4}
        options = {"num_blocks": 1, "width": 8, "hidden": 8, "search": small}
        config = {
            "autoencoder": {"latent_dim": dim, "dim": 16, "intermediate_dim": 32, "num_layers": 1},
            "data": {"crop_s": 0.2, "batch_size": 2, "workers": 0, "held_out": 0.3},
            "discriminators": {"width": 0.03},
            "stage1": {"steps": 2},
            "stage2": {"codebook_size": 256, "options": options}
            | {"training": {"epochs": 1, "epoch_frames": 1024, "rvq_frames": 1024, "validation_frames": 64}},
            "stage3": {"steps": 2},
            "run": {"validation_clips": 1, "validation_s": 0.3},
        }
        (tmp_path / f"mini-d{dim}.yaml").write_text(json.dumps(config))
    (tmp_path / "listening").mkdir()
    header = "condition,n_listeners,n_ratings,mean,ci_low,ci_high,median,q1,q3\n"
    (tmp_path / "listening" / "conditions.csv").write_text(header + "dac@16,11,132,74,69,79,75,61,88\n")
    return tmp_path


def commands() -> list[str]:
    return [line for block in blocks("docs/how-to/reproduce.md", "sh") for line in block.splitlines()]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_commands_of_the_page(host: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "QINCODEC_CACHE": str(host / "cache"), "COLUMNS": "200"}
    environment |= {"QINCODEC_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    skipped, replaced, printed = set(), set(), ""
    for line in commands():
        if found := [one for one in SKIPPED if line.startswith(one)]:
            skipped |= set(found)
            continue
        for text, smaller in MINIATURE.items():
            replaced |= {text} if text in line else set()
            line = line.replace(text, smaller)
        done = subprocess.run(
            ["bash", "-ec", line], cwd=host, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        printed += done.stderr
    assert skipped == set(SKIPPED) and replaced == set(MINIATURE)
    assert "left out: 1 (listed by AudioCaps)" in printed

    ran = {}
    for name in ("paper", "paper-8kbps"):
        numbers = json.loads((host / name / "paper.json").read_text())
        ran[name] = [{r["wanted"]["key"] for r in t["rows"] if not r["reason"]} for t in numbers["tables"]]
        figures = {figure["name"]: figure["series"] for figure in numbers["figures"]}
        if name == "paper":
            assert all(figures.values())
            assert {s["label"][:6] for s in figures["fig4"]} == {"D = 16", "D = 32", "D = 64"}
            entry = numbers["tables"][0]["rows"][-1]["entries"]["si_sdr"]
            assert entry["difference"] == pytest.approx(entry["value"] - 7.55)
    codecs = {"dac", "irvq", "irvq-finetuned", "qinco2", "qinco2-finetuned"}
    assert ran["paper"] == [codecs, codecs, {"rvq", "irvq", "qinco2"}]
    assert ran["paper-8kbps"][1] == codecs
    for kind in ("irvq", "qinco2"):  # another decoder on the same quantizer
        first, second = (host / run / f"finetuned-{kind}" / "model" for run in ("run-d32", "run-8kbps"))
        weights = [(folder / "model.safetensors").read_bytes() for folder in (first, second)]
        assert weights[0] != weights[1]
