"""The report of a run as a folder: a page with its sounds and pictures, which opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from evaluation.engine.replay import RunAudio
from evaluation.engine.request import RenderedSpec
from evaluation.loading import load_results
from evaluation.report.files import clip_frame, csv_tables
from evaluation.report.html import media, page, selection
from evaluation.report.html.assets import GENERATOR, Assets
from evaluation.report.html.clips import Card, CardMaker, missing_sounds
from evaluation.report.sharing import shareable, shareable_results
from evaluation.results import Results
from evaluation.run.store import RunStore
from qincodec.core.console import Progress
from qincodec.core.errors import UserError

#: Most bytes of all clips of a report together, unless a number of clips is asked for.
MAX_CLIP_BYTES = 54_000_000
#: Most rows of a clips.csv that a report includes.
MAX_ROWS = 50_000


@dataclass(frozen=True)
class Written:
    """A report that was written.

    Attributes:
        page: file to open in a browser.
        num_clips: number of clips that can be heard in it.
        num_bytes: size of all its files.
        remarks: what was left out, one line each.
    """

    page: Path
    num_clips: int
    num_bytes: int
    remarks: list[str]


def write_html(
    run: Path,
    out: Path | None = None,
    *,
    clips: int | None = None,
    folders: Sequence[RenderedSpec] = (),
    weights: Mapping[str, str] | None = None,
    device: str = "cpu",
    workers: int = 1,
    progress: Progress = lambda *_: None,
) -> Written:
    """Write the report of the run in ``run``; the same run gives the same bytes.

    Args:
        run: folder of a run, complete or not.
        out: folder of the report; None for ``RUN/report``. A complete new report replaces an old one.
        clips: number of clips to hear, in the order of `selection.choose_clips`. None: the best, median and
            worst of every metric, as many as fit into `MAX_CLIP_BYTES`.
        folders, weights, device: see `evaluation.engine.replay.RunAudio`.
        workers: number of threads that decode; it does not change the result.
        progress: called with (what, done, total).

    Raises:
        UserError: ``run`` is not a run; ``out`` holds something other than a report, or cannot be written.
    """
    if clips is not None and clips < 0:
        raise UserError(f"--clips is {clips}; allowed: 0 or more")
    with RunStore(run, write=False) as store:
        results = load_results(store, progress)
        assets = Assets(out or run / "report")
        sources = RunAudio(store, folders=folders, weights=weights, device=device)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in the run itself, where each worker has one thread
        try:
            cards, remarks = _cards(results, store, sources, assets, clips, workers, progress)
        finally:
            torch.set_num_threads(threads)
        commands = store.read_run().commands
    progress("writing the page", 0, 1)
    style, script = (assets.add("report", end, page.static(f"report{end}")) for end in (".css", ".js"))
    html = render_page(
        results,
        cards,
        remarks,
        commands=commands,
        style=style,
        script=script,
        tables=_tables(results, assets),
    )
    path = assets.finish(html)
    heard = sum(any(signal.sound for signal in card.signals) for card in cards)
    return Written(path, heard, assets.size + len(html.encode("utf-8", "backslashreplace")), remarks)


def render_page(
    results: Results,
    cards: Sequence[Card] = (),
    remarks: Sequence[str] = (),
    *,
    commands: Sequence[str] = (),
    style: str = "",
    script: str = "",
    tables: Mapping[str, str] | None = None,
) -> str:
    """The page. All text from the run is escaped and has no path of this machine.

    Args:
        cards: clips to hear.
        remarks: what cannot be heard.
        commands: command lines of the run.
        style, script: addresses of these files.
        tables: name of a CSV file that notes may mention -> its address.
    """
    return page.fill_in(
        "report.html.j2",
        **page.page_content(shareable_results(results), shareable([*commands])),
        cards=shareable([*cards]),
        remarks=shareable([*remarks]),
        how=selection.HOW,
        generator=GENERATOR,
        range_db=media.RANGE_DB,
        difference_db=media.DIFFERENCE_DB,
        style=style,
        script=script,
        tables=tables or {},
    )


def _tables(results: Results, assets: Assets) -> dict[str, str]:
    """Write the CSV files, which notes mention; return their addresses."""
    results = shareable_results(results)
    contents = csv_tables(results)
    if len(results.clips) <= MAX_ROWS:
        contents["clips.csv"] = clip_frame(results).to_csv(index=False, lineterminator="\n")
    return {
        name: assets.add(name.removesuffix(".csv"), ".csv", content.encode("utf-8", "backslashreplace"))
        for name, content in contents.items()
    }


def _cards(
    results: Results,
    store: RunStore,
    sources: RunAudio,
    assets: Assets,
    wanted: int | None,
    workers: int,
    progress: Progress,
) -> tuple[list[Card], list[str]]:
    """The clips that can be heard, and remarks on those that cannot."""
    chosen = selection.choose_clips(results)
    known = {clip.id: clip for clip in store.read_clips()}
    count = selection.num_extremes(chosen) if wanted is None else min(wanted, len(chosen))
    maker = CardMaker(results, sources, assets, workers)
    cards: list[Card] = []
    remarks = []
    for clip, why in chosen[:count]:
        progress("decoding clips to hear", len(cards), count)
        before = assets.count
        card = maker.make(known[clip], why)
        if wanted is None and cards and assets.size > MAX_CLIP_BYTES:
            assets.forget_from(before)
            left_out = [f"{clip} ({', '.join(why)})" for clip, why in chosen[len(cards) : count]]
            remarks.append(
                f"The first {len(cards)} of {count} clips that are the best, median or worst of a metric are"
                f" here: more exceed {MAX_CLIP_BYTES / 1e6:.0f} MB; --clips {count} includes all. Not here:"
                f" {'; '.join(left_out)}"
            )
            break
        cards.append(card)
    if not chosen:
        remarks.append("No clip has a result yet")
    elif count == 0 and wanted is None:
        remarks.append(
            "No clip has a value for all codecs and rates, so none is the best or the worst; --clips N"
            " includes the first N"
        )
    return cards, remarks + missing_sounds(cards)
