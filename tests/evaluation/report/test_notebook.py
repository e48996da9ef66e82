"""Results in a notebook: complete, escaped, without a script and without a path."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from page_text import parsed
from synthetic_results import make_results, troubled

import evaluation
from evaluation.report.findings import sentences
from evaluation.report.tables import build_table
from evaluation.results import Results
from qincodec.core.errors import UserError

NASTY = "<script>alert('x')</script>\"&amp;"


def shown(results: Results) -> evaluation.Results:
    """The same results as `evaluate` and `load` return them."""
    fields = {spec.name: getattr(results, spec.name) for spec in dataclasses.fields(results) if spec.init}
    return evaluation.Results(**fields)


def test_load_gives_results_that_show_themselves(small_run: Path) -> None:
    results = evaluation.load(small_run)
    assert isinstance(results, evaluation.Results) and isinstance(results, Results)
    assert evaluation.open_results is evaluation.load
    page = parsed(results._repr_html_())
    for section in build_table(results, results.summary).sections:
        for row in section.rows:
            assert all(cell.text in page.text and cell.interval_text in page.text for cell in row)
    assert "Failed: fragile: RuntimeError: too loud for this codec" in page.text
    assert results.to_latex() == (small_run / "table.tex").read_text(encoding="utf-8")
    assert (
        repr(results).startswith("Results of clips")
        and "late@8" in repr(results)
        and len(repr(results)) < 200
    )


def test_findings_are_above_the_table_and_stamps_are_not_folded() -> None:
    results = shown(
        make_results(codecs={"a": 0, "b": 3}, num_recordings=24, dataset={"disclaimer": "Made up."})
    )
    (sentence,) = sentences(results)
    html = results._repr_html_()
    assert html.index("Made up.") < html.index(sentence) < html.index("<table>")
    few = shown(make_results())._repr_html_()
    assert "No claim in words: it needs 20 recordings" in few and "a warning</summary>" in few


def test_text_of_the_run_is_escaped_and_has_no_path() -> None:
    results = shown(make_results(codecs={NASTY: 0.0, "b": 1.0}, troubles=True))
    results.clips.loc[results.clips["error"].notna(), "error"] = "no file /home/alice/x.wav"
    page = parsed(results._repr_html_())
    assert not page.all("script") and NASTY in page.strings
    assert "alice" not in page.text and "no file …/x.wav" in page.text


def test_print_shows_a_short_table() -> None:
    results = shown(
        make_results(codecs={"a": 0.0, "b": 1.0}, rate_factor={"b": 1.02}, dataset={"disclaimer": "Made up."})
    )
    text = str(results)
    for _, row in results.summary.iterrows():
        value = f"{row['si_sdr']:.2f} [{row['si_sdr_ci_low']:.2f}, {row['si_sdr_ci_high']:.2f}]"
        assert any(
            line.split()[:2] == [row["codec"], f"{row['kbps_measured']:.2f}"] and value in line
            for line in text.splitlines()
        )
    assert "MS-Mel ↓" in text and "dec ×RT" not in text and "Made up." in text and "10 recordings" in text


def test_plot() -> None:
    results = shown(troubled())
    assert [axes.get_ylabel() for axes in results.plot().axes] == ["SI-SDR (dB) ↑", "MS-Mel ↓"]
    figure = results.plot("ms_mel")
    assert [axes.get_ylabel() for axes in figure.axes] == ["MS-Mel ↓"]
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="no metric 'visqol'; it has si_sdr, ms_mel"):
        results.plot(["visqol"])


def test_tests_and_rates_are_computed_once() -> None:
    results = make_results(rates=(6, 12, 24, 48))
    assert results.tests is results.tests and results.bd_rate is results.bd_rate
    assert len(results.tests) == 8 and set(results.bd_rate["metric"]) == {"si_sdr", "ms_mel"}
