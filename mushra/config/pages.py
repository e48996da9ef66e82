"""What a listening test consists of: webMUSHRA's page types and keys, three types of our own, our section.

Keys are camelCase in the file and snake_case here (``showWaveform`` is ``show_waveform``). Text is the text
of the file, whatever it looks like. Unknown keys are left out, as webMUSHRA does (`mushra.config.load` warns
of them); wrong types are refused. Our own options stand under the top-level key ``qincodec`` (`Section`),
which an unmodified webMUSHRA ignores; there, unknown keys are refused.

What a key means is said once, in its ``description``: docs/yaml.md and the experimenter's forms show it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, WrapSerializer, model_validator

from mushra.config.general import Completion as Completion
from mushra.config.general import General as General
from mushra.config.general import Rules as Rules
from mushra.config.general import Section as Section
from mushra.config.values import HIDDEN_REFERENCE as HIDDEN_REFERENCE
from mushra.config.values import Anything, AudioPath, Bool, Float, Int, Markup, Stimuli, Text, YamlModel
from mushra.config.values import Language as Language
from mushra.config.yaml_js import resolve

#: Names of results that no entry of ``stimuli`` may take from the signals a page makes by itself.
ANCHOR35, ANCHOR70 = "anchor35", "anchor70"
#: See `is_training`.
TRAINING_PREFIX = "training"


class _Page(YamlModel):
    """``id`` is unique in a test; a page that had none is called ``page<number>``, counted from 1."""

    id: Text = Field(description="Name of the page in results, unlike that of any other page.")
    name: Text | None = Field(default=None, title="Heading", description="Heading of the page.")
    content: Markup | None = Field(
        default=None, title="Text", description="Text of the page: HTML without scripts, styles and pictures."
    )


class GenericPage(_Page):
    """Text (HTML) to read."""

    type: Literal["generic"]


class ConsentPage(_Page):
    """Text to agree to."""

    type: Literal["consent"]
    must_consent: Bool = Field(
        default=True, title="Consent is needed", description="The test goes on only with the box ticked."
    )


class VolumePage(_Page):
    """A looped stimulus to set the volume with."""

    type: Literal["volume"]
    stimulus: AudioPath = Field(description="What is played in a loop.")
    default_volume: Annotated[Float, Field(ge=0, le=1)] = Field(
        default=0.5, title="Volume at first", description="Factor of the amplitude, 0 to 1, to begin with."
    )


Looping = Annotated[Bool, Field(title="Loop", description="Listeners may set a loop within the excerpt.")]
ReferenceWaveform = Annotated[
    Bool, Field(title="Waveform", description="Draw the waveform of the reference.")
]


class Trial(_Page):
    """Stimuli (name in the results -> path) against a reference, and anchors made from it on request."""

    show_waveform: ReferenceWaveform = False
    enable_looping: Looping = False
    reference: AudioPath = Field(description="What the stimuli are compared with.")
    create_anchor35: Bool = Field(
        default=False, description="Make the low anchor of the reference, low-passed at 3.5 kHz."
    )
    create_anchor70: Bool = Field(
        default=False, description="Make the mid anchor of the reference, low-passed at 7 kHz."
    )
    stimuli: Stimuli = Field(description="Name in the results: path. The hidden reference is added to them.")

    def anchors(self) -> list[str]:
        """Names of the anchors that are made, lowest first."""
        return [ANCHOR35] * self.create_anchor35 + [ANCHOR70] * self.create_anchor70


class MushraPage(Trial):
    """A BS.1534 trial. The hidden reference (named "reference") is added by whoever shows the page."""

    type: Literal["mushra"]
    strict: Bool = Field(default=True, description="Read, as webMUSHRA does, and of no effect here.")
    randomize: Bool = Field(default=True, description="Shuffle the signals for each listener.")
    show_condition_names: Bool = Field(
        default=False, description="Show the names of the stimuli; the test is not blind then."
    )
    switch_back: Bool = Field(
        default=False, description="Begin the excerpt anew where a listener changes to another signal."
    )

    def conditions(self) -> list[str]:
        """Names under which the trial is rated: stimuli, hidden reference, anchors that are made."""
        return [*self.stimuli, HIDDEN_REFERENCE, *self.anchors()]


class Bs1116Page(Trial):
    """A BS.1116 trial: hidden reference and one stimulus, both graded from 1 to 5."""

    type: Literal["bs1116"]


#: Label of the answer that chooses neither.
Unforced = Annotated[
    Text | None, BeforeValidator(lambda value: None if resolve(value) is False or value == "" else value)
]


class PairedComparisonPage(Trial):
    """Which of two is the reference?"""

    type: Literal["paired_comparison"]
    unforced: Unforced = Field(
        default=None, description='Label of the answer "neither"; false: one must be chosen.'
    )


class OwnTrial(_Page):
    """A trial of a type that an unmodified webMUSHRA does not know. A listener gets a page for each pair."""

    reference: AudioPath | None = Field(default=None, description="What the stimuli are compared with.")
    stimuli: Stimuli = Field(description="Name in the results: path.")

    def pairs(self) -> list[tuple[str, str]]:
        """Names of the signals that are compared with each other: of all stimuli, or with the reference."""
        return [(name, HIDDEN_REFERENCE) for name in self.stimuli]


class DcrPage(OwnTrial):
    """Degradation category rating of P.800: the reference, then a stimulus, graded from 5 to 1."""

    type: Literal["dcr"]
    reference: AudioPath = Field(description="What is played before each stimulus.")


class AbPage(OwnTrial):
    """Which of two stimuli do you prefer? Or, with a reference: which is closer to it?"""

    type: Literal["ab"]
    show_waveform: ReferenceWaveform = False
    enable_looping: Looping = False
    reference: AudioPath | None = Field(
        default=None, description="If there is one, the question is which of the two is closer to it."
    )
    stimuli: Annotated[Stimuli, Field(min_length=2)] = Field(
        description="Name in the results: path. Each is compared with each."
    )
    unforced: Unforced = Field(
        default=None, description='Label of the answer "no preference"; false: one must be chosen.'
    )

    def pairs(self) -> list[tuple[str, str]]:
        return list(combinations(self.stimuli, 2))


class AbxPage(OwnTrial):
    """Is X the same as A or as B?"""

    type: Literal["abx"]
    enable_looping: Looping = False
    reference: AudioPath | None = Field(
        default=None,
        description="If there is one, each stimulus is compared with it; otherwise each with each.",
    )
    trials: Annotated[Int, Field(ge=1, le=100)] = Field(
        default=1, description="How often a listener gets each pair; X is drawn anew each time."
    )

    @model_validator(mode="after")
    def _has_pairs(self) -> AbxPage:
        if not self.pairs():
            raise ValueError("has one stimulus and no reference; give a reference, or a second stimulus")
        return self

    def pairs(self) -> list[tuple[str, str]]:
        return super().pairs() if self.reference else list(combinations(self.stimuli, 2))


class LikertResponse(YamlModel):
    """One answer of a Likert scale, with pictures for its three states where it has them."""

    value: Text = Field(description="What is stored.")
    label: Text | None = Field(default=None, description="What is shown.")
    img: AudioPath | None = Field(default=None, description="Picture of the answer.")
    img_selected: AudioPath | None = Field(default=None, description="The same where it is chosen.")
    img_higher_response_selected: AudioPath | None = Field(
        default=None, description="The same where a later answer is chosen."
    )


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
    """Stimuli rated on one or more scales."""

    show_waveform: Bool = Field(default=False, title="Waveform", description="Draw the waveform.")
    must_rate: Bool = Field(
        default=False, title="Ratings are needed", description="The test goes on only when all is rated."
    )
    must_playback: Annotated[
        Literal["ended", "processUpdate"] | None,
        BeforeValidator(lambda value: None if resolve(value) is False else value),
    ] = Field(
        default=None,
        title="Must be heard",
        description="Before it is rated, the whole stimulus (`ended`) or its beginning (`processUpdate`).",
    )
    stimuli: Annotated[dict[str, AudioPath], Field(min_length=1)] = Field(
        description="Name in the results: path."
    )
    response: Scales = Field(description="The answers of a scale, or of several a list of such lists.")
    max_stimuli: Annotated[Int, Field(ge=1)] | None = Field(
        default=None, description="So many of the stimuli, drawn at random for each listener. Default: all."
    )

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
    """Where is it? What the lists and mappings hold is up to the page that shows them."""

    type: Literal["spatial"]
    framerate: Annotated[Float, Field(gt=0)] | None = Field(
        default=None, description="Read, as webMUSHRA does, and of no effect here."
    )
    numberof_loc_obj: Annotated[Int, Field(ge=1, le=12)] = Field(
        default=1, description="Directions that are asked for of each stimulus."
    )
    room_measurements: Anything | None = Field(default=None, description="Handed on to the page.")
    stimuli: Anything = Field(description="Name: path, or a list of these or of paths.")
    responses: Anything | None = Field(default=None, description="Handed on to the page.")
    views: Anything | None = Field(default=None, description="Handed on to the page.")
    objects: Anything | None = Field(default=None, description="Handed on to the page.")


class Choice(YamlModel):
    """An answer of a questionnaire's Likert question."""

    value: Text = Field(description="What is stored.")
    label: Text | None = Field(default=None, description="What is shown.")


class Question(YamlModel):
    """A question of the finish page."""

    type: Literal["text", "number", "likert", "long_text"] = Field(
        description="A line of text, a number, a choice of answers, or several lines."
    )
    name: Text = Field(description="Name in the results, unlike that of any other question.")
    label: Text | None = Field(default=None, description="What is asked. Default: the name.")
    optional: Bool = Field(default=False, description="May be left out.")
    min: Float | None = Field(default=None, description="Of a number: the least that is taken.")
    max: Float | None = Field(default=None, description="Of a number: the most that is taken.")
    default: Text | None = Field(default=None, description="What the field holds at first.")
    response: list[Choice] | None = Field(default=None, description="Of a choice: its answers.")


class FinishPage(_Page):
    """The end: questionnaire, thanks."""

    type: Literal["finish"]
    popup_content: Markup | None = Field(
        default=None, title="Text at the very end", description="Shown once the results have arrived; HTML."
    )
    show_results: Bool = Field(
        default=False, title="Show ratings", description="Listeners see their own ratings at the end."
    )
    show_errors: Bool = Field(default=False, description="Read, as webMUSHRA does, and of no effect here.")
    write_results: Bool = Field(default=True, description="Read, and of no effect: results are stored.")
    questionnaire: list[Question] | None = Field(default=None, description="Questions, in this order.")


Page = (
    GenericPage
    | ConsentPage
    | VolumePage
    | MushraPage
    | Bs1116Page
    | PairedComparisonPage
    | DcrPage
    | AbPage
    | AbxPage
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

    def random_lengths(self, blocks: int) -> Iterator[int]:
        """Entries of every random list, at most, if outermost ones are cut into so many blocks."""
        if self.random:
            yield -(-len(self.pages) // blocks)
        for entry in self.pages:
            if isinstance(entry, PageGroup):
                yield from entry.random_lengths(1 if self.random else blocks)


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
        """Whether the page is there to learn on."""
        return is_training(page.id, self.section.training)

    def is_gold(self, page: Page) -> bool:
        """Whether the page is there to see who listens."""
        return any(page.id == one.page for one in self.section.gold)

    def is_kept_apart(self, page: Page) -> bool:
        """Whether no result has the page's grades."""
        return self.is_training(page) or self.is_gold(page)

    def audio_path(self, path: str) -> Path:
        """Where an audio path of the file lies on the disk."""
        return self.root / path
