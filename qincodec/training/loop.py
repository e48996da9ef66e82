"""The loop around adversarial steps: data, devices, checkpoints, validation, logs.

After a kill at any moment, the same command continues from the last checkpoint and, on the CPU, ends in the
same weights bit for bit. The number of devices may change: a step always sees the same crops.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from qincodec.autoencoder import Autoencoder
from qincodec.core.console import ProgressLine
from qincodec.core.errors import UserError
from qincodec.training import data, workers
from qincodec.training.adversarial import AdversarialStep
from qincodec.training.checkpoints import Checkpoints
from qincodec.training.config import RunConfig, TrainingConfig
from qincodec.training.log import Log
from qincodec.training.run import write_json
from qincodec.training.validation import Validation

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def launch(run: RunConfig, accelerator: str = "auto") -> Fabric:
    """Devices and precision: those of torchrun if it started this process, else one.

    Raises:
        UserError: the accelerator does not exist here.
    """
    from lightning_fabric import Fabric  # which takes seconds; all but training itself goes without

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(ranks)))
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=local,
            num_nodes=max(1, ranks // local),
            strategy="ddp" if ranks > 1 else "auto",
            precision="bf16-mixed" if run.precision == "bfloat16" else "32-true",
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:  # Lightning has its own types
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"accelerator '{accelerator}' cannot be used: {reason}; give cpu or cuda") from error
    return fabric


@dataclass
class Stage:
    """Parts of a stage of adversarial training.

    Attributes:
        title: for people ("autoencoder").
        folder: of its checkpoints and logs.
        steps: planned.
        step: models and optimizers.
        validation: None on all ranks but the first.
        codebooks: step -> number of codebooks, None without a quantizer.
        noise: level of `qincodec.training.data.latent_noise`.
        ema: see `AutoencoderStage`; averages of weights that are not trained stay as they are.
        first_crop: number of the first crop it draws, so that stage 3 does not repeat stage 1.
        depends_on: JSON values, besides data, losses and optimizer, that its checkpoints depend on.
    """

    title: str
    folder: Path
    steps: int
    step: AdversarialStep
    validation: Validation | None
    codebooks: Any = None
    noise: float = 0.0
    ema: float = 0.0
    first_crop: int = 0
    depends_on: dict[str, Any] = field(default_factory=dict)
    averaged: Autoencoder = field(init=False)

    def __post_init__(self) -> None:
        self.averaged = self.step.generator.autoencoder
        if self.ema:
            self.averaged = copy.deepcopy(self.averaged)

    def state(self) -> dict[str, Any]:
        """Everything except the data that the next step depends on."""
        return {**self.step.state(), **({"averaged": self.averaged.state_dict()} if self.ema else {})}

    def load_state(self, state: dict[str, Any]) -> None:
        self.step.load_state(state)
        if self.ema:
            self.averaged.load_state_dict(state["averaged"])


def train(fabric: Fabric, config: TrainingConfig, crops: data.CropDataset, stage: Stage) -> dict[str, Any]:
    """Run a stage to its end, from its last checkpoint if any, and load its best weights.

    Returns:
        A summary: JSON values.

    Raises:
        UserError: a loss is not finite, the disk is full, data cannot be read, or a checkpoint has another
            configuration.
    """
    checkpoints = Checkpoints(stage.folder / "checkpoints", config.run.keep)
    identity = _identity(config, stage)
    resumed = _resume(identity, stage, checkpoints)
    best, start, spent_s = resumed["best"], resumed["step"], resumed["seconds"]
    rank_zero = fabric.is_global_zero
    log = Log(stage.folder, start) if rank_zero else None
    began = time.monotonic()
    indices = _Indices(fabric, config, stage)
    batches = iter(_loader(config, crops, stage, indices, start))
    totals: dict[str, torch.Tensor] = {k: v.to(fabric.device) for k, v in resumed["totals"].items()}
    with ProgressLine(enabled=rank_zero) as progress:
        if start and rank_zero:
            progress.note(f"{stage.title}: continues after step {start} of {stage.steps}")
        for step in range(start, stage.steps):
            drawn = [
                [tensor.to(fabric.device, non_blocking=True) for tensor in next(batches)]
                for _ in range(indices.accumulate)
            ]
            parts = [tensors[0] for tensors in drawn]
            noises = [tensors[1] if stage.noise else None for tensors in drawn]
            losses = stage.step(step, parts, noises, stage.codebooks(step) if stage.codebooks else None)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value
            _average(stage, step)
            done = step + 1
            at_log = done % config.run.log_every == 0 or done == stage.steps
            at_validation = done % config.run.validate_every == 0 or done == stage.steps
            at_save = done % config.run.save_every == 0 or at_validation
            if at_log or at_save:
                count = (done - 1) % config.run.log_every + 1
                means = _means(fabric, totals, count)
                _check(means, stage, done, checkpoints)
                if at_log:
                    means["lr"] = stage.step.rate(step)
                    seconds = spent_s + time.monotonic() - began
                    if log is not None:
                        log.write("losses", done, {**means, "seconds": seconds})
                    totals = {}
            improved = False
            if at_validation:
                if stage.validation is not None and log is not None:
                    samples = done % config.run.samples_every == 0 or done == stage.steps
                    folder = stage.folder / "samples" / f"step-{done:09d}" if samples else None
                    scores = stage.validation(stage.averaged, folder)
                    log.write("validation", done, scores)
                    progress.note(f"{stage.title}, step {done}: {_readable(scores)}")
                    if improved := not best or scores["score"] < best["score"]:
                        best = {"step": done, **scores}
                fabric.barrier()
            if at_save and rank_zero:
                seconds = spent_s + time.monotonic() - began
                around = {"best": best, "seconds": seconds, "totals": totals, "config": identity}
                checkpoints.save(done, {**stage.state(), **around}, best=improved)
            progress(f"{stage.title}", done, stage.steps, _readable(losses) if at_log else "")
    del batches  # and with it the workers
    if log is not None:
        log.close()
    fabric.barrier()
    summary: dict[str, Any] = {
        "stage": stage.title,
        "steps": stage.steps,
        "batch_size": config.data.batch_size,
        "devices": fabric.world_size,
        "device": name_of(fabric.device),
        "hours": (spent_s + time.monotonic() - began) / 3600,
        "best": best,
    }
    if rank_zero:
        write_json(stage.folder / "summary.json", summary)
    if checkpoints.best_path.exists():
        stage.load_state(checkpoints.load(checkpoints.best_path))
    return summary


def _resume(identity: str, stage: Stage, checkpoints: Checkpoints) -> dict[str, Any]:
    """The last checkpoint, loaded, or the start of a training."""
    state = checkpoints.load_last()
    if state is None:
        return {"best": {}, "step": 0, "seconds": 0.0, "totals": {}}
    if state.get("config") != identity:
        raise UserError(
            f"'{stage.folder}' holds a training with another configuration or other data: give another run "
            "folder, or its old configuration and data to continue"
        )
    stage.load_state(state)
    return state


def _identity(config: TrainingConfig, stage: Stage) -> str:
    """Everything that a checkpoint depends on, without devices, logs or other stages."""
    values = config.model_dump(mode="json", exclude={"run", "stage1", "stage2", "stage3"})
    for name in ("micro_batch", "workers"):
        del values["data"][name]
    return json.dumps({**values, **stage.depends_on}, sort_keys=True)


class _Indices:
    """The crops of a step, a micro-batch and a rank; together they are always the same for a step."""

    def __init__(self, fabric: Fabric, config: TrainingConfig, stage: Stage) -> None:
        self._batch, ranks = config.data.batch_size, fabric.world_size
        share, rest = divmod(self._batch, ranks)
        if rest:
            raise UserError(f"a batch of {self._batch} crops cannot be shared by {ranks} devices evenly")
        self.micro = min(config.data.micro_batch or share, share)
        self.accumulate, rest = divmod(share, self.micro)
        if rest:
            raise UserError(
                f"data.micro_batch={self.micro} does not divide a device's share of {share} crops"
                f" (data.batch_size={self._batch} on {ranks} devices)"
            )
        self._rank, self._ranks, self._first = fabric.global_rank, ranks, stage.first_crop

    def of(self, step: int) -> list[range]:
        """Numbers of this rank's crops, one range per micro-batch."""
        start = self._first + step * self._batch
        places = (start + (part * self._ranks + self._rank) * self.micro for part in range(self.accumulate))
        return [range(place, place + self.micro) for place in places]


class _Batches(torch.utils.data.Sampler[list[int]]):
    def __init__(self, indices: _Indices, start: int) -> None:
        self._indices, self._start = indices, start

    def __iter__(self) -> Iterator[list[int]]:
        step = self._start
        while True:
            for rows in self._indices.of(step):
                yield list(rows)
            step += 1


def _loader(
    config: TrainingConfig, crops: data.CropDataset, stage: Stage, indices: _Indices, start: int
) -> DataLoader[tuple[torch.Tensor, ...]]:
    processes = config.data.workers
    # Forked from a server that has only imported what they need, which takes seconds: a fork of this process
    # would copy the locks of torch's threads, and a spawned one would import torch again.
    context = multiprocessing.get_context("forkserver") if processes else None
    if context:
        context.set_forkserver_preload([data.__name__, workers.__name__])
    shape = config.shape
    frames = config.crop_samples // shape.hop_length
    return DataLoader(
        data.NoisyCrops(crops, frames, shape.latent_dim, stage.noise, config.seed),
        batch_sampler=_Batches(indices, start),
        num_workers=processes,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if processes else None,
        multiprocessing_context=context,
        worker_init_fn=workers.prepare_worker if processes else None,
    )


@torch.no_grad()
def _average(stage: Stage, step: int) -> None:
    """Moving average of the weights, with a short memory at first."""
    if stage.ema:
        weight = 1 - min(stage.ema, (1 + step) / (10 + step))
        trained = stage.step.generator.autoencoder.parameters()
        torch._foreach_lerp_(list(stage.averaged.parameters()), list(trained), weight)


def _means(fabric: Fabric, totals: dict[str, torch.Tensor], count: int) -> dict[str, float]:
    values = torch.stack(list(totals.values())) / count
    if fabric.world_size > 1:
        values = fabric.all_reduce(values, reduce_op="mean")  # type: ignore[assignment]
    return dict(zip(totals, values.tolist(), strict=True))


def _check(means: dict[str, float], stage: Stage, step: int, checkpoints: Checkpoints) -> None:
    broken = [name for name, value in means.items() if not math.isfinite(value)]
    if broken:
        kept = "nothing was saved before"
        if steps := checkpoints.steps():
            kept = f"the last good state, of step {steps[-1]}, is in '{checkpoints.folder}'"
        raise UserError(
            f"{stage.title}: {broken[0]} is not finite by step {step}; {kept}. Lower optimizer.lr, set"
            " run.precision to float32 or look for damaged audio, and start a new run"
        )


def _readable(scores: dict[str, Any]) -> str:
    names = {"si_sdr": "SI-SDR {:.2f} dB", "ms_mel": "MS-Mel {:.3f}", "mel": "mel {:.3f}"}
    names |= {"adversarial": "adversarial {:.2f}", "discriminator": "discriminators {:.2f}"}
    parts = []
    for key, value in scores.items():
        base, _, codebooks = key.rpartition("_")
        if key in names:
            parts.append(names[key].format(float(value)))
        elif base in names and codebooks.isdigit():
            parts.append(f"{names[base].format(float(value))} at {codebooks} codebooks")
    return ", ".join(parts)


def name_of(device: torch.device) -> str:
    """Description of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
