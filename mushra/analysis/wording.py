"""Numbers and sentences of the report: pure functions of an `Analysis`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from mushra.analysis.mixed import CLOSED_FORM, MixedModel
from mushra.analysis.pipeline import PERMUTATION, SYSTEMS, WILCOXON, Analysis, without_doubt
from mushra.analysis.primary import LISTENERS, MIXED, OWN_VARIANCES, Primary
from mushra.analysis.ratings import Ratings
from mushra.analysis.screening import HASTY_S_PER_CONDITION, Verdict
from mushra.analysis.significance import ALPHA, MAX_EXACT_LISTENERS
from mushra.analysis.tidy import SCALE
from mushra.standard import MIN_SCREENED_ITEMS
from qincodec.core.errors import count

#: Shown if there is no number; the reason is in the table's last column or in the notes.
NOTHING = "–"


def points(value: float) -> str:
    """A score or a difference of scores, to a tenth."""
    return NOTHING if math.isnan(value) else f"{value:.1f}"


def interval(low: float, high: float) -> str:
    return NOTHING if math.isnan(low) else f"{low:.1f} to {high:.1f}"


def degrees(df1: float, df2: float) -> str:
    """One or two degrees of freedom, or `NOTHING`."""
    return ", ".join(number(df, 1) for df in (df1, df2) if not math.isnan(df)) or NOTHING


def p_value(p: float) -> str:
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float) -> str:
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def number(value: float, digits: int = 2) -> str:
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}"


def join(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def methods(analysis: Analysis) -> list[str]:
    """Paragraphs for a paper: methods and overall results with their numbers."""
    return [_design(analysis), _primary(analysis), _estimates(analysis), _tests(analysis), _overall(analysis)]


def _design(analysis: Analysis) -> str:
    ratings = analysis.loaded
    controls = []
    if ratings.reference is not None:
        controls.append("the hidden reference")
    if ratings.anchors:
        controls.append(count(len(ratings.anchors), "anchor") + f" ({', '.join(ratings.anchors)})")
    conditions = join([count(len(ratings.systems), "system"), *controls])
    text = (
        f"{count(len(ratings.listeners), 'listener')} rated {count(len(ratings.items), 'item')} under "
        f"{count(len(ratings.conditions), 'condition')} ({conditions}) {_scale(ratings)} in a MUSHRA "
        f"test (ITU-R BS.1534-3), {count(len(ratings.frame), 'rating')} in all. {_shares(ratings)}"
    )
    rules = [
        rule
        for rule, there in (
            ("the hidden reference under 90 on more than 15 % of the items", ratings.reference),
            (
                "the mid anchor over 90 on more than 15 % of the items (leaving out items where more than "
                "25 % of the listeners did)",
                ratings.mid_anchor,
            ),
        )
        if there is not None
    ]
    return f"{text}{_screening(analysis, ' or '.join(rules))}{_doubt(analysis)}"


def _scale(ratings: Ratings) -> str:
    low, high = ratings.scale
    taken = "" if (low, high) == SCALE else ", stretched to 0 to 100,"
    return f"on a scale from {low:g} to {high:g}{taken}"


def _shares(ratings: Ratings) -> str:
    """Numbers of rated items and conditions; "" if every listener rated everything."""
    frame = ratings.frame
    items = frame.groupby("listener")["item"].nunique()
    pages = frame.groupby(["listener", "item"])["condition"].nunique()
    everybody = f"Each of {count(len(items), 'listener')}" if len(items) > 1 else "The listener"
    text = ""
    if items.min() < len(ratings.items):
        text += f"{everybody} rated {_range(items)} of {len(ratings.items)} items"
        raters = frame.groupby("item")["listener"].nunique()
        text += f"; each item was rated by {_range(raters)} of them. "
    if pages.min() < len(ratings.conditions):
        text += f"A page had ratings of {_range(pages)} of {len(ratings.conditions)} conditions. "
    return text


def _range(numbers: pd.Series[int]) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return str(low) if low == high else f"{low} to {high}"


def _screening(analysis: Analysis, rules: str) -> str:
    """Numbers of listeners who were excluded, by which rule, and who rated too few items for a rule."""
    screening, n = analysis.screening, len(analysis.loaded.listeners)
    slipped = screening.with_verdict("slipped")
    few = f"fewer than {MIN_SCREENED_ITEMS} items, where a single slip is more than 15 %"
    stayed = f"{count(slipped, 'listener')} of {n} broke a rule and stayed."
    text = f"Post-screening excludes listeners who rate {rules}"
    if not rules:
        text = "No rule of post-screening could be applied: there is no hidden reference and no mid anchor."
    elif len(screening.out_of_reach) == n:
        text += f". Everybody rated {few}, so it excludes nobody: {stayed}"
    else:
        text += f": {_of(screening.with_verdict('rule'), n)} excluded."
        if slipped or screening.out_of_reach:
            text += f" It excludes nobody over {few}: {stayed}"
    decided: dict[Verdict, str] = {
        "kept": "kept by the experimenter despite a rule",
        "asked": "excluded by the experimenter",
        "flagged": f"excluded because {_doubt_of(analysis.loaded)}",
    }
    for verdict, what in decided.items():
        if number := screening.with_verdict(verdict):
            text += f" {_of(number, n)} {what}."
    return f"{text} {count(len(analysis.ratings.listeners), 'listener')} remained."


def _of(number: int, n: int) -> str:
    return f"{count(number, 'listener')} of {n} {'was' if number == 1 else 'were'}"


#: `mushra.analysis.screening.doubtful` in words.
_DOUBT = (
    "on more than half of the pages only one slider was moved, a system got more than the hidden reference, "
    f"or less than {HASTY_S_PER_CONDITION:g} s were spent for each condition"
)


def _doubt_of(ratings: Ratings) -> str:
    """Reasons for doubt; gold items are named only if somebody got one wrong."""
    return f"{_DOUBT}, or because a gold item was answered wrongly" if ratings.gold_failures else _DOUBT


def _doubt(analysis: Analysis) -> str:
    """Number of kept listeners whose ratings are in doubt, and the result without them."""
    if not (stay := analysis.screening.kept_in_doubt):
        return ""
    text = without_doubt(analysis.ratings, analysis.screening, analysis.primary, analysis.unflagged)
    are = "is" if len(stay) == 1 else "are"
    return f" {len(stay)} of these {are} in doubt, because {_doubt_of(analysis.loaded)}. {text}"


#: `Primary.method` -> description of the primary analysis.
_PRIMARY = {
    MIXED: "the linear mixed model with random listeners, items and all their interactions with each other "
    "and the system; systems are compared by its means, with Satterthwaite's degrees of freedom",
    OWN_VARIANCES: "a linear mixed model of each pair of systems, with random listeners, items and their "
    "interactions, and Satterthwaite's degrees of freedom",
    LISTENERS: "the two-sided Wilcoxon signed-rank test of the listeners' mean differences; the intervals "
    "are Student's",
}


def primary_method(primary: Primary) -> str:
    """Paragraph on the primary analysis: its method, the reason for it, and its population."""
    if primary.method not in _PRIMARY:
        return f"There is no primary analysis: {primary.why}."
    what = _PRIMARY[primary.method]
    return (
        f"The primary analysis is {what}. The rule for this design chose it: {primary.why}. p values of all "
        "pairs are corrected after Holm; each 95 % interval is for its own pair. It holds for "
        f"{primary.population}. All other tests show how far the result depends on the method."
    )


def primary_result(primary: Primary, mixed: MixedModel) -> str:
    """Results of the primary analysis: test of all systems, pairs that differ, pairs that are equivalent."""
    pairs = primary.contrasts
    if pairs.empty:
        return ""
    parts = []
    if primary.method in (MIXED, OWN_VARIANCES):
        common = "(one common variance) " if primary.method == OWN_VARIANCES else ""
        parts.append(f"Over all systems {common}{_f_test(mixed.statistic, mixed.df1, mixed.df2, mixed.p)}")
    found = int((pairs["p_holm"] < ALPHA).sum())
    parts.append(
        f"a difference was found at {ALPHA:g} between {found} of {count(len(pairs), 'pair')} of systems"
    )
    text = "; ".join(parts)
    text = f"{text[0].upper()}{text[1:]}. "
    if found < len(pairs):
        text += "Finding no difference does not mean that two systems are equal; see the intervals. "
    margin = pairs["margin"].iloc[0]
    if math.isnan(margin):
        return text.rstrip()
    equivalent = pairs["p_equivalence_holm"] < ALPHA
    equal, both = int(equivalent.sum()), int((equivalent & (pairs["p_holm"] < ALPHA)).sum())
    text += (
        f"{equal} of {count(len(pairs), 'pair')} {'is' if equal == 1 else 'are'} equivalent within "
        f"±{margin:g} points (two one-sided tests, Holm, {ALPHA:g})."
    )
    return f"{text} {both} of these also differ, by less than the margin." if both else text


def letters_caption(primary: Primary) -> str:
    """Meaning of a shared letter, and its population; "" without letters."""
    if not primary.letters:
        return ""
    test = "Wilcoxon" if primary.method == LISTENERS else "mixed model"
    return (
        f"No difference was found between systems that share a letter ({test}, Holm, {ALPHA:g}); "
        f"letters hold for {primary.population}."
    )


def _primary(analysis: Analysis) -> str:
    primary = analysis.primary
    return f"{primary_method(primary)} {primary_result(primary, analysis.mixed)}".rstrip()


def _f_test(statistic: float, df1: float, df2: float, p: float) -> str:
    return f"F({df1:.0f}, {df2:.1f}) = {statistic:.2f}, {p_equals(p)}"


#: Names of tests, families and effects in words.
TEST_NAMES = {
    "primary": "primary analysis, Holm",
    "mixed_model": "mixed model, Satterthwaite",
    "mixed_model_kenward_roger": "mixed model, Kenward-Roger",
    "friedman": "Friedman",
    "rm_anova": "repeated-measures ANOVA, sphericity assumed",
    "rm_anova_greenhouse_geisser": "repeated-measures ANOVA, Greenhouse-Geisser",
    "rm_anova_huynh_feldt": "repeated-measures ANOVA, Huynh-Feldt",
    WILCOXON: "Wilcoxon signed-rank",
    PERMUTATION: "permutation of medians",
}
FAMILY_NAMES = {"condition": "systems", "item": "items", "condition:item": "system by item"}
EFFECT_NAMES = {"partial_eta_squared": "partial η²", "kendalls_w": "Kendall's W"}


def _estimates(analysis: Analysis) -> str:
    text = (
        "Medians and quartiles are of the ratings. Means are over listeners, each with the mean of the items "
        "he or she rated"
    )
    if len(analysis.ratings.listeners) < 2:
        return f"{text}; with one listener there is no interval."
    text += (
        ", and their 95 % confidence intervals are Student's over these listener means, "
        "because the ratings of one listener are not independent; they hold for other listeners and the same "
        f"items. Bootstrap intervals ({analysis.num_resamples:,} resamples of listeners, "
        f"seed {analysis.seed}) are given beside them"
    )
    if analysis.intervals["crossed_low"].isna().all():
        return f"{text}."
    return (
        f"{text}, and so are intervals for other listeners and other items (two-way random effects, "
        "Satterthwaite's degrees of freedom)."
    )


def _tests(analysis: Analysis) -> str:
    tests = analysis.tests
    pairs = tests[(tests["test"] == WILCOXON) & (tests["family"] == SYSTEMS)]
    if pairs.empty:
        return "There is no pair of systems to compare."
    if pairs["p"].isna().all():
        return f"No pair of systems could be tested: {pairs['reason'].iloc[0]}."
    exact = int(pairs["n_listeners"].max()) <= MAX_EXACT_LISTENERS
    exchanges = "all exchanges" if exact else f"{analysis.num_permutations:,} permutations"
    permuted = tests[(tests["test"] == PERMUTATION) & (tests["family"] == SYSTEMS)]
    ways = [
        (
            "the permutation test of the median difference of BS.1534-3 "
            f"({exchanges}, all ratings of a listener exchanged together)",
            permuted,
            "the permutation test",
        )
    ]
    if analysis.primary.method != LISTENERS:
        ranks = "two-sided Wilcoxon signed-rank tests of the listener means"
        ways.insert(0, (ranks, pairs, "Wilcoxon's test"))
    shares = [f"{(rows['p_holm'] < ALPHA).sum()} by {name}" for _, rows, name in ways]
    return (
        f"For sensitivity, systems were also compared in pairs ({len(pairs)}) with "
        f"{' and with '.join(what for what, *_ in ways)}; p values were corrected after Holm, and Hochberg's "
        f"are given beside them. Significant differences at {ALPHA:g} after Holm: {join(shares)} of "
        f"{len(pairs)}."
    )


def _overall(analysis: Analysis) -> str:
    tests = {(row["test"], row["family"]): row for row in analysis.tests.to_dict("records")}
    friedman = tests["friedman", SYSTEMS]
    parts = []
    if math.isnan(friedman["p"]):
        parts.append(f"Friedman's test: {friedman['reason']}.")
    else:
        parts.append(
            f"Friedman's test over the listener means of the systems: χ²({friedman['df1']:.0f}) = "
            f"{friedman['statistic']:.2f}, {p_equals(friedman['p'])}, Kendall's W = "
            f"{friedman['effect']:.2f}."
        )
    names = {"condition": "system", "item": "item", "condition:item": "system by item"}
    effects = []
    anova = [tests["rm_anova_huynh_feldt", effect] for effect in names]
    for row, name in zip(anova, names.values(), strict=True):
        if math.isnan(row["p"]):
            effects.append(f"{name}: no test ({row['reason']})")
        else:
            effects.append(
                f"{name} F({row['df1']:.1f}, {row['df2']:.1f}) = {row['statistic']:.2f}, "
                f"{p_equals(row['p'])}, ε = {row['epsilon']:.2f}, partial η² = {row['effect']:.2f}"
            )
    if len({row["reason"] for row in anova}) == 1 and all(math.isnan(row["p"]) for row in anova):
        effects = [f"no test ({anova[0]['reason']})"]
    parts.append(
        "Repeated-measures analysis of variance with Huynh and Feldt's correction: "
        + "; ".join(effects)
        + "."
    )
    left_out = tests["rm_anova", "condition"]
    if left_out["reason"] and not math.isnan(left_out["p"]):
        parts.append(f"In it {left_out['reason']}.")
    mixed = analysis.mixed
    if mixed.reason:
        parts.append(f"Linear mixed model: no result, {mixed.reason}.")
    else:
        parts.append(
            "Linear mixed model with random listeners, items and all their interactions with each other "
            f"and the system ({mixed.method}, Satterthwaite): system "
            f"{_f_test(mixed.statistic, mixed.df1, mixed.df2, mixed.p)}."
        )
        if mixed.method != CLOSED_FORM and (other := mixed.kenward_roger) is not None:
            parts.append(
                f"After Kenward and Roger {_f_test(other.statistic, other.df1, other.df2, other.p)}."
            )
    return " ".join(parts)


def condition_rows(analysis: Analysis) -> list[dict[str, str]]:
    """The main table as text: one row per condition, with values after and before screening."""
    before = {row["condition"]: row for row in analysis.conditions_all.to_dict("records")}
    rows = []
    for row in analysis.in_order(analysis.conditions).to_dict("records"):
        name = str(row["condition"])
        all_listeners = before[name]
        rows.append(
            {
                "condition": name,
                "role": role(analysis.ratings, name),
                "n": str(row["n_listeners"]),
                "mean": points(row["mean"]),
                "interval": interval(row["ci_low"], row["ci_high"]),
                "median": points(row["median"]),
                "quartiles": interval(row["q1"], row["q3"]),
                "letters": analysis.letters.get(name, ""),
                "n_all": str(all_listeners["n_listeners"]),
                "mean_all": points(all_listeners["mean"]),
                "interval_all": interval(all_listeners["ci_low"], all_listeners["ci_high"]),
                "median_all": points(all_listeners["median"]),
            }
        )
    return rows


def role(ratings: Ratings, condition: str) -> str:
    if condition == ratings.reference:
        return "hidden reference"
    if condition == ratings.mid_anchor:
        return "mid anchor"
    return "anchor" if condition in ratings.anchors else ""


def summary(analysis: Analysis) -> str:
    """The main table for a terminal."""
    rows = condition_rows(analysis)
    table = pd.DataFrame(
        {
            "condition": [row["condition"] for row in rows],
            "listeners": [row["n"] for row in rows],
            "mean": [row["mean"] for row in rows],
            "95 % interval": [row["interval"] for row in rows],
            "median": [row["median"] for row in rows],
            "quartiles": [row["quartiles"] for row in rows],
        }
    )
    if analysis.letters:
        table["letters"] = [row["letters"] for row in rows]
    return table.to_string(index=False)
