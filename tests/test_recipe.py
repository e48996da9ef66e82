"""The card of the shipped weights: the commands of its recipe in their order, with the sizes of a miniature.

Only the data, the steps and the batches are small. Configuration, networks and codebooks are those of the
shipped models, so the commands must end in models of the same shape.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_data
from known import tone_and_noise
from pages import ROOT

from qincodec import architectures, audio
from qincodec.codec import Qincodec, load
from qincodec.model_folder import CONFIG_NAME, PRETRAINED
from qincodec.training.config import load_config

RATE = 44_100
CARD = PRETRAINED / "small" / "README.md"
#: What is smaller, by command; a number that is not here is the card's or the configuration's.
MINIATURE = {
    "qincodec train autoencoder": [
        "data.crop_s=0.2",
        "data.batch_size=2",
        "data.workers=0",
        "data.speeds=[1]",
        "data.held_out=0.1",
        "stage1.steps=3",
        "stage2.options.search.beam=2",
        "stage2.options.search.shortlist=8",
        "stage2.training.epochs=1",
        "stage2.training.batch_size=128",
        "stage2.training.epoch_frames=256",
        "stage2.training.validation_frames=64",
        "run.validation_clips=1",
        "run.validation_s=0.3",
    ],
    "qincodec train quantizer": [],
    "qincodec train finetune": ["stage3.steps=3"],
}


def commands(card: Path) -> list[str]:
    """Of the fenced blocks of the section "Recipe", without comments."""
    text = card.read_text(encoding="utf-8")
    section = re.search(r"^## Recipe\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    assert section, "the card has no recipe"
    blocks = re.findall(r"^```\w*\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = [line.split(" #")[0].strip() for line in lines]
    return [line for line in found if line.startswith(("qincodec train ", "python tools/"))]


def miniature(line: str) -> str:
    line = re.sub(r"\bTRAIN\b", "DATA/train.jsonl", line)
    sizes = next((sizes for begin, sizes in MINIATURE.items() if line.startswith(begin)), [])
    return line + "".join(f" --set '{size}'" for size in sizes)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A checkout with the card's DATA (as the tool leaves it), AUDIO and START; it is tones and noise."""
    data = tmp_path / "DATA"
    names = [*(source.name for source in training_data.SOURCES), "rendered"]
    records = []
    for number, name in enumerate(names):
        of_source = []
        (data / "audio" / name).mkdir(parents=True)
        for part in range(2):
            path = f"audio/{name}/{part}.flac"
            sound = tone_and_noise(2 * number + part, 1.0)[None]
            audio.write(data / path, np.concatenate([sound] * (1 + part)), RATE, "pcm16")
            who = ("Ann", "CC0", "https://example.org", "debian: example 1")
            of_source.append(training_data.Record(path, f"{name}: Ann", RATE, 1 + part, 1.0, "music", *who))
        (data / f"{name}.records.json").write_text(json.dumps(of_source), encoding="utf-8")
        records += of_source
    training_data.write(records, data, [])
    real = tmp_path / "AUDIO"
    real.mkdir()
    audio.write(real / "bell.flac", tone_and_noise(50, 2.0)[None], RATE, "pcm16")
    line = {"path": "bell.flac", "source": "sonicpi", "sample_rate": RATE, "channels": 1, "duration_s": 2.0}
    for file, text in {
        "train.jsonl": json.dumps(line),
        "LICENCES-esc10.txt": "",
        "LICENCES-effects.md": "",
    }.items():
        (real / file).write_text(text, encoding="utf-8")
    Qincodec(architectures.autoencoder(load_config("small").shape)).save(tmp_path / "START")
    for name in ("tools", "baselines", "evaluation"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(PRETRAINED.parent, tmp_path / "qincodec", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def shape(model: Path) -> dict[str, Any]:
    """Of a model's configuration, what training does not decide."""
    config = json.loads((model / CONFIG_NAME).read_text(encoding="utf-8"))
    quantizer = {name: value for name, value in config["quantizer"].items() if name != "search"}
    return {"trained": config["trained"], "autoencoder": config["autoencoder"], "quantizer": quantizer}


def check(host: Path, recipe: list[str]) -> None:
    """Each command left its model, of the data's files; those that are shipped are of the shipped shapes."""
    made = {"autoencoder"}
    for line in recipe:
        if stage := re.match(r"qincodec train (quantizer|finetune) run(?:.* --kind (\w+))?", line):
            made.add(f"{'finetuned' if stage[1] == 'finetune' else stage[1]}-{stage[2] or 'qinco2'}")
    models = {folder.parent.name: folder for folder in (host / "run").glob("*/model")}
    assert set(models) == made >= {"quantizer-qinco2", "finetuned-qinco2"}
    listed = (host / "DATA" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    manifest = json.loads((host / "run" / "manifest" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["kind"], manifest["files"], manifest["unreadable"]) == ("jsonl", len(listed), 0)
    if any("ship_weights" in line for line in recipe):
        for path in PRETRAINED.glob(f"*/{CONFIG_NAME}"):
            name = path.parent.name
            models[name] = host / "qincodec" / "pretrained" / name
            assert shape(models[name]) == shape(path.parent)
            assert load(models[name]).hash != load(path.parent).hash, f"no command of the card makes {name}"
    sound = torch.from_numpy(tone_and_noise(99, 0.5))[None, None]
    for name in models.keys() - {"autoencoder"}:
        decoded = load(models[name]).reconstruct(sound, num_codebooks=20)
        assert decoded.shape == sound.shape and bool(decoded.isfinite().all()), name


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_commands_of_the_card(host: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(host)}
    recipe = commands(CARD)
    for line in recipe:
        done = subprocess.run(
            ["bash", "-ec", miniature(line)], cwd=host, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    check(host, recipe)
