"""`mushra create` from folders: delays, levels, rates, channels, and files that will not do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from listening import RATE, make, recording, signals
from typer.testing import CliRunner

from mushra.cli.create import register
from mushra.create.material import FolderMaterial
from mushra.server import MAX_TEST_ID
from qincodec.core.errors import UserError

Change = Callable[[np.ndarray, int], np.ndarray]


def folders(root: Path, changes: dict[str, Change], n: int = 3) -> list[str]:
    """References in ``root/ref`` and one changed copy per condition; the --condition options."""
    for name in ("ref", *changes):
        (root / name).mkdir(parents=True)
    for seed in range(n):
        samples = recording(seed, 3.0)
        soundfile.write(root / "ref" / f"r{seed}.wav", samples, RATE, subtype="FLOAT")
        for name, change in changes.items():
            soundfile.write(root / name / f"r{seed}.wav", change(samples, seed), RATE, subtype="FLOAT")
    return [f"{name}={root / name}" for name in changes]


def material(root: Path, changes: dict[str, Change], n: int = 3, **options: Any) -> Any:
    """Of such folders."""
    return FolderMaterial(str(root / "ref"), folders(root, changes, n), **options)


def same(samples: np.ndarray, seed: int) -> np.ndarray:
    return samples


def test_delays_in_folders_are_found_and_taken_out(tmp_path: Path) -> None:
    source = material(
        tmp_path,
        {
            "late": lambda samples, seed: np.roll(samples, 37, axis=0),
            "own": lambda samples, seed: np.roll(samples, -3 - seed, axis=0),
            "worse@8": lambda samples, seed: np.round(samples * 8) / 8,
        },
    )
    key, report = make(source, tmp_path / "test", duration_s=2.0, anchors=("anchor35",), training=0)
    for entry in report["items"]:
        trial = key["trials"][entry["trial"]]
        seed = int(trial["clip"][1:])
        assert entry["delays"] == {"late": 37, "own": -3 - seed, "worse@8": 0}
        heard = signals(tmp_path / "test", trial)
        np.testing.assert_array_equal(heard["late"], heard["reference"])
        np.testing.assert_array_equal(heard["own"], heard["reference"])
        start = round(trial["start_s"] * RATE)
        whole = recording(seed, 3.0)[:, 0]
        gain = 10 ** (trial["gain_db"] / 20)
        np.testing.assert_allclose(
            heard["reference"][200:-200], gain * whole[start : start + 32000][200:-200], atol=1e-5
        )
        assert trial["start_s"] % 0.04 == pytest.approx(0, abs=1e-9) or trial["start_s"] % 0.04 > 0.0399
    assert len({trial["start_s"] for trial in key["trials"].values()}) > 1
    assert key["trials"]["trial01"]["signals"]["reference"]["codec"] is None
    assert key["run"] is None


def test_a_reference_above_full_scale(tmp_path: Path) -> None:
    def louder(samples: np.ndarray, seed: int) -> np.ndarray:
        return 1.1 * samples

    conditions = folders(tmp_path, {"x": louder})
    for name in ("ref", "x"):
        samples, _ = soundfile.read(tmp_path / name / "r0.wav")
        samples[20000] = 10 ** (2 / 20) * (1.1 if name == "x" else 1)
        soundfile.write(tmp_path / name / "r0.wav", samples, RATE, subtype="FLOAT")
    source = FolderMaterial(str(tmp_path / "ref"), conditions)
    key, report = make(
        source, tmp_path / "test", items=None, clips=["r0", "r1"], duration_s=2.9, target_lufs=-20.0
    )
    item = report["items"][0]
    assert item["reduced_db"] > 0.5
    heard = signals(tmp_path / "test", key["trials"]["trial01"])
    assert max(np.abs(samples).max() for samples in heard.values()) <= 10 ** (-1 / 20)
    np.testing.assert_allclose(heard["x"], 1.1 * heard["reference"], atol=2e-7)
    assert report["items"][1]["reduced_db"] == 0


def test_stereo_stays_stereo_and_other_rates_are_said(tmp_path: Path) -> None:
    for name in ("ref", "x"):
        (tmp_path / name).mkdir()
    for seed in range(2):
        soundfile.write(tmp_path / "ref" / f"r{seed}.wav", recording(seed, 3, 48000, 2), 48000)
        soundfile.write(tmp_path / "x" / f"r{seed}.wav", recording(seed, 3, 24000, 1), 24000)
    source = FolderMaterial(str(tmp_path / "ref"), [f"x@6={tmp_path / 'x'}"])
    key, report = make(source, tmp_path / "test", items=2, duration_s=2.0, training=0)
    for trial in key["trials"].values():
        for samples in signals(tmp_path / "test", trial).values():
            assert samples.shape == (96000, 2)
    notes = "\n".join(report["items"][0]["warnings"])
    assert "'x@6': resampled from 24000 Hz" in notes
    assert "'x@6': mixed from 1 to 2 channels" in notes


def test_unusable_recordings_are_replaced_and_said(tmp_path: Path) -> None:
    def broken(samples: np.ndarray, seed: int) -> np.ndarray:
        return np.zeros_like(samples) if seed == 0 else samples[: 20000 if seed == 1 else None]

    conditions = folders(tmp_path, {"x": broken}, n=6)
    (tmp_path / "x" / "r2.wav").unlink()
    source = FolderMaterial(str(tmp_path / "ref"), conditions)
    key, report = make(source, tmp_path / "test", items=3, duration_s=2.0, training=0)
    assert {trial["clip"] for trial in key["trials"].values()} <= {"r3", "r4", "r5"}
    for clip, reason in report["skipped"]:
        assert {"r0": "silent", "r1": "lasts 1.250 s", "r2": "nothing for clip 'r2'"}[clip] in reason
    with pytest.raises(UserError, match=r"asked for 4 items, 3 can be made of 6.*'r\d': "):
        make(source, tmp_path / "more", items=4, duration_s=2.0, training=0)
    with pytest.raises(UserError, match="clip 'r0' cannot be an item: 'x' is silent"):
        make(source, tmp_path / "more", items=None, clips=["r0"], duration_s=2.0)
    assert not (tmp_path / "more").exists()


def test_excerpt_with_most_energy(tmp_path: Path) -> None:
    conditions = folders(tmp_path, {"x": same}, n=2)
    for name in ("ref", "x"):
        quiet = recording(0, 6.0)
        quiet[: 3 * RATE] *= 0.01
        soundfile.write(tmp_path / name / "r0.wav", quiet, RATE, subtype="FLOAT")
    source = FolderMaterial(str(tmp_path / "ref"), conditions)
    key, _ = make(
        source, tmp_path / "test", items=None, clips=["r0"], duration_s=2.0, excerpt="energy", training=0
    )
    assert key["trials"]["trial01"]["start_s"] >= 3.0


@pytest.mark.parametrize("excerpt", ["random", "energy"])
def test_a_recording_that_changed_since_it_was_listed_is_not_taken(tmp_path: Path, excerpt: Any) -> None:
    source = material(tmp_path, {"x": same}, n=1)
    soundfile.write(tmp_path / "ref" / "r0.wav", recording(9, 3.0), RATE)
    with pytest.raises(UserError, match=r"r0\.wav' has changed since the command began: .* or begin again"):
        make(source, tmp_path / "test", items=1, duration_s=2.0, excerpt=excerpt, training=0)
    assert not (tmp_path / "test").exists()


@pytest.mark.parametrize("label", ["reference", "anchor35", "anchor70"])
def test_names_that_are_taken(tmp_path: Path, label: str) -> None:
    folders(tmp_path, {"x": same}, n=1)
    with pytest.raises(UserError, match=f"cannot be called '{label}'"):
        FolderMaterial(str(tmp_path / "ref"), [f"{label}={tmp_path / 'x'}"])


def test_an_anchor_the_rate_has_no_room_for(tmp_path: Path) -> None:
    source = material(tmp_path, {"x": same}, sample_rate=11025)
    with pytest.raises(UserError, match="anchor70 needs a sample rate of at least 16000 Hz"):
        make(source, tmp_path / "test")
    key, _ = make(source, tmp_path / "test", anchors=("anchor35",), duration_s=2.0, training=0)
    assert key["sample_rate"] == 11025


def test_names_of_files_are_shown_as_they_are(tmp_path: Path) -> None:
    names = ["[/bold]", ":smile:", "[red]x", "%s {0}", "a,b 'c' \"d\"", "büro тест"]
    for folder in ("ref", "x"):
        for seed, name in enumerate(names):
            path = tmp_path / folder / f"{name}.wav"  # two folders deep, since one name has a slash
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                soundfile.write(file, recording(seed, 3.0), RATE, format="WAV")
    app = typer.Typer()
    register(app)
    options = ["--reference", tmp_path / "ref", "--condition", f"x={tmp_path / 'x'}", "--duration", "2"]
    arguments = ["create", *options, "--out", tmp_path / "out [/x] 'a'"]
    result = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for name in ("[/bold]", ":smile:", "[red]x", "%s {0}", "a,b 'c' \"d\"", "büro тест"):
        assert name in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": ["r0", "r1", "r0"], "items": None}, "--clip r0 is given twice"),
        ({"test_id": "a\nb"}, r"--test-id is 'a\\nb'; allowed: letters"),
        ({"title": "a\x1b[2J"}, r"--title is 'a\\x1b\[2J'; allowed"),
        ({"test_id": 201 * "x"}, "--test-id has 201 characters; allowed: up to 200"),
    ],
)
def test_options_that_no_listener_could_use(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(material(tmp_path, {"x": lambda samples, seed: samples / 2}), tmp_path / "test", **options)


def test_ids_that_serve_takes(tmp_path: Path) -> None:
    source = material(tmp_path, {"x": same})
    _, report = make(source, tmp_path / ("n" * 220), items=2, duration_s=2.0)
    assert len(report["test_id"]) == MAX_TEST_ID
    notes = "\n".join(report["items"][0]["warnings"])
    assert "'x' is the reference itself, sample for sample" in notes


def test_five_point_one_keeps_its_channels_and_has_the_loudness_of_the_standard(tmp_path: Path) -> None:
    """BS.1770: a tone of 997 Hz has its peak's level less 3.01 dB; a surround channel counts 1.41 times."""
    t = np.arange(3 * 48000) / 48000
    tone = 0.1 * np.sin(2 * np.pi * 997 * t)
    for name in ("ref", "x", "stereo"):
        (tmp_path / name).mkdir()
    for clip, channel in (("centre", 2), ("lfe", 3), ("surround", 5)):
        samples = np.zeros((len(t), 6))
        samples[:, channel] = tone
        samples[:, 0] += 0.01 * tone  # the LFE channel does not count
        soundfile.write(tmp_path / "ref" / f"{clip}.wav", samples, 48000, subtype="FLOAT")
        soundfile.write(tmp_path / "x" / f"{clip}.wav", 0.5 * samples, 48000, subtype="FLOAT")
        soundfile.write(tmp_path / "stereo" / f"{clip}.wav", samples[:, :2], 48000, subtype="FLOAT")
    source = FolderMaterial(str(tmp_path / "ref"), [f"x={tmp_path / 'x'}"])
    clips = ["centre", "lfe", "surround"]
    key, report = make(source, tmp_path / "test", items=None, clips=clips, duration_s=2.0, training=0)
    for trial in key["trials"].values():
        for samples in signals(tmp_path / "test", trial).values():
            assert samples.shape == (96000, 6)
    found = {item["clip"]: item["loudness_lufs"] for item in report["items"]}
    assert found["centre"] == pytest.approx(-23.01, abs=0.1)
    assert found["lfe"] == pytest.approx(-63.01, abs=0.1)
    assert found["surround"] == pytest.approx(-23.01 + 10 * np.log10(1.41), abs=0.1)
    mixed = FolderMaterial(str(tmp_path / "ref"), [f"x={tmp_path / 'stereo'}"])
    with pytest.raises(UserError, match="cannot mix 2 channels to 6"):
        make(mixed, tmp_path / "mixed", items=None, clips=clips, duration_s=2.0, training=0)
