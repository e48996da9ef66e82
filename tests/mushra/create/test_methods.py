"""`mushra create --method`: each kind of listening test from a run and from folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
import typer
from listening import RATE, make, recording
from typer.testing import CliRunner

from mushra.check import check_config
from mushra.cli.create import register
from mushra.config.load import load_config
from mushra.config.methods import Method
from mushra.config.pages import AbPage, AbxPage, Bs1116Page, ConsentPage, DcrPage, LikertSinglePage
from mushra.create.material import RunMaterial
from mushra.create.methods import MANY_PAGES
from qincodec.core.errors import UserError

PAGES = {"bs1116": Bs1116Page, "ab": AbPage, "abx": AbxPage, "acr": LikertSinglePage, "dcr": DcrPage}


@pytest.mark.parametrize("method", PAGES)
def test_each_method_from_a_run(run: Path, tmp_path: Path, method: Method) -> None:
    key, report = make(RunMaterial(run), tmp_path / "test", method=method, training=1)
    findings = check_config(tmp_path / "test")
    own = method in ("ab", "abx", "dcr")
    assert [finding.severity for finding in findings] == ["warning"] * own
    assert all("an unmodified webMUSHRA does not know them" in finding.message for finding in findings)
    assert not any("standard" in warning for warning in report["warnings"])  # BS.1534's rules are its own
    config = load_config(tmp_path / "test")
    consent, _, training, *trials, _ = config.flat()
    assert isinstance(consent, ConsentPage) and "from 0 (bad) to 100" not in (consent.content or "")
    assert config.is_training(training) and [config.is_training(trial) for trial in trials] == [False] * 3
    text = (tmp_path / "test" / "config.yaml").read_text()
    assert not any(telling in text for telling in ("mp3", "@", "clip"))
    assert (training.content or "").startswith(trials[0].content or "?")
    for page in (training, *trials):
        assert isinstance(page, PAGES[method])
        signals = key["trials"][page.id]["signals"]
        assert {entry["condition"] for entry in signals.values()} == {"mp3@16", "mp3@32", "reference"}
        hidden = {"reference"} if method == "acr" else set()
        assert {signals[name]["condition"] for name in page.stimuli} == {"mp3@16", "mp3@32"} | hidden
        assert all(len(name) == 8 for name in page.stimuli)
        if isinstance(page, LikertSinglePage):
            (scale,) = page.response
            labels = ["Excellent", "Good", "Fair", "Poor", "Bad"]
            assert [(one.value, one.label) for one in scale] == list(zip("54321", labels, strict=True))
            assert page.must_rate and page.must_playback == "ended"
        elif method == "ab":
            assert page.reference is None and len(page.pairs()) == 1
        else:
            assert page.reference == key["trials"][page.id]["reference"]


@pytest.fixture
def create(tmp_path: Path) -> Any:
    """(method, options) -> what `mushra create` prints of a test from folders of three systems."""
    for name in ("ref", "x", "y", "z"):
        (tmp_path / name).mkdir()
        for seed in range(2):
            soundfile.write(tmp_path / name / f"r{seed}.wav", recording(seed, 1.2), RATE, subtype="FLOAT")
    app = typer.Typer()
    register(app)

    def call(method: str, *options: str, systems: str = "xyz") -> str:
        line = ["create", "--reference", tmp_path / "ref", "--method", method, "--training", "0", "--force"]
        line += [part for name in systems for part in ("--condition", f"{name}={tmp_path / name}")]
        result = CliRunner().invoke(app, [*map(str, line), "--out", str(tmp_path / "test"), *options])
        if isinstance(result.exception, UserError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call


def test_options_of_a_method(create: Any, tmp_path: Path) -> None:
    def pages() -> list[Any]:
        return [page for page in load_config(tmp_path / "test").flat() if page.id.startswith("trial")]

    printed = create("ab", "--show-reference", "--language", "de")
    assert "Each listener gets 6 pages: 2 items x 3 pairs" in printed
    assert "; reference\n" in printed
    assert all(page.reference and page.unforced == "Keine Vorliebe" for page in pages())
    printed = create("abx", "--presentations", "11")
    assert "Each listener gets 66 pages: 2 items x 33 presentations" in printed
    assert f"warning: a listener gets 66 pages, over {MANY_PAGES}" in printed
    assert [page.trials for page in pages()] == [11, 11]
    assert "warning: a listener" not in create("abx", "--presentations", "10")
    assert "items_per_listener is 99, but" in create("acr", "--items-per-listener", "99")
    assert "Each listener gets 4 sounds: 1 item x 4 signals" in create("acr", "--items-per-listener", "1")
    report = json.loads((tmp_path / "test" / "create_report.json").read_text())
    assert report["effort"] == {"items": 1, "times": 4, "unit": "sound", "of": "signal"}
    assert "Each listener gets" not in create("mushra")


@pytest.mark.parametrize(
    ("method", "options", "systems", "said"),
    [
        ("abx", ["--anchors", "35"], "xyz", "--anchors goes with --method mushra, not with abx"),
        ("dcr", ["--anchors", "none"], "xyz", "--anchors goes with --method mushra, not with dcr"),
        ("acr", ["--show-reference"], "xyz", "--show-reference goes with --method ab, not with acr"),
        ("mushra", ["--presentations", "2"], "xyz", "--presentations goes with --method abx"),
        ("abx", ["--presentations", "0"], "xyz", "--presentations is 0; allowed: 1 to 100"),
        ("bs1116", ["--preset", "paper"], "xyz", "--preset paper is a MUSHRA test"),
        ("ab", [], "x", "--method ab compares systems with each other, and there is only one"),
    ],
)
def test_options_of_other_methods_are_refused(
    create: Any, method: str, options: list[str], systems: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        create(method, *options, systems=systems)
