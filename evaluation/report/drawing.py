"""What all figures and pages share: colours, files of a figure, and how templates are filled in."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which people with any kind of colour blindness can tell apart, without the
#: yellow, which is too light on white, and the black, which is for what is no codec under test.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: Where all that is drawn is a codec.
CODEC_COLOURS = (*COLOURS, "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
#: Reference, anchors and other marks that belong to no codec.
NEUTRAL = "0.35"
#: Three formats name the time or the program unless told otherwise.
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(_METADATA)


def codec_style(index: int) -> dict[str, str]:
    """Of the ``index``-th curve."""
    return {"color": CODEC_COLOURS[index % len(CODEC_COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


@cache
def _figure_type() -> type[Figure]:
    from matplotlib.figure import Figure

    class Drawn(Figure):
        """A notebook shows it, whether or not pyplot is there."""

        def _repr_png_(self) -> bytes:
            return files_of(self, ["png"])["png"]

    return Drawn


def new_figure(width: float, height: float) -> Figure:
    """One that is drawn without a window; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure_type()(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def rate_axis(axes: Axes, ticks: Sequence[float]) -> None:
    """A logarithmic axis of measured rates, with ticks at these."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("measured kbps")


def add_legend(figure: Figure, panels: Iterable[Axes], **style: Any) -> None:
    """Below the figure, with every label of its panels once."""
    labelled = [pair for axes in panels for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in labelled}
    if handles:
        figure.legend([*handles.values()], [*handles], loc="outside lower center", frameon=False, **style)


def files_of(
    figure: Figure, kinds: Sequence[str] = FORMATS, *, salt: str = "", dpi: int = 150
) -> dict[str, bytes]:
    """The figure in each of these formats: the same bytes for the same figure.

    Args:
        kinds: of `FORMATS`.
        salt: of the ids in an SVG, which are random otherwise; "" for that of the style in force.
    """
    import matplotlib

    # Type 42 keeps text in a PDF searchable, and journals refuse matplotlib's own Type 3.
    settings: dict[Any, Any] = {"pdf.fonttype": 42} | ({"svg.hashsalt": salt} if salt else {})
    no_layout: dict[Any, Any] = {"figure.autolayout": False, "figure.constrained_layout.use": False}
    files = {}
    with matplotlib.rc_context(settings | no_layout):
        # Laid out once and not for each format, which takes most of the time; at the picture's resolution,
        # since small text is wider in fine pixels than in coarse ones.
        figure.set_dpi(dpi)
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
            figure.set_layout_engine(None)  # with "none" all would be drawn twice, once for nothing
        for kind in kinds:
            data = io.BytesIO()
            figure.savefig(data, format=kind, dpi=dpi, metadata=_METADATA[kind])
            files[kind] = data.getvalue()
    return files


def data_uri(kind: str, data: bytes) -> str:
    """An image as an address, for a page without other files. One in a page can run no script."""
    media_type = {"png": "image/png", "svg": "image/svg+xml"}[kind]
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def templates(package: str, folder: str = ".") -> Environment:
    """Templates in a folder of a package: whatever they fill in is escaped, and nothing may be lacking."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
