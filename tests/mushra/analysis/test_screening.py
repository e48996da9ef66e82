"""The rules of BS.1534-3 on tables small enough to count by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mushra.analysis.load import load
from mushra.analysis.ratings import Ratings, with_roles
from mushra.analysis.screening import exempt_items, find_listener, listener_figures, screen
from qincodec.core.errors import UserError

Shared = Callable[[str], Path]


def ratings(reference: dict[str, list[float]], mid: dict[str, list[float]] | None = None) -> Ratings:
    """A test from the scores that each listener gives hidden reference and mid anchor, item by item."""
    rows = []
    for name, scores in reference.items():
        for item, score in enumerate(scores):
            rows.append((name, f"i{item}", "reference", score))
            rows.append((name, f"i{item}", "codec", 60.0))
            if mid is not None:
                rows.append((name, f"i{item}", "anchor70", mid[name][item]))
    return with_roles(pd.DataFrame(rows, columns=["listener", "item", "condition", "score"]))


GOOD = [100.0] * 13


def low(count: int, of: int = 13, score: float = 80) -> list[float]:
    return [score] * count + [100.0] * (of - count)


def test_the_hidden_reference_under_90_on_more_than_15_percent() -> None:
    """1 of 13 is 7.7 %, 2 of 13 is 15.4 %; 3 of 20 is 15 % exactly and not more; 90 is not under 90."""
    table = screen(ratings({"a": low(1), "b": low(2), "c": low(13, score=90)})).listeners
    assert table["excluded"].tolist() == [False, True, False]
    assert table["reference_below_90_share"].tolist() == [1 / 13, 2 / 13, 0]
    assert table["reason"].tolist() == ["", "hidden reference under 90 on 2 of 13 items (15.4%)", ""]
    assert screen(ratings({"a": low(3, 20), "b": low(4, 20)})).excluded == ("b",)


def test_the_mid_anchor_over_90_on_more_than_15_percent() -> None:
    """Two in nine love the anchor on item 0 (22 %): it counts. 90 is not over 90."""
    mid = {f"l{k}": [50.0] * 13 for k in range(9)}
    mid["l0"] = [95.0, 95.0] + [50.0] * 11
    mid["l1"] = [95.0] + [90.0] * 12
    result = screen(ratings(dict.fromkeys(mid, GOOD), mid))
    assert result.excluded == ("l0",)
    assert result.exempt_items == ()
    assert result.listeners["mid_anchor_above_90_share"].tolist()[:3] == [2 / 13, 1 / 13, 0]
    assert result.listeners["reason"][0] == "mid anchor over 90 on 2 of 13 items (15.4%)"


def test_items_on_which_many_take_the_anchor_for_good_do_not_count() -> None:
    """More than 25 % of 8 listeners is 3: items 0 and 1 do not count, so l0 has 1 of 11 (9.1 %)."""
    mid = {f"l{k}": [50.0] * 13 for k in range(8)}
    mid["l0"] = [95.0] * 3 + [50.0] * 10
    for name in ("l1", "l2"):
        mid[name] = [95.0] * 2 + [50.0] * 11
    test = ratings(dict.fromkeys(mid, GOOD), mid)
    assert exempt_items(test) == ("i0", "i1")
    result = screen(test)
    assert result.excluded == ()
    assert result.listeners["mid_anchor_above_90_share"].tolist()[:2] == [1 / 11, 0]


def test_exactly_a_quarter_is_not_more_than_a_quarter() -> None:
    mid = {f"l{k}": [95.0 if k < 2 else 50.0] + [50.0] * 12 for k in range(8)}
    assert exempt_items(ratings(dict.fromkeys(mid, GOOD), mid)) == ()


def test_under_seven_items_nobody_is_excluded_by_itself() -> None:
    result = screen(ratings({"a": low(1, 6), "b": [100.0] * 6}))
    assert result.excluded == ()
    assert "1 of 6 items (16.7%): not excluded, because under 7 items" in result.listeners["reason"][0]
    assert any("1 listener" in note and "fewer than 7 items" in note for note in result.notes)
    assert screen(ratings({"a": low(1, 6)}), exclude=["a"]).excluded == ("a",)
    # With seven items one slip is 14.3 %.
    assert screen(ratings({"a": low(2, 7), "b": low(1, 7)})).excluded == ("a",)


def test_keep_and_exclude() -> None:
    test = ratings({"a": low(5), "b": GOOD, "c": low(5)})
    result = screen(test, keep=["a"], exclude=["b"])
    assert result.excluded == ("b", "c")
    reasons = result.listeners["reason"].tolist()
    assert reasons[0].startswith("kept as asked; hidden reference under 90 on 5 of 13")
    assert reasons[1] == "excluded as asked"
    assert screen(test, keep=["all"]).excluded == ()
    assert screen(test, keep=["all"], exclude=["c"]).excluded == ("c",)
    with pytest.raises(UserError, match="no listener 'x'"):
        screen(test, exclude=["x"])
    with pytest.raises(UserError, match="no listener 'x'"):
        screen(test, keep=["x"])
    with pytest.raises(UserError, match="'a' is both kept and excluded"):
        screen(test, keep=["a"], exclude=["a"])


def test_a_listener_is_found_by_what_is_printed() -> None:
    ids = ["1d63afbc-92b4-4c5a-8255-6c4734fc9efd", "1d63afbc-ffff-4c5a-8255-6c4734fc0000", "ann", "anna"]
    assert find_listener("ann", ids) == "ann"
    assert find_listener("1d63afbc-9", ids) == ids[0]
    # As the figure of listeners shortens it.
    assert find_listener("1d63afbc…0000", ids) == ids[1]
    with pytest.raises(UserError, match="begins the names of 2 listeners"):
        find_listener("1d63afbc", ids)
    for unknown in ("1d6", "1d63afbc…1111", ""):
        with pytest.raises(UserError, match="there is no listener"):
            find_listener(unknown, ids)
    test = ratings({"1d63afbc-92b4": GOOD, "7e4209fe-4a89": GOOD})
    assert screen(test, exclude=["7e4209fe"]).excluded == ("7e4209fe-4a89",)


def test_who_is_in_doubt() -> None:
    """a moves one slider and is fast, b prefers the codec, c never gives 100, d does what he should."""
    rows = []
    for item in range(8):
        for name, scores, time in (
            ("a", (100.0, 0.0, 0.0), 1600.0),
            ("b", (95.0, 100.0, 20.0), 60_000.0),
            ("c", (95.0, 60.0, 20.0), 60_000.0),
            ("d", (100.0, 60.0, 20.0), 60_000.0),
        ):
            rows += [
                (name, f"i{item}", what, score, time)
                for what, score in zip(("reference", "X", "Y"), scores, strict=True)
            ]
    test = with_roles(pd.DataFrame(rows, columns=["listener", "item", "condition", "score", "time_ms"]))
    found = screen(test)
    assert found.excluded == ()
    assert found.kept_in_doubt == {
        "a": "one slider moved on 100% of the pages, too fast on 100% of the pages, 1.6 s a page",
        "b": "a system over the hidden reference on 100% of the pages",
    }
    assert screen(test, drop_flagged=True).excluded == ("a", "b")
    assert screen(test, drop_flagged=True, keep=["a"]).excluded == ("b",)
    assert screen(test, drop_flagged=True, keep=["a"]).kept_in_doubt.keys() == {"a"}


def test_without_controls_the_rules_say_that_they_cannot_be_applied() -> None:
    frame = ratings({"a": low(5)}).frame
    result = screen(with_roles(frame[frame["condition"] == "codec"]))
    assert result.excluded == ()
    assert result.listeners["reference_below_90_share"].isna().all()
    assert [note.split()[1:4] for note in result.notes] == [
        ["a", "hidden", "reference"],
        ["a", "mid", "anchor"],
    ]


def test_aes_2023_loses_8_of_22(shared: Shared) -> None:
    result = screen(load([shared("mushra/AES2023_webmushra_results.csv")]))
    assert len(result.listeners) == 22
    assert len(result.excluded) == 8


def test_figures_about_listeners() -> None:
    """a moves one slider only and is fast; b never gives 100 and prefers the codec."""
    rows = []
    for item in range(4):
        scores = {"reference": 100.0, "X": 0.0, "Y": 0.0}
        rows += [("a", f"i{item}", name, score, 5000.0) for name, score in scores.items()]
        scores = {"reference": 70.0, "X": 90.0, "Y": 20.0}
        rows += [("b", f"i{item}", name, score, 60_000.0) for name, score in scores.items()]
    frame = pd.DataFrame(rows, columns=["listener", "item", "condition", "score", "time_ms"])
    figures = listener_figures(with_roles(frame)).set_index("listener")
    assert figures.loc["a", "flags"] == "one slider only; too fast"
    assert figures.loc["b", "flags"] == "never 100; reference beaten"
    assert figures["median_page_s"].tolist() == [5, 60]
    assert figures["reference_mean"].tolist() == [100, 70]
    assert figures["n_ratings"].tolist() == [12, 12]
    bare = listener_figures(with_roles(frame[frame["condition"] != "reference"].drop(columns="time_ms")))
    assert (
        bare[["reference_mean", "reference_beaten_share", "median_page_s", "hasty_share"]]
        .isna()
        .all(axis=None)
    )


def test_the_order_of_rows_does_not_matter() -> None:
    test = ratings({"a": low(5), "b": GOOD, "c": low(1)}, dict.fromkeys("abc", [50.0] * 13))
    shuffled = with_roles(test.frame.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(screen(test).listeners, screen(shuffled).listeners)
    pd.testing.assert_frame_equal(listener_figures(test), listener_figures(shuffled))
    assert not math.isnan(np.sum(screen(test).listeners["reference_below_90_share"]))
