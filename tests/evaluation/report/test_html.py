"""The report as a folder: complete, escaped, and the same bytes every time."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from markupsafe import escape
from page_text import parsed
from synthetic_results import SI_SDR, make_results, troubled

from evaluation.report.cells import Cell
from evaluation.report.html import media, selection
from evaluation.report.html.figures import distributions, perplexity, rate_distortion
from evaluation.report.html.svg import ticks
from evaluation.report.html.write import render_page
from evaluation.report.notes import notes
from evaluation.report.tables import all_tables, pair_frame, token_frame, with_noise_floor
from evaluation.results import Results
from evaluation.rows import Codebook, CodebookPair, JointCodes
from evaluation.statistics.recordings import paired_tests

NASTY = "<script>alert('x')</script>\"&amp;"


def difficult() -> Results:
    return troubled(disclaimer="Demo data: not a benchmark.", n_excluded=1, excluded=[["x", "empty"]])


# Which clips


def three_clips(scores: dict[str, list[float]]) -> Results:
    """Clips c0, c1 ... with the given SI-SDR per codec at 8 kbps; MS-Mel is the negative."""
    count = len(next(iter(scores.values())))
    results = make_results(codecs=dict.fromkeys(scores, 0.0), rates=(8.0,), num_recordings=count)
    for codec, values in scores.items():
        rows = results.clips["codec"] == codec
        results.clips.loc[rows, "si_sdr"] = values
        results.clips.loc[rows, "ms_mel"] = [-value for value in values]
        results.clips.loc[rows, "clip"] = [f"c{index}" for index in range(count)]
    return results


def test_clips_are_ordered_by_mean_rank() -> None:
    # Ranks 2 1 3 and 3 1 2: c1 is the worst of both; c0 and c2 tie and go by id.
    results = three_clips({"a": [5.0, 1.0, 90.0], "b": [7.0, 2.0, 6.0]})
    assert selection.clip_order(results, SI_SDR) == ["c1", "c0", "c2"]
    ms_mel = results.metrics[1]
    assert selection.clip_order(results, ms_mel) == ["c1", "c0", "c2"]
    chosen = dict(selection.choose_clips(results))
    assert chosen == {
        "c1": ["worst SI-SDR", "worst MS-Mel"],
        "c2": ["best SI-SDR", "best MS-Mel"],
        "c0": [
            f"{which} {label}"
            for which in ("median", "2nd worst", "2nd best")
            for label in ("SI-SDR", "MS-Mel")
        ],
    }
    assert list(chosen) == ["c1", "c2", "c0"]


def test_infinite_is_the_extreme_and_what_lacks_a_value_is_left_out() -> None:
    results = three_clips({"a": [math.inf, 1.0, -math.inf, 3.0], "b": [5.0, math.nan, 1.0, 2.0]})
    assert selection.clip_order(results, SI_SDR) == ["c2", "c3", "c0"]
    assert [clip for clip, why in selection.choose_clips(results) if not why] == ["c1"]
    # A codec that failed everywhere must not empty the order.
    results.clips.loc[results.clips["codec"] == "b", "error"] = "no"
    assert selection.clip_order(results, SI_SDR) == ["c2", "c1", "c3", "c0"]


def test_one_clip_is_worst_best_and_median() -> None:
    [(clip, why)] = selection.choose_clips(three_clips({"a": [1.0]}))
    assert clip == "c0" and why[:2] == ["worst SI-SDR", "worst MS-Mel"] and "median SI-SDR" in why


# Pictures and levels


def test_levels_of_a_tone() -> None:
    rate, hz = 44100, 3000.0
    tone = np.sin(2 * np.pi * hz * np.arange(rate) / rate).astype(np.float32)[None]
    levels = media.levels(tone, rate)
    assert levels.shape == (media.BANDS, media.WIDTH)
    middle = levels[:, media.WIDTH // 2]
    heights = dict(media.frequency_ticks(rate))
    loudest = (int(middle.argmax()) + 0.5) / media.BANDS
    assert heights["2"] < loudest < heights["4"]
    # A tone of full scale has power 1 in its band and little far from it; half the amplitude is 6.02 dB less.
    assert -12 < middle.max() <= 0
    assert middle[:20].max() < middle.max() - 60
    np.testing.assert_allclose(
        media.levels(tone / 2, rate)[:, 100].max(), levels[:, 100].max() - 6.02, atol=0.01
    )


def test_a_click_is_at_its_time() -> None:
    clip = np.zeros((2, 16000), np.float32)
    clip[:, 4000] = 1.0
    assert abs(int(media.levels(clip, 16000).mean(axis=0).argmax()) / media.WIDTH - 0.25) < 0.03


def pixels(image: bytes) -> np.ndarray:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)


def test_difference_spectrograms_are_red_where_something_was_added_and_blue_where_it_is_missing() -> None:
    reference = np.full((media.BANDS, media.WIDTH), -40.0, np.float32)
    decoded = reference.copy()
    decoded[:40] += 30  # low bands are at the bottom
    decoded[60:] -= 30
    image = pixels(media.difference_spectrogram(decoded, reference, top_db=0.0))
    assert image.shape == (media.BANDS, media.WIDTH, 3)
    top, middle, bottom = image[5, 200], image[45, 200], image[90, 200]
    assert top[2] > top[0] + 60 and bottom[0] > bottom[2] + 60 and np.ptp(middle) < 20
    # Below what can be seen nothing differs.
    quiet = pixels(media.difference_spectrogram(decoded, reference, top_db=100.0))
    assert np.ptp(quiet, axis=2).max() < 20


def test_spectrograms_span_their_range() -> None:
    levels = np.linspace(-80, 0, media.WIDTH)[None].repeat(media.BANDS, 0).astype(np.float32)
    image = pixels(media.spectrogram(levels, top_db=0.0)).sum(axis=2)
    assert image[50, 3] < 60 and image[50, -3] > 500


def test_playback_gain() -> None:
    quiet, loud = np.full((1, 4), 0.5, np.float32), np.full((1, 4), -1.25, np.float32)
    assert media.playback_gain([quiet]) == 1.0 and media.playback_gain([]) == 1.0
    assert 20 * math.log10(media.playback_gain([quiet, loud]) * 1.25) == pytest.approx(-0.1)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 17.0), (1e-5, 3e-5), (-4e6, 5e7)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 6 and low - 1e-9 <= found[0] and found[-1] <= high * (1 + 1e-9)
    step = found[1] - found[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


# The page


@pytest.mark.parametrize("make", [make_results, difficult])
def test_the_page_has_every_cell_and_note(make: type[Results]) -> None:
    results = make()
    page = parsed(render_page(results, commands=["evaluate --seed 0"]))
    for table in all_tables(results, results.summary):
        for section in table.sections:
            assert section.heading in page.strings
            for row in section.rows:
                for cell in row:
                    assert cell.text in page.text and cell.interval_text in page.text
    for note in (note.text for note in notes(results, results.summary)):
        assert " ".join(note.split()).removeprefix("SI-SDR, version 1, higher is better: ") in page.text or (
            "version" in note
        )
    for metric in results.metrics:
        assert metric.definition in page.text and f"version {metric.version}" in page.text
    assert "evaluate --seed 0" in page.text and "commit" in page.text and "0" * 40 in page.text


def folded_warnings(html: str) -> list[str]:
    part = html.partition('<details class="warnings">')[2].partition("</details>")[0]
    return re.findall(r"<li>(.*?)</li>", part)


def test_the_most_important_notes_are_stamps() -> None:
    results = difficult()
    results.n_pending = 3
    first = results.conditions[0]
    results.conditions[0] = dataclasses.replace(first, identity={"version": "1-untrained"})
    html = render_page(results)
    stamps = re.findall(r'<p class="stamp">(.*?)</p>', html)
    for beginning in ("Demo data", "Unfinished: 3", "RANDOM WEIGHTS"):
        assert any(stamp.startswith(beginning) for stamp in stamps), beginning
    folded = folded_warnings(html)
    for beginning in ("Failed: opus", "⚠ more than 15%"):
        assert any(warning.startswith(beginning) for warning in folded), beginning
    summary = "4 warnings: rates, intervals and failures"
    assert f'<details class="warnings"><summary>{summary}</summary>' in html and len(folded) == 4
    failures = html.partition('id="failures"')[2].partition("</section>")[0]
    assert failures.count(">RuntimeError: encoder refused the clip_1 &amp; gave up at 50 %</td>") == 2


def test_text_of_the_run_is_escaped() -> None:
    results = make_results(
        codecs={NASTY: 0.0, "b": 1.0}, troubles=True, control=True, dataset={"name": NASTY}
    )
    results.clips["clip"] = results.clips["clip"] + NASTY
    results.clips.loc[results.clips["error"].notna(), "error"] = NASTY
    results.metrics[0] = dataclasses.replace(SI_SDR, label=NASTY, definition=NASTY)
    results.environment["processor"] = NASTY
    page = parsed(render_page(results, remarks=[NASTY], commands=[NASTY], script="x.js"))
    assert page.all("script") == [{"src": "x.js", "defer": ""}]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert NASTY in page.strings


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = parsed(render_page(difficult(), style="assets/a.css", script="assets/a.js"))
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "data"):
            assert not re.match(r"(\w+:)?//", attributes.get(name, "")), attributes


def test_the_same_results_give_the_same_page() -> None:
    assert render_page(difficult()) == render_page(difficult())


def test_severity_not_the_first_word_puts_a_note_at_the_top() -> None:
    results = make_results(troubles=True)
    results.remarks.append("Failed is what this remark does not say")
    results.metrics[1] = dataclasses.replace(results.metrics[1], definition="")  # every text ends with it
    html = render_page(results)
    warnings = [n.text for n in notes(results, results.summary) if n.severity == "warning"]
    assert warnings and folded_warnings(html) == [str(escape(text)) for text in warnings]
    assert "<li>Failed is what this remark does not say</li>" in html


def test_cells_are_sorted_by_value_not_by_text() -> None:
    cells = [Cell(16.404, ".2f", marks="⚠†"), Cell(0.875, ".1%"), Cell(math.nan, ".2f"), Cell(None)]
    cells += [Cell(math.inf), Cell(-2.0, "+.1f", (-3.0, 1.0)), Cell("opus"), Cell(3)]
    assert [cell.text for cell in cells] == ["⚠ † 16.40", "87.5%", "–", "–", "inf", "-2.0", "opus", "3"]
    assert [cell.order for cell in cells] == ["16.404", "0.875", "", "", "inf", "-2.0", "opus", "3.0"]
    assert [cell.interval_text for cell in cells] == [*[""] * 5, "[-3.0, 1.0]", "", ""]


def test_matrices_say_what_the_tests_say() -> None:
    results = make_results(codecs={"a": 0.0, "b": 1.5, "c": 1.6}, rates=(8.0,), num_recordings=12)
    html = render_page(results)
    tests = paired_tests(results, seed=0).query("metric == 'si_sdr'")
    part = html.partition('id="tests"')[2].partition("MS-Mel")[0]
    cells = re.findall(r'<td class="(\w+)" title="(.*?)">(.*?)<span', part)
    assert len(cells) == 9
    for _, row in tests.iterrows():
        i, j = "abc".index(row["codec_a"]), "abc".index(row["codec_b"])
        (verdict, detail, text), (mirrored, _, opposite) = cells[3 * i + j], cells[3 * j + i]
        assert float(text) == -float(opposite) == pytest.approx(row["difference"], abs=0.006)
        assert "n = 12 clips of 12 recordings" in detail
        expected = {"n.s.": ("same", "same"), row["codec_a"]: ("better", "worse")}
        assert (verdict, mirrored) == expected.get(row["winner"], ("worse", "better"))


def test_curves_show_every_mean_with_its_numbers() -> None:
    results = difficult()
    figures = rate_distortion(results, with_noise_floor(results, results.summary), results.metrics)
    svg = str(figures[0].svg)
    parsed(svg)
    for _, row in results.summary.iterrows():
        if not math.isnan(row["si_sdr"]):
            assert f"{row['si_sdr']:.4g} dB" in svg and f"n = {row['si_sdr_n']}" in svg
    assert svg.count("marker") == 5 and svg.count("hollow") == 1 and "declared 8.00 kbps" in svg
    assert any("reference: all 10 values are infinite" in remark for remark in figures[0].remarks)


def test_distributions_are_staircases_that_count_infinite_values() -> None:
    results = three_clips({"a": [0.0, 10.0, math.inf, 20.0]})
    (_, [figure]), *_ = distributions(results)
    assert figure.remarks == ["a: n = 4, 1 infinite, 0 failed"]
    points = re.search(r'points="(.*?)"', str(figure.svg))
    assert points is not None
    heights = [float(point.split(",")[1]) for point in points[1].split()]
    bottom, top = max(heights), min(heights)
    panel = (heights[0] - heights[-1]) / 0.75  # the infinite quarter is never reached
    assert bottom == heights[0] and top == heights[-1]
    np.testing.assert_allclose(np.unique(heights), bottom - panel * np.array([0.75, 0.5, 0.25, 0]), atol=0.2)


def test_perplexity_of_every_codebook() -> None:
    results = make_results()
    books = [
        Codebook(64, 64, 1.0, 1000, 5.0, 5.0, perplexity, perplexity, 0.5) for perplexity in (30.0, 41.5)
    ]
    results.corpus[0] = dataclasses.replace(results.corpus[0], codebooks=tuple(books))
    [figure] = perplexity(results)
    assert "codebook 2: 41.5, 1000 frames" in str(figure.svg)
    assert figure.keys[0].label == "qincodec, 8.00 kbps: 2 codebooks, 1000 frames"
    figures = perplexity(with_points())
    titles = [re.findall(r'class="title"[^>]*>([^<]*)<', str(figure.svg)) for figure in figures]
    assert titles == [["7.60 kbps"], ["8.00 kbps"], ["12.80 kbps"], ["16.00 kbps"]]


def with_points() -> Results:
    """Codes of rows at two asked rates, and of operating points, one of them with an asked rate's name."""
    results = make_results(num_recordings=2)
    points = make_results(num_recordings=2, rates=(9.5, 16.0), rate_factor={"qincodec": 0.8})
    joint = JointCodes(100, 50, 5.0, 5.5, (CodebookPair(1, 2, 40, 0.5, 0.25),))
    for part in (results, points):
        book = Codebook(64, 64, 1.0, 1000, 5.0, 5.0, 30.0, 31.0, 0.5)
        part.corpus = [
            dataclasses.replace(entry, codebooks=(book, book), duration_s=10.0, joint=joint)
            for entry in part.corpus
        ]
    results.points = points
    return results


def test_tokens_are_in_the_order_of_measured_rates() -> None:
    results = with_points()
    measured, nominal = [7.6, 8.0, 12.8, 16.0], [9.5, 8.0, 16.0, 16.0]
    for frame in (token_frame(results), pair_frame(results)):
        np.testing.assert_allclose(frame["kbps_measured"], measured, atol=0.01)
        assert frame["kbps"].tolist() == nominal
    tokens = all_tables(results, results.summary)[-1]
    [section] = tokens.sections
    assert [row[1].text for row in section.rows] == [f"{kbps:.2f}" for kbps in measured]
    html = render_page(results)
    table = html.partition('aria-label="Tokens"')[2].partition("</table>")[0]
    assert table.count('<th scope="col">') == len(tokens.headings)
    assert "asked kbps" not in table and 'class="group"' not in table
    scores = html.partition('aria-label="Scores"')[2].partition("</table>")[0]
    assert "asked kbps" in scores and 'colspan="12"' in scores  # a median beside each mean


def all_failed() -> Results:
    results = make_results()
    names = [
        *("si_sdr", "ms_mel", "bytes", "kbps_measured", "delay_samples", "delay_applied", "encode_s"),
        "decode_s",
    ]
    results.clips[names] = math.nan
    results.clips["error"] = "it broke"
    return results


def nothing_yet() -> Results:
    results = make_results()
    results.clips = results.clips.iloc[:0]
    results.n_pending = 40
    return results


def no_values() -> Results:
    results = make_results(control=True)
    results.clips[["si_sdr", "ms_mel"]] = math.nan
    return results


def controls_only() -> Results:
    results = make_results(control=True)
    results.conditions = [c for c in results.conditions if c.control]
    results.clips = results.clips[results.clips["codec"] == "reference"]
    return results


@pytest.mark.parametrize("make", [all_failed, nothing_yet, no_values, controls_only])
def test_very_little_is_still_a_report(make: type[Results]) -> None:
    page = parsed(render_page(make()))
    assert not re.search(r"\bnan\b", page.text)


def test_one_clip_of_one_recording() -> None:
    assert "no intervals: one recording only" in parsed(render_page(make_results(num_recordings=1))).text
