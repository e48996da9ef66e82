"""Documents in a test's folder beside its audio: the webMUSHRA YAML, the key, the report.

Pure functions of the finished trials.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

import qincodec
from mushra.check import excerpt_warning, items_warning, screening_warning, share_warning, signals_warning
from mushra.config.key import Key, KeySignal, KeyTrial
from mushra.config.locate import KEY_FORMAT
from mushra.config.methods import Method, method_texts
from mushra.config.pages import ANCHOR35, ANCHOR70, HIDDEN_REFERENCE, Language, Section
from mushra.config.texts import TEXTS, questions
from mushra.create.material import Material, Pick
from mushra.create.methods import MANY_PAGES, Effort, effort, trial_page
from mushra.create.stimuli import Item
from qincodec.core.errors import UserError

#: A condition whose loudness differs from the reference by more than this gets a warning, dB.
_LEVEL_DB = 1.0
#: Start of the 7 kHz anchor's stop band; audio that ends below it hardly differs from its mid anchor.
_MID_ANCHOR_END_HZ = 9000


@dataclass(frozen=True)
class Options:
    """Options of a new test.

    Attributes:
        method: method of the test; a trial is a page of its type.
        items: number of trials; None: 12, or the number of recordings if it is lower.
        per_category: number of trials of each category, instead.
        clips: ids of the clips to take, instead.
        pick: "random", or "hardest": worst mean rank of the run's metrics over the chosen conditions.
        duration_s: length of an excerpt; None: 10 s, or the longest clip if that is shorter.
        excerpt: position of the excerpt: "random" or "energy" (the part with most energy).
        anchors: anchors to make; None: both in a MUSHRA test, none in others.
        show_reference: AB: also play the reference, and ask which is closer to it.
        presentations: ABX: presentations of each pair of an item.
        training: number of training pages.
        training_reuse: use rated recordings for training if no others are left.
        target_lufs: loudness of the references; None: they are left as they are.
        file_format: format of the stimuli.
        bits: 16 (with dither) or 24.
        open_names: use the conditions' names in the YAML and the file names.
        language: language of the pages.
        title, test_id: title and id; None: the language's default, and the folder's name.
        questionnaire: ask for age, experience, headphones and remarks at the end.
        instructions: HTML of the first page, instead of the built-in welcome.
        loop: let listeners loop a part of an excerpt.
        section: our section of the YAML; languages and seed are set here.
        seed: seed of every random choice.
    """

    method: Method = "mushra"
    items: int | None = None
    per_category: int | None = None
    clips: Sequence[str] = ()
    pick: Literal["random", "hardest"] = "random"
    duration_s: float | None = None
    excerpt: Literal["random", "energy"] = "random"
    anchors: Sequence[str] | None = None
    show_reference: bool = False
    presentations: int = 1
    training: int = 1
    training_reuse: bool = False
    target_lufs: float | None = -23.0
    file_format: Literal["wav", "flac"] = "wav"
    bits: int = 24
    open_names: bool = False
    language: Language = "en"
    title: str | None = None
    test_id: str | None = None
    questionnaire: bool = True
    instructions: str | None = None
    loop: bool = True
    section: Section = field(default_factory=Section)
    seed: int = 0

    @property
    def made_anchors(self) -> tuple[str, ...]:
        """Names of the anchors that are made."""
        if self.anchors is None:
            return (ANCHOR35, ANCHOR70) if self.method == "mushra" else ()
        return tuple(self.anchors)


@dataclass
class Trial:
    """A trial: its id, its excerpt, its finished item (without signals after writing), its files."""

    id: str
    pick: Pick
    item: Item
    #: condition -> (name in the YAML, path, SHA-256).
    files: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    @property
    def is_training(self) -> bool:
        """Whether the id begins with "training": grades of such pages are kept apart."""
        return self.id.startswith("training")


def make_key(material: Material, options: Options, trials: Sequence[Trial]) -> Key:
    """Conditions behind the names of each trial (``key.json``)."""
    systems = {system.label: system for system in material.systems}
    entries = {}
    for trial in sorted(trials, key=lambda trial: trial.id):
        clip, item = trial.pick.clip, trial.item
        signals = {}
        for condition, (name, path, digest) in sorted(trial.files.items(), key=lambda entry: entry[1][0]):
            system = systems.get(condition)
            signals[name] = KeySignal(
                condition=condition,
                codec=system.codec if system else None,
                kbps=system.kbps if system else None,
                kbps_measured=material.kbps_measured(condition, clip) if system else None,
                weights=system.weights if system else None,
                file=path,
                sha256=digest,
            )
        entries[trial.id] = KeyTrial(
            clip=clip.id,
            recording=clip.recording,
            category=clip.category,
            start_s=round(clip.start_s + trial.pick.start_s + item.offset_s, 6),
            duration_s=round(item.duration_s, 6),
            gain_db=round(item.gain_db, 4),
            reference=trial.files[HIDDEN_REFERENCE][1],
            signals=signals,
        )
    return Key(
        format=KEY_FORMAT,
        sample_rate=material.sample_rate,
        run=material.name,
        seed=options.seed,
        trials=entries,
    )


def make_config(options: Options, trials: Sequence[Trial], test_id: str) -> dict[str, Any]:
    """webMUSHRA's YAML of the test (``config.yaml``) with our section. Raises `UserError`."""
    texts = TEXTS[options.language]
    own = method_texts(options.method, options.language, reference=options.show_reference)
    training = [trial for trial in trials if trial.is_training]
    graded = [trial for trial in trials if not trial.is_training]
    if (options.section.blocks or 1) > len(graded):
        raise UserError(
            f"--blocks is {options.section.blocks}; give at most {len(graded)}, the number of trials"
        )
    training_text = texts["training_answers" if options.method in ("ab", "abx") else "training"]
    if options.method != "mushra":  # the sliders of MUSHRA explain themselves
        training_text = own.trial + training_text
    pages: list[Any] = [
        {
            "type": "consent",
            "id": "consent",
            "name": texts["consent_name"],
            "content": options.instructions or f"<p>{texts['thanks']} {own.task}</p>{texts['consent']}",
            "mustConsent": True,
        },
        {
            "type": "volume",
            "id": "volume",
            "name": texts["volume_name"],
            "content": texts["volume"],
            "stimulus": (training or graded)[0].files[HIDDEN_REFERENCE][1],
            "defaultVolume": 0.5,
        },
        *(_page(trial, options, texts["training_name"], training_text) for trial in training),
        ["random", *(_page(trial, options, own.trial_name, own.trial) for trial in graded)],
    ]
    finish: dict[str, Any] = {
        "type": "finish",
        "id": "finish",
        "name": texts["finish_name"],
        "content": texts["finish" if options.questionnaire else "finish_unasked"],
        "popupContent": texts["goodbye"],
        "showResults": False,
        "writeResults": True,
    }
    if options.questionnaire:
        finish["questionnaire"] = questions(options.language)
    languages = list(dict.fromkeys([options.language, *options.section.languages]))
    section = options.section.model_copy(update={"languages": languages, "seed": options.seed})
    return {
        "testname": options.title or texts["title"],
        "testId": test_id,
        "bufferSize": 2048,
        "stopOnErrors": True,
        "showButtonPreviousPage": False,
        "remoteService": "service/write.php",
        "language": options.language,
        "pages": [*pages, finish],
        "qincodec": section.model_dump(),
    }


def make_report(
    material: Material,
    options: Options,
    trials: Sequence[Trial],
    *,
    test_id: str,
    duration_s: float,
    ranked_by: Sequence[str],
    skipped: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Choices, results and warnings (``create_report.json``).

    Args:
        material, options, trials: of the test.
        test_id: id in the YAML.
        duration_s: requested length of excerpts.
        ranked_by: metrics that "hardest" used.
        skipped: (clip id, reason) of clips that could not be an item.
    """
    items = []
    for trial in trials:
        clip, item = trial.pick.clip, trial.item
        items.append(
            {
                "trial": trial.id,
                "clip": clip.id,
                "category": clip.category,
                "start_s": round(clip.start_s + trial.pick.start_s + item.offset_s, 6),
                "duration_s": round(item.duration_s, 6),
                "loudness_lufs": round(item.loudness_lufs, 2),
                "gain_db": round(item.gain_db, 2),
                "reduced_db": round(item.reduced_db, 2),
                "peak_dbfs": round(item.peak_dbfs, 2),
                "delays": item.delays,
                "levels_db": {n: None if v is None else round(v, 2) for n, v in item.levels_db.items()},
                "removed_db": {n: round(max(value, -200.0), 1) for n, value in item.removed_db.items()},
                "warnings": item.warnings,
            }
        )
    n_items = sum(not trial.is_training for trial in trials)
    return {
        "format": 1,
        "version": qincodec.__version__,
        "test_id": test_id,
        "run": material.name,
        "systems": [asdict(system) for system in material.systems],
        "sample_rate": material.sample_rate,
        "options": {
            **asdict(options),
            "anchors": list(options.made_anchors),
            "section": options.section.model_dump(),
            "duration_s": duration_s,
            "items": n_items,
        },
        "effort": asdict(_effort(material, options)) | {"items": _items_of_a_listener(options, n_items)},
        "ranked_by": list(ranked_by),
        "n_recordings": len({clip.recording for clip in material.clips}),
        "skipped": [list(entry) for entry in skipped],
        "items": items,
        "warnings": list(_test_warnings(material, options, trials)),
    }


def _effort(material: Material, options: Options) -> Effort:
    return effort(options.method, len(material.systems), options.presentations)


def _items_of_a_listener(options: Options, n_items: int) -> int:
    """Number of items that a listener gets, or the least if it varies."""
    block = n_items // (options.section.blocks or 1)
    return min(block, options.section.items_per_listener or block)


def _test_warnings(material: Material, options: Options, all_trials: Sequence[Trial]) -> Iterator[str]:
    systems = material.systems
    trials = [trial for trial in all_trials if not trial.is_training]
    recordings = {trial.pick.clip.recording for trial in trials}
    n_items = _items_of_a_listener(options, len(trials))
    if options.method == "mushra":
        yield from _mushra_warnings(options, trials, len(systems), n_items)
    if warning := share_warning(options.section, -(-len(trials) // (options.section.blocks or 1))):
        yield warning
    asked = _effort(material, options)
    if n_items * asked.times > MANY_PAGES:
        yield (
            f"a listener gets {n_items * asked.times} {asked.unit}s, over {MANY_PAGES}: take fewer items or"
            " systems, or divide the items among listeners with --items-per-listener"
        )
    if ANCHOR70 in options.made_anchors and material.sample_rate < 2 * _MID_ANCHOR_END_HZ:
        yield (
            f"at {material.sample_rate} Hz the 7 kHz anchor lacks only the band between 7 and"
            f" {material.sample_rate / 2000:g} kHz: it will hardly differ from the reference"
        )
    for trial in all_trials:
        if trial.is_training and trial.pick.clip.recording in recordings:
            yield (
                f"{trial.id} uses '{trial.pick.clip.id}', a recording of the test (--training-reuse):"
                " listeners have already heard it with all conditions when they rate it"
            )
    if options.open_names and options.method in ("mushra", "bs1116", "acr"):
        yield "webMUSHRA itself sends the names of conditions to the listeners' browsers (--open-names)"
    for system in systems:
        found = [trial.item.levels_db.get(system.label) for trial in trials]
        level = median([gain for gain in found if gain is not None] or [0.0])
        if abs(level) > _LEVEL_DB:
            yield (
                f"{system.label} is {abs(level):.1f} dB {'louder' if level > 0 else 'quieter'} than the"
                " reference in loudness (median of the items), and listeners will hear this"
            )


def _mushra_warnings(
    options: Options, trials: Sequence[Trial], n_systems: int, n_items: int
) -> Iterator[str]:
    """Limits of BS.1534 that the test does not meet."""
    for warning in (
        items_warning(len(trials), n_systems),
        screening_warning(n_items),
        signals_warning(n_systems + 1 + len(options.made_anchors)),
        excerpt_warning(max(trial.item.duration_s for trial in trials)),
    ):
        if warning is not None:
            yield warning
    if ANCHOR35 not in options.made_anchors:
        yield "no low anchor: the standard requires one, low-passed at 3.5 kHz, in each trial"


def _page(trial: Trial, options: Options, name: str, content: str) -> dict[str, Any]:
    """The page of a trial. Its anchors are files like the others."""
    page = trial_page(
        options.method,
        trial.files,
        options.language,
        loop=options.loop,
        show_reference=options.show_reference,
        presentations=options.presentations,
    )
    return {"type": page.pop("type"), "id": trial.id, "name": name, "content": content, **page}
