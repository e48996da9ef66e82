"""``qincodec train``: autoencoder, quantizer, finetune, all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qincodec.core.console import ProgressLine, starting
from qincodec.core.errors import UserError
from qincodec.core.plugins import add_file, in_a_file

if TYPE_CHECKING:
    from qincodec.training.config import TrainingConfig
    from qincodec.training.run import TrainingRun

app = typer.Typer(
    no_args_is_help=True,
    help="Train QINCODEC in three stages; the same command continues an interrupted training.",
)

Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="A folder of audio, a JSON-lines manifest, or WavCaps' folder.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the training.")]
Out = Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the training.")]
Config = Annotated[
    str,
    typer.Option(
        "--config",
        metavar="C",
        help="A YAML file, or paper-d16, paper-d32, paper-d64, paper-d32-mini, small.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="K=V", help="Value to replace in the configuration, such as stage1.steps=2000."
    ),
]


def _kind(text: str | None) -> str | None:
    from qincodec.quantizers import QUANTIZERS

    return add_file(text, QUANTIZERS) if text and in_a_file(text) else text


Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        metavar="K",
        help="Quantizer: rvq, irvq, qinco2, faiss_rq, faiss_lsq, fsq, a plug-in's name, or FILE.py:CLASS.",
        callback=_kind,
    ),
]
Exclude = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV|DIR",
        help="AudioCaps' lists, whose clips are left out of WavCaps' AudioSet part.",
    ),
]
Accelerator = Annotated[
    str,
    typer.Option(metavar="A", help="Device: auto, cpu or cuda. For several devices, start it with torchrun."),
]


@app.command("autoencoder", help="Stage 1: train the autoencoder on DATA.")
def start(
    context: typer.Context,
    data: Data,
    out: Out,
    config: Config = "paper-d32",
    set_: Set = None,
    exclude_audiocaps: Exclude = None,
    accelerator: Accelerator = "auto",
) -> None:
    from qincodec.training.config import load_config
    from qincodec.training.run import TrainingRun

    stages = [1, 2, 3] if context.info_name == "all" else [1]
    settings = load_config(config, _pairs(set_))
    if 2 in stages:  # report errors in stage 2 now, not after stage 1
        from qincodec.training.quantizer import make_quantizer

        make_quantizer(settings.stage2, settings.shape.latent_dim)
    with starting(enabled=_speaks()) as progress:
        run = TrainingRun.create(out, settings, data, exclude_audiocaps, progress)
        if _speaks():
            _describe(run, progress)
    _stages(stages, run, accelerator)


@app.command()
def quantizer(run: Run, kind: Kind = None, set_: Set = None, accelerator: Accelerator = "auto") -> None:
    """Stage 2: fit a quantizer on the latents of RUN's autoencoder, on one device."""
    _stages([2], _open(run, kind, set_), accelerator)


@app.command()
def finetune(run: Run, kind: Kind = None, set_: Set = None, accelerator: Accelerator = "auto") -> None:
    """Stage 3: train the decoder on quantized latents."""
    _stages([3], _open(run, kind, set_), accelerator)


app.command("all", help="All three stages.")(start)


def _describe(run: TrainingRun, progress: ProgressLine) -> None:
    summary = run.train.summary()
    progress.note(
        f"data: {summary['files']} files, {summary['hours']:.2f} h, {summary['recordings']} recordings to"
        f" train on; {len(run.held_out)} files, {run.held_out.total_s / 60:.1f} min held out"
    )
    for side, view in (("to train on", run.train), ("held out, to choose checkpoints by", run.held_out)):
        if view.summary()["recordings"] == 1:
            progress.note(
                f"warning: only 1 recording is {side} ({view.total_s:.0f} s of"
                f" {run.train.total_s + run.held_out.total_s:.0f} s): give more recordings, or change"
                " data.held_out"
            )
    if summary["unreadable"]:
        progress.note(
            f"left out: {summary['unreadable']} files, with reasons in '{summary['unreadable_log']}'"
        )
    for reason, count in summary["excluded"].items():
        progress.note(f"left out: {count} ({reason})")
    for note in summary["notes"]:
        progress.note(note)


def _open(folder: Path, kind: str | None, changes: list[str] | None) -> TrainingRun:
    from qincodec.training.run import TrainingRun

    changed = _pairs(changes) | ({"stage2.kind": kind} if kind else {})
    return TrainingRun.open(folder, _changed(TrainingRun.open(folder).config, changed) if changed else None)


def _changed(config: TrainingConfig, changes: dict[str, str]) -> TrainingConfig:
    from qincodec.training.config import change, parse_config

    values = config.model_dump(mode="json")
    if "stage2.kind" in changes and changes["stage2.kind"] != config.stage2.kind:
        # Another kind has other options.
        values["stage2"] |= {"options": {}, "training": {}}
    for key, text in changes.items():
        change(values, key, text)
    return parse_config(values, "--set")


def _speaks() -> bool:
    """Under torchrun only rank 0 writes messages."""
    return os.environ.get("RANK", "0") == "0"


def _pairs(changes: list[str] | None) -> dict[str, str]:
    pairs = {}
    for text in changes or []:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UserError(f"--set {text}: give NAME=VALUE, such as stage1.steps=2000")
        pairs[key] = value
    return pairs


def _stages(stages: list[int], run: TrainingRun, accelerator: str) -> None:
    with starting(enabled=_speaks()):
        from qincodec.training.loop import launch

    fabric = launch(run.config.run, accelerator)
    summaries = []
    for number in stages:
        if number == 1:
            from qincodec.training.autoencoder import train_autoencoder

            summaries.append(train_autoencoder(run, fabric))
        elif number == 2:
            from qincodec.training.quantizer import fit_quantizer

            if fabric.is_global_zero:
                summaries.append(fit_quantizer(run, str(fabric.device)))
            fabric.barrier()
        else:
            from qincodec.training.finetune import finetune as train_decoder

            summaries.append(train_decoder(run, fabric))
    if fabric.is_global_zero:
        for summary in summaries:
            _print(summary)
        print(
            f"models: {run.folder}/*/model, for `qincodec encode --model PATH` and"
            " `evaluate --codecs NAME=qincodec:PATH`"
        )


def _print(summary: dict[str, Any]) -> None:
    if summary["stage"] == "quantizer":
        print(f"{summary['kind']}: fitted on {summary['frames']} frames in {summary['hours']:.2f} h")
        errors = ", ".join(f"{n}: {error:.3f}" for n, error in summary["latent_error"].items())
        print(f"  held-out error over variance by codebooks  {errors}")
        scores = {"decoder as trained without it": summary["validation"]}
    else:
        print(
            f"{summary['stage']}: {summary['steps']} steps of {summary['batch_size']} crops in"
            f" {summary['hours']:.2f} h on {summary['devices']} x {summary['device']}"
        )
        scores = {"before": summary["before"]} if "before" in summary else {}
        scores[f"best, of step {summary['best'].get('step')}"] = summary["best"]
    for title, values in scores.items():
        for name, value in values.items():
            if name.startswith(("si_sdr", "ms_mel")):
                print(f"  {title}: {name} {value:.3f}")
