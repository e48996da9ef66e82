"""Types of the values in a test's YAML."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from mushra.config.yaml_js import Plain, resolve

#: Name of the hidden reference in results.
HIDDEN_REFERENCE = "reference"

#: Limit of tags in an HTML text.
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
        raise ValueError("is not a path; give a relative one with '/' between folders")
    parts = PurePosixPath(path).parts
    if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path) or ".." in parts:
        raise ValueError("leads out of the test's folder; give a relative path without '..'")
    return path


def _trial_names(stimuli: dict[str, str]) -> dict[str, str]:
    if HIDDEN_REFERENCE in stimuli:
        raise ValueError("name 'reference' is that of the hidden reference; give the stimulus another name")
    if "" in stimuli:
        raise ValueError("a stimulus has no name")
    return stimuli


def _web_address(address: str) -> str:
    if not re.match(r"https?://[^/\s]", address):
        raise ValueError("is not a web address; it must begin with https:// or http://")
    if "{" in re.split("[/?#]", address, maxsplit=3)[2]:
        raise ValueError("has a placeholder in the host name; it is allowed only after that")
    return address


def _few_tags(markup: str) -> str:
    # The time for reading markup grows with the square of its depth, here and in a browser.
    if (tags := markup.count("<")) > MAX_TAGS:
        raise ValueError(f"has {tags} tags; at most {MAX_TAGS} are allowed")
    return markup


Text = Annotated[str, AfterValidator(str)]
WebAddress = Annotated[Text, AfterValidator(_web_address)]
#: HTML; `mushra.server.sanitize` decides which parts of it are shown.
Markup = Annotated[Text, AfterValidator(_few_tags)]
Bool = Annotated[bool, BeforeValidator(_bool)]
Int = Annotated[int, BeforeValidator(resolve)]
Float = Annotated[float, BeforeValidator(resolve)]
#: Value that is passed on to its page, as webMUSHRA's parser resolves it.
Anything = Annotated[dict[str, Any] | list[Any], BeforeValidator(resolve)]
AudioPath = Annotated[Text, AfterValidator(_path)]
Stimuli = Annotated[dict[str, AudioPath], Field(min_length=1), AfterValidator(_trial_names)]


class YamlModel(BaseModel):
    """A mapping of the file; its keys are camelCase there."""

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


class Own(BaseModel):
    """A mapping of our own section, whose keys are snake_case in the file, too."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
