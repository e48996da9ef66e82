"""The commands ``mushra plan`` and ``mushra correlate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mushra.cli.options import (
    Anchors,
    Database,
    DropItems,
    Exclude,
    Keep,
    Key,
    ListenerIds,
    Reference,
    Scale,
    Style,
    Systems,
    Tests,
    parse_scale,
)
from qincodec.core.console import ProgressLine, starting
from qincodec.core.errors import UserError, count

if TYPE_CHECKING:
    from mushra.analysis.ratings import Ratings
    from mushra.study.components import Components


@dataclass(frozen=True)
class _Selection:
    """Which ratings to use."""

    reference: str | None = None
    anchors: list[str] | None = None
    systems: list[str] | None = None
    scale: str | None = None
    tests: list[str] | None = None
    drop_items: list[str] | None = None
    keep: list[str] | None = None
    exclude: list[str] | None = None
    key: Path | None = None
    listener_ids: Literal["global", "per-file"] | None = None


def _screened(
    sources: list[str], database: str | None, chosen: _Selection, key_of_test: Path | None = None
) -> tuple[Ratings, list[str]]:
    """Ratings after screening, and notes about what was left out; arguments as of `mushra.load`."""
    from mushra import load
    from mushra.analysis.screening import screen

    ratings = load(
        sources,
        key=chosen.key,
        key_of_test=key_of_test,
        database=database,
        reference=chosen.reference,
        anchors=chosen.anchors or [],
        systems=chosen.systems or [],
        scale=parse_scale(chosen.scale),
        tests=chosen.tests or [],
        drop_items=chosen.drop_items or [],
        listener_ids=chosen.listener_ids,
    )
    notes = [f"{problem.kind}: {problem.detail}" for problem in ratings.problems]
    excluded = screen(ratings, keep=chosen.keep or [], exclude=chosen.exclude or []).excluded
    share = f"screening excludes {len(excluded)} of {count(len(ratings.listeners), 'listener')}"
    if len(excluded) == len(ratings.listeners):
        raise UserError(f"{share}; see `mushra analyze`, or keep them with --keep all")
    if excluded:
        notes.append(f"{share} (`mushra analyze` says why); --keep all keeps them")
    return ratings.without(excluded), notes


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(plan)
    app.command()(correlate)


def plan(
    planned: Annotated[
        Path | None,
        typer.Argument(
            metavar="TEST|RUN",
            help="A test, or a run of `evaluate`, from which the number of systems is taken.",
        ),
    ] = None,
    difference: Annotated[
        float, typer.Option(metavar="POINTS", help="Difference between two systems' means to detect.")
    ] = 5.0,
    num_systems: Annotated[
        int | None,
        typer.Option(
            "--systems",
            metavar="K",
            help="Number of systems, without hidden reference and anchors. Default: that of TEST, RUN or "
            "--from, else 6.",
        ),
    ] = None,
    power: Annotated[float, typer.Option(metavar="P", help="Wanted power: probability to detect it.")] = 0.8,
    alpha: Annotated[
        float,
        typer.Option(metavar="P", help="Significance level of all pairs together, as in `mushra analyze`."),
    ] = 0.05,
    method: Annotated[
        Literal["primary", "wilcoxon"],
        typer.Option(
            metavar="primary|wilcoxon",
            help="Test to simulate. primary: that of `mushra analyze`, valid for other listeners and items. "
            "wilcoxon: on listeners' means, valid for these items only.",
        ),
    ] = "primary",
    listeners: Annotated[str, typer.Option(metavar="A-B|A,B", help="Numbers of listeners to try.")] = "4-60",
    items: Annotated[
        str, typer.Option(metavar="A-B|A,B", help="Numbers of items to try.")
    ] = "5,6,8,10,12,15,20",
    sd_listener_condition: Annotated[
        float | None,
        typer.Option(metavar="SD", help="Listener x condition: how far tastes differ, in points."),
    ] = None,
    sd_item_condition: Annotated[
        float | None,
        typer.Option(
            metavar="SD", help="Item x condition: how far a codec's quality differs between items, in points."
        ),
    ] = None,
    sd_residual: Annotated[
        float | None, typer.Option(metavar="SD", help="Residual of a single rating, in points.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="Earlier test from whose ratings, after screening, the three are estimated: its folder, or "
            "any SOURCE of `mushra analyze`. Repeatable.",
        ),
    ] = None,
    conditions: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Systems of --from to estimate from. Default: all but reference and anchors.",
        ),
    ] = None,
    key: Key = None,
    database: Database = None,
    reference: Reference = None,
    anchors: Anchors = None,
    systems: Systems = None,
    scale: Scale = None,
    tests: Tests = None,
    drop_items: DropItems = None,
    listener_ids: ListenerIds = None,
    keep: Keep = None,
    exclude: Exclude = None,
    simulations: Annotated[int, typer.Option(metavar="N", help="Number of simulated tests.")] = 2000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the simulation.")] = 0,
    style: Style = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output folder of plan.json and the figure plan.*.")
    ] = None,
) -> None:
    """Simulate how many listeners and items a test needs to detect a difference.

    The primary analysis of `mushra analyze` is simulated, with Holm's correction for all pairs of systems.
    Power is the probability that two systems get different letters; the others lie halfway between them.
    Only three standard deviations count, because the general severity of a listener or an item cancels
    between systems. Give them, or an earlier test. The default is a published test.
    """
    import json

    with starting():
        from mushra.analysis.figures import check_style, save, style_context
        from mushra.study.components import count_systems
        from mushra.study.power import draw_plan, format_plan
        from mushra.study.power import plan as plan_test
        from qincodec.core.files import write_atomic

    check_style(style)
    given = {
        "listener_condition": sd_listener_condition,
        "item_condition": sd_item_condition,
        "residual": sd_residual,
    }
    selection = _Selection(
        reference, anchors, systems, scale, tests, drop_items, keep, exclude, key, listener_ids
    )
    components, systems_of_source, origin, notes = _components(given, source, database, conditions, selection)
    if num_systems is None:
        num_systems = count_systems(planned) if planned is not None else systems_of_source
    result = plan_test(
        components,
        difference,
        listeners=parse_numbers(listeners, "--listeners"),
        items=parse_numbers(items, "--items"),
        systems=num_systems,
        method=method,
        target=power,
        alpha=alpha,
        num_simulations=simulations,
        seed=seed,
    )
    if out is not None:
        with style_context(style):
            save(draw_plan(result), out, "plan")
        content = {**result.to_json(), "origin": origin, "notes": notes}
        write_atomic(out / "plan.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    print(format_plan(result, origin), end="")
    for note in notes:
        print(f"Note: {note}.")


def _components(
    given: dict[str, float | None],
    source: list[str] | None,
    database: str | None,
    conditions: str | None,
    selection: _Selection,
) -> tuple[Components, int, str, list[str]]:
    """Components, number of systems, origin of the components, and notes about them."""
    from dataclasses import replace

    from mushra.analysis.sources import database_name
    from mushra.study.components import TYPICAL, TYPICAL_SYSTEMS, estimate_components

    chosen = {name: value for name, value in given.items() if value is not None}
    if source and chosen:
        raise UserError("both --from and --sd-... were given; give one: an earlier test or the numbers")
    if not source and (conditions or selection != _Selection()):
        raise UserError(
            "--conditions, --key, --reference, --anchor, --system, --scale, --test, --drop-item, "
            "--listener-ids, --keep and --exclude are about an earlier test; give it with --from"
        )
    if not source:
        missing = [f"--sd-{name.replace('_', '-')}" for name in given if name not in chosen]
        if chosen and missing:
            return (
                replace(TYPICAL, **chosen),
                TYPICAL_SYSTEMS,
                "as given",
                [f"{' and '.join(missing)} not given, taken from a published test"],
            )
        origin = (
            "as given" if chosen else "of a published test of 22 listeners; give an earlier one by --from"
        )
        return replace(TYPICAL, **chosen), TYPICAL_SYSTEMS, origin, []
    ratings, notes = _screened(source, database, selection)
    names = [name.strip() for name in conditions.split(",") if name.strip()] if conditions else []
    estimated = estimate_components(ratings, names)
    num_listeners, num_items, num_conditions = estimated.shape
    origin = (
        f"estimated from {count(num_listeners, 'listener')}, {count(num_items, 'item')}, "
        f"{count(num_conditions, 'condition')} of "
        f"{', '.join(map(database_name, source))}"
    )
    return estimated.components, num_conditions, origin, [*notes, *estimated.notes]


def parse_numbers(text: str, option: str) -> list[int]:
    """ "4-6,10" as [4, 5, 6, 10]. Raises UserError with the name of ``option`` for anything else."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise UserError(f"{option} {text}: give numbers such as 5,6,8 or a range such as 4-60")
        start, stop = int(first), int(last or first)
        if max(start, stop) > 1000 or stop < start:
            raise UserError(
                f"{option} {text}: {part.strip()} is not a range of 1 to 1000, smaller number first"
            )
        numbers += range(start, stop + 1)
    return numbers


def correlate(
    test: Annotated[Path, typer.Argument(metavar="TEST", help="Folder made by `mushra create`.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|RATINGS",
            help="A run of `evaluate`, and sources of ratings as for `mushra analyze`. Default: the ratings "
            "in TEST.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="M,N", help="Metrics and embeddings. Default: those of RUN, else all metrics."),
    ] = None,
    database: Database = None,
    reference: Reference = None,
    anchors: Anchors = None,
    systems: Systems = None,
    scale: Scale = None,
    tests: Tests = None,
    drop_items: DropItems = None,
    listener_ids: ListenerIds = None,
    keep: Keep = None,
    exclude: Exclude = None,
    resamples: Annotated[int, typer.Option(metavar="N", help="Bootstrap resamples.")] = 2000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the bootstrap.")] = 0,
    style: Style = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output folder of tables and scatter plots.")
    ] = None,
) -> None:
    """Correlate objective metrics of the excerpts with the listeners' scores.

    Every metric is computed again on the files of TEST: a run's scores are of whole clips, before they were
    cut and aligned for listening. With RUN, a folder of `evaluate`, its metrics, sample rate and channels
    are used, as in its tables. Without it, all metrics are computed on the files as they are. Ratings are
    screened first. The hidden reference is left out. Every result is given with anchors and without.
    """
    from dataclasses import replace

    with starting():
        from mushra.analysis.figures import check_style
        from mushra.config.key import read_key
        from mushra.config.locate import KEY_NAME
        from mushra.study import correlate as study
        from mushra.study import heard

    check_style(style)
    if resamples < 100:
        raise UserError(f"--resamples {resamples}: give 100 or more")
    runs = [Path(source) for source in sources or [] if heard.is_run(Path(source))]
    if len(runs) > 1:
        raise UserError(f"{runs[0]} and {runs[1]} are both runs of evaluate; give one")
    trials = read_key(test / KEY_NAME, whole=True).trials
    settings = heard.choose_settings(runs[0] if runs else None, metrics)
    files = [source for source in sources or [] if Path(source) not in runs] or [str(test)]
    selection = _Selection(
        reference, anchors, systems, scale, tests, drop_items, keep, exclude, listener_ids=listener_ids
    )
    ratings, notes = _screened(files, database, selection, test / KEY_NAME)
    with ProgressLine() as progress:
        rated = {item: trial for item, trial in trials.items() if item in ratings.items}
        scores = heard.score_trials(test, rated, settings, progress=progress)
        result = study.correlate(
            ratings, scores, settings.infos, seed=seed, num_resamples=resamples, progress=progress
        )
    gaps = heard.describe_gaps(scores, settings.infos)
    result = replace(result, notes=(*notes, *settings.notes, *gaps, *result.notes))
    if out is not None:
        study.write_correlations(result, ratings, out, style=style)
    print(study.format_correlations(result), end="")
