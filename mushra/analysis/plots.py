"""The figures of a listening test.

Each is drawn 7.16 inches wide (two columns of a journal); `means`, `box` and `violin` also 3.5 inches wide
(``..._one_column``). Conditions named ``codec@kbps`` are grouped by rate and coloured by codec, as in the
usual figure of a codec paper; other systems are beside one another, anchors at the left, the hidden
reference at the right, with a band over the whole width that shows their interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from evaluation.report.drawing import COLOURS, FORMATS, NEUTRAL, interval_bar, new_figure
from mushra.analysis.agreement import listener_agreement
from mushra.analysis.description import beyond, t_interval
from mushra.analysis.figures import WIDTHS, save, style_context
from mushra.analysis.layout import CHARACTER, Layout, Place, arrange, label_axis
from mushra.analysis.ratings import Ratings
from mushra.analysis.tidy import SCALE
from qincodec.core.errors import count

_AXES_HEIGHT = 2.0
#: Width of axes and grades in a figure, inches.
_MARGINS = 0.95
_BANDS = ("Bad", "Poor", "Fair", "Good", "Excellent")
#: Limit of panels in a figure of items; more items make more figures.
_ITEMS_PER_FIGURE = 24
#: With more marks a figure has them as one image and not as single objects.
_MOST_VECTOR_MARKS = 2000
#: With more listeners they are not named.
_MOST_NAMED_LISTENERS = 60
#: Room for the arrow of an interval that is cut at the end of the scale, in points of the scale.
_ARROW = 3.0
_GOLDEN = (math.sqrt(5) - 1) / 2


def draw_all(
    ratings: Ratings,
    conditions: pd.DataFrame,
    folder: Path,
    *,
    style: str | Path | None = None,
    letters: dict[str, str] | None = None,
    population: str = "",
    captions: bool = False,
    kinds: Sequence[str] = FORMATS,
) -> list[Path]:
    """Draw everything as PNG, SVG and PDF; the same input gives the same bytes.

    ``means``: means and intervals. ``box``, ``violin``: all ratings, and each listener's mean as a point.
    ``items`` (``items_2``, ... beyond 24 items): means and t intervals per item. ``listeners``: agreement.

    Args:
        ratings: in any order of rows.
        conditions: one row per condition in the order to show systems in: ``condition, n_listeners,
            n_ratings, mean, ci_low, ci_high, median, q1, q3``; what is NaN is not drawn.
        folder: made if need be.
        style: name or path of a matplotlib style, for fonts and lines.
        letters: of compact letter groups, condition -> "ab"; shown above the means.
        population: for whom the letters hold, such as "other listeners and other items".
        captions: whether each figure has its caption (`caption`) inside, for figures outside a report.
        kinds: of files, if not all of them.

    Returns:
        Paths of all files, the figure for two columns before the one for one.

    Raises:
        UserError: the style does not exist, or the folder cannot be written.
    """
    frame = ratings.frame.sort_values(["listener", "item", "condition", "score"], kind="stable")
    frame = frame.reset_index(drop=True)
    table = conditions.set_index("condition")
    layout = arrange([str(name) for name in table.index], ratings.reference, ratings.anchors)
    note = (lambda name: caption(name, ratings, letters, population)) if captions else lambda name: ""
    paths: list[Path] = []
    with style_context(style):
        draw: Callable[..., None]
        for name, draw in (("means", _draw_means), ("box", _draw_boxes), ("violin", _draw_violins)):
            for kind, width in reversed(WIDTHS.items()):
                figure, axes = _figure_of_conditions(layout, width, note(name))
                draw(axes, layout, table, frame)
                if name == "means" and letters:
                    _write_letters(axes, layout, table, letters, width)
                stem = name if kind == "two_columns" else f"{name}_{kind}"
                paths += save(figure, folder, stem, kinds)
        for page, start in enumerate(range(0, len(ratings.items), _ITEMS_PER_FIGURE), start=1):
            items = ratings.items[start : start + _ITEMS_PER_FIGURE]
            figure = _figure_of_items(frame, items, layout, note("items"))
            paths += save(figure, folder, "items" if page == 1 else f"items_{page}", kinds)
        paths += save(_figure_of_listeners(frame, layout), folder, "listeners", kinds)
    return paths


def caption(name: str, ratings: Ratings, letters: dict[str, str] | None = None, population: str = "") -> str:
    """Content of the figure of that name and numbers of listeners and items; "" if its axes are enough."""
    listeners, items = count(len(ratings.listeners), "listener"), count(len(ratings.items), "item")
    cut = "\narrow: the interval goes on beyond the scale" if _beyond_scale(name, ratings) else ""
    if name == "items":
        return f"means and 95% t intervals: {listeners}{cut}"
    same_letter = ", same letter: no difference found" if letters else ""
    what = {
        "means": f"means and 95% intervals{same_letter}",
        "box": "quartiles of all ratings, points: listeners' means",
        "violin": "density and quartiles of all ratings, points: listeners' means",
    }.get(name)
    if what is None:
        return ""
    below = f"\nletters for {population}" if name == "means" and letters and population else ""
    return f"{what}; {listeners}, {items}{below}{cut}"


def _beyond_scale(name: str, ratings: Ratings) -> bool:
    """Whether a t interval of the figure of that name reaches beyond the scale."""
    if name not in ("means", "items"):
        return False
    groups = ["condition", "item"] if name == "items" else ["condition"]
    means = ratings.frame.groupby([*groups, "listener"])["score"].mean().groupby(groups)
    intervals = [t_interval(values.to_numpy()) for _, values in means]
    return bool(beyond(np.array([(i.low, i.high) for i in intervals]), SCALE).any())


# Figures with one place per condition


def _figure_of_conditions(layout: Layout, width: float, note: str) -> tuple[Figure, Axes]:
    """An empty figure with labels below, grades at the right, a legend of codecs on top, ``note`` below."""
    handles = _legend_handles(layout)
    room = width - _MARGINS
    entry = 0.32 + 0.055 * max((len(handle.get_label()) for handle in handles), default=0)  # type: ignore[arg-type]
    columns = max(1, min(len(handles), int(room / entry)))
    rows = math.ceil(len(handles) / columns)
    figure = new_figure(width, _AXES_HEIGHT)
    axes = figure.subplots()
    labels = label_axis(axes, layout, room, font_size=float(matplotlib.rcParams["font.size"]) - 1)
    figure.set_figheight(_AXES_HEIGHT + labels + 0.15 * rows + 0.35)
    if handles:
        figure.legend(
            handles=handles, loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.2
        )
    _set_up_scale(axes)
    _name_grades(axes)
    axes.set_ylabel("MUSHRA score")
    if note:
        axes.set_xlabel(note, fontsize="x-small" if width > 5 else 5.5, color=NEUTRAL)
    return figure, axes


def _legend_handles(layout: Layout) -> list[Line2D]:
    looks = {place.codec: place for place in layout.places if place.codec}
    return [
        Line2D([], [], color=place.colour, marker=place.marker, linestyle="", label=codec)
        for codec, place in looks.items()
    ]


def _set_up_scale(axes: Axes) -> None:
    axes.set_ylim(-2, 102)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(True, axis="y")
    axes.tick_params(axis="x", length=0)


def _name_grades(axes: Axes) -> None:
    right = axes.twinx()
    right.set_ylim(axes.get_ylim())
    right.set_yticks([10, 30, 50, 70, 90], _BANDS, fontsize="x-small", color=NEUTRAL)
    right.tick_params(axis="y", length=0)


def _draw_means(axes: Axes, layout: Layout, table: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Means with intervals; reference and anchors also as bands."""
    for place in layout.places:
        row = _numbers(table, place.condition)
        if math.isnan(row["mean"]):
            continue
        if not place.codec and place.marker in "dv":
            if math.isfinite(row["ci_low"]):
                low, high = np.clip([row["ci_low"], row["ci_high"]], *SCALE)
                axes.axhspan(low, high, color=NEUTRAL, alpha=0.13, linewidth=0, zorder=0)
            axes.axhline(row["mean"], color=NEUTRAL, linewidth=0.5, linestyle=":", zorder=0.5)
        _mark(axes, place, row["mean"], row["ci_low"], row["ci_high"])


def _mark(axes: Axes, place: Place, mean: float, low: float, high: float, **look: Any) -> None:
    """A mean, and its interval if it has one."""
    options = {"elinewidth": 1.0, "zorder": 3, **look}
    size = {"markersize": options.pop("markersize")} if "markersize" in options else {}
    interval_bar(axes, place.x, (mean, low, high), SCALE, colour=place.colour, **options)
    # A mean of 100 is on the edge of the axes.
    axes.plot(place.x, mean, place.marker, color=place.colour, zorder=3, clip_on=False, **size)


def _write_letters(
    axes: Axes, layout: Layout, table: pd.DataFrame, letters: dict[str, str], width: float
) -> None:
    """Letters above the means; with many systems they are vertical, so that they do not overlap."""
    tops = {}
    for place in layout.places:
        row = _numbers(table, place.condition)
        if letters.get(place.condition) and math.isfinite(row["mean"]):
            high = float(np.nanmax([row["mean"], row["ci_high"]]))
            tops[place] = min(high, 100.0) + _ARROW * (high > 100.0)
    if not tops:
        return
    low, high = layout.limits
    unit = 72 * (width - _MARGINS) / (high - low)
    size = 0.83 * float(matplotlib.rcParams["font.size"])
    longest = max(len(letters[place.condition]) for place in tops)
    turned = longest * CHARACTER * size > unit
    size = min(size, 0.9 * unit) if turned else size
    points = _AXES_HEIGHT * 72 / 112
    heights = {place: CHARACTER * size * len(letters[place.condition]) if turned else size for place in tops}
    ends = [top + (3 + heights[place]) / points for place, top in tops.items()]
    for twin in axes.figure.axes:
        twin.set_ylim(-2, max(110.0, *ends, 0.0))
    for place, top in tops.items():
        axes.annotate(
            letters[place.condition],
            (place.x, top),
            (0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=size,
            rotation=90 if turned else 0,
        )


def _draw_boxes(axes: Axes, layout: Layout, table: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Boxes of all ratings (whiskers: last rating within 1.5 inter-quartile ranges), listeners' means."""
    for place, row, values in _rated(layout, table, frame):
        reach = 1.5 * (row["q3"] - row["q1"])
        inside = values[(values >= row["q1"] - reach) & (values <= row["q3"] + reach)]
        box = {
            "med": row["median"],
            "q1": row["q1"],
            "q3": row["q3"],
            "whislo": min(inside.min(initial=row["q1"]), row["q1"]),
            "whishi": max(inside.max(initial=row["q3"]), row["q3"]),
        }
        line = {"color": place.colour, "linewidth": 0.8}
        axes.bxp(
            [box],
            positions=[place.x],
            widths=0.72,
            showfliers=False,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": "none", "edgecolor": place.colour, "linewidth": 0.8},
            medianprops={"color": place.colour, "linewidth": 1.8},
            whiskerprops=line,
            capprops=line,
        )
    _draw_listeners(axes, layout, frame)


def _draw_violins(axes: Axes, layout: Layout, table: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Densities of all ratings with the same largest width, their quartiles, and listeners' means."""
    for place, row, values in _rated(layout, table, frame):
        grid, density = bounded_density(values)
        half = 0.4 * density / density.max()
        axes.fill_betweenx(
            grid, place.x - half, place.x + half, facecolor=place.colour, alpha=0.2, linewidth=0
        )
        axes.plot(
            [place.x] * 2,
            [row["q1"], row["q3"]],
            color=place.colour,
            linewidth=3.0,
            alpha=0.6,
            solid_capstyle="butt",
        )
        axes.plot([place.x - 0.2, place.x + 0.2], [row["median"]] * 2, color=place.colour, linewidth=1.8)
    _draw_listeners(axes, layout, frame)


def bounded_density(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Density of scores over 0 to 100: Gaussian kernels, reflected at both ends of the scale.

    The bandwidth is Scott's rule, and at least one point of the scale, because equal scores have a spread too
    small to draw.

    Returns:
        The points and the density there, which integrates to one over [0, 100].
    """
    grid = np.linspace(0.0, 100.0, 201)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    width = max(1.0, spread * len(values) ** -0.2)
    levels, counts = np.unique(values, return_counts=True)
    density = np.zeros_like(grid)
    images = [sign * levels + turn for sign in (1, -1) for turn in (-200, 0, 200)]
    for image in images:
        density += stats.norm.pdf(grid[:, None], image[None, :], width) @ (counts / len(values))
    return grid, density


def _numbers(table: pd.DataFrame, condition: str) -> dict[str, float]:
    """A condition's row."""
    return {str(name): float(value) for name, value in table.loc[condition].items()}  # type: ignore[arg-type]


def _rated(
    layout: Layout, table: pd.DataFrame, frame: pd.DataFrame
) -> Iterator[tuple[Place, dict[str, float], np.ndarray]]:
    """Conditions with ratings: place, row, and all ratings in order."""
    scores = dict(iter(frame.groupby("condition")["score"]))
    for place in layout.places:
        row = _numbers(table, place.condition)
        if place.condition in scores and not math.isnan(row["median"]):
            yield place, row, np.sort(scores[place.condition].to_numpy(dtype=float))


def _draw_listeners(axes: Axes, layout: Layout, frame: pd.DataFrame) -> None:
    """Each listener's mean over items as a point, spread sideways by a fixed sequence."""
    means = frame.groupby(["condition", "listener"])["score"].mean()
    present = set(means.index.get_level_values("condition"))
    many = len(means) > _MOST_VECTOR_MARKS
    listeners = frame["listener"].nunique()
    for place in layout.places:
        if place.condition not in present:
            continue
        values = np.sort(means.loc[place.condition].to_numpy(dtype=float))
        aside = (np.arange(1, len(values) + 1) * _GOLDEN) % 1 - 0.5 if len(values) > 1 else np.zeros(1)
        axes.plot(
            place.x + 0.5 * aside,
            values,
            "o",
            color=place.colour,
            markersize=2.2 if listeners <= 100 else 1.2,
            markeredgewidth=0,
            alpha=0.75 if listeners <= 100 else 0.4,
            rasterized=many,
            zorder=3,
            clip_on=False,
        )


# Items and listeners


def _figure_of_items(frame: pd.DataFrame, items: Sequence[str], layout: Layout, note: str) -> Figure:
    """One panel per item: means over listeners and t intervals."""
    rows = math.ceil(len(items) / (4 if len(layout.places) <= 12 else 2))
    columns = math.ceil(len(items) / rows)  # as few as these rows take: five items are 3 and 2, not 4 and 1
    handles = _legend_handles(layout)
    width = WIDTHS["two_columns"]
    figure = new_figure(width, 1.0)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    labels = 0.0
    for index, axes in enumerate(panels.ravel()):
        if index >= len(items):
            axes.set_visible(False)
            continue
        rated = frame[frame["item"] == items[index]].groupby("condition")["score"]
        for place in layout.places:
            if place.condition in rated.groups:
                interval = t_interval(rated.get_group(place.condition).to_numpy(dtype=float))
                ends = interval.mean, interval.low, interval.high
                _mark(axes, place, *ends, capsize=1.5, elinewidth=0.8, markersize=2.5)
        _set_up_scale(axes)
        name = items[index] if len(items[index]) <= 40 else f"{items[index][:26]}…{items[index][-13:]}"
        axes.set_title(name, fontsize="x-small" if len(name) > 24 else "small")
        height = label_axis(axes, layout, (width - 0.4) / columns - 0.1, font_size=6, slant=False)
        labels = max(labels, height)
        if index + columns < len(items):
            axes.set_xticklabels([])
        elif index // columns < rows - 1:
            _hang_labels(axes)
    for row in panels:
        row[0].set_ylabel("score")
    figure.set_figheight(1.25 * rows + labels + 0.5)
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=min(8, len(handles)), frameon=False)
    if note:
        figure.supxlabel(note, fontsize="x-small", color=NEUTRAL)
    return figure


def _hang_labels(axes: Axes) -> None:
    """Let the labels reach into the empty place below instead of making room for them in all columns."""
    labels = [(label.get_position()[0], label) for label in axes.get_xticklabels()]
    texts = [
        axes.annotate(
            label.get_text(),
            (x, 0),
            (0, -3.5),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            rotation=label.get_rotation(),
            ha=label.get_horizontalalignment(),
            va="top",
            fontsize=label.get_fontsize(),
            rotation_mode=label.get_rotation_mode(),
        )
        for x, label in labels
    ]
    for text in texts:
        text.set_in_layout(False)
    axes.set_xticklabels([])


def _figure_of_listeners(frame: pd.DataFrame, layout: Layout) -> Figure:
    """Left: each listener's correlation with the mean of the others. Right: mean scores per condition."""
    agreement = listener_agreement(frame)
    agreement = agreement.sort_values(["correlation", "listener"], na_position="first", kind="stable")
    named = len(agreement) <= _MOST_NAMED_LISTENERS
    width = WIDTHS["two_columns"]
    figure = new_figure(width, 3.0)
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    labels = label_axis(right, layout, 0.5 * width, font_size=6.5)
    figure.set_figheight(max(2.4 + labels, 0.12 * len(agreement) + 0.7 if named else 0.0))
    _draw_agreement(left, agreement, named)
    _draw_profiles(right, frame, layout)
    return figure


def _draw_agreement(axes: Axes, agreement: pd.DataFrame, named: bool) -> None:
    rows = np.arange(len(agreement))
    values = agreement["correlation"].to_numpy(dtype=float)
    known = np.isfinite(values)
    if named:
        axes.hlines(rows[known], 0, values[known], color="0.8", linewidth=0.8)
        axes.set_yticks(rows, [_short_id(name) for name in agreement["listener"]], fontsize=6)
        for row, reason in zip(rows[~known], agreement["reason"].to_numpy()[~known], strict=True):
            axes.text(0.02, row, reason, fontsize=6, color=NEUTRAL, va="center")
    else:
        axes.set_ylabel(f"{len(agreement)} listeners, in order of agreement")
        if not known.all():
            axes.set_title(f"{np.count_nonzero(~known)} listeners have no correlation", fontsize="small")
    axes.plot(values[known], rows[known], "o", color=COLOURS[0], markersize=3.5 if named else 1.5)
    axes.axvline(0, color=NEUTRAL, linewidth=0.6)
    axes.set_xlim(min(0.0, float(np.min(values[known], initial=0.0)) * 1.1), 1.0)
    axes.set_ylim(-0.8, len(agreement) - 0.2)
    axes.grid(True, axis="x")
    axes.set_xlabel("correlation with the mean of the others")


def _short_id(name: str) -> str:
    """Identifiers of 36 characters take the room of the figure; both ends tell them apart."""
    return name if len(name) <= 16 else f"{name[:8]}…{name[-4:]}"


def _draw_profiles(axes: Axes, frame: pd.DataFrame, layout: Layout) -> None:
    means = frame.pivot_table(index="listener", columns="condition", values="score", aggfunc="mean")
    means = means.reindex(columns=[place.condition for place in layout.places])
    x = np.array([place.x for place in layout.places])
    profiles = [np.column_stack([x, row])[~np.isnan(row)] for row in means.to_numpy(dtype=float)]
    axes.add_collection(
        LineCollection(
            profiles,
            colors=COLOURS[0],
            linewidths=0.7,
            alpha=max(0.05, min(0.5, 12 / len(profiles))),
            rasterized=len(profiles) * len(x) > _MOST_VECTOR_MARKS,
        )
    )
    overall = means.mean(axis=0).to_numpy(dtype=float)
    axes.plot(x, overall, "o-", color=COLOURS[1], markersize=3, linewidth=1.5, label="mean of listeners")
    _set_up_scale(axes)
    axes.set_ylabel("each listener's mean score")
    axes.legend(frameon=False, loc="best")
