"""Stage 1: the autoencoder, without any quantizer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qincodec import architectures
from qincodec.autoencoder import AutoencoderConfig
from qincodec.codec import Qincodec, load
from qincodec.core.errors import UserError
from qincodec.training.adversarial import AdversarialStep, Generator
from qincodec.training.checkpoints import Checkpoints
from qincodec.training.discriminators import Discriminators
from qincodec.training.loop import Stage, train
from qincodec.training.run import TrainingRun
from qincodec.training.validation import Validation
from qincodec.transform_path import TransformAutoencoder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Number of crops to fit a transform path to before the first step.
_TRANSFORM_CROPS = 1000


def train_autoencoder(run: TrainingRun, fabric: Fabric) -> dict[str, Any]:
    """Train or continue; writes ``autoencoder/model``, the best by MS-Mel on the held-out excerpts.

    Returns:
        Its summary, see `qincodec.training.loop.train`.

    Raises:
        UserError: as `train`; ``stage1.init`` is not a model, or has another shape.
    """
    config = run.config
    torch.manual_seed(config.seed)
    autoencoder = architectures.autoencoder(config.shape)
    if config.stage1.init is None and isinstance(autoencoder, TransformAutoencoder):
        crops = run.crops()
        with ThreadPoolExecutor(max(1, config.data.workers)) as readers:
            first = readers.map(lambda index: crops[index][None].to(fabric.device), range(_TRANSFORM_CROPS))
            autoencoder.to(fabric.device).fit_transform(first)
    elif config.stage1.init is not None:
        init = config.stage1.init
        sources = [init] if isinstance(init, str) else init
        states = [_weights(source, config.shape) for source in sources]
        mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
        autoencoder.load_state_dict(mean)
    adversarial = config.losses.adversarial > 0 or config.losses.feature_matching > 0
    needed = adversarial and config.discriminators.start_step < config.stage1.steps
    step = AdversarialStep(
        fabric,
        Generator(autoencoder),
        Discriminators(config.discriminators.width) if needed else None,
        config.losses,
        config.optimizer,
        lambda t: config.optimizer.rate(t, config.stage1.steps),
        config.discriminators.start_step,
    )
    stage = Stage(
        title="autoencoder",
        folder=run.stage_folder("autoencoder"),
        steps=config.stage1.steps,
        step=step,
        validation=Validation(run.validation_clips()) if fabric.is_global_zero else None,
        noise=config.stage1.latent_noise,
        ema=config.stage1.ema,
        depends_on={"stage1": config.stage1.model_dump(mode="json"), "data_hash": run.train.hash},
    )
    summary = train(fabric, config, run.crops(), stage)
    if fabric.is_global_zero:
        Qincodec(stage.averaged.cpu()).save(stage.folder / "model")
    return summary


def _weights(source: str, shape: AutoencoderConfig) -> dict[str, torch.Tensor]:
    """Weights of a model, or of a checkpoint of stage 1."""
    path = Path(source)
    if path.suffix == ".pt" and path.is_file():
        state = Checkpoints(path.parent, 1).load(path)
        weights = state.get("averaged") or {
            name.removeprefix("autoencoder."): tensor
            for name, tensor in state.get("generator", {}).items()
            if name.startswith("autoencoder.")
        }
        return architectures.autoencoder(shape, weights).state_dict()
    found = load(source).autoencoder
    if found.config != shape:
        raise UserError(f"stage1.init: '{source}' is an autoencoder of another shape ({found.config})")
    return found.state_dict()
