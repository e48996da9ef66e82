"""The embedded demo: what is shipped, and the script that made it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import make_demo
import numpy as np
import pytest
import soundfile

import evaluation.datasets
from evaluation.datasets import Clip, load_dataset
from qincodec.core.errors import UserError

FOLDER = Path(evaluation.datasets.__file__).parent / "demo"
NAMES = sorted(path.stem for path in FOLDER.glob("*.flac"))
RATE = 44100


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QINCODEC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_dataset("demo").clips


def pcm(path: Path) -> np.ndarray:
    """(samples,) 16-bit codes, by soundfile alone."""
    codes, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE and codes.ndim == 1
    return np.asarray(codes, dtype=np.int64)


def test_load(clips: list[Clip]) -> None:
    assert [clip.id for clip in clips] == NAMES and len(NAMES) == 12
    assert len({clip.recording for clip in clips}) == 12
    assert {clip.category for clip in clips} == {"ambience", "effects", "music", "speech"}
    for clip in clips:
        assert (clip.sample_rate, clip.channels, clip.start_s, clip.duration_s) == (RATE, 1, 0.0, 5.0)
        assert clip.lossy is None and clip.error is None
    default = load_dataset()
    assert default.clips == clips and default.excluded == []
    assert default.disclaimer == "demo: 12 made-up clips, not comparable with published figures"


def test_files_match_the_manifest_and_are_small() -> None:
    rows = [json.loads(line) for line in (FOLDER / "demo.jsonl").read_text().splitlines()]
    assert {row["path"]: row["sha256"] for row in rows} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.glob("*.flac")
    }
    sizes = [path.stat().st_size for path in FOLDER.glob("*.flac")]
    assert max(sizes) < 500_000 and sum(sizes) < 5_000_000


def test_a_damaged_demo_file_is_a_failed_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path / "cache"))
    shutil.copytree(FOLDER, tmp_path / "demo")
    shutil.copy(FOLDER / f"{NAMES[0]}.flac", tmp_path / "demo" / f"{NAMES[1]}.flac")
    errors = [clip.error for clip in load_dataset(tmp_path / "demo" / "demo.jsonl").clips]
    assert [error is None for error in errors] == [True, False] + 10 * [True]
    assert "not the file of the manifest" in (errors[1] or "")


@pytest.mark.parametrize("name", NAMES)
def test_levels(name: str) -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    codes = pcm(FOLDER / f"{name}.flac")
    assert len(codes) == 5 * RATE
    assert soundfile.info(FOLDER / f"{name}.flac").subtype == "PCM_16"
    x = codes / 32768
    assert -20 <= pyloudnorm.Meter(RATE).integrated_loudness(x) <= -16
    assert 0.3 < np.max(np.abs(x)) <= 10 ** (-1 / 20)
    assert abs(np.mean(x)) < 1e-3
    assert max(abs(x[0]), abs(x[-1])) < 1e-3  # no click at either end
    spans = x.reshape(50, -1)  # 0.1 s each: no silence, but the voices' pauses
    quietest = 20 * np.log10(np.sqrt(np.mean(spans**2, axis=1)).min())
    assert quietest > (-70 if name.startswith("speech") else -45)


def test_the_clips_are_varied() -> None:
    above_10k, centroids = [], []
    for name in NAMES:
        power = np.abs(np.fft.rfft(pcm(FOLDER / f"{name}.flac") / 32768)) ** 2
        f = np.fft.rfftfreq(5 * RATE, 1 / RATE)
        above_10k.append(10 * np.log10(power[f > 10000].sum() / power.sum()))
        centroids.append(float((f * power).sum() / power.sum()))
    assert sum(level > -30 for level in above_10k) >= 6  # half of them are full-band
    assert max(centroids) / min(centroids) > 5


def test_licences_are_named() -> None:
    text = (FOLDER / "README.md").read_text()
    assert "Frank Wen" in text and "FluidR3" in text and "MERCHANTABILITY" in text
    assert all(f"`{name}`" in text for name in NAMES)


# --- the script -----------------------------------------------------------------------------------------


def test_midi_file_is_standard() -> None:
    # Written out by hand from the Standard MIDI Files 1.0 specification.
    part = make_demo.Part(2, 40, [(0, 0.5, 60, 100), (0.5, 1, 60, 90)], volume=80)
    track = bytes.fromhex(
        "00 ff5103 07a120"  # 120 beats per minute: 500,000 microseconds
        "00 b2 07 50"
        "00 c2 28"
        "00 92 3c 64"
        "8170 82 3c 00"  # 240 ticks as a variable-length quantity
        "00 92 3c 5a"
        "8360 82 3c 00"
        "8f00 ff2f00"
    )
    expected = b"MThd\0\0\0\6\0\0\0\1\1\xe0MTrk" + len(track).to_bytes(4, "big") + track
    assert make_demo.midi_file([part], 120) == expected


def test_finish_sets_level_and_ends() -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    noise = np.random.default_rng(0).standard_normal(6 * RATE) + 0.3
    (x,) = make_demo.finish(noise)
    assert x.dtype == np.float32 and x.shape == (5 * RATE,)
    assert pyloudnorm.Meter(RATE).integrated_loudness(x) == pytest.approx(-18, abs=0.05)
    assert x[0] == 0 and abs(x[-1]) < 1e-6 and abs(x.mean()) < 1e-3
    click = np.zeros(5 * RATE)
    click[::RATE] = 1.0
    assert np.max(np.abs(make_demo.finish(click))) == pytest.approx(10 ** (-1.5 / 20), rel=1e-5)


@pytest.mark.parametrize("name", ["ambience_rain_thunder", "ambience_street", "effects_fire_bell"])
def test_synthesized_clips_are_what_the_script_makes(name: str) -> None:
    pytest.importorskip("pyloudnorm")
    rng = np.random.default_rng([0, list(make_demo.CLIPS).index(name)])
    made = make_demo.finish(make_demo.CLIPS[name](rng))[0] * 32768
    assert np.max(np.abs(made - pcm(FOLDER / f"{name}.flac"))) <= 1  # another FFT may round otherwise


@pytest.mark.long
def test_making_it_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    if not (shutil.which("espeak-ng") and shutil.which("fluidsynth") and make_demo.SOUND_FONT.is_file()):
        pytest.skip("needs espeak-ng, fluidsynth and FluidR3_GM.sf2")
    pytest.importorskip("pyloudnorm")
    for out in ("one", "two"):
        make_demo.main([str(tmp_path / out)])
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / out).iterdir()} for out in ("one", "two"))
    assert one == two and len(one) == 13


def test_missing_programs_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as raised:
        make_demo.main([str(tmp_path / "out")])
    assert raised.value.code == 2
    assert capsys.readouterr().err == "espeak-ng is not installed: apt-get install espeak-ng\n"
    assert not (tmp_path / "out").exists()


def test_a_program_that_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="failed with code 3: broken"):
        make_demo._call(["sh", "-c", "echo broken >&2; exit 3"])
