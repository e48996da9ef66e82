"""AB preference: the model of Bradley and Terry, shares of each pair, and transitivity.

    P(a is preferred to b) = 1 / (1 + exp(strength of b - strength of a))

The model is fitted as a logistic regression (statsmodels); an answer without a preference counts as half a
win of each. Answers of one listener are not independent, so the covariance of the strengths is clustered by
listeners (sandwich, times m / (m - 1) for m listeners), and Student's t has m - 1 degrees of freedom.

Strengths are not finite if a system won or lost every comparison, or a group of systems won or lost all
comparisons with the others (Ford 1957). Then only the pairs are given.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import sparse, stats
from scipy.special import expit

from evaluation.statistics.recordings import holm
from mushra.analysis import wording
from mushra.analysis.freedom import Estimate
from mushra.analysis.methods.judgements import names
from mushra.analysis.methods.shares import clustered_share
from mushra.analysis.methods.tables import (
    Marks,
    Row,
    Section,
    Shown,
    fixed,
    percent,
    share,
    share_span,
    span,
    text,
    whole,
)
from mushra.analysis.methods.transitivity import transitivity
from mushra.analysis.significance import ALPHA, compact_letters
from qincodec.core.errors import count

STRENGTH_COLUMNS = ["condition", "n", "wins", "strength", "ci_low", "ci_high", "letters"]
PAIR_COLUMNS = ["a", "b", "n", "n_listeners", "wins_a", "ties", "share", "ci_low", "ci_high", "model_share"]
PAIR_COLUMNS += ["model_low", "model_high", "model_p", "model_p_holm", "listeners_a", "listeners_b"]
PAIR_COLUMNS += ["sign_p", "sign_p_holm"]
#: A variance up to this counts as zero.
_NO_SPREAD = 1e-12
#: More pairs without a preference are not named in words.
_PAIRS_IN_WORDS = 3


@dataclass(frozen=True)
class Fit:
    """Fit of the strengths to the pairs.

    Attributes:
        deviance: against a model with one probability for each pair, which has ``df`` more parameters.
        p: of the chi-squared test, which assumes independent answers.
        scale: increase of the pairs' variance by dependent answers of one listener (Rao and Scott 1984).
        p_clustered: of the F test with the deviance divided by ``scale``.
    """

    deviance: float = math.nan
    df: int = 0
    p: float = math.nan
    scale: float = math.nan
    p_clustered: float = math.nan

    @property
    def poor(self) -> bool:
        """Whether one strength per system does not explain the pairs, so that the sign test judges them."""
        return self.p_clustered < ALPHA


@dataclass(frozen=True, eq=False)
class Preferences:
    """Results of AB pages.

    Attributes:
        strengths: one row per system, `STRENGTH_COLUMNS`: log odds against the average system.
        pairs: one row per compared pair, `PAIR_COLUMNS`. ``share`` of answers for a, ties as halves, with its
            interval over listeners; ``model_*`` after Bradley and Terry; ``listeners_a`` prefer a more often
            than b; ``sign_p`` is of the two-sided sign test over listeners.
        listeners: after `mushra.analysis.methods.transitivity`; the row of listener "" is of the majority.
        fit: fit of the model.
        tie_share: share of answers without a preference.
        reason: why strengths are missing; "" otherwise.
    """

    strengths: pd.DataFrame
    pairs: pd.DataFrame
    listeners: pd.DataFrame
    fit: Fit
    tie_share: float
    reason: str = ""


def analyze_preferences(frame: pd.DataFrame) -> Preferences:
    """Strengths, pairs, transitivity and fit.

    Args:
        frame: rows of method ``ab`` (`mushra.analysis.methods.judgements`).
    """
    table = oriented(frame)
    systems = names([*table["a"], *table["b"]])
    reason = _no_strengths(table, systems)
    listeners = table["listener"].nunique()
    strengths = pd.DataFrame([_counts(table, name) for name in systems], columns=STRENGTH_COLUMNS)
    pairs = [_pair(rows) for _, rows in table.groupby("pair", sort=False)]
    fit = Fit()
    if not reason:
        values, covariance = bradley_terry(table, systems)
        place = {name: number for number, name in enumerate(systems)}
        if listeners < len(systems):  # the rank of the covariance is too low
            covariance = np.full_like(covariance, math.nan)
        for number in range(len(systems)):
            own = _estimate(values[number], covariance[number, number], listeners)
            strengths.loc[number, ["strength", "ci_low", "ci_high"]] = [own.value, *own.interval()]
        for row in pairs:
            weights = np.zeros(len(systems))
            weights[place[str(row["a"])]], weights[place[str(row["b"])]] = 1.0, -1.0
            difference = _estimate(float(weights @ values), float(weights @ covariance @ weights), listeners)
            low, high = difference.interval()
            row |= {
                "model_share": expit(difference.value),
                "model_low": expit(low),
                "model_high": expit(high),
            }
            row["model_p"] = difference.p
        fit = _fit(table, systems, values)
    found = pd.DataFrame(pairs, columns=PAIR_COLUMNS)
    for p in ("model_p", "sign_p"):
        found[f"{p}_holm"] = holm(found[p].astype(float).tolist())
    complete = len(found) == math.comb(len(systems), 2) and found["model_p"].notna().all()
    if not reason and complete and not fit.poor:
        different = {
            frozenset((r["a"], r["b"])) for r in found.to_dict("records") if r["model_p_holm"] < ALPHA
        }
        order = strengths.sort_values(["strength", "condition"], ascending=[False, True])["condition"]
        letters = compact_letters(list(order), lambda a, b: frozenset((a, b)) in different)
        strengths["letters"] = strengths["condition"].map(letters)
    else:
        strengths["letters"] = ""
    ties = float((table["win"] == 0.5).mean())
    return Preferences(strengths, found, transitivity(table, systems), fit, ties, reason)


def _estimate(value: float, variance: float, listeners: int) -> Estimate:
    """Estimate whose error is NaN if listeners do not differ: then it does not hold for others."""
    error = math.sqrt(variance) if variance > _NO_SPREAD else math.nan
    return Estimate(float(value), error, listeners - 1.0)


def oriented(frame: pd.DataFrame) -> pd.DataFrame:
    """``listener, a, b, pair, win``: a before b in natural order; win is 1 for a, 0 for b, 0.5 for ties."""
    order = {name: place for place, name in enumerate(names([*frame["condition"], *frame["reference"]]))}
    swap = frame["condition"].map(order) > frame["reference"].map(order)
    a = frame["condition"].mask(swap, frame["reference"])
    b = frame["reference"].mask(swap, frame["condition"])
    win = pd.Series(np.select([frame["answer"] == a, frame["answer"] == b], [1.0, 0.0], 0.5), frame.index)
    table = pd.DataFrame({"listener": frame["listener"], "a": a, "b": b, "win": win})
    table["pair"] = list(zip(a.map(order), b.map(order), strict=True))
    return table.sort_values(["pair", "listener", "win"], kind="stable").reset_index(drop=True)


def _counts(table: pd.DataFrame, name: str) -> dict[str, object]:
    first, second = table.loc[table["a"] == name, "win"], table.loc[table["b"] == name, "win"]
    wins = float(first.sum() + (1 - second).sum())
    return {"condition": name, "n": len(first) + len(second), "wins": wins, "strength": math.nan}


def _no_strengths(table: pd.DataFrame, systems: Sequence[str]) -> str:
    """Reason why some strengths are not finite: wins and ties do not connect all systems; "" otherwise."""
    if table["listener"].nunique() < 2:
        return "an interval needs 2 listeners, there is one"
    place = {name: number for number, name in enumerate(systems)}
    a, b = table["a"].map(place).to_numpy(), table["b"].map(place).to_numpy()
    beats = np.zeros((len(systems), len(systems)))
    np.add.at(beats, (a, b), table["win"].to_numpy())
    np.add.at(beats, (b, a), 1 - table["win"].to_numpy())
    groups, _ = sparse.csgraph.connected_components(beats + beats.T, directed=False)
    if groups > 1:
        return f"{groups} groups of systems were never compared with each other"
    parts, group = sparse.csgraph.connected_components(beats, directed=True, connection="strong")
    if parts == 1:
        return ""
    # The likelihood has no maximum if a system lost or won everything.
    wins, losses = beats.sum(axis=1), beats.sum(axis=0)
    always = [name for name, *sums in zip(systems, wins, losses, strict=True) if 0 in sums]
    who = wording.join(always[:3]) if always else f"a group of {int(np.bincount(group).min())} systems"
    return f"{who} won or lost every comparison, so strengths are not finite"


def _design(table: pd.DataFrame, systems: Sequence[str]) -> np.ndarray:
    """(answers, systems - 1): +1 for a, -1 for b; the last system has no column."""
    a, b = (pd.Categorical(table[name], categories=list(systems)).codes for name in ("a", "b"))
    eye = np.eye(len(systems))
    return np.asarray((eye[a] - eye[b])[:, :-1])


def bradley_terry(table: pd.DataFrame, systems: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Strengths that sum to zero, and their covariance clustered by listeners.

    Args:
        table: ``listener, a, b, win``.
        systems: all systems of the table; their strengths must be finite.
    """
    # This import takes 1.5 s; tests without strengths do not need it.
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM
    from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

    groups = pd.factorize(table["listener"])[0]
    model = GLM(table["win"].to_numpy(), _design(table, systems), family=Binomial())
    with warnings.catch_warnings():
        # A perfect fit is not always a separation: all answers may be ties.
        warnings.simplefilter("ignore", PerfectSeparationWarning)
        found = model.fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False})
    m = groups.max() + 1
    k = len(systems)
    centre = np.vstack([np.eye(k - 1), np.zeros(k - 1)]) - 1 / k
    return centre @ found.params, centre @ (found.cov_params() * m / (m - 1)) @ centre.T


def _pair(rows: pd.DataFrame) -> dict[str, object]:
    groups = rows.groupby("listener")["win"]
    wins, n = groups.sum().to_numpy(), groups.size().to_numpy()
    found = clustered_share(wins, n)
    for_a, for_b = int((wins > n / 2).sum()), int((wins < n / 2).sum())
    sign = float(stats.binomtest(for_a, for_a + for_b).pvalue) if for_a + for_b else 1.0
    return {
        "a": rows["a"].iloc[0],
        "b": rows["b"].iloc[0],
        "n": len(rows),
        "n_listeners": len(n),
        "wins_a": int((rows["win"] == 1).sum()),
        "ties": int((rows["win"] == 0.5).sum()),
        "share": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
        "listeners_a": for_a,
        "listeners_b": for_b,
        "sign_p": sign,
    }


def _fit(table: pd.DataFrame, systems: Sequence[str], values: np.ndarray) -> Fit:
    """Deviance of the pairs against a model with one probability for each."""
    codes, pairs = pd.factorize(table["pair"])
    df = len(pairs) - (len(systems) - 1)
    if df < 1:
        return Fit(df=df)
    n = np.bincount(codes).astype(float)
    wins = np.bincount(codes, table["win"])
    first = table.drop_duplicates("pair")
    design = _design(first, systems)
    p = expit(design @ (values[:-1] - values[-1]))
    expected = n * p
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [
            np.where(x > 0, x * np.log(x / e), 0.0) for x, e in ((wins, expected), (n - wins, n - expected))
        ]
    deviance = 2 * float(np.sum(parts))
    # Residuals of each listener, after the fit of the strengths, show the variance of clustered answers.
    listener = pd.factorize(table["listener"])[0]
    m = int(listener.max()) + 1
    residuals = np.zeros((m, len(pairs)))
    np.add.at(residuals, (listener, codes), table["win"].to_numpy() - p[codes])
    weight = np.diag(expected * (1 - p))
    taken = weight @ design @ np.linalg.solve(design.T @ weight @ design, design.T)
    rest = residuals @ (np.eye(len(pairs)) - taken).T
    scale = m / (m - 1) * float((rest**2 / np.diag(weight)).sum()) / df
    clustered = float(stats.f.sf(deviance / df / scale, df, df * (m - 1))) if scale > 0 else 1.0
    return Fit(deviance, df, float(stats.chi2.sf(deviance, df)), scale, clustered)


# Report


def section(result: Preferences) -> Section:
    pairs, fit = result.pairs, result.fit
    panel = result.listeners.iloc[0]
    people = result.listeners.iloc[1:]
    paragraph = (
        f"{count(len(people), 'listener')} gave {count(int(people['n'].sum()), 'preference')} between "
        f"{count(len(result.strengths), 'system')} in {count(len(pairs), 'pair')} (AB); "
        f"{percent(result.tie_share)} of the answers were without preference and count as half a win of "
        "each. "
    )
    if result.reason:
        paragraph += f"The model of Bradley and Terry (1952) cannot be fitted: {result.reason}. "
    else:
        paragraph += (
            "Strengths are those of Bradley and Terry (1952), log odds against the average system, with 95 % "
            "intervals from a covariance clustered by listeners (Student's t); they hold for other listeners "
            "and the same items. Pairs are corrected after Holm. The model's test judges a pair; "
            "the sign test does so where the model does not fit or has no interval. "
        )
    paragraph += (
        "Shares of each pair have 95 % intervals over listeners (Korn and Graubard 1998) and a two-sided "
        "sign test over listeners, who each count for the system that they preferred more often."
    )
    paragraphs = [*result_words(result), paragraph, _fit_words(fit)]
    if panel["triads"]:
        triads, circular = int(people["triads"].sum()), int(people["circular"].sum())
        zeta = people["zeta"].mean() if people["zeta"].notna().any() else math.nan
        paragraphs.append(
            f"Transitivity: {circular} of {count(triads, 'triad')} of the listeners are circular; by chance "
            f"it would be one in four. Kendall's zeta is {wording.number(zeta)} on average"
            f" and {wording.number(panel['zeta'])} for the panel's majority."
        )
    strengths = result.strengths.sort_values(
        ["strength", "wins", "condition"], ascending=[False, False, True]
    )
    letters = (strengths["letters"] != "").any()
    caption = "Strengths: log odds of being preferred to the average system, with 95 % intervals."
    if letters:
        caption += f" The model found no difference between systems that share a letter (Holm, {ALPHA:g})."
    tables = (
        Shown(
            "strengths",
            caption,
            strengths,
            [
                ("system", text("condition")),
                ("answers", text("n")),
                ("wins", whole("wins")),
                ("strength", fixed("strength", sign=True)),
                ("95 % interval", span("ci_low", "ci_high")),
                *([("letters", text("letters"))] if letters else []),
            ],
        ),
        Shown(
            "pairs",
            "Pairs: share of answers for a (a tie counts half), the same share by the model, and number of "
            "listeners who chose a or b more often.",
            pairs,
            [
                ("a", text("a")),
                ("b", text("b")),
                ("answers", text("n")),
                ("ties", text("ties")),
                ("prefer a", share("share")),
                ("95 % interval", share_span("ci_low", "ci_high")),
                ("model", share("model_share")),
                ("95 % interval", share_span("model_low", "model_high")),
                ("p, Holm", lambda row: wording.p_value(row["model_p_holm"])),
                ("listeners for a, b", lambda row: f"{row['listeners_a']}, {row['listeners_b']}"),
                ("sign test p, Holm", lambda row: wording.p_value(row["sign_p_holm"])),
            ],
            num_names=2,
        ),
        Shown(
            "listeners",
            "Transitivity of each listener's majorities. Without circular triads Kendall's zeta is 1.",
            result.listeners,
            [
                ("listener", lambda row: row["listener"] or "the panel's majority"),
                ("answers", text("n")),
                ("ties", text("ties")),
                ("triads", text("triads")),
                ("circular", text("circular")),
                ("zeta", fixed("zeta")),
                ("remark", text("remark")),
            ],
        ),
    )
    if result.reason or fit.poor:
        points = tuple(
            (f"{row['a']} over {row['b']}", 100 * row["share"], 100 * row["ci_low"], 100 * row["ci_high"])
            for row in pairs.to_dict("records")
        )
        figure = Marks(points, "preferred (%)", (0, 100), 50.0)
    else:
        points = tuple(
            (str(row["condition"]), float(row["strength"]), float(row["ci_low"]), float(row["ci_high"]))
            for row in strengths.to_dict("records")
        )
        figure = Marks(points, "strength (log odds)", line=0.0)
    notes = [f"Strengths are missing: {result.reason}."] if result.reason else []
    if not result.reason and pairs["model_p"].isna().any():
        notes.append(
            "Some strengths have no interval: it needs as many listeners as systems, and different answers."
        )
    if fit.poor:
        notes.append("The model does not fit: its strengths and shares do not describe the pairs.")
    facts = {"fit": asdict(fit), "tie_share": result.tie_share, "reason": result.reason}
    return Section(
        "ab", "AB: preferences", tuple(filter(None, paragraphs)), tuple(notes), tables, figure, facts
    )


def result_words(result: Preferences) -> list[str]:
    """A paragraph on what was preferred; where many pairs show no preference, their number."""
    said: dict[str, list[str]] = {"found": [], "disagree": [], "none": []}
    for row in result.pairs.to_dict("records"):
        kind, sentence = _pair_words(_favoured_first(row), result.fit)
        said[kind].append(sentence)
    if len(said["none"]) > _PAIRS_IN_WORDS:
        said["none"] = [f"No preference was found in {count(len(said['none']), 'pair')}."]
    sentences = list(itertools.chain(*said.values()))
    if result.fit.poor:
        p = wording.p_equals(result.fit.p_clustered)
        sentences.append(f"The model does not fit ({p}), so the sign test judges each pair.")
    if len(result.pairs) > 1:
        sentences.append("All p of pairs are corrected after Holm, intervals are not.")
    return [" ".join(sentences)] if sentences else []


def _favoured_first(row: Row) -> Row:
    """The row with a and b exchanged if b has more of the answers."""
    if row["share"] >= 0.5:
        return row
    ends = {"share": "share", "ci_low": "ci_high", "model_share": "model_share", "model_low": "model_high"}
    turned: Row = {x: 1 - row[y] for one, other in ends.items() for x, y in ((one, other), (other, one))}
    pairs = (("a", "b"), ("listeners_a", "listeners_b"))
    return row | turned | {x: row[y] for one, other in pairs for x, y in ((one, other), (other, one))}


def _pair_words(row: Row, fit: Fit) -> tuple[str, str]:
    """What tests and interval say of a pair together, and the sentence.

    The model's test learns from the other pairs, too, so it may find what the pair's own interval does not.
    Beside it, the sign test has a say if it finds another preference.
    """

    def preferred(p: float, lead: float) -> str:
        return "" if not p < ALPHA else a if lead > 0 else b

    a, b, p, sign_p = (row[name] for name in ("a", "b", "model_p_holm", "sign_p_holm"))
    by_sign = preferred(sign_p, row["listeners_a"] - row["listeners_b"])
    has_model = not fit.poor and not math.isnan(p)
    tests: list[tuple[str, str]] = []
    if has_model:
        model = f"{percent(row['model_share'])} ({share_span('model_low', 'model_high')(row)}"
        by_model = preferred(p, row["model_share"] - 0.5)
        tests.append((by_model, f"the model gives {model}; {wording.p_equals(p)})"))
    if not tests or by_sign not in ("", tests[0][0]):
        listeners = f"{count(row['listeners_a'], 'listener')} for {a}, {row['listeners_b']} for {b}"
        tests.append((by_sign, f"the sign test gives {wording.p_equals(sign_p)} ({listeners})"))
    found, by_interval = {name for name, _ in tests}, a if row["ci_low"] > 0.5 else ""
    own = share_span("ci_low", "ci_high")(row)
    if found != {by_interval}:
        own += f", which {'excludes' if by_interval else 'includes'} 50 %"
    said = [f"{a} has {percent(row['share'])} of the answers (95 % interval {own})", *(t for _, t in tests)]
    if found == {a} and (by_interval or has_model):
        who = "" if by_interval else " by the model"
        return "found", f"{a} was preferred to {b}{who}: {'; '.join(said)}."
    if found == {by_interval}:
        return "none", f"No preference between {a} and {b} was found: {'; '.join(said)}."
    said[1:] = [f"{t} and finds {f'a preference for {who}' if who else 'no preference'}" for who, t in tests]
    return "disagree", f"The results for {a} and {b} disagree: {'; '.join(said)}."


def _fit_words(fit: Fit) -> str:
    if math.isnan(fit.p):
        return ""
    return (
        "Fit of the model against one probability for each pair: deviance "
        f"{fit.deviance:.2f} on {fit.df} df, p = {wording.p_value(fit.p)} if all answers were independent; "
        f"with listeners as clusters (deviance over {fit.scale:.2f}) p = {wording.p_value(fit.p_clustered)}. "
        "A small p means that one strength per system does not explain the pairs."
    )
