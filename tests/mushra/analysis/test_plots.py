"""Figures: the same bytes, the right sizes, everything readable, and no case that breaks them."""

from __future__ import annotations

import itertools
import re
import struct
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from evaluation.report.drawing import COLOURS, interval_bar, new_figure
from mushra.analysis import plots
from mushra.analysis.agreement import listener_agreement
from mushra.analysis.figures import style_context
from mushra.analysis.layout import arrange, label_axis
from mushra.analysis.plots import _figure_of_items, bounded_density, draw_all
from mushra.analysis.ratings import Ratings
from qincodec.core.errors import UserError

FIGURES = ["means", "means_one_column", "box", "box_one_column", "violin", "violin_one_column"]
FIGURES += ["items", "listeners"]


def make_frame(listeners: int, items: int, levels: dict[str, float], seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    rows = [
        (
            f"listener {who}",
            f"item {what}",
            name,
            float(np.clip(round(level + generator.normal(0, 6)), 0, 100)),
        )
        for who in range(listeners)
        for what in range(items)
        for name, level in levels.items()
    ]
    return pd.DataFrame(rows, columns=["listener", "item", "condition", "score"])


def make_ratings(frame: pd.DataFrame) -> Ratings:
    names = set(frame["condition"])
    anchors = tuple(name for name in ("anchor35", "anchor70") if name in names)
    return Ratings(frame, "reference" if "reference" in names else None, anchors)


def describe(ratings: Ratings) -> pd.DataFrame:
    rows = []
    for name in ratings.conditions:
        scores = ratings.frame.loc[ratings.frame["condition"] == name]
        means = scores.groupby("listener")["score"].mean()
        half = 1.96 * means.sem() if len(means) > 1 else np.nan
        q1, median, q3 = np.percentile(scores["score"], [25, 50, 75])
        mean = means.mean()
        rows.append((name, len(means), len(scores), mean, mean - half, mean + half, median, q1, q3))
    columns = ["condition", "n_listeners", "n_ratings", "mean", "ci_low", "ci_high", "median", "q1", "q3"]
    return pd.DataFrame(rows, columns=columns)


def draw(frame: pd.DataFrame, folder: Path, **options: object) -> list[Path]:
    ratings = make_ratings(frame)
    return draw_all(ratings, describe(ratings), folder, **options)  # type: ignore[arg-type]


PAPER = {"reference": 99, "anchor35": 20, "dac@8": 48, "qincodec@8": 45, "dac@16": 72, "qincodec@16": 69}


LETTERS = {"dac@8": "zq", "qincodec@8": "zq", "dac@16": "zw"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "text.mplstyle").write_text("svg.fonttype: none\n")
    return draw(
        make_frame(4, 3, PAPER),
        folder / "out",
        style=folder / "text.mplstyle",
        letters=LETTERS,
        captions=True,
    )


def test_files_sizes_and_texts(drawn: list[Path]) -> None:
    paths = drawn
    assert [path.name for path in paths] == [f"{n}.{kind}" for n in FIGURES for kind in ("png", "svg", "pdf")]
    for path in paths:
        data = path.read_bytes()
        if path.suffix == ".png":
            width = struct.unpack(">I", data[16:20])[0]
            assert width == (1050 if "one_column" in path.name else 2148)
            assert b"Software" not in data and b"tEXt" not in data
        elif path.suffix == ".pdf":
            assert b"CreationDate" not in data and b"/Type3" not in data
        else:
            assert b"<dc:date>" not in data
    for name in ("means", "means_one_column"):
        texts = re.findall(r"<text[^>]*>([^<]+)</text>", (paths[0].parent / f"{name}.svg").read_text())
        shown = " ".join(texts)
        for text in (
            "8 kbps",
            "16 kbps",
            "dac",
            "qincodec",
            "Excellent",
            "Bad",
            "MUSHRA score",
            "4 listeners",
        ):
            assert text in shown
        assert texts.count("zq") == 2 and texts.count("zw") == 1
        assert "hidden reference" in shown or ("hidden" in shown and "reference" in shown)


def test_the_caption_inside_is_an_option(drawn: list[Path], tmp_path: Path) -> None:
    """Without it the figure is lower and has its axes' words only."""
    folder = drawn[0].parents[1]
    style = folder / "text.mplstyle"
    without = draw(make_frame(4, 3, PAPER), tmp_path, style=style, letters=LETTERS, kinds=["svg"])
    pictures = [path for path in drawn if path.suffix == ".svg"]
    assert [path.name for path in without] == [path.name for path in pictures]
    for bare, full in zip(without, pictures, strict=True):
        if bare.stem != "listeners":
            assert "4 listeners" in full.read_text() and "4 listeners" not in bare.read_text(), bare.stem


@pytest.mark.parametrize(
    ("items", "shape"), [(1, (1, 1)), (5, (2, 3)), (8, (2, 4)), (9, (3, 3)), (13, (4, 4))]
)
def test_panels_of_items_fill_the_width(items: int, shape: tuple[int, int]) -> None:
    frame = make_frame(3, items, {"reference": 95, "A": 50})
    layout = arrange(["reference", "A"], "reference", ())
    figure = _figure_of_items(frame, sorted(frame["item"].unique()), layout, "")
    assert figure.axes[0].get_subplotspec().get_geometry()[:2] == shape  # type: ignore[union-attr]


def test_same_bytes_whatever_the_order_of_rows_and_the_settings_around(
    drawn: list[Path], tmp_path: Path
) -> None:
    import matplotlib

    frame = make_frame(4, 3, PAPER).sample(frac=1, random_state=1)
    style = drawn[0].parents[1] / "text.mplstyle"
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.hashsalt": None}):
        again = draw(frame, tmp_path, style=style, letters=LETTERS, captions=True)
    assert [path.name for path in drawn] == [path.name for path in again]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(drawn, again, strict=True))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(make_frame(1, 1, {"x": 50, "missing": 50}), id="one of each"),
        pytest.param(
            make_frame(3, 2, {"reference": 0, "a & b <c> $d_e$ \\f {g} %h": 0}).assign(score=100.0),
            id="equal",
        ),
    ],
)
def test_degenerate_ratings(frame: pd.DataFrame, tmp_path: Path) -> None:
    ratings = make_ratings(frame)
    table = describe(ratings).set_index("condition")
    if "missing" in table.index:
        table.loc["missing"] = np.nan
    assert len(draw_all(ratings, table.reset_index(), tmp_path, letters={"missing": "a"})) == 3 * len(FIGURES)


@pytest.mark.long
@pytest.mark.filterwarnings("error")
def test_thirty_conditions_with_long_names(tmp_path: Path) -> None:
    levels = {f"a system with quite a long name indeed, variant {k}": 3.0 * k for k in range(28)}
    frame = make_frame(6, 30, {"reference": 99, "anchor35": 20, **levels})
    names = {path.name for path in draw(frame, tmp_path)}
    assert {"items.png", "items_2.png"} <= names and len(names) == 3 * len(FIGURES) + 3


# Layout


def test_rates_are_grouped_and_codecs_keep_colour_and_order() -> None:
    names = ["opus@16", "reference", "dac@16", "opus@8", "anchor70", "anchor35", "dac@8", "plain"]
    layout = arrange(names, "reference", ("anchor35", "anchor70"))
    order = ["anchor35", "anchor70", "opus@8", "dac@8", "opus@16", "dac@16", "plain", "reference"]
    assert [place.condition for place in layout.places] == order
    ticks = ["3.5 kHz anchor", "7 kHz anchor", "8 kbps", "16 kbps", "plain", "hidden reference"]
    assert [text for _, text in layout.ticks] == ticks
    looks = {place.condition: (place.codec, place.colour, place.marker) for place in layout.places}
    assert looks["opus@8"] == looks["opus@16"] != looks["dac@8"]
    assert looks["dac@8"][1] in COLOURS and looks["reference"][1] not in COLOURS
    xs = [place.x for place in layout.places]
    assert np.all(np.diff(xs) >= 1)
    assert layout.ticks[2][0] == (xs[2] + xs[3]) / 2


def test_an_anchor_named_like_a_codec_stays_an_anchor() -> None:
    layout = arrange(["low@3.5", "opus@16"], None, ("low@3.5",))
    assert [text for _, text in layout.ticks] == ["low@3.5", "16 kbps"]


def test_long_labels_stay_distinct() -> None:
    names = [f"{'x' * 30}{middle}{'y' * 30}" for middle in ("a", "b")]
    labels = [text for _, text in arrange(names, None, ()).ticks]
    assert len(set(labels)) == 2 and max(map(len, labels)) < 40


@pytest.mark.parametrize("width", [3.5, 7.16])
@pytest.mark.parametrize(
    "names",
    [
        ["reference", "anchor35", "anchor70", *(f"{c}@{r}" for c in ("dac", "opus", "us") for r in (8, 16))],
        ["reference", *(f"FOA-Amb-Param{k}" for k in range(7))],
        [f"system with a long name {k}" for k in range(30)],
        ["a"],
    ],
    ids=["rates", "names", "thirty", "one"],
)
def test_labels_lie_inside_and_apart(names: list[str], width: float) -> None:
    with style_context(None):
        figure = new_figure(width, 3.5)
        axes = figure.subplots()
        label_axis(axes, arrange(names, "reference", ("anchor35", "anchor70")), width - 0.95, font_size=7)
        axes.set_ylabel("MUSHRA score")
        figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    slanted = [label.get_rotation() == 40 for label in axes.get_xticklabels()]
    for label, box in zip(axes.get_xticklabels(), boxes, strict=True):
        assert box.y0 >= -1 and box.x0 >= -1 and box.x1 <= figure.bbox.width + 1, label
    for index, (left, right) in enumerate(itertools.pairwise(boxes)):
        # The box of a slanted text overlaps its neighbour's where the text does not.
        assert slanted[index] or slanted[index + 1] or left.x1 <= right.x0 + 1.0


# Numbers behind the figures


def test_density_stays_on_the_scale_and_is_the_usual_one_inside() -> None:
    values = np.random.default_rng(0).normal(50, 6, 400)
    grid, density = bounded_density(values)
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(density, stats.gaussian_kde(values)(grid), atol=1e-4)
    for values in (np.full(5, 100.0), np.array([0.0]), np.array([0.0, 100.0, 100.0])):
        grid, density = bounded_density(values)
        assert grid[0] == 0 and grid[-1] == 100
        assert np.trapezoid(density, grid) == pytest.approx(1, abs=0.01)


def test_agreement_is_the_correlation_with_the_mean_of_the_others() -> None:
    frame = make_frame(4, 5, PAPER)
    frame = frame.drop(index=[3, 40, 77])
    found = listener_agreement(frame).set_index("listener")
    for listener, own in frame.groupby("listener"):
        others = frame[frame["listener"] != listener].groupby(["item", "condition"])["score"].mean()
        pairs = own.set_index(["item", "condition"])["score"].to_frame("own").join(others.rename("others"))
        expected = stats.pearsonr(pairs["own"], pairs["others"]).statistic
        assert found.loc[str(listener), "correlation"] == pytest.approx(expected, abs=1e-12)
        assert found.loc[str(listener), "n_cells"] == len(own)


def test_agreement_says_why_there_is_none() -> None:
    frame = make_frame(3, 2, PAPER)
    frame.loc[frame["listener"] == "listener 1", "score"] = 40.0
    table = listener_agreement(frame).set_index("listener")
    assert np.isnan(table.loc["listener 1", "correlation"])
    assert table.loc["listener 1", "reason"] == "all scores equal"
    assert table.loc["listener 0", "reason"] == "" and table.loc["listener 0", "correlation"] > 0.9
    alone = listener_agreement(make_frame(1, 2, PAPER))
    assert alone["reason"].tolist() == ["one listener"]


# Styles


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no style"),
        ("text.usetex: True\n", "text.usetex"),
        ("font.size: large enough\n", "not a style sheet"),
        ("", "not a style sheet"),
        ("MIT License\nand more\n", "Missing colon"),
        ("font.sise: 8\n", "font.sise"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "not a style sheet"),
    ],
)
def test_bad_styles_are_named(
    content: str | bytes | None, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.mplstyle"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=message) as caught, style_context(path):
        pass
    assert "own.mplstyle" in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_close_style_names_are_suggested() -> None:
    with pytest.raises(UserError, match="did you mean ggplot"), style_context("gplot"):
        pass


def test_a_style_sets_fonts_but_not_the_promise_of_equal_bytes(tmp_path: Path) -> None:
    import matplotlib

    path = tmp_path / "paper.mplstyle"
    path.write_text("font.family: serif\nsvg.hashsalt: other\n")
    with style_context(path):
        assert matplotlib.rcParams["font.family"] == ["serif"]
        assert matplotlib.rcParams["svg.hashsalt"] == "mushra"


@pytest.mark.parametrize("width", [3.5, 7.16])
@pytest.mark.parametrize("number", [3, 14, 30])
def test_letters_of_many_systems_do_not_run_into_each_other(number: int, width: float) -> None:
    levels = {"reference": 99.0, **{f"s{k:02d}": 98 - 2.0 * k for k in range(number)}}
    ratings = make_ratings(make_frame(8, 3, levels))
    layout = arrange(ratings.conditions, "reference", ())
    letters = {name: "abcde"[: 1 + k % 5] for k, name in enumerate(ratings.systems)}
    with style_context(None):
        figure, axes = plots._figure_of_conditions(layout, width, "note")
        plots._write_letters(axes, layout, describe(ratings).set_index("condition"), letters, width)
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes.texts]
        inside = axes.get_window_extent()
    assert len(boxes) == number
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(box.y1 <= inside.y1 for box in boxes)


@pytest.mark.filterwarnings("error")
def test_intervals_beyond_the_scale_stay_in_their_axes(tmp_path: Path) -> None:
    """Two listeners give intervals of hundreds of points: nothing is drawn over the edge of a picture."""
    frame = make_frame(2, 3, PAPER)
    frame.loc[frame["listener"] == "listener 1", "score"] = 100 - frame["score"]
    names = {"listener 0": "f2131e2e-aaaa-bbbb-cccc-0123456789ab", "listener 1": "0" * 36}
    frame["listener"] = frame["listener"].map(names)
    paths = draw(frame, tmp_path, kinds=["png"], letters=LETTERS, captions=True)
    assert [path.stem for path in paths] == FIGURES
    for path in paths:
        picture = plt.imread(path)[..., :3]
        edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
        assert all((edge == 1).all() for edge in edges), path.name


def test_an_interval_is_cut_at_the_ends_with_an_arrow() -> None:
    def drawn(*interval: float, limits: tuple[float, float] | None = (0, 100)) -> list[tuple[float, ...]]:
        """Ends of the bar, then places of arrows."""
        axes = new_figure(2, 2).subplots()
        interval_bar(axes, 1, interval, limits, colour="k", capsize=0)  # type: ignore[arg-type]
        (bar,) = axes.collections[0].get_segments() if axes.collections else [np.empty((0, 2))]
        arrows = [line for line in axes.lines if len(line.get_xdata())]
        return [tuple(bar[:, 1]), *(tuple(line.get_ydata()) for line in arrows)]  # type: ignore[arg-type]

    assert drawn(50, 30, 70) == [(30, 70)]
    assert drawn(50, -585, 685) == [(0, 100), (0,), (100,)]
    assert drawn(99, 97, 101) == [(97, 100), (100,)]
    assert drawn(50, -585, 685, limits=None) == [(-585, 685)]
    assert drawn(50, np.nan, np.nan) == [()]
    ratings = make_ratings(make_frame(2, 2, {"reference": 99, "a": 50}, seed=1))
    assert plots.caption("means", ratings).endswith("\narrow: the interval goes on beyond the scale")
    assert "arrow" not in plots.caption("box", ratings)
    assert "arrow" not in plots.caption("means", make_ratings(make_frame(9, 2, {"a": 50, "b": 60})))
