"""docs/reference/yaml.md is made of the models, which describe every key."""

from __future__ import annotations

import pytest
import yaml_reference
from pydantic import BaseModel

from mushra.config.pages import (
    PAGE_TYPES,
    Choice,
    Completion,
    General,
    LikertResponse,
    Question,
    Rules,
    Section,
)


def test_the_page_is_that_of_the_models() -> None:
    told = "docs/reference/yaml.md is old: run `python tools/yaml_reference.py`"
    assert yaml_reference.PAGE.read_text(encoding="utf-8") == yaml_reference.reference(), told


@pytest.mark.parametrize(
    "model",
    [*PAGE_TYPES.values(), Choice, Completion, General, LikertResponse, Question, Rules, Section],
    ids=lambda model: model.__name__,
)
def test_every_key_is_described_and_on_the_page(model: type[BaseModel]) -> None:
    page = yaml_reference.PAGE.read_text(encoding="utf-8")
    for name, field in model.model_fields.items():
        if name != "type":
            assert field.description is not None and field.description.endswith(".")
            assert f"| `{field.alias or name}` |" in page and field.description in page
