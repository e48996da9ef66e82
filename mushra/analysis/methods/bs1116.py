"""BS.1116: difference grades, and which listeners distinguished the coded signals from the hidden reference.

A difference grade (SDG) is the grade of the condition minus that of the hidden reference beside it: 0 if no
difference was heard, above 0 if the coded signal was taken for the reference. BS.1116-3 looks at each
listener's SDGs after the test: a one-sided t test asks whether their mean is below 0. A listener who does not
pass may have guessed, and is excluded as not an expert in this material. The report also has the result
before this screening.

If nobody can hear a difference of a system, nobody can pass on it. So the test is over all conditions.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from mushra.analysis import wording
from mushra.analysis.description import bounds, caption_beyond
from mushra.analysis.methods.grades import (
    Grades,
    contrast_table,
    describe,
    interval_notes,
    primary_facts,
)
from mushra.analysis.methods.judgements import names
from mushra.analysis.methods.tables import Marks, Section, Shown, fixed, share, span, text
from mushra.analysis.ratings import Problem, Ratings
from mushra.analysis.significance import ALPHA
from mushra.analysis.tidy import average_repeats
from qincodec.core.errors import count

#: Lowest and highest difference grade of who finds the hidden reference.
SCALE = (-4.0, 0.0)
#: Lowest and highest that there can be: who takes the coded signal for the reference grades above 0.
POSSIBLE = (-4.0, 4.0)
LISTENER_COLUMNS = [
    "listener",
    "n",
    "mean",
    "statistic",
    "p",
    "negative_share",
    "zero_share",
    "verdict",
    "reason",
]

#: expert: the t test finds the SDGs below 0; not found: it does not, and the listener is excluded; kept,
#: asked: the experimenter decided otherwise.
Verdict = Literal["expert", "not found", "kept", "asked"]
_EXCLUDED = ("not found", "asked")


@dataclass(frozen=True, eq=False)
class DifferenceGrades:
    """Results of BS.1116 pages.

    Attributes:
        listeners: one row per listener, `LISTENER_COLUMNS`; ``p`` is of the one-sided t test.
        screened, everybody: difference grades with and without the expert screening; the same object if
            nobody is excluded.
        notes: limits, one sentence each.
    """

    listeners: pd.DataFrame
    screened: Grades
    everybody: Grades
    notes: tuple[str, ...]

    @property
    def excluded(self) -> tuple[str, ...]:
        return tuple(self.listeners.loc[self.listeners["verdict"].isin(_EXCLUDED), "listener"])


def analyze_bs1116(
    frame: pd.DataFrame,
    problems: list[Problem],
    *,
    seed: int,
    margin: float | None = None,
    num_resamples: int = 10_000,
    keep: Collection[str] = (),
    exclude: Collection[str] = (),
) -> DifferenceGrades:
    """Difference grades before and after screening.

    Args:
        frame: rows of method ``bs1116`` (`mushra.analysis.methods.judgements`).
        problems: new problems are added.
        seed: of the bootstrap.
        margin: points within which two systems count as equivalent.
        num_resamples: of the bootstrap.
        keep: listeners to keep whatever their t test says; ``all`` for everybody.
        exclude: listeners to exclude.
    """
    frame = frame.assign(score=frame["score"] - frame["reference_score"], session=frame["listener"])
    ratings = Ratings(average_repeats(frame, problems), ends=SCALE)
    listeners = expert_screening(frame, keep=keep, exclude=exclude)
    notes = []
    left = ~listeners["verdict"].isin(_EXCLUDED)
    if not left.any():
        listeners.loc[listeners["verdict"] == "not found", "verdict"] = "kept"
        left = listeners["verdict"] == "kept"
        notes.append(
            "No listener distinguished the conditions from the hidden reference: nobody is excluded, and the "
            "conditions may be transparent. Means near 0 do not prove this; see their intervals."
        )
    few = listeners["n"].min()
    if few < 5:
        notes.append(
            f"A listener gave {count(int(few), 'difference grade')}: the t test of so few finds experts only "
            "if differences are large."
        )
    out = listeners.loc[~left, "listener"]
    options: dict[str, Any] = {"seed": seed, "margin": margin, "num_resamples": num_resamples}
    everybody = describe(ratings, **options)
    screened = describe(ratings.without(out), **options) if len(out) else everybody
    return DifferenceGrades(listeners, screened, everybody, (*notes, *interval_notes(screened, POSSIBLE)))


def expert_screening(
    frame: pd.DataFrame, *, keep: Collection[str] = (), exclude: Collection[str] = ()
) -> pd.DataFrame:
    """Each listener's t test of the SDGs against 0, one-sided: `LISTENER_COLUMNS`.

    ``negative_share`` and ``zero_share`` count SDGs below and at 0: a listener who guesses has as many above
    as below. They exclude nobody.

    Args:
        frame: ``listener`` and ``score``, the difference grade.
    """
    rows = []
    for listener in names(frame["listener"]):
        grades = frame.loc[frame["listener"] == listener, "score"].to_numpy(dtype=float)
        statistic, p, reason = math.nan, math.nan, ""
        if len(grades) < 2:
            reason = "a t test needs 2 difference grades"
        elif np.ptp(grades) < 1e-9:
            # Without spread the result is certain.
            p = 0.0 if grades[0] < 0 else 1.0
            reason = "all difference grades are equal"
        else:
            result = stats.ttest_1samp(grades, 0.0, alternative="less")
            statistic, p = float(result.statistic), float(result.pvalue)
        verdict: Verdict = "expert" if p < ALPHA else "not found"
        if verdict == "not found" and ("all" in keep or listener in keep):
            verdict = "kept"
        if listener in exclude:
            verdict = "asked"
        shares = float((grades < 0).mean()), float((grades == 0).mean())
        rows.append((listener, len(grades), float(grades.mean()), statistic, p, *shares, verdict, reason))
    return pd.DataFrame(rows, columns=LISTENER_COLUMNS)


# Report

_VERDICTS = {
    "expert": "stays",
    "not found": "excluded: no difference found",
    "kept": "no difference found, kept",
    "asked": "excluded as asked",
}


def section(result: DifferenceGrades) -> Section:
    grades, everybody = result.screened, result.everybody
    n, out = len(everybody.ratings.listeners), len(result.excluded)
    kept = int((result.listeners["verdict"] == "kept").sum())
    paragraph = (
        f"{count(n, 'listener')} graded {count(len(everybody.ratings.systems), 'condition')} of "
        f"{count(len(everybody.ratings.items), 'item')} beside a hidden reference on the scale of impairment "
        f"from 1 to 5 (ITU-R BS.1116-3), {count(len(everybody.ratings.frame), 'difference grade')} in all. "
        "A difference grade is the grade of the condition minus that of the hidden reference. Post-screening "
        "excludes listeners whose difference grades are not below 0 by a one-sided t test at 5 %: "
        f"{out} of {count(n, 'listener')} {'was' if out == 1 else 'were'} excluded"
        + (f", {kept} kept despite it. " if kept else ". ")
        + "Means are over listeners, with Student's 95 % intervals over their means, because the grades of "
        "one listener are not independent; they hold for other listeners and the same items."
    )
    before = everybody.means.set_index("condition")
    table = grades.means.assign(
        **{
            f"{name}_all": grades.means["condition"].map(before[name])
            for name in ("n_listeners", "mean", "t_low", "t_high")
        },
        letters=[grades.primary.letters.get(name, "") for name in grades.means["condition"]],
    ).sort_values(["mean", "condition"], ascending=[False, True])
    columns = [
        ("condition", text("condition")),
        ("listeners", text("n_listeners")),
        ("mean SDG", fixed("mean")),
        ("95 % interval", span("t_low", "t_high")),
        ("bootstrap", span("bootstrap_low", "bootstrap_high")),
        ("other items too", span("both_low", "both_high")),
        *([("letters", text("letters"))] if grades.primary.letters else []),
        ("all listeners", text("n_listeners_all")),
        ("mean SDG", fixed("mean_all")),
        ("95 % interval", span("t_low_all", "t_high_all")),
    ]
    listeners = result.listeners.assign(
        excluded=result.listeners["verdict"].isin(_EXCLUDED),
        what=result.listeners["verdict"].map(_VERDICTS),
    )
    caption = "Difference grades with 95 % intervals over listeners, after and before expert screening."
    if grades.primary.letters:
        caption += f" {wording.letters_caption(grades.primary)}"
    caption += caption_beyond(bounds(table, "t"), POSSIBLE)
    tables = (
        Shown("conditions", caption, table, columns),
        contrast_table(grades),
        Shown(
            "listeners",
            "Expert screening: one-sided t test of each listener's difference grades (SDG) against 0. Shares "
            "below and at 0 exclude nobody.",
            listeners.drop(columns="what"),
            [
                ("listener", text("listener")),
                ("SDGs", text("n")),
                ("mean SDG", fixed("mean")),
                ("t", fixed("statistic")),
                ("p", lambda row: wording.p_value(row["p"])),
                ("below 0", share("negative_share")),
                ("at 0", share("zero_share")),
                ("verdict", lambda row: _VERDICTS[row["verdict"]]),
                ("remark", text("reason")),
            ],
            marked="excluded",
        ),
    )
    points = tuple(
        (str(row["condition"]), float(row["mean"]), float(row["t_low"]), float(row["t_high"]))
        for row in table.to_dict("records")
    )
    found = wording.primary_result(grades.primary, grades.mixed)
    return Section(
        "bs1116",
        "BS.1116: difference grades",
        (paragraph, f"{wording.primary_method(grades.primary)} {found}".rstrip()),
        result.notes,
        tables,
        Marks(points, "difference grade", (-4.0, 1.0), line=0.0),
        primary_facts(grades),
    )
