"""The guides are real sessions: their commands run, in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qincodec import audio

DOCS = Path(__file__).resolve().parents[1] / "docs"
RATE = 44_100


def commands(guide: str) -> list[str]:
    text = (DOCS / guide).read_text(encoding="utf-8")
    return [
        line for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()
    ]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """What the guides take for granted: `recordings`, `decoded` files of another codec, `results.csv`."""
    random = np.random.default_rng(0)
    for folder in ("recordings", "decoded"):
        (tmp_path / folder).mkdir()
    for number in range(8):
        seconds = np.arange(6 * RATE) / RATE
        tone = 0.2 * np.sin(2 * np.pi * 220 * 2 ** (number / 12) * seconds) * (1 + np.sin(3 * seconds)) / 2
        sound = (tone + 0.02 * random.standard_normal(len(tone)))[None].astype(np.float32)
        audio.write(tmp_path / "recordings" / f"{number}.wav", sound, RATE)
        coded = sound[:, : 5 * RATE] + 0.01 * random.standard_normal((1, 5 * RATE)).astype(np.float32)
        audio.write(tmp_path / "decoded" / f"{number}.wav", coded, RATE)
    rows = ["session_test_id,session_uuid,trial_id,rating_stimulus,rating_score,rating_time,rating_comment"]
    for listener in range(8):
        for item in range(8):
            for condition, mean in (("reference", 99), ("opus", 60), ("mp3", 40), ("anchor35", 15)):
                score = int(np.clip(random.normal(mean, 8 * (condition != "reference")), 0, 100))
                rows.append(f"demo,listener{listener},item{item},{condition},{score},9000,")
    (tmp_path / "results.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "guide", ["evaluate.md", "listen.md", pytest.param("train.md", marks=pytest.mark.long)]
)
def test_the_commands_of_a_guide_run(guide: str, workplace: Path) -> None:
    # Neither the network nor a busy machine decides: nothing is downloaded, each command may take its time.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "QINCODEC_CACHE": str(workplace / "cache"), "COLUMNS": "120"}
    environment |= {"QINCODEC_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    assert commands(guide)
    for command in commands(guide):
        done = subprocess.run(
            command, shell=True, cwd=workplace, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_links_and_pictures_are_there() -> None:
    for page in [DOCS.parent / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_no_output_is_cut_off() -> None:
    """What a terminal's edge cuts off leaves a bracket open, or ends in the middle of a known sentence."""
    text = (DOCS / "evaluate.md").read_text(encoding="utf-8")
    blocks = [part for part in text.split("```")[1::2] if part.startswith("\n")]
    assert len(blocks) == 3
    for block in blocks:
        assert block.count("(") == block.count(")") and block.count("[") == block.count("]"), block
        assert max(map(len, block.splitlines())) <= 118
    means = " ".join(blocks[-1].split("Means over", 1)[1].split())
    assert means.endswith("not corrected for the number of rows")


def test_every_guide_is_linked() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert all(f"docs/{page.name}" in readme for page in DOCS.glob("*.md"))


def test_the_examples_of_extend_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    text = (DOCS / "extend.md").read_text(encoding="utf-8")
    for name in ("Uniform", "Loudest"):
        code = next(
            b for b in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if f"class {name}" in b
        )
        (workplace / f"my_{name.lower()}.py").write_text(code)
    monkeypatch.syspath_prepend(str(workplace))
    from my_loudest import Loudest  # type: ignore[import-not-found]
    from my_uniform import Uniform  # type: ignore[import-not-found]

    latents = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    quantizer = Uniform.for_rate(4, num_codebooks=2, codebook_size=64)
    quantizer.fit(latents)
    codes = quantizer.encode(latents)
    # 12 bits over 4 dimensions: 8 levels, and inside the range at most half a step of error.
    assert quantizer.codebook_sizes == (8,) * 4
    assert ((quantizer.decode(codes) - latents).abs() <= quantizer.step / 2 + 1e-6).all()
    again = Uniform.from_config(quantizer.config())
    again.load_state_dict(quantizer.state_dict())
    assert torch.equal(again.decode(codes), quantizer.decode(codes))
    reference = torch.zeros(2, 1, 100)
    decoded = reference.clone()
    decoded[1, 0, 5] = 0.1
    assert [round(s.value) for s in Loudest().score(reference, decoded, RATE)] == [-180, -20]
