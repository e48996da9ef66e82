"""Reading webMUSHRA's YAML: what it says, what is wrong with it and where, and what must not do harm."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mushra.check import check_config
from mushra.config.load import ConfigError, load_config
from mushra.config.pages import (
    Bs1116Page,
    ConsentPage,
    FinishPage,
    GenericPage,
    LikertMultiPage,
    LikertSinglePage,
    MushraPage,
    PageGroup,
    PairedComparisonPage,
    SpatialPage,
    VolumePage,
)
from mushra.config.yaml_js import YamlProblem, resolve
from mushra.config.yaml_lines import parse
from qincodec.core.errors import UserError

#: Every page type with every key of the reference page.
WHOLE = """\
testname: A test
testId: 7
bufferSize: 512
stopOnErrors: true
showButtonPreviousPage: false
remoteService: service/write.php
language: de
pages:
  - {type: generic, id: g, name: Hello, content: "<p>Hi</p>"}
  - {type: consent, id: c, name: Consent, content: text, mustConsent: true}
  - {type: volume, id: v, stimulus: a.wav, defaultVolume: 1}
  - - random
    - type: mushra
      id: trial1
      name:
      content:
      showWaveform: true
      enableLooping: yes
      strict: false
      reference: sub/a.wav
      createAnchor35: true
      createAnchor70: false
      randomize: false
      showConditionNames: true
      switchBack: true
      stimuli: {no: b.wav, 2: c.wav}
    - - type: mushra
        id: trial2
        reference: a.wav
        stimuli: {C: b.wav}
    - - random
      - {type: bs1116, id: b, showWaveform: true, enableLooping: true, reference: a.wav, stimuli: {C: b.wav}}
      - {type: paired_comparison, id: p, unforced: "neither", reference: a.wav, stimuli: {C: b.wav}}
  - type: likert_multi_stimulus
    id: lm
    mustRate: true
    mustPlayback: ended
    stimuli: {C1: a.wav, C2: b.wav}
    maxStimuli: 1
    response: [{value: 1, label: good, img: i.png, imgSelected: j.png, imgHigherResponseSelected: k.png}]
  - type: likert_single_stimulus
    id: ls
    mustPlayback: processUpdate
    stimuli: {C1: a.wav}
    response: [{value: 1}]
  - type: spatial
    id: s
    framerate: 30
    roomMeasurements: {width: 3}
    stimuli: [{name: x}]
    responses: [{name: y}]
    views: [{type: top}]
    objects: []
  - type: finish
    name: End
    content: Thanks
    popupContent: Bye
    showResults: true
    showErrors: false
    writeResults: true
    questionnaire:
      - {type: text, label: Age, name: age, optional: true}
      - {type: number, label: n, name: n, min: 1, max: 9, default: 5}
      - {type: likert, name: l, response: [{value: a, label: A}]}
      - {type: long_text, name: t}
qincodec:
  training: [trial1]
  rules: {must_hear_all: false}
  items_per_listener: 3
  order: random
  seed: 4
  completion: {code: 123, redirect: "https://app.prolific.com/submissions/complete?cc=1"}
  languages: [de, en]
  one_session_per_person: true
  headphone_check: true
  identification: prolific
"""

MINIMAL = """\
testname: t
testId: t
pages:
  - type: mushra
    id: a
    reference: r.wav
    stimuli: {C: c.wav}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def to_file(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def problems(path: Path) -> list[str]:
    """Errors as "line page message"."""
    found = [finding for finding in check_config(path) if finding.severity == "error"]
    return [f"{finding.line} {finding.page} {finding.message}" for finding in found]


def test_every_page_type_and_key(write: Callable[[str], Path]) -> None:
    config = load_config(write(WHOLE))
    assert (config.testname, config.test_id, config.language) == ("A test", "7", "de")
    kinds = [type(page) for page in config.flat()]
    assert kinds == [
        *(GenericPage, ConsentPage, VolumePage, MushraPage, MushraPage, Bs1116Page, PairedComparisonPage),
        *(LikertMultiPage, LikertSinglePage, SpatialPage, FinishPage),
    ]
    group = config.pages[3]
    assert isinstance(group, PageGroup)
    assert group.random
    assert [isinstance(entry, PageGroup) for entry in group.pages] == [False, True, True]
    assert [entry.random for entry in group.pages if isinstance(entry, PageGroup)] == [False, True]
    trial = config.flat()[3]
    assert isinstance(trial, MushraPage)
    # Keys are as written, in YAML 1.1 as in YAML 1.2.
    assert trial.stimuli == {"no": "b.wav", "2": "c.wav"}
    assert trial.conditions() == ["no", "2", "reference", "anchor35"]
    assert (trial.enable_looping, trial.strict, trial.randomize, trial.name) == (True, False, False, None)
    assert config.audio_path(trial.reference) == config.path.parent / "sub/a.wav"
    finish = config.flat()[-1]
    assert isinstance(finish, FinishPage)
    assert finish.id == "page11"
    assert [question.type for question in finish.questionnaire or []] == [
        "text",
        "number",
        "likert",
        "long_text",
    ]
    assert config.section.completion.code == "123"
    assert not config.section.rules.must_hear_all
    assert config.section.rules.one_at_100
    assert [page.id for page in config.flat() if config.is_training(page)] == ["trial1"]


def test_defaults(write: Callable[[str], Path]) -> None:
    config = load_config(write(MINIMAL.replace("id: a", "id: training 1")))
    page = config.flat()[0]
    assert isinstance(page, MushraPage)
    assert page.randomize
    assert not page.create_anchor35
    assert config.is_training(page)
    assert config.section.identification == "anonymous"
    assert config.language == "en"


def test_aes2023(shared: Callable[[str], Path], tmp_path: Path) -> None:
    source = shared("mushra/AES2023_webmushra_config.yaml")
    config = load_config(source)
    assert config.test_id == "param_amb"
    trials = [page for page in config.flat() if isinstance(page, MushraPage)]
    assert len(trials) == 13
    assert all(len(page.conditions()) == 8 for page in trials)
    # In a checkout of webMUSHRA paths begin above the folder `configs`.
    (tmp_path / "configs").mkdir()
    copy = tmp_path / "configs" / "test.yaml"
    copy.write_bytes(source.read_bytes())
    assert load_config(copy).audio_path(trials[0].reference) == tmp_path / trials[0].reference
    errors = [finding for finding in check_config(copy) if finding.severity == "error"]
    assert len(errors) == 13 * 8  # no audio is there
    assert errors[0].line == 26
    assert errors[0].page == 2
    assert str(errors[0]).startswith(f"{copy}:26: error: page 2: 'configs/resources/audio/pink_noise")


#: Text of `WHOLE` => what stands there instead => line, page and beginning of the error.
ERRORS = r"""
stopOnErrors: true => stopOnErrors: 'true' => 4 None 'stopOnErrors' is the text 'true'; it must be tr
bufferSize: 512 => bufferSize: 500 => 3 None 'bufferSize' is 500; allowed are 256, 512
language: de => language: it => 7 None 'language' is the text 'it'; allowed are 'en', 'de'
testId: 7 => testId: [7] => 2 None 'testId' is a list; it must be text
testId: 7\n =>  => 1 None 'testId' is missing
type: generic => type: generick => 9 1 'generick' is not a type of page (did you mean 'generic'?)
{type: generic,  => { => 9 1 'type' is missing
defaultVolume: 1 => defaultVolume: 2 => 11 3 'defaultVolume' is 2; it must be less than or equal to 1
stimulus: a.wav => stimulus: ../a.wav => 11 3 'stimulus': the text '../a.wav' leads out of the test's
stimulus: a.wav => stimulus: /etc/passwd => 11 3 'stimulus': the text '/etc/passwd' leads out of
stimulus: a.wav => stimulus: 'C:/a.wav' => 11 3 'stimulus': the text 'C:/a.wav' leads out of
stimulus: a.wav => stimulus: 'http://x/a.wav' => 11 3 'stimulus': the text 'http://x/a.wav' is an add
stimulus: a.wav => stimulus: 'a\b.wav' => 11 3 'stimulus': the text 'a\b.wav' is not a path
      id: trial1\n =>  => 13 4 'id' is missing: a mushra page needs it
identification: prolific => identification: => 76 None 'qincodec.identification' is empty
{no: b.wav, 2: c.wav} => [b.wav] => 26 4 'stimuli' is a list; it must be a mapping
{no: b.wav, 2: c.wav} => {} => 26 4 'stimuli' has no entry; give at least one
{no: b.wav, 2: c.wav} => {reference: b.wav} => 26 4 'stimuli': a mapping name 'reference' is that of
{no: b.wav, 2: c.wav} => {anchor35: b.wav} => 26 4 'anchor35' is the name of the anchor that this pag
id: trial2 => id: trial1 => 28 5 id 'trial1' is also that of page 4
mustPlayback: ended => mustPlayback: end => 37 8 'mustPlayback' is the text 'end'; allowed are 'ended'
[{value: 1}] => [{label: x}] => 45 9 'response.0.value' is missing
showErrors: false => showErrors: 2 => 59 11 'showErrors' is 2; it must be true or false
type: text, label => type: txt, label => 62 11 'questionnaire.0.type' is the text 'txt'; allowed are
name: n, min => name: age, min => 63 11 two questions are called 'age'; rename one
, response: [{value: a, label: A}] =>  => 64 11 likert question 'l' has no 'response'
training: [trial1] => training: [trial3] => 67 None no page has the id 'trial3' (did you mean 'tr
must_hear_all: false => mustHearAll: false => 68 None the top level has no key 'qincodec.rules.mustHe
items_per_listener: 3 => items_per_listener: 0 => 69 None 'qincodec.items_per_listener' is 0; it must
https://app => javascript:app => 72 None 'qincodec.completion.redirect': the text 'javascript:app
  - - random\n =>   - - type: generic\n    - random\n => 13 5 'random' must be the first entry
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        *(row.replace("\\n", "\n").split(" => ") for row in ERRORS.strip("\n").splitlines()),
        (
            "content: Thanks",
            f"content: {'<p>' * 4001}",
            f"56 11 'content': the text '{'<p>' * 19}...' has 4001 tags; at most 4000 are allowed",
        ),
    ],
)
def test_errors_with_line_and_page(write: Callable[[str], Path], old: str, new: str, expected: str) -> None:
    assert WHOLE.count(old) >= 1
    path = write(WHOLE.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    first = next(line for line in problems(path) if line.startswith(expected[:40]))
    assert first.startswith(expected)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}:")


def test_a_key_with_no_value_is_absent(write: Callable[[str], Path]) -> None:
    path = write(WHOLE.replace("showWaveform: true\n", "showWaveform:\n", 1))
    page = next(page for page in load_config(path).flat() if page.id == "trial1")
    assert page.show_waveform is False  # type: ignore[union-attr]


def test_all_errors_are_listed_and_the_first_is_raised(write: Callable[[str], Path]) -> None:
    path = write(
        WHOLE.replace("defaultVolume: 1", "defaultVolume: x").replace("language: de", "language: xx")
    )
    assert len(problems(path)) == 2
    with pytest.raises(ConfigError, match=r":7: error: .*'language'.* \(and 1 more: `mushra check` lists"):
        load_config(path)


def test_finish_must_be_last(write: Callable[[str], Path]) -> None:
    path = write(MINIMAL + "  - {type: finish}\n  - {type: generic, id: z}\n")
    assert problems(path) == ["8 2 the finish page must be the last page, outside random lists"]


@pytest.mark.parametrize(
    "text",
    [
        *("testname: t\ntestId: t\npages: []", "testname: t\ntestId: t\npages: {a: 1}", "testId: t", "- a"),
        *("a", "", "---\n# nothing\n"),
    ],
)
def test_no_test_at_all(write: Callable[[str], Path], text: str) -> None:
    with pytest.raises(ConfigError):
        load_config(write(text))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a test: it has no config\.yaml; give a webMUSHRA YAML file"):
        load_config(tmp_path)


@pytest.mark.timeout(60)
def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    (tmp_path / "folder" / "config.yaml").mkdir(parents=True)
    for given in (tmp_path, tmp_path / "config.yaml", tmp_path / "folder", Path("/dev/zero")):
        with pytest.raises(UserError, match=r"^cannot read test '[^\n]*': it is not a file[^\n]*$"):
            check_config(given)


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(), "more than 100000 values"),
        ("a: &a\n  - *a", "no complete anchor"),
        ("a: *b", "no complete anchor"),
        ("[" * 100_000, "nested more than"),
        ("- " * 5000, "nested more than"),
        ("a: !!python/object/apply:os.system [echo]", "is not allowed"),
        ("a: !!python/name:os.system", "is not allowed"),
        ("a: !!binary aGVsbG8=", "is not allowed"),
        ("a: 1\n---\nb: 1", "a second document"),
        ("a: 1\nb: [", "never closed"),
        ("a:\n    b: 1\n  c: 2", "indentation"),
        ("a: 1\n- b", "'key: value' is expected"),
        ("a: 1\n\tb: 2", "begins with a tab"),
        ("a: {b}", "is not a 'key: value'"),
        ('a: "b" c', "follows the end of the value"),
        ("a: \x00", "unacceptable character"),
        ("x" * (4 * 2**20 + 1), "at most 4194304 are read"),
    ],
    ids=lambda value: value[:20],
)
def test_hostile_yaml(text: str, message: str) -> None:
    with pytest.raises(YamlProblem, match=message):
        parse(text.encode())


def test_not_utf8() -> None:
    with pytest.raises(YamlProblem, match="not UTF-8") as error:
        parse("a: 1\nb: é".encode("latin-1"))
    assert error.value.line == 2


def test_anchors_and_merge_keys_as_in_pyyaml() -> None:
    text = (
        "a: &a {x: 1, y: [1, 2.5, true, null, 'q']}\nb: *a\nc: {<<: *a, x: 3}\nd: {<<: [*a, {z: 1}], y: 0}\n"
    )
    document = parse(text.encode())
    assert resolve(document.value) == yaml.safe_load(text)
    assert document.line(("c", "x")) == 3


def test_messages_cannot_move_the_terminal_s_cursor(write: Callable[[str], Path]) -> None:
    path = write(MINIMAL + '  - "\\e[2J\\n": 1\n    type: "\\e[2J"\n')
    found = [str(finding) for finding in check_config(path)]
    assert any("is not a type" in line for line in found)
    assert all(line.isprintable() for line in found)


def test_mutated_files_are_read_or_refused(write: Callable[[str], Path]) -> None:
    draw = random.Random(0)
    pieces = [
        *"[]{}:,-&*!|>'\"%@`#\n\t \x00é",
        *("<<", "null", "1e999", ".nan", "&a", "*a", "- random", "~", "0x1"),
    ]
    for _ in range(150):
        text = WHOLE
        for _ in range(draw.randint(1, 4)):
            at, length = draw.randrange(len(text)), draw.randint(0, 20)
            text = text[:at] + draw.choice(pieces) * draw.randint(0, 3) + text[at + length :]
        path = write(text)
        for finding in check_config(path):
            assert 1 <= finding.line <= text.count("\n") + 2
            assert "\n" not in str(finding)
