"""Change values in a test's YAML, keep all others, and check the whole before it is written."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mushra.config.load import ConfigError, Finding, read_data
from mushra.config.pages import ConsentPage, FinishPage, GenericPage, Page, PageGroup, TestConfig
from mushra.config.yaml_dump import dump
from mushra.config.yaml_js import resolve
from mushra.config.yaml_lines import Location, parse
from qincodec.core.errors import UserError
from qincodec.core.files import replacing

#: Keys of our section that do not affect what listeners compare, or how.
_FREE = {"completion", "languages", "one_session_per_person", "identification"}
_FREE |= {"quota", "drop_after_min", "panel"}


@dataclass(frozen=True)
class Revised:
    """A changed test file: its text, the test that it describes, and the old content.

    Comments, YAML anchors and layout are not in ``text``; `write` keeps the old file.
    """

    text: str
    config: TestConfig
    old: bytes

    @property
    def loses_layout(self) -> bool:
        return dump(parse(self.old).value).encode() != self.old

    def write(self) -> None:
        """Replace the file; the first time, keep a copy if layout is lost. Raises `UserError`."""
        path = self.config.path
        if self.loses_layout and not original(path).exists():
            with replacing(original(path)) as new:
                new.write_bytes(self.old)
        with replacing(path) as new:
            new.write_bytes(self.text.encode())
            new.chmod(path.stat().st_mode & 0o777)


def original(path: Path) -> Path:
    """Path of the copy of a hand-written file that is changed here."""
    return path.with_name(f"{path.stem}.original{path.suffix}")


def revise(path: Path, root: Path, data: bytes, changes: Mapping[Location, Any]) -> Revised:
    """The file of a test with other values.

    Args:
        path: the YAML file, which must have no errors now.
        root: folder that its audio paths are relative to.
        data: its content.
        changes: key or list index from the top -> value; None removes the key.

    Raises:
        ConfigError: the new file would have errors; `Finding.location` says at which key.
    """
    value = copy.deepcopy(parse(data).value)
    for location, new in changes.items():
        *outer, key = location
        at = value
        for part in outer:
            if isinstance(at, dict) and at.get(part) is None:
                at[part] = {}
            at = at[part]
        if new is None:
            at.pop(key, None)
        else:
            at[key] = new
    text = dump(value)
    reading = read_data(text.encode(), path, root)
    if resolve(reading.document.value) != resolve(value):
        # No file is known for which this happens; other values must not change.
        raise UserError(f"'{path}' cannot be changed here without changing more; edit it by hand")
    if reading.config is None:
        raise ConfigError([finding for finding in reading.findings if finding.severity == "error"])
    return Revised(text, reading.config, data)


def errors_at(findings: list[Finding], location: Location) -> list[str]:
    """Messages about a key or the keys below it."""
    return [one.message for one in findings if one.location[: len(location)] == location]


def comparison(config: TestConfig) -> tuple[Any, ...]:
    """Values that decide what listeners compare and by which rules, with the texts of the trials.

    If they are equal, the ratings of two configurations can be analysed together.
    """
    general = config.general
    return (
        general.test_id,
        general.stop_on_errors,
        general.show_button_previous_page,
        config.section.model_dump(exclude=_FREE),
        _compared(PageGroup(config.pages)),
    )


def _compared(entry: Page | PageGroup) -> Any:
    if isinstance(entry, PageGroup):
        return entry.random, [_compared(inner) for inner in entry.pages]
    free = isinstance(entry, GenericPage | ConsentPage | FinishPage)
    return entry.model_dump(include={"type", "id"} if free else None)
