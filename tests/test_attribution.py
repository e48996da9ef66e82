"""The attribution file of the shipped weights, against the list of what they were trained on."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attribution
import pytest

from qincodec.model_folder import PRETRAINED

CARD = PRETRAINED / "small" / "README.md"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (PRETRAINED / "small" / "ATTRIBUTION.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_has_an_author_a_licence_and_a_source(rows: list[dict[str, str]]) -> None:
    assert len(rows) == 872
    assert all(row["author"] and row["licence"] and row["source"] for row in rows)
    assert Counter(row["file"].split("/")[1] for row in rows) == {
        "effects": 360,
        "esc10": 320,
        "sonicpi": 183,
        "music": 5,
        "speech": 4,
    }


def test_licences_are_those_of_the_sources(rows: list[dict[str, str]]) -> None:
    """Looked up by hand in the licence files."""
    found = {row["file"]: (row["author"], row["licence"], row["source"]) for row in rows}
    assert found["train/esc10/dog_bark-1-30344-A.ogg"] == (
        "ronfont",
        "CC-BY",
        "http://www.freesound.org/people/ronfont/sounds/30344/",
    )
    assert found["train/effects/close_door__gun_safe__close_safe.ogg"][:2] == ("DoctorBoomstick", "CC BY 4.0")
    assert found["train/effects/environment__weather__drizzle.ogg"] == (
        "klankbeeld",
        "CC BY 3.0",
        "https://freesound.org/people/klankbeeld/sounds/325442/",
    )
    assert found["train/sonicpi/ambi_drone.flac"][1] == "CC0 1.0"
    allowed = re.compile(r"CC ?0( 1\.0)?|CC[- ]BY([- ][34]\.0)?(/CC0)?")
    others = [row for row in rows if not allowed.fullmatch(row["licence"])]
    assert all(row["note"] == "not for the next weights" for row in others)
    assert sorted(row["file"].split("/")[1] for row in others) == ["esc10"] * 2 + ["speech"] * 4
    assert not any(row["note"] for row in rows if row not in others)


def test_it_is_what_the_licence_files_say(shared: Callable[[str], Path]) -> None:
    stream = io.StringIO()
    attribution.write(shared("audio/train.jsonl").parent, stream)
    assert stream.getvalue() == (PRETRAINED / "small" / "ATTRIBUTION.csv").read_text(encoding="utf-8")


def test_the_cards_command_leaves_out_what_must_not_be_trained_on(
    rows: list[dict[str, str]], shared: Callable[[str], Path], tmp_path: Path
) -> None:
    command = next(line for line in CARD.read_text(encoding="utf-8").splitlines() if line.startswith("grep "))
    (tmp_path / "train.jsonl").write_bytes(shared("audio/train.jsonl").read_bytes())
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    kept = [json.loads(line)["path"] for line in (tmp_path / "allowed.jsonl").read_text().splitlines()]
    assert kept == [row["file"] for row in rows if not row["note"]]
    assert len(kept) == 866
