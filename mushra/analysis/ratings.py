"""The ratings of a listening test as a tidy table, and the roles of its conditions.

One row per rating: columns ``listener`` (str), ``item`` (str), ``condition`` (str), ``score`` (float, 0 to
100), each (listener, item, condition) once. Optional columns: ``time_ms`` (on the page), ``comment``,
``session``, ``test``, ``order``; in files also ``moves`` (of the slider). Every function of `mushra.analysis`
takes such a table, from any source; `Ratings` holds it with the roles that BS.1534-3 gives some conditions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from qincodec.core.errors import UserError

COLUMNS = ("listener", "item", "condition", "score")
OPTIONAL_COLUMNS = ("time_ms", "comment", "session", "test", "order", "moves")

#: Usual names of the controls; compared by `_plain`: without case, punctuation and suffix.
_REFERENCE = re.compile("(hidden)?ref(erence)?")


def _anchor(frequency: str, name: str) -> re.Pattern[str]:
    low_pass = "anchor|lpf?|lowpass(ed|filter)?"
    return re.compile(
        f"({low_pass})({frequency})|({frequency})({low_pass})|{name}(range)?anchor|anchor{name}"
    )


_LOW_ANCHOR = _anchor("35|35k|35khz|3500|3500hz", "low")
_MID_ANCHOR = _anchor("7|7k|7khz|70|70k|70khz|7000|7000hz", "mid")
#: Names that may or may not be those of controls: a person has to decide.
_LIKE_REFERENCE = re.compile(
    ".*reference.*|.*hiddenref.*|ref[0-9]*|(explicit|open)ref|hr|orig|original|uncompressed|unprocessed"
)
_LIKE_ANCHOR = re.compile(
    ".*anchor.*|.*lowpass.*|lpf?[0-9]+(k|khz|hz)?|la|ma|low|mid|(35|7)(k|khz)|(35|70)00(hz)?"
)
_SUFFIX = re.compile(r"\.(wav|flac|mp3|ogg|opus|aiff?|m4a)$", re.IGNORECASE)
#: Used in place of a name for all conditions that only look like a control.
ALL = "all"


@dataclass(frozen=True)
class Problem:
    """A problem of the input: ``kind`` in two or three words, ``detail`` in one line.

    ``rows`` is the number of affected rows of the input.
    """

    kind: str
    detail: str
    rows: int


@dataclass(frozen=True, eq=False)
class Ratings:
    """The ratings of one listening test.

    Attributes:
        frame: the tidy table, see the module; no score is missing.
        reference: condition that is the hidden reference, or None.
        anchors: conditions that are anchors, lowest first.
        problems: problems found while loading.
        mid_anchor: the anchor of 7 kHz, or None.
        not_given: listener -> number of stored scores that nobody gave, which are left out.
        gold_failures: listener -> number of gold items with a wrong answer, if there are any. The gold items
            themselves are not in ``frame``.
        sources: files that were read, and URLs of data bases.
        scale: original scale of the scores, before they were stretched to 0 to 100.
        ends: lowest and highest score of the table.

    Examples:
        >>> rows = [("ada", "song", "reference", 100.0), ("ada", "song", "opus", 60.0)]
        >>> frame = pd.DataFrame(rows, columns=["listener", "item", "condition", "score"])
        >>> Ratings(frame, reference="reference").matrix().loc["ada"].to_dict()
        {'reference': 100.0, 'opus': 60.0}
    """

    frame: pd.DataFrame
    reference: str | None = None
    anchors: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    mid_anchor: str | None = None
    not_given: Mapping[str, int] = field(default_factory=dict)
    gold_failures: Mapping[str, int] = field(default_factory=dict)
    sources: tuple[str | Path, ...] = ()
    scale: tuple[float, float] = (0.0, 100.0)
    ends: tuple[float, float] = (0.0, 100.0)
    conditions: tuple[str, ...] = field(init=False)
    """Hidden reference, systems in natural order of their names, anchors from high to low."""

    def __post_init__(self) -> None:
        present = set(self.frame["condition"].unique())
        systems = sorted(present - {self.reference, *self.anchors}, key=natural_key)
        first = [self.reference] if self.reference in present else []
        last = [anchor for anchor in reversed(self.anchors) if anchor in present]
        object.__setattr__(self, "conditions", (*first, *systems, *last))

    @property
    def systems(self) -> tuple[str, ...]:
        """Conditions under test: neither hidden reference nor anchor."""
        controls = {self.reference, *self.anchors}
        return tuple(condition for condition in self.conditions if condition not in controls)

    @property
    def items(self) -> tuple[str, ...]:
        return tuple(sorted(self.frame["item"].unique(), key=natural_key))

    @property
    def listeners(self) -> tuple[str, ...]:
        return tuple(sorted(self.frame["listener"].unique(), key=natural_key))

    def matrix(self, conditions: Sequence[str] | None = None) -> pd.DataFrame:
        """Each listener's mean over items: one row per listener, one column per condition; NaN if unrated."""
        means = self.frame.groupby(["listener", "condition"], observed=True)["score"].mean().unstack()
        return means.reindex(index=list(self.listeners), columns=list(conditions or self.conditions))

    def without(self, listeners: Iterable[str]) -> Ratings:
        """The ratings of all other listeners."""
        frame = self.frame[~self.frame["listener"].isin(set(listeners))].reset_index(drop=True)
        return replace(self, frame=frame)


def natural_key(text: str) -> list[tuple[int, float, str]]:
    """Sort key that puts ``opus@8`` before ``opus@12.5`` before ``opus@128``."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(0, float(p), "") if i % 2 else (1, 0.0, p.casefold()) for i, p in enumerate(parts)] + [
        (2, 0.0, text)
    ]


def with_roles(
    frame: pd.DataFrame,
    *,
    reference: str | None = None,
    anchors: Sequence[str] = (),
    systems: Sequence[str] = (),
    problems: Iterable[Problem] = (),
) -> Ratings:
    """Ratings with their hidden reference and anchors, given or found by their names.

    Args:
        frame: the tidy table.
        reference: name of the hidden reference; None finds ``reference``, ``hidden_reference`` and the like.
        anchors: names of the anchors, lowest first; of two or more the last is the mid anchor. Empty finds
            ``anchor35``, ``anchor70``, ``lp35``, ``mid_anchor`` and the like, and a single ``anchor``.
        systems: systems whose names look like controls; `ALL` for every such name.

    Raises:
        UserError: the table is not one of ratings, a given name is not a condition, two conditions look like
            the same control, or one looks like a control and its role is not given.
    """
    _check(frame)
    problems = list(problems)
    conditions = sorted(frame["condition"].unique(), key=natural_key)
    given = [*([reference] if reference is not None else []), *anchors]
    for name in (*given, *(name for name in systems if name != ALL)):
        if name not in conditions:
            raise UserError(f"condition '{name}' is not in the ratings; they hold {', '.join(conditions)}")
    if len(set(given)) < len(given):
        raise UserError("a condition was named twice with --reference and --anchor; name each once")
    if both := set(given) & set(systems):
        raise UserError(f"'{min(both)}' is given as a control and with --system; choose one")
    if reference is None:
        reference = _find(conditions, _REFERENCE, "--reference", taken=[*anchors, *systems])
    if anchors:
        named_mid = [a for a in anchors if _MID_ANCHOR.fullmatch(_plain(a))]
        mid = named_mid[0] if named_mid else anchors[-1] if len(anchors) > 1 else None
    else:
        low = _find(conditions, _LOW_ANCHOR, "--anchor", taken=[reference, *systems])
        mid = _find(conditions, _MID_ANCHOR, "--anchor", taken=[reference, *systems])
        if low is mid is None:
            low = _find(conditions, re.compile("anchor"), "--anchor", taken=[reference, *systems])
        anchors = [anchor for anchor in (low, mid) if anchor is not None]
        problems += [
            Problem(
                "control by name",
                f"'{name}' is taken for the {'mid' if name == mid else 'low'} anchor; if it is not, give "
                f"--system {name}",
                int((frame["condition"] == name).sum()),
            )
            for name in anchors
            if "anchor" not in _plain(name)
        ]
    others = [name for name in conditions if name not in (reference, *anchors, *systems)]
    problems += _ask(frame, others, ALL in systems)
    return Ratings(frame, reference, tuple(anchors), tuple(problems), mid)


def _ask(frame: pd.DataFrame, conditions: Sequence[str], all_systems: bool) -> Iterator[Problem]:
    """Refuse conditions that look like a control without a role; with ``all_systems`` only report them."""
    for names, what, option in (
        (_LIKE_REFERENCE, "the hidden reference", "--reference"),
        (_LIKE_ANCHOR, "an anchor", "--anchor"),
    ):
        found = [name for name in conditions if names.fullmatch(_plain(name))]
        if found and not all_systems:
            rest = f"; likewise for {', '.join(found[1:])}" if found[1:] else ""
            order = " (anchors lowest first; of several the last is the mid anchor)"
            raise UserError(
                f"{found[0]} looks like {what}: give {option} {found[0]} or --system {found[0]}{rest}"
                + (order if found[1:] and option == "--anchor" else "")
            )
        for name in found:
            rows = int((frame["condition"] == name).sum())
            yield Problem("control or system", f"'{name}' looks like {what} and counts as a system", rows)


def _check(frame: pd.DataFrame) -> None:
    """Raise `UserError` if a table, such as one from a notebook, is not a valid table of ratings."""
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise UserError(f"the table has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    if frame.empty:
        raise UserError("the table of ratings has no rows")
    if not pd.api.types.is_numeric_dtype(frame["score"]) or not frame["score"].between(0, 100).all():
        raise UserError("some scores are not numbers from 0 to 100; leave these rows out")
    twice = frame.duplicated(["listener", "item", "condition"])
    if twice.any():
        row = frame[twice].iloc[0]
        raise UserError(
            f"listener {row['listener']} rated {row['condition']} of item {row['item']} more than once; "
            "average the scores first"
        )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", _SUFFIX.sub("", name)).casefold()


def _find(
    conditions: Sequence[str], names: re.Pattern[str], option: str, taken: Sequence[str | None]
) -> str | None:
    found = [c for c in conditions if names.fullmatch(_plain(c)) and c not in taken]
    if len(found) > 1:
        raise UserError(
            f"{' and '.join(found)} both look like the same control; give the control with {option} and the "
            "other with --system"
        )
    return found[0] if found else None
