"""The documented commands where no extra is installed, TensorBoard least of all.

`make walks` takes the same path in environments of the wheel alone.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qincodec import audio
from qincodec.codec import load

pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]

ROOT = Path(__file__).resolve().parents[3]

CONFIG = """
autoencoder: tiny
data: {crop_s: 0.1, batch_size: 2, workers: 0, held_out: 0.3}
discriminators: {width: 0.03}
stage1: {steps: 2}
stage2: {kind: rvq, num_codebooks: 3, codebook_size: 8}
stage3: {steps: 2, codebooks: [1, 3]}
run: {log_every: 1, validate_every: 2, save_every: 2, validation_clips: 1, validation_s: 0.3
  , samples_every: 2}
"""
QINCO2 = (
    "--set",
    "stage2.options={num_blocks: 1, width: 8, hidden: 8, search: {candidates: 4, beam: 2}}",
    "--set",
    "stage2.training={epochs: 1, epoch_frames: 512, batch_size: 64, rvq_frames: 512}",
)
#: Not all make their folder to keep the state of a fit in it.
KINDS = {"fsq": (), "qinco2": QINCO2, "uniform": ("--set", "stage2.num_codebooks=12")}

# One process for all commands, since each would take seconds to start. None in `sys.modules` is what Python
# itself takes for a module that is not there.
PROGRAM = """
import json, sys
sys.modules["tensorboard"] = None
from qincodec.cli import app
from qincodec.core.console import run_command
for command in json.load(sys.stdin):
    try:
        run_command(app, command, "qincodec")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{command} ended with {end.code}")
assert "torch.utils.tensorboard.writer" not in sys.modules
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage with several quantizers, one of them from docs/how-to/extend.md as a package."""
    folder = tmp_path_factory.mktemp("installed")
    random = np.random.default_rng(0)
    (folder / "sounds").mkdir()
    for number in range(5):
        noise = 0.1 * random.standard_normal((1, 44_100))
        noise[:, 30_000:] = 0  # digital silence
        audio.write(folder / "sounds" / f"{number}.wav", noise, 44_100)
    guide = (ROOT / "docs" / "how-to" / "extend.md").read_text(encoding="utf-8")
    code = next(b for b in re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL) if "Uniform(Q" in b)
    installed = folder / "site" / "my_package-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[qincodec.quantizers]\nuniform = my_package:Uniform\n")
    (folder / "site" / "my_package.py").write_text(code)
    (folder / "config.yaml").write_text(CONFIG)
    commands = [["train", "all", "sounds", "--config", "config.yaml", "--out", "run", "--accelerator", "cpu"]]
    for kind, more in KINDS.items():
        commands.append(["train", "quantizer", "run", "--kind", kind, "--accelerator", "cpu", *more])
        commands.append(["train", "finetune", "run", "--kind", kind, "--accelerator", "cpu"])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(commands),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{folder / 'site'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    return folder / "run"


def test_every_step_is_logged(run: Path) -> None:
    for stage in ("autoencoder", "finetuned-rvq", *(f"finetuned-{kind}" for kind in KINDS)):
        with (run / stage / "losses.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["step"] for row in rows] == ["1", "2"]
        assert all(float(row["mel"]) > 0 for row in rows)
        assert not (run / stage / "tensorboard").exists()


@pytest.mark.parametrize("kind", ["rvq", *KINDS])
def test_every_quantizer_leaves_a_model_that_codes(kind: str, run: Path) -> None:
    errors = json.loads((run / f"quantizer-{kind}" / "summary.json").read_text())["latent_error"]
    # More codebooks leave less of the latents' variance; none leaves it all.
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert 0 < min(errors.values()) < 0.9
    if kind == "uniform":
        return  # its class is not installed in this process
    for stage in ("quantizer", "finetuned"):
        codec = load(run / f"{stage}-{kind}" / "model")
        sound = 0.1 * torch.randn(1, 1, 5000, generator=torch.Generator().manual_seed(0))
        decoded = codec.reconstruct(sound)
        assert decoded.shape == sound.shape and bool(torch.isfinite(decoded).all())
