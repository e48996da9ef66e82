"""Logs of a training: losses and validations as CSV and for TensorBoard."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from qincodec.core.files import os_errors


class Log:
    """``losses.csv`` and ``validation.csv`` in a folder, and TensorBoard's files if that is installed.

    Rows are keyed by step; those after ``last_step`` were undone by a kill and are removed.
    """

    def __init__(self, folder: Path, last_step: int) -> None:
        self._folder = folder
        self._last_step = last_step
        self._fields: dict[str, list[str]] = {}
        for name in ("losses", "validation"):
            self._trim(folder / f"{name}.csv", name)
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=last_step + 1)

    def _trim(self, path: Path, name: str) -> None:
        if not path.exists():
            return
        self._fields[name], rows = _read(path)
        kept = [row for row in rows if (row["step"] or "").isdigit() and int(row["step"]) <= self._last_step]
        _rewrite(path, self._fields[name], kept)

    def write(self, name: str, step: int, values: dict[str, float]) -> None:
        """A row of ``name`` ("losses" or "validation"); the first row's names are the columns."""
        path = self._folder / f"{name}.csv"
        row = {"step": step, **{key: f"{value:.6g}" for key, value in values.items()}}
        with os_errors(f"cannot write '{path}'"):
            new = name not in self._fields
            fields = self._fields.setdefault(name, list(row))
            missing = [key for key in row if key not in fields]
            if missing:  # the discriminators have started
                self._fields[name] = fields = [*fields, *missing]
                _rewrite(path, fields, _read(path)[1])
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, fields)
                if new:
                    writer.writeheader()
                writer.writerow(row)
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(f"{name}/{key}", value, step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or []), list(reader)


def _rewrite(path: Path, fields: list[str], rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
