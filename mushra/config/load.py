"""Read a test's YAML; report every wrong type and unknown key with file, line and page.

A test is a YAML file or a folder that `mushra create` wrote (``config.yaml`` in it). Paths in it are relative
to its folder; if that is called ``configs``, as in a webMUSHRA checkout, to the folder above.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mushra.config.crowd_check import crowd_errors
from mushra.config.locate import CONFIG_NAME
from mushra.config.pages import (
    PAGE_TYPES,
    FinishPage,
    General,
    MushraPage,
    Page,
    PageGroup,
    Section,
    TestConfig,
)
from mushra.config.yaml_js import Plain, YamlProblem, resolve
from mushra.config.yaml_lines import Document, Location, parse
from qincodec.core.errors import UserError
from qincodec.core.folders import instead

#: Types of pages whose grades are stored under the page's id.
_RATED = frozenset(PAGE_TYPES) - {"generic", "consent", "volume", "finish"}


@dataclass(frozen=True)
class Finding:
    """Something about a test that is wrong ("error": it does not start) or worth knowing ("warning").

    Attributes:
        severity: "error" or "warning".
        file: the YAML file.
        line: in it, from 1.
        page: number of the page in the order of the file, from 1; None if it is not about a page.
        message: what is wrong, what was given, what is allowed.
        location: key that it is about.
    """

    severity: Literal["error", "warning"]
    file: Path
    line: int
    page: int | None
    message: str
    location: Location = ()

    def __str__(self) -> str:
        page = "" if self.page is None else f"page {self.page}: "
        return f"{self.file}:{self.line}: {self.severity}: {page}{self.message}"


_GIVE = "give a webMUSHRA YAML file or a folder that `mushra create` wrote"


class ConfigError(UserError):
    """A test that cannot be loaded. The message is the first error and the number of others."""

    def __init__(self, findings: list[Finding]) -> None:
        others = len(findings) - 1
        more = f" (and {others} more: `mushra check` lists them all)" if others else ""
        super().__init__(f"{findings[0]}{more}")
        self.findings = findings


def load_config(path: Path, root: Path | None = None) -> TestConfig:
    """The test that a YAML file or a test folder describes. Its audio files are not checked.

    Args:
        path: YAML file, or folder with a ``config.yaml``.
        root: folder that audio paths are relative to; None: see this module.

    Raises:
        ConfigError: the file has errors; ``findings`` has all of them.
        UserError: the file cannot be read.
    """
    reading = read(path, root)
    if reading.config is None:
        raise ConfigError([finding for finding in reading.findings if finding.severity == "error"])
    return reading.config


def named_training(
    file: Path, test: str | None = None, *, yaml: str | None = None, other: list[str] | None = None
) -> list[str] | None:
    """Ids of the training pages in a YAML; None if it names none, ``other`` if it is of another test.

    Arguments and errors are those of `own_section`.
    """
    section = own_section(file, test, yaml=yaml)
    return other if section is None else section.training


def own_section(file: Path, test: str | None = None, *, yaml: str | None = None) -> Section | None:
    """Our section of a YAML; its pages are not read. None if it is of another test.

    Args:
        file: the YAML file, or its name in messages.
        test: id of the test; None: of any test.
        yaml: its text; None: the content of the file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        content = parse(file.read_bytes() if yaml is None else yaml.encode()).value
        if not isinstance(content, dict) or test not in (None, content.get("testId")):
            return None
        return Section.model_validate(content.get("qincodec") or {})
    except (OSError, YamlProblem, ValidationError) as error:
        line = error.line if isinstance(error, YamlProblem) else 1
        raise ConfigError([Finding("error", file, line, None, one_line(str(error)))]) from error


@dataclass
class Reading:
    """Result of reading a file: the test (None if it has errors), positions of pages by number, findings."""

    config: TestConfig | None
    document: Document
    locations: dict[int, Location]
    findings: list[Finding]


def read(path: Path, root: Path | None) -> Reading:
    """The file of a test with its findings. Arguments are those of `load_config`; raises `UserError`."""
    file = path / CONFIG_NAME if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise UserError(f"{path} is not a test: it {instead(path, CONFIG_NAME)}; {_GIVE}")
    try:
        if file.exists() and not file.is_file():  # a pipe may never end
            raise OSError("it is not a file but a pipe, a device or a folder")
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read test '{file}': {error.strerror or error}; {_GIVE}") from error
    return read_data(data, file, root)


def read_data(data: bytes, file: Path, root: Path | None) -> Reading:
    """Result of reading the file of a test with that content."""
    try:
        document = parse(data)
    except YamlProblem as problem:
        return Reading(
            None, Document(), {}, [Finding("error", file, problem.line, None, one_line(str(problem)))]
        )
    reader = _Reader(file, document)
    general, pages = reader.read()
    findings = sorted(reader.findings, key=lambda finding: (finding.severity, finding.line))
    config = None
    if general is not None and not any(finding.severity == "error" for finding in findings):
        in_configs = file.parent.resolve().name == "configs"
        root = root or (file.parent.parent if in_configs else file.parent)
        config = TestConfig(file, root.resolve(), general, pages)
    return Reading(config, document, reader.locations(), findings)


class _Reader:
    """Converts the document to models and collects errors and warnings."""

    def __init__(self, file: Path, document: Document) -> None:
        self.findings: list[Finding] = []
        self._file = file
        self._document = document
        self._numbers: dict[Location, int] = {}
        self._ids: set[str] = set()

    def read(self) -> tuple[General | None, tuple[Page | PageGroup, ...]]:
        content = self._document.value
        if not isinstance(content, dict):
            self._error((), f"the file holds {_kind(content)}, not the keys of a test ('testname', 'pages')")
            return None, ()
        entries = content.get("pages")
        if isinstance(entries, list):
            self._number(entries, ("pages",))
        for location, line in self._document.duplicates:
            first = self._document.line(location)
            self._warning(
                location, f"key '{location[-1]}' is given twice; the first counts, on line {first}", line
            )
        top = {key: value for key, value in content.items() if key != "pages"}
        general = self._model(General, top, (), "the top level")
        if "pages" not in content:
            self._error((), "'pages' is missing: the list of the test's pages")
            return None, ()
        if not isinstance(entries, list):
            self._error(("pages",), f"'pages' must be a list of pages; it is {_kind(entries)}")
            return None, ()
        group = self._group(entries, ("pages",))
        if not self._numbers:
            self._error(("pages",), "'pages' has no page")
        self._check_whole(general, group)
        return general, group.pages

    def locations(self) -> dict[int, Location]:
        """Position of each page in the document, by its number."""
        return {number: location for location, number in self._numbers.items()}

    def _number(self, entries: list[Any], location: Location) -> None:
        for index, entry in enumerate(entries):
            if isinstance(entry, list):
                self._number(entry, (*location, index))
            elif not (index == 0 and entry == "random"):
                self._numbers[*location, index] = len(self._numbers) + 1
                if isinstance(entry, dict) and str(entry.get("type")) in _RATED:
                    self._ids.add(str(entry.get("id")))

    def _group(self, entries: list[Any], location: Location) -> PageGroup:
        pages: list[Page | PageGroup] = []
        random = bool(entries) and entries[0] == "random"
        for index, entry in enumerate(entries):
            here = (*location, index)
            if isinstance(entry, list):
                pages.append(self._group(entry, here))
            elif not (random and index == 0):
                page = self._page(entry, here)
                if page is not None:
                    pages.append(page)
        return PageGroup(tuple(pages), random)

    def _page(self, entry: Any, location: Location) -> Any:
        if entry == "random":
            self._error(location, "'random' must be the first entry of its list")
            return None
        if not isinstance(entry, dict):
            self._error(location, f"a page must be a mapping that begins with 'type:'; it is {_kind(entry)}")
            return None
        kind = entry.get("type")
        model = PAGE_TYPES.get(kind) if isinstance(kind, str) else None
        if model is None:
            known = ", ".join(PAGE_TYPES)
            what = "'type' is missing" if "type" not in entry else f"'{kind}' is not a type of page"
            self._error((*location, "type"), f"{what}{_close(str(kind), PAGE_TYPES)}; allowed are {known}")
            return None
        if kind not in _RATED:
            entry = {**entry, "id": self._id(entry.get("id"), location)}
        return self._model(model, entry, location, f"a {kind} page")

    def _id(self, given: Any, location: Location) -> Any:
        """Id of a page without grades: its own, or a new one if it is missing or taken."""
        number = self._numbers[location]
        wanted = f"page{number}" if given is None else given
        if not isinstance(wanted, str):
            return wanted
        unique = wanted
        while unique in self._ids:
            unique += f" (page {number})"
        self._ids.add(unique)
        if given is not None and unique != given:
            self._warning(
                (*location, "id"), f"id '{given}' is also that of another page (this one stores no grades)"
            )
        return unique

    def _model(self, model: type[BaseModel], value: Any, location: Location, what: str) -> Any:
        self._unknown(model, value, location, what)
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                if details["loc"][:2] == ("response", 0) and not _is_several(value["response"]):
                    details["loc"] = ("response", *details["loc"][2:])
                self._error((*location, *_real(details, value)), _explain(details, model, what))
            return None

    def _unknown(self, model: type[BaseModel], value: Any, location: Location, what: str) -> None:
        """Warn of keys that webMUSHRA's page types do not have."""
        if isinstance(value, list):
            for index, entry in enumerate(value):
                self._unknown(model, entry, (*location, index), what)
        if not isinstance(value, dict) or model.model_config.get("extra") != "ignore":
            return
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        for key, entry in value.items():
            if key not in fields:
                close = _close(key, fields.keys() - value.keys())
                self._warning((*location, key), f"{what} has no key '{key}'{close}; it is ignored")
            elif nested := _nested(fields[key]):
                self._unknown(nested, entry, (*location, key), f"'{key}' of {what}")

    def _check_whole(self, general: General | None, group: PageGroup) -> None:
        """Check what concerns several pages."""
        locations = self.locations()
        if any(finding.severity == "error" for finding in self.findings):
            return  # a page that was not understood has a number but is not in the group
        pages = list(group.flat())
        first: dict[str, int] = {}
        for number, page in enumerate(pages, start=1):
            if page.id in first:
                self._error(
                    (*locations[number], "id"),
                    f"id '{page.id}' is also that of page {first[page.id]}; give each page its own, so that"
                    " results can be distinguished",
                )
            first.setdefault(page.id, number)
            if isinstance(page, FinishPage) and number < len(pages):
                self._error(locations[number], "the finish page must be the last page, outside random lists")
            if isinstance(page, MushraPage):
                names = page.conditions()
                for name in {name for name in names if names.count(name) > 1}:
                    self._error(
                        (*locations[number], "stimuli", name),
                        f"'{name}' is the name of the anchor that this page makes; rename the stimulus"
                        " or do not make the anchor",
                    )
            elif isinstance(page, FinishPage):
                self._check_questions(page, locations[number])
        if general is not None:
            for location, message in crowd_errors(general.qincodec, group):
                self._error(("qincodec", *location), message)
        for index, name in enumerate((general and general.qincodec.training) or []):
            if name not in first:
                known = _close(name, first)
                self._error(("qincodec", "training", index), f"no page has the id '{name}'{known}")

    def _check_questions(self, page: FinishPage, location: Location) -> None:
        names: set[str] = set()
        for index, question in enumerate(page.questionnaire or []):
            here = (*location, "questionnaire", index)
            if question.name in names:
                self._error((*here, "name"), f"two questions are called '{question.name}'; rename one")
            names.add(question.name)
            if question.type == "likert" and not question.response:
                self._error(here, f"likert question '{question.name}' has no 'response' to choose from")

    def _error(self, location: Location, message: str) -> None:
        self._find("error", location, message)

    def _warning(self, location: Location, message: str, line: int | None = None) -> None:
        self._find("warning", location, message, line)

    def _find(
        self, severity: Literal["error", "warning"], location: Location, message: str, line: int | None = None
    ) -> None:
        page = next((n for at, n in self._numbers.items() if location[: len(at)] == at), None)
        where = self._document.line(location) if line is None else line
        self.findings.append(Finding(severity, self._file, where, page, one_line(message), location))


def _is_several(response: Any) -> bool:
    """Whether a Likert page has a list of scales."""
    return isinstance(response, list) and any(isinstance(entry, list) for entry in response)


def one_line(text: str) -> str:
    """A message that quotes a file, without characters that move a terminal's cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


def _kind(value: Any) -> str:
    """A value in the words of YAML."""
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    shown = str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}..."
    is_text = isinstance(value, str) and (not isinstance(value, Plain) or isinstance(resolve(value), str))
    return f"the text '{shown}'" if is_text else shown


def _close(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _real(details: ErrorDetails, value: Any) -> Location:
    """Pydantic's location without its names of union branches."""
    real: list[str | int] = []
    for part in details["loc"]:
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_list or (isinstance(value, dict) and part in value):
            value = value[part]
        elif part != "[key]" and details["type"] in ("missing", "extra_forbidden"):
            value = None
        else:
            continue
        real.append(part)
    return tuple(real)


#: Pydantic's type of error -> what is allowed.
_ALLOWED = {
    "bool_type": "true or false, without quotes",
    "string_type": "text",
    "int_type": "a whole number, without quotes",
    "int_from_float": "a whole number",
    "float_type": "a number, without quotes",
    "list_type": "a list",
    "dict_type": "a mapping (name: value)",
    "model_type": "a mapping (key: value)",
}


def _explain(details: ErrorDetails, model: type[BaseModel], what: str) -> str:
    """One of pydantic's errors, in our words."""
    kind, given = details["type"], details.get("input")
    names = [str(part) for part in details["loc"] if not str(part).startswith("function-")]
    name = ".".join(names)
    if kind == "missing":
        return f"'{name}' is missing: {what} needs it"
    if kind == "extra_forbidden":
        known = _keys(model, details["loc"][:-1])
        listed = f"; allowed here are {', '.join(known)}" if known else ""
        return f"{what} has no key '{name}'{_close(names[-1], known)}{listed}"
    if kind == "value_error":
        return f"'{name}': {_kind(given)} {details['ctx']['error']}"
    if kind == "literal_error":
        return f"'{name}' is {_kind(given)}; allowed are {details['ctx']['expected']}"
    if kind in ("too_short", "missing_argument"):
        return f"'{name}' has no entry; give at least one"
    allowed = _ALLOWED.get(kind) or details["msg"].removeprefix("Input should be ")
    return f"'{name}' is {_kind(given)}; it must be {allowed}"


def _keys(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Keys of the model at ``location`` below ``model``."""
    for part in location:
        if isinstance(part, int):
            continue
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        nested = _nested(field.annotation) if field else None
        if nested is None:
            return []
        model = nested
    return [field.alias or name for name, field in model.model_fields.items()]


def _nested(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _nested(argument)
        if found is not None:
            return found
    return None
