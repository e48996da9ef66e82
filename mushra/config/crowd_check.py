"""Checks of a test's blocks, gold items and panel against its pages."""

from __future__ import annotations

from collections.abc import Iterator

from mushra.config.crowd import Gold
from mushra.config.pages import (
    HIDDEN_REFERENCE,
    AbPage,
    DcrPage,
    LikertPage,
    MushraPage,
    Page,
    PageGroup,
    PairedComparisonPage,
    Section,
    Trial,
)
from mushra.config.yaml_lines import Location


def outermost(group: PageGroup, path: str = "") -> Iterator[tuple[str, PageGroup]]:
    """The outermost random lists in the order of the file, each with its position in the file."""
    for index, entry in enumerate(group.pages):
        if isinstance(entry, PageGroup):
            here = f"{path}/{index}"
            if entry.random:
                yield here, entry
            else:
                yield from outermost(entry, here)


def crowd_errors(section: Section, group: PageGroup) -> Iterator[tuple[Location, str]]:
    """Each error: the key in our section, and a sentence."""
    if section.blocks is not None:
        sizes = [len(found.pages) for _, found in outermost(group)]
        if not sizes:
            yield ("blocks",), "'blocks' is given, but no list begins with 'random'; only such lists are cut"
        elif min(sizes) < section.blocks:
            yield (
                ("blocks",),
                f"'blocks' is {section.blocks}; a random list has {min(sizes)} entries, so that some blocks"
                f" would have none: give at most {min(sizes)}",
            )
    pages = {page.id: page for page in group.flat()}
    seen = set[tuple[str, str]]()
    for index, gold in enumerate(section.gold):
        problem = _wrong(gold, pages.get(gold.page))
        if (gold.page, gold.stimulus) in seen:
            problem = f"'{gold.stimulus}' of page '{gold.page}' is given twice"
        seen.add((gold.page, gold.stimulus))
        if problem is not None:
            yield ("gold", index), f"gold: {problem}"


def _wrong(gold: Gold, page: Page | None) -> str | None:
    if page is None:
        return f"no page has the id '{gold.page}'"
    if isinstance(page, AbPage) and len(page.stimuli) > 2:
        return f"page '{page.id}' has several pairs; give a page with two stimuli"
    if not isinstance(page, Trial | LikertPage | AbPage | DcrPage):
        return (
            f"page '{page.id}' is of type {page.type}, which is not checked; give one with scores or answers"
        )
    known = list(page.stimuli)
    if isinstance(page, Trial):
        known += page.anchors()
    if isinstance(page, MushraPage):
        known.append(HIDDEN_REFERENCE)
    if gold.stimulus not in known:
        return f"page '{page.id}' has no stimulus '{gold.stimulus}'; it has {', '.join(known)}"
    if isinstance(page, LikertPage) and (page.max_stimuli or len(known)) < len(known):
        return f"page '{page.id}' draws some of its stimuli, so some listeners would not get this one"
    if isinstance(page, LikertPage) and len(page.response) > 1:
        return f"page '{page.id}' has several scales; give a page with one"
    if isinstance(page, AbPage) and gold.stimulus != known[0]:
        return f"page '{page.id}' stores its answer under its first stimulus; give '{known[0]}'"
    in_words = isinstance(page, LikertPage | PairedComparisonPage | AbPage)
    if in_words != (gold.answers is not None) or in_words != (gold.low is None and gold.high is None):
        wanted = (
            "'answers', and neither 'low' nor 'high'"
            if in_words
            else "'low', 'high' or both, without 'answers'"
        )
        return f"page '{page.id}' is of type {page.type}: give {wanted}"
    if not in_words:
        low, high = gold.low, gold.high
        if low is not None and high is not None and low > high:
            return f"no score is from {low:g} to {high:g}; swap 'low' and 'high'"
        return None
    allowed = [gold.stimulus, HIDDEN_REFERENCE, "undecided"]
    if isinstance(page, AbPage):
        allowed = known
    elif isinstance(page, LikertPage):
        allowed = [choice.value for choice in page.response[0]]
    strange = [answer for answer in gold.answers or [] if answer not in allowed]
    if strange or not gold.answers:
        return f"'{(strange or [''])[0]}' is not an answer of page '{page.id}'; it has {', '.join(allowed)}"
    return None
