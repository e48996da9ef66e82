"""What a listening test consists of: the page types and keys of webMUSHRA's YAML, and our one section.

Keys are camelCase in the file and snake_case here (``showWaveform`` is ``show_waveform``). Text is the text
of the file, whatever it looks like. Unknown keys are left out, as webMUSHRA does (`mushra.config.load` warns
of them); wrong types are refused. Our own options stand under the top-level key ``qincodec`` (`Section`),
which an unmodified webMUSHRA ignores; there, unknown keys are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WrapSerializer,
    model_validator,
)
from pydantic.alias_generators import to_camel

from mushra.config.yaml_js import Plain, resolve

#: Names of results that no entry of ``stimuli`` may take from the signals a page makes by itself.
HIDDEN_REFERENCE, ANCHOR35, ANCHOR70 = "reference", "anchor35", "anchor70"
#: See `is_training`.
TRAINING_PREFIX = "training"

#: Tags in a text that is HTML.
MAX_TAGS = 4000

Language = Literal["en", "de", "fr", "es"]


def _bool(value: object) -> object:
    words = {"yes": True, "on": True, "1": True, "no": False, "off": False, "0": False}
    return words.get(value.lower(), resolve(value)) if isinstance(value, Plain) else value


def _path(path: str) -> str:
    """A path that cannot leave the folder it is relative to."""
    if "://" in path or path.startswith("//"):
        raise ValueError("is an address; put the file beside the test and give its relative path")
    if not path or "\\" in path or any(ord(character) < 32 for character in path):
        raise ValueError("is no path; give a relative one with '/' between folders")
    parts = PurePosixPath(path).parts
    if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path) or ".." in parts:
        raise ValueError("leads out of the test's folder; give a relative path without '..'")
    return path


def _trial_names(stimuli: dict[str, str]) -> dict[str, str]:
    if HIDDEN_REFERENCE in stimuli:
        raise ValueError("name 'reference' is that of the hidden reference; give the stimulus another")
    if "" in stimuli:
        raise ValueError("a stimulus has no name")
    return stimuli


def _web_address(address: str) -> str:
    if not re.match(r"https?://[^/\s]", address):
        raise ValueError("is no address; it must begin with https:// or http://")
    return address


def _few_tags(markup: str) -> str:
    # Reading markup, here and in a browser, takes time by the square of how deep it is nested.
    if (tags := markup.count("<")) > MAX_TAGS:
        raise ValueError(f"has {tags} tags; at most {MAX_TAGS} are taken")
    return markup


Text = Annotated[str, AfterValidator(str)]
#: HTML; what of it is shown, `mushra.server.sanitize` says.
Markup = Annotated[Text, AfterValidator(_few_tags)]
Bool = Annotated[bool, BeforeValidator(_bool)]
Int = Annotated[int, BeforeValidator(resolve)]
Float = Annotated[float, BeforeValidator(resolve)]
#: What is handed on to the page that shows it, as webMUSHRA's parser resolves it.
Anything = Annotated[dict[str, Any] | list[Any], BeforeValidator(resolve)]
AudioPath = Annotated[Text, AfterValidator(_path)]
Stimuli = Annotated[dict[str, AudioPath], Field(min_length=1), AfterValidator(_trial_names)]


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="ignore", strict=True, frozen=True, allow_inf_nan=False, alias_generator=to_camel
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, values: Any) -> Any:
        """webMUSHRA takes a key with no value as absent. In our own section that could open a closed test."""
        if cls.model_config["extra"] == "forbid" or not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}


class _Page(_Model):
    """``id`` is unique in a test; a page that had none is called ``page<number>``, counted from 1."""

    id: Text
    name: Text | None = None
    content: Markup | None = None


class GenericPage(_Page):
    """Text (HTML) to read."""

    type: Literal["generic"]


class ConsentPage(_Page):
    """Text to agree to; with ``must_consent`` the test goes on only after that."""

    type: Literal["consent"]
    must_consent: Bool = True


class VolumePage(_Page):
    """A looped stimulus to set the volume with; ``default_volume`` is a factor from 0 to 1."""

    type: Literal["volume"]
    stimulus: AudioPath
    default_volume: Annotated[Float, Field(ge=0, le=1)] = 0.5


class Trial(_Page):
    """Stimuli (name in the results -> path) against a reference, and anchors made from it on request."""

    show_waveform: Bool = False
    enable_looping: Bool = False
    reference: AudioPath
    create_anchor35: Bool = False
    create_anchor70: Bool = False
    stimuli: Stimuli

    def anchors(self) -> list[str]:
        """Names of the anchors that are made, lowest first."""
        return [ANCHOR35] * self.create_anchor35 + [ANCHOR70] * self.create_anchor70


class MushraPage(Trial):
    """A BS.1534 trial. The hidden reference (named "reference") is added by whoever shows the page."""

    type: Literal["mushra"]
    strict: Bool = True
    randomize: Bool = True
    show_condition_names: Bool = False
    switch_back: Bool = False

    def conditions(self) -> list[str]:
        """Names under which the trial is rated: stimuli, hidden reference, anchors that are made."""
        return [*self.stimuli, HIDDEN_REFERENCE, *self.anchors()]


class Bs1116Page(Trial):
    """A BS.1116 trial: hidden reference and one stimulus, both graded from 1 to 5."""

    type: Literal["bs1116"]


class PairedComparisonPage(Trial):
    """Which of two is the reference? ``unforced`` is the label of the answer "neither", None without it."""

    type: Literal["paired_comparison"]
    unforced: Annotated[
        Text | None, BeforeValidator(lambda value: None if resolve(value) is False or value == "" else value)
    ] = None


class LikertResponse(_Model):
    """One answer of a Likert scale, with pictures for its three states where it has them."""

    value: Text
    label: Text | None = None
    img: AudioPath | None = None
    img_selected: AudioPath | None = None
    img_higher_response_selected: AudioPath | None = None


def _scales(value: object) -> object:
    several = isinstance(value, list) and any(isinstance(entry, list) for entry in value)
    return value if several else [value]


def _one_scale_alone(scales: list[Any], dumped: SerializerFunctionWrapHandler) -> list[Any]:
    return dumped(scales) if len(scales) > 1 else dumped(scales)[0]


#: Written as the list of a scale's answers, or, where a page has several scales, a list of such lists.
Scales = Annotated[
    list[Annotated[list[LikertResponse], Field(min_length=1)]],
    Field(min_length=1),
    BeforeValidator(_scales),
    WrapSerializer(_one_scale_alone),
]


class LikertPage(_Page):
    """Stimuli rated on one or more scales; ``max_stimuli`` of them, drawn at random, if given."""

    show_waveform: Bool = False
    must_rate: Bool = False
    #: What counts as heard: the whole stimulus ("ended") or its beginning ("processUpdate").
    must_playback: Annotated[
        Literal["ended", "processUpdate"] | None,
        BeforeValidator(lambda value: None if resolve(value) is False else value),
    ] = None
    stimuli: Annotated[dict[str, AudioPath], Field(min_length=1)]
    response: Scales
    max_stimuli: Annotated[Int, Field(ge=1)] | None = None

    def pictures(self) -> list[str]:
        """Paths of all that its answers show."""
        answers = [answer for scale in self.response for answer in scale]
        shown = [(one.img, one.img_selected, one.img_higher_response_selected) for one in answers]
        return [path for paths in shown for path in paths if path is not None]


class LikertMultiPage(LikertPage):
    """All stimuli on one page, each with the scale."""

    type: Literal["likert_multi_stimulus"]


class LikertSinglePage(LikertPage):
    """One stimulus after the other, each with the scale."""

    type: Literal["likert_single_stimulus"]


class SpatialPage(_Page):
    """Where is it? What the lists and mappings hold is up to the page that shows them.

    With ``numberof_loc_obj`` as many directions are asked for of each stimulus.
    """

    type: Literal["spatial"]
    framerate: Annotated[Float, Field(gt=0)] | None = None
    numberof_loc_obj: Annotated[Int, Field(ge=1, le=12)] = 1
    room_measurements: Anything | None = None
    stimuli: Anything
    responses: Anything | None = None
    views: Anything | None = None
    objects: Anything | None = None


class Choice(_Model):
    """An answer of a questionnaire's Likert question."""

    value: Text
    label: Text | None = None


class Question(_Model):
    """A question of the finish page; ``min``, ``max`` and ``default`` are of numbers."""

    type: Literal["text", "number", "likert", "long_text"]
    name: Text
    label: Text | None = None
    optional: Bool = False
    min: Float | None = None
    max: Float | None = None
    default: Text | None = None
    response: list[Choice] | None = None


class FinishPage(_Page):
    """The end: questionnaire, thanks. ``write_results`` is read by nothing."""

    type: Literal["finish"]
    popup_content: Markup | None = None
    show_results: Bool = False
    show_errors: Bool = False
    write_results: Bool = True
    questionnaire: list[Question] | None = None


Page = (
    GenericPage
    | ConsentPage
    | VolumePage
    | MushraPage
    | Bs1116Page
    | PairedComparisonPage
    | LikertMultiPage
    | LikertSinglePage
    | SpatialPage
    | FinishPage
)

#: Value of ``type`` -> model.
PAGE_TYPES: dict[str, type[_Page]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(Page)
}


@dataclass(frozen=True)
class PageGroup:
    """A nested list of pages; ``random`` if its entries (pages and groups, each as a whole) are shuffled."""

    pages: tuple[Page | PageGroup, ...]
    random: bool = False

    def flat(self) -> Iterator[Page]:
        """All pages below, in the order of the file."""
        for entry in self.pages:
            if isinstance(entry, PageGroup):
                yield from entry.flat()
            else:
                yield entry


class _Own(BaseModel):
    """Of our own section, whose keys are snake_case in the file, too."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Rules(_Own):
    """What a MUSHRA page asks before Next is unlocked; each rule is said on the page."""

    must_hear_all: Bool = True
    must_rate_all: Bool = True
    one_at_100: Bool = True
    only_playing_rated: Bool = True


class Completion(_Own):
    """What a listener gets at the end: a code to copy, an address to be sent to, both or nothing."""

    code: Text | None = None
    redirect: Annotated[Text, AfterValidator(_web_address)] | None = None


class Section(_Own):
    """The section ``qincodec``: what webMUSHRA has no words for.

    Attributes:
        training: ids of the pages whose grades are kept apart. None: all pages whose id begins with
            "training".
        rules: of MUSHRA pages.
        items_per_listener: give each listener that many entries of every random group, balanced over
            listeners; None: all.
        order: of random groups: "latin" (each entry equally often at each place) or "random".
        seed: of orders and draws.
        completion: code and address at the end.
        languages: of the page itself that a listener may choose from; the test's ``language`` comes first.
        one_session_per_person: a second session of one person is refused.
        headphone_check: ask for a short hearing task before the first trial.
        identification: "anonymous" (one link for all), "invitation" (named one-time links) or "prolific".
    """

    training: list[Text] | None = None
    rules: Rules = Rules()
    items_per_listener: Annotated[Int, Field(ge=1)] | None = None
    order: Literal["latin", "random"] = "latin"
    seed: Annotated[Int, Field(ge=0)] = 0
    completion: Completion = Completion()
    languages: list[Language] = Field(default_factory=list)
    one_session_per_person: Bool = False
    headphone_check: Bool = False
    identification: Literal["anonymous", "invitation", "prolific"] = "anonymous"


class General(_Model):
    """The top level without its pages."""

    testname: Text
    test_id: Text
    buffer_size: Annotated[Literal[256, 512, 1024, 2048, 4096, 8192, 16384], BeforeValidator(resolve)] = 2048
    stop_on_errors: Bool = False
    show_button_previous_page: Bool = False
    remote_service: Text | None = None
    language: Language = "en"
    qincodec: Section = Section()


def is_training(page: str, named: Collection[str] | None = None) -> bool:
    """Whether the page of that id is training, for pages, submissions and files: one that the configuration
    names; where that names none, or is not known, one whose id begins with "training"."""
    return page.startswith(TRAINING_PREFIX) if named is None else page in named


@dataclass(frozen=True)
class TestConfig:
    """A whole test.

    Attributes:
        path: the YAML file.
        root: folder that all paths in it are relative to, itself absolute.
        general: the top level, ``general.qincodec`` our section.
        pages: in the order of the file, nested lists as `PageGroup`.
    """

    __test__: ClassVar[bool] = False  # its name is no call to pytest

    path: Path
    root: Path
    general: General
    pages: tuple[Page | PageGroup, ...]

    @property
    def testname(self) -> str:
        return self.general.testname

    @property
    def test_id(self) -> str:
        return self.general.test_id

    @property
    def language(self) -> Language:
        return self.general.language

    @property
    def section(self) -> Section:
        return self.general.qincodec

    def flat(self) -> list[Page]:
        """All pages in the order of the file; a page's number is its index here plus 1."""
        return list(PageGroup(self.pages).flat())

    def is_training(self, page: Page) -> bool:
        """Whether the page's grades are to be kept apart."""
        return is_training(page.id, self.section.training)

    def audio_path(self, path: str) -> Path:
        """Where an audio path of the file lies on the disk."""
        return self.root / path
