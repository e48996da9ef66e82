"""Checkpoints of a stage: written whole or not at all, the last few and the best kept.

``checkpoints/step-000005000.pt`` has everything that the next step depends on, as tensors and plain values:
nothing in it is unpickled. ``checkpoints/best.pt`` is a copy of the one with the best validation.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from qincodec.core.errors import UserError
from qincodec.core.files import whole_file

_NAME = re.compile(r"step-(\d{9})\.pt")


class Checkpoints:
    """The checkpoints in ``folder``, which is made if necessary; the ``keep`` last ones stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep
        self.best_path = folder / "best.pt"

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def save(self, step: int, state: dict[str, Any], *, best: bool) -> None:
        """Write the state after ``step`` steps; then delete old ones.

        Raises:
            UserError: the disk is full or cannot be written to. Older states are kept.
        """
        path = self.path(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path, large=True) as part, part.open("wb") as file:
                torch.save({"step": step, **state}, file)
            if best:
                with whole_file(self.best_path, large=True) as copy:
                    copy.unlink()
                    try:
                        os.link(path, copy)
                    except OSError:  # file systems without links
                        shutil.copyfile(path, copy)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            raise UserError(self._failure(step, error)) from error
        for old in self.steps()[: -self._keep]:
            self.path(old).unlink(missing_ok=True)

    def _failure(self, step: int, error: Exception) -> str:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        full = full or (isinstance(error, RuntimeError) and shutil.disk_usage(self.folder).free < 1 << 28)
        reason = "the disk is full" if full else " ".join(str(error).split())[:200]
        last = self.steps()[-1:]
        kept = f"the last good state, of step {last[0]}, is kept" if last else "an earlier one does not exist"
        return (
            f"the state after step {step} cannot be written to '{self.folder}': {reason}; {kept}. Make room"
            " and run the same command to continue from there"
        )

    def load_last(self) -> dict[str, Any] | None:
        """The last saved state, None if it does not exist."""
        steps = self.steps()
        return self.load(self.path(steps[-1])) if steps else None

    def load(self, path: Path) -> dict[str, Any]:
        """Raises UserError if the file is damaged or not a checkpoint."""
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"checkpoint '{path}' cannot be read: {reason}; delete it to continue from an older one"
            ) from error
        if not isinstance(state, dict) or type(state.get("step")) is not int:
            raise UserError(f"'{path}' is not a checkpoint of a training: it has no step; give another file")
        return state
