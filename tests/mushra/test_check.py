"""What `mushra check` sees in a test's audio: files, their agreement, the standard's limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from mushra.check import check_config


def tone(path: Path, seconds: float = 1.0, rate: int = 16000, channels: int = 1, level: float = 0.1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(samples[:, None], channels, axis=1), rate, subtype="FLOAT")


def remarks(path: Path, severity: str) -> list[str]:
    return [finding.message for finding in check_config(path) if finding.severity == severity]


def audio_test(folder: Path, *, n_trials: int = 5, stop_on_errors: bool = True, **extra: Any) -> Path:
    tone(folder / "r.wav")
    tone(folder / "c.wav")
    pages = [
        {"type": "mushra", "id": f"t{n}", "reference": "r.wav", "stimuli": {"C": "c.wav"}, **extra}
        for n in range(n_trials)
    ]
    test = {"testname": "t", "testId": "t", "stopOnErrors": stop_on_errors, "pages": pages}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(test))
    return path


def test_a_good_test_has_no_errors(tmp_path: Path) -> None:
    path = audio_test(tmp_path, n_trials=7, createAnchor35=True)
    assert remarks(path, "error") == []
    (warning,) = remarks(path, "warning")  # names of conditions reach the browser
    assert "names such as 'C'" in warning


def test_signals_that_do_not_fit(tmp_path: Path) -> None:
    path = audio_test(tmp_path, n_trials=1, createAnchor35=True)
    tone(tmp_path / "c.wav", seconds=1.5, rate=8000, channels=2)
    assert remarks(path, "error") == [
        "sample rate of 'C' is 8000 Hz, that of the reference 16000 Hz",
        "number of channels of 'C' is 2, that of the reference 1",
        "length of 'C' is 12000 samples, that of the reference 16000 samples",
    ]
    path = audio_test(tmp_path, n_trials=1, stop_on_errors=False)
    tone(tmp_path / "c.wav", seconds=1.5)
    assert remarks(path, "error") == []
    assert any(message.startswith("length of 'C'") for message in remarks(path, "warning"))


def test_signals_of_a_trial_without_a_reference_must_fit_the_first(tmp_path: Path) -> None:
    tone(tmp_path / "r.wav")
    tone(tmp_path / "c.wav", seconds=1.5)
    stimuli = {"A": "r.wav", "B": "c.wav"}
    pages = [{"type": "ab", "id": "t0", "stimuli": stimuli}, {"type": "abx", "id": "t1", "stimuli": stimuli}]
    test = {"testname": "t", "testId": "t", "stopOnErrors": True, "pages": pages}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(test))
    assert remarks(tmp_path, "error") == ["length of 'B' is 24000 samples, that of 'A' 16000 samples"] * 2
    assert remarks(tmp_path, "warning") == [
        "`mushra serve` shows pages of type 'ab', 'abx'; an unmodified webMUSHRA does not know them"
    ]


def test_missing_damaged_and_outside_files(tmp_path: Path) -> None:
    folder = tmp_path / "test"
    path = audio_test(folder, n_trials=1)
    (folder / "c.wav").unlink()
    assert "no such file" in remarks(path, "error")[0]
    (folder / "c.wav").write_bytes(b"RIFF")
    assert len(remarks(path, "error")) == 1
    tone(tmp_path / "secret.wav")
    (folder / "c.wav").unlink()
    (folder / "c.wav").symlink_to(tmp_path / "secret.wav")
    assert "a link that leads out" in remarks(path, "error")[0]


def test_anchors_and_pictures_that_cannot_be_had(tmp_path: Path) -> None:
    path = audio_test(tmp_path, n_trials=1, createAnchor35=True, createAnchor70=True)
    for name in ("r.wav", "c.wav"):
        tone(tmp_path / name, rate=11025)
    assert [
        "anchor70 needs a sample rate of at least 16000 Hz" in text for text in remarks(path, "error")
    ] == [True]
    likert = {"type": "likert_single_stimulus", "id": "l", "stimuli": {"C": "c.wav"}}
    response = [{"value": 1, "img": "i.png"}]
    path.write_text(
        yaml.safe_dump({"testname": "t", "testId": "t", "pages": [{**likert, "response": response}]})
    )
    assert remarks(path, "error") == [f"'i.png': no such file in '{tmp_path}'"]


def test_silence_and_clipping_are_warned_about(tmp_path: Path) -> None:
    path = audio_test(tmp_path, n_trials=1)
    tone(tmp_path / "r.wav", level=0.0)
    tone(tmp_path / "c.wav", level=2.0)
    found = remarks(path, "warning")
    assert "'r.wav' is silent" in found
    assert "'c.wav' peaks at +6.02 dBFS and will clip" in found


def test_limits_of_the_standard(tmp_path: Path) -> None:
    stimuli = {f"C{n}": "c.wav" for n in range(12)}
    path = audio_test(tmp_path, n_trials=4, stimuli=stimuli)
    tone(tmp_path / "r.wav", seconds=12.1)
    tone(tmp_path / "c.wav", seconds=12.1)
    text = "\n".join(remarks(path, "warning"))
    assert "13 signals in one trial" in text
    assert "an excerpt lasts 12.1 s" in text
    assert "4 items for 12 systems under test" in text
    assert "here 18" in text
    assert "4 of 4 trials have no anchor35" in text
    assert "each listener rates 4 items: under 7 screening does not exclude listeners" in text


def test_what_a_listener_is_given_decides_about_screening(tmp_path: Path) -> None:
    """10 trials, of which each listener gets 6 or 7."""
    path = audio_test(tmp_path, n_trials=10)
    config = yaml.safe_load(path.read_text())
    for few in (6, 7):
        pages = [["random", *config["pages"]]]
        path.write_text(yaml.safe_dump({**config, "pages": pages, "qincodec": {"items_per_listener": few}}))
        found = [text for text in remarks(path, "warning") if "screening does not exclude" in text]
        assert [text[:27] for text in found] == ["each listener rates 6 items"] * (few == 6)


def test_more_items_per_listener_than_there_are(tmp_path: Path) -> None:
    """10 trials in one random list: blocks of 3 and 4."""
    path = audio_test(tmp_path, n_trials=10)
    config = yaml.safe_load(path.read_text())

    def said(pages: list[object], **section: int) -> str:
        path.write_text(yaml.safe_dump({**config, "pages": pages, "qincodec": section}))
        return "".join(text for text in remarks(path, "warning") if text.startswith("items_per_listener"))

    shuffled: list[object] = [["random", *config["pages"]]]
    assert not said(shuffled, items_per_listener=10) and not said(shuffled, items_per_listener=4, blocks=3)
    assert "longest random list has 10 entries" in said(shuffled, items_per_listener=11)
    assert "a block of the longest random list has 4 entries" in said(
        shuffled, items_per_listener=5, blocks=3
    )
    assert "no random list" in said(config["pages"], items_per_listener=5)


def test_names_shown_to_listeners_are_warned_about(tmp_path: Path) -> None:
    path = audio_test(tmp_path, showConditionNames=True)
    assert sum("'showConditionNames' shows listeners" in text for text in remarks(path, "warning")) == 5


def test_more_than_two_channels_and_several_rates_are_said(tmp_path: Path) -> None:
    path = audio_test(tmp_path, n_trials=7, createAnchor35=True)
    for name in ("r.wav", "c.wav"):
        tone(tmp_path / name, channels=6)
    assert remarks(path, "error") == []
    assert any(
        text.startswith("sounds have 6 channels: they are played") for text in remarks(path, "warning")
    )
    for name in ("r.wav", "c.wav"):
        tone(tmp_path / name, channels=9)
    assert "'reference' has 9 channels; browsers play up to 8" in remarks(path, "error")
    tone(tmp_path / "r.wav", channels=6)
    tone(tmp_path / "c.wav", rate=48000)
    likert = {"type": "likert_multi_stimulus", "id": "l", "stimuli": {"C": "c.wav", "R": "r.wav"}}
    response = [{"value": 1, "label": "bad"}, {"value": 2, "label": "good"}]
    test = {"testname": "t", "testId": "t", "pages": [{**likert, "response": response}]}
    path.write_text(yaml.safe_dump(test))
    (error,) = remarks(path, "error")
    assert error.startswith("'C' has 1 channel, others of this page 6; beyond stereo")
    assert any(text.startswith("sounds have 16000, 48000 Hz") for text in remarks(path, "warning"))
