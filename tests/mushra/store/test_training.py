"""Which pages are training: one rule for pages, submissions, imported CSV and CSV that is analysed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mushra.analysis.load import load
from mushra.store.export import export, import_csv
from mushra.store.ratings import read_ratings
from mushra.store.store import Store
from qincodec.core.errors import UserError

TRIALS = ("warmup", "training_data", "two")
YAML = """
testname: Mine
testId: mine
pages:
  - {type: mushra, id: warmup, reference: ref.wav, stimuli: {A: a.wav}}
  - {type: mushra, id: training_data, reference: ref.wav, stimuli: {A: a.wav}}
  - {type: mushra, id: two, reference: ref.wav, stimuli: {A: a.wav}}
"""


def write_csv(folder: Path, test: str = "mine") -> Path:
    path = folder / "mushra.csv"
    rows = [
        f"{test},u{n},{trial},{name},{score + n},{1000 + n},"
        for n in range(2)
        for trial in TRIALS
        for name, score in (("reference", 98), ("A", 40))
    ]
    header = "session_test_id,session_uuid,trial_id,rating_stimulus,rating_score,rating_time,rating_comment"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("section", "counted"),
    [
        ("training: [warmup]", {"training_data", "two"}),
        ("training: []", set(TRIALS)),
        ("seed: 1", {"warmup", "two"}),
        ("", {"warmup", "two"}),
    ],
)
def test_every_way_has_the_training_pages_of_the_configuration(
    make_folder: Any, serve: Any, tmp_path: Path, section: str, counted: set[str]
) -> None:
    folder = make_folder(YAML, section)
    path = write_csv(folder)
    assert set(load(folder).items) == set(load(path).items) == counted
    with Store(folder / "results.sqlite") as beside:
        assert import_csv(beside, path) == (2, 0)
        assert set(read_ratings(beside)["item"]) == counted
        export(beside, folder / "out", "webmushra")
    assert set(load(folder / "results.sqlite").items) == counted
    assert {
        line.split(",")[2] for line in (folder / "out/mine/mushra.csv").read_text().splitlines()[1:]
    } == counted
    served = serve(folder=folder, database=tmp_path / "elsewhere.sqlite").extensions["mushra"].store
    assert import_csv(served, path) == (2, 0)
    assert set(read_ratings(served)["item"]) == counted


def test_the_configuration_of_another_test_says_nothing(make_folder: Any) -> None:
    folder = make_folder(YAML, "training: [two]")
    path = write_csv(folder, "other")
    assert set(load(path).items) == {"warmup", "two"}
    with Store(folder / "results.sqlite") as store:
        import_csv(store, path)
        assert set(read_ratings(store)["item"]) == {"warmup", "two"}


def test_a_configuration_that_cannot_be_read_is_named(make_folder: Any) -> None:
    folder = make_folder(YAML, "training: 7")
    with pytest.raises(UserError, match=r"config\.yaml"):
        load(write_csv(folder))
