"""Stage 3: the decoder, on quantized latents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from qincodec.codec import Qincodec
from qincodec.core.errors import UserError
from qincodec.quantizers.base import Quantizer
from qincodec.quantizers.beam import Search
from qincodec.quantizers.qinco2 import QINCO2
from qincodec.training.adversarial import AdversarialStep, Generator, draw_codebooks
from qincodec.training.checkpoints import Checkpoints
from qincodec.training.config import TrainingConfig
from qincodec.training.discriminators import Discriminators
from qincodec.training.loop import Stage, train
from qincodec.training.run import TrainingRun, write_json
from qincodec.training.validation import Validation

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def finetune(run: TrainingRun, fabric: Fabric) -> dict[str, Any]:
    """Train the decoder or continue; writes ``finetuned-KIND/model``.

    Encoder and quantizer are frozen. The discriminators continue from stage 1 if it had any.

    Returns:
        Its summary, see `qincodec.training.loop.train`.
    """
    config = run.config
    kind, settings = config.stage2.kind, config.stage3
    codec = run.model("quantizer", kind)
    assert codec.quantizer is not None
    quantizer = codec.quantizer
    for part in (codec.autoencoder, quantizer):
        part.to(fabric.device)
    # The only rate of a quantizer that is not prefix-decodable.
    codebooks = settings.codebooks if quantizer.prefix_decodable else [quantizer.num_codebooks]
    validation = None
    if fabric.is_global_zero:
        # Its latents are computed again, by the model's search for encoding.
        validation = Validation(run.validation_clips(), quantizer, codebooks)
        before = validation(codec.autoencoder)
    torch.manual_seed(config.seed)
    losses = config.losses
    discriminators = None
    if settings.adversarial and (losses.adversarial or losses.feature_matching):
        discriminators = Discriminators(config.discriminators.width)
        _go_on_from_stage_1(run, discriminators)
    else:
        losses = losses.model_copy(update={"adversarial": 0.0, "feature_matching": 0.0})
    with _searching(quantizer, settings.search):
        step = AdversarialStep(
            fabric,
            Generator(codec.autoencoder, quantizer),
            discriminators,
            losses,
            config.optimizer,
            lambda t: _rate(config, t),
        )
        stage = Stage(
            title=f"fine-tuning on {kind}",
            folder=run.stage_folder("finetuned", kind),
            steps=settings.steps,
            step=step,
            validation=validation,
            codebooks=lambda t: draw_codebooks(codebooks, config.seed, t),
            ema=settings.ema,
            first_crop=config.stage1.steps * config.data.batch_size,
            depends_on={
                "stage1": config.stage1.model_dump(mode="json"),
                "stage3": settings.model_dump(mode="json"),
                "model": codec.hash,
                "data_hash": run.train.hash,
            },
        )
        summary = train(fabric, config, run.crops(), stage)
    if fabric.is_global_zero:
        summary["before"] = before
        write_json(stage.folder / "summary.json", summary)
        tuned = Qincodec(stage.averaged.cpu(), quantizer.cpu(), tables=codec.tables, finetuned=True)
        tuned.save(stage.folder / "model")
    return summary


def _rate(config: TrainingConfig, step: int) -> float:
    """Stage 1's last rate and its decay, or the given rate with the same total decay as in stage 1."""
    settings, optimizer = config.stage3, config.optimizer
    if settings.lr is None:
        total = config.stage1.steps
        return optimizer.rate(total + step, total, warm=False)
    return settings.lr * math.exp(-optimizer.decay * step / settings.steps)


def _go_on_from_stage_1(run: TrainingRun, discriminators: Discriminators) -> None:
    checkpoints = Checkpoints(run.stage_folder("autoencoder") / "checkpoints", run.config.run.keep)
    if checkpoints.best_path.exists():
        state = checkpoints.load(checkpoints.best_path).get("discriminators")
        if state is not None:
            try:
                discriminators.load_state_dict(state)
            except RuntimeError as error:
                raise UserError(
                    "stage 1 had discriminators of another shape: give discriminators.width as it was then"
                ) from error


@contextmanager
def _searching(quantizer: Quantizer, search: dict[str, Any] | None) -> Iterator[None]:
    """QINCO2 with another search during training."""
    if search is None or not isinstance(quantizer, QINCO2):
        yield
        return
    usual = quantizer.search
    quantizer.search = Search.from_dict(search)
    try:
        yield
    finally:
        quantizer.search = usual
