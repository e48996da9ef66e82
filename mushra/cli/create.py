"""The commands ``mushra create`` and ``mushra check``."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from statistics import median_low
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from evaluation.cli.options import PlugIn
from mushra.cli.options import (
    Blocks,
    CompletionCode,
    HeadphoneCheck,
    Identification,
    Languages,
    MinHeard,
    OncePerPerson,
    Panel,
    Quota,
    Redirect,
    section_values,
)
from qincodec.core.console import ProgressLine, starting
from qincodec.core.errors import EXIT_USER_ERROR, UserError, count

if TYPE_CHECKING:
    from mushra.config.pages import Section
    from mushra.create.material import Material


def register(app: typer.Typer) -> None:
    """Add both commands to ``mushra``."""
    app.command()(create)
    app.command()(check)


def create(
    out: Annotated[Path, typer.Option(metavar="TEST", help="Folder to write the test to.")],
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Folder that `evaluate --out` wrote.")
    ] = None,
    codecs: Annotated[
        str | None, typer.Option(metavar="C,D", help="Codecs of the run. Default: all but controls.")
    ] = None,
    kbps: Annotated[
        str | None, typer.Option(metavar="8,16", help="Asked rates of the run, kbit/s. Default: all.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="References instead of a run: folder, glob, manifest or address."),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[@KBPS]=DIR", help="Decoded files, matched to the references. Repeatable."),
    ] = None,
    method: Annotated[
        Literal["mushra", "bs1116", "ab", "abx", "acr", "dcr"],
        typer.Option(help="Method: BS.1534 (MUSHRA), BS.1116, preference (AB), ABX, or P.800's ACR or DCR."),
    ] = "mushra",
    preset: Annotated[
        Literal["paper"] | None,
        typer.Option(help="paper: 12 random excerpts of 5 s, hidden reference, only the 3.5 kHz anchor."),
    ] = None,
    items: Annotated[int | None, typer.Option(metavar="N", help="Number of trials. Default: 12.")] = None,
    per_category: Annotated[int | None, typer.Option(metavar="N", help="Trials of each category.")] = None,
    clip: Annotated[list[str] | None, typer.Option(metavar="ID", help="Clip to take. Repeatable.")] = None,
    pick: Annotated[
        Literal["random", "hardest"],
        typer.Option(help="Choice of clips; hardest: where the codecs scored worst, by mean rank."),
    ] = "random",
    duration: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Excerpt length in seconds; BS.1534 allows at most 12. Default: 10, or the longest clip.",
        ),
    ] = None,
    excerpt: Annotated[
        Literal["random", "energy"],
        typer.Option(help="Position of the excerpt in its clip: random, or the part with most energy."),
    ] = "random",
    anchors: Annotated[
        str | None,
        typer.Option(metavar="35,70", help="Anchors of MUSHRA: 35, 70, both or none. Default: 35,70."),
    ] = None,
    show_reference: Annotated[
        bool,
        typer.Option("--show-reference", help="AB: also play the reference, and ask which is closer."),
    ] = False,
    presentations: Annotated[
        int, typer.Option(metavar="N", help="Presentations of each pair of an item in ABX.")
    ] = 1,
    training: Annotated[
        int, typer.Option(metavar="N", help="Number of training pages; their grades are kept apart.")
    ] = 1,
    training_reuse: Annotated[
        bool,
        typer.Option(
            "--training-reuse", help="If no other clips are left, use rated recordings for training."
        ),
    ] = False,
    loudness: Annotated[
        str,
        typer.Option(
            metavar="LUFS", help="Loudness of the references by BS.1770; none leaves them as they are."
        ),
    ] = "-23",
    file_format: Annotated[
        Literal["wav", "flac"], typer.Option("--format", help="File format of the stimuli.")
    ] = "wav",
    bits: Annotated[int, typer.Option(metavar="16|24", help="Bits per sample; 16 are dithered.")] = 24,
    sample_rate: Annotated[
        int | None,
        typer.Option(metavar="HZ", help="Sample rate of a test from folders. Default: the references'."),
    ] = None,
    open_names: Annotated[
        bool,
        typer.Option(
            "--open-names",
            help="Write conditions' names into YAML and file names, as is usual with webMUSHRA.",
        ),
    ] = False,
    language: Annotated[Literal["en", "de", "fr", "es"], typer.Option(help="Language of the pages.")] = "en",
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Title that listeners see.")] = None,
    test_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Test id in the results. Default: the folder's name.")
    ] = None,
    no_questionnaire: Annotated[
        bool,
        typer.Option(
            "--no-questionnaire", help="Do not ask for age, experience, headphones and remarks at the end."
        ),
    ] = False,
    instructions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Markdown text of the first page, instead of the built-in welcome."
        ),
    ] = None,
    no_loop: Annotated[
        bool, typer.Option("--no-loop", help="Do not let listeners loop a part of an excerpt.")
    ] = False,
    items_per_listener: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Trials that each listener gets, balanced over listeners. Default: all."
        ),
    ] = None,
    identification: Identification = None,
    completion_code: CompletionCode = None,
    redirect: Redirect = None,
    languages: Languages = None,
    headphone_check: HeadphoneCheck = False,
    once_per_person: OncePerPerson = False,
    blocks: Blocks = None,
    quota: Quota = None,
    min_heard: MinHeard = None,
    panel: Panel = None,
    weights: Annotated[
        list[str] | None, typer.Option(metavar="CODEC=PATH", help="Weights that the run used. Repeatable.")
    ] = None,
    plug_in: PlugIn = None,
    device: Annotated[
        str, typer.Option(metavar="D", help="Device that codecs decode on: cpu, cuda.")
    ] = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of every random choice.")] = 0,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an earlier test; it must hold only files of this command."),
    ] = False,
) -> None:
    """Make a listening test from an evaluation run or from folders of decoded files.

    The command chooses items, cuts excerpts, aligns them in time and loudness, and writes them under opaque
    names, with hidden reference and anchors if the method has them. It also writes webMUSHRA's YAML and the
    key to the names; keep the key to yourself.
    """
    with starting():
        from evaluation.engine.request import parse_weights
        from mushra.create.documents import Options
        from mushra.create.folder import create_test
        from mushra.create.instructions import read_instructions
        from mushra.create.material import FolderMaterial, RunMaterial

    if preset is not None:
        if method != "mushra":
            raise UserError(f"--preset {preset} is a MUSHRA test, not one by {method}; leave one of them out")
        items = 12 if items is None and per_category is None and not clip else items
        duration = 5.0 if duration is None else duration
        anchors = "35" if anchors is None else anchors
    if bits not in (16, 24):
        raise UserError(f"--bits is {bits}; allowed: 16 or 24")
    options = Options(
        method=method,
        items=items,
        per_category=per_category,
        clips=tuple(clip or ()),
        pick=pick,
        duration_s=duration,
        excerpt=excerpt,
        anchors=None if anchors is None else _anchors(anchors),
        show_reference=show_reference,
        presentations=presentations,
        training=training,
        training_reuse=training_reuse,
        target_lufs=_loudness(loudness),
        file_format=file_format,
        bits=bits,
        open_names=open_names,
        language=language,
        title=title,
        test_id=test_id,
        questionnaire=not no_questionnaire,
        instructions=None if instructions is None else read_instructions(instructions),
        loop=not no_loop,
        section=_section(
            items_per_listener,
            section_values(
                identification,
                completion_code,
                redirect,
                languages,
                headphone_check,
                once_per_person,
                blocks,
                quota,
                min_heard,
                panel,
            ),
        ),
        seed=seed,
    )
    if (run is None) == (reference is None):
        raise UserError(
            "give --run RUN (of `evaluate --out RUN`), or --reference DIR with --condition NAME=DIR"
        )
    with ProgressLine() as progress:
        material: Material
        if run is not None:
            if sample_rate is not None:
                raise UserError("a test from a run has the run's sample rate; leave --sample-rate out")
            material = RunMaterial(
                run,
                codecs=codecs,
                kbps=kbps,
                folders=condition or [],
                weights=parse_weights(weights or []),
                device=device,
            )
        elif reference is not None:
            for option, value in (("--codecs", codecs), ("--kbps", kbps), ("--weights", weights)):
                if value:
                    raise UserError(
                        f"{option} goes with --run; folders are named by --condition NAME[@KBPS]=DIR"
                    )
            if sample_rate is not None and not 8000 <= sample_rate <= 384000:
                raise UserError(f"--sample-rate is {sample_rate}; allowed: 8000 to 384000 Hz")
            material = FolderMaterial(reference, condition or [], sample_rate)
        report = create_test(material, out, options, force=force, progress=progress)
    _print_report(report, out)


def check(
    test: Annotated[Path, typer.Argument(metavar="TEST", help="Test folder or webMUSHRA YAML file.")],
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to which audio paths are relative. Default: the file's, or that above `configs`.",
        ),
    ] = None,
) -> None:
    """Check a test before its first listener: keys and types, audio files, key, limits of the standard.

    Each finding is printed with file, line and page. The exit code is 2 if there is any error.
    """
    from mushra.check import check_config

    findings = check_config(test, root)
    for finding in findings:
        print(finding)
    n_errors = sum(finding.severity == "error" for finding in findings)
    numbers = {"error": n_errors, "warning": len(findings) - n_errors}
    print(", ".join(count(n, what) if n else f"no {what}s" for what, n in numbers.items()))
    if n_errors:
        raise typer.Exit(EXIT_USER_ERROR)


def _section(items_per_listener: int | None, given: dict[tuple[str, ...], object]) -> Section:
    """The section ``qincodec`` of the YAML, checked by its model."""
    from pydantic import ValidationError

    from mushra.config.pages import Section

    values: dict[str, Any] = {"items_per_listener": items_per_listener}
    for (*outer, key), value in given.items():
        (values.setdefault(outer[0], {}) if outer else values)[key] = value
    try:
        return Section.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        options = {"code": "completion-code", "min_heard_s": "min-heard"}
        name = options.get(str(details["loc"][-1]), str(details["loc"][0]))
        name = "redirect" if details["loc"][-1] == "redirect" else name
        said = str(details["ctx"]["error"]) if "error" in details.get("ctx", {}) else details["msg"]
        raise UserError(
            f"--{name.replace('_', '-')} is '{details['input']}': {said[0].lower()}{said[1:]}"
        ) from error


def _anchors(text: str) -> tuple[str, ...]:
    from mushra.config.pages import ANCHOR35, ANCHOR70

    known = {"35": ANCHOR35, "70": ANCHOR70}
    names = [] if text == "none" else [part.strip() for part in text.split(",")]
    if any(name not in known for name in names):
        raise UserError(f"--anchors is '{text}'; allowed: 35, 70, both as 35,70, or none")
    return tuple(known[name] for name in known if name in names)


def _loudness(text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--loudness is '{text}'; allowed: a number of LUFS such as -23, or none") from None


def _print_report(report: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from mushra.config.locate import KEY_NAME

    console = Console(markup=False, emoji=False)  # a name may look like markup
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("trial")
    table.add_column("clip", overflow="fold")
    for name in ("from s", "length s", "LUFS", "gain dB", "peak dBFS"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in report["items"]:
        table.add_row(
            item["trial"],
            _printable(item["clip"]),
            f"{item['start_s']:.2f}",
            f"{item['duration_s']:.2f}",
            f"{item['loudness_lufs']:.1f}",
            f"{item['gain_db']:+.1f}",
            f"{item['peak_dbfs']:.1f}",
        )
    console.print(table)
    systems = ", ".join(system["label"] for system in report["systems"])
    options = report["options"]
    reference = {"ab": "reference" if options["show_reference"] else "no reference", "dcr": "reference"}
    controls = ", ".join([reference.get(options["method"], "hidden reference"), *options["anchors"]])
    print()
    items = count(options["items"], "item")
    _say(f"{items}, seed {options['seed']}: {systems}; {controls}")
    if options["method"] != "mushra":
        effort = report["effort"]
        what = f"{count(effort['items'], 'item')} x {count(effort['times'], effort['of'])}"
        _say(f"Each listener gets {count(effort['items'] * effort['times'], effort['unit'])}: {what}")
    for item in report["items"]:
        if item["reduced_db"] > 0.005:
            loudness = item["loudness_lufs"] + item["gain_db"]
            _say(f"{item['trial']} got {item['reduced_db']:.1f} dB less for its peaks: {loudness:.1f} LUFS")
    found = {
        label: [item["delays"][label] for item in report["items"]] for label in report["items"][0]["delays"]
    }
    late = [f"{label} {median_low(delays):+d}" for label, delays in found.items() if any(delays)]
    _say(f"Delays taken out, samples: {', '.join(late) or 'none'}")
    if report["ranked_by"]:
        _say(f"Hardest by mean rank of {', '.join(report['ranked_by'])} over these conditions")
    for clip, reason in report["skipped"][:10]:
        _say(f"not used: {clip}: {reason}")
    if len(report["skipped"]) > 10:
        _say(f"not used: {len(report['skipped']) - 10} more, listed in create_report.json")
    for warning in report["warnings"]:
        _say(f"warning: {warning}")
    for item in report["items"]:
        for warning in item["warnings"]:
            _say(f"warning: {item['trial']}: {warning}")
    print()
    _say(f"Test: {out} (check it with `mushra check {quote(str(out))}`, keep {out / KEY_NAME} to yourself)")


def _say(line: str) -> None:
    print(_printable(line))


def _printable(text: str) -> str:
    """Text without characters that move a terminal's cursor, which names of files may hold."""
    return "".join(character if character.isprintable() else "?" for character in text)
