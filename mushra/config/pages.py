"""Models of a test's YAML: webMUSHRA's page types and keys, three page types of our own, and our section.

Keys are camelCase in the file and snake_case here (``showWaveform`` is ``show_waveform``). Text is taken as
it is written. Unknown keys are ignored, as in webMUSHRA, and `mushra.config.load` warns of them. Wrong types
are refused. Our own options are under the top-level key ``qincodec`` (`Section`), which an unmodified
webMUSHRA ignores; unknown keys there are refused.

The ``description`` of a key says what it means; docs/reference/yaml.md and the experimenter's forms show it.
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

#: Names of the anchors that a page makes; its stimuli must have other names.
ANCHOR35, ANCHOR70 = "anchor35", "anchor70"
#: See `is_training`.
TRAINING_PREFIX = "training"


class _Page(YamlModel):
    """``id`` is unique in a test; a page without one is called ``page<number>``, counted from 1."""

    id: Text = Field(description="Name of the page in results; each page has its own.")
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
        default=True, title="Consent is needed", description="The test continues only if the box is ticked."
    )


class VolumePage(_Page):
    """A looped stimulus for setting the volume."""

    type: Literal["volume"]
    stimulus: AudioPath = Field(description="Stimulus that is played in a loop.")
    default_volume: Annotated[Float, Field(ge=0, le=1)] = Field(
        default=0.5, title="Volume at first", description="Initial factor of the amplitude, 0 to 1."
    )


Looping = Annotated[Bool, Field(title="Loop", description="Listeners may set a loop within the excerpt.")]
ReferenceWaveform = Annotated[
    Bool, Field(title="Waveform", description="Draw the waveform of the reference.")
]


class Trial(_Page):
    """Stimuli (name in the results -> path), their reference, and optional anchors made of it."""

    show_waveform: ReferenceWaveform = False
    enable_looping: Looping = False
    reference: AudioPath = Field(description="Reference of the stimuli.")
    create_anchor35: Bool = Field(
        default=False, description="Make the low anchor: the reference, low-passed at 3.5 kHz."
    )
    create_anchor70: Bool = Field(
        default=False, description="Make the mid anchor: the reference, low-passed at 7 kHz."
    )
    stimuli: Stimuli = Field(description="Name in the results: path. The hidden reference is added to them.")

    def anchors(self) -> list[str]:
        """Names of the anchors that are made, lowest first."""
        return [ANCHOR35] * self.create_anchor35 + [ANCHOR70] * self.create_anchor70


class MushraPage(Trial):
    """A BS.1534 trial. Whoever shows the page adds the hidden reference, named "reference"."""

    type: Literal["mushra"]
    strict: Bool = Field(default=True, description="Read, as in webMUSHRA, without effect here.")
    randomize: Bool = Field(default=True, description="Shuffle the signals for each listener.")
    show_condition_names: Bool = Field(
        default=False, description="Show the names of the stimuli; then the test is not blind."
    )
    switch_back: Bool = Field(
        default=False, description="Restart the excerpt when a listener changes to another signal."
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
    """A trial that asks which of two signals is the reference."""

    type: Literal["paired_comparison"]
    unforced: Unforced = Field(
        default=None, description='Label of the answer "neither"; with `false` one must be chosen.'
    )


class OwnTrial(_Page):
    """A trial of a type that an unmodified webMUSHRA does not know. A listener gets a page for each pair."""

    reference: AudioPath | None = Field(default=None, description="Reference of the stimuli.")
    stimuli: Stimuli = Field(description="Name in the results: path.")

    def pairs(self) -> list[tuple[str, str]]:
        """Names of the two signals of each comparison: a stimulus and the reference, or two stimuli."""
        return [(name, HIDDEN_REFERENCE) for name in self.stimuli]


class DcrPage(OwnTrial):
    """Degradation category rating of P.800: the reference, then a stimulus, graded from 5 to 1."""

    type: Literal["dcr"]
    reference: AudioPath = Field(description="Reference that is played before each stimulus.")


class AbPage(OwnTrial):
    """A trial that asks which of two stimuli is preferred, or which is closer to the reference."""

    type: Literal["ab"]
    show_waveform: ReferenceWaveform = False
    enable_looping: Looping = False
    reference: AudioPath | None = Field(
        default=None, description="Optional; with it, the question is which of the two is closer to it."
    )
    stimuli: Annotated[Stimuli, Field(min_length=2)] = Field(
        description="Name in the results: path. All pairs are compared."
    )
    unforced: Unforced = Field(
        default=None, description='Label of the answer "no preference"; with `false` one must be chosen.'
    )

    def pairs(self) -> list[tuple[str, str]]:
        return list(combinations(self.stimuli, 2))


class AbxPage(OwnTrial):
    """A trial that asks whether X is the same as A or as B."""

    type: Literal["abx"]
    enable_looping: Looping = False
    reference: AudioPath | None = Field(
        default=None,
        description="Optional; with it, each stimulus is compared with it; otherwise all pairs are compared.",
    )
    trials: Annotated[Int, Field(ge=1, le=100)] = Field(
        default=1, description="Number of times a listener gets each pair; X is drawn each time."
    )

    @model_validator(mode="after")
    def _has_pairs(self) -> AbxPage:
        if not self.pairs():
            raise ValueError("has one stimulus and no reference; give a reference, or a second stimulus")
        return self

    def pairs(self) -> list[tuple[str, str]]:
        return super().pairs() if self.reference else list(combinations(self.stimuli, 2))


class LikertResponse(YamlModel):
    """One answer of a Likert scale, with optional pictures for its three states."""

    value: Text = Field(description="Stored value.")
    label: Text | None = Field(default=None, description="Text that is shown.")
    img: AudioPath | None = Field(default=None, description="Picture of the answer.")
    img_selected: AudioPath | None = Field(default=None, description="Picture when it is chosen.")
    img_higher_response_selected: AudioPath | None = Field(
        default=None, description="Picture when a later answer is chosen."
    )


def _scales(value: object) -> object:
    several = isinstance(value, list) and any(isinstance(entry, list) for entry in value)
    return value if several else [value]


def _one_scale_alone(scales: list[Any], dumped: SerializerFunctionWrapHandler) -> list[Any]:
    return dumped(scales) if len(scales) > 1 else dumped(scales)[0]


#: Written as the list of a scale's answers; a page with several scales has a list of such lists.
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
        default=False, title="Ratings are needed", description="The test continues only when all is rated."
    )
    must_playback: Annotated[
        Literal["ended", "processUpdate"] | None,
        BeforeValidator(lambda value: None if resolve(value) is False else value),
    ] = Field(
        default=None,
        title="Must be heard",
        description="What must be heard before rating: the whole stimulus (`ended`) or its beginning"
        " (`processUpdate`).",
    )
    stimuli: Annotated[dict[str, AudioPath], Field(min_length=1)] = Field(
        description="Name in the results: path."
    )
    response: Scales = Field(description="Answers of a scale; a list of such lists for several scales.")
    max_stimuli: Annotated[Int, Field(ge=1)] | None = Field(
        default=None, description="Number of stimuli, drawn at random for each listener. Default: all."
    )

    def pictures(self) -> list[str]:
        """Paths of all pictures of its answers."""
        answers = [answer for scale in self.response for answer in scale]
        shown = [(one.img, one.img_selected, one.img_higher_response_selected) for one in answers]
        return [path for paths in shown for path in paths if path is not None]


class LikertMultiPage(LikertPage):
    """All stimuli on one page, each with the scale."""

    type: Literal["likert_multi_stimulus"]


class LikertSinglePage(LikertPage):
    """The stimuli one after the other, each with the scale."""

    type: Literal["likert_single_stimulus"]


class SpatialPage(_Page):
    """A trial that asks for directions. Its page interprets the content of the lists and mappings."""

    type: Literal["spatial"]
    framerate: Annotated[Float, Field(gt=0)] | None = Field(
        default=None, description="Read, as in webMUSHRA, without effect here."
    )
    numberof_loc_obj: Annotated[Int, Field(ge=1, le=12)] = Field(
        default=1, description="Number of directions asked for each stimulus."
    )
    room_measurements: Anything | None = Field(default=None, description="Passed on to the page.")
    stimuli: Anything = Field(description="Name: path, or a list of these or of paths.")
    responses: Anything | None = Field(default=None, description="Passed on to the page.")
    views: Anything | None = Field(default=None, description="Passed on to the page.")
    objects: Anything | None = Field(default=None, description="Passed on to the page.")


class Choice(YamlModel):
    """An answer of a questionnaire's Likert question."""

    value: Text = Field(description="Stored value.")
    label: Text | None = Field(default=None, description="Text that is shown.")


class Question(YamlModel):
    """A question of the finish page."""

    type: Literal["text", "number", "likert", "long_text"] = Field(
        description="Kind of answer: a line of text, a number, a choice of answers, or several lines."
    )
    name: Text = Field(description="Name in the results; each question has its own.")
    label: Text | None = Field(default=None, description="Text of the question. Default: the name.")
    optional: Bool = Field(default=False, description="Listeners may leave it out.")
    min: Float | None = Field(default=None, description="Least allowed number.")
    max: Float | None = Field(default=None, description="Greatest allowed number.")
    default: Text | None = Field(default=None, description="Initial content of the field.")
    response: list[Choice] | None = Field(default=None, description="Answers to choose from.")


class FinishPage(_Page):
    """The last page: questionnaire and thanks."""

    type: Literal["finish"]
    popup_content: Markup | None = Field(
        default=None,
        title="Text at the very end",
        description="HTML that is shown when the results have arrived.",
    )
    show_results: Bool = Field(
        default=False, title="Show ratings", description="Listeners see their own ratings at the end."
    )
    show_errors: Bool = Field(default=False, description="Read, as in webMUSHRA, without effect here.")
    write_results: Bool = Field(default=True, description="Read, without effect: results are always stored.")
    questionnaire: list[Question] | None = Field(default=None, description="Questions in their order.")


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
    """A nested list of pages; ``random`` means that its entries, pages and whole groups, are shuffled."""

    pages: tuple[Page | PageGroup, ...]
    random: bool = False

    def flat(self) -> Iterator[Page]:
        """All pages of the group and its groups, in the order of the file."""
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
    """Whether the page with that id is training: ``named`` has it.

    If the configuration names no page or is not known (None), ids that begin with "training" are training.
    """
    return page.startswith(TRAINING_PREFIX) if named is None else page in named


@dataclass(frozen=True)
class TestConfig:
    """A whole test.

    Attributes:
        path: the YAML file.
        root: folder that all paths in it are relative to; absolute.
        general: the top level; ``general.qincodec`` is our section.
        pages: in the order of the file, nested lists as `PageGroup`.
    """

    __test__: ClassVar[bool] = False  # pytest takes a class of this name for a test

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
        """Whether the page is for training."""
        return is_training(page.id, self.section.training)

    def is_gold(self, page: Page) -> bool:
        """Whether the page has a gold item, which shows who listens carefully."""
        return any(page.id == one.page for one in self.section.gold)

    def is_kept_apart(self, page: Page) -> bool:
        """Whether results leave out the page's grades."""
        return self.is_training(page) or self.is_gold(page)

    def audio_path(self, path: str) -> Path:
        """Location on disk of an audio path in the file."""
        return self.root / path
