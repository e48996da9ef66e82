"""What `mushra create` writes into the YAML besides items: questions, instructions, our section."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import typer
from listening import RATE, recording
from typer.testing import CliRunner

from mushra.cli.create import register
from mushra.config.load import load_config
from mushra.config.pages import ConsentPage, FinishPage, MushraPage
from mushra.server.sanitize import sanitize
from qincodec.core.errors import UserError


@pytest.fixture
def create(tmp_path: Path) -> Callable[..., Path]:
    """(options) -> folder of a test of two conditions; raises what the command raises."""
    for name in ("ref", "x"):
        (tmp_path / name).mkdir()
        for seed in range(2):
            soundfile.write(tmp_path / name / f"r{seed}.wav", recording(seed, 1.2), RATE, subtype="FLOAT")
    app = typer.Typer()
    register(app)

    def call(*options: Any) -> Path:
        folders = ["--reference", tmp_path / "ref", "--condition", f"x={tmp_path / 'x'}"]
        line = [*folders, "--items", 1, "--training", 0, "--out", tmp_path / "test", "--force", *options]
        result = CliRunner().invoke(app, ["create", *map(str, line)])
        if isinstance(result.exception, UserError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return tmp_path / "test"

    return call


def test_the_defaults(create: Callable[..., Path]) -> None:
    config = load_config(create())
    *_, trial, finish = config.flat()
    assert isinstance(finish, FinishPage) and isinstance(trial, MushraPage)
    names = [question.name for question in finish.questionnaire or []]
    assert names == ["age", "experience", "headphones", "remarks"]
    assert trial.enable_looping
    section = config.section
    assert (section.identification, section.languages, section.headphone_check) == (
        "anonymous",
        ["en"],
        False,
    )
    assert section.completion.code is None and section.completion.redirect is None


def test_every_option_is_in_the_yaml(create: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "hello.md").write_text("# Hello\n\nListen *closely*.\n\n- quiet room\n- <b>headphones</b>\n")
    folder = create(
        *("--no-questionnaire", "--no-loop", "--headphone-check", "--once-per-person"),
        *("--identification", "prolific", "--completion-code", "C 1&2", "--languages", "de,en"),
        *("--items-per-listener", 1, "--instructions", tmp_path / "hello.md"),
    )
    config = load_config(folder)
    consent, *_, trial, finish = config.flat()
    assert isinstance(consent, ConsentPage) and isinstance(trial, MushraPage)
    assert isinstance(finish, FinishPage) and finish.questionnaire is None
    assert not trial.enable_looping
    # CommonMark's own rules for a heading, emphasis and a tight list with inline HTML.
    assert consent.content == (
        "<h1>Hello</h1>\n<p>Listen <em>closely</em>.</p>\n"
        "<ul>\n<li>quiet room</li>\n<li><b>headphones</b></li>\n</ul>"
    )
    assert sanitize(consent.content) == consent.content
    section = config.section
    assert section.identification == "prolific"
    assert section.completion.code == "C 1&2"
    assert section.completion.redirect == "https://app.prolific.com/submissions/complete?cc=C%201%262"
    assert section.languages == ["en", "de"]  # the test's own first
    assert section.headphone_check and section.one_session_per_person and section.items_per_listener == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--languages", "en,xx"], "--languages is 'xx': input should be 'en', 'de', 'fr' or 'es'"),
        (
            ["--redirect", "example.org"],
            "--redirect is 'example.org': is not a web address; it must begin",
        ),
        (
            ["--items-per-listener", "0"],
            "--items-per-listener is '0': input should be greater than or",
        ),
        (["--instructions", "/nowhere.md"], "cannot read instructions '/nowhere.md': No such file"),
    ],
)
def test_bad_values_are_named(create: Callable[..., Path], options: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        create(*options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_instructions(create: Callable[..., Path], tmp_path: Path) -> None:
    for name, data, message in (
        ("empty.md", b" \n", "are empty"),
        ("latin.md", "Prüfung".encode("latin-1"), "are not UTF-8"),
        ("long.md", b"word " * 25_000, "more than 100000 bytes"),
        ("tags.md", b"*a* " * 3000, "more than 4000 tags"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=message):
            create("--instructions", tmp_path / name)
