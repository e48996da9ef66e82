"""Figures show every number at its place, and codecs and rates differ visibly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from synthetic_results import make_results, troubled

from evaluation.report.plots import perplexity, rate_distortion
from evaluation.results import Results
from evaluation.rows import Codebook, CodeStatistics
from evaluation.statistics.recordings import summarize

DISCLAIMER = "Demo data: synthetic sounds, not a benchmark."


def test_curves_are_at_measured_rates_with_their_intervals() -> None:
    results = troubled(disclaimer=DISCLAIMER)
    summary = results.summary
    figure = rate_distortion(results, summary)
    assert DISCLAIMER in figure.get_suptitle() and "n = 9–10 clips of 10 recordings" in figure.get_suptitle()
    axes = figure.axes[0]
    assert axes.get_ylabel() == "SI-SDR (dB) ↑" and axes.get_xscale() == "log"
    opus = summary[summary["codec"] == "opus"]
    line = next(line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-")
    np.testing.assert_allclose(line.get_xdata(), opus["kbps_measured"])
    np.testing.assert_allclose(line.get_ydata(), opus["si_sdr"])
    bars = axes.collections[0].get_segments()  # type: ignore[attr-defined]
    np.testing.assert_allclose([bar[:, 1] for bar in bars], opus[["si_sdr_ci_low", "si_sdr_ci_high"]])
    hollow = {line.get_label() for line in axes.lines if to_hex(line.get_markerfacecolor()) == "#ffffff"}
    assert "rendered (declared rate)" in hollow and "opus" not in hollow
    assert axes.get_title(loc="left") == "reference: infinite"
    assert figure.axes[1].get_title(loc="left") == "reference: 0, off the scale"


def test_controls_near_the_curves_are_lines() -> None:
    results = make_results(control=True)
    results.clips.loc[results.clips["codec"] == "reference", "si_sdr"] = 7.0
    figure = rate_distortion(results, summarize(results, seed=0, num_resamples=100))
    level = next(line for line in figure.axes[0].lines if line.get_label() == "reference")
    assert list(level.get_ydata()) == [7.0, 7.0]


def with_codes(points: dict[tuple[str, float], list[float]], size: int) -> Results:
    """(codec, kbps) -> perplexity of each of its codebooks."""
    rates = sorted({kbps for _, kbps in points})
    results = make_results(codecs=dict.fromkeys((codec for codec, _ in points), 0.0), rates=rates)
    results.corpus = [
        CodeStatistics(
            codec,
            kbps,
            frames=1000,
            codebooks=tuple(Codebook(size, size, 1.0, 1000, 5.0, 5.0, value, value, 0.5) for value in values),
        )
        for (codec, kbps), values in points.items()
    ]
    return results


def test_rates_differ_visibly_in_the_figure_of_perplexity() -> None:
    points = {("a", 2.0): [40.0], ("a", 4.0): [40.0, 30.0], ("a", 8.0): [40.0, 30.0, 20.0], ("b", 8.0): [9.0]}
    figure = perplexity(with_codes(points, 64))
    first, second = figure.axes[:2]
    assert [axes.get_title() for axes in (first, second)] == ["a, 1000 frames", "b, 1000 frames"]
    lines = {str(line.get_label()): line for line in first.lines if "kbps" in str(line.get_label())}
    assert list(lines) == ["2.00 kbps", "4.00 kbps", "8.00 kbps"]
    for (codec, kbps), values in points.items():
        if codec == "a":
            np.testing.assert_array_equal(lines[f"{kbps:.2f} kbps"].get_ydata(), values)
    # By marker and by colour, which are told apart in grey, too: luminance of sRGB after Rec. 709.
    assert len({line.get_marker() for line in lines.values()}) == 3
    grey = [float(np.dot([0.2126, 0.7152, 0.0722], to_rgb(line.get_color()))) for line in lines.values()]
    assert grey == sorted(grey, reverse=True) and -max(np.diff(grey)) > 0.15
    # Lower rates, of the same codebooks here, lie on top and are smaller: nothing is hidden.
    assert np.all(np.diff([line.get_zorder() for line in lines.values()]) < 0)
    assert np.all(np.diff([line.get_markersize() for line in lines.values()]) > 0)
    assert all(axes.get_ylim() == (0, 64 * 1.1) for axes in (first, second))


@pytest.mark.parametrize("recordings", [1, 3])
def test_plots_of_very_little(recordings: int) -> None:
    """One recording (no intervals), a codec without any score, controls only."""
    results = make_results(num_recordings=recordings, control=True, dataset={"name": "cost $5 and $6 _x"})
    results.clips.loc[results.clips["codec"] == "opus", "si_sdr"] = math.nan
    figure = rate_distortion(results, results.summary)
    assert "opus@8: no finite mean" in figure.axes[0].get_title(loc="left")
    figure.draw_without_rendering()
    results.conditions = [c for c in results.conditions if c.control]
    rate_distortion(results, summarize(results, seed=0)).draw_without_rendering()
