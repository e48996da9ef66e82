"""Check a whole test before its listeners come: its audio, its key, and the standard's limits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mushra.anchors import anchor_filter, exceeds_pcm, make_anchor, too_loud_for_flac
from mushra.config.key import NO_KEY, Key, read_key
from mushra.config.load import Finding, one_line, read
from mushra.config.locate import KEY_NAME, key_beside
from mushra.config.pages import (
    ANCHOR35,
    ANCHOR70,
    HIDDEN_REFERENCE,
    LikertPage,
    MushraPage,
    OwnTrial,
    Page,
    PageGroup,
    Section,
    TestConfig,
    Trial,
    VolumePage,
)
from mushra.containers import MEDIA_TYPES, NO_ANCHOR_BESIDE, container
from mushra.faults import reference_faults
from mushra.standard import ITEMS_PER_SYSTEM, MAX_EXCERPT_S, MAX_SIGNALS, MIN_ITEMS, MIN_SCREENED_ITEMS
from qincodec import audio
from qincodec.core.errors import UserError, count

#: Most channels that browsers decode and play.
MAX_CHANNELS = 8
#: Far above the gain of any recording; 10 ** (gain / 20) of a larger one may overflow.
_MAX_GAIN_DB = 1000


@dataclass(frozen=True)
class Remark:
    """A remark on a page (by number, from 1; None: on the test); ``key`` is its place in the page."""

    severity: Literal["error", "warning"]
    page: int | None
    message: str
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Sound:
    """Properties of an audio file that are compared; ``kind`` is its container or its suffix."""

    sample_rate: int
    channels: int
    num_samples: int
    peak: float
    sha256: str
    size: int
    kind: str
    faults: tuple[str, ...]


def excerpt_warning(duration_s: float) -> str | None:
    """Warning about an excerpt's length by the standard."""
    if duration_s <= MAX_EXCERPT_S + 1e-6:
        return None
    return f"an excerpt lasts {duration_s:.1f} s; the standard allows at most {MAX_EXCERPT_S:g} s"


def signals_warning(n_signals: int) -> str | None:
    """Warning about the number of signals in one trial, hidden reference and anchors included."""
    if n_signals <= MAX_SIGNALS:
        return None
    return (
        f"{n_signals} signals in one trial, hidden reference and anchors included; the standard allows at"
        f" most {MAX_SIGNALS}: listeners lose the overview"
    )


def items_warning(n_items: int, n_systems: int) -> str | None:
    """Warning about the number of trials, without training, for a number of conditions under test."""
    least = max(MIN_ITEMS, math.ceil(ITEMS_PER_SYSTEM * n_systems))
    if n_items >= least:
        return None
    return (
        f"{count(n_items, 'item')} for {count(n_systems, 'system')} under test; the standard requires at"
        f" least {MIN_ITEMS} and about {ITEMS_PER_SYSTEM:g} times as many items as systems, here {least}"
    )


def screening_warning(n_items: int) -> str | None:
    """Warning about the screening of listeners, from the number of items that each one rates."""
    if n_items >= MIN_SCREENED_ITEMS:
        return None
    return (
        f"each listener rates {n_items} {'item' if n_items == 1 else 'items'}: under {MIN_SCREENED_ITEMS}"
        " screening does not exclude listeners, because one slip breaks its rules; `mushra analyze` then"
        " names the listeners who break them, and --exclude leaves them out"
    )


def share_warning(section: Section, longest: int) -> str | None:
    """What it means that a listener is to be given more entries than the longest random list or block has."""
    asked = section.items_per_listener
    if asked is None or asked <= longest:
        return None
    if not longest:
        return f"items_per_listener is {asked}, but the test has no random list: it has no effect"
    what = "a block of the longest random list" if section.blocks else "the longest random list"
    return f"items_per_listener is {asked}, but {what} has {longest} entries: each listener gets all of them"


def check_config(path: Path, root: Path | None = None) -> list[Finding]:
    """Errors and warnings of a test, including its audio and its key, by line.

    Arguments and errors are those of `mushra.config.load.load_config`, but errors in the file are returned.
    """
    reading = read(path, root)
    config = reading.config
    if config is not None:
        for remark in check_test(config):
            location = () if remark.page is None else (*reading.locations[remark.page], *remark.key)
            line = reading.document.line(location)
            reading.findings.append(
                Finding(remark.severity, config.path, line, remark.page, one_line(remark.message))
            )
    return sorted(reading.findings, key=lambda finding: finding.line)


def check_test(config: TestConfig) -> Iterator[Remark]:
    """All problems that can be found before the first listener comes.

    Errors: audio that is missing, unreadable, outside the test's folder or not finite, or has more channels
    than browsers play; a trial whose signals differ in sample rate or channels, or in length if
    ``stopOnErrors`` is set; an anchor that its type of file would reveal; a key that does not fit.
    Warnings: more than two channels, several sample rates, other lengths, silence, clipping, faults of a
    reference (`mushra.faults`), types and sizes of files that reveal items, training on a recording of the
    test, limits of the standard, names that reveal a condition.
    """
    key, path_of_key = NO_KEY, key_beside(config.path) or key_beside(config.root)
    if path_of_key is not None:
        try:
            key = read_key(path_of_key, whole=True)
        except UserError as error:
            yield Remark("error", None, str(error))
    full_scales = _full_scales(key)
    looked_at: dict[str, _Sound | str] = {}
    pages = list(enumerate(config.flat(), start=1))
    sounds: dict[int, dict[str, _Sound]] = {}
    for number, page in pages:
        found: dict[str, _Sound] = {}
        for place, path in _audio_paths(page):
            if path not in looked_at:
                looked_at[path] = _look(config, path, full_scales.get(path, 1.0))
            sound = looked_at[path]
            if isinstance(sound, str):
                yield Remark("error", number, f"'{path}': {sound}", place)
                continue
            found[place[-1]] = sound
            if sound.peak == 0:
                yield Remark("warning", number, f"'{path}' is silent", place)
            elif sound.peak > 1:
                level = 20 * math.log10(sound.peak)
                yield Remark("warning", number, f"'{path}' peaks at {level:+.2f} dBFS and will clip", place)
            if place == ("reference",) and sound.peak > 0:
                for fault in sound.faults:
                    yield Remark("warning", number, f"reference '{path}' {fault}", place)
        yield from _unplayable(number, page, found)
        if isinstance(page, Trial | OwnTrial):
            yield from _uneven(number, page, found, config.general.stop_on_errors)
        if isinstance(page, Trial):
            yield from _impossible_anchors(config, number, page, found)
        if not isinstance(page, VolumePage):
            yield from _visible_differences(number, found)
        if isinstance(page, LikertPage):
            for path in page.pictures():
                if not config.audio_path(path).is_file():
                    yield Remark("error", number, f"'{path}': no such file in '{config.root}'", ("response",))
        sounds[number] = found
    yield from _own_types(pages)
    yield from _device_needed(sounds)
    yield from _check_limits(config, pages, sounds, key)
    yield from _telling_names(config, pages, key)
    yield from _trained_on(config, pages, sounds, key)
    longest = max(PageGroup(config.pages).random_lengths(config.section.blocks or 1), default=0)
    if warning := share_warning(config.section, longest):
        yield Remark("warning", None, warning)
    if key is not NO_KEY:
        yield from _check_key(pages, sounds, key)


def _audio_paths(page: Page) -> Iterator[tuple[tuple[str, ...], str]]:
    """(key in the page, path) of every sound that a page names."""
    if isinstance(page, VolumePage):
        yield ("stimulus",), page.stimulus
    if isinstance(page, Trial | OwnTrial) and page.reference is not None:
        yield ("reference",), page.reference
    if isinstance(page, Trial | OwnTrial | LikertPage):
        for name, path in page.stimuli.items():
            yield ("stimuli", name), path


def _full_scales(key: Key) -> dict[str, float]:
    """Path of a reference -> factor by which `mushra create` multiplied the recording."""
    return {
        trial.reference: 10 ** (trial.gain_db / 20)
        for trial in key.trials.values()
        if trial.reference and trial.gain_db is not None and abs(trial.gain_db) < _MAX_GAIN_DB
    }


def _look(config: TestConfig, path: str, full_scale: float) -> _Sound | str:
    """Properties of a file, or its error; ``full_scale`` as in `reference_faults`."""
    file = config.audio_path(path)
    try:
        inside = file.resolve().is_relative_to(config.root)
        if not file.is_file():
            return f"no such file in '{config.root}'"
    except (OSError, ValueError) as error:
        return f"cannot be opened: {error}"
    if not inside:
        return "a link that leads out of the test's folder; copy the file into it"
    try:
        info = audio.info(file)
        samples = np.concatenate(list(audio.blocks(file)), axis=1)
        data = file.read_bytes()
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    # `mushra create` dithers 16 bits after its gain: up to 1.5 steps either way.
    slack = 3 * 2.0**-15 if full_scale != 1 and info.codec == "PCM_16" else 0.0
    return _Sound(
        info.sample_rate,
        info.channels,
        samples.shape[1],
        float(np.abs(samples).max(initial=0)),
        hashlib.sha256(data).hexdigest(),
        len(data),
        container(data) or file.suffix.lower().lstrip(".") or "unknown",
        tuple(reference_faults(samples, full_scale, slack)),
    )


def _unplayable(number: int, page: Page, found: dict[str, _Sound]) -> Iterator[Remark]:
    """Channels that browsers do not play unchanged; `_uneven` compares those of a trial."""
    most = max((sound.channels for sound in found.values()), default=0)
    for name, sound in found.items():
        listed = isinstance(page, Trial | OwnTrial | LikertPage) and name in page.stimuli
        place = ("stimuli", name) if listed else (name,)
        if sound.channels > MAX_CHANNELS:
            message = f"'{name}' has {sound.channels} channels; browsers play up to {MAX_CHANNELS}"
            yield Remark("error", number, message, place)
        elif isinstance(page, LikertPage) and 2 < most != sound.channels:
            message = (
                f"'{name}' has {count(sound.channels, 'channel')}, others of this page {most}; beyond stereo"
                " all sounds of a page must have the same number"
            )
            yield Remark("error", number, message, place)


def _device_needed(sounds: dict[int, dict[str, _Sound]]) -> Iterator[Remark]:
    """Requirements on listeners' devices, and resampling in browsers."""
    found = [(number, sound) for number, page in sounds.items() for sound in page.values()]
    number, most = max(((n, s.channels) for n, s in found), key=lambda one: one[1], default=(0, 0))
    if 2 < most <= MAX_CHANNELS:
        yield Remark(
            "warning",
            number,
            f"sounds have {most} channels: they are played unmixed, channel k on output k of the device, and"
            " listeners whose devices have fewer outputs cannot begin",
        )
    rates = sorted({sound.sample_rate for _, sound in found})
    if len(rates) > 1:
        yield Remark(
            "warning",
            None,
            f"sounds have {', '.join(map(str, rates))} Hz; a test is played at the most frequent rate of its"
            " files, and the browser resamples the others: give all the same rate",
        )


def _uneven(
    number: int, page: Trial | OwnTrial, found: dict[str, _Sound], stop_on_errors: bool
) -> Iterator[Remark]:
    """Signals of a trial that cannot be compared, because they differ from the reference or the first."""
    first = next(iter(page.stimuli))
    reference = found.get("reference" if page.reference is not None else first)
    if reference is None:
        return
    whose = "the reference" if page.reference is not None else f"'{first}'"
    for name in page.stimuli:
        sound = found.get(name)
        if sound is None:
            continue
        for what, given, due in (
            ("sample rate", f"{sound.sample_rate} Hz", f"{reference.sample_rate} Hz"),
            ("number of channels", f"{sound.channels}", f"{reference.channels}"),
            ("length", f"{sound.num_samples} samples", f"{reference.num_samples} samples"),
        ):
            if given != due:
                harmless = what == "length" and not stop_on_errors
                yield Remark(
                    "warning" if harmless else "error",
                    number,
                    f"{what} of '{name}' is {given}, that of {whose} {due}",
                    ("stimuli", name),
                )


def _impossible_anchors(
    config: TestConfig, number: int, page: Trial, found: dict[str, _Sound]
) -> Iterator[Remark]:
    reference = found.get("reference")
    if not page.anchors() or reference is None:
        return
    paths = {"reference": page.reference, **page.stimuli}
    others = [name for name, s in found.items() if s.kind not in MEDIA_TYPES or s.kind != reference.kind]
    if others:
        place = ("reference",) if others[0] == "reference" else ("stimuli", others[0])
        yield Remark("error", number, NO_ANCHOR_BESIDE.format(paths[others[0]]), place)
    for name in page.anchors():
        try:
            anchor_filter(name, reference.sample_rate)
        except UserError as error:
            yield Remark("error", number, str(error), ("reference",))
            continue
        if reference.kind == "flac":
            samples, sample_rate = audio.read(config.audio_path(page.reference))
            if exceeds_pcm(make_anchor(samples, sample_rate, name)):
                message = f"'{page.reference}': {too_loud_for_flac(name)}"
                yield Remark("error", number, message, ("reference",))


def _visible_differences(number: int, found: dict[str, _Sound]) -> Iterator[Remark]:
    """Files of one page that differ in a browser's list of requests; `mushra serve` equalizes the rest."""
    kinds = sorted({sound.kind for sound in found.values()})
    sizes = {sound.size for sound in found.values()}
    if len(kinds) > 1:
        what = f"type ({', '.join(kinds)})"
    elif kinds and kinds[0] not in MEDIA_TYPES and len(sizes) > 1:
        what = f"size ({min(sizes)} to {max(sizes)} bytes of {kinds[0]})"
    else:
        return
    yield Remark(
        "warning",
        number,
        f"files differ in {what}, which a browser's network panel shows, so that the hidden reference looks"
        " like the reference: give all as WAV or all as FLAC, which are served in one size",
        ("stimuli",),
    )


def _own_types(pages: list[tuple[int, Page]]) -> Iterator[Remark]:
    """Warning about pages that webMUSHRA itself cannot show."""
    own: dict[str, int] = {}
    for number, page in pages:
        if isinstance(page, OwnTrial):
            own.setdefault(page.type, number)
    if own:
        types = ", ".join(f"'{kind}'" for kind in own)
        message = f"`mushra serve` shows pages of type {types}; an unmodified webMUSHRA does not know them"
        yield Remark("warning", min(own.values()), message, ("type",))


def _check_limits(
    config: TestConfig, pages: list[tuple[int, Page]], sounds: dict[int, dict[str, _Sound]], key: Key
) -> Iterator[Remark]:
    trials = [
        (n, page) for n, page in pages if isinstance(page, MushraPage) and not config.is_kept_apart(page)
    ]
    if not trials:
        return
    systems: set[str] = set()
    without_anchor: list[int] = []
    for number, page in trials:
        conditions = [key.condition(page.id, name) for name in page.conditions()]
        systems.update(name for name in conditions if not is_control(name))
        if ANCHOR35 not in conditions:
            without_anchor.append(number)
        if warning := signals_warning(len(conditions)):
            yield Remark("warning", number, warning, ("stimuli",))
        reference = sounds[number].get("reference")
        if reference and (warning := excerpt_warning(reference.num_samples / reference.sample_rate)):
            yield Remark("warning", number, warning, ("reference",))
    if without_anchor:
        yield Remark(
            "warning",
            without_anchor[0],
            f"{len(without_anchor)} of {len(trials)} trials have no anchor35: the standard requires a low"
            " anchor, low-passed at 3.5 kHz, in each; createAnchor35 makes it",
            ("stimuli",),
        )
    rated = _fewest_rated(config, PageGroup(config.pages))
    for warning in (items_warning(len(trials), len(systems)), screening_warning(rated)):
        if warning:
            yield Remark("warning", None, warning)


def _fewest_rated(config: TestConfig, group: PageGroup, *, cut: bool = True) -> int:
    """Least number of counted trials of a listener; ``cut``: whether random lists are cut into blocks."""
    numbers = sorted(
        _fewest_rated(config, entry, cut=cut and not group.random)
        if isinstance(entry, PageGroup)
        else int(isinstance(entry, MushraPage) and not config.is_kept_apart(entry))
        for entry in group.pages
    )
    if not group.random:
        return sum(numbers)
    block = numbers[: len(numbers) // (config.section.blocks or 1)] if cut else numbers
    return sum(block[: config.section.items_per_listener])


def is_control(condition: str) -> bool:
    """Whether a condition is the hidden reference or an anchor, not a system under test."""
    return condition in (HIDDEN_REFERENCE, ANCHOR35, ANCHOR70)


def _telling_names(config: TestConfig, pages: list[tuple[int, Page]], key: Key) -> Iterator[Remark]:
    for number, page in pages:
        if isinstance(page, MushraPage) and page.show_condition_names and not config.is_training(page):
            message = "'showConditionNames' shows listeners which condition they rate; leave it out"
            yield Remark("warning", number, message, ("showConditionNames",))
    for number, page in pages:
        for name in page.stimuli if isinstance(page, MushraPage) else ():
            if key.condition(page.id, name) == name:
                yield Remark(
                    "warning",
                    number,
                    f"names such as '{name}' reveal the conditions, and webMUSHRA itself sends them to the"
                    " listeners' browsers (`mushra serve` does not); `mushra create` makes names that reveal"
                    " nothing",
                    ("stimuli", name),
                )
                return


def _trained_on(
    config: TestConfig, pages: list[tuple[int, Page]], sounds: dict[int, dict[str, _Sound]], key: Key
) -> Iterator[Remark]:
    """Training pages with a recording that is rated later, known from the key or from an equal reference."""
    rated: dict[str, int] = {}
    training: list[tuple[int, str]] = []
    for number, page in pages:
        if not isinstance(page, Trial | OwnTrial | LikertPage):
            continue
        reference = sounds[number].get("reference")
        recording = reference.sha256 if reference is not None else None
        if page.id in key.trials:
            recording = key.trials[page.id].recording or recording
        if recording is None:
            continue
        if config.is_training(page):
            training.append((number, recording))
        else:
            rated.setdefault(recording, number)
    for number, recording in training:
        if recording in rated:
            yield Remark(
                "warning",
                number,
                f"this training page has the recording of page {rated[recording]}, which listeners then rate"
                " after hearing it with all its conditions: train on another",
                ("reference",),
            )


def _check_key(
    pages: list[tuple[int, Page]], sounds: dict[int, dict[str, _Sound]], key: Key
) -> Iterator[Remark]:
    """Check that the key belongs to the test: it has the same trials, names and files."""
    trials = {
        page.id: (number, page) for number, page in pages if isinstance(page, Trial | OwnTrial | LikertPage)
    }
    for trial in sorted(set(key.trials) - set(trials)):
        yield Remark("error", None, f"'{KEY_NAME}' has trial '{trial}', which is not a page of the test")
    for trial, (number, page) in trials.items():
        if trial not in key.trials:
            if isinstance(page, MushraPage | OwnTrial):
                yield Remark("error", number, f"'{KEY_NAME}' does not have trial '{trial}'")
            continue
        reference = None if isinstance(page, LikertPage) else page.reference
        for name, path in {HIDDEN_REFERENCE: reference, **page.stimuli}.items():
            if path is None:
                continue
            place = ("reference",) if name == HIDDEN_REFERENCE else ("stimuli", name)
            signal = key.trials[trial].signals.get(name)
            if signal is None or signal.file != path:
                message = f"'{KEY_NAME}' does not have '{name}' with file '{path}'"
                yield Remark("error", number, message, place)
            elif name in sounds[number] and signal.sha256 != sounds[number][name].sha256:
                message = f"'{path}' differs from the file in '{KEY_NAME}': it was changed after `create`"
                yield Remark("error", number, message, place)
