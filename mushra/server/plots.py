"""The analysis for the admin pages, in its own process, because drawing would delay the listeners.

`main` runs in a process with the folder as its argument and the data base in MUSHRA_DATABASE: a URL may
contain a password, which the command line would show to everybody on the machine. `mushra.load` selects the
ratings, as for `mushra analyze`, so that the page and the command give the same means.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qincodec.core.errors import UserError
from qincodec.core.files import write_atomic

if TYPE_CHECKING:
    from mushra.analysis.pipeline import Analysis

_DONE = "done.json"
FIGURES = ("means", "box", "items", "listeners")
#: Enough for a first look; `mushra analyze` gives the numbers for a paper.
NUM_PERMUTATIONS = 1000


class Plots:
    """Draws the analysis on demand into a folder. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self, database: str, test: str | None, config: Path | None) -> None:
        """Start to draw unless it is running. Raises `UserError` if the folder cannot be written."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            try:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder.mkdir(parents=True)
            except OSError as error:
                raise UserError(f"cannot write '{self._folder}': {error.strerror or error}") from error
            environment = {**os.environ, "MUSHRA_DATABASE": database, "OMP_NUM_THREADS": "1"}
            environment |= {"MUSHRA_TEST": test or "", "MUSHRA_CONFIG": str(config) if config else ""}
            run = "from mushra.server.plots import main; main()"
            with (self._folder / "log.txt").open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", run, str(self._folder)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

    def state(self) -> tuple[bool, dict[str, Any] | None]:
        """Whether drawing is running, and the last result: drawn_at, error, notes, conditions, figures."""
        with self._lock:
            busy = self._process is not None and self._process.poll() is None
        try:
            done = json.loads((self._folder / _DONE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return busy, None
        return busy, done if isinstance(done, dict) else None

    def figure(self, name: str) -> Path | None:
        path = self._folder / f"{name}.png"
        return path.resolve() if name in FIGURES and path.is_file() else None


def look(database: str, test: str | None, config: Path | None) -> Analysis:
    """The same analysis as ``mushra analyze CONFIG --database DATABASE --scale 0,100``.

    The scale is known, because the listening page has sliders from 0 to 100.

    Args:
        config: YAML of the test, with its key beside it; None if no test is served.

    Raises:
        UserError: there is nothing to analyse.
    """
    from mushra import load
    from mushra.analysis.pipeline import analyze
    from mushra.analysis.ratings import ALL
    from mushra.analysis.tidy import SCALE

    ratings = load(
        [config or database],
        database=database,
        tests=[test] if test else [],
        systems=[ALL],
        scale=SCALE,
    )
    return analyze(ratings, num_permutations=NUM_PERMUTATIONS, num_resamples=NUM_PERMUTATIONS)


def draw(database: str, test: str | None, config: Path | None, folder: Path) -> dict[str, Any]:
    """`look` and the main tables of other methods, with MUSHRA's figures in ``folder``: `Plots.state`."""
    from mushra.analysis.methods.load import page_types

    types = page_types(config or database, database, [test] if test else [])
    done: dict[str, Any] = dict.fromkeys(("conditions", "problems", "notes", "screened_out", "figures"), ())
    if "mushra" in types:
        done = _draw_mushra(look(database, test, config), folder)
    return {**done, "others": _others(database, test, config) if types - {"mushra"} else []}


def _draw_mushra(analysis: Analysis, folder: Path) -> dict[str, Any]:
    from mushra.analysis.plots import draw_all
    from mushra.analysis.tidy import other_scale
    from mushra.analysis.wording import condition_rows

    draw_all(
        analysis.ratings,
        analysis.in_order(analysis.conditions),
        folder,
        letters=analysis.letters,
        population=analysis.primary.population,
        captions=True,
        kinds=("png",),
    )
    problems = [f"{problem.kind}: {problem.detail}" for problem in analysis.loaded.problems]
    if other := other_scale(analysis.loaded.frame["score"]):
        low, high = other
        problems.append(
            f"scale: all scores are within {low:g} to {high:g} and count as points of 0 to 100; if they were "
            f"imported from a test with that scale, use `mushra analyze --scale {low:g},{high:g}`"
        )
    excluded = analysis.screening.listeners
    excluded = excluded[excluded["excluded"]]
    return {
        "conditions": condition_rows(analysis),
        "problems": problems,
        "notes": list(analysis.notes),
        "screened_out": [f"{row.listener}: {row.reason}" for row in excluded.itertuples()],
        "figures": [name for name in FIGURES if (folder / f"{name}.png").is_file()],
    }


def _others(database: str, test: str | None, config: Path | None) -> list[dict[str, Any]]:
    """The main table of each method other than MUSHRA."""
    from mushra.analysis.methods.load import load
    from mushra.analysis.methods.pipeline import analyze

    judgements = load([config or database], database=database, tests=[test] if test else [])
    return [
        {
            "title": section.title,
            "caption": section.tables[0].caption,
            "headings": section.tables[0].headings,
            "rows": section.tables[0].cells(),
            "notes": list(section.notes),
        }
        for section in analyze(judgements).sections
    ]


def main() -> None:
    folder = Path(sys.argv[1])
    database, test, config = (os.environ.get(f"MUSHRA_{name}", "") for name in ("DATABASE", "TEST", "CONFIG"))
    try:
        done = {"error": None, **draw(database, test or None, Path(config) if config else None, folder)}
    except UserError as error:
        done = {"error": str(error)}
    except Exception:  # raised again for the log; the waiting process reads the file
        done = {"error": "The analysis failed; run `mushra analyze` to see why."}
        raise
    finally:
        write_atomic(folder / _DONE, json.dumps({**done, "drawn_at": time.time()}))
