"""From recordings to a table, from the table to listeners, from listeners to the figures of a paper.

Every grade is known before the test begins, so everything that is computed from grades can be computed again.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy import stats
from walking import Ear, Grades, Shell, Take, take_by_http

pytestmark = pytest.mark.walk

DEMO = Path(__file__).resolve().parents[2] / "evaluation" / "datasets" / "demo"
RECORDINGS = ("music_piano", "speech_english", "effects_fire_bell", "music_drums")
CONDITIONS = {
    "reference": 100,
    "opus@16": 80,
    "qincodec@16": 71,
    "mp3@16": 57,
    "anchor70": 44,
    "anchor35": 18,
}
SYSTEMS = [name for name in CONDITIONS if "@" in name]
LISTENERS = 6


def plan_grades(ear: Ear) -> list[Grades]:
    """Grades of each listener: about `CONDITIONS`, every one different; 100 for all of the training."""
    random = np.random.default_rng(16)
    everybody = []
    for _ in range(LISTENERS):
        grades: Grades = {"training01": dict.fromkeys(CONDITIONS, 100)}
        for trial in ear.trials:
            item = random.integers(-6, 7)
            grades[trial] = {
                name: mean if mean == 100 else int(mean + item + random.integers(-8, 9))
                for name, mean in CONDITIONS.items()
            }
        everybody.append(grades)
    return everybody


def table_of(everybody: list[Grades]) -> pd.DataFrame:
    rows = [
        (listener, trial, condition, score)
        for listener, grades in enumerate(everybody)
        for trial, scores in grades.items()
        if trial != "training01"
        for condition, score in scores.items()
    ]
    return pd.DataFrame(rows, columns=["listener", "item", "condition", "score"])


@pytest.fixture(scope="module")
def evaluated(shell: Shell) -> Path:
    """`evaluate` on recordings of ours."""
    (shell.folder / "recordings").mkdir()
    for name in RECORDINGS:
        shutil.copy(DEMO / f"{name}.flac", shell.folder / "recordings")
    shell.run("evaluate recordings --codecs qincodec,opus,mp3 --kbps 8,16 --chunk 2 --save-audio --out RUN")
    return shell.folder / "RUN"


@pytest.fixture(scope="module")
def made(shell: Shell, evaluated: Path) -> Path:
    """`mushra create` and `check`."""
    shell.run(
        "mushra create --run RUN --codecs qincodec,opus,mp3 --kbps 16 --items 3 --duration 2 --out TEST"
    )
    assert "no errors" in shell.run("mushra check TEST")
    return shell.folder / "TEST"


@dataclass(frozen=True)
class Listened:
    """A test that `LISTENERS` people took.

    Attributes:
        grades: what they gave, by listener, item, condition; training left out.
        ratings: what names them to the commands of the analysis.
        browsers: in which some of them listened; the others took the test by HTTP.
        missing: in which some of them were to listen, but which are not installed.
    """

    grades: pd.DataFrame
    ratings: str
    browsers: list[str]
    missing: list[str]


#: Versions -> data base -> who listens in a browser. Together the two environments of `make walks` have every
#: pair of versions, browser and data base; every three would be the same pages from the same server again.
PAIRWISE = {
    "newest": {"sqlite": ["chromium, keys"], "postgresql": ["firefox, mouse"]},
    "lowest": {"sqlite": ["firefox, mouse"], "postgresql": ["chromium, mouse"]},
}
EVERYBODY = ["firefox, mouse", "chromium, keys", "chromium, mouse"]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def listened(request: pytest.FixtureRequest, shell: Shell, made: Path, browsers: dict[str, Take]) -> Listened:
    """`mushra serve`, and people who take the test."""
    database, ratings = "", "TEST"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_database")
        database, ratings = f"--database {url}", "EXPORTED/test/mushra.csv"
    ear = Ear(made)
    everybody = plan_grades(ear)
    wanted = PAIRWISE[shell.versions][request.param] if shell.versions in PAIRWISE else EVERYBODY
    used = [name for name in wanted if name in browsers]
    with shell.serving(f"mushra serve TEST --port 0 {database}") as link:
        for name, grades in zip(used, everybody, strict=False):
            browsers[name](link, ear, grades)
        for grades in everybody[len(used) :]:
            take_by_http(link, ear, grades)
    shutil.rmtree(shell.folder / "EXPORTED", ignore_errors=True)
    shell.run(f"mushra export TEST --out EXPORTED {database}")
    return Listened(table_of(everybody), ratings, used, [name for name in wanted if name not in used])


def test_people_listened_in_every_browser(listened: Listened) -> None:
    if listened.missing:
        pytest.skip(f"NOT WALKED IN {' AND IN '.join(listened.missing).upper()}: not installed")
    assert listened.browsers


def test_the_environments_have_every_pair() -> None:
    walked = {
        (versions, taker.split(",")[0], database)
        for versions, databases in PAIRWISE.items()
        for database, takers in databases.items()
        for taker in takers
    }
    for one, other in combinations(range(3), 2):
        assert len({(walk[one], walk[other]) for walk in walked}) == 4
    takers = [name for databases in PAIRWISE.values() for names in databases.values() for name in names]
    assert set(takers) == set(EVERYBODY)


def codecs_of(run: Path) -> pd.DataFrame:
    """Rows of the codecs, without those of the noise floor."""
    summary = pd.read_csv(run / "summary.csv")
    return summary[summary["kbps"].notna()]


def test_the_report_is_what_was_measured(shell: Shell, evaluated: Path) -> None:
    """Means of the clips, rates of the bytes; and `evaluate report` makes the same of the rows."""
    clips = pd.read_csv(evaluated / "clips.csv")
    summary = codecs_of(evaluated)
    assert sorted(zip(summary["codec"], summary["kbps"], strict=True)) == sorted(
        (codec, kbps) for codec in ("qincodec", "opus", "mp3") for kbps in (8, 16)
    )
    for row in summary.itertuples():
        of = clips[(clips["codec"] == row.codec) & (clips["kbps"] == row.kbps)]
        assert sorted(of["clip"]) == sorted(RECORDINGS)
        assert row.si_sdr == pytest.approx(of["si_sdr"].mean(), abs=1e-9)
        assert row.kbps_measured == pytest.approx(
            (of["bytes"] * 8 / 1000 / of["duration_s"]).mean(), rel=1e-3
        )
    before = (evaluated / "summary.csv").read_bytes()
    shell.run("evaluate report RUN")
    assert (evaluated / "summary.csv").read_bytes() == before


def si_sdr(reference: np.ndarray, decoded: np.ndarray) -> float:
    """By the formula of docs/reference/metrics.md, in dB."""
    r, d = reference - reference.mean(), decoded - decoded.mean()
    target = r * (r @ d) / (r @ r)
    return float(10 * np.log10((target @ target) / ((target - d) @ (target - d))))


def read(path: Path) -> np.ndarray:
    return np.asarray(soundfile.read(path, dtype="float64")[0])


def test_si_sdr_is_that_of_the_decoded_files(shell: Shell, evaluated: Path) -> None:
    clips = pd.read_csv(evaluated / "clips.csv")
    # An interpolated row has no audio of its own, only that of the points around it.
    for row in clips[clips["kbps_nominal"].notna()].itertuples():
        (path,) = evaluated.glob(f"decoded/{row.codec}@{row.kbps_nominal:.4g}/{row.clip}.wav")
        decoded = read(path)
        reference = read(shell.folder / "recordings" / f"{row.clip}.flac")[: len(decoded)]
        # Saved is what the codec gave; scored is where it overlaps with the reference without the delay.
        late = int(row.delay_applied)
        decoded = decoded[max(late, 0) : len(decoded) + min(late, 0)]
        reference = reference[max(-late, 0) :][: len(decoded)]
        assert si_sdr(reference, decoded) == pytest.approx(row.si_sdr, abs=1e-3), row


def test_the_page_shows_what_the_table_says(shell: Shell, evaluated: Path, chromium: Any) -> None:
    shell.run("evaluate html RUN")
    page, errors = chromium()
    page.goto((evaluated / "report" / "index.html").as_uri())
    summary = codecs_of(evaluated)
    table = page.locator("table.sortable").first
    columns = table.locator("thead th").all_inner_texts()
    score = next(index for index, name in enumerate(columns) if name.startswith("SI-SDR"))
    shown_rows = [
        row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr:not(.group)").all()
    ]
    assert len(shown_rows) == len(summary)
    for cells in shown_rows:
        row = summary[(summary["codec"] == cells[0].strip()) & (summary["kbps"] == float(cells[1]))]
        assert cells[score].split()[0] == f"{row['si_sdr'].item():.2f}"
    assert errors == []
    page.context.close()


def test_two_runs_are_compared(shell: Shell, evaluated: Path) -> None:
    """Of what both runs have, each line has both means and their difference."""
    shell.run("evaluate recordings --codecs opus,mp3 --kbps 16 --chunk 2 --metrics si_sdr,ms_mel --out OTHER")
    first, second = (pd.read_csv(shell.folder / name / "summary.csv") for name in ("RUN", "OTHER"))
    printed = shell.run("evaluate compare RUN OTHER")
    for codec in ("opus", "mp3"):
        row = next(line.split() for line in printed.splitlines() if line.startswith(codec))
        of = [
            float(one.loc[(one["codec"] == codec) & (one["kbps"] == 16), "si_sdr"].item())
            for one in (first, second)
        ]
        assert [float(cell) for cell in row[1:6]] == [16, 4, 4, round(of[0], 2), round(of[1], 2)]
        assert float(row[6]) == pytest.approx(of[1] - of[0], abs=0.005)


def test_the_export_is_what_listeners_gave(shell: Shell, listened: Listened) -> None:
    rows = pd.read_csv(shell.folder / "EXPORTED" / "test" / "mushra.csv")
    exported = [
        {(row.trial_id, row.rating_stimulus): row.rating_score for row in of.itertuples()}
        for _, of in rows.groupby("session_uuid")
    ]
    given = [
        {(row.item, row.condition): row.score for row in of.itertuples()}
        for _, of in listened.grades.groupby("listener")
    ]
    order = repr
    assert sorted((sorted(one.items()) for one in exported), key=order) == sorted(
        (sorted(one.items()) for one in given), key=order
    )


def test_the_analysis_has_the_means_of_the_grades(shell: Shell, listened: Listened) -> None:
    shell.run(f"mushra analyze {listened.ratings} --out ANALYSIS")
    conditions = pd.read_csv(shell.folder / "ANALYSIS" / "conditions.csv").set_index("condition")
    of_listeners = listened.grades.groupby(["condition", "listener"])["score"].mean().unstack()
    assert set(conditions.index) == set(CONDITIONS)
    for condition, scores in of_listeners.iterrows():
        row = conditions.loc[condition]
        half = stats.t.ppf(0.975, LISTENERS - 1) * scores.std(ddof=1) / math.sqrt(LISTENERS)
        assert row["n_listeners"] == LISTENERS
        assert row["mean"] == pytest.approx(scores.mean(), abs=1e-6)
        assert row["ci_low"] == pytest.approx(scores.mean() - half, abs=1e-6)


def test_metrics_are_correlated_with_the_grades(shell: Shell, made: Path, listened: Listened) -> None:
    """SI-SDR from the files that were heard, the means from the grades, the coefficient from scipy."""
    given = "" if listened.ratings == "TEST" else listened.ratings
    printed = shell.run(f"mushra correlate TEST RUN {given} --resamples 200 --out CORRELATED")
    assert "SI-SDR" in printed and "MS-Mel" in printed
    means = listened.grades.groupby(["item", "condition"])["score"].mean()
    key = json.loads((made / "key.json").read_text())["trials"]
    clips = pd.read_csv(shell.folder / "RUN" / "clips.csv").set_index(["codec", "kbps", "clip"])
    heard, coded, scores = [], [], []
    for trial in sorted(listened.grades["item"].unique()):
        for signal in key[trial]["signals"].values():
            if signal["condition"] not in SYSTEMS:
                continue
            heard.append(si_sdr(read(made / key[trial]["reference"]), read(made / signal["file"])))
            row = clips.loc[(signal["codec"], signal["kbps"], key[trial]["clip"])]
            # Of a row that is interpolated the point nearer to the asked rate is heard.
            coded.append(row["si_sdr"] if row["kbps_nominal"] > 0 else heard[-1])
            scores.append(means[trial, signal["condition"]])
    assert coded != heard
    # Fades and 24 bits are all that lies between a run's clip and what is heard of it.
    assert heard == pytest.approx(coded, abs=0.2)
    table = pd.read_csv(shell.folder / "CORRELATED" / "correlations.csv")
    row = table[(table["metric"] == "si_sdr") & (table["level"] == "item") & (table["anchors"] == "without")]
    assert row["n"].item() == len(scores) == 9
    assert row["pearson"].item() == pytest.approx(stats.pearsonr(heard, scores)[0], abs=1e-4)
    assert row["spearman"].item() == pytest.approx(stats.spearmanr(heard, scores)[0], abs=1e-6)
    assert row["kendall"].item() == pytest.approx(stats.kendalltau(heard, scores)[0], abs=1e-6)
    assert {"si_sdr", "ms_mel", "fm_logmel", "cos_logmel"} <= set(table["metric"])


def test_the_next_test_is_planned_from_this_one(shell: Shell, listened: Listened) -> None:
    """The residual is what least squares leave of a model with all pairs of its three factors."""
    printed = shell.run(f"mushra plan --from {listened.ratings} --listeners 6,12 --items 3,6")
    said = next(line for line in printed.splitlines() if line.startswith("Standard deviations"))
    grades = listened.grades[listened.grades["condition"].isin(SYSTEMS)]
    dummies = [pd.get_dummies(grades[name]).to_numpy(float) for name in ("listener", "item", "condition")]
    pairs = [
        (one[:, :, None] * other[:, None, :]).reshape(len(grades), -1)
        for index, one in enumerate(dummies)
        for other in dummies[index + 1 :]
    ]
    design = np.hstack(pairs)
    fitted = design @ np.linalg.lstsq(design, grades["score"].to_numpy(float), rcond=None)[0]
    freedom = (LISTENERS - 1) * (3 - 1) * (len(SYSTEMS) - 1)
    residual = math.sqrt(((grades["score"] - fitted) ** 2).sum() / freedom)
    assert f"residual {residual:.3g}" in said
