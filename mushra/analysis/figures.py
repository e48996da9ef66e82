"""Shared parts of all figures of a listening test: style, colours, sizes, reproducible files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure

from evaluation.report.drawing import FORMATS, files_of
from qincodec.core.errors import UserError, did_you_mean
from qincodec.core.files import write_atomic

#: Widths of a figure in IEEE's two-column layout, inches.
WIDTHS = {"one_column": 3.5, "two_columns": 7.16}
_DPI = 300

_BASE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 4.0,
    "patch.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
    "svg.hashsalt": "mushra",
    "text.parse_math": False,  # a "$" in a name is a "$"
}


@contextmanager
def style_context(style: str | Path | None) -> Iterator[None]:
    """Settings of all figures drawn and saved inside: matplotlib's own, ours, then those of ``style``.

    A person's matplotlibrc is ignored, so that the same data give the same bytes everywhere. Colours of
    systems and sizes are ours for every style.

    Args:
        style: name of a matplotlib style ("ggplot") or path of a style sheet ("paper.mplstyle").

    Raises:
        UserError: the style does not exist, is not a style sheet, or needs LaTeX.
    """
    layers: list[Any] = [_BASE]
    if style is not None:
        layers.append(_style_settings(style))
    with matplotlib.style.context(layers, after_reset=True):
        yield


def check_style(style: str | Path | None) -> None:
    """Raise the errors of `style_context` before the analysis starts."""
    if style is not None:
        _style_settings(style)


class _Complaints(logging.Handler):
    """Collects errors that matplotlib only logs: invalid lines and unknown names."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _style_settings(style: str | Path) -> dict[Any, Any]:
    name = os.fspath(style)
    known = matplotlib.style.available
    settings: dict[Any, Any]
    if Path(name).is_file():
        complaints = _Complaints()
        logger = logging.getLogger("matplotlib")
        logger.addHandler(complaints)
        propagate, logger.propagate = logger.propagate, False
        try:
            settings = dict(
                matplotlib.rc_params_from_file(name, fail_on_error=True, use_default_template=False)
            )
        except (ValueError, KeyError, OSError) as error:
            complaints.messages.append(str(error))
        finally:
            logger.removeHandler(complaints)
            logger.propagate = propagate
        if complaints.messages:
            reason = " ".join(complaints.messages[0].split())
            raise UserError(f"'{name}' is not a style sheet for this matplotlib: {reason}")
        if not settings:
            raise UserError(
                f"'{name}' is not a style sheet for this matplotlib: no line in it sets anything, such as "
                "font.family: serif"
            )
    elif name in known:
        settings = dict(matplotlib.style.library[name])
    else:
        raise UserError(
            f"no style '{name}': {did_you_mean(name, known)}give the path of a matplotlib style sheet or one"
            f" of {', '.join(style for style in known if not style.startswith('_'))}"
        )
    if settings.get("text.usetex"):
        raise UserError(
            f"style '{name}' sets text.usetex, which reads names of conditions as LaTeX; set it to False"
        )
    settings.pop("svg.hashsalt", None)
    return settings


def save(figure: Figure, folder: Path, stem: str, kinds: Sequence[str] = FORMATS) -> list[Path]:
    """Write ``stem.png``, ``.svg`` and ``.pdf`` into ``folder``; the same figure gives the same bytes."""
    paths = []
    for kind, content in files_of(figure, kinds, dpi=_DPI).items():
        paths.append(folder / f"{stem}.{kind}")
        write_atomic(paths[-1], content)
    return paths
