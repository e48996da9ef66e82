"""The top level of a test's YAML without its pages, and our section ``qincodec``.

Unknown keys of the section are refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from mushra.config.crowd import Gold, Panel
from mushra.config.values import Bool, Float, Int, Language, Own, Text, WebAddress, YamlModel
from mushra.config.yaml_js import resolve


class Rules(Own):
    """Rules that a MUSHRA page shows and that must be met before Next is unlocked."""

    must_hear_all: Bool = Field(
        default=True,
        title="All must be heard",
        description="Every signal must be played for half a second.",
    )
    must_rate_all: Bool = Field(
        default=True, title="All must be rated", description="Every slider must be set."
    )
    one_at_100: Bool = Field(
        default=True,
        title="One at 100",
        description="At least one signal must get 100.",
    )
    only_playing_rated: Bool = Field(
        default=True,
        title="Rate what plays",
        description="Only the slider of the playing signal can be moved.",
    )
    min_heard_s: Annotated[Float, Field(ge=0, le=3600)] = Field(
        default=0,
        title="Seconds to be heard",
        description="Seconds for which every signal must be played, repeats included; also on Likert pages.",
    )


class Completion(Own):
    """What a listener gets at the end: a code to copy, an address, both or nothing."""

    code: Text | None = Field(
        default=None, title="Completion code", description="Code that listeners copy at the end."
    )
    redirect: WebAddress | None = Field(
        default=None,
        title="Address at the end",
        description="Web address to which listeners are sent. `{person}` and `{session}` (of a panel or"
        " Prolific), `{study}` and `{code}` in it are replaced by the listener's values.",
    )


class Section(Own):
    """The section ``qincodec``: options that webMUSHRA does not have."""

    training: list[Text] | None = Field(
        default=None,
        description="Ids of the pages whose grades are kept apart. Default: ids that begin with `training`.",
    )
    rules: Rules = Field(
        default=Rules(), description="Rules that must be met before a MUSHRA page can be left."
    )
    items_per_listener: Annotated[Int, Field(ge=1)] | None = Field(
        default=None,
        title="Items per listener",
        description="Number of entries of every random list that a listener gets, balanced over listeners."
        " Default: all.",
    )
    blocks: Annotated[Int, Field(ge=2)] | None = Field(
        default=None,
        title="Blocks",
        description="Number of blocks into which every random list is cut; their sizes differ by at most one"
        " entry. Each listener gets one block. Default: no blocks.",
    )
    quota: Annotated[Int, Field(ge=1)] | None = Field(
        default=None,
        title="Sessions per block",
        description="Number of finished or running sessions of each block, or of a test without blocks, after"
        " which nobody new can begin. Default: any number.",
    )
    drop_after_min: Annotated[Float, Field(ge=1)] = Field(
        default=120,
        title="Minutes until dropped",
        description="Minutes without a saved page after which a running session loses its place.",
    )
    gold: list[Gold] = Field(
        default_factory=list,
        description="Grades with a known right answer; a listener with a wrong one is flagged.",
    )
    order: Literal["latin", "random"] = Field(
        default="latin",
        title="Order of items",
        description="Order of random lists; with `latin` each entry is at each place equally often.",
    )
    seed: Annotated[Int, Field(ge=0)] = Field(default=0, description="Seed of orders and draws.")
    completion: Completion = Field(default=Completion(), description="What a listener gets at the end.")
    languages: list[Language] = Field(
        default_factory=list,
        title="Languages",
        description="Languages of buttons, scales and hints that listeners can choose. The test's `language`"
        " comes first.",
    )
    one_session_per_person: Bool = Field(
        default=False, title="Once per person", description="Refuse a second session of one person."
    )
    headphone_check: Bool = Field(
        default=False,
        title="Headphone check",
        description="Short hearing task before the first trial that distinguishes headphones from"
        " loudspeakers.",
    )
    identification: Literal["anonymous", "invitation", "prolific", "panel"] = Field(
        default="anonymous",
        title="Who may take part",
        description="`anonymous`: anybody with the link. `invitation`: named links that work once."
        " `prolific`: listeners from Prolific. `panel`: listeners from another panel.",
    )
    panel: Panel = Field(default=Panel(), description="Parameters of a panel's link.")


class General(YamlModel):
    """The top level without its pages."""

    testname: Text = Field(title="Title", description="Title that listeners see.")
    test_id: Text = Field(description="Name of the test in results and in the data base.")
    buffer_size: Annotated[Literal[256, 512, 1024, 2048, 4096, 8192, 16384], BeforeValidator(resolve)] = (
        Field(default=2048, description="Read, as in webMUSHRA, without effect here.")
    )
    stop_on_errors: Bool = Field(
        default=False, description="Treat different lengths as an error; otherwise the shortest one counts."
    )
    show_button_previous_page: Bool = Field(
        default=False, title="Way back", description="Listeners may go back to earlier pages."
    )
    remote_service: Text | None = Field(
        default=None, description="Address to which webMUSHRA's own page sends results; ours needs none."
    )
    language: Language = Field(
        default="en",
        title="Language",
        description="Language of buttons, scales and hints, unless a listener chooses another.",
    )
    qincodec: Section = Field(default=Section(), description="Our own section; webMUSHRA ignores it.")
