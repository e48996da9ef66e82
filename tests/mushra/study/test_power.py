"""`mushra plan`: against noncentral distributions, scipy's tests, statsmodels' ANOVA."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from scipy import stats
from typer.testing import CliRunner

from mushra.analysis.description import crossed_interval
from mushra.analysis.ratings import Ratings
from mushra.cli.study import parse_numbers, register
from mushra.study.power import (
    TYPICAL,
    Components,
    crossed_rejects,
    draw_plan,
    estimate_components,
    format_plan,
    plan,
    t_rejects,
    wilcoxon_rejects,
)
from qincodec.core.errors import UserError


def t_power(sd: Components, difference: float, listeners: int, items: int, alpha: float = 0.05) -> float:
    """Closed form: noncentral t, the standard deviation of a listener's mean difference as by the model."""
    spread = math.sqrt(2 * sd.listener_condition**2 + 2 * sd.residual**2 / items)
    shift = difference / spread * math.sqrt(listeners)
    critical = stats.t.ppf(1 - alpha / 2, listeners - 1)
    wrong_side = stats.nct.cdf(-critical, listeners - 1, shift)  # scipy gives NaN where it vanishes
    return float(stats.nct.sf(critical, listeners - 1, shift) + np.nan_to_num(wrong_side))


@pytest.mark.parametrize(("difference", "alpha"), [(5, 0.05), (12, 0.01), (-5, 0.05)])
def test_power_of_the_t_test_is_that_of_the_noncentral_t(difference: float, alpha: float) -> None:
    result = plan(
        TYPICAL, difference, listeners=[5, 20, 40], items=[5, 13], alpha=alpha, num_simulations=6000
    )
    for row in result.table.to_dict("records"):
        expected = t_power(TYPICAL, abs(difference), row["listeners"], row["items"], alpha)
        assert abs(row["power"] - expected) < 4 * row["standard_error"] + 1e-3, row


def test_listeners_needed_are_those_of_the_closed_form() -> None:
    result = plan(TYPICAL, 8, listeners=range(4, 31), items=[5, 10], num_simulations=20_000)
    for items, needed in result.needed().items():
        expected = next(n for n in range(4, 31) if t_power(TYPICAL, 8, n, items) >= 0.8)
        assert needed is not None and abs(needed - expected) <= 1


def test_item_by_condition_plays_no_part_for_these_items_and_does_for_new_ones() -> None:
    small, large = (Components(5, item, 12) for item in (0, 15))
    sizes = {"listeners": [15], "items": [8], "num_simulations": 2000}
    powers = {
        (test, sd.item_condition): plan(sd, 6, test=test, **sizes).table["power"].iloc[0]  # type: ignore[arg-type]
        for test in ("t", "crossed")
        for sd in (small, large)
    }
    assert powers["t", 0] == powers["t", 15]
    assert powers["crossed", 0] > powers["crossed", 15] + 0.2


def test_crossed_power_with_many_listeners_is_that_of_a_t_test_over_items() -> None:
    """With endless listeners only the items are left: a paired t test of the items' means."""
    sd = Components(listener_condition=0, item_condition=6, residual=3)
    row = plan(sd, 8, listeners=[200], items=[10], test="crossed", num_simulations=4000).table.iloc[0]
    spread = math.sqrt(2 * 6**2 + 2 * 3**2 / 200)
    critical, shift = stats.t.ppf(0.975, 9), 8 / spread * math.sqrt(10)
    expected = stats.nct.sf(critical, 9, shift) + stats.nct.cdf(-critical, 9, shift)
    assert abs(row["power"] - expected) < 4 * row["standard_error"]


@pytest.mark.parametrize(
    ("test", "sd", "bounds"),
    [
        ("t", TYPICAL, (0.04, 0.06)),
        ("wilcoxon", TYPICAL, (0.035, 0.06)),
        # Satterthwaite's degrees of freedom are an approximation: near 5 %, above it with few items.
        ("crossed", TYPICAL, (0.03, 0.075)),
        ("crossed", Components(8, 0, 12), (0.01, 0.06)),
    ],
)
def test_false_positives(test: str, sd: Components, bounds: tuple[float, float]) -> None:
    result = plan(sd, 1e-9, listeners=[8, 20], items=[6, 12], test=test, num_simulations=6000)  # type: ignore[arg-type]
    assert result.table["power"].between(*bounds).all(), result.table


def test_rejections_are_scipys() -> None:
    generator = np.random.default_rng(3)
    for n in (2, 5, 6, 12, 30):
        values = generator.normal(0.5, 1, (300, n))
        for alpha in (0.05, 0.2):
            expected = stats.ttest_1samp(values, 0, axis=1).pvalue < alpha
            np.testing.assert_array_equal(t_rejects(values, alpha), expected)
            expected = stats.wilcoxon(values, axis=1, method="exact").pvalue < alpha
            np.testing.assert_array_equal(wilcoxon_rejects(values, alpha), expected)


def test_crossed_rejections_are_those_of_the_crossed_interval() -> None:
    generator = np.random.default_rng(4)
    for listeners, items in ((2, 2), (6, 9), (12, 5)):
        # Some tables without either component, so that all cases of negative estimates occur.
        scale = generator.uniform(0, 1, (2, 400, 1, 1)) * generator.integers(0, 2, (2, 400, 1, 1))
        tables = generator.normal(0.6, 1, (400, listeners, items))
        tables += scale[0] * generator.normal(0, 1, (400, listeners, 1))
        tables += scale[1] * generator.normal(0, 1, (400, 1, items))
        found = crossed_rejects(tables.mean(2), tables.mean(1), (tables**2).sum((1, 2)), 0.05)
        intervals = [crossed_interval(table) for table in tables]
        expected = [interval.low > 0 or interval.high < 0 for interval in intervals]
        np.testing.assert_array_equal(found, expected)


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
    assert negative and len(found.notes) == 1 + len(negative)
    assert all(getattr(found.components, name) == 0 for name in negative)


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
    with pytest.raises(UserError, match="it takes 2"):
        estimate_components(ratings, ["c2"])
    with pytest.raises(UserError, match="take 2 of each"):
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
    result = plan(TYPICAL, 8, listeners=range(4, 31), items=[5, 10], num_simulations=1000)
    text = format_plan(result, "made up")
    needed = [str(n) for n in result.needed().values()]
    assert re.search(rf"for 80% power\s+{needed[0]}\s+{needed[1]}\n", text)
    assert "made up" in text and "standard error" in text
    hopeless = plan(TYPICAL, 0.1, listeners=[4, 5], items=[5], num_simulations=500)
    assert re.search(r"for 80% power\s+>5\n", format_plan(hopeless, "made up"))
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
        ({"items": [1], "test": "crossed"}, "takes 2 to 1000 items"),
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
    result = CliRunner().invoke(app, [*arguments, "--items", "8", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
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
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", "plan.png", "plan.svg", "plan.pdf"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "x.csv", "--sd-residual", "5"], "both --from and --sd"),
        (["--conditions", "a,b"], "give it with --from"),
        (["--from", "nowhere.csv"], "nowhere.csv"),
        (["--style", "nonsense"], "no style 'nonsense'"),
    ],
)
def test_contradicting_options_are_refused(app: typer.Typer, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert isinstance(result.exception, UserError) and message in str(result.exception)


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
