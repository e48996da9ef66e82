"""`mushra plan`: against `analyze`, noncentral distributions, scipy's tests, statsmodels' ANOVA."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from scipy import stats
from synthetic_ratings import simulate, tidy
from typer.testing import CliRunner

from evaluation.statistics.recordings import holm
from mushra.analysis.mixed import full_table_model, mixed_model
from mushra.analysis.primary import MIXED, primary_analysis, uneven
from mushra.analysis.ratings import Ratings, with_roles
from mushra.analysis.significance import paired_pages, wilcoxon_test
from mushra.cli.study import parse_numbers, register
from mushra.study.components import TYPICAL, Components, estimate_components
from mushra.study.power import (
    METHODS,
    Method,
    draw_plan,
    first_found,
    format_plan,
    model_statistics,
    plan,
    wilcoxon_p,
)
from qincodec.core.errors import UserError

SIZES: dict[str, Any] = {"sd_listener_condition": 5, "sd_item_condition": 9, "sd_rest": 12}


def mean_squares(scores: np.ndarray) -> np.ndarray:
    """Of listener x system, item x system and the rest, of (listeners, systems, items): from projections."""
    parts = []
    for axes in ((0, 1), (1, 2), (0, 1, 2)):
        part = scores.mean(axis=tuple({0, 1, 2} - set(axes)), keepdims=True)
        for axis in axes:
            part = part - part.mean(axis=axis, keepdims=True)
        df = math.prod(scores.shape[axis] - 1 for axis in axes)
        parts.append((part**2).sum() * scores.size / part.size / df)
    return np.array(parts)


@pytest.mark.parametrize("spread", [(5, 9), (5, 0.5), (0.5, 9), (0.3, 0.3)])
def test_the_contrasts_are_those_of_analyze(spread: tuple[float, float]) -> None:
    """p, before and after Holm's correction, with components at zero, too: eight tests whose spread is equal.

    In a few the rule finds it unequal by chance, and takes another model.
    """
    boundary, compared = set(), 0
    for seed in range(10):
        scores = simulate(
            seed,
            means=(56, 50, 53, 53),
            listeners=7,
            items=5,
            sd_listener_condition=spread[0],
            sd_item_condition=spread[1],
        )
        frame = tidy(scores).assign(score=lambda table: table["score"].clip(1, 99))
        scores = frame["score"].to_numpy().reshape(scores.shape)
        ratings = with_roles(frame)
        mixed = mixed_model(frame, ratings.systems)
        boundary.add(mixed.at_zero)
        expected = primary_analysis(ratings, mixed)
        if expected.method != MIXED:
            assert uneven(scores, ratings.systems)
            continue
        compared += 1
        t, df = model_statistics(scores.mean(axis=(0, 2))[None], mean_squares(scores)[None], (7, 5))
        p = 2 * stats.t.sf(abs(t[0]), df[0])
        np.testing.assert_allclose(t[0], expected.contrasts["statistic"].astype(float), rtol=1e-9)
        np.testing.assert_allclose(p, expected.contrasts["p"].astype(float), rtol=1e-9)
        for level in (0.05, 0.3, 0.9):
            found = first_found(lambda _, pairs, p=p: p[None, pairs], 1, len(p), level)
            assert found[0] == (expected.contrasts["p_holm"][0] < level)
    assert compared >= 8
    assert boundary - {()} or spread == (5, 9)


def test_power_is_how_often_analyze_finds_the_pair() -> None:
    """28 listeners, 10 items, 6 systems: ratings drawn one by one, against chi-squared mean squares."""
    planned = plan(TYPICAL, 15, listeners=[28], items=[10], systems=6, num_simulations=20_000).table.iloc[0]
    levels = (57.5, 42.5, 50, 50, 50, 50)
    names = list("ABCDEF")
    found = []
    for seed in range(300):
        model = full_table_model(simulate(seed, means=levels, listeners=28, items=10, **SIZES), names)
        found.append(holm([contrast.p for contrast in model.contrasts.values()])[0] < 0.05)
    assert 0.3 < planned["power"] < 0.7
    assert abs(np.mean(found) - planned["power"]) < 3.5 * math.sqrt(0.25 / len(found))


@pytest.mark.long
@pytest.mark.parametrize(("method", "difference"), [("primary", 15), ("wilcoxon", 5)])
def test_power_is_how_often_letters_part_the_pair(method: Method, difference: float) -> None:
    """The letters of `analyze`; for the items of the test, Wilcoxon's p after Holm's correction."""
    planned = plan(TYPICAL, difference, listeners=[28], items=[10], method=method).table.iloc[0]
    levels = np.full(6, 50.0) + np.array([1, -1, 0, 0, 0, 0]) * difference / 2
    # For the items of the test, the same in every test: without item x system.
    sizes: dict[str, Any] = SIZES if method == "primary" else {**SIZES, "sd_item_condition": 0}
    found = []
    for seed in range(300):
        ratings = Ratings(tidy(simulate(seed, means=levels, listeners=28, items=10, **sizes)))
        if method == "primary":
            primary = primary_analysis(ratings, mixed_model(ratings.frame, ratings.systems))
            found.append(not set(primary.letters["A"]) & set(primary.letters["B"]))
        else:
            pairs = [paired_pages(ratings.frame, a, b) for a, b in itertools.combinations("ABCDEF", 2)]
            found.append(holm([wilcoxon_test(pages).p for pages in pairs])[0] < 0.05)
    assert abs(np.mean(found) - planned["power"]) < 3.5 * math.sqrt(0.25 / len(found))


def t_power(sd: Components, difference: float, listeners: int, items: int, alpha: float = 0.05) -> float:
    """Closed form of two systems in a paired t test of listeners' means: noncentral t."""
    spread = math.sqrt(2 * sd.listener_condition**2 + 2 * sd.residual**2 / items)
    shift = difference / spread * math.sqrt(listeners)
    critical = stats.t.ppf(1 - alpha / 2, listeners - 1)
    wrong_side = stats.nct.cdf(-critical, listeners - 1, shift)  # scipy gives NaN where it vanishes
    return float(stats.nct.sf(critical, listeners - 1, shift) + np.nan_to_num(wrong_side))


@pytest.mark.parametrize(("difference", "alpha"), [(6, 0.05), (12, 0.01), (-6, 0.05)])
def test_wilcoxons_power_is_near_that_of_the_t_test(difference: float, alpha: float) -> None:
    """Of normal differences: a relative efficiency of 3 / pi, no item x system in it."""
    result = plan(
        TYPICAL, difference, listeners=[20, 40], items=[5, 13], systems=2, method="wilcoxon", alpha=alpha
    )
    for row in result.table.to_dict("records"):
        expected = t_power(TYPICAL, abs(difference), row["listeners"], row["items"], alpha)
        less = t_power(TYPICAL, abs(difference) * math.sqrt(0.85), row["listeners"], row["items"], alpha)
        assert less - 4 * row["standard_error"] < row["power"] < expected + 4 * row["standard_error"], row


def test_with_endless_listeners_the_power_of_the_model_is_that_of_a_t_test_over_items() -> None:
    sd = Components(listener_condition=0, item_condition=6, residual=3)
    row = plan(sd, 8, listeners=[400], items=[10], systems=2, num_simulations=4000).table.iloc[0]
    spread = math.sqrt(2 * 6**2 + 2 * 3**2 / 400)
    critical, shift = stats.t.ppf(0.975, 9), 8 / spread * math.sqrt(10)
    expected = stats.nct.sf(critical, 9, shift) + stats.nct.cdf(-critical, 9, shift)
    assert abs(row["power"] - expected) < 4 * row["standard_error"]


def test_item_by_system_plays_no_part_for_these_items_and_does_for_new_ones() -> None:
    small, large = (Components(5, item, 12) for item in (0, 15))
    powers = {
        (method, sd.item_condition): plan(sd, 8, method=method, listeners=[15], items=[8], systems=2)
        .table["power"]
        .iloc[0]
        for method in METHODS
        for sd in (small, large)
    }
    assert powers["wilcoxon", 0] == powers["wilcoxon", 15]
    assert powers["primary", 0] > powers["primary", 15] + 0.2


def test_more_systems_take_power() -> None:
    """Between that of the pair alone and that of Bonferroni's correction, which Holm's never falls below."""
    sizes = {"listeners": [20], "items": [12], "num_simulations": 8000}
    alone, six = (plan(TYPICAL, 12, systems=k, **sizes).table["power"][0] for k in (2, 6))  # type: ignore[arg-type]
    # Six systems also give more degrees of freedom, so the pair alone has less than the bound by 0.05 / 15.
    bound = plan(TYPICAL, 12, systems=2, alpha=0.05 / 15, **sizes).table["power"][0]  # type: ignore[arg-type]
    assert bound < six < alone - 0.1


@pytest.mark.parametrize(
    ("method", "sd", "systems", "bounds"),
    [
        ("wilcoxon", TYPICAL, 2, (0.03, 0.06)),
        # Satterthwaite's degrees of freedom are an approximation: near 5 %, above it with few items.
        ("primary", TYPICAL, 2, (0.03, 0.075)),
        ("primary", Components(8, 0, 12), 2, (0.01, 0.06)),
        ("primary", TYPICAL, 5, (0.001, 0.01)),
    ],
)
def test_false_positives(method: Method, sd: Components, systems: int, bounds: tuple[float, float]) -> None:
    """Of one pair of equal systems: 5 % without others, about 5 % over the number of pairs with them."""
    result = plan(
        sd, 1e-9, listeners=[8, 20], items=[6, 12], systems=systems, method=method, num_simulations=6000
    )
    assert result.table["power"].between(*bounds).all(), result.table


def test_with_one_item_the_plan_is_that_of_wilcoxons_test_as_the_rule_has_it() -> None:
    powers = [
        plan(TYPICAL, 15, listeners=[12, 30], items=[1], method=method).table["power"].tolist()
        for method in METHODS
    ]
    assert powers[0] == powers[1]
    for items, population in (([1], "the same items"), ([1, 8], "other items")):
        result = plan(TYPICAL, 15, listeners=[12], items=items, num_simulations=100)
        assert result.to_json()["population"] == f"other listeners and {population}"
        assert f"for other listeners and {population};" in format_plan(result, "")
    assert "(with 1 item Wilcoxon's test of listeners' means, for the same items)" in format_plan(result, "")


def test_signed_rank_p_is_scipys() -> None:
    generator = np.random.default_rng(3)
    for n in (2, 5, 6, 12, 50, 51, 80):
        values = generator.normal(0.5, 1, (100, n))
        expected = stats.wilcoxon(values, axis=1).pvalue
        np.testing.assert_allclose(wilcoxon_p(values), expected, rtol=1e-9)


# Estimation


def crossed_ratings(
    shape: tuple[int, int, int], sd: dict[str, float], seed: int = 0, clip: bool = False
) -> Ratings:
    generator = np.random.default_rng(seed)
    a, b, c = shape
    sizes = {
        "listener": (a, 1, 1),
        "item": (1, b, 1),
        "listener_item": (a, b, 1),
        "listener_condition": (a, 1, c),
        "item_condition": (1, b, c),
        "residual": (a, b, c),
    }
    scores = 50 + sum(sd[name] * generator.standard_normal(size) for name, size in sizes.items())
    scores = scores + np.linspace(-10, 10, c)
    index = pd.MultiIndex.from_product(
        [[f"{kind}{k}" for k in range(n)] for kind, n in zip("lic", shape, strict=True)],
        names=["listener", "item", "condition"],
    )
    return Ratings(pd.DataFrame({"score": np.asarray(scores).ravel()}, index=index).reset_index())


def test_components_are_those_of_statsmodels_mean_squares() -> None:
    sd = dict.fromkeys(
        ("listener", "item", "listener_item", "listener_condition", "item_condition", "residual"), 5.0
    )
    ratings = crossed_ratings((5, 4, 3), sd)
    import statsmodels.api as sm
    from statsmodels.formula.api import ols

    model = ols("score ~ (C(listener) + C(item) + C(condition)) ** 2", ratings.frame).fit()
    table = sm.stats.anova_lm(model)
    ms = {name.replace("C(", "").replace(")", ""): value for name, value in table["mean_sq"].items()}
    found = estimate_components(ratings).variances
    rest = ms["Residual"]
    assert found["residual"] == pytest.approx(rest)
    assert found["listener_condition"] == pytest.approx((ms["listener:condition"] - rest) / 4)
    assert found["item_condition"] == pytest.approx((ms["item:condition"] - rest) / 5)
    assert found["listener_item"] == pytest.approx((ms["listener:item"] - rest) / 3)
    listener = ms["listener"] - ms["listener:condition"] - ms["listener:item"] + rest
    assert found["listener"] == pytest.approx(listener / 12)
    item = ms["item"] - ms["item:condition"] - ms["listener:item"] + rest
    assert found["item"] == pytest.approx(item / 15)


def test_estimates_are_unbiased() -> None:
    sd = {
        "listener": 8.0,
        "item": 6.0,
        "listener_item": 4.0,
        "listener_condition": 5.0,
        "item_condition": 7.0,
        "residual": 12.0,
    }
    found = [estimate_components(crossed_ratings((8, 6, 5), sd, seed)).variances for seed in range(80)]
    for name, value in sd.items():
        sample = [variances[name] for variances in found]
        assert abs(np.mean(sample) - value**2) < 4 * np.std(sample) / math.sqrt(len(sample)), name


def test_what_is_missing_or_negative_is_said() -> None:
    sd = dict.fromkeys(("item", "listener_item", "listener_condition", "item_condition"), 0.0)
    ratings = crossed_ratings((6, 4, 3), {**sd, "listener": 5.0, "residual": 10.0}, seed=2)
    frame = ratings.frame.drop(index=5)
    found = estimate_components(Ratings(frame))
    assert found.shape == (5, 4, 3)
    assert "1 of 6 listeners" in found.notes[0]
    negative = [name for name, value in found.variances.items() if value < 0]
    assert negative and len(found.notes) == 2 + len(negative)  # what is missing, and that it is little
    assert all(getattr(found.components, name) == 0 for name in negative)


def test_unequal_spread_is_said() -> None:
    scores = simulate(3, listeners=20, sd_listener_condition=np.array([[1.0], [1], [10]]))
    assert "scores of C vary more than those of" in estimate_components(with_roles(tidy(scores))).notes[0]


def test_reference_and_anchors_are_not_part_of_the_estimate_unless_asked_for() -> None:
    sd = dict.fromkeys(
        ("listener", "item", "listener_item", "listener_condition", "item_condition", "residual"), 5.0
    )
    frame = crossed_ratings((5, 4, 4), sd).frame
    ratings = Ratings(frame, reference="c0", anchors=("c1",))
    assert estimate_components(ratings).shape == (5, 4, 2)
    assert estimate_components(ratings, ["c1", "c2", "c3"]).shape == (5, 4, 3)
    with pytest.raises(UserError, match="'nope' is not in the ratings"):
        estimate_components(ratings, ["nope"])
    with pytest.raises(UserError, match="2 are needed"):
        estimate_components(ratings, ["c2"])
    with pytest.raises(UserError, match="need 2 of each"):
        estimate_components(Ratings(frame[frame["item"] == "i0"]))


# Output


def test_same_seed_same_plan_another_seed_another() -> None:
    first, second, other = (
        plan(TYPICAL, 5, listeners=[10], items=[6], num_simulations=1000, seed=seed).to_json()
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first["table"][0]["power"] != other["table"][0]["power"]


def test_text_names_what_is_needed() -> None:
    result = plan(TYPICAL, 20, listeners=range(4, 31), items=[8, 12], num_simulations=1000)
    text = format_plan(result, "made up")
    needed = [str(n) for n in result.needed().values()]
    assert re.search(rf"for 80% power\s+{needed[0]}\s+{needed[1]}\n", text)
    assert "made up" in text and "standard error" in text
    hopeless = plan(TYPICAL, 0.1, listeners=[4, 5], items=[5], num_simulations=500)
    assert re.search(r"for 80% power\s+>5\n", format_plan(hopeless, "made up"))
    largest = plan(TYPICAL, 10, listeners=[4, 5], items=[5, 6], num_simulations=1000)
    said = re.search(r"5 listeners and 6 items find (\d+) points with 80% power", format_plan(largest, ""))
    assert said is not None
    around = [
        plan(TYPICAL, int(said[1]) - less, listeners=[5], items=[6], num_simulations=20_000)
        for less in (2, -1)
    ]
    assert around[0].table["power"][0] < 0.8 < around[1].table["power"][0]
    assert draw_plan(result).axes[0].get_ylim()[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"difference": 0}, "difference of 0 points"),
        ({"difference": math.nan}, "difference of nan"),
        ({"target": 1.0}, "--power 1"),
        ({"alpha": 0.0}, "--alpha 0"),
        ({"listeners": [1, 5]}, "--listeners 1 to 5"),
        ({"listeners": []}, "--listeners nothing"),
        ({"items": [0]}, "--items 0 to 0"),
        ({"systems": 1}, "1 system to compare: give 2 to 30 with --systems"),
        ({"components": Components(0, 0, 0)}, "all three standard deviations are 0"),
        ({"num_simulations": 5}, "too few"),
        ({"components": Components(-1, 2, 3)}, "-1 .listener x condition."),
        ({"components": Components(1, 2, math.nan)}, "residual"),
    ],
)
def test_bad_values_are_refused_in_one_line(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"components": TYPICAL, "difference": 5, "listeners": [5], "items": [5]}
    with pytest.raises(UserError, match=message) as caught:
        plan(**{**arguments, **change})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "a", "3-", "-3", "5,,6", "8-4", "1.5", "4-99999"])
def test_bad_numbers_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--items"):
        parse_numbers(text, "--items")


def test_numbers_and_ranges() -> None:
    assert parse_numbers("4-6, 10", "--items") == [4, 5, 6, 10]


# The command


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def test_command_from_an_earlier_test(
    app: typer.Typer, shared: Callable[[str], Path], tmp_path: Path
) -> None:
    source = shared("mushra/AES2023_webmushra_results.csv")
    arguments = [
        "plan",
        "--from",
        str(source),
        "--keep",
        "all",
        "--simulations",
        "500",
        "--listeners",
        "10,20",
    ]
    again = tmp_path / "again"
    for out in (tmp_path, again):
        result = CliRunner().invoke(app, [*arguments, "--items", "8", "--out", str(out)])
        assert result.exit_code == 0, result.output
    for path in again.iterdir():  # the same seed, the same bytes
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
    content = json.loads((tmp_path / "plan.json").read_text())
    # By hand from the table of mean squares of these 22 x 13 x 7 ratings (hidden reference left out).
    sd = content["standard_deviations"]
    frame = pd.read_csv(source)
    wide = frame[frame["rating_stimulus"] != "reference"].pivot(
        index="session_uuid", columns=["trial_id", "rating_stimulus"], values="rating_score"
    )
    scores = wide.sort_index(axis=1).to_numpy().reshape(22, 13, 7)
    rest = scores
    for axis in range(3):
        rest = rest - rest.mean(axis=axis, keepdims=True)
    assert sd["residual"] == pytest.approx(math.sqrt((rest**2).sum() / (21 * 12 * 6)))
    assert "22 listeners, 13 items, 7 conditions" in content["origin"]
    assert [row["items"] for row in content["needed"]] == [8]
    assert {path.name for path in again.iterdir()} == {"plan.json", "plan.png", "plan.svg", "plan.pdf"}


@pytest.mark.parametrize(
    ("arguments", "systems"),
    [
        ([], 6),
        (["--systems", "4"], 4),
        (["AES2023_webmushra_config.yaml"], 7),
        (["AES2023_webmushra_config.yaml", "--systems", "3"], 3),
        (["--from", "AES2023_webmushra_results.csv"], 7),
        (["--from", "AES2023_webmushra_results.csv", "--conditions", "FOA,Mono,Harpex"], 3),
    ],
)
def test_systems_are_those_of_the_test_unless_given(
    app: typer.Typer, shared: Callable[[str], Path], arguments: list[str], systems: int
) -> None:
    """The test of 2023 has seven systems beside the hidden reference."""
    named = [str(shared(f"mushra/{word}")) if word.startswith("AES") else word for word in arguments]
    sizes = ["--simulations", "100", "--listeners", "5", "--items", "5"]
    output = CliRunner().invoke(app, ["plan", *named, *sizes]).output
    assert f"between two of {systems} systems" in output, output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is neither a test nor a run"),
        (["--from", "x.csv", "--sd-residual", "5"], "both --from and --sd"),
        (["--conditions", "a,b"], "give it with --from"),
        (["--from", "nowhere.csv"], "nowhere.csv"),
        (["--style", "nonsense"], "no style 'nonsense'"),
    ],
)
def test_contradicting_options_are_refused(app: typer.Typer, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert isinstance(result.exception, UserError) and message in str(result.exception)


def test_whose_the_same_ids_of_two_files_are_can_be_said(app: typer.Typer, tmp_path: Path) -> None:
    """What the refusal asks for is an option of this command."""
    files = []
    for number in range(2):
        tidy(simulate(number)).to_csv(path := tmp_path / f"{number}.csv", index=False)
        files += ["--from", str(path)]
    sizes = ["--listeners", "8", "--items", "5", "--simulations", "100"]
    refused = CliRunner().invoke(app, ["plan", *files, *sizes])
    assert "give --listener-ids global" in str(refused.exception)
    pooled = CliRunner().invoke(app, ["plan", *files, *sizes, "--listener-ids", "per-file"])
    assert "estimated from 24 listeners" in pooled.output, pooled.output


def test_one_listener_is_not_asked_for_other_conditions(app: typer.Typer, tmp_path: Path) -> None:
    rows = [f"a,i{k},{name},{50 + k}" for k in range(5) for name in ("x", "y")]
    (tmp_path / "r.csv").write_text("\n".join(["listener,item,condition,score", *rows]))
    result = CliRunner().invoke(app, ["plan", "--from", str(tmp_path / "r.csv")])
    text = str(result.exception)
    assert "the ratings are of 1 listener and 5 items" in text and "--conditions" not in text


def test_what_was_not_given_is_said(app: typer.Typer) -> None:
    arguments = ["plan", "--simulations", "200", "--listeners", "5", "--items", "5", "--sd-residual", "7"]
    output = CliRunner().invoke(app, arguments).output
    assert "residual 7" in output and "--sd-listener-condition and --sd-item-condition not given" in output
