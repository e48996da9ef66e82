"""Fig. 2: the means of a listening test."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from evaluation.paper.tables import PaperFigure, Point, Series
from qincodec.core.errors import UserError
from qincodec.core.folders import kind_of

OWN_TEST = "the given listening test, not the paper's: other listeners, clips and codecs"
_COLUMNS = ("condition", "n_listeners", "n_ratings", "mean", "ci_low", "ci_high")


def read_listening(folder: Path) -> list[Point]:
    """Means of a listening test in its order of conditions. Raises UserError if ``folder`` has none."""
    path = folder / "conditions.csv"
    if not path.is_file() and (kind := kind_of(folder)):
        raise UserError(
            f"{folder} has no {path.name}: it is {kind}; give the folder that `mushra analyze` wrote of a "
            "MUSHRA test"
        )
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"'{path}' cannot be read: {error}; give the folder that `mushra analyze` wrote"
        ) from error
    lacking = [name for name in _COLUMNS if not rows or name not in rows[0]]
    if lacking:
        raise UserError(f"'{path}' has no column {lacking[0]}; give the folder that `mushra analyze` wrote")
    points = []
    for row in rows:
        try:
            bounds = [float(row[name] or "nan") for name in ("ci_low", "ci_high")]
            low, high = (bound if math.isfinite(bound) else None for bound in bounds)
            point = Point(row["condition"], float(row["mean"]), low, high, int(row["n_listeners"]))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"'{path}', condition '{row['condition']}': {error}; run `mushra analyze` again"
            ) from error
        if not 0 <= point.value <= 100:
            raise UserError(
                f"'{path}': the mean of '{point.x}' is {point.value}; it must be from 0 to 100; run `mushra "
                "analyze` again"
            )
        points.append(point)
    return points


def listening_figure(points: list[Point] | None) -> PaperFigure:
    title = "MUSHRA scores"
    notes = [
        OWN_TEST,
        "Means over listeners with 95% intervals, as `mushra analyze` computed them; n: listeners; an arrow: "
        "the interval goes on beyond the scale",
    ]
    if points is None:
        reason = "no listening test; give --listening DIR, the folder that `mushra analyze` wrote"
        return PaperFigure("fig2", title, [], [("all conditions", reason)], notes)
    return PaperFigure("fig2", title, [Series("MUSHRA score", "listening test", points)], [], notes)
