"""One listener's pages: the test's pages in the listener's own order, with shuffled signals.

Blocks. With ``blocks: N`` the entries of each outermost random group are dealt to N blocks in turn, from
group to group without a break, so that blocks differ by one entry at most. The rest applies within a block.

Order of random groups. Every group of n entries has a balanced Latin square (Williams): n rows, or 2n if n is
odd. In it, each entry is equally often at each place and equally often right after each other entry. A
listener gets a row (block and row make the slot; see `mushra.store.records.begin`). With
``items_per_listener``, the listener gets only the first columns of the row. Any columns of a balanced square
are balanced, so each entry is still heard equally often, and equally often at each place. The seed of the
test assigns the entries to the letters of the square, differently for each group.

The order of signals follows from the seed, the session's number and the page. Whether the X of an ABX page is
A or B depends on the data base's secret, too, so that it cannot be derived from the test.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from mushra.config.crowd import block_of
from mushra.config.crowd_check import outermost
from mushra.config.pages import (
    HIDDEN_REFERENCE,
    AbxPage,
    DcrPage,
    FinishPage,
    LikertPage,
    MushraPage,
    OwnTrial,
    Page,
    PageGroup,
    SpatialPage,
    TestConfig,
    Trial,
    VolumePage,
)
from mushra.server.files import Stimuli, pair_place
from mushra.server.sanitize import sanitize
from mushra.store.pages import PublicPage, SessionPage, Signal, Sound
from mushra.store.records import Places

_Entry = Page | PageGroup


def places(config: TestConfig) -> Places:
    """Planned sessions of a test."""
    section = config.section
    return Places(num_slots(config), section.blocks or 1, section.quota, 60 * section.drop_after_min)


def latin_square(n: int) -> list[list[int]]:
    """Williams' balanced square: n rows of the numbers 0 to n - 1, 2n rows if n is odd and over 1."""
    if n < 2:
        return [list(range(n))]
    first = [0]
    low, high = 1, n - 1
    while len(first) < n:
        first.append(low)
        low += 1
        if len(first) < n:
            first.append(high)
            high -= 1
    rows = [[(entry + shift) % n for entry in first] for shift in range(n)]
    return rows + [row[::-1] for row in rows] if n % 2 else rows


def num_slots(config: TestConfig) -> int:
    """Number of listeners after which the orders of all random groups are balanced together."""
    n_blocks = config.section.blocks or 1
    sizes = set[int]()
    for _, group in outermost(PageGroup(config.pages)):
        # Some of its blocks may have one entry more.
        sizes |= {len(group.pages) // n_blocks, -(-len(group.pages) // n_blocks)}
        sizes |= {len(inner.pages) for inner in _random_groups(group.pages)}
    return n_blocks * math.lcm(*(len(latin_square(size)) for size in sizes))


def _block(config: TestConfig, entries: list[_Entry], path: str, slot: int) -> list[_Entry]:
    """Entries of the outermost random group at ``path`` in the slot's block."""
    n_blocks = config.section.blocks or 1
    before = 0
    for at, group in outermost(PageGroup(config.pages)):
        if at == path:
            break
        before += len(group.pages)
    return entries[(block_of(slot, n_blocks) - before) % n_blocks :: n_blocks]


def session_pages(config: TestConfig, stimuli: Stimuli, number: int, slot: int) -> list[SessionPage]:
    """Pages of the session with this number and slot."""
    pages: list[SessionPage] = []
    for page in _ordered(config, number, slot, PageGroup(config.pages), ""):
        own = page.model_dump(include=set(PublicPage.model_fields))
        own["training"] = config.is_training(page)
        own["content"] = sanitize(page.content) if page.content else page.content
        rng = _rng(config, "signals", number, page.id)
        if isinstance(page, OwnTrial):
            draw = _rng(config, "x", number, page.id, stimuli.url(page.id, "draw"))
            for added, conditions, pair in _own_pages(page, stimuli, rng, draw):
                public = PublicPage(**{**own, **added, "id": f"p{len(pages) + 1}"})
                pages.append(SessionPage(public=public, trial=page.id, conditions=conditions, pair=pair))
            continue
        for added, conditions in _flattened(page, stimuli, rng):
            public = PublicPage(**{**own, **added, "id": f"p{len(pages) + 1}"})
            # Set only for gold items, so that other pages are stored as in earlier versions.
            made = SessionPage(public=public, trial=page.id, conditions=conditions)
            pages.append(made.model_copy(update={"gold": True}) if config.is_gold(page) else made)
    return pages


def _rng(config: TestConfig, *what: object) -> random.Random:
    return random.Random(":".join(str(part) for part in (config.section.seed, *what)))


def _random_groups(pages: Sequence[Page | PageGroup]) -> list[PageGroup]:
    groups = []
    for entry in pages:
        if isinstance(entry, PageGroup):
            groups += ([entry] if entry.random else []) + _random_groups(entry.pages)
    return groups


def _ordered(
    config: TestConfig, number: int, slot: int, group: PageGroup, path: str, *, cut: bool = True
) -> list[Page]:
    """Pages of a group in the order of one session.

    Args:
        config: the test.
        number: of the session.
        slot: of the session.
        group: group of pages.
        path: position of the group in the file.
        cut: whether the group, if it is random, is cut into blocks, because it is not inside a random group.
    """
    entries = list(group.pages)
    if group.random:
        _rng(config, "letters", path).shuffle(entries)
        entries = _block(config, entries, path, slot) if cut else entries
        square = latin_square(len(entries))
        rows = list(range(len(square)))
        _rng(config, "rows", path).shuffle(rows)
        row = square[rows[slot // (config.section.blocks or 1) % len(rows)]]
        entries = [entries[index] for index in row[: config.section.items_per_listener]]
        if config.section.order == "random":
            _rng(config, "order", number, path).shuffle(entries)
    pages: list[Page] = []
    for entry in entries:
        if isinstance(entry, PageGroup):
            # Named by its position in the file, not in the shuffled order.
            here = f"{path}/{group.pages.index(entry)}"
            pages += _ordered(config, number, slot, entry, here, cut=cut and not group.random)
        else:
            pages.append(entry)
    return pages


def _flattened(
    page: Page, stimuli: Stimuli, rng: random.Random
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Fields of the public page that depend on the session, and its conditions; one entry per pair."""
    if isinstance(page, MushraPage):
        names = page.conditions()
        if page.randomize:
            rng.shuffle(names)
        signals, conditions = _signals(page, _named(names), stimuli, labelled=page.show_condition_names)
        reference = Sound(url=stimuli.url(page.id, "reference"))
        return [({"reference": reference, "signals": signals}, conditions)]
    if isinstance(page, Trial):
        return _pairs(page, stimuli, rng)
    if isinstance(page, LikertPage):
        names = list(page.stimuli)
        rng.shuffle(names)
        signals, conditions = _signals(page, _named(names[: page.max_stimuli]), stimuli)
        scales = [
            [
                {
                    key: (stimuli.url(page.id, value) if key.startswith("img") else value)
                    for key, value in response.model_dump(by_alias=True, exclude_none=True).items()
                }
                for response in scale
            ]
            for scale in page.response
        ]
        return [({"response": scales, "reference": None, "signals": signals}, conditions)]
    if isinstance(page, VolumePage):
        signals, _ = _signals(page, [("", "signal:volume")], stimuli)
        return [({"reference": None, "signals": signals}, {})]
    if isinstance(page, SpatialPage):
        return [_spatial(page, stimuli)]
    if isinstance(page, FinishPage):
        asked = [
            question.model_copy(update={"label": question.label or question.name})
            for question in page.questionnaire or []
        ]
        shown = sanitize(page.popup_content) if page.popup_content else page.popup_content
        return [({"popup_content": shown, "questionnaire": asked}, {})]
    return [({}, {})]


def _signals(
    page: Page | Trial | OwnTrial,
    placed: Sequence[tuple[str, str]],
    stimuli: Stimuli,
    *,
    labelled: bool = False,
) -> tuple[list[Signal], dict[str, str]]:
    """Signals from (name, place), in the given order, with ids that reveal only this order."""
    signals, conditions = [], {}
    for number, (name, place) in enumerate(placed, start=1):
        conditions[f"s{number}"] = name
        label = name if labelled else None
        signals.append(Signal(id=f"s{number}", url=stimuli.url(page.id, place), label=label))
    return signals, conditions


def _named(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, f"signal:{name}") for name in names]


def _pairs(page: Trial, stimuli: Stimuli, rng: random.Random) -> list[tuple[dict[str, Any], dict[str, str]]]:
    names = [*page.stimuli, *page.anchors()]
    rng.shuffle(names)
    pairs = []
    for name in names:
        pair = [(name, f"signal:{name}"), (HIDDEN_REFERENCE, f"beside:{name}")]
        rng.shuffle(pair)
        signals, conditions = _signals(page, pair, stimuli)
        reference = Sound(url=stimuli.url(page.id, "reference"))
        pairs.append(({"reference": reference, "signals": signals}, conditions))
    return pairs


def _own_pages(
    page: OwnTrial, stimuli: Stimuli, rng: random.Random, draw: random.Random
) -> list[tuple[dict[str, Any], dict[str, str], tuple[str, str]]]:
    """Like `_flattened`, with each page's pair; ``draw`` selects which of a pair X is."""
    shown = page.reference is not None and not isinstance(page, AbxPage)
    reference = Sound(url=stimuli.url(page.id, "reference")) if shown else None
    found = []
    for number, pair in enumerate(page.pairs()):
        order = [pair[0]] if isinstance(page, DcrPage) else rng.sample(pair, 2)
        placed = [(name, pair_place(number, name)) for name in order]
        presented = [placed]
        if isinstance(page, AbxPage):
            xs = [draw.choice(pair) for _ in range(page.trials)]
            presented = [[*placed, (x, pair_place(number, x, trial))] for trial, x in enumerate(xs)]
        for signals_placed in presented:
            signals, conditions = _signals(page, signals_placed, stimuli)
            found.append(({"reference": reference, "signals": signals}, conditions, pair))
    rng.shuffle(found)
    return found


def _spatial(page: SpatialPage, stimuli: Stimuli) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace stimuli ({name: path}, [path] or [{name: path}]) by signals; other values are unchanged."""
    found: list[tuple[str, str]] = []
    entries = page.stimuli if isinstance(page.stimuli, list) else [page.stimuli]
    for entry in entries:
        if isinstance(entry, str):
            found.append((entry, entry))
        elif isinstance(entry, dict):
            found += [(str(name), path) for name, path in entry.items() if isinstance(path, str)]
    signals, conditions = _signals(page, found, stimuli)
    passed_on = page.model_dump(include={"room_measurements", "responses", "views", "objects"})
    return {**stimuli.replaced(page.id, passed_on), "reference": None, "signals": signals}, conditions
