"""The state from which an interrupted fit continues."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from qincodec.core.errors import UserError
from qincodec.core.files import replacing
from qincodec.quantizers.base import Quantizer
from qincodec.quantizers.latents import Latents

FILE = "fit-state.pt"


class FitState:
    """One file in a folder, replaced atomically: a kill leaves the old one or the new one, never a part.

    Args:
        folder: made if it does not exist; None keeps no state.
        quantizer: the quantizer to fit; its configuration, ``latents`` and all ``options`` identify the
            state, so that a fit never continues from another's.
    """

    def __init__(
        self, folder: Path | str | None, quantizer: Quantizer, latents: Latents, **options: Any
    ) -> None:
        self._path = None
        if folder is None:
            return
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"folder {folder} for the state of the fit cannot be made: {error}") from error
        self._path = folder / FILE
        identity = {"config": quantizer.config(), "latents": latents.signature(), "options": options}
        self._identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def load(self) -> dict[str, Any]:
        """The last argument of `save`; empty without one.

        Raises:
            UserError: the file is damaged, or belongs to another fit.
        """
        if self._path is None or not self._path.exists():
            return {}
        try:
            stored = torch.load(self._path, map_location="cpu", weights_only=True)
            identity, state = stored["identity"], stored["state"]
        except Exception as error:  # torch raises many kinds for a damaged file
            raise UserError(
                f"state of the fit {self._path} cannot be read ({error}); delete it to start again"
            ) from error
        if identity != self._identity:
            raise UserError(
                f"{self._path} is the state of a fit with other latents or settings; repeat that fit's call "
                "to continue it, or name another folder or delete the file to start again"
            )
        return dict(state)

    def save(self, state: dict[str, Any]) -> None:
        if self._path is None:
            return
        with replacing(self._path, large=True) as part, part.open("wb") as file:
            torch.save({"identity": self._identity, "state": state}, file)

    def finish(self) -> None:
        """Delete the state after the fit."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
