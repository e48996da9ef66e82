"""Position and look of each condition in a figure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from evaluation.report.drawing import COLOURS, MARKERS, NEUTRAL

_RATED = re.compile(r"(?P<codec>.+)@(?P<kbps>\d+(?:\.\d+)?)")
_ANCHOR = re.compile(r"anchor(\d+)")
_LONGEST_LABEL = 32
#: Width of a character, as a part of the font size.
CHARACTER = 0.56
#: Free space between two groups, in places.
_GAP = 0.9


@dataclass(frozen=True)
class Place:
    """Position and look of a condition. ``codec`` is its entry in the legend; "" for none."""

    condition: str
    x: float
    colour: str
    marker: str
    codec: str = ""


@dataclass(frozen=True)
class Layout:
    """Places one unit apart, from left to right, and the labels under them.

    Attributes:
        places: anchors from low to high, codecs by rate, other systems, the hidden reference.
        ticks: position and text of each label: a rate for a group of codecs, else a condition.
        spans: how much room each label has, in units.
    """

    places: tuple[Place, ...]
    ticks: tuple[tuple[float, str], ...]
    spans: tuple[float, ...]

    @property
    def limits(self) -> tuple[float, float]:
        xs = [place.x for place in self.places]
        return (min(xs) - 0.7, max(xs) + 0.7) if xs else (0.0, 1.0)


def codec_and_kbps(condition: str) -> tuple[str, float] | None:
    """("opus", 16.0) for "opus@16"; None for a name of another form."""
    match = _RATED.fullmatch(condition)
    return (match["codec"], float(match["kbps"])) if match else None


def display_name(condition: str, reference: str | None, anchors: Sequence[str]) -> str:
    """Name of a condition in a figure: "hidden reference", "3.5 kHz anchor", else its own name."""
    if condition == reference:
        return "hidden reference"
    match = _ANCHOR.fullmatch(condition)
    return f"{int(match[1]) / 10:g} kHz anchor" if match and condition in anchors else condition


def arrange(conditions: Sequence[str], reference: str | None, anchors: Sequence[str]) -> Layout:
    """Places of ``conditions``; systems named ``codec@kbps`` are grouped by rate and coloured by codec.

    Args:
        conditions: distinct names; codecs and other systems keep this order.
        reference: name of the hidden reference, if there is one.
        anchors: names, lowest first; those not among ``conditions`` are left out.
    """
    apart = {*anchors, reference}
    rated = {name: parts for name in conditions if name not in apart and (parts := codec_and_kbps(name))}
    codecs = list(dict.fromkeys(codec for codec, _ in rated.values()))
    groups = [[name] for name in anchors if name in conditions]
    labels = [display_name(group[0], reference, anchors) for group in groups]
    for rate in sorted({kbps for _, kbps in rated.values()}):
        members = [name for name, (_, kbps) in rated.items() if kbps == rate]
        groups.append(sorted(members, key=lambda name: codecs.index(rated[name][0])))
        labels.append(f"{rate:g} kbps")
    for name in [name for name in conditions if name not in rated and name not in apart] + (
        [reference] if reference in conditions and reference is not None else []
    ):
        groups.append([name])
        labels.append(display_name(name, reference, anchors))
    labels = _distinct([_shortened(label) for label in labels])
    gap = _GAP if any(len(group) > 1 for group in groups) else 0.0
    places, ticks, spans = [], [], []
    x = 0.0
    for group, label in zip(groups, labels, strict=True):
        ticks.append((x + (len(group) - 1) / 2, label))
        spans.append(len(group) + gap)
        for name in group:
            if name in rated:
                codec = rated[name][0]
                index = codecs.index(codec)
                colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
                places.append(Place(name, x, colour, marker, codec))
            elif name in apart:
                places.append(Place(name, x, NEUTRAL, "d" if name == reference else "v"))
            else:
                places.append(Place(name, x, NEUTRAL if rated else COLOURS[0], "o"))
            x += 1
        x += gap
    return Layout(tuple(places), tuple(ticks), tuple(spans))


def label_axis(axes: Axes, layout: Layout, width: float, *, font_size: float, slant: bool = True) -> float:
    """Write the labels under ``axes``, turned and made smaller if needed.

    Args:
        axes: its x axis is set up for ``layout``.
        width: of the axes, inches.
        font_size: in points, where there is room.
        slant: turn labels by 40 degrees where they have the room, not upright; they reach to the left.

    Returns:
        Height the labels need, inches.
    """
    axes.set_xlim(*layout.limits)
    low, high = layout.limits
    unit = 72 * width / (high - low)
    texts = [text for _, text in layout.ticks]
    axes.set_xticks([x for x, _ in layout.ticks])
    for size in (font_size, font_size - 0.7, font_size - 1.4):
        rooms = [max(1, int(unit * span / (CHARACTER * size))) for span in layout.spans]
        wrapped = [textwrap.wrap(text, room) for text, room in zip(texts, rooms, strict=True)]
        words = [re.split(r"(?<=-)|\s", text) for text in texts]
        if all(
            max(map(len, parts)) <= room and len(lines) <= 3
            for parts, room, lines in zip(words, rooms, wrapped, strict=True)
        ):
            axes.set_xticklabels(["\n".join(lines) for lines in wrapped], fontsize=size)
            return 1.25 * size * max((len(lines) for lines in wrapped), default=1) / 72
    # A rate is horizontal under its group if it fits; names are all turned in the same way.
    narrow = min(layout.spans)
    size = min(font_size, max(4.0, 0.85 * unit * narrow))
    slanted = slant and unit * narrow >= 2.2 * size
    turned = [
        span == narrow or len(text) * CHARACTER * size > unit * span
        for text, span in zip(texts, layout.spans, strict=True)
    ]
    axes.set_xticklabels(texts, fontsize=size)
    for label, turn in zip(axes.get_xticklabels(), turned, strict=True):
        if turn and slanted:
            label.set(rotation=40, ha="right", rotation_mode="anchor")
        elif turn:
            label.set(rotation=90)
    length = max(map(len, texts)) * CHARACTER * size / 72
    return 0.65 * length + size / 72 if slanted else length


def _shortened(label: str) -> str:
    """At most `_LONGEST_LABEL` characters; the middle is left out, because ends differ more often."""
    if len(label) <= _LONGEST_LABEL:
        return label
    half = (_LONGEST_LABEL - 1) // 2
    return f"{label[:half]}…{label[-half:]}"


def _distinct(labels: Sequence[str]) -> list[str]:
    """Labels in which equal ones are numbered."""
    seen: dict[str, int] = {}
    result = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        result.append(f"{label} ({seen[label]})" if labels.count(label) > 1 else label)
    return result
