"""Tests that webMUSHRA runs and a strict reader refuses: they load, with warnings where something is odd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner
from webmushra_cases import PLAIN_COLON, SCALES, UNKNOWN, VALUES, write_case

from mushra.check import check_config
from mushra.cli.main import app
from mushra.config.load import load_config
from mushra.config.pages import FinishPage, LikertSinglePage, MushraPage, SpatialPage


def test_a_colon_in_a_value_is_text(tmp_path: Path) -> None:
    config = load_config(write_case(tmp_path, PLAIN_COLON))
    welcome, trial, _ = config.flat()
    assert (welcome.content, trial.name) == ("Please note: wear headphones.", "Item 1: guitar")


def test_text_is_the_text_of_the_file(tmp_path: Path) -> None:
    config = load_config(write_case(tmp_path, VALUES))
    trial, finish = config.flat()
    assert isinstance(trial, MushraPage)
    assert isinstance(finish, FinishPage)
    assert (config.test_id, trial.id, trial.name) == ("2024_01", "1_2", "1e3")
    assert trial.stimuli == {"a": "a.wav", "010": "b.wav"}
    values = [[one.value for one in question.response or []] for question in finish.questionnaire or []]
    assert values == [["18_27", "1:30", "0x10"], ["yes", "no"], ["1:30", "1e3", "010"]]


def test_several_scales(tmp_path: Path) -> None:
    page = load_config(write_case(tmp_path, SCALES)).flat()[0]
    assert isinstance(page, LikertSinglePage)
    assert [[one.value for one in scale] for scale in page.response] == [["bad", "good"], ["dull", "bright"]]
    assert page.show_waveform


def test_what_webmushra_ignores_is_a_warning(tmp_path: Path) -> None:
    path = write_case(tmp_path, UNKNOWN)
    assert load_config(path).flat()[-1].name == "Bye"
    found = [(f.line, f.page, f.message) for f in check_config(path) if f.severity == "warning"]
    for expected in [
        (3, None, "the top level has no key 'stopOnError' (did you mean 'stopOnErrors'?); it is ignored"),
        (5, 1, "a mushra page has no key 'mushraImg'; it is ignored"),
        (5, 1, "a mushra page has no key 'swichBack' (did you mean 'switchBack'?); it is ignored"),
        (
            9,
            2,
            "'response' of a likert_multi_stimulus page has no key 'image' (did you mean 'img'?);"
            " it is ignored",
        ),
        (11, 4, "id 'same' is also that of another page (this one stores no grades)"),
        (12, 5, "id 't1' is also that of another page (this one stores no grades)"),
        (13, 6, "key 'name' is given twice; the first counts, on line 13"),
        (13, 6, "a finish page has no key 'popupcontent' (did you mean 'popupContent'?); it is ignored"),
    ]:
        assert expected in found
    ids = [page.id for page in load_config(path).flat()]
    assert len(set(ids)) == len(ids) == 6
    checked = CliRunner().invoke(app, ["check", str(path)])
    assert checked.exit_code == 0
    assert f"{path}:5: warning: page 1: a mushra page has no key 'mushraImg'" in checked.output


def test_what_is_wrong_stays_an_error(tmp_path: Path) -> None:
    text = UNKNOWN.replace("id: t2", "id: t1").replace(
        "[{value: 1, image: x.png}]", "[[{value: 1}], [{label: 2}]]"
    )
    found = [str(f) for f in check_config(write_case(tmp_path, text)) if f.severity == "error"]
    assert found == [
        f"{tmp_path}/t.yaml:9: error: page 2: 'response.1.0.value' is missing: a likert_multi_stimulus page"
        " needs it"
    ]
    text = UNKNOWN.replace("id: t2", "id: t1")
    found = [str(f) for f in check_config(write_case(tmp_path, text)) if f.severity == "error"]
    assert [line.split("error: ")[1][:39] for line in found] == ["page 2: id 't1' is also that of page 1;"]


def test_our_own_section_is_ours(tmp_path: Path) -> None:
    path = write_case(tmp_path, PLAIN_COLON + "qincodec: {one_sesion_per_person: true}\n")
    (error,) = [f.message for f in check_config(path) if f.severity == "error"]
    assert "(did you mean 'one_session_per_person'?)" in error


@pytest.mark.parametrize(
    ("word", "value"),
    [("true", True), ("Yes", True), ("on", True), ("1", True), ("FALSE", False), ("no", False)],
)
def test_words_for_true_and_false(tmp_path: Path, word: str, value: bool) -> None:
    text = PLAIN_COLON.replace("    reference:", f"    enableLooping: {word}\n    reference:")
    page = load_config(write_case(tmp_path, text)).flat()[1]
    assert isinstance(page, MushraPage)
    assert page.enable_looping is value


def test_a_spatial_page_with_numbers(tmp_path: Path) -> None:
    text = "testname: t\ntestId: t\npages:\n  - {type: spatial, id: s, framerate: 24, numberofLocObj: 2, "
    text += "stimuli: {1: a.wav}, roomMeasurements: {width: 3.5, name: 'room 1'}}\n"
    page = load_config(write_case(tmp_path, text)).flat()[0]
    assert isinstance(page, SpatialPage)
    assert (page.framerate, page.numberof_loc_obj, page.stimuli) == (24, 2, {"1": "a.wav"})
    assert page.room_measurements == {"width": 3.5, "name": "room 1"}


def test_the_cases_as_they_came(shared: Callable[[str], Path], tmp_path: Path) -> None:
    cases = shared("cases")
    files = sorted(cases.glob("*/*.yaml"))
    assert len(files) == 5
    for file in files:
        path = write_case(tmp_path / file.parent.name, file.read_text(encoding="utf-8"))
        assert [f for f in check_config(path) if f.severity == "error"] == []
