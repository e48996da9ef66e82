"""docs/tutorials/first-training.md, then docs/how-to/extend.md: an autoencoder, its quantizers, a table."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import soundfile
from audio_files import encode
from pages import ROOT, code, commands, my_package
from walking import Shell, write_package

pytestmark = pytest.mark.walk

DEMO = ROOT / "evaluation" / "datasets" / "demo"
RECORDINGS = ("music_piano", "speech_english", "music_drums", "speech_german", "music_strings", "music_brass")
#: The pages' trainings take minutes; on a quarter of the batch they take the same way.
QUICKER = {"--config small": "--config small --set data.batch_size=4"}
#: Commands of the two pages that a walk cannot run: part of the command -> why.
SKIPPED = {
    "WavCaps/": "needs a data set of 400,000 clips, and GPUs",
    "tools/training_data.py": "fetches packages of gigabytes, from a checkout",
    "tools/attribution.py": "reads what tools/training_data.py wrote",
}


def walk(page: str) -> list[str]:
    lines = [line for line in commands(page) if not any(part in line for part in SKIPPED)]
    for text, quicker in QUICKER.items():
        lines = [line.replace(text, quicker) for line in lines]
    return lines


@pytest.fixture(scope="module")
def trained(shell: Shell) -> Shell:
    """The commands of docs/tutorials/first-training.md."""
    (shell.folder / "recordings").mkdir()
    for name in RECORDINGS:
        sound, rate = soundfile.read(DEMO / f"{name}.flac")
        if name == "speech_german":  # through FFmpeg, which reads what libsndfile does not
            path = shell.folder / "recordings" / f"{name}.m4a"
            encode(path, "aac", sound[None, : 2 * rate].astype(np.float32), rate)
        else:
            soundfile.write(shell.folder / "recordings" / f"{name}.flac", sound[: 2 * rate], rate)
    for command in walk("docs/tutorials/first-training.md"):
        shell.run(command)
    return shell


@pytest.fixture(scope="module")
def extended(trained: Shell) -> Iterator[Shell]:
    """The commands of docs/how-to/extend.md with the quantizer of that page; then its decoder, fine-tuned."""
    lines = walk("docs/how-to/extend.md")
    for file, page, name in (
        ("codec", "docs/tutorials/own-codec.md", "MuLaw"),
        ("metric", "docs/how-to/extend.md", "Loudest"),
    ):
        (trained.folder / f"my_{file}.py").write_text(code(page, name))
    for command in [
        line for line in lines if ".py:" in line
    ]:  # with the class in a package, its name is taken
        trained.run(command)
    assert {"mulaw", "opus"} == set(pd.read_csv(trained.folder / "tried" / "summary.csv")["codec"])
    package = write_package(trained.folder / "package", "my_package", *my_package())
    with trained.installed(package, "my-package"):
        for command in [line for line in lines if ".py:" not in line]:
            # A rate that the quantizer has: the page's table is of a model that was trained for longer.
            trained.run(command + (" --out uniform" if command.startswith("evaluate") else ""))
        trained.run("qincodec train finetune run --kind uniform")
        trained.run(
            "evaluate recordings --codecs tuned=qincodec:run/finetuned-uniform/model --kbps 16"
            " --metrics si_sdr,ms_mel --save-audio --out tuned"
        )
        yield trained


def test_what_is_skipped_is_on_the_pages() -> None:
    given = commands("docs/tutorials/first-training.md") + commands("docs/how-to/extend.md")
    assert all(any(part in line for line in given) for part in [*SKIPPED, *QUICKER])


@pytest.mark.parametrize(
    ("stage", "steps"),
    [
        ("quick/autoencoder", 20),
        ("quick/finetuned-qinco2", 10),
        ("run/autoencoder", 20),
        ("run/finetuned-rvq", 10),
    ],
)
def test_losses_are_numbers(trained: Shell, stage: str, steps: int) -> None:
    losses = pd.read_csv(trained.folder / stage / "losses.csv")
    assert losses["step"].max() == steps
    numbers = losses.drop(columns="step").select_dtypes("number")
    assert numbers.shape[1] >= 2 and np.isfinite(numbers.dropna(axis=1, how="all")).all(axis=None)


def test_both_models_are_in_the_table(trained: Shell) -> None:
    summary = pd.read_csv(trained.folder / "compared" / "summary.csv")
    for codec in ("before", "after", "opus"):
        rows = summary[summary["codec"] == codec]
        assert len(rows) >= 1, codec
        assert rows["n"].eq(len(RECORDINGS)).all() and rows["n_failed"].eq(0).all()
        assert np.isfinite(rows["si_sdr"]).all()


def test_fine_tuning_a_quantizer_of_ones_own(extended: Shell) -> None:
    losses = pd.read_csv(extended.folder / "run" / "finetuned-uniform" / "losses.csv")
    assert losses["step"].max() == 10
    summary = pd.read_csv(extended.folder / "uniform" / "summary.csv")
    assert summary.loc[summary["codec"] == "mine", "n"].tolist() == [len(RECORDINGS)]


def test_the_table_has_what_the_codec_gives(extended: Shell) -> None:
    """SI-SDR of a row is that of the file which `qincodec encode` and `decode` make with the same model."""
    rows = pd.read_csv(extended.folder / "tuned" / "clips.csv").set_index("clip")
    reference = soundfile.read(extended.folder / "recordings" / "music_piano.flac", dtype="float64")[0]
    model = "--model run/finetuned-uniform/model"
    kbps = rows.loc["music_piano", "kbps_nominal"]
    extended.run(f"qincodec encode recordings/music_piano.flac -o out.qnc --kbps {kbps:.2f} {model}")
    extended.run(f"qincodec decode out.qnc -o back.wav {model}")
    back = soundfile.read(extended.folder / "back.wav", dtype="float64")[0]
    assert len(back) == len(reference)
    r, d = reference - reference.mean(), back - back.mean()
    target = r * (r @ d) / (r @ r)
    recomputed = 10 * math.log10((target @ target) / ((target - d) @ (target - d)))
    assert rows.loc["music_piano", "si_sdr"] == pytest.approx(recomputed, abs=0.05)
    told = extended.run("qincodec info out.qnc")
    assert f"({rows.loc['music_piano', 'bytes']} bytes of entropy-coded codes)" in told
