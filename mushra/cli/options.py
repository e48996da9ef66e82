"""Options that several commands share: the ratings they read, and the section of a test's YAML."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

import typer

from qincodec.core.errors import UserError

Database = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL",
        envvar="MUSHRA_DATABASE",
        help="Data base with a test's results: SQLite file or postgresql:// address. Default: results.sqlite"
        " in the test's folder; NAME.sqlite beside NAME.yaml.",
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File of `mushra create` that maps opaque names to systems. Default: key.json in the same"
        " folder.",
    ),
]
Reference = Annotated[
    str | None, typer.Option(metavar="NAME", help="Hidden reference, if its name is unusual.")
]
Anchors = Annotated[
    list[str] | None,
    typer.Option(
        "--anchor",
        metavar="NAME",
        help="Anchor, if its name is unusual. Repeatable, lowest first; the last of several is the mid.",
    ),
]
Systems = Annotated[
    list[str] | None,
    typer.Option(
        "--system",
        metavar="NAME",
        help="System under test whose name looks like a reference or an anchor; `all` for every such name. "
        "Repeatable.",
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="Scale of the scores, such as 1,5; scores are stretched to 0 to 100. Default: 0,100.",
    ),
]
Tests = Annotated[
    list[str] | None,
    typer.Option("--test", metavar="ID", help="Test to use, if the sources hold several. Repeat to pool."),
]
DropItems = Annotated[
    list[str] | None, typer.Option("--drop-item", metavar="ITEM", help="Item to leave out; repeatable.")
]
ListenerIds = Annotated[
    Literal["global", "per-file"] | None,
    typer.Option(
        "--listener-ids",
        help="Meaning of the same listener id in two files: one person (global) or two (per-file).",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LISTENER",
        help="Listener whom screening must not exclude; `all` for everybody. The beginning of an id is"
        " enough. Repeatable.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LISTENER",
        help="Listener to exclude in any case: the id or its beginning, as reports and admin pages show it. "
        "Repeatable.",
    ),
]
Style = Annotated[
    str | None, typer.Option(metavar="NAME|FILE", help="Matplotlib style of the figures, such as for fonts.")
]

# What `create` and `serve` write into a test's YAML.
Identification = Annotated[
    Literal["anonymous", "invitation", "prolific", "panel"] | None,
    typer.Option(
        metavar="WHO",
        help="Who may take part: anonymous (anybody with the link), invitation (named links of"
        " `mushra invite`), prolific, or panel (another panel, see --panel). Default: anonymous.",
    ),
]
Blocks = Annotated[
    int | None, typer.Option(metavar="N", help="Number of blocks of trials; each listener gets one block.")
]
Quota = Annotated[
    int | None,
    typer.Option(metavar="N", help="Sessions of each block, or of the test; dropped ones are replaced."),
]
MinHeard = Annotated[
    float | None,
    typer.Option("--min-heard", metavar="S", help="Seconds for which every signal must be played."),
]
Panel = Annotated[
    str | None,
    typer.Option(
        metavar="person=PID,...",
        help="Parameters of a panel's link: person and, optionally, session and sign (a signature).",
    ),
]
CompletionCode = Annotated[
    str | None,
    typer.Option(
        metavar="CODE",
        help="Completion code shown at the end; Prolific's listeners are also sent back there with it.",
    ),
]
Redirect = Annotated[
    str | None, typer.Option(metavar="URL", help="Web address to which listeners are sent at the end.")
]
Languages = Annotated[
    str | None,
    typer.Option(metavar="en,de", help="Languages of buttons, scales and hints that listeners can choose."),
]
HeadphoneCheck = Annotated[
    bool, typer.Option("--headphone-check", help="Give a short hearing task before the first trial.")
]
OncePerPerson = Annotated[
    bool, typer.Option("--once-per-person", help="Refuse a second session of one person.")
]

#: Address at which Prolific takes its participants back.
PROLIFIC_DONE = "https://app.prolific.com/submissions/complete?cc="


def section_values(
    identification: str | None,
    completion_code: str | None,
    redirect: str | None,
    languages: str | None,
    headphone_check: bool,
    once_per_person: bool,
    blocks: int | None,
    quota: int | None,
    min_heard: float | None,
    panel: str | None,
) -> dict[tuple[str, ...], object]:
    """Place in the section ``qincodec`` -> value, of each option that was given. Raises `UserError`."""
    if redirect is None and completion_code is not None and identification == "prolific":
        redirect = f"{PROLIFIC_DONE}{quote(completion_code, safe='')}"
    given: dict[tuple[str, ...], object] = {
        ("identification",): identification,
        ("completion", "code"): completion_code,
        ("completion", "redirect"): redirect,
        ("languages",): None if languages is None else [one.strip() for one in languages.split(",")],
        ("headphone_check",): headphone_check or None,
        ("one_session_per_person",): once_per_person or None,
        ("blocks",): blocks,
        ("quota",): quota,
        ("rules", "min_heard_s"): min_heard,
        ("panel",): None if panel is None else _panel(panel),
    }
    return {place: value for place, value in given.items() if value is not None}


def _panel(text: str) -> dict[str, str]:
    """ "person=PID,session=SID" as a mapping."""
    pairs = [part.strip().partition("=") for part in text.split(",")]
    names = [name for name, _, _ in pairs]
    if not set(names) <= {"person", "session", "sign"} or not all(value for _, _, value in pairs):
        raise UserError(
            f"--panel is '{text}'; give the names of the parameters in the panel's link, such as"
            " person=PID,session=SID,sign=SIG; person is needed, the others are not"
        )
    return {name: value for name, _, value in pairs}


def parse_scale(text: str | None) -> tuple[float, float] | None:
    """ "1,5" as (1.0, 5.0). Raises UserError for anything else."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--scale is '{text}'; give its lowest and its highest score, such as 1,5")
    return low, high
