"""Write docs/reference/yaml.md, the reference of every key of a test's YAML, from the models that read it.

python tools/yaml_reference.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mushra.config.crowd import Gold, Panel
from mushra.config.pages import (
    PAGE_TYPES,
    Choice,
    Completion,
    General,
    GenericPage,
    LikertPage,
    LikertResponse,
    Question,
    Rules,
    Section,
    Trial,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "yaml.md"

_HEAD = """# Keys of a test's YAML

`python tools/yaml_reference.py` writes this page from the models that read the file. `mushra create` writes
such a file, the experimenter's page edits it ([guide](../how-to/listening-tests.md)), and `mushra check`
reports errors in it. Keys are webMUSHRA's, except those below `qincodec` and the page types `dcr`, `ab` and
`abx`, which an unmodified webMUSHRA does not know. Unknown keys are ignored with a warning; below `qincodec`
they are errors. Paths are relative to the file's folder, or to the one above if it is called `configs`."""

_PAGES = """A list of pages. An entry may itself be a list. A list that begins with `random` is shuffled for
each listener. Every page has:"""

#: Model -> name of its values.
_NAMES: dict[type[BaseModel], str] = {
    LikertResponse: "answer of a scale",
    Question: "question",
    Choice: "answer of a question",
    Section: "mapping, [below](#qincodec)",
    Rules: "mapping, [below](#qincodec-rules)",
    Completion: "mapping, [below](#qincodec-completion)",
    Gold: "mapping, [below](#qincodec-gold)",
    Panel: "mapping, [below](#qincodec-panel)",
}
_Row = tuple[str, str, str, str]


def reference() -> str:
    """Text of the page."""
    kind = ("`type`", ", ".join(f"`{name}`" for name in PAGE_TYPES), "**needed**", "Type of the page.")
    pages = ("`pages`", "list of pages", "**needed**", "[Below](#pages).")
    parts = [_HEAD, "## The top level", _table([*_rows(General), pages])]
    parts += ["## pages", _PAGES, _table([kind, *_rows(GenericPage)])]
    for base, text in ((Trial, "Trials"), (LikertPage, "Likert pages")):
        names = [f"`{name}`" for name, model in PAGE_TYPES.items() if issubclass(model, base)]
        parts += [f"{text} ({', '.join(names)}) also have:", _table(_rows(base, GenericPage))]
    for name, model in PAGE_TYPES.items():
        base = next((base for base in (Trial, LikertPage) if issubclass(model, base)), GenericPage)
        parts += [f"### type: {name}", _summary(model), _table(_rows(model, base))]
    for model in (LikertResponse, Question, Choice):
        parts += [f"### {_NAMES[model].capitalize()}", _summary(model), _table(_rows(model))]
    parts += ["## qincodec", _summary(Section), _table(_rows(Section))]
    for key, inner in (
        ("rules", Rules),
        ("completion", Completion),
        ("gold", Gold),
        ("panel", Panel),
    ):
        parts += [f"### qincodec: {key}", _summary(inner), _table(_rows(inner))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").split("\n\n")[0].replace("``", "`").strip()


def _rows(model: type[BaseModel], base: type[BaseModel] | None = None) -> list[_Row]:
    """Rows of the keys that ``base`` does not have."""
    schema = model.model_json_schema()
    rows = []
    for name, field in model.model_fields.items():
        if (name == "type" and model is not Question) or (base is not None and name in base.model_fields):
            continue
        key = field.alias or name
        what = schema["properties"][key]
        default = "**needed**" if field.is_required() else _default(what.get("default"))
        rows.append((f"`{key}`", _kind(what), default, field.description or ""))
    return rows


def _default(value: Any) -> str:
    nothing = value is None or isinstance(value, dict | list)
    return "" if nothing else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _kind(what: dict[str, Any]) -> str:
    """Allowed values of a key, in words."""
    if "$ref" in what:
        return next(text for model, text in _NAMES.items() if model.__name__ == what["$ref"].split("/")[-1])
    if "anyOf" in what:
        return " or ".join(_kind(one) for one in what["anyOf"] if one.get("type") != "null")
    if "enum" in what:
        return ", ".join(f"`{one}`" for one in what["enum"])
    if what["type"] == "array":
        inner = _kind(what["items"]) if what["items"] else ""
        return f"list of: {inner}" if inner else "list"
    words = {"string": "text", "boolean": "`true`, `false`", "integer": "whole number", "number": "number"}
    return words.get(what["type"], "mapping")


def _table(rows: Sequence[_Row]) -> str:
    head = ("key", "value", "default", "meaning"), ("---",) * 4
    return "\n".join(f"| {' | '.join(row)} |" for row in (*head, *rows)) if rows else ""


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
