"""The configuration of a training: all numbers of the recipe, checked before anything starts.

A configuration is a YAML file. Those of the paper's sizes are shipped with the program (`shipped`). Default
values are the paper's, or ours if the paper has none, as documented for each attribute.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qincodec import architectures
from qincodec.autoencoder import AutoencoderConfig
from qincodec.core.errors import UserError, did_you_mean, shown
from qincodec.quantizers.base import MAX_CODEBOOK_SIZE, MAX_CODEBOOKS
from qincodec.quantizers.beam import Search
from qincodec.quantizers.qinco2 import Training

CONFIGS = Path(__file__).parent / "configs"
#: Greatest number of steps of a stage: names of checkpoints have nine digits.
MAX_STEPS = 999_999_999
#: Characters of a key in a message.
_LONGEST_NAME = 200


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Part):
    """Attributes:
    crop_s: seconds of a training crop.
    batch_size: crops of one step, over all devices and accumulations. micro_batch: crops per pass of a
    device; None: its whole share of the batch. workers: processes per device that read crops. held_out: share
    of the recordings that is not trained on; checkpoints are chosen on it. speeds: ours, only 1 in the
    paper's configuration: recordings are played at these speeds, as a tape. A crop draws one; stage 2 takes
    the latents of every recording at each. This gives a small data set more variety. equalizer_db: ours, 0 in
    the paper's configuration: crops pass an equalizer with random gains of at most
        this, see `qincodec.training.data.CropDataset`; for sounds with other spectra than those trained on.
    """

    crop_s: float = Field(default=1.0, gt=0, le=60)
    batch_size: int = Field(default=240, ge=1, le=1_000_000)
    micro_batch: int | None = Field(default=None, ge=1, le=1_000_000)
    workers: int = Field(default=4, ge=0, le=512)
    held_out: float = Field(default=0.02, gt=0, lt=1)
    speeds: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field(default=(1.0,), min_length=1)
    equalizer_db: float = Field(default=0.0, ge=0, le=40)


class LossConfig(_Part):
    """Weights in the generator's objective.

    Attributes:
        mel: of `qincodec.distances.ms_mel`.
        adversarial, feature_matching: see `qincodec.training.losses`.
        waveform: ours, of `losses.waveform_loss`; 0 in the paper's configuration. It compares the decoded
            audio in the band whose waveform is coded, so it does not silence the noise of a transform path
            above that band.
        level: ours, of `losses.level_loss`; 0 in the paper's configuration.
    """

    mel: float = Field(default=15.0, ge=0)
    adversarial: float = Field(default=1.0, ge=0)
    feature_matching: float = Field(default=2.0, ge=0)
    waveform: float = Field(default=0.0, ge=0)
    level: float = Field(default=0.0, ge=0)


class OptimizerConfig(_Part):
    """AdamW of generator and discriminators.

    ``lr(t) = (1 - warmup^(t + 1)) * lr * exp(-decay * t / steps)``: the exponential warm-up and decay of the
    paper, whose constants (``warmup``, ``decay``) are ours.

    Attributes:
        clip_generator, clip_discriminator: largest norm of the gradients.
    """

    lr: float = Field(default=2e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.9)
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup: float = Field(default=0.999, ge=0, lt=1)
    decay: float = Field(default=4.0, ge=0)
    clip_generator: float = Field(default=1000.0, gt=0)
    clip_discriminator: float = Field(default=10.0, gt=0)

    def rate(self, step: int, steps: int, *, warm: bool = True) -> float:
        """Learning rate of ``step``, counted from 0, of a stage planned to last ``steps``."""
        start = 1 - self.warmup ** (step + 1) if warm else 1.0
        return start * self.lr * math.exp(-self.decay * step / steps)


class DiscriminatorConfig(_Part):
    """Attributes:
    width: of every layer, as a share of the published one. start_step: steps of stage 1 with spectral losses
    only; ours, 0 in the paper's configuration.
    """

    width: float = Field(default=1.0, gt=0, le=4)
    start_step: int = Field(default=0, ge=0)


class AutoencoderStage(_Part):
    """Stage 1.

    Attributes:
        steps: of the paper.
        latent_noise: ours, 0 in the paper's configuration. Noise is added to the crops' latents. Its standard
            deviation is drawn between half of this and this many times the latents' own (the geometric mean
            over the dimensions). So the decoder learns to tolerate a quantizer's error, and the encoder to
            spend its latents' variance on audible parts.
        ema: decay of the moving average of the weights, which is validated and saved in their place; 0 for
            none, as in the paper.
        init: initial weights: a model (a folder, or the name of a shipped one), or a checkpoint of another
            run's stage 1. Several are averaged; they must be trainings from the same weights, whose mean is
            often better than each (Wortsman et al., "Model soups", ICML 2022). None draws the weights.
    """

    steps: int = Field(default=1_000_000, ge=1, le=MAX_STEPS)
    latent_noise: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    init: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None


class QuantizerStage(_Part):
    """Stage 2.

    Attributes:
        kind: name in `qincodec.quantizers.QUANTIZERS`.
        num_codebooks: N; 14 are 24 kbps at 44.1 kHz.
        codebook_size: K.
        max_frames: most latents to fit on; the paper takes 60 million for QINCO2.
        options: further arguments of the quantizer (``num_blocks: 2`` of qinco2).
        training: of qinco2, fields of `qincodec.quantizers.qinco2.Training`.
        k_means: of rvq and irvq: mini-batches as in the paper, or Lloyd's algorithm on all latents, which
            takes no longer on a GPU. QINCO2 begins with an RVQ by Lloyd's.
    """

    kind: str = "qinco2"
    num_codebooks: int = Field(default=14, ge=1, le=MAX_CODEBOOKS)
    codebook_size: int = Field(default=1024, ge=2, le=MAX_CODEBOOK_SIZE)
    max_frames: int = Field(default=60_000_000, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    k_means: Literal["minibatch", "lloyd"] = "minibatch"


class FinetuneStage(_Part):
    """Stage 3.

    Attributes:
        steps: ours; the paper says "a few extra epochs".
        codebooks: numbers of codebooks: one for a decoder of one rate, as in the paper, or (ours) several, of
            which each step draws one, so that one decoder serves every rate. The paper does not give the
            number; 9 are the 16 kbps of its Table I, where it shows the gain of fine-tuning.
        lr: initial learning rate; None continues from the end of stage 1, as in the paper.
        ema: as in stage 1, of the decoder: its batches differ in rate, and an average suits all.
        search: of qinco2 in training, fields of `qincodec.quantizers.beam.Search`; None: as in encoding.
        adversarial: False trains without discriminators, on machines without a GPU.
    """

    steps: int = Field(default=200_000, ge=1, le=MAX_STEPS)
    codebooks: tuple[int, ...] = (9,)
    lr: float | None = Field(default=None, gt=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    search: dict[str, Any] | None = None
    adversarial: bool = True


class RunConfig(_Part):
    """Attributes:
    precision: of the networks: float32, or bfloat16 with float32 weights.
    log_every, validate_every, save_every: steps.
    samples_every: steps between written audio and spectrograms; a multiple of ``validate_every``.
    validation_clips, validation_s: excerpts of the held-out recordings.
    keep: number of last checkpoints that are kept, besides the best.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    log_every: int = Field(default=100, ge=1)
    validate_every: int = Field(default=5_000, ge=1)
    samples_every: int = Field(default=25_000, ge=1)
    save_every: int = Field(default=5_000, ge=1)
    validation_clips: int = Field(default=64, ge=1, le=100_000)
    validation_s: float = Field(default=5.0, gt=0, le=3600)
    keep: int = Field(default=2, ge=1)


class TrainingConfig(_Part):
    """Configuration of a training. ``autoencoder`` is the name of a size or a stored configuration, see
    `qincodec.architectures`."""

    autoencoder: str | dict[str, int | float | bool] = "paper-d32"
    seed: int = 0
    data: DataConfig = DataConfig()
    losses: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    discriminators: DiscriminatorConfig = DiscriminatorConfig()
    stage1: AutoencoderStage = AutoencoderStage()
    stage2: QuantizerStage = QuantizerStage()
    stage3: FinetuneStage = FinetuneStage()
    run: RunConfig = RunConfig()

    @property
    def shape(self) -> AutoencoderConfig:
        """Raises UserError for an unknown size or fields that do not fit."""
        if isinstance(self.autoencoder, dict):
            return architectures.from_dict(self.autoencoder)
        return architectures.of_size(self.autoencoder)

    @property
    def crop_samples(self) -> int:
        """Whole frames, so that no part of a crop is padding."""
        hop = self.shape.hop_length
        return max(1, round(self.data.crop_s * self.shape.sample_rate / hop)) * hop


def shipped() -> list[str]:
    """Names of the shipped configurations."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def load_config(source: str | Path, changes: dict[str, str] | None = None) -> TrainingConfig:
    """Read a configuration.

    Args:
        source: a YAML file, or the name of a shipped configuration with or without ``.yaml``.
        changes: dotted name -> YAML value, as ``--set stage1.steps=2000`` gives them.

    Raises:
        UserError: the file or name does not exist, it is not YAML, a key is unknown, or a value is not
            allowed.
    """
    path = Path(source)
    name = str(source).removesuffix(".yaml")
    if not path.is_file():
        if name not in shipped():
            raise UserError(f"no configuration '{source}': give a YAML file or one of {', '.join(shipped())}")
        path = CONFIGS / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    # ValueError: text of another encoding, or an invalid date or number.
    except (OSError, ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"configuration '{path}' cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"configuration '{path}' must be a mapping of names to values")
    for key, text in (changes or {}).items():
        change(values, key, text)
    return parse_config(values, str(path))


def parse_config(values: dict[str, Any], where: str) -> TrainingConfig:
    """A configuration from plain values; ``where`` is their place, for the message of the UserError."""
    try:
        config = TrainingConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if len(name) > _LONGEST_NAME:
            name = f"{name[:_LONGEST_NAME]}..."
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] == "extra_forbidden":
            raise UserError(f"{where}: unknown key '{name}'{_suggestion(first['loc'])}{more}") from error
        given = f", got {shown(first['input'])}" if first["type"] != "missing" else ""
        raise UserError(f"{where}: {name}: {first['msg']}{given}{more}") from error
    try:
        _ = config.shape
        if config.stage3.search is not None:
            Search.from_dict(config.stage3.search)
        qinco2_training(config.stage2.training)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    too_many = [n for n in config.stage3.codebooks if not 1 <= n <= config.stage2.num_codebooks]
    if too_many or not config.stage3.codebooks:
        raise UserError(
            f"{where}: stage3.codebooks must be 1 to {config.stage2.num_codebooks} (stage2.num_codebooks),"
            f" got {list(config.stage3.codebooks)}"
        )
    return config


def qinco2_training(values: dict[str, Any]) -> Training:
    """``stage2.training`` of qinco2. Raises UserError for unknown names and values out of range."""
    values = dict(values)
    try:
        if values.get("search") is not None:
            values["search"] = Search.from_dict(values["search"])
        return Training(**values)
    except TypeError as error:
        raise UserError(f"stage2.training does not fit: {error}") from error


def change(values: dict[str, Any], key: str, text: str) -> None:
    """Set the dotted ``key`` of a configuration's plain values to the YAML value ``text``."""
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {key}: '{parent}' is a value, not a group")
    try:
        values[last] = yaml.safe_load(text)
    except (ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"--set {key}={text} is not a YAML value") from error
    if isinstance(values[last], str):  # YAML reads 1e-3 as a string
        with suppress(ValueError):
            values[last] = float(values[last])


def _suggestion(location: tuple[int | str, ...]) -> str:
    part: Any = TrainingConfig
    for name in location[:-1]:
        field = part.model_fields.get(name)
        if field is None or not isinstance(field.default, _Part):
            return ""
        part = type(field.default)
    known = list(part.model_fields)
    return f": {did_you_mean(str(location[-1]), known).strip() or 'allowed are ' + ', '.join(known)}"
