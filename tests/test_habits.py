"""The checks of the language and of a release, and the links of pages outside docs."""

from __future__ import annotations

import re
from pathlib import Path

import language
import pytest
import release

ROOT = Path(__file__).resolve().parents[1]
REFUSED = {r"\bround by magic\b": "name it", r'\blabel="Of': "a noun phrase"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\nkernels round by magic, and", 2),
        ("# kernels round\n    # by magic", 1),
        ('print("kernels round "\n      f"by magic")', 1),
        ("> kernels Round\n> by magic", 1),
        ('typer.Option(\n    label="Of the bootstrap")', 2),
    ],
)
def test_a_refused_turn_is_found_across_lines(text: str, line: int) -> None:
    ((where, _, advice),) = language.findings(text, REFUSED)
    assert (where, advice) == (line, "name it" if "agic" in text else "a noun phrase")


def test_what_is_not_refused_passes() -> None:
    assert not [*language.findings("around by magic, label='the seed', round\nby_magic", REFUSED)]


def test_a_line_of_the_list_without_advice_is_refused() -> None:
    assert language.refused("# why\n\nby magic => name it\n") == {"by magic": "name it"}
    with pytest.raises(ValueError, match="line 2 is 'by magic'; write EXPRESSION => ADVICE"):
        language.refused("# why\nby magic\n")


def test_every_refused_turn_can_be_looked_for() -> None:
    for expression, advice in language.refused((ROOT / language.LIST).read_text(encoding="utf-8")).items():
        assert re.compile(expression) and advice.strip()


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """The files of a release that agree."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("version: 1.2.0\ndate-released: 2026-01-02\n")
    sections = (
        "## [Unreleased]\n\n## [1.2.0] - 2026-01-02\n\nNew.\n\n### Added\n\n- A.\n\n## [1.1.0] - 2025-01-01\n"
    )
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{sections}")
    return tmp_path


def test_the_notes_of_a_release_are_its_section(released: Path) -> None:
    assert release.notes(released, "v1.2.0") == "New.\n\n### Added\n\n- A.\n"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("pyproject.toml", "1.2.0", "1.3.0", r"CHANGELOG.md has no section '## \[1.3.0\] - DATE'"),
        ("CITATION.cff", "1.2.0", "1.1.0", "CITATION.cff has version 1.1.0 of 2026-01-02"),
        ("CITATION.cff", "01-02", "01-03", "CITATION.cff has version 1.2.0 of 2026-01-03"),
    ],
)
def test_a_release_whose_files_disagree_is_refused(
    released: Path, file: str, old: str, new: str, message: str
) -> None:
    path = released / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        release.notes(released, None)


def test_a_release_with_another_tag_is_refused(released: Path) -> None:
    with pytest.raises(ValueError, match=r"the tag is 'v1.2', but .* version 1.2.0; tag it v1.2.0"):
        release.notes(released, "v1.2")


def test_links_of_the_projects_own_pages_are_there() -> None:
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{name} links to {target}"
