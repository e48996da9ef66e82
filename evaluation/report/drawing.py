"""Shared by all figures and pages: colours, files of a figure, and templates."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which people with any kind of colour blindness can distinguish. Yellow is left out
#: because it is too light on white; black is for conditions that are not codecs under test.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: For figures that show codecs only.
CODEC_COLOURS = (*COLOURS, "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
#: Reference, anchors and other marks that belong to no codec.
NEUTRAL = "0.35"
#: Format -> metadata to leave out: the time or the program, which would change the bytes.
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(_METADATA)


def codec_style(index: int) -> dict[str, str]:
    """Style of the ``index``-th curve."""
    return {"color": CODEC_COLOURS[index % len(CODEC_COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


@cache
def _figure_type() -> type[Figure]:
    from matplotlib.figure import Figure

    class Drawn(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            return files_of(self, ["png"])["png"]

    return Drawn


def new_figure(width: float, height: float) -> Figure:
    """A figure that needs no window; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure_type()(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def rate_axis(axes: Axes, ticks: Sequence[float]) -> None:
    """Make the x axis a logarithmic axis of measured rates with these ticks."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("measured kbps")


def interval_bar(
    axes: Axes,
    x: float,
    interval: tuple[float, float, float],
    limits: tuple[float, float] | None,
    *,
    colour: str,
    capsize: float = 2.5,
    **look: Any,
) -> None:
    """Draw an interval around a value, cut at the limits, with an arrow at an end that lies beyond.

    Args:
        interval: value, low and high end; nothing is drawn if an end is not finite.
        limits: ends of the scale; None if it has none.
        look: further options of ``Axes.errorbar``.
    """
    from matplotlib.markers import CARETDOWNBASE, CARETUPBASE

    value, low, high = interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return
    least, most = limits or (low, high)
    ends = min(max(low, least), value), max(min(high, most), value)
    bars = [[value - ends[0]], [ends[1] - value]]
    axes.errorbar([x], [value], bars, fmt="none", ecolor=colour, capsize=capsize, **look)
    arrows = (ends[0], ends[0] - low, CARETDOWNBASE), (ends[1], high - ends[1], CARETUPBASE)
    for end, rest, arrow in arrows:
        if rest > 1e-3 * (most - least):  # less cannot be seen
            axes.plot(x, end, marker=arrow, color=colour, markersize=2 * capsize, clip_on=False)


def add_legend(figure: Figure, panels: Iterable[Axes], **style: Any) -> None:
    """Add a legend below the figure with each label of its panels once."""
    labelled = [pair for axes in panels for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in labelled}
    if handles:
        figure.legend([*handles.values()], [*handles], loc="outside lower center", frameon=False, **style)


def files_of(
    figure: Figure, kinds: Sequence[str] = FORMATS, *, salt: str = "", dpi: int = 150
) -> dict[str, bytes]:
    """Format -> file of the figure; the same figure gives the same bytes.

    Args:
        kinds: some of `FORMATS`.
        salt: salt of the ids in an SVG, which are random otherwise; "" for the salt of the current style.
    """
    import matplotlib

    # Type 42 keeps text in a PDF searchable, and journals refuse matplotlib's own Type 3.
    settings: dict[Any, Any] = {"pdf.fonttype": 42} | ({"svg.hashsalt": salt} if salt else {})
    no_layout: dict[Any, Any] = {"figure.autolayout": False, "figure.constrained_layout.use": False}
    files = {}
    with matplotlib.rc_context(settings | no_layout):
        # Layout takes most of the time, so it is done once for all formats; at the picture's resolution,
        # because small text is wider in fine pixels than in coarse ones.
        figure.set_dpi(dpi)
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
            figure.set_layout_engine(None)  # "none" would draw everything twice
        for kind in kinds:
            data = io.BytesIO()
            figure.savefig(data, format=kind, dpi=dpi, metadata=_METADATA[kind])
            files[kind] = data.getvalue()
    return files


def data_uri(kind: str, data: bytes) -> str:
    """A data URI of an image, for a page without other files. An image in a page cannot run scripts."""
    media_type = {"png": "image/png", "svg": "image/svg+xml"}[kind]
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def templates(package: str, folder: str = ".") -> Environment:
    """Templates in a folder of a package. They escape all values; a missing value is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
