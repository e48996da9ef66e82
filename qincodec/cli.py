"""The command ``qincodec``: encode, decode, info, train."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qincodec.core.console import (
    Progress,
    ProgressLine,
    plug_in_option,
    run_command,
    starting,
    version_option,
)
from qincodec.core.errors import EXIT_INTERRUPTED, EXIT_SOME_FAILED, UserError
from qincodec.core.folders import kind_of
from qincodec.core.plugins import add_file
from qincodec.training.cli import app as train_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qincodec.bitstream import QncHeader
    from qincodec.codec import Qincodec

PIPE = Path("-")

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(train_app, name="train")

Model = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Folder of a model, name of a shipped one, or untrained:SIZE for random weights.",
        show_default="the first shipped model",
    ),
]


def _add_file(text: str) -> None:
    from qincodec.quantizers import QUANTIZERS

    add_file(text, QUANTIZERS)


PlugIn = Annotated[
    list[str] | None,
    plug_in_option(_add_file, "The model's quantizer, in a Python file, which is run."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
Search = Annotated[
    str,
    typer.Option(
        metavar="fast|default|best",
        help="Width of the beam search (qinco2): half, all or twice what the model was saved with.",
    ),
]
Device = Annotated[str, typer.Option(metavar="D", help="cpu, or cuda on a GPU.")]


@app.callback()
def qincodec(version: Annotated[bool, version_option("qincodec")] = False) -> None:
    """Encode audio with QINCODEC, a neural codec, and decode it again."""


@app.command()
def encode(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="IN", help="Audio files of any sample rate; - for stdin.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="A .qnc file, a folder, or - for stdout.")
    ],
    kbps: Annotated[
        float,
        typer.Option(metavar="16", help="Bitrate in total over the channels; the model's nearest is taken."),
    ] = 16.0,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Try numbers of codebooks until the file meets the bitrate."),
    ] = False,
    model: Model = None,
    plug_in: PlugIn = None,
    search: Search = "default",
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Encode audio files to .qnc files.

    Two channels are coded as mid and side, the side with fewer codebooks; of more, each is coded alone.
    Audio of another sample rate is resampled; the file notes the rate it had. An entropy-coded file takes
    more or less than the bitrate, as the command says; --exact comes as near to it, by ratio, as a number of
    codebooks can. --search trades time for error: fast takes half as long as default, best twice as long;
    decoding takes the same, with the same model.
    """
    jobs = _plan(inputs, output, ".qnc", force)
    with starting():
        from qincodec.codec import load
        from qincodec.transcode import encode_file, encode_to_rate

        codec = load(model, device=device, search=search)

    def work(source: Path, target: Path, progress: ProgressLine) -> str:
        from qincodec import audio

        with _readable(source) as path:
            if exact:
                header, data = encode_to_rate(codec, path, kbps, _of(source, progress))
            else:
                number = codec.codebooks_for(kbps, audio.info(path).channels)
                header, data = encode_file(codec, path, number, _of(source, progress))
        _write(target, data)
        made = header.kbps(len(data))
        if exact and abs(made - kbps) > 0.03 * kbps:
            progress.note(f"{source}: no number of codebooks comes nearer to {kbps:g} kbps than {made:.2f}")
        resampled = "" if header.source_rate == header.sample_rate else f", from {header.source_rate} Hz"
        return (
            f"{header.duration_s:.2f} s, {made:.2f} kbps ({_channels(header.channels)} of"
            f" {_codebooks(header)} codebooks){resampled}"
        )

    _run_jobs(jobs, work)


@app.command()
def decode(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN", help=".qnc files; - for stdin.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="OUT", help="A .wav or .flac file, a folder, or - for stdout (WAV)."
        ),
    ],
    model: Model = None,
    plug_in: PlugIn = None,
    subtype: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            help="float32 (.wav), pcm16 or pcm24. float32 keeps what exceeds full scale, the others cut it.",
            show_default="float32 for .wav, pcm24 for .flac",
        ),
    ] = None,
    source_rate: Annotated[
        bool, typer.Option("--source-rate", help="Resample to the rate of what was encoded.")
    ] = False,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Decode .qnc files to audio, at the model's sample rate."""
    if subtype not in (None, "float32", "pcm16", "pcm24"):
        raise UserError(f"--subtype {subtype} is unknown: give float32, pcm16 or pcm24")
    jobs = _plan(inputs, output, ".wav", force)
    with starting():
        from qincodec.bitstream import loads, loads_header
        from qincodec.codec import load
        from qincodec.transcode import decode_file

        codec = load(model, device=device)

    def work(source: Path, target: Path, progress: ProgressLine) -> str:
        data = _qnc_bytes(source)
        codec.check_header(loads_header(data))
        header, codes = loads(data, codec.tables)
        with _writable(target) as path:
            written = decode_file(
                codec,
                header,
                codes,
                path,
                subtype=subtype or ("pcm24" if path.suffix.lower() == ".flac" else "float32"),  # type: ignore[arg-type]
                source_rate=source_rate,
                progress=_of(source, progress),
            )
        if written.clipped:
            progress.note(
                f"warning: {target}: {written.clipped} samples exceeded full scale (peak"
                f" {written.peak_dbfs:+.2f} dBFS) and were cut; --subtype float32 with .wav keeps them"
            )
        other = header.source_rate != written.sample_rate
        hint = f" (was {header.source_rate} Hz; --source-rate restores it)" if other else ""
        return (
            f"{written.num_samples / written.sample_rate:.2f} s, {_channels(written.channels)},"
            f" {written.sample_rate} Hz{hint}"
        )

    _run_jobs(jobs, work)


@app.command()
def info(
    what: Annotated[
        str, typer.Argument(metavar="FILE|MODEL", help="A .qnc file, or a model as --model takes it.")
    ],
    plug_in: PlugIn = None,
) -> None:
    """Show what a .qnc file or a model holds."""
    path = Path(what)
    if path.is_file() or path == PIPE:
        from qincodec.bitstream import blocks

        data = _qnc_bytes(path)
        lines = _describe_file(blocks(data)[0], len(data))
    else:
        from qincodec.codec import load

        lines = _describe_model(load(what))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")


def _describe_file(header: QncHeader, file_bytes: int) -> list[tuple[str, str]]:
    overhead, how = header.overhead_bytes, "entropy-coded" if header.is_entropy_coded else "packed"
    sizes = sorted(set(header.codebook_sizes))
    entries = f"{sizes[0]} entries" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} entries"
    of = " per channel"
    if header.side is not None:
        of = f" of mid and side, the side predicted by {header.side.prediction}/8 of the mid"
    return [
        ("duration", f"{header.duration_s:.3f} s"),
        ("sample rate", f"{header.sample_rate} Hz ({header.num_samples} samples)"),
        ("source", f"{header.source_rate} Hz ({header.source_samples} samples)"),
        ("channels", f"{header.channels}"),
        ("codebooks", f"{_codebooks(header)}{of}, {entries}"),
        ("frames", f"{header.num_frames} per channel, {header.sample_rate / header.hop_length:.3f} Hz"),
        (
            "bitrate",
            f"{header.kbps(file_bytes):.3f} kbps in total ({file_bytes - overhead} bytes of {how} codes)",
        ),
        ("overhead", f"{overhead} bytes of header and check sums, not counted in the bitrate"),
        ("model", header.model.hex()),
    ]


def _describe_model(codec: Qincodec) -> list[tuple[str, str]]:
    config = codec.autoencoder.config
    parameters = sum(p.numel() for p in codec.autoencoder.parameters())
    decoder = {None: "", True: "; decoder fine-tuned", False: "; decoder not fine-tuned"}[codec.finetuned]
    lines = [
        ("model", codec.model_id.hex()),
        ("weights", f"trained{decoder}" if codec.trained else "random: never trained"),
        ("sample rate", f"{codec.sample_rate} Hz, {codec.frame_rate:.3f} frames per second"),
        (
            "autoencoder",
            f"{config.latent_dim} dimensions, {parameters / 1e6:.2f}M parameters, 2 x {config.num_layers}"
            f" layers of {config.dim}/{config.intermediate_dim}",
        ),
        (
            "latency",
            f"{(latency := codec.autoencoder.latency_samples)} samples"
            f" ({1000 * latency / codec.sample_rate:.1f} ms) at least, encoding and decoding together",
        ),
    ]
    if codec.quantizer is None:
        return [*lines, ("quantizer", "none: not fitted yet")]
    settings = ", ".join(f"{name} {value}" for name, value in codec.quantizer.settings().items())
    rates = codec.rates()
    return [
        *lines,
        ("quantizer", codec.quantizer.kind + (f" ({settings})" if settings else "")),
        (
            "rates",
            f"{len(rates)}, {rates[0][1]:.2f} to {rates[-1][1]:.2f} kbps per channel"
            + (", entropy-coded, on the mean" if codec.tables else ""),
        ),
    ]


# ---- files ---------------------------------------------------------------------------------------------


def _plan(inputs: Sequence[Path], output: Path, suffix: str, force: bool) -> list[tuple[Path, Path]]:
    """(input, output) of every file, checked before any work starts."""
    for source in inputs:
        if source.is_dir():
            files, kind = "audio files" if suffix == ".qnc" else ".qnc files", kind_of(source)
            such = "" if kind else f", such as {source}/*"
            raise UserError(f"'{source}' is {kind or 'a folder'}: give {files}{such}")
    into_folder = output != PIPE and (len(inputs) > 1 or output.is_dir())
    if len(inputs) > 1 and output == PIPE:
        raise UserError(f"{len(inputs)} files cannot go to stdout: give one, or a folder after -o")
    if len(inputs) > 1 and not output.is_dir():
        raise UserError(f"{len(inputs)} files need a folder after -o, '{output}' is none: make it first")
    if into_folder and PIPE in inputs:
        raise UserError("what comes from stdin has no name: give a file after -o, not a folder")
    jobs = [(path, output / f"{path.stem}{suffix}" if into_folder else output) for path in inputs]
    targets = [target for _, target in jobs]
    for source, target in jobs:
        if targets.count(target) > 1:
            raise UserError(f"two inputs would be written to '{target}': rename one of them or run twice")
        if target == PIPE:
            if sys.stdout.isatty():
                raise UserError("stdout is a terminal: give a file after -o, or pipe it somewhere")
        elif target.exists():
            if target.is_dir() or (source != PIPE and source.exists() and target.samefile(source)):
                raise UserError(f"'{target}' cannot be the output of '{source}': give another name after -o")
            if not force:
                raise UserError(f"'{target}' exists: --force overwrites it")
        elif not target.parent.is_dir():
            raise UserError(
                f"there is no folder '{target.parent}' to write '{target.name}' to: make it first"
            )
    return jobs


def _run_jobs(jobs: list[tuple[Path, Path]], work: Callable[[Path, Path, ProgressLine], str]) -> None:
    failed = 0
    with ProgressLine() as progress:
        for done, (source, target) in enumerate(jobs):
            try:
                progress.note(f"{source} -> {target}: {work(source, target, progress)}")
            except UserError as error:
                # What reads files names them, what reads bytes cannot.
                message = str(error) if source.name in str(error) else f"'{source}': {error}"
                if len(jobs) == 1:
                    raise UserError(message) from error
                failed += 1
                progress.note(f"qincodec: {message}")
            except KeyboardInterrupt:
                progress.note(f"qincodec: interrupted; {done - failed} of {len(jobs)} files are written")
                raise SystemExit(EXIT_INTERRUPTED) from None
    if failed:
        print(f"qincodec: {failed} of {len(jobs)} files failed", file=sys.stderr)
        raise SystemExit(EXIT_SOME_FAILED)


def _channels(count: int) -> str:
    return f"{count} channel" + "s" * (count > 1)


def _codebooks(header: QncHeader) -> str:
    return f"{header.num_codebooks}" + ("" if header.side is None else f" + {header.side_codebooks}")


def _of(source: Path, progress: ProgressLine) -> Progress:
    def report(unit: str, done: int, total: int) -> None:
        if done < total:  # what ends at once needs no line
            progress(f"{source} ({unit})", done, total)

    return report


@contextmanager
def _readable(source: Path) -> Iterator[Path]:
    """A file with what ``source`` holds: itself, or a copy of stdin, which cannot be read twice."""
    if source != PIPE:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="qincodec-") as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield path
        except UserError as error:
            raise UserError(str(error).replace(str(path), "stdin")) from error


@contextmanager
def _writable(target: Path) -> Iterator[Path]:
    """A file to write: ``target``, or one that goes to stdout, since a WAV header is written last."""
    if target != PIPE:
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="qincodec-") as folder:
        path = Path(folder) / "stdout.wav"
        yield path
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _qnc_bytes(source: Path) -> bytes:
    """The bytes of a .qnc file; of another file only its beginning, which tells that it is none."""
    from qincodec.bitstream import MAGIC

    try:
        with sys.stdin.buffer if source == PIPE else source.open("rb") as file:
            head = file.read(len(MAGIC))
            return head + file.read() if head == MAGIC else head
    except OSError as error:
        raise UserError(f"cannot read '{source}': {error.strerror or error}") from error


def _write(target: Path, data: bytes) -> None:
    if target == PIPE:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    from qincodec.core.files import replacing

    with replacing(target) as temporary:
        temporary.write_bytes(data)


def main() -> None:
    """Entry point of the command."""
    run_command(app, sys.argv[1:], "qincodec")
