"""ACR and DCR: mean opinion scores, and the screening of listeners after P.808.

Opinion scores of one listener, or of one item, are not independent, so the main interval is for other
listeners and other items (`mushra.analysis.methods.grades`). The report also has the plain interval of
P.800, over all ratings, which is too narrow.

Listeners are excluded if they failed the headphone test, or answered a gold or trapping question wrongly.
Flags are only for information: all scores of a listener are the same, or their correlation with those of the
others is below `MIN_CORRELATION`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from mushra.analysis import wording
from mushra.analysis.agreement import listener_agreement
from mushra.analysis.description import caption_beyond
from mushra.analysis.methods.grades import (
    Grades,
    contrast_table,
    describe,
    interval_notes,
    primary_facts,
)
from mushra.analysis.methods.tables import Marks, Section, Shown, fixed, span, text
from mushra.analysis.ratings import Problem, Ratings
from mushra.analysis.tidy import average_repeats
from mushra.store.php_csv import number_text
from qincodec.core.errors import UserError, count

#: (item, condition) -> answers that pass: gold and trapping questions.
Gold = Mapping[tuple[str, str], Collection[str]]
SCALE = (1.0, 5.0)
#: A lower correlation of a listener with the others' means is flagged.
MIN_CORRELATION = 0.5
#: Fewer equal scores than this are not flagged.
MIN_STRAIGHT = 5
LISTENER_COLUMNS = ["listener", "n", "mean", "gold_failed", "headphones", "correlation"]
LISTENER_COLUMNS += ["straight", "verdict", "reason", "flags"]
Verdict = Literal["stays", "failed", "kept", "asked"]
_EXCLUDED = ("failed", "asked")
_HEADPHONES = {True: "passed", False: "failed", None: ""}


@dataclass(frozen=True, eq=False)
class Opinions:
    """Results of ACR or DCR pages.

    Attributes:
        method: "acr" or "dcr".
        listeners: one row per listener, `LISTENER_COLUMNS`.
        screened, everybody: opinion scores after and before screening, without gold questions; the same
            object if nobody is excluded.
        has_gold: whether there were gold or trapping questions.
        notes: limits, one sentence each.
    """

    method: str
    listeners: pd.DataFrame
    screened: Grades
    everybody: Grades
    has_gold: bool
    notes: tuple[str, ...]

    @property
    def excluded(self) -> tuple[str, ...]:
        return tuple(self.listeners.loc[self.listeners["verdict"].isin(_EXCLUDED), "listener"])


def analyze_opinions(
    method: str,
    frame: pd.DataFrame,
    problems: list[Problem],
    *,
    seed: int,
    margin: float | None = None,
    num_resamples: int = 10_000,
    gold: Gold | None = None,
    gold_failures: Mapping[str, int] | None = None,
    headphones: Mapping[str, bool] | None = None,
    keep: Collection[str] = (),
    exclude: Collection[str] = (),
) -> Opinions:
    """Opinion scores before and after screening.

    Args:
        method: "acr" or "dcr".
        frame: its rows (`mushra.analysis.methods.judgements`).
        problems: new problems are added.
        seed: of the bootstrap.
        margin: points within which two systems count as equivalent.
        num_resamples: of the bootstrap.
        gold: gold and trapping questions; their rows are not opinion scores.
        gold_failures: listener -> number of wrong answers to questions that are not among the rows.
        headphones: listener -> whether the headphone test was passed.
        keep: listeners to keep whatever they failed; ``all`` for everybody.
        exclude: listeners to exclude.

    Raises:
        UserError: all are gold questions, or nobody is left.
    """
    gold, headphones = gold or {}, headphones or {}
    pairs = list(zip(frame["item"], frame["condition"], strict=True))
    asked = pd.Series([pair in gold for pair in pairs], frame.index, dtype=bool)
    if asked.all():
        raise UserError("all answers are of gold questions; list only the gold questions in --gold")
    opinions = frame[~asked].assign(session=frame["listener"])
    ratings = Ratings(average_repeats(opinions, problems), ends=SCALE)
    failures = gold_failures or {}
    listeners = _screened(ratings, frame[asked], gold, failures, headphones, keep, exclude)
    out = listeners.loc[listeners["verdict"].isin(_EXCLUDED), "listener"]
    if set(ratings.listeners) <= set(out):
        raise UserError(
            f"all {len(listeners)} listeners are excluded (the first because: "
            f"{listeners['reason'].iloc[0]}); keep some with --keep, or everybody with --keep all"
        )
    has_gold = bool(gold) or gold_failures is not None
    options: dict[str, Any] = {"seed": seed, "margin": margin, "num_resamples": num_resamples}
    everybody = describe(ratings, **options)
    screened = describe(ratings.without(out), **options) if len(out) else everybody
    return Opinions(method, listeners, screened, everybody, has_gold, tuple(_notes(screened)))


def _notes(grades: Grades) -> list[str]:
    notes = []
    if len(grades.ratings.items) == 1:
        notes.append("There is one item: results hold only for it, and for other listeners.")
    if len(grades.ratings.listeners) == 1:
        notes.append("There is one listener: no interval and no test is possible.")
    return notes + interval_notes(grades, SCALE)


def _screened(
    ratings: Ratings,
    asked: pd.DataFrame,
    gold: Gold,
    failures: Mapping[str, int],
    headphones: Mapping[str, bool],
    keep: Collection[str],
    exclude: Collection[str],
) -> pd.DataFrame:
    wrong: dict[str, list[str]] = {}
    for row in asked.to_dict("records"):
        expected = {_plain(answer) for answer in gold[row["item"], row["condition"]]}
        if number_text(row["score"]) not in expected:
            wrong.setdefault(row["listener"], []).append(f"{row['item']}: {row['score']:g}")
    agreement = listener_agreement(ratings.frame).set_index("listener")["correlation"]
    rows = []
    for listener in ratings.listeners:
        scores = ratings.frame.loc[ratings.frame["listener"] == listener, "score"].to_numpy()
        straight = len(scores) >= MIN_STRAIGHT and float(np.ptp(scores)) == 0
        failed = wrong.get(listener, [])
        others = failures.get(listener, 0)
        reasons = [f"gold question {', '.join(failed)}"] if failed else []
        reasons += [f"{count(others, 'gold item')} wrong"] if others else []
        if headphones.get(listener) is False:
            reasons.append("headphone test")
        verdict: Verdict = "failed" if reasons else "stays"
        if reasons and ("all" in keep or listener in keep):
            verdict = "kept"
        if listener in exclude:
            verdict = "asked"
        correlation = float(agreement[listener])
        flags = [f"all scores are {scores[0]:g}"] if straight else []
        if correlation < MIN_CORRELATION:
            flags.append(f"correlation {correlation:.2f}")
        rows.append(
            {
                "listener": listener,
                "n": len(scores),
                "mean": float(scores.mean()),
                "gold_failed": len(failed) + others,
                "headphones": _HEADPHONES[headphones.get(listener)],
                "correlation": correlation,
                "straight": straight,
                "verdict": verdict,
                "reason": "; ".join(reasons),
                "flags": "; ".join(flags),
            }
        )
    return pd.DataFrame(rows, columns=LISTENER_COLUMNS)


def _plain(answer: str) -> str:
    """ "4.0" and "4" are one answer."""
    try:
        return number_text(float(answer))
    except ValueError:
        return answer.strip()


# Report

_VERDICTS = {
    "stays": "stays",
    "failed": "excluded: failed",
    "kept": "failed, kept as asked",
    "asked": "excluded as asked",
}
_NAMES = {
    "acr": ("ACR: mean opinion scores", "MOS", "Absolute category rating of 1 to 5 (ITU-T P.800, P.808)"),
    "dcr": (
        "DCR: degradation mean opinion scores",
        "DMOS",
        "Degradation category rating of 1 to 5 against the reference (ITU-T P.800 Annex D, P.808)",
    ),
}


def section(result: Opinions) -> Section:
    title, mos, what = _NAMES[result.method]
    grades, everybody = result.screened, result.everybody
    n, out = len(everybody.ratings.listeners), len(result.excluded)
    several = grades.means["both_low"].notna().any()
    low, high = ("both_low", "both_high") if several else ("t_low", "t_high")
    checks = ["a gold or trapping question"] * result.has_gold
    checks += ["the headphone test"] * bool(result.listeners["headphones"].any())
    screening = (
        f"Screening excludes listeners who failed {' or '.join(checks)}: "
        if checks
        else "The test does not have gold questions or a headphone test: "
    )
    holds = "other listeners and other items" if several else "other listeners and the same items"
    paragraph = (
        f"{what}: {count(len(everybody.ratings.frame), 'rating')} by {count(n, 'listener')} of "
        f"{count(len(everybody.ratings.items), 'item')} under "
        f"{count(len(everybody.ratings.systems), 'condition')}. {screening}"
        f"{out} of {count(n, 'listener')} {'was' if out == 1 else 'were'} excluded. {mos} are means of all "
        f"ratings; their 95 % intervals are for {holds}"
        + (" (variance clustered by listeners and by items). " if several else ". ")
        + "The plain interval treats all ratings as independent and is too narrow."
    )
    letters = grades.primary.letters
    before = everybody.means.set_index("condition")
    table = grades.means.assign(
        mos_all=grades.means["condition"].map(before["grand_mean"]),
        letters=[letters.get(name, "") for name in grades.means["condition"]],
    ).sort_values(["grand_mean", "condition"], ascending=[False, True])
    columns = [
        ("condition", text("condition")),
        ("ratings", text("n_ratings")),
        ("listeners", text("n_listeners")),
        (mos, fixed("grand_mean")),
        ("95 % interval", span(low, high)),
        ("SD", fixed("sd")),
        *([("letters", text("letters"))] if letters else []),
        ("other listeners", span("t_low", "t_high")),
        ("other items", span("item_low", "item_high")),
        ("plain, too narrow", span("plain_low", "plain_high")),
        ("before screening", fixed("mos_all")),
    ]
    listeners = result.listeners.assign(excluded=result.listeners["verdict"].isin(_EXCLUDED))
    caption = f"{mos} with 95 % intervals for {holds}."
    caption += f" {wording.letters_caption(grades.primary)}" if letters else ""
    caption += caption_beyond(table[[low, high]].to_numpy(dtype=float), SCALE)
    tables = (
        Shown("conditions", caption, table, columns),
        contrast_table(grades),
        Shown(
            "listeners",
            "Screening. The correlation is between a listener's scores and the means of the others; flags "
            "exclude nobody.",
            listeners,
            [
                ("listener", text("listener")),
                ("ratings", text("n")),
                ("mean", fixed("mean")),
                ("gold questions failed", text("gold_failed")),
                ("headphone test", text("headphones")),
                ("correlation", fixed("correlation")),
                ("verdict", lambda row: _VERDICTS[row["verdict"]]),
                ("reason", text("reason")),
                ("flags", text("flags")),
            ],
            marked="excluded",
        ),
    )
    points = tuple(
        (str(row["condition"]), float(row["grand_mean"]), float(row[low]), float(row[high]))
        for row in table.to_dict("records")
    )
    found = wording.primary_result(grades.primary, grades.mixed)
    return Section(
        result.method,
        title,
        (paragraph, f"{wording.primary_method(grades.primary)} {found}".rstrip()),
        result.notes,
        tables,
        Marks(points, mos, SCALE),
        primary_facts(grades),
    )
