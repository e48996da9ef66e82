"""The analysis for the admin pages, in a process of its own: drawing would hold up the listeners.

`main` runs in a process with the folder as its argument and the data base in MUSHRA_DATABASE: an address may
hold a password, which the command line would show to everybody on the machine.
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
from typing import Any

from qincodec.errors import UserError

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

    def start(self, database: str, test: str | None, key: Path | None) -> None:
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
            environment |= {"MUSHRA_TEST": test or "", "MUSHRA_KEY": str(key) if key else ""}
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


def draw(database: str, test: str | None, key: Path | None, folder: Path) -> dict[str, Any]:
    """Analyse what counts and draw it; what `Plots.state` gives. Raises `UserError`: nothing to analyse."""
    from mushra.analysis.pipeline import analyze
    from mushra.analysis.plots import draw_all
    from mushra.analysis.ratings import with_roles
    from mushra.analysis.wording import condition_rows
    from mushra.server.store import read_ratings

    frame = read_ratings(database, key=key, test=test)
    frame = frame[frame["score"].notna()]
    if frame.empty:
        raise UserError("nobody has finished a session that counts yet")
    if frame["test"].nunique() > 1:
        raise UserError("the data base holds several tests; analyse one with `mushra analyze --test`")
    frame = frame.drop_duplicates(["listener", "item", "condition"], keep="last").reset_index(drop=True)
    analysis = analyze(with_roles(frame), num_permutations=NUM_PERMUTATIONS, num_resamples=NUM_PERMUTATIONS)
    draw_all(analysis.ratings, analysis.conditions, folder, letters=analysis.letters)
    excluded = analysis.screening.listeners
    excluded = excluded[excluded["excluded"]]
    return {
        "conditions": condition_rows(analysis),
        "notes": list(analysis.notes),
        "screened_out": [f"{row.listener}: {row.reason}" for row in excluded.itertuples()],
        "figures": [name for name in FIGURES if (folder / f"{name}.png").is_file()],
    }


def main() -> None:
    folder = Path(sys.argv[1])
    database, test, key = (os.environ.get(f"MUSHRA_{name}", "") for name in ("DATABASE", "TEST", "KEY"))
    try:
        done = {"error": None, **draw(database, test or None, Path(key) if key else None, folder)}
    except UserError as error:
        done = {"error": str(error)}
    except Exception:  # raised again: what waits for this process reads the file, its log has the traceback
        done = {"error": "The analysis failed; run `mushra analyze` to see why."}
        raise
    finally:
        temporary = folder / "done.tmp"
        temporary.write_text(json.dumps({**done, "drawn_at": time.time()}), encoding="utf-8")
        temporary.replace(folder / _DONE)
