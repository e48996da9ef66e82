"""A test's options and texts as a form, and the changes that its entries make to the YAML.

Each key with a title in its model (`mushra.config.pages`) gets a control; its description is the help beside
the control. Pages of one type with the same texts and options share their controls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, cast

from pydantic import BaseModel
from werkzeug.datastructures import MultiDict

from mushra.config.edit import errors_at
from mushra.config.load import Finding, Reading
from mushra.config.pages import Completion, FinishPage, General, Page, Rules, Section, TestConfig
from mushra.config.texts import questions
from mushra.config.yaml_lines import Location

#: Texts with more than one line.
_LONG = frozenset({"content", "popup_content"})
#: Keys that can be changed after a session has begun (see `mushra.config.edit.comparison`), except in pages.
_OPEN = frozenset(
    {"testname", "language", "identification", "one_session_per_person", "languages", "code", "redirect"}
) | {"quota", "drop_after_min"}
_OPEN_PAGES = frozenset({"generic", "consent", "finish"})
#: Order of controls by their kind, if they have no other order.
_ORDER = ("text", "lines", "choice", "number", "several", "switch")


@dataclass
class Control:
    """One field of the form.

    Attributes:
        name: of the field; the YAML has its value at each of ``locations``.
        kind: of input. "several": any number of ``choices``, which are (value, label).
        value: of the form's field: text, or a list for "several"; a switch is "on" or "".
        fixed: cannot be changed any more, because a session has begun.
        errors: messages about the entry.
    """

    name: str
    locations: list[Location]
    title: str
    help: str
    kind: Literal["text", "lines", "number", "switch", "choice", "several"]
    value: str | list[str]
    choices: list[tuple[str, str]] = field(default_factory=list)
    fixed: bool = False
    errors: list[str] = field(default_factory=list)


@dataclass
class Group:
    """Controls under a heading; ``pages`` are the numbers of their pages."""

    heading: str
    controls: list[Control]
    pages: list[int] = field(default_factory=list)
    training: bool = False


class Form:
    """The form of one state of a test's file."""

    def __init__(self, reading: Reading, begun: bool) -> None:
        assert reading.config is not None
        self._config: TestConfig = reading.config
        self._begun = begun
        self._file = reading.document.value
        #: Question -> its value in the file, or the default of a usual question.
        self._asked: dict[str, Any] = {}
        general, section = self._config.general, self._config.section
        ours: Location = ("qincodec",)
        listeners = [*self._controls(General, general, ()), *self._controls(Section, section, ours)]
        self.groups = [
            Group("Test and listeners", sorted(listeners, key=lambda one: _ORDER.index(one.kind))),
            Group("At the end", list(self._controls(Completion, section.completion, (*ours, "completion")))),
            Group("Rules of a MUSHRA page", list(self._controls(Rules, section.rules, (*ours, "rules")))),
            *self._pages(reading.locations),
        ]

    def _controls(
        self, model: type[BaseModel], value: BaseModel, at: Location, open_page: bool = False
    ) -> Iterator[Control]:
        schema = model.model_json_schema()
        for name, described in model.model_fields.items():
            if described.title is None:
                continue
            key = described.alias or name
            what = schema["properties"][key]
            kinds = [one for one in what.get("anyOf", [what]) if one.get("type") != "null"]
            kind, choices = _kind(kinds[0], name)
            if kind == "choice" and len(kinds) < len(what.get("anyOf", [what])):
                choices = [("", "no"), *choices]
            yield Control(
                name=".".join(map(str, (*at, key))),
                locations=[(*at, key)],
                title=described.title,
                help=(described.description or "").replace("`", ""),
                kind=kind,
                value=_shown(getattr(value, name)),
                choices=choices,
                fixed=self._begun and not open_page and name not in _OPEN,
            )

    def _pages(self, locations: Mapping[int, Location]) -> Iterator[Group]:
        def look(numbered: tuple[int, Page]) -> tuple[Any, ...]:
            _, page = numbered
            titled = [name for name, one in type(page).model_fields.items() if one.title is not None]
            texts = tuple(repr(getattr(page, name)) for name in titled)
            return page.type, self._config.is_training(page), texts

        for _, alike in groupby(enumerate(self._config.flat(), start=1), look):
            numbered = list(alike)
            first, page = numbered[0]
            controls = list(
                self._controls(type(page), page, ("pages", first), open_page=page.type in _OPEN_PAGES)
            )
            for control in controls:
                key = control.locations[0][-1]
                control.locations = [(*locations[number], key) for number, _ in numbered]
            if isinstance(page, FinishPage):
                controls.append(self._questions(page, locations[first]))
            numbers = [number for number, _ in numbered]
            heading = f"Page {first}" if len(numbers) == 1 else f"Pages {first} to {numbers[-1]}"
            yield Group(
                f"{heading}: {page.name or page.id}", controls, numbers, self._config.is_training(page)
            )

    def _questions(self, page: FinishPage, at: Location) -> Control:
        entry = self._file
        for part in at:
            entry = entry[part]
        usual = {one["name"]: one for one in questions(self._config.language)}
        self._asked = {**usual, **{str(one["name"]): one for one in entry.get("questionnaire") or []}}
        asked = {one.name: one.label or one.name for one in page.questionnaire or []}
        others = {name: str(one["label"]) for name, one in usual.items() if name not in asked}
        # In the order of `mushra create`, unless there are other questions, too.
        labels = {**asked, **others}
        if not asked.keys() - usual.keys():
            labels = {name: labels[name] for name in usual}
        return Control(
            name="questionnaire",
            locations=[(*at, "questionnaire")],
            title="Questions",
            help="Questions at the end of the test.",
            kind="several",
            value=list(asked),
            choices=list(labels.items()),
        )

    def controls(self) -> Iterator[Control]:
        for group in self.groups:
            yield from group.controls

    def enter(self, given: MultiDict[str, str]) -> dict[Location, Any]:
        """Put the entries into the controls; return the values of the YAML that they change."""
        changes: dict[Location, Any] = {}
        for control in self.controls():
            # Browsers do not send fixed controls. If one has become fixed meanwhile, saving refuses the
            # change.
            if f"{control.name}:shown" not in given:
                continue
            entered: str | list[str] = given.get(control.name, "").replace("\r\n", "\n").strip()
            if control.kind == "several":
                entered = given.getlist(control.name)
            old = control.value.strip() if isinstance(control.value, str) else control.value
            if entered != old and (control.kind != "several" or set(entered) != set(old)):
                new = self._value(control, entered)
                changes |= dict.fromkeys(control.locations, new)
            control.value = entered
        return changes

    def _value(self, control: Control, entered: str | list[str]) -> Any:
        """Value of an entry for the YAML."""
        if control.name == "questionnaire":
            return [self._asked[name] for name in entered if name in self._asked] or None
        if control.kind == "switch":
            return entered == "on"
        if control.kind == "number" and isinstance(entered, str):
            for kind in (int, float):
                try:
                    return kind(entered)
                except ValueError:
                    continue
        return entered or None

    def place_errors(self, findings: Sequence[Finding]) -> list[str]:
        """Put errors beside their controls; return those without a control."""
        left = list(findings)
        for control in self.controls():
            for location in control.locations:
                control.errors += errors_at(left, location)
                left = [one for one in left if one.location[: len(location)] != location]
        return [str(one.message) for one in left]


def _kind(what: dict[str, Any], name: str) -> tuple[Any, list[tuple[str, str]]]:
    if what.get("type") == "array":
        return "several", _choices(what["items"])
    if "enum" in what:
        return "choice", _choices(what)
    kinds = {"boolean": "switch", "integer": "number", "number": "number"}
    return kinds.get(what.get("type", ""), "lines" if name in _LONG else "text"), []


def _choices(what: dict[str, Any]) -> list[tuple[str, str]]:
    return [(str(one), str(one)) for one in what["enum"]]


def _shown(value: Any) -> str | list[str]:
    if isinstance(value, list):
        return cast(list[str], value)
    if isinstance(value, bool):
        return "on" if value else ""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
