"""Every command of README and docs, in the order of the page, in one folder, whatever its fence.

Those of docs/tutorials/first-training.md and docs/how-to/extend.md are walked by test_training.py; those of
docs/how-to/hosting.md change a machine, and are tried by tests/mushra/cli/test_hosting.py; those of
docs/how-to/reproduce.md want GPUs, and tests/test_reproduce.py runs them on a miniature.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import soundfile
from pages import PAGES, ROOT, commands
from serving import free_port
from walking import Ear, Grades, Shell, take_by_http

pytestmark = pytest.mark.walk

DEMO = ROOT / "evaluation" / "datasets" / "demo"
#: Commands that no walk can run here: how they begin -> why.
SKIPPED = {
    "make demo": "sets the checkout up, which CI does before the walks",
    "make test": "CI runs it before the walks",
    "evaluate weights fetch": "downloads weights from their authors",
    "evaluate DATA --codecs dac,encodec,opus": "needs weights that are downloaded",
    "pip install 'qincodec[cluster]'": "is on no index yet; the wheel is installed",
    "evaluate DATA --cluster": "needs Ray, an extra; test_cluster.py has a cluster",
    "python tests/support/measured_rates.py": "needs a checkout; test_rates.py is in `make test`",
    "python tests/support/measured_methods.py": "needs a checkout; test_methods_rates.py is in `make test`",
    "mushra serve test2": "test_experimenter.py opens a closed test on its page",
}
#: What stands for codecs of one's own on docs/how-to/big-sets.md; and a second of each clip for all of it,
#: where `make demo` or a command before has evaluated more: the search of QINCODEC's codes is most of a walk.
STANDS_FOR = {
    "evaluate --codecs qincodec,opus,mp3": "evaluate --chunk 1 --codecs qincodec,opus,mp3",
    "--codecs A,B": "--codecs opus,mp3 --kbps 16 --chunk 1",
    "b=qincodec:MODEL_B": "b=qincodec:MODEL_B --chunk 1",
}
ELSEWHERE = {
    "docs/tutorials/first-training.md",
    "docs/how-to/extend.md",
    "docs/how-to/hosting.md",
    "docs/how-to/reproduce.md",
}
#: A page that continues another in the same folder -> the other.
CONTINUES = {"docs/how-to/listening-tests.md": "docs/tutorials/first-listening-test.md"}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A folder with what the pages take for granted: recordings, files of other codecs, models, ratings."""
    for name in ("DATA", "recordings", "decoded/lyra", "decoded/mine", "decoded/vocos"):
        (tmp_path / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    for index, path in enumerate(sorted(DEMO.glob("*.flac"))):
        sound, rate = soundfile.read(path)
        soundfile.write(tmp_path / "DATA" / path.name, sound[: 2 * rate], rate)
        if index % 2:
            continue
        shutil.copy(path, tmp_path / "recordings")
        coded = sound + 0.01 * random.standard_normal(sound.shape)
        for folder in ("decoded", "decoded/lyra", "decoded/mine", "decoded/vocos"):
            soundfile.write(tmp_path / folder / f"{path.stem}.wav", coded, rate)
    soundfile.write(tmp_path / "in.wav", *soundfile.read(DEMO / "speech_english.flac"))
    for name in ("MODEL_A", "MODEL_B"):
        shutil.copytree(ROOT / "qincodec" / "pretrained" / "small", tmp_path / name)
    rows = ["session_test_id,session_uuid,trial_id,rating_stimulus,rating_score,rating_time,rating_comment"]
    for listener in range(8):
        for item in range(8):
            for condition, mean in (("reference", 100), ("opus", 60), ("mp3", 40), ("anchor35", 15)):
                score = mean if mean == 100 else mean + random.integers(-9, 10)
                rows.append(f"demo,listener{listener},item{item},{condition},{score},9000,")
    (tmp_path / "hello.md").write_text("# Hello\n\nListen *closely*.\n")
    (tmp_path / "results.csv").write_text("\n".join(rows) + "\n")
    offline = {"QINCODEC_OFFLINE": "1", "QINCODEC_CACHE": str(tmp_path / "cache")}
    return Shell(tmp_path, {**offline, "OMP_NUM_THREADS": "1", "COLUMNS": "200"})


def skipped(command: str) -> bool:
    return any(command == one or command.startswith(f"{one} ") for one in SKIPPED)


def listen(shell: Shell, command: str) -> None:
    """Serves a test, on a free port, to three listeners."""
    test = shell.folder / ("mushra-demo/test" if command == "mushra demo" else command.split()[2])
    port = free_port()
    with shell.serving(f"{command} --port {port}") as link:
        # Whatever address the world is told, this machine's own is served.
        link = f"http://127.0.0.1:{port}{urlsplit(link).path}"
        ear = Ear(test)
        for listener in range(3):
            grades: Grades = {}
            for trial, conditions in ear.signals.items():
                steps = {name: 90 - 9 * index - 2 * listener for index, name in enumerate(conditions)}
                grades[trial] = {**steps, "reference": 100}
            take_by_http(link, ear, grades)


def check_evaluation(shell: Shell, printed: str) -> None:
    """Every codec at every rate has scored every clip, and the run has a table."""
    found = re.search(r"^Tables, plots and rows: (.+)$", printed, flags=re.MULTILINE)
    assert found is not None, printed
    clips = pd.read_csv(shell.folder / found[1] / "clips.csv")
    summary = pd.read_csv(shell.folder / found[1] / "summary.csv")
    assert clips["error"].isna().all() and np.isfinite(clips["si_sdr"]).all()
    for row in summary[summary["kbps"].notna()].itertuples():
        scores = clips.loc[(clips["codec"] == row.codec) & (clips["kbps"] == row.kbps), "si_sdr"]
        assert (row.n, row.n_failed) == (len(scores), 0)
        assert row.si_sdr == pytest.approx(scores.mean(), abs=1e-9)


def check_analysis(shell: Shell, command: str) -> None:
    folder = shell.folder / command.split("--out ")[1].split()[0]
    conditions = pd.read_csv(folder / "conditions.csv").set_index("condition")
    assert conditions.loc["reference", "mean"] == 100
    assert (conditions["mean"].drop("reference") < 91).all()
    assert conditions["n_listeners"].nunique() == 1


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page) and page not in ELSEWHERE and page not in CONTINUES]
)
def test_the_commands_of_a_page(page: str, shell: Shell) -> None:
    for command in [
        *commands(page),
        *(command for later, before in CONTINUES.items() if before == page for command in commands(later)),
    ]:
        if skipped(command):
            continue
        for text, stands_for in STANDS_FOR.items():
            command = command.replace(text, stands_for)
        if command.startswith(("mushra serve", "mushra demo")):
            listen(shell, command)
            continue
        if "$SLURM_ARRAY_TASK_ID" in command:
            for task in range(1, 5):
                shell.run(f"SLURM_ARRAY_TASK_ID={task}; {command}")
            continue
        # Exit code 3 of a merge: some clips are still to be scored, by the command that follows on the page.
        printed = shell.run(command, exits=(0, 3) if command.startswith("evaluate merge") else (0,))
        if re.match(r"evaluate($| --| DATA| recordings)", command) and "--shard" not in command:
            check_evaluation(shell, printed)
        elif command.startswith("mushra analyze"):
            check_analysis(shell, command)
    if page == "README.md":
        before, after = (soundfile.info(shell.folder / name) for name in ("in.wav", "back.wav"))
        assert (before.frames, before.samplerate) == (after.frames, after.samplerate)


def test_what_is_skipped_is_on_the_pages() -> None:
    given = [command for page in PAGES for command in commands(page)]
    for one in SKIPPED:
        assert any(command == one or command.startswith(f"{one} ") for command in given), one
    assert all(any(text in command for command in given) for text in STANDS_FOR)


def test_pages_have_the_commands_that_we_walk() -> None:
    """The reader of commands finds those of every kind of fence; ones that it lost would pass unseen."""
    found = [command for page in PAGES for command in commands(page)]
    assert "evaluate --codecs qincodec,opus,mp3 --kbps 8,16" in commands("docs/index.md")  # after a prompt
    assert "mushra serve TEST" in commands("README.md")  # before a comment
    assert "evaluate html second --condition mine@24=decoded" in commands(
        "docs/tutorials/first-table.md"
    )  # as sh
    assert not any(" ×" in command or "[" in command.split()[1:2] for command in found)
