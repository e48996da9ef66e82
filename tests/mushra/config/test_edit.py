"""Values of a YAML are changed, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mushra.config.edit import comparison, errors_at, original, revise
from mushra.config.load import ConfigError, load_config
from mushra.config.pages import TestConfig

#: Values that change their meaning as soon as quotes come or go, keys that we do not know, flow style.
YAML = """\
# Written by hand.
testname: Codecs: 8 & 16 kbit/s # really?
testId: 007
stopOnErrors: yes
unknown: [1.50, "1.50", ~, 'it''s']
pages:
  - {type: generic, id: "1", content: "<p>Hello: there</p>"}
  - - random
    - type: mushra
      id: 01
      reference: ref.wav
      createAnchor35: on
      stimuli: {A: a b.wav, "1.0": b.wav}
    - {type: paired_comparison, id: p, unforced: no, reference: ref.wav, stimuli: {A: a.wav}}
  - {type: finish, id: end}
qincodec: {rules: {one_at_100: off}}
"""


def revised(tmp_path: Path, changes: dict[Any, Any]) -> tuple[TestConfig, Any]:
    path = tmp_path / "config.yaml"
    path.write_text(YAML)
    return load_config(path), revise(path, tmp_path, path.read_bytes(), changes)


def test_nothing_else_changes(tmp_path: Path) -> None:
    old, new = revised(tmp_path, {("qincodec", "completion", "code"): "#1: x"})
    new.write()
    written = load_config(tmp_path)
    assert written.section.completion.code == "#1: x"
    assert not written.section.rules.one_at_100
    section = old.section.model_copy(update={"completion": written.section.completion})
    assert written.general == old.general.model_copy(update={"qincodec": section})
    assert written.pages == old.pages
    assert (written.test_id, written.general.stop_on_errors) == ("007", True)
    assert original(tmp_path / "config.yaml").read_text() == YAML
    # A second change of a file that holds nothing but values keeps no copy.
    again = revise(tmp_path / "config.yaml", tmp_path, (tmp_path / "config.yaml").read_bytes(), {})
    assert not again.loses_layout
    assert again.text == (tmp_path / "config.yaml").read_text()


def test_a_key_is_taken_out(tmp_path: Path) -> None:
    _, new = revised(tmp_path, {("pages", 0, "content"): None, ("qincodec", "seed"): None})
    assert new.config.flat()[0].content is None
    assert "seed" not in new.text


def test_errors_are_found_by_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        revised(tmp_path, {("qincodec", "completion", "redirect"): "x", ("pages", 1, 1, "showWaveform"): "7"})
    findings = error.value.findings
    assert len(findings) == 2
    assert "must begin with https://" in errors_at(findings, ("qincodec", "completion", "redirect"))[0]
    assert "showWaveform" in errors_at(findings, ("pages", 1, 1, "showWaveform"))[0]
    assert (tmp_path / "config.yaml").read_text() == YAML


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({("testname",): "Other"}, True),
        ({("qincodec", "identification"): "invitation"}, True),
        ({("qincodec", "completion", "code"): "x"}, True),
        ({("pages", 0, "content"): "<p>Other</p>"}, True),
        ({("pages", 2, "content"): "<p>Thanks</p>"}, True),
        ({("pages", 1, 1, "content"): "Rate the noise only."}, False),
        ({("pages", 1, 1, "enableLooping"): True}, False),
        ({("pages", 1, 1, "stimuli", "A"): "c.wav"}, False),
        ({("qincodec", "rules", "one_at_100"): True}, False),
        ({("qincodec", "headphone_check"): True}, False),
        ({("qincodec", "seed"): 3}, False),
        ({("pages", 0, "type"): "consent"}, False),
    ],
)
def test_what_the_comparison_is(tmp_path: Path, changes: dict[Any, Any], same: bool) -> None:
    old, new = revised(tmp_path, changes)
    assert (comparison(old) == comparison(new.config)) == same
