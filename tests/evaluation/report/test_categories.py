"""Categories: their tables and curves equal those of a data set with that category alone."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_results import make_results, troubled

from evaluation.report import print_report, write_all
from evaluation.report.categories import MAX_COLUMNS, category_frame
from evaluation.report.html.write import render_page
from evaluation.results import MAX_CATEGORIES, Results


def in_categories(results: Results, number: int) -> Results:
    """Results whose recordings alternate between this number of categories."""
    order = {name: index for index, name in enumerate(sorted(results.clips["recording"].unique()))}
    names = [f"kind {order[name] % number}" for name in results.clips["recording"]]
    return replace(results, clips=results.clips.assign(category=names))


@pytest.fixture(scope="module")
def two() -> Results:
    return in_categories(make_results(num_recordings=16, clips_per_recording=2, control=True), 2)


def test_a_category_is_a_data_set_of_its_own(
    two: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.report.files.write_plots", lambda *_: [])  # most of the time
    write_all(two, tmp_path)
    frame = pd.read_csv(tmp_path / "summary_by_category.csv")
    assert frame["category"].tolist() == ["kind 0"] * 5 + ["kind 1"] * 5
    for name, rows in frame.groupby("category"):
        own = two.clips[two.clips["category"] == name].reset_index(drop=True)
        alone = replace(two, clips=own, corpus=[]).summary
        for column in ("n", "n_recordings", "kbps_measured", "si_sdr", "si_sdr_ci_low", "ms_mel_ci_high"):
            np.testing.assert_array_equal(rows[column], alone[column].astype(float))
        means = own[own["codec"] == "opus"].groupby("kbps")["si_sdr"].mean()
        np.testing.assert_allclose(rows.loc[rows["codec"] == "opus", "si_sdr"], means, rtol=1e-12)
    assert set(frame["n"]) == {16} and set(frame["n_recordings"]) == {8}


def test_terminal_shows_the_first_metric_by_category(two: Results) -> None:
    file = io.StringIO()
    names = two.clips["category"].replace("kind 0", "baby, crying")
    print_report(replace(two, clips=two.clips.assign(category=names)), file)
    shown = file.getvalue()
    row = two.categories["kind 1"].summary.iloc[0]
    assert re.search(r"codec +kbps +baby, crying +kind 1", shown)
    assert f"{row['si_sdr']:.2f} [{row['si_sdr_ci_low']:.2f}, {row['si_sdr_ci_high']:.2f}]" in shown
    assert (
        "By category: SI-SDR, mean [95% interval over recordings], n = baby, crying 16; kind 1 16. Every"
        in shown
    )


def test_page_has_tables_and_curves_of_each_category(two: Results) -> None:
    page = render_page(two)
    parts = re.findall(r"<details>\n<summary>(.*?)</summary>(.*?)</details>", page, flags=re.DOTALL)
    assert [title for title, _ in parts] == [f"kind {k}: 16 clips of 8 recordings" for k in range(2)]
    for name, (_, part) in zip(two.categories, parts, strict=True):
        value = two.categories[name].summary.iloc[0]["si_sdr"]
        assert f">{value:.2f}<" in part.replace(" <", "<")
        assert part.count("<svg") == len(two.metrics)


def test_failures_and_clips_without_category() -> None:
    results = in_categories(troubled(), 2)
    gone = results.clips["category"] == "kind 1"
    results = replace(
        results, clips=results.clips.assign(category=results.clips["category"].mask(gone, None))
    )
    frame = category_frame(results)
    assert set(frame["category"]) == {"", "kind 0"} and "no category" in render_page(results)
    assert frame["n"].sum() + frame["n_failed"].sum() == len(results.clips)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, None),
        (MAX_COLUMNS + 1, f"By category ({MAX_COLUMNS + 1}), every metric: summary_by_category.csv"),
        (MAX_CATEGORIES + 1, f"{MAX_CATEGORIES + 1} categories, too many for tables (at most"),
    ],
)
def test_one_category_or_many_make_no_columns(number: int, said: str | None) -> None:
    results = in_categories(make_results(num_recordings=MAX_CATEGORIES + 1, rates=(8.0,)), number)
    file = io.StringIO()
    print_report(results, file)
    assert not re.search(r"codec +kbps +kind", file.getvalue())
    assert said in file.getvalue() if said else "ategor" not in file.getvalue()
    assert bool(results.categories) == (1 < number <= MAX_CATEGORIES)
