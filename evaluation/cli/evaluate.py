"""The command ``evaluate``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from evaluation.cli import options
from evaluation.cli.html import html
from evaluation.cli.merge import merge
from evaluation.cli.new import new_app
from evaluation.cli.paper import paper
from evaluation.cli.showing import shown_anyway
from evaluation.cli.tokenize import tokenize
from evaluation.cli.weights import weights_app
from qincodec.core.console import run_command, starting, version_option
from qincodec.core.errors import EXIT_SOME_FAILED, UserError

if TYPE_CHECKING:
    from evaluation.engine.request import ParsedRequest, Request
    from evaluation.engine.runner import PreparedRun
    from evaluation.results import Results
    from qincodec.core.console import ProgressLine


class _Evaluate(TyperGroup):
    """Commands by their names. Without one, the group evaluates DATA with its own options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        at = self._first_word(args)
        word = args[at] if at < len(args) and "--version" not in args[:at] else ""
        no_data = re.fullmatch(r"\w[\w-]{,60}", word) and word != "demo" and not Path(word).exists()
        if word in self.commands or (no_data and get_close_matches(word, self.commands)):
            # Typer suggests a command for a near miss. Options before a command belong to the command.
            self.params = [param for param in self.params if param.param_type_name != "argument"]
            args = [word, *args[:at], *args[at + 1 :]]
        elif no_data:
            from evaluation.datasets.folder import WAYS

            raise UserError(f"no such data: '{word}'; give {WAYS}; or a command: {', '.join(self.commands)}")
        else:
            ctx.allow_interspersed_args, ctx.allow_extra_args = True, False
        return super().parse_args(ctx, args)

    def _first_word(self, args: list[str]) -> int:
        """Index of the first argument that is neither an option nor the value of one."""
        flags = {name for option in self.params if getattr(option, "is_flag", False) for name in option.opts}
        at = 0
        while at < len(args) and args[at].startswith("-") and args[at] != "--":
            at += 1 if "=" in args[at] or args[at] in flags | {"--help"} else 2
        return at


class Match(StrEnum):
    """Values of ``--match``."""

    measured = "measured"
    nominal = "nominal"


class Chunks(StrEnum):
    """Values of ``--chunks``."""

    first = "first"
    all = "all"


app = typer.Typer(cls=_Evaluate, add_completion=False, rich_markup_mode="markdown")


@app.callback(
    invoke_without_command=True,
    subcommand_metavar="| COMMAND [ARGS]...",
    epilog="Each command has its own --help. Type ./report for a folder with the name of a command.",
)
def run(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="Folder, glob, file, JSON-lines manifest, or an address of one of these (s3://BUCKET/FOLDER,"
            " gs://, hf://, https://); a WebDataset tar; hf:NAME; vctk:FOLDER, audiocaps:FOLDER and others"
            " (`evaluate list`). Default: the demo clips.",
        ),
    ] = None,
    codecs: Annotated[
        list[str] | None,
        typer.Option(
            "--codecs",
            metavar="A,B",
            help="Codecs, with commas: CODEC, CODEC:WEIGHTS or NAME=CODEC:WEIGHTS; your own codec as"
            " FILE.py:CLASS. Default: qincodec,opus,mp3; with --condition none.",
        ),
    ] = None,
    kbps: Annotated[
        str, typer.Option(metavar="8,16", help="Bitrates in kbit/s, total over the channels.")
    ] = "8,16",
    match: Annotated[
        Match,
        typer.Option(
            metavar="measured|nominal",
            help="Bitrate that meets the asked one: measured on these data, or the nearest nominal bitrate.",
        ),
    ] = Match.measured,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[@KBPS]=DIR",
            help="Files decoded elsewhere, matched to the clips by name. Repeatable.",
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            metavar="M,N",
            help="Metrics (`evaluate list`); an embedding selects its four metrics; your own as"
            " FILE.py:CLASS.",
        ),
    ] = "si_sdr,ms_mel,logmel,openl3",
    speech: Annotated[
        bool,
        typer.Option(
            "--speech", help="Score all clips with the metrics for speech, not only those of category speech."
        ),
    ] = False,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Weights of a codec, or your own file in place of one of `evaluate weights`. Repeatable.",
        ),
    ] = None,
    plug_in: options.PlugIn = None,
    offline: options.Offline = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Run folder; continues a run of the same configuration. Default: runs/DATA-HASH.",
        ),
    ] = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Part I of N of the recordings, for hosts without a shared folder; `evaluate merge` joins "
            "the parts.",
        ),
    ] = None,
    sample_rate: Annotated[int, typer.Option(metavar="HZ", help="Sample rate of the scoring, Hz.")] = 44100,
    channels: Annotated[
        int, typer.Option(metavar="N", help="1: mixed to mono; 2: stereo. kbps is the total.")
    ] = 1,
    chunk: Annotated[
        float, typer.Option(metavar="S", help="Longest excerpt of a recording in seconds.")
    ] = 5.0,
    chunks: Annotated[
        Chunks, typer.Option(metavar="first|all", help="One excerpt per recording, or all of them.")
    ] = Chunks.first,
    audiocaps_list: options.AudiocapsList = None,
    recording_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Pattern; its group in a clip's path names the recording, the unit of the intervals.",
        ),
    ] = None,
    allow_resampled: Annotated[
        bool,
        typer.Option("--allow-resampled", help="Accept AudioCaps copies below the scoring's sample rate."),
    ] = False,
    no_align: Annotated[
        bool, typer.Option("--no-align", help="Score without removing the codecs' delays.")
    ] = False,
    save_audio: Annotated[
        bool, typer.Option("--save-audio", help="Keep decoded audio as float32 WAV in the run folder.")
    ] = False,
    skip_unavailable: Annotated[
        bool, typer.Option("--skip-unavailable", help="Leave out codecs that cannot run here.")
    ] = False,
    device: options.Device = "cpu",
    batch_size: options.BatchSize = 8,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check the request and estimate time and disk; write no run. Embeddings download missing "
            "weights.",
        ),
    ] = False,
    explain: options.Explain = False,
    version: Annotated[bool, version_option("evaluate")] = False,
) -> None:
    """Evaluate audio codecs at matched bitrates: a table with intervals, plots and files, in one command.

    Rates are measured from the bytes. Each codec meets each asked bitrate within 3 %: at one operating point,
    or by interpolation between the two around it, marked ~. Run the same command again to continue an
    interrupted run.
    """
    if context.invoked_subcommand is not None:
        return
    from evaluation.engine.request import Request
    from evaluation.records import Settings

    if offline:
        os.environ["QINCODEC_OFFLINE"] = "1"
    codecs = codecs or ([] if condition else ["qincodec,opus,mp3"])
    request = Request(
        data=data,
        codecs=codecs,
        kbps=kbps,
        conditions=condition or [],
        metrics=metrics,
        speech=speech,
        weights=weights or [],
        skip_unavailable=skip_unavailable,
        device=device,
        batch_size=batch_size,
        workers=workers,
        save_audio=save_audio,
        cluster=cluster,
        settings=Settings(sample_rate, channels, not no_align, chunk, chunks.value, limit, seed, match.value),
        dataset_options={
            "audiocaps_list": audiocaps_list,
            "recording_pattern": recording_pattern,
            "allow_resampled": allow_resampled,
            "shard": shard,
        },
    )
    _run(request, out, dry_run, explain)


def _run(request: Request, out: Path | None, dry_run: bool, explain: bool) -> None:
    with starting():
        from evaluation.engine.estimate import estimate
        from evaluation.engine.request import parse_request
        from evaluation.report import print_report, write_all
        from evaluation.session import command_line, execute

    if dry_run and request.cluster is not None:
        raise UserError("--dry-run estimates for this machine alone; leave --cluster or --dry-run out")
    with starting() as progress:
        prepared = _prepared(parse_request(request), out, dry_run, progress)
        skipped = (prepared.skipped | prepared.unavailable).items()
        for line in (*(f"skipped {k}: {why}" for k, why in skipped), *_operating_points(prepared)):
            progress.note(line)
        for line in _without_clips(prepared):
            progress.note(line)
        if dry_run:
            progress.note("coding and scoring a few clips for the estimate")
            guess = estimate(prepared)
            matched = prepared.settings.match == "measured"
            more = "; measured rates may need more or fewer points" if matched else ""
            print(
                f"{guess.n_clips} clips x {guess.n_conditions} conditions: about "
                f"{_duration(guess.time_s)} with {prepared.workers} workers and "
                f"{guess.disk_bytes / 1e6:.1f} MB in {out or prepared.default_folder()} "
                f"(extrapolated from {guess.sample_s:.3g} s of {guess.sample_clips} clips{more}; nothing was "
                "written)"
            )
            return
        folder = out or prepared.default_folder()
        progress.note(f"run folder: {folder} (the same command continues it)")
        results, folder = execute(
            prepared,
            folder,
            command=command_line(),
            progress=progress,
            note=progress.note,
            speeds=progress.below,
        )
        progress("writing tables and plots", 0, 1)

        def show() -> None:
            progress.done()
            print_report(results, explain=explain)

        with shown_anyway(show):
            write_all(results, folder)
    _print(results, folder, explain)
    if results.clips["error"].notna().any() or results.n_failed_scores:
        raise SystemExit(EXIT_SOME_FAILED)


def _prepared(request: ParsedRequest, out: Path | None, dry_run: bool, progress: ProgressLine) -> PreparedRun:
    """The run. Errors that can be found without the weights come before any download."""
    from evaluation.engine.fetching import fetch_weights
    from evaluation.session import check_folder, find_listing, prepare

    listing = find_listing(request)
    dataset = None if out is None else check_folder(request, out, listing, progress)
    failed = None if dry_run else fetch_weights(request, progress)
    if failed:
        progress.note(f"the download failed: {failed}")
    return prepare(request, progress, failed, listing, dataset)


def _without_clips(run: PreparedRun) -> Iterator[str]:
    """Metrics that will score no clip, reported before hours of coding."""
    from evaluation.records import is_speech

    labels = [metric.label for metric in run.metrics if metric.speech_only]
    if labels and not any(is_speech(clip.category) for clip in run.dataset.clips):
        yield (
            f"{', '.join(labels)}: for speech only, and no clip has the category speech, so no clip will have"
            " a score; --speech scores all clips"
        )


def _operating_points(run: PreparedRun) -> Iterator[str]:
    """The operating point of each asked rate, for codecs with settings beside the rate."""
    if run.settings.match == "measured":  # not known before the pilot
        return
    for condition in (prepared.condition for prepared in run.conditions):
        if "num_codebooks" in condition.settings and condition.kbps is not None:
            settings = ", ".join(f"{name} {value}" for name, value in condition.settings.items())
            yield f"{condition.label}: {condition.nominal:.4g} kbps, {settings}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _print(results: Results, folder: Path, explain: bool) -> None:
    from evaluation.report import print_report

    print_report(results, explain=explain)
    print(f"\nTables, plots and rows: {folder}")


def report(run: options.Run, explain: options.Explain = False) -> None:
    """Make tables, files and plots of a run again from its rows, also for an interrupted run."""
    from evaluation.loading import load
    from evaluation.report import print_report, write_all

    results = load(run)
    with shown_anyway(
        partial(print_report, results, explain=explain),
        "copy the run folder to a place where you may write, and report on the copy",
    ):
        write_all(results, run)
    _print(results, run, explain)


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Run folder.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Run folder.")],
) -> None:
    """Compare two runs: RUN_B minus RUN_A per condition and metric, on the clips that both have scored."""
    from evaluation.loading import load
    from evaluation.report.compare import compare_runs, print_comparison

    print_comparison(compare_runs(load(run_a), load(run_b)))


def list_parts() -> None:
    """List codecs, rates, metrics and data sets; for what cannot run here, say why and what to do."""
    from evaluation.cli.listing import print_listing

    print_listing()


for _command in (report, html, compare, merge, tokenize, paper):
    app.command()(_command)
app.command("list")(list_parts)
app.add_typer(weights_app, name="weights")
app.add_typer(new_app, name="new")


def main() -> None:
    """Entry point of the command."""
    kept = "interrupted; finished results are kept; run the same command again to continue"
    run_command(app, sys.argv[1:], "evaluate", kept)
