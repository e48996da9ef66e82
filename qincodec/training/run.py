"""The folder of a training: its configuration, its data, and the output of each stage.

::

    RUN/training.json               the configuration
        manifest/ cache/            of the data
        autoencoder/                stage 1: checkpoints, logs, samples, model
        autoencoder/latents-HASH/   what quantizers are fitted on
        quantizer-KIND/             stage 2: model
        finetuned-KIND/             stage 3: as stage 1
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qincodec.codec import Qincodec, load
from qincodec.core.console import Progress
from qincodec.core.errors import UserError
from qincodec.core.files import os_errors, replacing
from qincodec.training.config import TrainingConfig, parse_config
from qincodec.training.data import CropDataset, validation_clips
from qincodec.training.manifest import Manifest

_CONFIG = "training.json"


@dataclass(frozen=True)
class TrainingRun:
    """A training's folder, open.

    Attributes:
        folder: of the run.
        config: of all three stages.
        train: files to train on.
        held_out: recordings to choose checkpoints on.
    """

    folder: Path
    config: TrainingConfig
    train: Manifest
    held_out: Manifest

    @classmethod
    def create(
        cls,
        folder: Path,
        config: TrainingConfig,
        data: Path,
        exclude_audiocaps: Path | None = None,
        progress: Progress | None = None,
    ) -> TrainingRun:
        """Make the folder and list the data; an existing run continues if its configuration is the same.

        Raises:
            UserError: the folder has a run of another configuration, or the data cannot be used.
        """
        folder = folder.absolute()
        if (folder / _CONFIG).exists():
            there = _read(folder)
            if there != config:
                changed = ", ".join(_differences(there.model_dump(), config.model_dump()))
                raise UserError(
                    f"'{folder}' holds a training with another configuration (differs in {changed}):"
                    " give another folder, or the configuration it was started with to continue"
                )
        else:
            with os_errors(f"cannot make the run folder '{folder}'"):
                folder.mkdir(parents=True, exist_ok=True)
        Manifest.build(data, folder / "manifest", exclude_audiocaps=exclude_audiocaps, progress=progress)
        # Last: a folder without data to train on is not a run yet, and accepts another configuration.
        write_json(folder / _CONFIG, config.model_dump(mode="json"))
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path, config: TrainingConfig | None = None) -> TrainingRun:
        """An existing run; ``config`` replaces the one it was created with.

        Raises:
            UserError: it is not a run, or its data are gone.
        """
        folder = folder.absolute()
        config = config or _read(folder)
        train, held_out = Manifest.open(folder / "manifest").split(config.data.held_out, config.seed)
        return cls(folder, config, train, held_out)

    def crops(self) -> CropDataset:
        """Crops to train on."""
        return CropDataset(
            self.train,
            crop_samples=self.config.crop_samples,
            sample_rate=self.config.shape.sample_rate,
            seed=self.config.seed,
            speeds=self.config.data.speeds,
            equalizer_db=self.config.data.equalizer_db,
            cache=self.folder / "cache",
        )

    def validation_clips(self) -> list[Any]:
        """Fixed excerpts of the held-out recordings."""
        return validation_clips(
            self.held_out,
            count=self.config.run.validation_clips,
            duration_s=self.config.run.validation_s,
            sample_rate=self.config.shape.sample_rate,
            seed=self.config.seed,
        )

    def stage_folder(self, stage: str, kind: str | None = None) -> Path:
        """The folder of a stage, made if necessary, for all its output.

        ``stage`` is "autoencoder", "quantizer" or "finetuned"; the last two have a quantizer's kind.
        """
        folder = self._place(stage, kind)
        with os_errors(f"cannot make the folder '{folder}'"):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _place(self, stage: str, kind: str | None) -> Path:
        return self.folder / (stage if kind is None else f"{stage}-{kind}")

    def model(self, stage: str, kind: str | None = None) -> Qincodec:
        """Output of a stage. Raises UserError with the command to run first."""
        folder = self._place(stage, kind) / "model"
        if not folder.is_dir():
            command = {"autoencoder": "autoencoder", "quantizer": "quantizer", "finetuned": "finetune"}[stage]
            option = "" if kind is None else f" --kind {kind}"
            raise UserError(
                f"'{self.folder}' has no finished stage '{stage}' yet: run `qincodec train {command}` first"
                f"{option and f' with{option}'}"
            )
        return load(folder)


def write_json(path: Path, values: Any) -> None:
    """Replace ``path`` by ``values``. Raises UserError if it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def _read(folder: Path) -> TrainingConfig:
    path = folder / _CONFIG
    if not path.is_file():
        raise UserError(
            f"'{folder}' is not the folder of a training ({_CONFIG} is missing): start one with"
            " `qincodec train autoencoder DATA --config NAME --out RUN`"
        )
    try:
        return parse_config(json.loads(path.read_bytes()), str(path))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read: {error}; restore it or start a new run") from error


def _differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key in a:
        if isinstance(a[key], dict) and isinstance(b[key], dict):
            names += _differences(a[key], b[key], f"{prefix}{key}.")
        elif a[key] != b[key]:
            names.append(f"{prefix}{key}")
    return names
