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
    """What a MUSHRA page asks before Next is unlocked; each rule is said on the page."""

    must_hear_all: Bool = Field(
        default=True,
        title="All must be heard",
        description="Every signal must have been played for half a second.",
    )
    must_rate_all: Bool = Field(
        default=True, title="All must be rated", description="Every slider must have been set."
    )
    one_at_100: Bool = Field(
        default=True,
        title="One at 100",
        description="At least one signal must get 100.",
    )
    only_playing_rated: Bool = Field(
        default=True, title="Rate what plays", description="Only the slider of what plays can be moved."
    )
    min_heard_s: Annotated[Float, Field(ge=0, le=3600)] = Field(
        default=0,
        title="Seconds to be heard",
        description="Every signal must have been played for so many seconds, repeats included; on Likert"
        " pages, too.",
    )


class Completion(Own):
    """What a listener gets at the end: a code to copy, an address to be sent to, both or nothing."""

    code: Text | None = Field(
        default=None, title="Completion code", description="Code that listeners copy at the end."
    )
    redirect: WebAddress | None = Field(
        default=None,
        title="Address at the end",
        description="Web address to which listeners are sent on. `{person}` and `{session}` (of a panel or"
        " Prolific), `{study}` and `{code}` in it stand for the listener's.",
    )


class Section(Own):
    """The section ``qincodec``: what webMUSHRA has no words for."""

    training: list[Text] | None = Field(
        default=None,
        description="Ids of the pages whose grades are kept apart. Default: `training...`.",
    )
    rules: Rules = Field(default=Rules(), description="What a MUSHRA page asks for before it can be left.")
    items_per_listener: Annotated[Int, Field(ge=1)] | None = Field(
        default=None,
        title="Items per listener",
        description="Give each listener so many entries of every random list, balanced over listeners."
        " Default: all.",
    )
    blocks: Annotated[Int, Field(ge=2)] | None = Field(
        default=None,
        title="Blocks",
        description="Cut every random list into so many blocks of one size, or one entry more or less, and"
        " give each listener one of them. Default: no blocks.",
    )
    quota: Annotated[Int, Field(ge=1)] | None = Field(
        default=None,
        title="Sessions per block",
        description="So many sessions of each block, or of a test without blocks, finished or running; then"
        " nobody new can begin. Default: any number.",
    )
    drop_after_min: Annotated[Float, Field(ge=1)] = Field(
        default=120,
        title="Minutes until dropped",
        description="A running session of which no page was saved for so long gives its place away.",
    )
    gold: list[Gold] = Field(
        default_factory=list,
        description="Grades that are known beforehand; a listener with a wrong one is flagged.",
    )
    order: Literal["latin", "random"] = Field(
        default="latin",
        title="Order of items",
        description="Of random lists: `latin` has each entry equally often at each place.",
    )
    seed: Annotated[Int, Field(ge=0)] = Field(default=0, description="Of orders and draws.")
    completion: Completion = Field(default=Completion(), description="What a listener gets at the end.")
    languages: list[Language] = Field(
        default_factory=list,
        title="Languages",
        description="Of buttons, scales and hints; listeners choose. The test's `language` comes first.",
    )
    one_session_per_person: Bool = Field(
        default=False, title="Once per person", description="Refuse a second session of one person."
    )
    headphone_check: Bool = Field(
        default=False,
        title="Headphone check",
        description="A short hearing task before the first trial tells headphones from loudspeakers.",
    )
    identification: Literal["anonymous", "invitation", "prolific", "panel"] = Field(
        default="anonymous",
        title="Who may take part",
        description="`anonymous`: whoever has the link. `invitation`: named links that work once. `prolific`:"
        " who comes from Prolific. `panel`: who comes from another panel.",
    )
    panel: Panel = Field(default=Panel(), description="What the link of a panel has.")


class General(YamlModel):
    """The top level without its pages."""

    testname: Text = Field(title="Title", description="Title that listeners see.")
    test_id: Text = Field(description="Name of the test in results and in the data base.")
    buffer_size: Annotated[Literal[256, 512, 1024, 2048, 4096, 8192, 16384], BeforeValidator(resolve)] = (
        Field(default=2048, description="Read, as webMUSHRA does, and of no effect here.")
    )
    stop_on_errors: Bool = Field(
        default=False, description="Signals of different lengths are an error; otherwise the shortest counts."
    )
    show_button_previous_page: Bool = Field(
        default=False, title="Way back", description="Listeners may go back to earlier pages."
    )
    remote_service: Text | None = Field(
        default=None, description="Where webMUSHRA's own page sends results; ours needs none."
    )
    language: Language = Field(
        default="en", title="Language", description="Of buttons, scales and hints, unless a listener chooses."
    )
    qincodec: Section = Field(default=Section(), description="Our own section; webMUSHRA ignores it.")
