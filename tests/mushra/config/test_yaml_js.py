"""Our YAML in webMUSHRA and webMUSHRA's YAML here: both as its parser, yaml.js, reads them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from listening import make, recording
from mutations import little_memory
from webmushra_snippets import SNIPPETS
from yaml_js import read_all

from mushra.check import check_config
from mushra.config.load import load_config
from mushra.config.methods import Method
from mushra.config.pages import Language
from mushra.config.texts import TEXTS
from mushra.config.yaml_dump import dump
from mushra.config.yaml_js import YamlProblem, resolve
from mushra.config.yaml_lines import parse
from mushra.create.documents import Options, Trial, make_config
from mushra.create.material import FolderMaterial


def read(text: str) -> Any:
    return parse(text.encode()).value


def assert_same(text: str, theirs: dict[str, Any]) -> None:
    """That yaml.js reads what we read, as the text of the file and with numbers and words resolved."""
    ours = read(text)
    assert "error" not in theirs, (text, theirs)
    assert ours == theirs["text"], text
    # Nobody wants dates and infinite numbers: there, as anywhere, we keep the text.
    assert without_dates(resolve(ours), theirs["typed"]) == theirs["typed"], text


def without_dates(ours: Any, theirs: Any) -> Any:
    """``ours``, with their value where theirs is a date."""
    if isinstance(ours, str) and isinstance(theirs, dict) and theirs.keys() == {"date"}:
        return theirs
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {key: without_dates(value, theirs.get(key)) for key, value in ours.items()}
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [without_dates(*pair) for pair in zip(ours, theirs, strict=True)]
    return ours


def test_webmushra_s_yaml_is_read_as_yaml_js_reads_it(shared: Callable[[str], Path]) -> None:
    assert len(SNIPPETS) >= 60
    for text, theirs in zip(SNIPPETS, read_all(SNIPPETS), strict=True):
        assert_same(text, theirs)
    real = shared("mushra/AES2023_webmushra_config.yaml").read_text(encoding="utf-8")
    assert_same(real, read_all([real])[0])


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("a:\n  - - random\n    - b\n", {"a": [["random", "b"]]}),
        ("a: {one key: b.wav}\n", {"a": {"one key": "b.wav"}}),
        ("a: {b: , c: }\n", {"a": {"b": None, "c": None}}),
        ("a: &x 1\nb: [*x]\n", {"a": "1", "b": ["1"]}),
        ('a: "\\u00e9\\ud83c\\udfa7"\n', {"a": "é🎧"}),
        ("a:\n  - b: |\n      x\n      # y\n", {"a": [{"b": "x\n# y\n"}]}),
        ("- b: |\n    # h\n    # i\n- c\n", [{"b": "# h\n# i\n"}, "c"]),
        ("a: [\n  b,\n  c # d\n]\n", {"a": ["b", "c"]}),
        ('a: "one\\\n  \\ two"\n', {"a": "one two"}),
    ],
)
def test_what_yaml_js_refuses_or_garbles_is_read_as_yaml_has_it(text: str, ours: Any) -> None:
    assert read(text) == ours
    theirs = read_all([text])[0]
    assert theirs.get("text") != ours  # else it needs no place in the list of exceptions


@pytest.mark.parametrize("style", ["|", "|+", "|-", ">", ">+", ">-"])
def test_text_blocks_are_read_as_yaml_js_reads_them(style: str) -> None:
    bodies = [
        *("", "\n", "\n\n", "    # h\n", "    x\n", "    x\n\n", "    x\n    y\n"),
        "    x\n      y\n    z\n",
    ]
    texts = [
        f"{key} {style}\n{body}{after}"
        for key, others in [("a:", ["c: 1\n"]), ("-", ["- c\n"]), ("- b:", ["- c\n", "  c: 1\n"])]
        for body in bodies
        for after in ["", *others]
        # There, yaml.js loses the first blank line.
        if not (key == "- b:" and body.startswith("\n"))
    ]
    for text, theirs in zip(texts, read_all(texts), strict=True):
        assert_same(text, theirs)


@pytest.mark.parametrize("content", ["!Important: wear headphones", "!", "!!! Quiet, please", "![x](y) z"])
def test_text_that_begins_with_an_exclamation_mark_is_not_a_tag(content: str) -> None:
    text = f"content: {content}\nname: x\n"
    # yaml.js takes it whole, too; there, it becomes null in the end, for want of a decoder.
    assert read(text) == {"content": content, "name": "x"} == read_all([text])[0]["text"]
    assert resolve(read(text))["content"] == content


def test_tests_of_older_versions_are_read() -> None:
    # They were written by PyYAML, which folds lines at 100 columns.
    config = {
        "testname": "x" * 60 + " y" * 60,
        "pages": [["random", {"type": "mushra", "content": "a: b\n\tc #"}]],
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100)
    value = read(text)
    assert value["testname"].split() == config["testname"].split()  # type: ignore[attr-defined]
    assert value["pages"] == config["pages"]


# What we write


_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=30) | st.text(
    "ab :#-'\"\\,[]{}&*!|>%@`?\n\t0123456789_.é\u2028\x85\U0001f3a7", max_size=12
)
_words = [
    *("null", "~", "yes", "no", "true", "010", "0x10", "1e3", "1_000", "1:30", "2024-01-02", "Infinity"),
    *(".inf", "-", "", " a ", "y"),
]
_names = _text | st.sampled_from(_words)
_leaves = (
    _names
    | st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(-1e6, 1e6, allow_subnormal=False)
)
_documents = st.dictionaries(
    _names,
    st.recursive(
        _leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4)
    ),
    min_size=1,
    max_size=5,
)


def test_whatever_we_write_is_read_alike_by_yaml_js_by_pyyaml_and_here() -> None:
    written: list[tuple[dict[str, Any], str]] = []

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(_documents)
    def write(value: dict[str, Any]) -> None:
        if "<<" not in str(value) and "__proto__" not in str(value):
            text = dump(value)
            assert resolve(read(text)) == value
            if all(character.isprintable() or character in "\n" for character in text):
                assert yaml.safe_load(text) == value
            written.append((value, text))

    write()
    assert len(written) > 200
    for (value, text), theirs in zip(written, read_all([text for _, text in written]), strict=True):
        assert theirs.get("typed") == value, text


NAMES = [
    "plain",
    "18_27",
    "a: b",
    "c #d",
    'it\'s "q"',
    *("ü 🎧", "- x", "010", "yes", "{z}", "k: *a", "trailing:"),
]


def trial(page: str) -> Trial:
    files = {name: (name, f"stimuli/{name}.wav", "") for name in NAMES}
    files["reference"] = ("reference", "stimuli/r 1.wav", "")
    return Trial(page, None, None, files)  # type: ignore[arg-type]


@pytest.mark.parametrize("language", sorted(TEXTS))
def test_yaml_js_reads_every_variant_of_a_test_of_ours(language: Language) -> None:
    trials = [trial("training1"), trial("trial01"), trial("trial02")]
    configs = [
        make_config(Options(language=language, questionnaire=asked, title=title), trials, "a-test")
        for asked in (False, True)
        for title in (None, "Codecs: 8 & 16 kbit/s # really?", "010")
    ]
    configs += [
        make_config(Options(method=method, language=language), trials, "a-test")
        for method in get_args(Method)
    ]
    texts = [dump(config) for config in configs]
    for config, text, theirs in zip(configs, texts, read_all(texts), strict=True):
        assert theirs["typed"] == config
        assert_same(text, theirs)
        # The graded pages are a list of their own, which webMUSHRA shuffles.
        assert theirs["typed"]["pages"][3][0] == "random"


def test_yaml_js_reads_the_file_of_mushra_create(tmp_path: Path) -> None:
    import soundfile

    for folder in ("reference", "my codec - fast", "x"):
        (tmp_path / folder).mkdir()
        for seed in range(3):
            soundfile.write(tmp_path / folder / f"clip {seed}: a.wav", recording(seed), 16000)
    conditions = [f"{name}={tmp_path / name}" for name in ("my codec - fast", "x")]
    source = FolderMaterial(str(tmp_path / "reference"), conditions)
    make(source, tmp_path / "test", items=2, open_names=True, questionnaire=True)
    text = (tmp_path / "test" / "config.yaml").read_text(encoding="utf-8")
    theirs = read_all([text])[0]
    assert_same(text, theirs)
    graded = theirs["typed"]["pages"][3]
    assert graded[0] == "random"
    assert [page["type"] for page in graded[1:]] == ["mushra", "mushra"]
    assert all("my codec - fast" in page["stimuli"] for page in graded[1:])
    assert load_config(tmp_path / "test").test_id == theirs["typed"]["testId"]


# Whatever stands in a file


PIECES = [
    *"[]{}:,-&*!|>'\"%@`#\n\t \x00é",
    *(
        *("<<: ", "null", "1e999", ".nan", "&a ", "*a", "- random", "- - ", "~", "0x1", ": ", " #", "|\n"),
        *(">\n", "\r"),
    ),
    *("\\", '\\"', "\\ud800", "\\U00110000", "!!str ", "---\n", "...\n", "[" * 50, "- " * 50, "  " * 30),
]


def mutated(draw: random.Random, text: str) -> bytes:
    for _ in range(draw.randint(1, 6)):
        at, length = draw.randrange(len(text) + 1), draw.choice((0, 0, 1, 3, 20, 200))
        text = text[:at] + draw.choice(PIECES) * draw.randint(0, 3) + text[at + length :]
    data = text.encode()
    return data if draw.random() < 0.95 else data + bytes([draw.randrange(256)])


def fuzz(count: int, path: Path) -> None:
    """That every mutated file is a test or refused by findings of one line, each with its place."""
    draw = random.Random(7)
    for _ in range(count):
        data = mutated(
            draw, "\n".join(draw.sample(SNIPPETS, 3)) if draw.random() < 0.3 else draw.choice(WHOLE)
        )
        path.write_bytes(data)
        for finding in check_config(path):
            assert 1 <= finding.line <= data.count(b"\n") + data.count(b"\r") + 2
            assert str(finding).isprintable()


def _whole() -> list[str]:
    pages = "\n".join(f"  - {line}" for line in ("type: generic", "{type: finish}"))
    trials = [trial("training1"), trial("trial01")]
    ours = [
        dump(make_config(Options(questionnaire=True, language=name), trials, "t")) for name in sorted(TEXTS)
    ]
    return [*ours, *SNIPPETS, f"testname: t\ntestId: t\npages:\n{pages}\n"]


WHOLE = _whole()


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    fuzz(300, tmp_path / "t.yaml")


@pytest.mark.long
@pytest.mark.timeout(3600)
@little_memory()
def test_ten_thousand_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    fuzz(10_000, tmp_path / "t.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 1_000_000,
        "a: " + "'" * 999_999,
        'a: "' + "\\" * 1_000_001,
        "- " * 1_000_000,
        "a:\n" * 300_000,
        "a: [x, y]\n" * 200_000,
        "a: [" + "x," * 500_000,
        "a: 'x\n" + "b: y\n" * 400_000,
        "a: {b: [x,\n" + "c,\n" * 400_000,
        "a: x\n" + "  y\n" * 400_000,
        "a:" + " " * 2_000_000 + "x",
        "a: |\n" + "\n" * 2_000_000,
        "".join(" " * depth + "- a:\n" for depth in range(1500)),
        "a: " + "x #" * 1_000_000,
        ": " * 1_000_000,
    ],
    ids=lambda text: repr(text[:12]),
)
@pytest.mark.timeout(120)
def test_large_hostile_files_take_no_more_than_moments(text: str) -> None:
    with contextlib.suppress(YamlProblem):
        parse(text.encode())
