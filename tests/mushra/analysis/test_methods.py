"""What the methods text and notes of `mushra analyze` say of listeners: screening, doubt, who rated what."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from synthetic_ratings import simulate, thin, tidy

from mushra.analysis import wording
from mushra.analysis.pipeline import analyze
from mushra.analysis.ratings import with_roles
from mushra.analysis.report import html
from mushra.config.load import load_config
from mushra.server.files import Stimuli
from mushra.server.session_pages import session_pages


def test_the_methods_paragraph_is_right_for_fewer_than_seven_items() -> None:
    """Who breaks a rule stays where a slip is too much, and the text says so."""
    ratings = with_roles(thin(listeners=1, items=5))
    low = ratings.frame.assign(
        score=ratings.frame["score"].mask(ratings.frame["condition"] == "reference", 50)
    )
    text = wording.methods(analyze(with_roles(low), num_permutations=100))[0]
    assert "Everybody rated fewer than 7 items" in text and "1 listener of 1 broke a rule and stayed" in text
    assert "0 listeners of 1 were excluded" not in text
    asked = wording.methods(analyze(with_roles(thin(listeners=3, items=5)), exclude=["L01"]))[0]
    assert (
        "0 listeners of 3 broke a rule and stayed. 1 listener of 3 was excluded by the experimenter" in asked
    )


def test_listeners_in_doubt_are_named_with_the_result_without_them() -> None:
    """Two of ten move one slider only: in the notes, the methods and beside the tests."""
    frame = thin(listeners=10, items=8)
    careless = frame["listener"].isin(["L03", "L07"]) & (frame["condition"] != "reference")
    ratings = with_roles(frame.assign(score=frame["score"].mask(careless, 0.0)))
    kept = analyze(ratings, num_permutations=100)
    (note,) = [note for note in kept.notes if "despite flags" in note]
    assert note.startswith(
        "2 listeners are kept despite flags (L03: one slider moved on 100% of the pages; L07"
    )
    assert "2 of these are in doubt" in wording.methods(kept)[0]
    dropped = analyze(ratings, drop_flagged=True, num_permutations=100)
    assert dropped.screening.excluded == ("L03", "L07")
    assert "2 listeners of 10 were excluded because on more than half" in wording.methods(dropped)[0]
    columns = ["n_listeners", "estimate", "statistic", "df1", "df2", "p"]
    beside = kept.sensitivity[[f"{name}_unflagged" for name in columns]].set_axis(columns, axis=1)
    pd.testing.assert_frame_equal(beside, dropped.sensitivity[columns])
    assert "without doubtful" in html(kept, [], []) and "without doubtful" not in html(dropped, [], [])


def test_the_methods_paragraph_describes_only_what_was_done() -> None:
    """One listener: no interval, no test. One item: Wilcoxon's test is primary, for it alone."""
    alone = wording.methods(analyze(with_roles(thin(listeners=1, items=8)), num_permutations=100))
    assert alone[2].endswith("with one listener there is no interval.")
    assert alone[3].startswith("No pair of systems could be tested:")
    one = wording.methods(analyze(with_roles(thin(listeners=8, items=1)), num_permutations=100))
    assert "Bootstrap" in one[2] and "other items" not in one[2]
    assert "permutation test" in one[3] and "Wilcoxon" not in one[3]


def test_systems_can_be_both_different_and_equivalent() -> None:
    """Small certain differences are both; that one was not found is said with a margin, too."""
    scores = simulate(
        9, means=(60, 57, 57), listeners=30, items=20, sd_listener_condition=1, sd_item_condition=1
    )
    found = analyze(with_roles(tidy(scores)), margin=5, num_permutations=100)
    said = wording.primary_result(found.primary, found.mixed)
    assert "between 2 of 3 pairs of systems. Finding no difference does not mean" in said
    assert said.endswith(
        "3 of 3 pairs are equivalent within ±5 points (two one-sided tests, Holm, 0.05). "
        "2 of these also differ, by less than the margin."
    )
    far = np.clip(simulate(9, means=(30, 50, 70), listeners=30, items=20, sd_listener_condition=1), 1, 99)
    found = analyze(with_roles(tidy(far)), num_permutations=100)
    assert "no difference" not in wording.primary_result(found.primary, found.mixed)


def test_methods_say_what_each_rated_of_an_incomplete_design() -> None:
    """16 items, of which listener k rates the 8 from item k on: 21 listeners."""
    frame = thin(listeners=21, items=16)
    first = frame["listener"].str[1:].astype(int)
    number = frame["item"].rank(method="dense").astype(int) - 1
    text = wording.methods(analyze(with_roles(frame[(number - first) % 16 < 8]), num_permutations=100))[0]
    assert "Each of 21 listeners rated 8 of 16 items; each item was rated by 8 to 13 of them." in text
    whole = wording.methods(analyze(with_roles(frame), num_permutations=100))[0]
    assert "Each of" not in whole and "A page" not in whole


@pytest.mark.parametrize(
    ("groups", "each"),
    [
        pytest.param((16,), "8 of 16 items; each item was rated by 8 of them", id="one group"),
        pytest.param((12, 10), "16 of 22 items", id="two groups"),
        pytest.param((10, 3), "11 of 13 items", id="a group that is rated whole"),
    ],
)
def test_methods_say_what_the_generator_gave_each(tmp_path: Path, groups: tuple[int, ...], each: str) -> None:
    """16 listeners of 8 pages from each random group, as `mushra serve` deals them out."""
    page = {"type": "mushra", "reference": "r.wav", "stimuli": {"A": "a.wav", "B": "b.wav"}}
    pages = [["random", *({**page, "id": f"g{g}i{k}"} for k in range(size))] for g, size in enumerate(groups)]
    test = {"testname": "t", "testId": "t", "pages": pages, "qincodec": {"items_per_listener": 8}}
    (tmp_path / "config.yaml").write_text(json.dumps(test))
    for name in ("r.wav", "a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.zeros(160), 16000)
    config = load_config(tmp_path)
    stimuli = Stimuli(config, "secret", tmp_path / "anchors")
    rows = [
        (f"L{slot:02d}", page.trial, name, 100.0 if name == "reference" else 40.0 + slot + 5 * (name == "B"))
        for slot in range(16)
        for page in session_pages(config, stimuli, slot, slot)
        for name in ("reference", "A", "B")
    ]
    frame = pd.DataFrame(rows, columns=["listener", "item", "condition", "score"])
    text = wording.methods(analyze(with_roles(frame), num_permutations=100))[0]
    assert f"Each of 16 listeners rated {each}" in text
    low, high = (int(edge) for edge in frame.groupby("item")["listener"].nunique().agg(["min", "max"]))
    assert f"each item was rated by {low if low == high else f'{low} to {high}'} of them." in text
