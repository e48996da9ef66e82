"""Folders of files decoded elsewhere: which file belongs to which clip, and what part of it."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.rendered import Rendered
from qincodec import audio
from qincodec.core.errors import UserError

RATE = 8000


def ramp(num_samples: int, channels: int = 1) -> np.ndarray:
    """Samples that tell where they lie."""
    return np.tile(np.arange(num_samples, dtype=np.float32) / 100_000, (channels, 1))


def put(folder: Path, *names: str, seconds: float = 1.0) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(
            folder / name, ramp(round(RATE * seconds)), RATE, "float32" if ".wav" in name else "pcm24"
        )
    return folder


def load(rendered: Rendered, clip_id: str = "a", source: str = "a.wav", **changes: Any) -> Any:
    defaults: dict[str, Any] = {
        "start_s": 0.0,
        "duration_s": 1.0,
        "source_duration_s": 1.0,
        "sample_rate": RATE,
        "channels": 1,
    }
    return rendered.load(clip_id, source, **{**defaults, **changes})


@pytest.mark.parametrize(
    ("files", "clip_id", "found"),
    [
        (["music/a.wav", "a.wav"], "music/a", "music/a.wav"),
        (["music/a.flac"], "music/a", "music/a.flac"),
        (["music/a@10s.wav", "music/a.wav"], "music/a@10s", "music/a@10s.wav"),
        (["music/a.wav", "music/a@5s.wav"], "music/a@10s", "music/a.wav"),
        (["decoded/16/a@2.5s.wav"], "music/a@2.5s", "decoded/16/a@2.5s.wav"),
        (["decoded/16/a.wav"], "music/a@2.5s", "decoded/16/a.wav"),
        (["a.v2.wav", "a.wav"], "a.v2", "a.v2.wav"),
        (["-0abc_30.wav"], "-0abc_30", "-0abc_30.wav"),
    ],
)
def test_finds_the_file_of_a_clip(files: list[str], clip_id: str, found: str, tmp_path: Path) -> None:
    rendered = Rendered("x", put(tmp_path, *files))
    assert rendered.find(clip_id, "unrelated.ogg") == tmp_path / found


def test_finds_by_the_name_of_the_reference(tmp_path: Path) -> None:
    # A data set may name its clips by something else than the file.
    assert Rendered("x", put(tmp_path, "Yabc.wav")).find("abc_30", "Yabc.ogg") == tmp_path / "Yabc.wav"


def test_accents_read_the_same_however_composed(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "Dvořák")
    rendered = Rendered("x", put(tmp_path, f"{name}.wav"))
    assert rendered.find(unicodedata.normalize("NFC", "Dvořák"), "x.wav") == tmp_path / f"{name}.wav"


def test_ambiguous_files_are_refused(tmp_path: Path) -> None:
    rendered = Rendered("x", put(tmp_path, "a.wav", "a.flac", "p/b.wav", "q/b.wav"))
    for clip_id in ("a", "music/b"):
        with pytest.raises(UserError, match="2 files fit") as caught:
            rendered.find(clip_id, "unrelated.wav")
        assert "\n" not in str(caught.value)


def test_two_recordings_never_share_a_file(tmp_path: Path) -> None:
    rendered = Rendered("x", put(tmp_path, "1.wav"))
    assert rendered.find("a/1", "1.wav") == rendered.find("a/1@5s", "1.wav")
    with pytest.raises(UserError, match="fits two recordings, 'a/1' and 'b/1'"):
        rendered.find("b/1", "1.wav")


def test_a_missing_file_is_reported_with_the_names_tried(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'m/b@10s' or 'm/b' or 'b@10s' or 'b' or 'src'"):
        Rendered("x", put(tmp_path, "a.wav")).find("m/b@10s", "src.ogg")


def test_folder_without_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        Rendered("x", tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("no audio")
    put(tmp_path / ".trash", "a.wav")
    with pytest.raises(UserError, match="no audio file"):
        Rendered("x", tmp_path)
    with pytest.raises(UserError, match="positive number"):
        Rendered("x", put(tmp_path, "a.wav"), kbps=-3)


def test_cuts_the_excerpt_from_a_whole_recording(tmp_path: Path) -> None:
    rendered = Rendered("x", put(tmp_path, "a.wav", seconds=4.05))
    clip = load(rendered, "a@2s", start_s=2.0, source_duration_s=4.0)
    np.testing.assert_array_equal(clip.audio, ramp(4 * RATE)[:, 2 * RATE : 3 * RATE])
    assert clip.notes == ("cut from 2 s on",)


@pytest.mark.parametrize(
    ("seconds", "note"), [(1.0, ()), (1.09, "720 samples longer"), (0.95, "400 samples shorter")]
)
def test_takes_the_file_of_an_excerpt_as_it_is(seconds: float, note: Any, tmp_path: Path) -> None:
    rendered = Rendered("x", put(tmp_path, "a@2s.wav", seconds=seconds))
    clip = load(rendered, "a@2s", start_s=2.0, source_duration_s=4.0)
    np.testing.assert_array_equal(clip.audio, ramp(round(seconds * RATE)))
    assert clip.notes == (note or ()) if not note else note in clip.notes[0]
    assert clip.path == tmp_path / "a@2s.wav"


def test_a_whole_recording_keeps_its_end(tmp_path: Path) -> None:
    # An encoder's delay makes files longer; the alignment needs what is behind the nominal end.
    clip = load(Rendered("x", put(tmp_path, "a.wav", seconds=1.05)))
    assert clip.audio.shape == (1, round(1.05 * RATE))


@pytest.mark.parametrize("seconds", [0.5, 0.89, 1.2, 3.8])
def test_other_lengths_are_refused_with_all_lengths(seconds: float, tmp_path: Path) -> None:
    rendered = Rendered("x", put(tmp_path, "a.wav", seconds=seconds))
    with pytest.raises(UserError, match=rf"lasts {seconds:.3f} s, .* lasts 1\.000 s .* 4\.000 s"):
        load(rendered, source_duration_s=4.0)


def test_resampling_and_mixing_are_done_and_noted(tmp_path: Path) -> None:
    stereo = np.stack([ramp(RATE)[0], 3 * ramp(RATE)[0]])
    audio.write(tmp_path / "a.wav", stereo, RATE)
    clip = load(Rendered("x", tmp_path), sample_rate=2 * RATE)
    assert clip.notes == ("resampled from 8000 Hz", "mixed from 2 to 1 channels")
    assert clip.audio.dtype == np.float32
    expected = audio.resample(2 * ramp(RATE), RATE, 2 * RATE)
    np.testing.assert_allclose(clip.audio, expected, atol=1e-6)


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"not audio at all")
    with pytest.raises(UserError, match=r"a\.wav"):
        load(Rendered("x", tmp_path))


def test_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    rendered = Rendered("x", put(tmp_path, "a.wav"))
    path = rendered.find("a", "a.wav")
    assert rendered.fingerprint(path) == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
