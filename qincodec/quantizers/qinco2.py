"""QINCO2 and its training: codes from a search without gradients, networks by AdamW on the squared error.

The quantizer without its training is `qincodec.quantizers.qinco2_network`.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from qincodec.core.errors import UserError, check_whole, shown
from qincodec.cuda_graphs import Replayed, adamw, load_state, set_rate
from qincodec.quantizers.base import FitProgress, Fitting, ProgressCallback
from qincodec.quantizers.beam import Search
from qincodec.quantizers.fit_state import FitState
from qincodec.quantizers.latents import Latents, LatentsLike
from qincodec.quantizers.qinco2_network import SIZES, QINCO2Model
from qincodec.quantizers.rvq import MAX_FRAMES, RVQ

__all__ = ["QINCO2", "SIZES", "Training"]

#: Greatest increase of the squared error by a shortlist, and the number of held-out frames to measure it on.
_SHORTLIST_COST = 0.01
_WIDEN_FRAMES = 128


@dataclass(frozen=True)
class Training:
    """Settings of QINCO2's training; the defaults are the paper's.

    Attributes:
        epochs: each ends with a validation and new places for unused codewords.
        epoch_frames: most frames of an epoch; drawn again for every epoch.
        batch_size: frames of a step.
        lr: highest learning rate: linear from 0 over ``ramp_epochs``, then along a quarter of a cosine to 0.
        weight_decay: of networks and codebooks.
        clip: gradients are clipped to this absolute value.
        noise: see `QINCO2Model.start_from`.
        rvq_frames: frames to fit the initial RVQ on, held in memory.
        validation_frames: most frames of the validation.
        search: search for the codes of a step; None: the quantizer's own ``search``.
        save_every_s: seconds between two saved states.
    """

    epochs: int = 60
    epoch_frames: int = 10_000_000
    batch_size: int = 1024
    lr: float = 8e-4
    weight_decay: float = 0.1
    clip: float = 0.1
    ramp_epochs: float = 3
    noise: float = 0.1
    rvq_frames: int = MAX_FRAMES
    validation_frames: int = 100_000
    search: Search | None = None
    save_every_s: float = 300

    def __post_init__(self) -> None:
        for name in ("epochs", "epoch_frames", "batch_size", "rvq_frames", "validation_frames"):
            check_whole(f"training: {name}", getattr(self, name), 1, 2**40)
        for name in ("lr", "weight_decay", "clip", "ramp_epochs", "noise", "save_every_s"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise UserError(f"training: {name} must be a number, 0 or more, got {shown(value)}")

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step, counted from 0 over the whole training."""
        ramp, end = self.ramp_epochs * steps_per_epoch, self.epochs * steps_per_epoch
        if step < ramp:
            return self.lr * (step + 1) / ramp
        return self.lr * math.cos(math.pi / 2 * (step - ramp) / max(1, end - ramp))


def loss_of(model: QINCO2Model, z: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Training loss of (n, dim) standardised latents with (n, N) codes, and the error of the last stage.

    Sum over stages of mean (z - x_hat_m)^2, plus sum over m > 1 of mean (z - x_hat_m-1 - c~_m)^2 for the
    codebook of the pre-selection, which gets no other gradient.
    """
    partials = model.reconstruct(codes)
    errors = torch.stack([(z - x_hat).square().mean() for x_hat in partials])
    loss = errors.sum()
    for n, x_hat in enumerate(partials[:-1]):
        plain = model.preselection[n][codes[:, n + 1]]
        loss = loss + (z - x_hat.detach() - plain).square().mean()
    return loss, errors[-1].detach()


@torch.no_grad()
def widen(model: QINCO2Model, held: torch.Tensor) -> None:
    """Double the shortlist of the model's search until its error is within 1 % of that without a shortlist.

    For structured latents a small shortlist has nearly all important candidates; for others the pre-selection
    distinguishes candidates less well.

    Args:
        held: (n, dim) latents that were not trained on.
    """
    if model.search.shortlist is None:
        return
    z = (held - model.mean) / model.scale

    def mse(how: Search) -> float:
        found = model.find(z, model.num_codebooks, how)
        return float((found.partials[:, -1] - z).square().mean())

    most = model.search.candidates * model.search.beam
    aim = (1 + _SHORTLIST_COST) * mse(replace(model.search, shortlist=most))
    while model.search.shortlist < most and mse(model.search) > aim:
        model.search = replace(model.search, shortlist=min(most, 2 * model.search.shortlist))


class QINCO2(QINCO2Model):
    """Residual quantizer whose codebooks depend on the reconstruction so far, see `QINCO2Model`.

    `fit` fits an RVQ and then trains the networks, on the quantizer's device. Latents are read in shuffled
    blocks and may be far larger than memory. An interrupted fit continues with the last saved step, and ends
    in the same quantizer, bit for bit on the CPU; its state takes four times the size of the model.
    ``progress`` is called after every step. At the end the shortlist of ``search`` is enlarged if its error
    is more than 1 % above the full search's. Its options:

    - ``validation``: latents that decide which epoch's quantizer is kept; best from other recordings. None
    holds out frames of the given latents.
    - ``training``: a `Training`; None: the paper's recipe.
    """

    kind = "qinco2"

    def _fit(
        self,
        latents: Latents,
        how: Fitting,
        validation: LatentsLike | None = None,
        training: Training | None = None,
    ) -> None:
        training, data, seed = training or Training(), latents, how.seed
        data.check(self.dim, max(self.codebook_size, training.batch_size))
        if validation is None:
            data, held = data.hold_out(min(training.validation_frames, len(data) // 10), seed)
        else:
            held = Latents(validation)
        held.check(self.dim, 1)
        steps = data.steps(training.batch_size, training.epoch_frames)
        if steps == 0:
            raise UserError(
                f"an epoch has no whole batch: batch_size is {training.batch_size}, epoch_frames "
                f"{training.epoch_frames}, and the number of latents {len(data)}; give a smaller batch_size,"
                " more epoch_frames or more latents"
            )
        options = {**asdict(training), "save_every_s": None, "validation": held.signature(), "seed": seed}
        state = FitState(how.state_dir, self, data, **options)
        trainer = _Trainer(self, training, held.sample(training.validation_frames, seed), seed, steps)
        done = state.load()
        if done:
            trainer.restore(done)
        else:
            _start(self, data, training, how)
        trainer.run(data, state, how.tell)
        widen(self, trainer.held[:_WIDEN_FRAMES])
        state.finish()


def _start(model: QINCO2Model, data: Latents, training: Training, how: Fitting) -> None:
    """Start from the RVQ of standardised latents, with networks from the seed."""
    rows = data.sample(training.rvq_frames, how.seed)
    mean = rows.mean(0, dtype="float64").astype("float32")
    rows -= mean
    scale = float(rows.std(dtype="float64"))
    if scale == 0:
        raise UserError("all latents are equal, so they cannot be quantized")
    rows /= scale
    rvq = RVQ(model.dim, model.num_codebooks, model.codebook_size).to(model.codebooks.device)

    def tell(at: FitProgress) -> None:
        mse = None if at.mse is None else at.mse * scale**2
        how.tell(FitProgress(f"RVQ, {at.phase}", at.done, at.total, mse))

    folder = None if how.state_dir is None else Path(how.state_dir) / "rvq"
    rvq.fit(rows, seed=how.seed, state_dir=folder, progress=tell, max_frames=len(rows), k_means="lloyd")
    with torch.random.fork_rng():  # the seed draws the layers that are not zero at first
        torch.manual_seed(how.seed)
        for layer in model.networks.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.reset_parameters()
    model.start_from(rvq, torch.from_numpy(mean), torch.tensor(scale), noise=training.noise, seed=how.seed)


class _Trainer:
    """The training loop, with everything that an interruption must not lose."""

    def __init__(self, model: QINCO2Model, training: Training, held: Any, seed: int, steps: int) -> None:
        self.model, self.training, self.seed, self.steps = model, training, seed, steps
        self.device = model.codebooks.device
        self.search = training.search or model.search
        self.held = torch.from_numpy(held).to(self.device)
        self.optimizer = adamw(
            model.parameters(), training.lr, self.device, weight_decay=training.weight_decay
        )
        self._update = Replayed(self._update_by, self.device)
        self.epoch = self.step = 0
        self.used = torch.zeros(model.num_codebooks, model.codebook_size, device=self.device)
        self.best: dict[str, torch.Tensor] = {}
        self.best_mse = math.inf

    def state(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("epoch", "step", "used", "best", "best_mse")}
        return {**own, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.epoch, self.step, self.best_mse = state["epoch"], state["step"], state["best_mse"]
        self.used.copy_(state["used"])
        self.best = state["best"]
        self.model.load_state_dict(state["model"])
        load_state(self.optimizer, state["optimizer"])

    def run(self, data: Latents, state: FitState, tell: ProgressCallback) -> None:
        training, saved = self.training, time.monotonic()
        scale = float(self.model.scale)
        while self.epoch < training.epochs:
            batches = data.batches(
                training.batch_size, training.epoch_frames, seed=self.seed, epoch=self.epoch, start=self.step
            )
            z = mse = None
            for batch in batches:
                z = (batch.to(self.device) - self.model.mean) / self.model.scale
                mse = float(self.update(z)) * scale**2
                self.step += 1
                if self.step < self.steps and time.monotonic() - saved >= training.save_every_s:
                    state.save(self.state())
                    saved = time.monotonic()
                done = self.epoch * self.steps + self.step
                phase = f"epoch {self.epoch + 1} of {training.epochs}"
                tell(FitProgress(phase, done, training.epochs * self.steps, mse))
            assert z is not None
            self.end_epoch(z)
            state.save(self.state())
        self.model.load_state_dict(self.best)

    def update(self, z: torch.Tensor) -> torch.Tensor:
        """One step on (n, dim) standardised latents; the error of the last stage."""
        set_rate(self.optimizer, self.training.rate(self.epoch * self.steps + self.step, self.steps))
        error: torch.Tensor = self._update(None, z)
        self.model.forget_tables()
        return error

    def _update_by(self, _: None, z: torch.Tensor) -> torch.Tensor:
        model = self.model
        model.forget_tables()
        codes = model.find(z, model.num_codebooks, self.search).codes
        for used, column in zip(self.used, codes.T, strict=True):
            used.index_add_(0, column, torch.ones_like(column, dtype=used.dtype))
        loss, error = loss_of(model, z, codes)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), self.training.clip)
        self.optimizer.step()
        return error

    @torch.no_grad()
    def end_epoch(self, z: torch.Tensor) -> None:
        """Validate, keep the best, and move unused codewords to residuals of the last batch."""
        model = self.model
        found = model.find((self.held - model.mean) / model.scale, model.num_codebooks, self.search)
        mse = float((model.decode(found.codes) - self.held).square().mean())
        if mse < self.best_mse or not self.best:
            self.best_mse = mse
            self.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        partials = model.find(z, model.num_codebooks, self.search).partials
        for n in range(model.num_codebooks):
            unused = (self.used[n] == 0).nonzero()[:, 0]
            rows = torch.randint(len(z), (len(unused),), generator=random).to(self.device)
            residual = z[rows] - (partials[rows, n - 1] if n else 0)
            for table in [model.codebooks[n], *([model.preselection[n - 1]] if n else [])]:
                table[unused] = residual
        self.used.zero_()
        self.epoch, self.step = self.epoch + 1, 0
