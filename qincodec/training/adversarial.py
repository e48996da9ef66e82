"""One step of adversarial training, shared by stages 1 and 3.

The discriminators are trained first, then the generator against them. All random numbers of a step depend
only on the seed, the step and the number of a crop, so a resumed training, or one on another number of
devices, gets the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from qincodec.autoencoder import Autoencoder
from qincodec.cuda_graphs import Replayed, adamw, load_state, set_rate
from qincodec.distances import ms_mel
from qincodec.quantizers.base import Quantizer
from qincodec.training.config import LossConfig, OptimizerConfig
from qincodec.training.discriminators import Discriminators
from qincodec.training.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
    level_loss,
    waveform_loss,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Rate of the running means in `Generator.latent_power`.
_POWER_RATE = 0.01
#: Share of the mean power below which a dimension's power no longer lowers the noise.
_LEAST_POWER = 0.01


class Generator(nn.Module):
    """The autoencoder in training: with noise on its latents (stage 1), or a quantizer (stage 3).

    With a quantizer, it and the encoder are frozen and in evaluation mode.

    Attributes:
        latent_power: (latent_dim,), mean squares of the latents, running means over steps; 0 before the first
            step, which therefore has no noise.
    """

    latent_power: torch.Tensor

    def __init__(self, autoencoder: Autoencoder, quantizer: Quantizer | None = None) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.quantizer = quantizer
        self.register_buffer("latent_power", torch.zeros(autoencoder.config.latent_dim))
        if quantizer is not None:
            for part in (*autoencoder.encoder_side, quantizer):
                part.requires_grad_(False)

    def forward(
        self,
        audio: torch.Tensor,
        noise: torch.Tensor | None = None,
        num_codebooks: int | None = None,
        step: int | torch.Tensor = 0,
    ) -> Generated:
        """Encode and decode.

        Args:
            audio: (batch, samples).
            noise: (batch, frames, latent_dim), in units of `_noise_level`.
            num_codebooks: of the quantizer, if any.
            step: of the training. For the decoder, the crops begin where the last step's ended, so that it
                never sees the same noise twice in a row.
        """
        if self.quantizer is None:
            latents = self.autoencoder.encode(audio).float()
            power = latents.detach().square().mean((0, 1))
            if noise is not None:
                latents = latents + noise * self._noise_level(latents)
        else:
            latents = quantized(self.autoencoder, self.quantizer, audio, num_codebooks)
            power = latents.square().mean((0, 1))
        parts = self.autoencoder.decode_parts(latents, first_frame=step * latents.shape[1])
        decoded, waveform = (part[:, : audio.shape[1]].float() for part in parts)
        return Generated(decoded, waveform, power)

    def _noise_level(self, latents: torch.Tensor) -> torch.Tensor:
        """The noise's unit for every crop, (batch, 1, 1), to which a quantizer's error would be proportional.

        At a fixed rate, a quantizer's error is proportional to the geometric mean of its dimensions' powers
        (high-rate theory for Gaussian ones; see Gersho and Gray, "Vector quantization and signal
        compression", 1992). So an encoder learns to give dimensions as much power as their noise costs.
        Powers below a hundredth of their mean do not count: such a dimension gets no bits, so it cannot save
        any.

        Without a gradient of the level, the encoder's output would grow away from the noise for ever, and a
        moving average of growing weights is useless. The gradient is that of each crop's own powers, so that
        it does not depend on how a batch is split.
        """
        own = latents.square().mean(1, keepdim=True)
        powers = (self.latent_power + _LEAST_POWER * self.latent_power.mean()).clamp(min=1e-12)
        level = powers.log().mean().mul(0.5).exp() * self.latent_power.any()
        return level * (1 + ((own - own.detach()) / powers).mean(-1, keepdim=True) / 2)


@torch.no_grad()
def quantized(
    autoencoder: Autoencoder, quantizer: Quantizer, audio: torch.Tensor, num_codebooks: int | None
) -> torch.Tensor:
    """(batch, samples) -> latents (batch, frames, latent_dim) for the decoder."""
    latents = autoencoder.encode(audio).float()
    with torch.autocast(audio.device.type, enabled=False):
        # Without the checks of `Quantizer.encode`, which read values, so that a GPU would have to wait.
        codes = quantizer._encode(latents.flatten(0, 1), num_codebooks or quantizer.num_codebooks)
        return quantizer._decode(codes).unflatten(0, latents.shape[:2])


class Generated(NamedTuple):
    """Output of a `Generator` for a batch.

    Attributes:
        audio: (batch, samples), decoded.
        waveform: its part in the band whose waveform is coded, see `Autoencoder.decode_parts`.
        power: (latent_dim,), the latents' mean squares.
    """

    audio: torch.Tensor
    waveform: torch.Tensor
    power: torch.Tensor


class _Work(NamedTuple):
    """One step, see `AdversarialStep.__call__`; ``adversarial`` if the discriminators take part."""

    adversarial: bool
    num_codebooks: int | None
    step: torch.Tensor
    batches: Sequence[torch.Tensor]
    noises: Sequence[torch.Tensor | None]


class AdversarialStep:
    """Generator, discriminators and their optimizers.

    Args:
        fabric: launched.
        generator: on the CPU; moved to the device.
        discriminators: None trains with spectral losses only.
        losses: weights; a weight of 0 is not computed.
        optimizer: of both.
        rate: step -> learning rate.
        start_step: first step in which the discriminators take part.
    """

    def __init__(
        self,
        fabric: Fabric,
        generator: Generator,
        discriminators: Discriminators | None,
        losses: LossConfig,
        optimizer: OptimizerConfig,
        rate: Callable[[int], float],
        start_step: int = 0,
    ) -> None:
        self.fabric = fabric
        self.losses = losses
        self.rate = rate
        self.start_step = start_step
        self._config = optimizer
        self.generator = generator
        self.discriminators = discriminators
        self._generator, self.optimizer = self._setup(generator)
        if discriminators is not None:
            self._discriminators, self.discriminator_optimizer = self._setup(discriminators)
        quantizer = generator.quantizer
        self._train = Replayed(
            self._train_one,
            fabric.device,
            # Communication between ranks is not recorded.
            enabled=fabric.world_size == 1 and (quantizer is None or quantizer.recordable),
        )

    def _setup(self, module: nn.Module) -> tuple[Any, Any]:
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        options = {"betas": self._config.betas, "weight_decay": self._config.weight_decay}
        optimizer = adamw(trained, self.rate(0), self.fabric.device, **options)
        return self.fabric.setup(module, optimizer)

    def __call__(
        self,
        step: int,
        batches: Sequence[torch.Tensor],
        noises: Sequence[torch.Tensor | None],
        num_codebooks: int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Train on the micro-batches of one step.

        Args:
            step: counted from 0.
            batches: micro-batches (crops, samples), all of one size, on the device.
            noises: one per micro-batch, see `Generator.forward`.
            num_codebooks: see `Generator.forward`.

        Returns:
            Losses and norms of gradients of this rank, scalars on the device.
        """
        adversarial = self.discriminators is not None and step >= self.start_step
        for optimizer in (self.optimizer, *([self.discriminator_optimizer] if adversarial else [])):
            set_rate(optimizer, self.rate(step))
        at = torch.tensor(step, device=self.fabric.device)
        if len(batches) > 1:
            return self._train_parts(_Work(adversarial, num_codebooks, at, batches, noises))
        noise = [] if noises[0] is None else [noises[0]]
        log: dict[str, torch.Tensor] = self._train((adversarial, num_codebooks), at, batches[0], *noise)
        return log

    def _train_one(
        self, key: tuple[bool, int | None], step: torch.Tensor, batch: torch.Tensor, *noise: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        return self._train_parts(_Work(*key, step, [batch], noise or [None]))

    def _train_parts(self, work: _Work) -> dict[str, torch.Tensor]:
        log: dict[str, torch.Tensor] = {}
        outputs: list[Generated] | None = None
        if work.adversarial:
            # The graphs of several micro-batches would accumulate, so their outputs are computed twice.
            keep = len(work.batches) == 1
            with contextlib.nullcontext() if keep else torch.no_grad():
                outputs = [
                    self._generator(audio, noise, work.num_codebooks, work.step)
                    for audio, noise in zip(work.batches, work.noises, strict=True)
                ]
            self._discriminator_step(work.batches, [made.audio.detach() for made in outputs], log)
            outputs = outputs if keep else None
        self._generator_step(work, outputs, log)
        return log

    def _discriminator_step(
        self, batches: Sequence[torch.Tensor], fakes: Sequence[torch.Tensor], log: dict[str, torch.Tensor]
    ) -> None:
        self.discriminators.requires_grad_(True)  # type: ignore[union-attr]
        for number, (audio, fake) in enumerate(zip(batches, fakes, strict=True)):
            with self._syncing(self._discriminators, number == len(batches) - 1):
                judged = self._discriminators(torch.cat([audio, fake]))
                real, false = _halves(judged)
                loss = discriminator_loss(real, false) / len(batches)
                self.fabric.backward(loss)
            _add(log, "discriminator", loss)
        log["discriminator_gradient"] = self._update(
            self._discriminators, self.discriminator_optimizer, self._config.clip_discriminator
        )

    def _generator_step(
        self,
        work: _Work,
        outputs: list[Generated] | None,
        log: dict[str, torch.Tensor],
    ) -> None:
        if self.discriminators is not None:
            self.discriminators.requires_grad_(False)
        power = torch.zeros_like(self.generator.latent_power)
        parts = len(work.batches)
        for number, (audio, noise) in enumerate(zip(work.batches, work.noises, strict=True)):
            with self._syncing(self._generator, number == parts - 1):
                if outputs is None:
                    made = self._generator(audio, noise, work.num_codebooks, work.step)
                else:
                    made = outputs[number]
                loss = self._objective(audio, made, work, log)
                self.fabric.backward(loss / parts)
            power += made.power / parts
        log["generator_gradient"] = self._update(self._generator, self.optimizer, self._config.clip_generator)
        self._follow(power)

    def _objective(
        self, audio: torch.Tensor, made: Generated, work: _Work, log: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        weights, parts, fake = self.losses, len(work.batches), made.audio
        sample_rate = self.generator.autoencoder.config.sample_rate
        terms: dict[str, tuple[float, torch.Tensor]] = {}
        if weights.mel:
            terms["mel"] = weights.mel, ms_mel(audio[:, None], fake[:, None], sample_rate).mean()
        if weights.waveform:
            terms["waveform"] = weights.waveform, waveform_loss(audio, made.waveform).mean()
        if weights.level:
            terms["level"] = weights.level, level_loss(audio, fake, sample_rate).mean()
        if work.adversarial:
            # Without the wrapper, because their gradients, which are not needed here, must not be reduced.
            with self.fabric.autocast():
                assert self.discriminators is not None
                with torch.no_grad():
                    real = self.discriminators(audio)
                judged = self.discriminators(fake)
            if weights.adversarial:
                terms["adversarial"] = weights.adversarial, adversarial_loss(judged)
            if weights.feature_matching:
                terms["feature_matching"] = weights.feature_matching, feature_matching_loss(real, judged)
        loss = torch.stack([weight * term for weight, term in terms.values()]).sum()
        for name, (_, term) in terms.items():
            _add(log, name, term / parts)
        _add(log, "generator", loss / parts)
        return loss

    def _update(self, module: Any, optimizer: Any, clip: float) -> torch.Tensor:
        norm = self.fabric.clip_gradients(module, optimizer, max_norm=clip, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert norm is not None
        return norm.detach()

    def _follow(self, power: torch.Tensor) -> None:
        if self.fabric.world_size > 1:
            power = self.fabric.all_reduce(power, reduce_op="mean")  # type: ignore[assignment]
        running = self.generator.latent_power
        running.copy_(torch.where(running.any(), running.lerp(power, _POWER_RATE), power))

    def _syncing(self, module: Any, last: bool) -> Any:
        """Reduce gradients over ranks only with the last micro-batch."""
        return self.fabric.no_backward_sync(module, enabled=not last)

    def state(self) -> dict[str, Any]:
        """Everything except the data that the next step depends on: tensors and plain values."""
        state = {"generator": self.generator.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.discriminators is not None:
            state["discriminators"] = self.discriminators.state_dict()
            state["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        load_state(self.optimizer, state["optimizer"])
        if self.discriminators is not None:
            self.discriminators.load_state_dict(state["discriminators"])
            load_state(self.discriminator_optimizer, state["discriminator_optimizer"])


def draw_codebooks(choices: Sequence[int], seed: int, step: int) -> int:
    """Number of codebooks of a step, the same on every rank."""
    return choices[int(np.random.default_rng([seed, step]).integers(len(choices)))]


def _halves(judged: Sequence[Sequence[torch.Tensor]]) -> tuple[list[Any], list[Any]]:
    """Layers of the first and of the second half of a batch."""
    pairs = [[layer.chunk(2) for layer in layers] for layers in judged]
    return [[a for a, _ in layers] for layers in pairs], [[b for _, b in layers] for layers in pairs]


def _add(log: dict[str, torch.Tensor], name: str, value: torch.Tensor) -> None:
    log[name] = log.get(name, torch.zeros((), device=value.device)) + value.detach()
