"""Options that several commands have: what is read, and which of it counts."""

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
        help="Results of a test: SQLite file, or postgresql:// address. Default: in its folder,"
        " results.sqlite or, of NAME.yaml, NAME.sqlite.",
    ),
]
Key = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="key.json of `mushra create`: what opaque names stand for. Default: that in the same folder.",
    ),
]
Reference = Annotated[
    str | None, typer.Option(metavar="NAME", help="Hidden reference, if not found by its name.")
]
Anchors = Annotated[
    list[str] | None,
    typer.Option(
        "--anchor",
        metavar="NAME",
        help="Anchor, if not found by its name; repeat, lowest first; the last of several is the mid.",
    ),
]
Systems = Annotated[
    list[str] | None,
    typer.Option(
        "--system",
        metavar="NAME",
        help="Condition under test whose name looks like that of a reference or an anchor; repeatable, `all` "
        "for every such.",
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="Scale of the scores, if not 0,100; it is stretched to 0 to 100. Such as 1,5.",
    ),
]
Tests = Annotated[
    list[str] | None,
    typer.Option("--test", metavar="ID", help="Test to use, where the sources hold several; repeat to pool."),
]
DropItems = Annotated[
    list[str] | None, typer.Option("--drop-item", metavar="ITEM", help="Item to leave out; repeatable.")
]
ListenerIds = Annotated[
    Literal["global", "per-file"] | None,
    typer.Option(
        "--listener-ids",
        help="Whether the same listener id in two files is one person (global) or two (per-file).",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LISTENER",
        help="Not to be excluded by screening; `all` for everybody. Of a long id its beginning is enough.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LISTENER",
        help="To be excluded in any case: the id or its beginning, as reports and the administrator's page "
        "have it; repeatable.",
    ),
]
Style = Annotated[
    str | None, typer.Option(metavar="NAME|FILE", help="Matplotlib style of figures, for fonts.")
]

# What `create` and `serve` write into a test's YAML.
Identification = Annotated[
    Literal["anonymous", "invitation", "prolific", "panel"] | None,
    typer.Option(
        metavar="WHO",
        help="Who may take part: anonymous (whoever has the link), invitation (named links of"
        " `mushra invite`), prolific, or panel (another panel: --panel). Default: anonymous.",
    ),
]
Blocks = Annotated[
    int | None, typer.Option(metavar="N", help="Cut the trials into N blocks; each listener gets one.")
]
Quota = Annotated[
    int | None,
    typer.Option(metavar="N", help="Sessions of each block, or of the test; dropped ones are refilled."),
]
MinHeard = Annotated[
    float | None,
    typer.Option("--min-heard", metavar="S", help="Seconds that every signal must have been played."),
]
Panel = Annotated[
    str | None,
    typer.Option(
        metavar="person=PID,...",
        help="Parameters of a panel's link: person, and if there are any session and sign (a signature).",
    ),
]
CompletionCode = Annotated[
    str | None,
    typer.Option(
        metavar="CODE", help="Shown at the end; with Prolific listeners are also sent back there with it."
    ),
]
Redirect = Annotated[
    str | None, typer.Option(metavar="URL", help="Web address that listeners are sent to at the end.")
]
Languages = Annotated[
    str | None,
    typer.Option(metavar="en,de", help="Listeners choose among these for buttons, scales and hints."),
]
HeadphoneCheck = Annotated[
    bool, typer.Option("--headphone-check", help="A short hearing task before the first trial.")
]
OncePerPerson = Annotated[
    bool, typer.Option("--once-per-person", help="Refuse a second session of one person.")
]

#: Where Prolific takes its participants back.
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
