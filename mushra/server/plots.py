"""The analysis for the admin pages, in a process of its own: drawing would hold up the listeners.

`main` runs in a process with the folder as its argument and the data base in MUSHRA_DATABASE: an address may
hold a password, which the command line would show to everybody on the machine. What counts and how is decided
by `mushra.load`, as for `mushra analyze`: the page and the command give the same means.
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
#: A first look: the numbers of a paper are those of `mushra analyze`.
NUM_PERMUTATIONS = 1000


class Plots:
    """Draws the analysis on demand into a folder. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self, database: str, test: str | None, config: Path | None) -> None:
        """Draw again, unless that is being done. Raises `UserError` if the folder cannot be written."""
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
        """Whether it is being drawn; what was drawn: drawn_at, error, notes, conditions, figures."""
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
    """The analysis of what counts, as of ``mushra analyze CONFIG --database DATABASE --scale 0,100``.

    The listening page has sliders from 0 to 100, so nobody need be asked for the scale.

    Args:
        config: YAML of the test, beside which its key is; None if none is served.

    Raises:
        UserError: nothing to analyse.
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
            f"scale: all scores lie within {low:g} to {high:g} and count as points of 0 to 100; if they were "
            f"imported from a test with that scale, `mushra analyze --scale {low:g},{high:g}` takes it"
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
    """The main table of each method that is no MUSHRA."""
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
    except Exception:  # raised again: what waits for this process reads the file, its log has the traceback
        done = {"error": "The analysis failed; run `mushra analyze` to see why."}
        raise
    finally:
        write_atomic(folder / _DONE, json.dumps({**done, "drawn_at": time.time()}))
