"""Make a listening test: choose items, prepare their signals, write the folder that `mushra serve` serves.

Layout of a test::

    config.yaml           webMUSHRA's YAML, opaque names only
    stimuli/TOKEN.wav     audio that listeners hear
    key.json              conditions behind the names; never served
    create_report.json    choices, results and warnings

The same inputs and seed give the same bytes. The folder appears complete or not at all.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.datasets.base import Clip
from mushra.anchors import anchor_filter
from mushra.config.load import load_config
from mushra.config.locate import CONFIG_NAME, KEY_NAME
from mushra.config.pages import HIDDEN_REFERENCE
from mushra.config.yaml_dump import dump
from mushra.containers import common_size, padded
from mushra.create.documents import Options, Trial, make_config, make_key, make_report
from mushra.create.material import GRID_S, Material, Pick, RunMaterial
from mushra.create.stimuli import Unsuitable, loudest_start, make_item, write_stimulus
from qincodec.core.console import Progress
from qincodec.core.errors import UserError, count
from qincodec.core.files import explain_os_errors, safe_name, write_atomic

REPORT_NAME = "create_report.json"
STIMULI = "stimuli"

#: Names that `mushra create` writes and --force may replace.
_OWN_NAMES = {CONFIG_NAME, KEY_NAME, REPORT_NAME, STIMULI}
_DEFAULT_ITEMS = 12
_DEFAULT_DURATION_S = 10.0
_MIN_DURATION_S = 1.0
_ROUNDING_S = 0.001
#: Limit of `mushra serve`, characters.
_MAX_TEST_ID = 200

_NO_TRAINING = (
    "ask for fewer items, give --training 0, or also train on rated recordings with --training-reuse"
)


def create_test(
    material: Material,
    out: Path,
    options: Options,
    *,
    force: bool = False,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Write a test folder.

    Args:
        material: source of the items.
        out: the folder; it must not exist, unless ``force`` is given.
        options: see `Options`.
        force: replace an earlier test, unless its folder holds anything else, such as results.
        progress: called with (what, done, total).

    Returns:
        Content of ``create_report.json``.

    Raises:
        UserError: the options are invalid, there are too few recordings, or the folder exists.
    """
    _check_options(options, material)
    check_out(out, force)
    builder = _Builder(material, options)
    prefix = creating_prefix(out)
    with explain_os_errors(out, "choose another folder with --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(out.parent, prefix)
        building = out.parent / f"{prefix}{secrets.token_hex(4)}"
        (building / STIMULI).mkdir(parents=True)
    at_work = _lock(building)
    try:
        report = builder.build(building, options.test_id or _slug(out.name), progress)
        load_config(building)  # fails here if `mushra serve` could not read it
        with explain_os_errors(out):
            _move(building, out, force)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        if at_work is not None:
            os.close(at_work)
    return report


@dataclass(frozen=True)
class _Quota:
    """``count`` items of these candidates in this order; ``strict``: an unsuitable one is an error."""

    what: str
    count: int
    candidates: list[Clip]
    strict: bool = False
    hint: str = "ask for fewer"


class _Builder:
    """Makes one test."""

    def __init__(self, material: Material, options: Options) -> None:
        self._material = material
        self._options = options
        self._skipped: list[tuple[str, str]] = list(material.excluded)
        self._trials: list[Trial] = []
        self._used: dict[str, Clip] = {}
        self._names: set[str] = set()
        self._ranked_by: list[str] = []
        longest = max((clip.duration_s for clip in material.clips), default=0.0)
        self._duration_s = options.duration_s or min(_DEFAULT_DURATION_S, longest)
        contents = sorted(clip.content_hash for clip in material.clips)
        # A listener could guess the seed, but does not have the contents of the recordings.
        self._secret = json.dumps([options.seed, contents])

    def build(self, folder: Path, test_id: str, progress: Progress) -> dict[str, Any]:
        """Write everything into an empty folder; return the report."""
        quotas = self._choose()
        total = sum(quota.count for quota in quotas) + self._options.training
        expected = [self._pick(clip) for quota in quotas for clip in quota.candidates[: quota.count]]
        delays = self._material.delays(expected)
        for quota in quotas:
            self._fill(quota, "trial", delays, folder, lambda done: progress("making items", done, total))
        long_enough = [clip for clip in self._material.clips if self._lasts(clip.duration_s)]
        spare = [clip for clip in self._ordered(long_enough) if clip.recording not in self._used]
        again = self._used.values() if self._options.training_reuse else ()
        training = _Quota("training", self._options.training, [*spare, *again], hint=_NO_TRAINING)
        self._fill(training, "training", delays, folder, lambda done: progress("making items", done, total))
        key = make_key(self._material, self._options, self._trials)
        report = make_report(
            self._material,
            self._options,
            self._trials,
            test_id=test_id,
            duration_s=self._duration_s,
            ranked_by=self._ranked_by,
            skipped=self._skipped,
        )
        config = make_config(self._options, self._trials, test_id)
        write_atomic(folder / CONFIG_NAME, dump(config))
        for name, content in ((KEY_NAME, key.model_dump()), (REPORT_NAME, report)):
            write_atomic(folder / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return report

    # Which excerpts

    def _choose(self) -> list[_Quota]:
        quotas = self._graded()
        if self._options.training and not self._options.training_reuse:
            items, pages = sum(quota.count for quota in quotas), self._options.training
            there = len({clip.recording for clip in self._material.clips if self._lasts(clip.duration_s)})
            if items <= there < items + pages:
                raise UserError(
                    f"{count(items, 'item')} and {count(pages, 'training page')} each need a recording of"
                    f" {self._duration_s:g} s; there are {there}: {_NO_TRAINING}"
                )
        return quotas

    def _graded(self) -> list[_Quota]:
        options = self._options
        if options.clips:
            return [_Quota(f"clip '{name}'", 1, [self._clip(name)], strict=True) for name in options.clips]
        clips = self._material.clips
        if options.per_category is None:
            n_recordings = len({clip.recording for clip in clips})
            kept = 0 if options.training_reuse else options.training  # recordings that are not rated
            wanted = options.items or max(1, min(_DEFAULT_ITEMS, n_recordings - kept))
            return [self._quota("the recordings", wanted, clips)]
        categories = sorted({clip.category for clip in clips if clip.category is not None})
        if not categories:
            raise UserError(
                "--per-category needs clips with categories; these have none: give --items instead"
            )
        return [
            self._quota(f"category '{name}'", options.per_category, [c for c in clips if c.category == name])
            for name in categories
        ]

    def _quota(self, what: str, wanted: int, clips: Sequence[Clip]) -> _Quota:
        """Quota of items from these clips. Raises `UserError` if too few recordings are long enough."""
        longest: dict[str, float] = {}
        for clip in clips:
            longest[clip.recording] = max(clip.duration_s, longest.get(clip.recording, 0.0))
        durations = sorted(longest.values(), reverse=True)
        n_long = sum(self._lasts(duration) for duration in durations)
        if n_long < wanted <= len(durations):
            enough = math.floor(10 * durations[wanted - 1]) / 10
            hint = f"--duration {enough:g} leaves {wanted}, or" if enough >= _MIN_DURATION_S else "ask for"
            raise UserError(
                f"{what}: asked for {count(wanted, 'item')}, {n_long} of {count(len(durations), 'recording')}"
                f" last {self._duration_s:g} s; {hint} fewer items, or a longer --chunk of `evaluate`"
            )
        return _Quota(what, wanted, self._ordered([clip for clip in clips if self._lasts(clip.duration_s)]))

    def _lasts(self, duration_s: float) -> bool:
        return duration_s >= self._duration_s - _ROUNDING_S

    def _clip(self, name: str) -> Clip:
        for clip in self._material.clips:
            if clip.id == name:
                return clip
        for excluded, reason in self._material.excluded:
            if excluded == name:
                raise UserError(f"clip '{name}' cannot be an item: {reason}")
        ids = [clip.id for clip in self._material.clips]
        close = difflib.get_close_matches(name, ids, n=3, cutoff=0.4)
        raise UserError(
            f"no clip '{name}'; {'close are' if close else 'the first are'} {', '.join(close or ids[:5])}"
        )

    def _ordered(self, clips: Sequence[Clip]) -> list[Clip]:
        """Candidates in the order of choice, the first of each recording."""
        seed = self._options.seed
        shuffled = sorted(clips, key=lambda clip: hashlib.sha256(f"{seed}:{clip.id}".encode()).digest())
        if self._options.pick == "hardest":
            assert isinstance(self._material, RunMaterial)
            ranks, self._ranked_by = self._material.hardness()
            shuffled = sorted(
                (c for c in shuffled if c.id in ranks), key=lambda clip: (ranks[clip.id], clip.id)
            )
        first = {clip.recording: clip for clip in reversed(shuffled)}
        return [clip for clip in shuffled if first[clip.recording] is clip]

    def _pick(self, clip: Clip) -> Pick:
        """The excerpt of a clip."""
        room = math.floor((clip.duration_s - self._duration_s) / GRID_S + 1e-6)
        if room <= 0:
            return Pick(clip, 0.0, min(self._duration_s, clip.duration_s))
        if self._options.excerpt == "energy":
            rate = self._material.sample_rate
            step, length = round(GRID_S * rate), round(self._duration_s * rate)
            steps = loudest_start(self._material.reference(clip), length, step) // step
        else:
            digest = hashlib.sha256(f"{self._options.seed}:start:{clip.id}".encode()).digest()
            steps = int.from_bytes(digest[:8], "little") % (room + 1)
        return Pick(clip, round(steps * GRID_S, 6), self._duration_s)

    # Their signals

    def _fill(
        self, quota: _Quota, kind: str, delays: dict[str, int], folder: Path, on_item: Callable[[int], None]
    ) -> None:
        """Make the items of a quota; the next candidate replaces an unsuitable one, which is noted."""
        made = 0
        reasons: list[str] = []
        for clip in quota.candidates:
            if made == quota.count:
                break
            try:
                pick = self._pick(clip)
                item = make_item(
                    self._material.load(pick), delays, self._options.made_anchors, self._options.target_lufs
                )
            except Unsuitable as error:
                if quota.strict:
                    raise UserError(f"clip '{clip.id}' cannot be an item: {error}; choose another") from error
                self._skipped.append((clip.id, str(error)))
                reasons.append(f"'{clip.id}': {error}")
                continue
            made += 1
            number = 1 + sum(trial.id.startswith(kind) for trial in self._trials)
            trial = Trial(f"{kind}{number:02d}", pick, item)
            self._write(trial, folder)
            self._trials.append(trial)
            self._used.setdefault(clip.recording, clip)
            on_item(len(self._trials))
        if made < quota.count:
            hint = quota.hint if made or kind == "training" else "give other recordings"
            first = f", {len(reasons)} cannot be items, the first: {reasons[0]}" if reasons else ""
            raise UserError(
                f"{quota.what}: asked for {count(quota.count, 'item')}, {made} can be made of"
                f" {count(len(quota.candidates), 'recording')}{first}; {hint}"
            )

    def _write(self, trial: Trial, folder: Path) -> None:
        """Write the signals of a trial in the order of their opaque names, and free them."""
        options, item = self._options, trial.item
        named = {}
        for condition in item.signals:
            if options.open_names:
                named[condition] = (condition, f"{trial.id}_{safe_name(condition)}")
            else:
                name = self._token(f"{trial.id}/{condition}")
                named[condition] = (name, self._token(f"{trial.id}/{condition}/file"))
        for condition, (name, stem) in sorted(named.items(), key=lambda entry: entry[1][1]):
            path = f"{STIMULI}/{stem}.{options.file_format}"
            digest = write_stimulus(
                folder / path,
                item.signals[condition],
                item.sample_rate,
                options.bits,
                f"{self._secret}{path}",
            )
            # Likert pages have the hidden reference among their stimuli, so it needs an opaque name.
            known = condition == HIDDEN_REFERENCE and options.method != "acr"
            trial.files[condition] = (HIDDEN_REFERENCE if known else name, path, digest)
        item.signals.clear()
        if options.file_format == "flac":
            self._even_out(trial, folder)

    def _even_out(self, trial: Trial, folder: Path) -> None:
        """Pad the files of a trial to one size: a smaller file would reveal a low-passed signal."""
        size = common_size([(folder / path).stat().st_size for _, path, _ in trial.files.values()])
        for condition, (name, path, _) in trial.files.items():
            data = padded((folder / path).read_bytes(), size)
            write_atomic(folder / path, data)
            trial.files[condition] = (name, path, hashlib.sha256(data).hexdigest())

    def _token(self, what: str) -> str:
        """An opaque name of eight letters, unique in the test."""
        for attempt in range(100):
            number = int.from_bytes(hashlib.sha256(f"{self._secret}{what}{attempt}".encode()).digest(), "big")
            token = "".join(chr(ord("a") + number // 26**place % 26) for place in range(8))
            if token not in self._names:
                self._names.add(token)
                return token
        raise AssertionError("no free name")


def _check_options(options: Options, material: Material) -> None:
    limits: list[tuple[str, float | None, float, float, str]] = [
        ("--items", options.items, 1, math.inf, "1 or more"),
        ("--per-category", options.per_category, 1, math.inf, "1 or more"),
        ("--duration", options.duration_s, _MIN_DURATION_S, 60, f"{_MIN_DURATION_S:g} to 60 seconds"),
        ("--training", options.training, 0, 20, "0 to 20"),
        ("--presentations", options.presentations, 1, 100, "1 to 100"),
        ("--loudness", options.target_lufs, -50, -10, "-50 to -10 LUFS"),
        ("--seed", options.seed, 0, math.inf, "0 or more"),
    ]
    for option, value, least, most, allowed in limits:
        if value is not None and not least <= value <= most:
            raise UserError(f"{option} is {value}; allowed: {allowed}")
    _check_method(options, len(material.systems))
    if options.bits not in (16, 24):
        raise UserError(f"--bits is {options.bits}; allowed: 16 or 24")
    for option, text in (("--title", options.title), ("--test-id", options.test_id)):
        if text is not None and not text.isprintable():
            raise UserError(f"{option} is {text!r}; allowed: letters, digits, signs and spaces, in one line")
    if len(options.test_id or "") > _MAX_TEST_ID:
        raise UserError(
            f"--test-id has {len(options.test_id or '')} characters; allowed: up to {_MAX_TEST_ID}"
        )
    twice = next((name for name in options.clips if options.clips.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"--clip {twice} is given twice; a listener rates each clip once: give another or leave it out"
        )
    ways = {"--items": options.items, "--per-category": options.per_category, "--clip": options.clips}
    given = [option for option, value in ways.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} both choose the items; give one of them")
    if options.pick == "hardest" and not isinstance(material, RunMaterial):
        raise UserError("--pick hardest needs a run's metrics; give --run, or leave it out")
    if not material.clips:
        reason = f"; the first: {material.excluded[0][1]}" if material.excluded else ""
        raise UserError(f"there is no clip to take an item from{reason}")
    for name in options.made_anchors:
        anchor_filter(name, material.sample_rate)  # refuses a rate that is too low


def _check_method(options: Options, n_systems: int) -> None:
    """Refuse options of another method than the test's."""
    for option, given, methods in (
        ("--anchors", options.anchors is not None, ("mushra",)),
        ("--show-reference", options.show_reference, ("ab",)),
        ("--presentations", options.presentations != 1, ("abx",)),
    ):
        if given and options.method not in methods:
            raise UserError(
                f"{option} goes with --method {methods[0]}, not with {options.method}; leave it out"
            )
    if options.method == "ab" and n_systems < 2:
        raise UserError(
            "--method ab compares systems with each other, and there is only one: give a second, or use"
            " --method abx, which compares each with the reference"
        )


def check_out(out: Path, force: bool) -> None:
    """Refuse a folder that `mushra create` must not write to."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise UserError(f"'{out}' is a file; choose another --out")
    names = sorted(path.name for path in out.iterdir())
    strangers = [name for name in names if name not in _OWN_NAMES]
    if strangers:
        raise UserError(
            f"'{out}' holds '{strangers[0]}', which `mushra create` did not write and will not delete; choose"
            " another --out"
        )
    if names and not force:
        raise UserError(f"'{out}' already holds a test; choose another --out, or replace it with --force")


def creating_prefix(out: Path) -> str:
    """Prefix of the temporary folders beside ``out`` in which it is made."""
    return f".{out.name}.creating-"


def _lock(folder: Path) -> int | None:
    """Descriptor that locks a folder while this process lives; None if it cannot be locked."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_unfinished(parent: Path, prefix: str) -> None:
    """Remove folders of killed `mushra create` processes of the same test; running ones hold a lock."""
    for left in [path for path in parent.iterdir() if path.name.startswith(prefix) and path.is_dir()]:
        descriptor = _lock(left)
        if descriptor is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(descriptor)


def _move(building: Path, out: Path, force: bool) -> None:
    """Move the finished folder to its place. `qincodec.core.files` cannot replace a folder."""
    check_out(out, force)  # it may have changed while the test was made
    if not force or not out.exists():
        building.rename(out)
        return
    old = building.with_name(f"{building.name}.old")
    out.rename(old)
    building.rename(out)
    shutil.rmtree(old)


def _slug(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name).strip("_")[:_MAX_TEST_ID] or "test"
