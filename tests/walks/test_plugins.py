"""A codec, a metric and an embedding of one's own: the code of the guides as a package."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from pages import ROOT, blocks, my_package
from walking import Shell, write_package

pytestmark = pytest.mark.walk

DEMO = ROOT / "evaluation" / "datasets" / "demo"


@pytest.fixture(scope="module")
def plugged(shell: Shell) -> Iterator[Shell]:
    """A shell whose environment has `my_package`."""
    (shell.folder / "recordings").mkdir()
    for name in ("music_piano", "speech_german"):
        shutil.copy(DEMO / f"{name}.flac", shell.folder / "recordings")
    package = write_package(shell.folder / "package", "my_package", *my_package())
    with shell.installed(package, "my-package"):
        yield shell


@pytest.fixture(scope="module")
def run(plugged: Shell) -> Path:
    plugged.run(
        "evaluate recordings --codecs mulaw,opus,reference --kbps 64 --chunk 2 --save-audio --out RUN"
        " --metrics si_sdr,loudest,loudness"
    )
    return plugged.folder / "RUN"


@pytest.mark.parametrize("command", ["evaluate", "qincodec encode", "qincodec train", "mushra analyze"])
def test_help_and_a_wrong_option(shell: Shell, command: str) -> None:
    """Of this environment's parser of options; the lowest one showed tracebacks for both."""
    assert "Usage" in shell.run(f"{command} --help")
    said = shell.run(f"{command} --no-such-option 2>&1 || echo refused with $?")
    assert "No such option" in said and "refused with 2" in said


def test_they_are_listed(plugged: Shell) -> None:
    listed = plugged.run("evaluate list").split()
    assert {"mulaw", "loudest", "loudness"} <= set(listed)


def test_the_codec_is_checked_as_the_page_says(plugged: Shell) -> None:
    (plugged.folder / "check.py").write_text(
        next(b for b in blocks("docs/how-to/extend.md", "python") if "check_codec" in b)
    )
    # Eight bits a sample, 8,000 a second, in one channel and two, in time.
    assert plugged.run("python check.py").splitlines() == ["1 64 64.0 0", "2 128 128.0 0"]


def test_the_codec_has_the_rate_that_it_has(run: Path) -> None:
    """Mu-law: 8 bits, 8000 times a second."""
    clips = pd.read_csv(run / "clips.csv")
    mulaw = clips[clips["codec"] == "mulaw"]
    assert mulaw["error"].isna().all()
    assert mulaw["bytes"].tolist() == [16_000, 16_000]
    assert mulaw["kbps_measured"].tolist() == [64, 64]
    assert mulaw["si_sdr"].gt(0).all()


def test_the_metric_is_what_it_says(run: Path, plugged: Shell) -> None:
    clips = pd.read_csv(run / "clips.csv")
    assert set(clips["codec"]) == {"mulaw", "opus", "reference"}
    for row in clips.itertuples():
        (path,) = run.glob(f"decoded/{row.codec}@*/{row.clip}.wav")
        decoded = soundfile.read(path, dtype="float32")[0]
        reference = soundfile.read(plugged.folder / "recordings" / f"{row.clip}.flac", dtype="float32")[0]
        largest = max(float(np.abs(reference[: len(decoded)] - decoded).max()), 1e-9)
        assert row.loudest == pytest.approx(20 * math.log10(largest), abs=1e-3), row
    summary = pd.read_csv(run / "summary.csv").set_index("codec")
    for codec, of in clips.groupby("codec"):
        assert summary.loc[codec, "loudest"] == pytest.approx(of["loudest"].mean(), abs=1e-9)


def test_the_embedding_has_its_distances(run: Path) -> None:
    """Nothing between the reference and itself, something between the reference and a codec."""
    summary = pd.read_csv(run / "summary.csv").set_index("codec")
    columns = ["fd_loudness", "fm_loudness", "cos_loudness"]
    assert summary.loc["reference", columns].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert (summary.loc[["mulaw", "opus"], columns] > 1e-6).all(axis=None)
    assert summary.loc[["mulaw", "opus"], "kad_loudness"].notna().all()


def test_a_new_codec_is_tried_checked_and_installed_as_it_says(plugged: Shell) -> None:
    """The commands that `evaluate new codec` prints, in their order."""
    said = plugged.run("evaluate new codec my-codec")
    told = dict(re.findall(r"^(\w+) it: +(.*)$", said, flags=re.MULTILINE))
    assert list(told) == ["Try", "Check", "Install"]
    plugged.run(f"{told['Try']} --metrics si_sdr --limit 2 --out new")
    tried = pd.read_csv(plugged.folder / "new" / "summary.csv").set_index("codec")
    # 8 bits, 16,000 times a second.
    assert tried.loc["my-codec", "kbps_measured"] == 128 and tried.loc["my-codec", "si_sdr"] > 10
    (plugged.folder / "check_new.py").write_text(
        "import sys\nsys.path.append('my-codec')\nfrom test_my_codec import *\ntest_it_keeps_the_promises()\n"
    )
    plugged.run("python check_new.py")  # pytest is not in this environment
    plugged.run(told["Install"])
    assert "my-codec" in plugged.run("evaluate list")
    plugged.run("pip uninstall --quiet --yes my-codec")


def test_the_weights_come_with_their_attribution(plugged: Shell) -> None:
    """The licences of what they were trained on ask for it wherever they go."""
    where = "import qincodec, pathlib; print(pathlib.Path(qincodec.__file__).parent / 'pretrained/small')"
    folder = Path(plugged.run(f'python -c "{where}"').strip())
    sources = pd.read_csv(folder / "ATTRIBUTION.csv")
    assert sources.notna()[["author", "licence"]].all(axis=None) and len(sources) > 800
